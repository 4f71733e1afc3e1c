"""Gives every axis of a graph's inputs a size: from the file, from the request, or from the batch size."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import onnx

from tailwise.models.errors import DynamicShape
from tailwise.models.tensors import Tensor, Value, from_type

InputShapes = Mapping[str, Sequence[int]]

_BATCH = re.compile(r"(^|[^a-z])(batch|batch_?size|bs|n|b)([^a-z]|$)|^batch", re.IGNORECASE)
_NOT_BATCH = re.compile(r"seq|len|time|token|height|width|chan|feat|box|num_|past|dim_?[1-9]", re.IGNORECASE)


def real_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Inputs that a caller feeds: up to IR version 3 initialisers are listed among the inputs too."""
    stored = {tensor.name for tensor in graph.initializer}
    stored |= {tensor.values.name for tensor in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in stored]


def bind_inputs(graph: onnx.GraphProto, shapes: InputShapes, batch_size: int | None) -> dict[str, Value]:
    """Every input with its full shape.

    ``shapes`` maps an input's name to all its sizes, or an axis' name to one size. A named axis gets the
    same size wherever its name occurs. The batch axis (named so, or a free first axis) gets
    ``batch_size``, 1 when None. Raises DynamicShape naming every axis that stays free, and every size that
    contradicts the file.
    """
    inputs = real_inputs(graph)
    axes = {value.name: _axes(value) for value in inputs if value.type.HasField("tensor_type")}
    symbols = _symbols(axes, shapes)
    bound: dict[str, Value] = {}
    free: list[str] = []
    batch_seen = False
    for value in inputs:
        if value.name not in axes:
            bound[value.name] = from_type(value.type)
            continue
        declared = axes[value.name]
        if declared is None:
            given = shapes.get(value.name)
            if given is None:
                free.append(f"{value.name!r} (of unknown rank)")
            declared = list(given or ())
        sizes: list[int] = []
        batch_axis = _batch_axis(declared)
        for axis, size in enumerate(declared):
            if isinstance(size, str):
                given_size = _given(shapes, value.name, axis, symbols.get(size) if size else None)
                batch_seen = batch_seen or axis == batch_axis
                if given_size is None and axis == batch_axis:
                    given_size = 1 if batch_size is None else batch_size
                if given_size is None:
                    free.append(f"{value.name!r} axis {axis}" + (f" ({size})" if size else ""))
                sizes.append(1 if given_size is None else given_size)
            else:
                sizes.append(size)
        bound[value.name] = Tensor(value.type.tensor_type.elem_type, tuple(sizes))
    if free:
        raise DynamicShape(_free_axes(free, axes))
    _check_batch(bound, batch_size, batch_seen or bool(shapes))
    return bound


def _axes(value: onnx.ValueInfoProto) -> list[int | str] | None:
    """Each axis' size, or its name where it is free ("" without one); None for an unknown rank."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else _axis_name(dim.dim_param)
        for dim in tensor.shape.dim
    ]


def _axis_name(name: str) -> str:
    """An axis' name; some exporters write a question mark or -1 for every axis without one."""
    return name if any(character.isalpha() for character in name) and name != "None" else ""


def _symbols(axes: Mapping[str, list[int | str] | None], shapes: InputShapes) -> dict[str, int]:
    """Sizes of named axes, as the request gives them through any input or by name."""
    names = {size for declared in axes.values() for size in declared or () if isinstance(size, str) and size}
    symbols: dict[str, int] = {}
    for name, given in shapes.items():
        if name not in axes:
            if name not in names or len(given) != 1:
                known = ", ".join(sorted(axes) + sorted(names))
                raise DynamicShape(
                    f"{name!r} is neither an input nor a free axis of the model; it has: {known[:1000]}"
                )
            symbols[name] = given[0]
            continue
        declared = axes[name]
        if declared is None:
            continue
        if len(given) != len(declared):
            raise DynamicShape(
                f"{name!r} has {len(declared)} axes ({_written(declared)}), {len(given)} sizes are given"
            )
        for axis, (size, wanted) in enumerate(zip(declared, given, strict=True)):
            if isinstance(size, int) and wanted not in (size, -1):
                raise DynamicShape(
                    f"{name!r} axis {axis} is {size} in the file, {wanted} is given; "
                    f"give {_written(declared)}, or export the model with that axis dynamic"
                )
            if isinstance(size, str) and size and wanted != -1 and symbols.setdefault(size, wanted) != wanted:
                raise DynamicShape(
                    f"the axis {size!r} is given as {symbols[size]} and as {wanted} ({name!r} axis {axis})"
                )
    return symbols


def _given(shapes: InputShapes, name: str, axis: int, symbol: int | None) -> int | None:
    """The size the request gives to a free axis; -1 leaves it as it is."""
    own = shapes.get(name)
    if own is not None and own[axis] != -1:
        return own[axis]
    return symbol


def _batch_axis(declared: Sequence[int | str]) -> int | None:
    """The axis that counts the samples: one named so, else a free first axis not named otherwise."""
    for axis, size in enumerate(declared):
        if isinstance(size, str) and _BATCH.search(size) and not _NOT_BATCH.search(size):
            return axis
    if declared and isinstance(declared[0], str) and not _NOT_BATCH.search(declared[0]):
        return 0
    return None


def _check_batch(bound: Mapping[str, Value], batch_size: int | None, settable: bool) -> None:
    """A batch size that the file does not leave open is an error, not a figure for another batch."""
    if batch_size in (None, 1) or settable:
        return
    firsts = {v.shape[0] for v in bound.values() if isinstance(v, Tensor) and v.shape}
    if batch_size not in firsts:
        raise DynamicShape(
            f"the file fixes every axis of its inputs, so it cannot be run with a batch of {batch_size}; "
            "use 1, or export the model with a dynamic batch axis",
            field="spec.load.batchSize",
        )


def _free_axes(free: Sequence[str], axes: Mapping[str, list[int | str] | None]) -> str:
    """The message for axes without a size, with shapes one could give."""
    suggestions = []
    for name, declared in axes.items():
        if declared is not None and any(isinstance(size, str) for size in declared):
            batch = _batch_axis(declared)
            sizes = [
                size if isinstance(size, int) else 1 if axis == batch else _usual(size, axis, len(declared))
                for axis, size in enumerate(declared)
            ]
            suggestions.append(f"{name}: [{', '.join(map(str, sizes))}]")
    tip = "; ".join(suggestions[:8]) or "NAME: [1, 3, 224, 224]"
    more = f" and {len(free) - 16} more" if len(free) > 16 else ""
    return (
        f"no size for {', '.join(free[:16])}{more}: give spec.model.inputShapes (inspect: --input-shape "
        f"NAME=1,3,224,224), for example {tip}"
    )


def _usual(name: str, axis: int, rank: int) -> int:
    """A size that is usual for such an axis, for a suggestion only."""
    if re.search(r"seq|len|token|time", name, re.IGNORECASE) or rank <= 3:
        return 128
    return 3 if axis == 1 and not re.search(r"height|width", name, re.IGNORECASE) else 224


def _written(declared: Sequence[int | str]) -> str:
    return "[" + ", ".join(str(size) if size else "?" for size in declared) + "]"
