"""Only a model's graph is fetched, from stores that behave and from stores that do not."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tailwise.models.addresses import AddressPolicy
from tailwise.models.errors import (
    AddressRefused,
    InspectionError,
    InvalidUrl,
    ModelForbidden,
    ModelNotFound,
    ModelTooLarge,
    ModelTruncated,
    ModelUnreachable,
    NotAModel,
)
from tailwise.models.graph import GraphLimits, Skeleton, read_skeleton
from tailwise.models.http_source import HttpAccess, HttpSource
from tailwise.models.profile import build_profile
from tests.models import rehydrate
from tests.models.store import Store, serving

# Requests are counted here, so no second one is sent because the machine is busy.
LOCAL = HttpAccess(AddressPolicy(allow_local=True), allow_http=True, hedge_seconds=None)


@pytest.fixture(scope="module")
def resnet50() -> bytes:
    return bytes(rehydrate.rehydrated("resnet50").SerializeToString())


@pytest.fixture(scope="module")
def small() -> bytes:
    return bytes(rehydrate.rehydrated("decoder_convtranspose").SerializeToString())


@pytest.fixture
def store() -> Iterator[Store]:
    with serving(Store()) as running:
        yield running


def read(store: Store, path: str, limits: GraphLimits | None = None) -> tuple[Skeleton, HttpSource]:
    source = HttpSource(store.url + path, LOCAL)
    try:
        return read_skeleton(source, limits or GraphLimits()), source
    finally:
        source.close()


def test_of_a_large_file_mostly_the_graph_is_read(store: Store, resnet50: bytes) -> None:
    store.files["/m.onnx"] = resnet50
    skeleton, source = read(store, "/m.onnx")
    assert source.size == len(resnet50) > 100_000_000
    assert source.bytes_read < 600_000
    assert source.bytes_read == store.sent
    assert store.connections == 1
    assert build_profile(skeleton).flops == build_profile(Skeleton(rehydrate.skeleton("resnet50"), "")).flops


def test_a_server_without_ranges_is_streamed(store: Store, resnet50: bytes) -> None:
    store.files["/m.onnx"], store.ranges = resnet50, False
    skeleton, source = read(store, "/m.onnx")
    assert store.requests == 1
    assert source.bytes_read <= len(resnet50)
    assert build_profile(skeleton).parameters == 25_507_944


def test_a_connection_that_is_closed_after_each_answer_is_opened_again(store: Store, resnet50: bytes) -> None:
    store.files["/m.onnx"], store.close_each = resnet50, True
    skeleton, _ = read(store, "/m.onnx")
    assert build_profile(skeleton).parameters == 25_507_944


def test_a_slow_store_with_a_long_way_is_asked_less_often(store: Store, resnet50: bytes) -> None:
    store.files["/m.onnx"], store.delay_seconds, store.bytes_per_second = resnet50, 0.03, 12.5e6
    _, source = read(store, "/m.onnx")
    assert store.requests < 52, "tensors that take less than a round trip are read through"
    assert source.bytes_read < len(resnet50) / 5


def test_on_a_long_way_the_rest_is_asked_for_before_the_first_answer(store: Store, small: bytes) -> None:
    store.files["/m.onnx"], store.delay_seconds = small, 0.05
    source = HttpSource(store.url + "/m.onnx", dataclasses.replace(LOCAL, hedge_seconds=0.001))
    skeleton = read_skeleton(source)
    source.close()
    assert build_profile(skeleton).parameters == 36_739
    assert (store.requests, store.connections) == (2, 2)


@pytest.mark.parametrize("behaviour", ["no ranges", "redirect"])
def test_a_second_request_in_advance_does_no_harm(store: Store, small: bytes, behaviour: str) -> None:
    store.files["/m.onnx"], store.delay_seconds = small, 0.02
    store.ranges = behaviour != "no ranges"
    store.redirects["/a"] = "/m.onnx"
    path = "/a" if behaviour == "redirect" else "/m.onnx"
    source = HttpSource(store.url + path, dataclasses.replace(LOCAL, hedge_seconds=0.001))
    assert build_profile(read_skeleton(source)).parameters == 36_739
    source.close()


def test_a_file_larger_than_any_message_is_refused_at_once(store: Store) -> None:
    # An ir_version, then a graph of 2^40 bytes, in a file that goes on.
    store.files["/m.onnx"] = b"\x08\x08" + b"\x3a\x80\x80\x80\x80\x80\x20" + bytes(65536)
    store.endless = frozenset({"/m.onnx"})
    with pytest.raises(ModelTooLarge, match="2 GiB"):
        read(store, "/m.onnx")


def test_redirects_are_followed_to_the_file(store: Store, small: bytes) -> None:
    store.files["/m.onnx"] = small
    store.redirects |= {"/a": "/b", "/b": f"{store.url}/m.onnx"}
    skeleton, _ = read(store, "/a")
    assert build_profile(skeleton).parameters == 36_739


def test_redirects_end_after_five(store: Store) -> None:
    store.redirects["/a"] = "/a"
    with pytest.raises(ModelUnreachable, match="redirects"):
        read(store, "/a")
    assert store.requests == 6


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest/meta-data", "http://[fe80::1]/m", "http://224.0.0.1/m"]
)
def test_a_redirect_to_a_metadata_service_is_refused(store: Store, target: str) -> None:
    store.redirects["/a"] = target
    with pytest.raises(AddressRefused, match="allow-address"):
        read(store, "/a")


def test_a_redirect_to_another_scheme_is_refused(store: Store) -> None:
    store.redirects["/a"] = "file:///etc/passwd"
    with pytest.raises(InvalidUrl, match="redirect"):
        read(store, "/a")


def test_loopback_is_refused_before_a_byte_is_sent(store: Store, small: bytes) -> None:
    store.files["/m.onnx"] = small
    with pytest.raises(AddressRefused, match="loopback"):
        HttpSource(f"{store.url}/m.onnx", HttpAccess(AddressPolicy(), allow_http=True))
    assert store.connections == 0


def test_a_name_that_is_answered_otherwise_later_changes_nothing(
    store: Store, resnet50: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.files["/m.onnx"], store.close_each = resnet50, True
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, *more: Any, **named: Any) -> Any:
        if host != "store.test":
            return real(host, *more, **named)
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "169.254.169.254", *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    source = HttpSource(store.url.replace("127.0.0.1", "store.test") + "/m.onnx", LOCAL)
    read_skeleton(source)
    source.close()
    assert store.connections > 10, "each answer needed a connection of its own"
    assert asked == ["store.test"], "and the name was asked for once"


def test_plain_http_is_refused_unless_allowed(store: Store) -> None:
    with pytest.raises(InvalidUrl, match="https"):
        HttpSource(f"{store.url}/m.onnx", HttpAccess(AddressPolicy(allow_local=True)))


def test_a_missing_file_is_not_found(store: Store) -> None:
    with pytest.raises(ModelNotFound, match="404"):
        read(store, "/none.onnx")


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, ModelForbidden), (403, ModelForbidden), (410, ModelNotFound), (500, ModelUnreachable)],
)
def test_a_refusal_says_which(store: Store, status: int, error: type[InspectionError]) -> None:
    store.statuses["/m.onnx"] = status
    with pytest.raises(error, match=str(status)):
        read(store, "/m.onnx")


def test_nobody_listening_is_unreachable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ModelUnreachable, match="connection"):
        HttpSource(f"http://127.0.0.1:{port}/m.onnx", LOCAL)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_called_truncated(
    store: Store, resnet50: bytes, share: float, ranges: bool
) -> None:
    store.files["/m.onnx"], store.ranges = resnet50[: int(share * len(resnet50))], ranges
    with pytest.raises(ModelTruncated):
        read(store, "/m.onnx")


def test_an_answer_that_breaks_off_is_called_truncated(store: Store, small: bytes) -> None:
    store.files["/m.onnx"], store.cut_after = small, 20_000
    with pytest.raises(ModelTruncated):
        read(store, "/m.onnx")


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><html>", b"\x1f\x8b\x08" * 100, b"PK\x03\x04" * 50, b"{}"]
)
def test_something_else_is_not_a_model(store: Store, content: bytes) -> None:
    store.files["/m.onnx"] = content
    with pytest.raises(NotAModel):
        read(store, "/m.onnx")


def test_an_endless_answer_is_cut_off_once_the_graph_is_complete(store: Store, small: bytes) -> None:
    store.files["/m.onnx"], store.endless = small, frozenset({"/m.onnx"})
    skeleton, source = read(store, "/m.onnx")
    assert build_profile(skeleton).parameters == 36_739
    assert source.bytes_read < len(small) + 2**20


def test_an_endless_answer_inside_the_graph_is_bounded(store: Store) -> None:
    # An ir_version, then a graph that claims to have 2^40 bytes, then its first initialiser of as many.
    head = b"\x08\x08" + b"\x3a\x80\x80\x80\x80\x80\x20" + b"\x2a\x80\x80\x80\x80\x40\x4a\x80\x80\x80\x80\x20"
    store.files["/m.onnx"], store.endless = head, frozenset({"/m.onnx"})
    with pytest.raises(ModelTooLarge):
        read(store, "/m.onnx", GraphLimits(stream_bytes=8 * 2**20))
    assert store.sent < 64 * 2**20


def test_a_file_that_changes_while_it_is_read_is_noticed(store: Store, resnet50: bytes) -> None:
    store.files["/m.onnx"] = resnet50
    source = HttpSource(f"{store.url}/m.onnx", LOCAL)
    store.files["/m.onnx"] = b"\x08\x07" + resnet50[2:]
    store.ranges = False  # As a server does whose If-Range does not hold any more.
    with pytest.raises(ModelUnreachable, match="changed"):
        read_skeleton(source)
    source.close()
