"""The Open Inference Protocol over one kept-alive connection, tensors in the binary extension."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

_TYPES: Mapping[str, type[np.generic]] = {
    "FP64": np.float64,
    "FP32": np.float32,
    "FP16": np.float16,
    "INT64": np.int64,
    "INT32": np.int32,
    "INT16": np.int16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}
_LENGTH_HEADER = "Inference-Header-Content-Length"


class InferenceError(RuntimeError):
    """The server did not answer a request as it should; the message holds what it said."""


@dataclass(frozen=True, slots=True)
class TensorKind:
    """An input as the model's metadata tell it; -1 in ``shape`` is a free dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def filled(self, batch_size: int, free_size: int) -> tuple[int, ...]:
        """The shape with its first free axis the batch and all others ``free_size``."""
        return tuple(
            size if size > 0 else (batch_size if axis == 0 else free_size)
            for axis, size in enumerate(self.shape)
        )


@dataclass(frozen=True, slots=True)
class Request:
    """A request ready to be sent."""

    headers: Mapping[str, str]
    body: bytes


class Connection:
    """One connection to one model of one server; opens again after the server closed it."""

    def __init__(self, url: str, model: str, timeout_seconds: float) -> None:
        """``url`` is http://HOST:PORT or HOST:PORT. Raises ValueError for anything else."""
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"--url {url!r}: give http://HOST:PORT")
        self.url = f"http://{parts.netloc}"
        self.model = model
        self._path = f"/v2/models/{quote(model, safe='')}"
        self._connection = http.client.HTTPConnection(
            parts.hostname, parts.port or 80, timeout=timeout_seconds
        )

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def wait_until_ready(self, seconds: float) -> None:
        """Return when the model is ready. Raises InferenceError when it is not within ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._exchange("GET", f"{self._path}/ready", {}, None)
            except InferenceError as error:
                if time.monotonic() > deadline:
                    raise InferenceError(f"not ready within {seconds:g} s: {error}") from error
                time.sleep(0.2)
            else:
                return

    def inputs(self) -> tuple[TensorKind, ...]:
        """Ask for the model's inputs."""
        _, body = self._exchange("GET", self._path, {}, None)
        return tuple(
            TensorKind(tensor["name"], tensor["datatype"], tuple(int(size) for size in tensor["shape"]))
            for tensor in json.loads(body)["inputs"]
        )

    def infer(self, request: Request) -> bytes:
        """Send a request and return the answer's body. Raises InferenceError."""
        return self._exchange("POST", f"{self._path}/infer", request.headers, request.body)[1]

    def infer_arrays(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Run the model on named arrays and return its outputs by name."""
        request = make_request(arrays)
        headers, body = self._exchange("POST", f"{self._path}/infer", request.headers, request.body)
        position = int(headers[_LENGTH_HEADER.lower()])
        outputs = {}
        for tensor in json.loads(body[:position])["outputs"]:
            size = tensor["parameters"]["binary_data_size"]
            values = np.frombuffer(body[position : position + size], _TYPES[tensor["datatype"]])
            outputs[tensor["name"]] = values.reshape(tensor["shape"])
            position += size
        return outputs

    def _exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[dict[str, str], bytes]:
        try:
            self._connection.request(method, path, body, dict(headers))
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # the next request opens it again
            raise InferenceError(f"{method} {self.url}{path}: {error!r}") from error
        if answer.status != http.client.OK:
            said = content[:300].decode(errors="replace")
            raise InferenceError(f"{method} {self.url}{path}: HTTP {answer.status}: {said}")
        return {name.lower(): value for name, value in answer.getheaders()}, content


def make_request(arrays: Mapping[str, np.ndarray[Any, Any]]) -> Request:
    """Make a request of named arrays that asks for binary outputs. Raises KeyError for other types."""
    names = {np.dtype(kind): name for name, kind in _TYPES.items()}
    described, data = [], []
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array).tobytes()
        described.append(
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": names[array.dtype],
                "parameters": {"binary_data_size": len(raw)},
            }
        )
        data.append(raw)
    head = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", _LENGTH_HEADER: str(len(head))}
    return Request(headers, b"".join([head, *data]))


def random_arrays(
    kinds: Sequence[TensorKind], batch_size: int, free_size: int, random: np.random.Generator
) -> dict[str, np.ndarray[Any, Any]]:
    """Random inputs of the right shapes: floats around 0, whole numbers 0 and 1 (valid as any index)."""
    arrays = {}
    for kind in kinds:
        shape, dtype = kind.filled(batch_size, free_size), np.dtype(_TYPES[kind.datatype])
        if np.issubdtype(dtype, np.floating):
            arrays[kind.name] = random.standard_normal(shape, dtype=np.float32).astype(dtype)
        else:
            arrays[kind.name] = random.integers(0, 2, shape).astype(dtype)
    return arrays
