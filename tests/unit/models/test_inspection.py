"""Inspection happens in a process that may die, and tells in words what went wrong."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tailwise.models import inspection
from tailwise.models.addresses import AddressPolicy
from tailwise.models.errors import (
    DigestMismatch,
    DynamicShape,
    InspectionCrashed,
    InspectionError,
    InspectionTimeout,
    InvalidUrl,
    ModelNotFound,
    NotAModel,
)
from tailwise.models.inspection import InspectionLimits, InspectionRequest, inspect, inspect_async
from tests.models import rehydrate
from tests.models.store import Store, serving


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rehydrate.write("decoder_convtranspose", tmp_path_factory.mktemp("m") / "decoder.onnx")


@pytest.fixture
def store() -> Iterator[Store]:
    with serving(Store()) as running:
        yield running


def dynamic_model(path: Path) -> Path:
    tokens = helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["batch", "sequence", 16])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    weight = helper.make_tensor("w", TensorProto.FLOAT, [16, 32], bytes(16 * 32 * 4), raw=True)
    graph = helper.make_graph([helper.make_node("MatMul", ["tokens", "w"], ["out"])], "g", [tokens], [out])
    graph.initializer.append(weight)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def of_file(path: Path, **options: object) -> InspectionRequest:
    return InspectionRequest(url=path.as_uri(), allow_files=True, **options)  # type: ignore[arg-type]


def test_a_file_is_profiled_in_a_child(decoder: Path) -> None:
    profile = inspect(of_file(decoder))
    assert profile.parameters == 36_739
    assert profile.flops_by_kind.convolution == 89_128_960
    assert profile.file_bytes == decoder.stat().st_size
    assert 0 < profile.bytes_read < profile.file_bytes


async def test_the_event_loop_stays_free_meanwhile(store: Store) -> None:
    store.files["/m.onnx"] = rehydrate.rehydrated("decoder_convtranspose").SerializeToString()
    store.delay_seconds = 0.2
    request = InspectionRequest(
        f"{store.url}/m.onnx", addresses=AddressPolicy(allow_local=True), allow_http=True
    )
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.005)

    ticking = asyncio.create_task(tick())
    profile = await inspect_async(request)
    ticking.cancel()
    assert profile.parameters == 36_739
    assert ticks > 10


def test_files_are_not_read_unless_allowed(decoder: Path) -> None:
    with pytest.raises(InvalidUrl, match="development"):
        inspect(InspectionRequest(decoder.as_uri()))


@pytest.mark.parametrize("url", ["ftp://host/m.onnx", "m.onnx", "https://", "http://[::1", "https://h:x/m"])
def test_what_is_no_url_says_so(url: str) -> None:
    with pytest.raises(InvalidUrl):
        inspect(InspectionRequest(url, allow_files=True))


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        inspect(of_file(tmp_path / "none.onnx"))
    assert caught.value.field == "spec.model.url"
    assert caught.value.reason == "ModelNotFound"


def test_a_directory_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InspectionError):
        inspect(of_file(tmp_path))


def test_free_axes_are_named_with_a_way_out(tmp_path: Path) -> None:
    path = dynamic_model(tmp_path / "m.onnx")
    with pytest.raises(DynamicShape, match=r"'tokens' axis 1 \(sequence\).*tokens: \[1, 128, 16\]") as caught:
        inspect(of_file(path))
    assert caught.value.field == "spec.model.inputShapes"
    assert inspect(of_file(path, input_shapes={"tokens": (2, 10, 16)})).flops == 2 * 2 * 10 * 16 * 32
    named = inspect(of_file(path, input_shapes={"sequence": (10,)}, batch_size=3))
    assert named.flops == 2 * 3 * 10 * 16 * 32


@pytest.mark.parametrize(
    "shapes", [{"tokens": (1, 10)}, {"tokens": (1, 10, 17)}, {"other": (1, 10, 16)}, {"other": (1,)}]
)
def test_shapes_that_contradict_the_file_are_refused(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]]
) -> None:
    with pytest.raises(DynamicShape):
        inspect(of_file(dynamic_model(tmp_path / "m.onnx"), input_shapes=shapes))


def test_a_digest_is_checked(decoder: Path) -> None:
    digest = hashlib.sha256(decoder.read_bytes()).hexdigest()
    profile = inspect(of_file(decoder, sha256=digest))
    assert (profile.digest, profile.digest_source) == (digest, "Sha256")
    with pytest.raises(DigestMismatch, match=digest):
        inspect(of_file(decoder, sha256="0" * 64))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_digest_is_checked_over_http(store: Store, decoder: Path, ranges: bool) -> None:
    store.files["/m.onnx"], store.ranges = decoder.read_bytes(), ranges
    request = InspectionRequest(
        f"{store.url}/m.onnx",
        addresses=AddressPolicy(allow_local=True),
        allow_http=True,
        sha256=hashlib.sha256(decoder.read_bytes()).hexdigest(),
    )
    assert inspect(request).digest_source == "Sha256"


def test_a_store_that_never_answers_is_given_up(store: Store) -> None:
    store.files["/m.onnx"], store.delay_seconds = b"", 30.0
    request = InspectionRequest(
        f"{store.url}/m.onnx",
        addresses=AddressPolicy(allow_local=True),
        allow_http=True,
        limits=InspectionLimits(wall_seconds=3.0),
    )
    begin = time.monotonic()
    with pytest.raises(InspectionTimeout, match="3 s"):
        inspect(request)
    assert time.monotonic() - begin < 25.0, "long before the store would have answered"


def test_a_child_without_memory_is_an_error_not_a_crash(decoder: Path) -> None:
    with pytest.raises(InspectionCrashed):
        inspect(of_file(decoder, limits=InspectionLimits(memory_mebibytes=40)))


def test_the_child_gets_none_of_the_parents_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://inside")
    assert not {"AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY"} & set(inspection._environment())


@pytest.mark.parametrize("content", [b"", b"\x00", b"\x08\x07", b"<html>", bytes(range(256)) * 8])
def test_no_file_is_a_traceback(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InspectionError) as caught:
        inspect(of_file(path))
    assert not isinstance(caught.value, InspectionCrashed)


def test_a_model_that_claims_more_than_it_holds_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x08\x3a\x05\x0a\xff\x01\x00\x00")
    with pytest.raises((NotAModel, InspectionError)):
        inspect(of_file(path))
