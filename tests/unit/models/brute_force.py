"""Holds a model's count against its operators' definitions, executed: same results, same products."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from tests.unit.models.counting import counting
from tests.unit.models.graphs import records

RANDOM = np.random.default_rng(7)


def values(*shape: int) -> Any:
    """Random float32 values around zero."""
    return RANDOM.normal(size=shape).astype(np.float32)


def integers(*shape: int, dtype: type = np.uint8, most: int = 20) -> Any:
    """Random small integers of a type."""
    return RANDOM.integers(0, most, size=shape).astype(dtype)


def run(made: onnx.ModelProto, fed: Mapping[str, Any]) -> Any:
    """What ONNX Runtime computes for the first output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    # As it is written: an operator that was fused into another would be computed otherwise.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, dict(fed))[0]


def referred(made: onnx.ModelProto, fed: Mapping[str, Any]) -> Any:
    """What ONNX's own reference computes, where the runtime has no kernel for CPUs."""
    results: Any = ReferenceEvaluator(made).run(None, dict(fed))
    return results[0]


def unchecked(_made: onnx.ModelProto, _fed: Mapping[str, Any]) -> None:
    """Nobody to ask: only GPUs have a kernel, so that the definition alone stands for the operator."""


def assert_counted_as_executed(
    made: onnx.ModelProto,
    fed: Mapping[str, Any],
    definition: Callable[[], Any],
    *,
    by: Callable[[onnx.ModelProto, Mapping[str, Any]], Any] = run,
    tolerance: float = 1e-3,
) -> None:
    """The definition makes what the runtime makes, with as many products as are counted."""
    with counting() as tally:
        expected = definition()
    actual = by(made, fed)
    if actual is not None:
        assert np.shape(actual) == np.shape(expected)
        np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=tolerance, atol=tolerance)
    found = records(made)
    assert sum(record.multiply_accumulates for record in found) == tally.products
    for record in found:
        if record.multiply_accumulates:
            assert record.flops == 2 * record.multiply_accumulates
