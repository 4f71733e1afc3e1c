"""ONNX's own test cases of single operators, as models whose inputs' sizes and small contents are known."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from tailwise.models.tensors import Tensor, TensorSequence, normal_domain

MOST_CONTENT = 64
"""Longer inputs are data, shorter ones may be sizes, axes or scales."""


@dataclass(frozen=True)
class NodeCase:
    """A model, what is fed to it, and what its definition makes of that."""

    name: str
    model: onnx.ModelProto
    inputs: Sequence[object]
    outputs: Sequence[object]

    @property
    def operators(self) -> set[tuple[str, str]]:
        """Domain and type of each of its nodes."""
        return {(normal_domain(node.domain), node.op_type) for node in self.model.graph.node}


@functools.cache
def node_cases() -> tuple[NodeCase, ...]:
    """All of them, made by ONNX's reference implementations; takes some seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 -- slow to import

        return tuple(
            NodeCase(case.name, case.model, *case.data_sets[0])
            for case in collect_testcases(None)
            if case.model is not None and case.data_sets
        )


_SIZED_BY_THE_FIRST_INPUT = frozenset({"ConstantOfShape"})


def with_contents(case: NodeCase) -> tuple[onnx.ModelProto, dict[str, tuple[int, ...]]]:
    """The model with short inputs stored in it, and the shapes of the inputs that stay.

    What an operator needs to be sized (a target shape, an axis, a number of steps) is stored in real
    models; what it works on is not. The first input stays, unless it is a single number.
    """
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    shapes: dict[str, tuple[int, ...]] = {}
    sized = any(node.op_type in _SIZED_BY_THE_FIRST_INPUT for node in model.graph.node)
    for index, (info, fed) in enumerate(zip(model.graph.input, case.inputs, strict=False)):
        if not info.type.HasField("tensor_type") or not isinstance(fed, (np.ndarray, np.generic)):
            continue
        content = np.asarray(fed)
        numeric = content.dtype.kind in "iufb" or content.dtype.name == "bfloat16"
        short = content.ndim <= 1 and content.size <= MOST_CONTENT and numeric
        if short and (index > 0 or content.ndim == 0 or sized):
            model.graph.initializer.append(onnx.numpy_helper.from_array(content, info.name))
        else:
            shapes[info.name] = content.shape
    return model, shapes


def sequences_of(case: NodeCase) -> dict[str, TensorSequence]:
    """Inputs that are sequences of tensors, with as many items as are fed."""
    found: dict[str, TensorSequence] = {}
    for info, fed in zip(case.model.graph.input, case.inputs, strict=False):
        kind = info.type.optional_type.elem_type if info.type.HasField("optional_type") else info.type
        if kind.HasField("sequence_type") and isinstance(fed, list):
            element = kind.sequence_type.elem_type.tensor_type.elem_type
            items = tuple(Tensor(element, np.asarray(item).shape) for item in fed)
            found[info.name] = TensorSequence(items, items[0] if items else Tensor(element, None))
    return found
