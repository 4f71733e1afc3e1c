"""Objects of S3, Google Cloud Storage and Azure Blob Storage: ``s3://``, ``gs://`` and ``az://``.

One library, obstore (the Rust object_store crate and no other dependency), signs requests and finds
credentials for all three, as their own tools do: keys in the environment, files of a Secret, and the
identity that a cloud gives to a service account. It is imported only where such a URL is read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

from tailwise.models.errors import (
    InspectionError,
    InvalidUrl,
    ModelForbidden,
    ModelNotFound,
    ModelTruncated,
    ModelUnreachable,
)
from tailwise.models.sources import Identity, Pace

_RETRIES = {"max_retries": 2, "retry_timeout": timedelta(seconds=30)}
# What the library says when it finds no identity: its last resort is the cloud's metadata service.
_WORDS_OF_CREDENTIALS = ("401", "403", "redential", "metadata", "169.254.169.254", "token")
_AZURE_HOSTS = (".blob.core.windows.net", ".dfs.core.windows.net")


class ObjectSource:
    """An object of a bucket or container; see ``ByteSource``."""

    seekable = True

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        import obstore  # noqa: PLC0415 - a library that most readings do without

        self._obstore = obstore
        self.bytes_read = 0
        self.pace = Pace()
        self._store, self._path, self._where = store_of(url, environment)
        begin = time.perf_counter()
        with store_errors(self._where):
            meta = obstore.head(self._store, self._path)
        self.pace.waited(time.perf_counter() - begin)
        self._size = int(meta["size"])
        tag = str(meta.get("e_tag") or "").strip('"')
        version = str(meta.get("version") or "")
        # A multipart upload's ETag is no digest of the file, and none is taken for one.
        self._identity = Identity(f"{tag}@{version}" if version and version != "null" else tag, "ETag")

    @property
    def size(self) -> int:
        """Size of the object in bytes."""
        return self._size

    @property
    def identity(self) -> Identity:
        """The object's ETag, and its version where the store keeps versions."""
        return self._identity

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on."""
        length = min(length, self._size - offset)
        if length <= 0:
            return b""
        begin = time.perf_counter()
        with store_errors(self._where):
            answer = self._obstore.get(self._store, self._path, options={"range": (offset, offset + length)})
            if int(answer.meta["size"]) != self._size or self._tag_of(answer.meta) != self._tag:
                raise ModelUnreachable(f"the object in {self._where} changed while it was read; try again")
            waited = time.perf_counter()
            data = bytes(answer.bytes())
        self.pace.waited(waited - begin)
        self.pace.transferred(len(data), time.perf_counter() - waited)
        self.bytes_read += len(data)
        if len(data) != length:
            raise ModelTruncated(f"{self._where} sent {len(data)} of {length} bytes")
        return data

    @property
    def _tag(self) -> str:
        return self._identity.value.partition("@")[0]

    @staticmethod
    def _tag_of(meta: Mapping[str, Any]) -> str:
        return str(meta.get("e_tag") or "").strip('"')

    def close(self) -> None:
        """Nothing to give up: connections go with the process."""


def store_of(url: str, environment: Mapping[str, str]) -> tuple[Any, str, str]:
    """The store of a URL's bucket, the object's path in it, and the store in words.

    Raises:
        InspectionError: the URL names no object, or the credentials cannot be used.
    """
    parts = urlsplit(url)
    path = unquote(parts.path).lstrip("/")
    if not parts.netloc or not path or path.endswith("/"):
        raise InvalidUrl(f"an object is {parts.scheme}://BUCKET/PATH.onnx, not {url[:200]!r}")
    try:
        if parts.scheme == "s3":
            return _s3(parts.netloc, environment), path, f"bucket {parts.netloc}"
        if parts.scheme == "gs":
            return _gcs(parts.netloc, environment), path, f"bucket {parts.netloc}"
        account = environment.get("AZURE_STORAGE_ACCOUNT_NAME") or ""
        container, account, path = _azure_names(parts.netloc, path, account)
        return _azure(container, account, environment), path, f"container {container} of {account}"
    except InspectionError:
        raise
    except Exception as error:
        raise ModelForbidden(f"the credentials for {parts.scheme}:// cannot be used ({error})") from error


def _s3(bucket: str, environment: Mapping[str, str]) -> Any:
    from obstore.store import S3Store  # noqa: PLC0415

    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
    options = _options(endpoint) | ({"endpoint": endpoint} if endpoint else {})
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
    return S3Store(bucket, region=region, **options)


def _gcs(bucket: str, environment: Mapping[str, str]) -> Any:
    from obstore.store import GCSStore  # noqa: PLC0415

    # The variable of Google's own clients; an emulator asks for no credentials.
    emulator = environment.get("STORAGE_EMULATOR_HOST") or ""
    options = _options(emulator)
    if emulator:
        options |= {"base_url": emulator.rstrip("/"), "skip_signature": True}
    return GCSStore(bucket, **options)


def _azure(container: str, account: str, environment: Mapping[str, str]) -> Any:
    from obstore.store import AzureStore  # noqa: PLC0415

    endpoint = environment.get("AZURE_STORAGE_ENDPOINT") or environment.get("AZURE_ENDPOINT") or ""
    options = _options(endpoint) | ({"endpoint": endpoint} if endpoint else {})
    return AzureStore(container, account_name=account, **options)


def _options(endpoint: str) -> dict[str, Any]:
    """Plain http only where the endpoint itself is that, which its Secret or its user says."""
    client = {"connect_timeout": "10s", "timeout": "60s", "allow_http": endpoint.startswith("http://")}
    return {"client_options": client, "retry_config": _RETRIES}


def _azure_names(host: str, path: str, account: str) -> tuple[str, str, str]:
    """Container, account and path: of az://CONTAINER/PATH, or with the account's host in front."""
    for suffix in _AZURE_HOSTS:
        if host.endswith(suffix):
            container, _, rest = path.partition("/")
            if not rest:
                raise InvalidUrl(
                    "with an account's host it is az://ACCOUNT.blob.core.windows.net/CONTAINER/PATH"
                )
            return container, host.removesuffix(suffix), rest
    if not account:
        raise InvalidUrl(
            "the storage account is not known: write az://ACCOUNT.blob.core.windows.net/CONTAINER/PATH, "
            "or set AZURE_STORAGE_ACCOUNT_NAME in the Secret"
        )
    return host, account, path


@contextmanager
def store_errors(where: str) -> Iterator[None]:
    """The library's errors as errors of inspection; AlreadyExistsError, which no reader meets, as it is."""
    from obstore import exceptions  # noqa: PLC0415

    try:
        yield
    except (InspectionError, exceptions.AlreadyExistsError):
        raise
    except FileNotFoundError as error:
        raise ModelNotFound(f"{where} has no object at this path; check the path") from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise ModelForbidden(
            f"{where} refuses to hand it out; name a service account or a Secret that may read it"
        ) from error
    except (exceptions.BaseError, OSError, ValueError) as error:
        raise _told(where, str(error)) from error


def _told(where: str, text: str) -> InspectionError:
    """An error that the library has no class of its own for, by what it says."""
    first = " ".join(text.partition("Debug source")[0].split())[:300]
    if "404" in first:
        return ModelNotFound(f"{where} does not exist; check its name")
    if any(
        word in first for word in ("401", "403", "redential", "InstanceMetadata", "169.254.169.254", "token")
    ):
        return ModelForbidden(f"{where} cannot be opened for want of credentials ({first})")
    return ModelUnreachable(f"{where} gives no answer ({first})")
