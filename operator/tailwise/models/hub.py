"""Files of a hub of models: ``hf://OWNER/NAME[@REVISION]/PATH``, read over https by ranges.

The hub answers ``/OWNER/NAME/resolve/REVISION/PATH`` with a redirect to its storage that names the file's
sha256, so a file there is identified, and a pinned digest checked, without reading it. Environment
variables are those of huggingface_hub: ``HF_ENDPOINT`` and ``HF_TOKEN``.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, unquote, urlsplit

from tailwise.models.errors import InvalidUrl
from tailwise.models.http_source import HEAD_BYTES, HttpAccess, HttpSource

_ENDPOINT = "https://huggingface.co"


def hub_url(url: str, endpoint: str = _ENDPOINT) -> str:
    """The https URL that a hf:// URL stands for; raises InvalidUrl."""
    parts = urlsplit(url)
    repository, _, path = parts.path.lstrip("/").partition("/")
    name, _, revision = unquote(repository).partition("@")
    # An @ in what urlsplit takes for the host is one of a revision without a name before it.
    if not parts.netloc or "@" in parts.netloc or not name or not path or path.endswith("/"):
        raise InvalidUrl(f"a file on the hub is hf://OWNER/NAME[@REVISION]/PATH.onnx, not {url[:200]!r}")
    if ".." in path.split("/"):
        raise InvalidUrl("a path on the hub has no '..'")
    address = f"{parts.netloc}/{quote(name)}/resolve/{quote(revision or 'main', safe='')}"
    return f"{endpoint.rstrip('/')}/{address}/{quote(unquote(path))}"


def open_hub(
    url: str, access: HttpAccess, environment: Mapping[str, str], *, head_bytes: int = HEAD_BYTES
) -> HttpSource:
    """Open a file on the hub; the token, if there is one, goes to the hub's own host only."""
    token = environment.get("HF_TOKEN", "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    target = hub_url(url, environment.get("HF_ENDPOINT") or _ENDPOINT)
    return HttpSource(target, access, headers, head_bytes=head_bytes)
