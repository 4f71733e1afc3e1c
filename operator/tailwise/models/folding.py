"""Content of small tensors that follows from shapes and constants alone.

Exporters compute shapes in the graph (Shape -> Gather -> Concat -> Reshape); without these values nothing
behind the Reshape has a size. Each function here is its operator's definition in the ONNX specification,
for the few operators that occur in such computations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from tailwise.models.graph import data_of
from tailwise.models.tensors import Array, Call, Tensor, Value

MOST_ELEMENTS = 16_384
"""Larger contents are never a shape; computing them would cost time and tell nothing."""

Fold = Callable[[Call, Sequence[Any]], Sequence[Any]]


def fold(call: Call) -> tuple[Array | None, ...] | None:
    """The content of each output, or None when it does not follow from what is known.

    ``call.outputs`` must hold the outputs' inferred types.
    """
    if call.domain != "" or _too_long(call.outputs):
        return None
    source = call.input(0)
    if call.op_type in _FROM_SHAPES:
        if source is None or source.shape is None:
            return None
        return (_FROM_SHAPES[call.op_type](call, source.shape),)
    function = _FOLDS.get(call.op_type)
    contents = _contents(call.inputs)
    if function is None or contents is None:
        return None
    try:
        with np.errstate(all="ignore"):
            results = function(call, contents)
    except (ValueError, IndexError, TypeError, KeyError, OverflowError, ZeroDivisionError, MemoryError):
        return None
    return tuple(np.asarray(result) for result in results)


def fold_alone(call: Call) -> Array | None:
    """The content of the one output of an operator whose result tells its own type and size.

    Exports with free axes are full of these, and inferring each would take longer than computing it. The
    product of the inputs' sizes bounds the result's.
    """
    if call.domain != "" or call.op_type not in _ALONE or len(call.node.output) != 1:
        return None
    source = call.input(0)
    if call.op_type in _FROM_SHAPES:
        if source is None or source.shape is None:
            return None
        return _FROM_SHAPES[call.op_type](call, source.shape)
    contents = _contents(call.inputs)
    if contents is None or math.prod(content.size for content in contents if content is not None) > _FEW:
        return None
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(_FOLDS[call.op_type](call, contents)[0])
    except (
        ValueError,
        IndexError,
        TypeError,
        KeyError,
        OverflowError,
        ZeroDivisionError,
        FloatingPointError,
    ):
        return None
    return result if result.dtype in _PLAIN else None


_ALONE = frozenset(
    {
        "Shape",
        "Size",
        "Gather",
        "Concat",
        "Slice",
        "Squeeze",
        "Unsqueeze",
        "Add",
        "Sub",
        "Mul",
        "Cast",
        "Equal",
    }
)
_PLAIN = frozenset(map(np.dtype, (np.int64, np.int32, np.bool_, np.float32)))
_FEW = 4096


def _too_long(outputs: Sequence[Value | None]) -> bool:
    return any(isinstance(o, Tensor) and (o.elements or 0) > MOST_ELEMENTS for o in outputs)


def _contents(inputs: Sequence[Value | None]) -> list[Any] | None:
    """The content of every input (None for an absent one), or None when one of them is not known."""
    contents: list[Any] = []
    for value in inputs:
        if value is None:
            contents.append(None)
        elif isinstance(value, Tensor) and value.array is not None:
            contents.append(value.array)
        else:
            return None
    return contents


def _shape(call: Call, shape: Sequence[int]) -> Array:
    dims = list(shape)
    begin, end = call.attributes.get("start", 0), call.attributes.get("end")
    return np.array(dims[slice(begin, end)], dtype=np.int64)


def _size(_call: Call, shape: Sequence[int]) -> Array:
    return np.array(math.prod(shape), dtype=np.int64)


_FROM_SHAPES: dict[str, Callable[[Call, Sequence[int]], Array]] = {"Shape": _shape, "Size": _size}


def constant_content(call: Call) -> Array | None:
    """The content of a Constant node, whichever attribute holds it."""
    attributes = call.attributes
    if "value" in attributes:
        return data_of(attributes["value"])
    for name, kind in (("value_int", np.int64), ("value_ints", np.int64)):
        if name in attributes:
            return np.array(attributes[name], dtype=kind)
    for name in ("value_float", "value_floats"):
        if name in attributes:
            return np.array(attributes[name], dtype=np.float32)
    return None


def _axes(call: Call, contents: Sequence[Any], index: int = 1) -> tuple[int, ...] | None:
    """Axes from the attribute (older operator sets) or the input (newer ones)."""
    axes = call.attributes.get("axes")
    if axes is None and len(contents) > index and contents[index] is not None:
        axes = contents[index].ravel()
    return None if axes is None else tuple(int(axis) for axis in axes)


def _divide(_call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    left, right = contents
    if np.issubdtype(left.dtype, np.integer):
        # Integer division truncates towards zero, as in C.
        return [(np.sign(left) * np.sign(right) * (np.abs(left) // np.abs(right))).astype(left.dtype)]
    return [left / right]


def _mod(call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    return [np.fmod(*contents) if call.attributes.get("fmod") else np.mod(*contents)]


def _cast(call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    kind = int(call.attributes["to"]) if call.op_type == "Cast" else None
    target = onnx.helper.tensor_dtype_to_np_dtype(kind) if kind is not None else contents[1].dtype
    return [contents[0].astype(target)]


def _gather(call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    return [np.take(contents[0], contents[1].astype(np.int64), axis=call.attributes.get("axis", 0))]


def _slice(call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    data = contents[0]
    if "starts" in call.attributes:
        starts, ends = call.attributes["starts"], call.attributes["ends"]
        axes, steps = call.attributes.get("axes"), None
    else:
        starts, ends = contents[1].ravel(), contents[2].ravel()
        axes = contents[3].ravel() if len(contents) > 3 and contents[3] is not None else None
        steps = contents[4].ravel() if len(contents) > 4 and contents[4] is not None else None
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    window = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        first, last, stride = int(start), int(end), int(step)
        if stride < 0 and last < -data.shape[int(axis)]:
            window[int(axis)] = slice(first, None, stride)
        else:
            window[int(axis)] = slice(first, last, stride)
    return [data[tuple(window)]]


def _unsqueeze(call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    return [np.expand_dims(contents[0], _axes(call, contents) or ())]


def _squeeze(call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    return [np.squeeze(contents[0], _axes(call, contents))]


def _reshape(call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    data, target = contents[0], [int(dim) for dim in contents[1]]
    if not call.attributes.get("allowzero"):
        target = [data.shape[i] if dim == 0 else dim for i, dim in enumerate(target)]
    return [data.reshape(target)]


def _known_shape(call: Call) -> tuple[int, ...]:
    output = call.output()
    if output is None or output.shape is None:
        raise ValueError("the output has no known shape")
    return output.shape


def _constant_of_shape(call: Call, _contents: Sequence[Any]) -> Sequence[Any]:
    fill = call.attributes.get("value")
    value = data_of(fill) if fill is not None else np.zeros(1, np.float32)
    if value is None:
        raise ValueError("the value to fill with was not read")
    return [np.full(_known_shape(call), value.ravel()[0], dtype=value.dtype)]


def _range(_call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    dtype = contents[0].dtype
    number = int if np.issubdtype(dtype, np.integer) else float
    start, limit, delta = (number(content.item()) for content in contents)
    if max(0, math.ceil((limit - start) / delta)) > MOST_ELEMENTS:
        raise ValueError("too long to be a shape")
    return [np.arange(start, limit, delta).astype(dtype)]


def _expand(call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    return [np.broadcast_to(contents[0], _known_shape(call))]


def _tile(_call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    if math.prod(int(n) for n in contents[1]) * contents[0].size > MOST_ELEMENTS:
        raise ValueError("too long to be a shape")
    return [np.tile(contents[0], contents[1])]


def _split(call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    axis = call.attributes.get("axis", 0)
    lengths = [o.shape[axis] for o in call.outputs if isinstance(o, Tensor) and o.shape is not None]
    if len(lengths) != len(call.outputs):
        raise ValueError("the lengths of the parts are not known")
    return np.split(contents[0], np.cumsum(lengths)[:-1], axis=axis)


def _scatter_nd(call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    data, indices, updates = contents
    if call.attributes.get("reduction", "none") != "none":
        raise ValueError("only replacement is computed here")
    result = np.copy(data)
    result[tuple(np.moveaxis(indices, -1, 0))] = updates
    return [result]


def _reduction(function: Callable[..., Any]) -> Fold:
    def folded(call: Call, contents: Sequence[Any]) -> Sequence[Any]:
        axes = _axes(call, contents)
        if not axes and call.attributes.get("noop_with_empty_axes"):
            return [contents[0]]
        keep = bool(call.attributes.get("keepdims", 1))
        result = function(contents[0], axis=axes or None, keepdims=keep)
        return [np.asarray(result).astype(contents[0].dtype)]

    return folded


def _elementwise(function: Callable[..., Any]) -> Fold:
    def folded(_call: Call, contents: Sequence[Any]) -> Sequence[Any]:
        result = contents[0] if len(contents) > 1 else function(contents[0])
        for content in contents[1:]:
            result = function(result, content)
        return [result]

    return folded


def _transpose(call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    return [np.transpose(contents[0], call.attributes.get("perm"))]


def _concat(call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    return [np.concatenate(contents, axis=call.attributes.get("axis", 1))]


def _where(_call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    return [np.where(*contents)]


def _identity(_call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    return [contents[0]]


def _flatten(call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    return [contents[0].reshape(_known_shape(call))]


def _non_zero(_call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    return [np.array(np.nonzero(contents[0]), dtype=np.int64)]


def _clip(call: Call, contents: Sequence[Any]) -> Sequence[Any]:
    bounds = [*contents[1:], None, None]
    low = call.attributes.get("min", bounds[0])
    high = call.attributes.get("max", bounds[1])
    return [contents[0] if low is None and high is None else np.clip(contents[0], low, high)]


_FOLDS: dict[str, Fold] = {
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and),
    "Cast": _cast,
    "CastLike": _cast,
    "Ceil": _elementwise(np.ceil),
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _divide,
    "Equal": _elementwise(np.equal),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _elementwise(np.floor),
    "Gather": _gather,
    "Greater": _elementwise(np.greater),
    "GreaterOrEqual": _elementwise(np.greater_equal),
    "Identity": _identity,
    "Less": _elementwise(np.less),
    "LessOrEqual": _elementwise(np.less_equal),
    "Max": _elementwise(np.maximum),
    "Min": _elementwise(np.minimum),
    "Mod": _mod,
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "NonZero": _non_zero,
    "Not": _elementwise(np.logical_not),
    "Or": _elementwise(np.logical_or),
    "Pow": _elementwise(np.power),
    "Range": _range,
    "Reciprocal": _elementwise(np.reciprocal),
    "ReduceMax": _reduction(np.max),
    "ReduceMean": _reduction(np.mean),
    "ReduceMin": _reduction(np.min),
    "ReduceProd": _reduction(np.prod),
    "ReduceSum": _reduction(np.sum),
    "Relu": _elementwise(lambda content: np.maximum(content, 0)),
    "Reshape": _reshape,
    "Round": _elementwise(np.round),
    "ScatterND": _scatter_nd,
    "Sign": _elementwise(np.sign),
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _elementwise(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Sum": _elementwise(np.add),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
    "Xor": _elementwise(np.logical_xor),
}
