"""The types of one node's outputs, from the types (and small contents) of its inputs.

ONNX's own inference function of each operator does the work, one node at a time with every size known.
Where it cannot tell because a size depends on the data, the largest possible size is taken and the
tensor is marked ``bounded``; where there is no bound, the shape is unknown and the caller says so.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx

from tailwise.models import contributed_shapes, standard_shapes
from tailwise.models.tensors import (
    Call,
    Shape,
    Tensor,
    TensorSequence,
    Value,
    described,
    from_type,
    unknown,
)

MOST_CONTENT = 4096
"""Longer contents are not handed to the inference functions: they are no shapes."""

_ELEMENTWISE = frozenset(
    {
        "Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Sum", "Mean", "And", "Or", "Xor", "Equal",
        "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Where", "PRelu", "BitwiseAnd", "BitwiseOr",
        "BitwiseXor", "BitShift",
    }
)  # fmt: skip


def infer(call: Call) -> tuple[Value | None, ...]:
    """A value for each output, in order; None for outputs the node leaves out. Does not raise."""
    bounded = any(isinstance(value, Tensor) and value.bounded for value in call.inputs)
    constant = bool(call.inputs) and all(v is None or _is_constant(v) for v in call.inputs)
    found = _inferred(call)
    outputs: list[Value | None] = []
    for index, name in enumerate(call.node.output):
        if not name:
            outputs.append(None)
            continue
        value = found[index] if index < len(found) else None
        if value is None:
            value = unknown(_element_type(call))
        if isinstance(value, Tensor) and value.shape is None:
            value = _bound(call, index, value, bounded=bounded)
        if isinstance(value, Tensor):
            if value.element_type == 0:
                value = replace(value, element_type=_element_type(call))
            value = replace(value, bounded=value.bounded or bounded, constant=constant)
        outputs.append(value)
    return tuple(outputs)


def _is_constant(value: Value) -> bool:
    if isinstance(value, Tensor):
        return value.constant
    return value.items is not None and all(item.constant for item in value.items)


def _element_type(call: Call) -> int:
    """The first tensor input's type: what an output has unless something says otherwise."""
    return next((v.element_type for v in call.inputs if isinstance(v, Tensor)), onnx.TensorProto.FLOAT)


def _inferred(call: Call) -> Sequence[Value | None]:
    """What rules for contributed operators, or ONNX's inference function, say."""
    for own in (contributed_shapes.infer(call), standard_shapes.infer(call)):
        if own is not None:
            return own
    standard = contributed_shapes.standard_operator_set(call)
    if standard is not None:
        schema = schema_of("", call.op_type, standard)
    else:
        schema = schema_of(call.domain, call.op_type, call.opset)
    if schema is None:
        return []
    types = {}
    data: dict[str, onnx.TensorProto] = {}
    for name, value in zip(call.node.input, call.inputs, strict=False):
        if not name:
            continue
        if value is None or (isinstance(value, Tensor) and value.element_type == 0):
            return []  # An input of which not even the type is known: nothing follows from it.
        types[name] = described(value)
        if isinstance(value, Tensor) and value.array is not None and value.array.size <= MOST_CONTENT:
            data[name] = onnx.numpy_helper.from_array(np.ascontiguousarray(value.array), name)
    try:
        found = onnx.shape_inference.infer_node_outputs(schema, call.node, types, data)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError):
        return []
    return [from_type(found[name]) if name in found else None for name in call.node.output]


@functools.lru_cache(maxsize=2048)
def schema_of(domain: str, op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    """The operator's definition in that operator set, None where there is none."""
    try:
        return onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None


def _bound(call: Call, index: int, value: Tensor, *, bounded: bool) -> Tensor:
    """A tensor whose shape was not inferred, with an upper bound of it where there is one."""
    rule = _BOUNDS.get(call.op_type) if call.domain == "" else None
    shape = rule(call, index) if rule is not None else None
    if shape is not None:
        return replace(value, shape=shape, bounded=True)
    if bounded or call.op_type in _ELEMENTWISE:
        shape = _least_common(call)
        if shape is not None:
            return replace(value, shape=shape, bounded=bounded)
    return value


def _least_common(call: Call) -> Shape | None:
    """Element-wise with operands whose bounds differ: the true sizes are equal, so the lesser bound holds."""
    if call.op_type not in _ELEMENTWISE:
        return None
    shapes = [value.shape for value in call.inputs if isinstance(value, Tensor)]
    known = [shape for shape in shapes if shape is not None]
    if not known or len(known) < len(shapes):
        return None
    rank = max(map(len, known))
    padded = [(1,) * (rank - len(shape)) + shape for shape in known]
    return tuple(min((size for size in sizes if size != 1), default=1) for sizes in zip(*padded, strict=True))


def _non_zero(call: Call, _index: int) -> Shape | None:
    """At most every element is not zero."""
    source = call.input(0)
    if source is None or source.shape is None:
        return None
    return (max(1, len(source.shape)), math.prod(source.shape))


def _non_max_suppression(call: Call, _index: int) -> Shape | None:
    """At most the given number of boxes for each class and image, and never more than there are."""
    boxes, scores, most = call.input(0), call.input(1), call.input(2)
    if boxes is None or scores is None or not boxes.shape or not scores.shape or len(scores.shape) != 3:
        return None
    count = boxes.shape[1]
    if most is not None and most.array is not None and most.array.size:
        count = min(count, max(0, int(most.array.ravel()[0])))
    return (scores.shape[0] * scores.shape[1] * count, 3)


def _compress(call: Call, _index: int) -> Shape | None:
    """At most everything is selected."""
    source = call.input(0)
    if source is None or source.shape is None:
        return None
    return source.shape if "axis" in call.attributes else (math.prod(source.shape),)


def _unique(call: Call, index: int) -> Shape | None:
    """At most all elements differ."""
    source = call.input(0)
    if source is None or source.shape is None:
        return None
    axis = call.attributes.get("axis")
    if index == 0 and axis is not None:
        return source.shape
    return (math.prod(source.shape) if axis is None else source.shape[axis],)


def _same(call: Call, _index: int) -> Shape | None:
    """A part of the input is at most all of it."""
    source = call.input(0)
    return None if source is None else source.shape


def _reshape(call: Call, _index: int) -> Shape | None:
    """A shape with one free size, whose bound does not divide evenly."""
    source, target = call.input(0), call.input(1)
    if source is None or source.shape is None or target is None or target.array is None:
        return None
    dims = [int(dim) for dim in target.array.ravel()]
    dims = [source.shape[i] if dim == 0 and i < len(source.shape) else dim for i, dim in enumerate(dims)]
    if dims.count(-1) != 1 or any(dim < -1 or dim == 0 for dim in dims):
        return None
    rest = math.prod(dim for dim in dims if dim != -1)
    return tuple(-(-math.prod(source.shape) // rest) if dim == -1 else dim for dim in dims)


_BOUNDS: dict[str, Callable[[Call, int], Shape | None]] = {
    "NonZero": _non_zero,
    "NonMaxSuppression": _non_max_suppression,
    "Compress": _compress,
    "Unique": _unique,
    "StringNormalizer": _same,
    "TopK": _same,
    "Slice": _same,
    "Reshape": _reshape,
}


def merged(left: Value, right: Value) -> Value:
    """A value that is one or the other (branches of an If): the larger in every axis, as a bound."""
    if isinstance(left, TensorSequence) or isinstance(right, TensorSequence):
        return left
    if left.shape is None or right.shape is None or len(left.shape) != len(right.shape):
        larger = left if (left.elements or 0) >= (right.elements or 0) else right
        return replace(larger, array=None, bounded=True, constant=False, stored=False)
    if left.shape == right.shape:
        return replace(left, array=None, constant=False, stored=False, bounded=left.bounded or right.bounded)
    shape = tuple(map(max, left.shape, right.shape))
    return Tensor(left.element_type, shape, bounded=True)
