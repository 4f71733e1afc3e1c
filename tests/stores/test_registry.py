"""Models in a real registry: artefacts by ranges, images' layers walked or unpacked."""

import base64
import gzip
import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tailwise.models.addresses import AddressPolicy
from tailwise.models.credentials import DOCKER_FILE
from tailwise.models.errors import (
    AddressRefused,
    DigestMismatch,
    InvalidUrl,
    ModelForbidden,
    ModelNotFound,
    ModelTooLarge,
    ModelTruncated,
    ModelUnreachable,
    NotAModel,
)
from tailwise.models.fetch import open_source
from tailwise.models.http_source import HttpAccess
from tailwise.models.inspection import InspectionRequest, identify_async, inspect
from tailwise.models.registry import open_artefact
from tests.cluster.binaries import program
from tests.cluster.locks import Progress
from tests.stores import images, programs, servers
from tests.stores.reading import least_read

LOCAL = AddressPolicy(allow_local=True)


@pytest.fixture(scope="module")
def registry(work: Path, progress: Progress) -> Iterator[str]:
    program("registry", progress=progress)
    with servers.registry(work) as address:
        yield address


def request(url: str) -> InspectionRequest:
    return InspectionRequest(url=url, addresses=LOCAL, allow_http=True)


def test_of_an_artefact_only_the_graph_is_read_and_its_digest_needs_no_reading(
    registry: str, model: bytes
) -> None:
    images.push(registry, "team/artefact", "v1", images.artefact("model.onnx", model))
    digest = hashlib.sha256(model).hexdigest()
    profile = inspect(replace(request(f"oci://{registry}/team/artefact:v1"), sha256=digest))
    assert profile.parameters == 1_233_288
    asked = request(f"oci://{registry}/team/artefact:v1")
    assert least_read(asked, len(model) / 3) < len(model) / 3
    assert (profile.digest, profile.digest_source) == (digest, "RegistrySha256")
    with pytest.raises(DigestMismatch):
        inspect(replace(request(f"oci://{registry}/team/artefact:v1"), sha256="0" * 64))


@pytest.mark.parametrize("packed", [False, True], ids=["tar", "gzip"])
@pytest.mark.parametrize("index", [False, True], ids=["image", "index"])
def test_a_modelcar_is_read_from_its_layer(registry: str, model: bytes, packed: bool, index: bool) -> None:
    name = f"car-{packed}-{index}".lower()
    files = {"models/README.md": b"x" * 5000, "models/model.onnx": model, "models/z": b"y" * 5000}
    digest = images.push(registry, name, "latest", images.image(files, packed=packed), index=index)
    profile = inspect(request(f"oci://{registry}/{name}"))
    assert profile.parameters == 1_233_288
    assert profile.digest_source == "ManifestDigest"
    if not packed:
        assert least_read(request(f"oci://{registry}/{name}"), len(model) / 3) < len(model) / 3
    by_digest = inspect(request(f"oci://{registry}/{name}@{digest}?path=model.onnx"))
    assert by_digest.flops == profile.flops


async def test_a_tag_that_was_moved_is_noticed_for_the_price_of_a_manifest(
    registry: str, model: bytes
) -> None:
    url = f"oci://{registry}/moved:v1"
    images.push(registry, "moved", "v1", images.artefact("model.onnx", model))
    profile = inspect(request(url))
    before = await identify_async(request(url))
    assert (before.value, before.source) == (profile.digest, profile.digest_source)
    images.push(registry, "moved", "v1", images.artefact("model.onnx", model + b"\x12\x00"))
    assert (await identify_async(request(url))).value != before.value


def test_what_is_not_there_is_not_found(registry: str, model: bytes) -> None:
    images.push(registry, "some", "v1", images.artefact("model.onnx", model))
    for url in (
        f"oci://{registry}/none:v1",
        f"oci://{registry}/some:v2",
        f"oci://{registry}/some:v1?path=other.onnx",
    ):
        with pytest.raises(ModelNotFound):
            inspect(request(url))


def test_of_several_models_one_must_be_named(registry: str, model: bytes) -> None:
    layers = images.artefact("a.onnx", model) + images.artefact("b.onnx", model[:100])
    images.push(registry, "several", "v1", layers)
    with pytest.raises(InvalidUrl, match="path="):
        inspect(request(f"oci://{registry}/several:v1"))
    assert inspect(request(f"oci://{registry}/several:v1?path=a.onnx")).parameters == 1_233_288


def test_a_registry_with_a_password_is_asked_with_the_secret_for_its_host(
    model: bytes, tmp_path: Path
) -> None:
    # Of "reader" and "word", by bcrypt at its least cost.
    users = tmp_path / "users"
    users.write_text(_bcrypt())
    pair = base64.b64encode(b"reader:word").decode()
    with servers.registry(tmp_path, password_file=users) as address:
        url = f"oci://{address}/private:v1"
        images.push(address, "private", "v1", images.artefact("m.onnx", model), authorization=f"Basic {pair}")
        with pytest.raises(ModelForbidden, match="Secret"):
            inspect(request(url))
        config = tmp_path / "docker.json"
        config.write_text(json.dumps({"auths": {address: {"auth": pair}}}))
        told = replace(request(url), environment={DOCKER_FILE: str(config)})
        assert inspect(told).parameters == 1_233_288
        config.write_text(json.dumps({"auths": {"other.example": {"auth": pair}}}))
        with pytest.raises(ModelForbidden):
            inspect(told)


def _bcrypt() -> str:
    code = "import bcrypt; print(bcrypt.hashpw(b'word', bcrypt.gensalt(4, prefix=b'2a')).decode())"
    command = [str(programs.python()), "-c", code]
    return f"reader:{subprocess.run(command, capture_output=True, text=True, check=True).stdout}"


def test_a_layer_that_unpacks_to_far_more_than_it_is_ends_in_an_error(registry: str) -> None:
    bomb = images.tar({"models/padding": bytes(64 * 2**20), "models/model.onnx": b"x"})
    layer = (images.TAR_GZIP, gzip.compress(bomb, 9), dict[str, str]())
    images.push(registry, "bomb", "v1", [layer])
    access = HttpAccess(LOCAL, allow_http=True)
    with pytest.raises(ModelTooLarge, match="unpacks"):
        open_artefact(f"oci://{registry}/bomb:v1", access, {}, 16 * 2**20)


@pytest.mark.parametrize(
    ("layer", "error"),
    [
        (b"\x1f\x8b\x08" + b"\xff" * 100, ModelTruncated),
        (gzip.compress(images.tar({"models/m.onnx": b"x" * 4096}))[:90], (ModelTruncated, NotAModel)),
        (b"\x28\xb5\x2f\xfd" + b"x" * 100, ModelUnreachable),
        (b"no tar at all" * 100, (ModelTruncated, ModelNotFound)),
        (gzip.compress(b"no tar at all" * 100), (ModelTruncated, ModelNotFound)),
        (images.tar({"models/m.onnx": b"x" * 4096})[:700], Exception),
    ],
    ids=["gzip", "cut gzip", "zstd", "words", "packed words", "cut tar"],
)
def test_a_broken_layer_ends_in_a_clean_error(
    registry: str, layer: bytes, error: type[Exception] | tuple[type[Exception], ...]
) -> None:
    name = f"broken-{hashlib.sha256(layer).hexdigest()[:8]}"
    images.push(registry, name, "v1", [(images.TAR, layer, {})])
    with pytest.raises(error) as raised:
        inspect(request(f"oci://{registry}/{name}:v1"))
    assert getattr(raised.value, "reason", "")
    assert getattr(raised.value, "reason", "") != "InspectionCrashed"


def test_a_registry_on_a_private_address_is_refused_unless_allowed(registry: str) -> None:
    with pytest.raises(AddressRefused):
        open_source(f"oci://{registry}/some:v1", HttpAccess(AddressPolicy()), allow_files=False)


@pytest.mark.parametrize(
    "url", ["oci://", "oci://host", "oci://host/Name:v1", "oci://u:p@host/n", "oci://host/n@sha256:1"]
)
def test_a_url_that_names_no_artefact_is_told_so(url: str) -> None:
    with pytest.raises(InvalidUrl, match="oci://HOST"):
        open_source(url, HttpAccess(LOCAL), allow_files=False)
