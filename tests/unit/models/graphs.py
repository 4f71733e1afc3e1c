"""Small graphs for tests, built in one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tailwise.api.profile import ModelProfile
from tailwise.models.graph import Skeleton
from tailwise.models.profile import build_profile, count_operators
from tailwise.models.records import OperatorRecord

MICROSOFT = "com.microsoft"
node = helper.make_node


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    types: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model of these nodes; inputs and outputs are float32 unless ``types`` says otherwise."""
    kinds = types or {}
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [
            helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), list(s))
            for n, s in inputs.items()
        ],
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), None) for n in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    sets = [
        helper.make_opsetid("", opset),
        helper.make_opsetid("com.microsoft", 1),
        helper.make_opsetid("ai.onnx.ml", 3),
    ]
    return helper.make_model(graph, opset_imports=sets, ir_version=8)


def profile(made: onnx.ModelProto, batch_size: int | None = None) -> ModelProfile:
    return build_profile(Skeleton(made, ""), None, batch_size)


def records(made: onnx.ModelProto) -> list[OperatorRecord]:
    tally = count_operators(made, {}, None)
    assert not tally.unresolved, tally.unresolved
    return tally.records


def zeros(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype=dtype)
