"""A KServe model that runs an ONNX graph in ONNX Runtime."""

from __future__ import annotations

import asyncio
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from kserve import InferOutput, InferRequest, InferResponse, Model
from kserve.errors import InvalidInput
from kserve.utils.numpy_codec import from_np_dtype

# What a free dimension is taken to be for the warm-up: one item a batch, and a short sequence.
_FREE_FIRST, _FREE_OTHER = 1, 16
_NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class OnnxModel(Model):  # type: ignore[misc]
    """Serves one graph with ``threads`` threads, one request after another.

    Requests queue before the one inference thread, so that each has all of the pod's CPU and none is slowed
    by its successor; the event loop stays free for probes and metrics.
    """

    def __init__(self, name: str, path: Path, threads: int) -> None:
        super().__init__(name)
        self._path = path
        self._threads = threads
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self._session: Any = None

    def load(self) -> bool:
        """Load the graph and run it once: the first run allocates and packs, and is several times slower."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # A thread that spins while it waits spends the pod's quota on nothing.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        began = time.monotonic()
        self._session = ort.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])
        loaded = time.monotonic()
        self._executor.submit(self._session.run, None, self._warm_up_inputs()).result()
        print(
            f"{self.name}: loaded in {loaded - began:.1f} s, warmed up in {time.monotonic() - loaded:.1f} s, "
            f"{self._threads} threads",
            flush=True,
        )
        self.ready = True
        return True

    def get_input_types(self) -> list[dict[str, Any]]:
        """Return the graph's inputs as the protocol's metadata; -1 stands for a free dimension."""
        return [_metadata(argument) for argument in self._session.get_inputs()]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Return the graph's outputs as the protocol's metadata."""
        return [_metadata(argument) for argument in self._session.get_outputs()]

    async def predict(self, payload: InferRequest, headers: dict[str, str] | None = None) -> InferResponse:
        """Run the graph on the request's tensors, a batch of any size the graph takes.

        Raises InvalidInput (HTTP 400) for tensors the graph does not take.
        """
        del headers
        try:
            inputs = {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
        except ValueError as error:
            raise InvalidInput(f"model {self.name}: data do not fill a shape: {error}") from error
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._executor, self._session.run, None, inputs)
        except (ValueError, ort.capi.onnxruntime_pybind11_state.InvalidArgument) as error:
            raise InvalidInput(f"model {self.name}: {error}") from error
        outputs = []
        for argument, result in zip(self._session.get_outputs(), results, strict=True):
            output = InferOutput(argument.name, list(result.shape), from_np_dtype(result.dtype))
            output.set_data_from_numpy(result, binary_data=True)
            outputs.append(output)
        return InferResponse(
            response_id=payload.id or str(uuid.uuid4()),  # KServe's JSON answers must have one
            model_name=self.name,
            infer_outputs=outputs,
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )

    def _warm_up_inputs(self) -> dict[str, np.ndarray[Any, Any]]:
        inputs: dict[str, np.ndarray[Any, Any]] = {}
        for argument in self._session.get_inputs():
            if argument.type not in _NUMPY_TYPES:
                raise ValueError(f"model {self.name}: input {argument.name} is {argument.type}, not numbers")
            shape = [
                size if isinstance(size, int) else (_FREE_OTHER if axis else _FREE_FIRST)
                for axis, size in enumerate(argument.shape)
            ]
            inputs[argument.name] = np.zeros(shape, _NUMPY_TYPES[argument.type])
        return inputs


def _metadata(argument: Any) -> dict[str, Any]:
    return {
        "name": argument.name,
        "datatype": from_np_dtype(np.dtype(_NUMPY_TYPES[argument.type])),
        "shape": [size if isinstance(size, int) else -1 for size in argument.shape],
    }
