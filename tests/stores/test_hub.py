"""A hub look-alike that huggingface_hub itself accepts: what Tailwise reads there is what it downloads."""

import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tailwise.models.addresses import AddressPolicy
from tailwise.models.errors import DigestMismatch, InvalidUrl, ModelForbidden, ModelNotFound
from tailwise.models.hub import hub_url
from tailwise.models.inspection import InspectionRequest, identify_async, inspect
from tests.models.store import Store, serving
from tests.stores import programs
from tests.stores.reading import least_read

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PATH = "/team/net/resolve/{}/onnx/model.onnx"


class Hub:
    """Answers like the hub: names commit and digest, wants a token, and sends on to storage elsewhere."""

    def __init__(self, storage: Store, model: bytes) -> None:
        self.digest = hashlib.sha256(model).hexdigest()
        self.size = len(model)
        self.storage = storage
        self.tokens: list[str] = []
        self.wanted = ""
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        given = handler.headers.get("Authorization", "")
        self.tokens.append(given)
        known = handler.path in (PATH.format("main"), PATH.format(COMMIT))
        status = 302 if known else 404
        if self.wanted and given != f"Bearer {self.wanted}":
            status = 401
        handler.send_response(status)
        if status == 302:
            handler.send_header("Location", f"{self.storage.url}/blob")
            handler.send_header("X-Repo-Commit", COMMIT)
            handler.send_header("X-Linked-ETag", f'"{self.digest}"')
            handler.send_header("X-Linked-Size", str(self.size))
            handler.send_header("ETag", f'"{self.digest}"')
        if status == 404:
            handler.send_header("X-Error-Code", "EntryNotFound")
        handler.send_header("Content-Length", "0")
        handler.end_headers()


@pytest.fixture
def hub(model: bytes) -> Iterator[Hub]:
    with serving(Store(files={"/blob": model})) as storage:
        made = Hub(storage, model)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                made.answer(self)

            do_HEAD = do_GET  # noqa: N815 - the library's name

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield made
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def request(hub: Hub, url: str = "hf://team/net/onnx/model.onnx", **more: str) -> InspectionRequest:
    environment = {"HF_ENDPOINT": hub.url, **more}
    return InspectionRequest(
        url=url, environment=environment, addresses=AddressPolicy(allow_local=True), allow_http=True
    )


def test_of_a_file_on_the_hub_only_the_graph_is_read(hub: Hub, model: bytes) -> None:
    profile = inspect(replace(request(hub), sha256=hub.digest))
    assert profile.parameters == 1_233_288
    assert least_read(request(hub), len(model) / 3) < len(model) / 3
    assert (profile.digest, profile.digest_source) == (hub.digest, "HubSha256")
    with pytest.raises(DigestMismatch):
        inspect(replace(request(hub), sha256="0" * 64))


def test_the_library_of_the_hub_downloads_the_same_file(hub: Hub, model: bytes, tmp_path: Path) -> None:
    code = (
        "import huggingface_hub as h; "
        f"print(h.hf_hub_url('team/net', 'onnx/model.onnx', endpoint={hub.url!r})); "
        f"print(h.hf_hub_download('team/net', 'onnx/model.onnx', endpoint={hub.url!r}))"
    )
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", "PATH": "/usr/bin:/bin"}
    command = [str(programs.python()), "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    url, file = done.stdout.split()
    assert hub_url("hf://team/net/onnx/model.onnx", hub.url) == url
    assert Path(file).read_bytes() == model


def test_the_token_goes_to_the_hub_and_not_to_its_storage(hub: Hub) -> None:
    hub.wanted = "hf_secret"
    with pytest.raises(ModelForbidden):
        inspect(request(hub))
    hub.tokens.clear()
    assert inspect(request(hub, HF_TOKEN="hf_secret")).parameters == 1_233_288  # noqa: S106
    assert set(hub.tokens) == {"Bearer hf_secret"}
    assert hub.storage.authorizations == {""}


async def test_a_file_on_the_hub_is_identified_without_reading_it(hub: Hub) -> None:
    identity = await identify_async(request(hub, f"hf://team/net@{COMMIT}/onnx/model.onnx"))
    assert (identity.value, identity.source) == (hub.digest, "HubSha256")
    assert hub.storage.sent <= 64


def test_a_file_that_is_not_on_the_hub_is_not_found(hub: Hub) -> None:
    with pytest.raises(ModelNotFound):
        inspect(request(hub, "hf://team/net/none.onnx"))


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("hf://a/b/c.onnx", "/a/b/resolve/main/c.onnx"),
        ("hf://a/b@v1.0/x/c.onnx", "/a/b/resolve/v1.0/x/c.onnx"),
        ("hf://a/b@refs%2Fpr%2F1/c d.onnx", "/a/b/resolve/refs%2Fpr%2F1/c%20d.onnx"),
    ],
)
def test_a_hub_url_names_owner_name_revision_and_path(url: str, target: str) -> None:
    assert hub_url(url) == f"https://huggingface.co{target}"


@pytest.mark.parametrize("url", ["hf://a", "hf://a/b", "hf://a/b/", "hf://a@x/b/c", "hf://a/b/../c"])
def test_a_hub_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(InvalidUrl):
        hub_url(url)
