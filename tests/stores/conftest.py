"""Fixtures: each store once for the session, with one model of some 300 kB in it."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import AzureStore, S3Store

from tests.cluster.binaries import program
from tests.cluster.locks import Progress
from tests.models import rehydrate
from tests.stores import programs, servers


@pytest.fixture(scope="session")
def model() -> bytes:
    """A model whose weights are worth jumping over."""
    return bytes(rehydrate.rehydrated("squeezenet1_1").SerializeToString())


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="session")
def s3(work: Path, model: bytes, progress: Progress) -> Iterator[dict[str, str]]:
    """What a Secret for a bucket ``models`` would hold."""
    programs.python(progress)
    with servers.s3(work) as url:
        secret = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }
        scope = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request"
        _ask("PUT", f"{url}/models", Authorization=scope)
        store = S3Store(
            "models",
            endpoint=url,
            access_key_id="key",
            secret_access_key="secret",  # noqa: S106 - of a server that lasts as long as the test
            region="us-east-1",
            client_options={"allow_http": True},
        )
        obstore.put(store, "a/model.onnx", model)
        yield secret


def _ask(method: str, url: str, body: bytes | None = None, **headers: str) -> None:
    request = urllib.request.Request(url, data=body, method=method)  # noqa: S310
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    urllib.request.urlopen(request, timeout=30).close()  # noqa: S310


@pytest.fixture(scope="session")
def gcs(work: Path, model: bytes, progress: Progress) -> Iterator[dict[str, str]]:
    program("fake-gcs-server", progress=progress)
    with servers.gcs(work) as url:
        bucket = json.dumps({"name": "models"}).encode()
        _ask("POST", f"{url}/storage/v1/b?project=test", bucket, Content_Type="application/json")
        upload = f"{url}/upload/storage/v1/b/models/o?uploadType=media&name=a/model.onnx"
        _ask("POST", upload, model, Content_Type="application/octet-stream")
        yield {"STORAGE_EMULATOR_HOST": url}


@pytest.fixture(scope="session")
def azure(work: Path, model: bytes, progress: Progress) -> Iterator[dict[str, str]]:
    try:
        programs.azurite(progress)
    except programs.MissingProgramError as error:
        progress(f"NOT TRIED against Azurite: {error}")
        pytest.skip(f"Azurite cannot be had: {error}")
    with servers.azure(work) as url:
        secret = {
            "AZURE_STORAGE_ACCOUNT_NAME": servers.AZURITE_ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": servers.AZURITE_KEY,
            "AZURE_STORAGE_ENDPOINT": url,
        }
        store = AzureStore(
            "models",
            account_name=servers.AZURITE_ACCOUNT,
            account_key=servers.AZURITE_KEY,
            endpoint=url,
            client_options={"allow_http": True},
        )
        servers.make_container(url, "models")
        obstore.put(store, "a/model.onnx", model)
        yield secret
