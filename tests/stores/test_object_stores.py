"""S3, Google Cloud Storage and Azure: only the graph is read, with the credentials of a Secret."""

import hashlib
import os
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from tailwise.models.addresses import AddressPolicy
from tailwise.models.credentials import credentials
from tailwise.models.errors import DigestMismatch, InvalidUrl, ModelForbidden, ModelNotFound
from tailwise.models.inspection import InspectionRequest, identify_async, inspect
from tests.stores.reading import least_read

URLS = {
    "s3": "s3://models/a/model.onnx",
    "gcs": "gs://models/a/model.onnx",
    "azure": "az://models/a/model.onnx",
}
LOCAL = AddressPolicy(allow_local=True)


@pytest.fixture(params=URLS)
def stored(request: pytest.FixtureRequest) -> InspectionRequest:
    secret: dict[str, str] = request.getfixturevalue(request.param)
    return InspectionRequest(url=URLS[request.param], environment=secret, addresses=LOCAL)


def other(request: InspectionRequest, **changes: object) -> InspectionRequest:
    from dataclasses import replace  # noqa: PLC0415

    return replace(request, **changes)  # type: ignore[arg-type]


def test_only_the_graph_of_an_object_is_read(stored: InspectionRequest, model: bytes) -> None:
    profile = inspect(stored)
    assert profile.parameters == 1_233_288
    assert profile.file_bytes == len(model)
    assert least_read(stored, len(model) / 3) < len(model) / 3
    assert (profile.digest != "", profile.digest_source) == (True, "ETag")


def test_a_pinned_digest_of_an_object_is_checked_by_reading_it_whole(
    stored: InspectionRequest, model: bytes
) -> None:
    digest = hashlib.sha256(model).hexdigest()
    profile = inspect(other(stored, sha256=digest))
    assert (profile.digest, profile.digest_source) == (digest, "Sha256")
    with pytest.raises(DigestMismatch):
        inspect(other(stored, sha256="0" * 64))


def test_an_object_that_is_not_there_is_not_found(stored: InspectionRequest) -> None:
    with pytest.raises(ModelNotFound):
        inspect(other(stored, url=stored.url.replace("a/model", "b/none")))


def test_a_bucket_that_is_not_there_is_not_found(stored: InspectionRequest) -> None:
    with pytest.raises(ModelNotFound):
        inspect(other(stored, url=stored.url.replace("models/", "none-such/")))


async def test_an_object_is_identified_without_reading_it(stored: InspectionRequest) -> None:
    profile = inspect(stored)
    identity = await identify_async(stored)
    assert (identity.value, identity.source) == (profile.digest, profile.digest_source)


async def test_an_object_that_was_replaced_is_noticed(s3: dict[str, str], model: bytes) -> None:
    store = S3Store(
        "models",
        endpoint=s3["AWS_ENDPOINT_URL"],
        access_key_id="key",
        secret_access_key="secret",  # noqa: S106 - of a server that lasts as long as the test
        region="us-east-1",
        client_options={"allow_http": True},
    )
    obstore.put(store, "moved.onnx", model)
    request = InspectionRequest(url="s3://models/moved.onnx", environment=s3, addresses=LOCAL)
    before = await identify_async(request)
    obstore.put(store, "moved.onnx", model + b"\x12\x00")
    assert (await identify_async(request)).value not in ("", before.value)


def test_a_store_that_refuses_the_credentials_says_so(azure: dict[str, str]) -> None:
    wrong = azure | {"AZURE_STORAGE_ACCOUNT_KEY": "d3Jvbmc="}
    with pytest.raises(ModelForbidden):
        inspect(InspectionRequest(url=URLS["azure"], environment=wrong, addresses=LOCAL))


@pytest.mark.parametrize(
    "url", ["s3://models/a/model.onnx", "gs://b/m.onnx", "az://c/m.onnx", "pvc://claim/m.onnx"]
)
def test_without_credentials_an_object_is_left_to_an_inspection_job(url: str) -> None:
    with pytest.raises(InvalidUrl, match="inspection Job"):
        inspect(InspectionRequest(url=url, addresses=LOCAL))


def test_a_secret_made_for_kserve_serves_as_it_is(tmp_path: Path) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "id\n",
        "AZ_TENANT_ID": "tenant",
        "gcloud-application-credentials.json": "{}",
        "https-host": "models.example",
        "headers": '{"Authorization": "Bearer x"}',
        "PATH": "/evil",
        "LD_PRELOAD": "/evil.so",
    }.items():
        (tmp_path / name).write_text(value)
    found = credentials({"HOME": os.devnull}, tmp_path)
    assert found["AWS_ACCESS_KEY_ID"] == "id"
    assert found["AZURE_TENANT_ID"] == "tenant"
    assert found["GOOGLE_APPLICATION_CREDENTIALS"].endswith(".json")
    assert found["TAILWISE_HTTPS_HOST"] == "models.example"
    assert not {"PATH", "LD_PRELOAD"} & set(found)
