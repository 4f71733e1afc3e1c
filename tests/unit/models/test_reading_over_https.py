"""Over TLS too only the graph is read, and nobody answers for a server whose certificate does not."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailwise.models.addresses import AddressPolicy
from tailwise.models.errors import ModelUnreachable
from tailwise.models.inspection import InspectionRequest, inspect
from tests.cluster import pki
from tests.models.rehydrate import write
from tests.models.store import Store, serving

_NAME = "mobilenet_v2"


@pytest.fixture
def authority(tmp_path: Path) -> pki.KeyPair:
    return pki.certificate_authority(tmp_path)


@pytest.fixture
def store(tmp_path: Path, authority: pki.KeyPair) -> Iterator[Store]:
    """A store whose certificate is for the address it has."""
    pair = pki.serving(tmp_path, "store", authority, ["127.0.0.1"])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.certificate, pair.key)
    content = write(_NAME, tmp_path / "m.onnx").read_bytes()
    with serving(Store(files={"/m.onnx": content}), tls) as running:
        yield running


def _ask(store: Store, host: str = "127.0.0.1") -> InspectionRequest:
    url = store.url.replace("127.0.0.1", host)
    return InspectionRequest(f"{url}/m.onnx", addresses=AddressPolicy(allow_local=True))


def test_a_model_over_https_is_read_by_ranges(
    store: Store, authority: pki.KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    profile = inspect(_ask(store))
    assert profile.flops_by_kind.convolution > 0
    assert profile.bytes_read < profile.file_bytes / 4


def test_a_certificate_of_an_unknown_authority_is_refused(store: Store) -> None:
    with pytest.raises(ModelUnreachable) as caught:
        inspect(_ask(store))
    assert "certificate" in str(caught.value)
    assert caught.value.field == "spec.model.url"


def test_a_certificate_for_another_host_is_refused(
    store: Store, authority: pki.KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with pytest.raises(ModelUnreachable) as caught:
        inspect(_ask(store, "localhost"))
    assert "certificate" in str(caught.value)
