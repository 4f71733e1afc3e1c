"""Operators on sequences of tensors, which ONNX's inference knows only by their elements' type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx

from tailwise.models.tensors import Call, Tensor, TensorSequence, Value, unknown, with_shape


def infer(call: Call) -> tuple[Value | None, ...] | None:
    """Outputs of a sequence operator; None when it is none, or when nothing better than ONNX's is known."""
    rule = _RULES.get(call.op_type)
    if rule is None:
        return None
    try:
        value = rule(call)
    except (IndexError, KeyError, ValueError, TypeError):
        return None
    return None if value is None else (value,)


def _items(call: Call) -> tuple[tuple[Tensor, ...] | None, Tensor]:
    sequence = call.inputs[0]
    if not isinstance(sequence, TensorSequence):
        raise TypeError("not a sequence")
    return sequence.items, sequence.item


def _made(items: Sequence[Tensor]) -> TensorSequence:
    return TensorSequence(tuple(items), items[0] if items else unknown())


def _construct(call: Call) -> Value | None:
    return _made([value for value in call.inputs if isinstance(value, Tensor)])


def _empty(call: Call) -> Value | None:
    return TensorSequence((), unknown(int(call.attributes.get("dtype", onnx.TensorProto.FLOAT))))


def _position(call: Call, index: int, default: int) -> int:
    tensor = call.input(index)
    if tensor is None:
        return default
    if tensor.array is None:
        raise ValueError("the position depends on data")
    return int(tensor.array)


def _at(call: Call) -> Value | None:
    items, item = _items(call)
    if items is None:
        return item
    alike = {(entry.element_type, entry.shape) for entry in items}
    if len(alike) == 1:
        return with_shape(items[0], items[0].shape)
    return items[_position(call, 1, 0)]


def _insert(call: Call) -> Value | None:
    items, item = _items(call)
    new = call.input(1)
    if items is None or new is None:
        return TensorSequence(None, item)
    at = _position(call, 2, len(items))
    return _made([*items[:at], new, *items[at:]])


def _erase(call: Call) -> Value | None:
    items, item = _items(call)
    if items is None:
        return TensorSequence(None, item)
    at = _position(call, 1, len(items) - 1) % len(items)
    return _made([*items[:at], *items[at + 1 :]])


def _length(call: Call) -> Value | None:
    items, _ = _items(call)
    array = None if items is None else np.array(len(items), dtype=np.int64)
    return Tensor(onnx.TensorProto.INT64, (), array, constant=items is not None)


def _split(call: Call) -> Value | None:
    source, lengths = call.input(0), call.input(1)
    if source is None or source.shape is None:
        return None
    axis = int(call.attributes.get("axis", 0))
    whole, rest = source.shape[axis], list(source.shape)
    if lengths is None:
        parts = [1] * whole
    elif lengths.array is None:
        return None
    elif lengths.array.ndim == 0:
        each = int(lengths.array)
        parts = [min(each, whole - begin) for begin in range(0, whole, each)]
    else:
        parts = [int(length) for length in lengths.array]
    items = []
    for part in parts:
        rest[axis] = part
        shape = tuple(rest)
        if lengths is None and not call.attributes.get("keepdims", 1):
            shape = tuple(size for index, size in enumerate(rest) if index != axis % len(rest))
        items.append(replace(with_shape(source, shape), constant=source.constant))
    return _made(items)


def _concat(call: Call) -> Value | None:
    items, _ = _items(call)
    if not items or any(item.shape is None for item in items):
        return None
    shapes = [item.shape for item in items if item.shape is not None]
    axis = int(call.attributes["axis"])
    if call.attributes.get("new_axis"):
        shape = list(shapes[0])
        shape.insert(axis if axis >= 0 else len(shape) + 1 + axis, len(shapes))
        return with_shape(items[0], tuple(shape))
    joined = list(shapes[0])
    joined[axis] = sum(shape[axis] for shape in shapes)
    return with_shape(items[0], tuple(joined))


_RULES: dict[str, Callable[[Call], Value | None]] = {
    "SequenceConstruct": _construct,
    "SequenceEmpty": _empty,
    "SequenceAt": _at,
    "SequenceInsert": _insert,
    "SequenceErase": _erase,
    "SequenceLength": _length,
    "SplitToSequence": _split,
    "ConcatFromSequence": _concat,
}
