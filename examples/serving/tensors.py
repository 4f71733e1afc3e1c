"""Binary tensors as they came: KServe's own decoder turns each into a list of Python floats.

For an image of 224 x 224 that list costs more than some models' whole inference.
"""

from __future__ import annotations

from typing import Any

import orjson
from kserve import InferInput, InferRequest
from kserve.errors import InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.infer_type import RequestedOutput

_HEADER = "inference-header-content-length"


class BinaryDataPlane(DataPlane):  # type: ignore[misc]
    """A data plane that keeps tensors of the protocol's binary extension binary."""

    def decode_inference_request(self, body: Any, headers: dict[str, str], model_name: str) -> InferRequest:
        """Decode a request whose tensors are all binary; leave any other to KServe.

        Raises InvalidInput (HTTP 400) where sizes and data do not agree.
        """
        if isinstance(body, bytes) and _HEADER in headers:
            request = _binary(body, headers[_HEADER], model_name)
            if request is not None:
                return request
        return super().decode_inference_request(body, headers, model_name)


def _binary(body: bytes, header_length: str, model_name: str) -> InferRequest | None:
    try:
        position = int(header_length)
        head = orjson.loads(memoryview(body)[:position])
        sizes = [tensor.get("parameters", {}).get("binary_data_size") for tensor in head["inputs"]]
        described = [(tensor["name"], tensor["shape"], tensor["datatype"]) for tensor in head["inputs"]]
        wanted = [(output["name"], output.get("parameters")) for output in head.get("outputs") or ()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"the request's head is not that of an inference request: {error!r}") from error
    if not all(isinstance(size, int) and size >= 0 for size in sizes):
        return None
    if position + sum(sizes) != len(body):
        raise InvalidInput(
            f"the inputs' binary_data_size add up to {sum(sizes)} bytes, but {len(body) - position} came"
        )
    raw = []
    for size in sizes:
        raw.append(body[position : position + size])
        position += size
    return InferRequest(
        model_name=model_name,
        request_id=head.get("id"),
        parameters=head.get("parameters"),
        infer_inputs=[InferInput(name, shape, datatype) for name, shape, datatype in described],
        raw_inputs=raw,
        request_outputs=[RequestedOutput(name, parameters) for name, parameters in wanted] or None,
    )
