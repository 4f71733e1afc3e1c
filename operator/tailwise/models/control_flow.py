"""Graphs within graphs: If, Loop and Scan (and SequenceMap).

If counts the branch its condition selects where that is known, else the dearer one: a latency objective is
kept for either. Loop and Scan count their body once and multiply, when the sizes it carries stay the
same; else they are followed step by step. A number of steps that depends on data is named as unresolved,
and one step is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from tailwise.models import shapes
from tailwise.models.errors import NotAModel
from tailwise.models.records import Conditional
from tailwise.models.tensors import Call, Tensor, TensorSequence, Value, unknown

if TYPE_CHECKING:
    from tailwise.models.interpretation import Interpreter, Scope, Tally

OPERATORS = frozenset({"If", "Loop", "Scan", "SequenceMap"})
MOST_FOLLOWED_STEPS = 512
"""Steps that are followed one by one where sizes change on the way."""
MOST_TRIPS = 2**31


def run(interpreter: Interpreter, scope: Scope, call: Call, tally: Tally) -> tuple[Value | None, ...]:
    """Count a control-flow node's bodies into the tally; returns its outputs."""
    rule: Callable[..., Sequence[Value | None]] = _RULES[call.op_type]
    outputs = list(rule(interpreter, scope, call, tally))
    outputs += [None] * (len(call.node.output) - len(outputs))
    return tuple(outputs[: len(call.node.output)])


def _graph(call: Call, name: str) -> onnx.GraphProto:
    """A node's body. Raises NotAModel where the file has none."""
    graph = call.attributes.get(name)
    if not isinstance(graph, onnx.GraphProto):
        raise NotAModel(f"the file is not an ONNX model ({call.op_type} {call.name} has no graph {name})")
    return graph


def _body(interpreter: Interpreter, scope: Scope, call: Call, name: str, fed: Sequence[Value]) -> _Body:
    from tailwise.models.interpretation import Scope as NewScope  # noqa: PLC0415 -- each needs the other

    graph = _graph(call, name)
    inner = NewScope(graph, scope, f"{call.node.name or call.op_type}/")
    inputs = {value.name: given for value, given in zip(graph.input, fed, strict=False)}
    inner_tally = interpreter.run(inner, inputs)
    results = [inner.value(value.name) or unknown() for value in graph.output]
    return _Body(inner_tally, results)


class _Body:
    """One walk through a body: what it counted and what came out."""

    def __init__(self, tally: Tally, results: list[Value]) -> None:
        self.tally = tally
        self.results = results


def _if(interpreter: Interpreter, scope: Scope, call: Call, tally: Tally) -> Sequence[Value | None]:
    condition = call.input(0)
    if condition is not None and condition.array is not None and not condition.bounded:
        name = "then_branch" if bool(condition.array.any()) else "else_branch"
        taken = _body(interpreter, scope, call, name, ())
        tally.add(taken.tally)
        return taken.results
    first = _body(interpreter, scope, call, "then_branch", ())
    second = _body(interpreter, scope, call, "else_branch", ())
    then_dearer = _cost(first) >= _cost(second)
    dearer, other = (first, second) if then_dearer else (second, first)
    tally.add(dearer.tally)
    flops = (first.tally.flops, second.tally.flops)
    tally.conditionals.append(Conditional(call.name, *flops, counts_then=then_dearer))
    return [shapes.merged(a, b) for a, b in zip(dearer.results, other.results, strict=False)]


def _cost(body: _Body) -> tuple[int, int]:
    return body.tally.flops, len(body.tally.records) + len(body.tally.unresolved)


def _loop(interpreter: Interpreter, scope: Scope, call: Call, tally: Tally) -> Sequence[Value | None]:
    graph = _graph(call, "body")
    carried = [value or unknown() for value in call.inputs[2:]]
    trips = _trips(call)
    step = Tensor(onnx.TensorProto.INT64, ())
    condition = Tensor(onnx.TensorProto.BOOL, (), np.array(True))
    body = _body(interpreter, scope, call, "body", [step, condition, *map(_changing, carried)])
    after = body.results[1 : 1 + len(carried)]
    if trips is not None and not _stops(body.results[0]):
        trips = None if trips > MOST_TRIPS else trips
    steady = _alike(carried, after) and not body.tally.unresolved
    if trips is not None and not steady and trips <= MOST_FOLLOWED_STEPS:
        return _followed(interpreter, scope, call, tally, (trips, carried))
    scans = body.results[1 + len(carried) :]
    if trips is None or trips > MOST_TRIPS:
        step_flops = body.tally.flops
        _note(call, tally, f"its number of steps depends on data: one step is counted ({step_flops} FLOPs)")
        tally.add(body.tally)
        return [*map(_changing, after), *(unknown(_kind(scan)) for scan in scans)]
    if not _alike(carried, after):
        _note(call, tally, f"sizes change over its {trips} steps, too many to follow: all count as the first")
    tally.add(body.tally, trips)
    bounded = len(graph.output) > 0 and _stops(body.results[0])
    return [*map(_changing, after if trips else carried), *(_stacked(scan, trips, bounded) for scan in scans)]


def _trips(call: Call) -> int | None:
    """The loop's number of steps; None where it depends on data."""
    most, condition = call.input(0), call.input(1)
    if condition is not None and condition.array is not None and not bool(condition.array.all()):
        return 0
    if most is None or most.array is None or most.array.size != 1:
        return None
    return max(0, int(most.array.ravel()[0]))


def _stops(condition: Value) -> bool:
    """Whether a body may end its loop early: its condition is not known to hold."""
    known = isinstance(condition, Tensor) and condition.array is not None
    return not (known and isinstance(condition, Tensor) and bool(np.all(condition.array)))


def _followed(
    interpreter: Interpreter, scope: Scope, call: Call, tally: Tally, start: tuple[int, list[Value]]
) -> Sequence[Value | None]:
    """A loop step by step, since what it carries changes its size."""
    trips, carried = start
    scans: list[list[Value]] = []
    condition: Value = Tensor(onnx.TensorProto.BOOL, (), np.array(True))
    for index in range(trips):
        step = Tensor(onnx.TensorProto.INT64, (), np.array(index, dtype=np.int64))
        body = _body(interpreter, scope, call, "body", [step, condition, *carried])
        tally.add(body.tally)
        condition = body.results[0]
        carried = body.results[1 : 1 + len(carried)]
        scans.append(body.results[1 + len(carried) :])
        if isinstance(condition, Tensor) and condition.array is not None and not condition.array.all():
            break
    columns = list(zip(*scans, strict=False))
    return [*carried, *(_stacked(column[0], len(column), bounded=False) for column in columns)]


def _scan(interpreter: Interpreter, scope: Scope, call: Call, tally: Tally) -> Sequence[Value | None]:
    if call.opset < 9:
        return _batched_scan(interpreter, scope, call, tally)
    count, inputs = int(call.attributes.get("num_scan_inputs", 1)), list(call.inputs)
    states = [value or unknown() for value in inputs[: len(inputs) - count]]
    scanned = [value for value in inputs[len(inputs) - count :] if isinstance(value, Tensor)]
    axes = call.attributes.get("scan_input_axes") or [0] * count
    if len(scanned) < count or any(not value.shape for value in scanned):
        _note(call, tally, "the length of what it scans is not known")
        return []
    trips = next(value.shape[axis] for value, axis in zip(scanned, axes, strict=True) if value.shape)
    slices: list[Value] = [_without(value, axis) for value, axis in zip(scanned, axes, strict=True)]
    body = _body(interpreter, scope, call, "body", [*map(_changing, states), *slices])
    after = body.results[: len(states)]
    if not _alike(states, after):
        _note(call, tally, "the sizes of its states change from step to step: all count as the first")
    tally.add(body.tally, trips)
    scans = body.results[len(states) :]
    out_axes = call.attributes.get("scan_output_axes") or [0] * len(scans)
    stacked = [
        _stacked(scan, trips, bounded=False, axis=axis) for scan, axis in zip(scans, out_axes, strict=False)
    ]
    return [*map(_changing, after), *stacked]


def _batched_scan(interpreter: Interpreter, scope: Scope, call: Call, tally: Tally) -> Sequence[Value | None]:
    """Scan of operator set 8: every value has a batch axis first, and what is scanned a sequence axis next.

    The body sees one sample of one step, so it runs batch x steps times.
    """
    count = int(call.attributes.get("num_scan_inputs", 1))
    inputs = [value for value in call.inputs[1:] if isinstance(value, Tensor) and value.shape]
    if len(inputs) < len(call.inputs) - 1 or any(len(value.shape or ()) < 2 for value in inputs[-count:]):
        _note(call, tally, "the length of what it scans is not known")
        return []
    states, scanned = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
    batch, steps = (scanned[0].shape or (0, 0))[:2]
    fed = [_changing(_without(state, 0)) for state in states]
    body = _body(interpreter, scope, call, "body", [*fed, *(_without(_without(s, 0), 0) for s in scanned)])
    tally.add(body.tally, batch * steps)
    after = [_stacked(state, batch, bounded=False) for state in body.results[: len(states)]]
    scans = [_stacked(scan, steps, bounded=False) for scan in body.results[len(states) :]]
    return [*after, *(_stacked(scan, batch, bounded=False) for scan in scans)]


def _sequence_map(interpreter: Interpreter, scope: Scope, call: Call, tally: Tally) -> Sequence[Value | None]:
    sequence = call.inputs[0] if call.inputs else None
    if not isinstance(sequence, TensorSequence) or sequence.items is None:
        _note(call, tally, "the length of its sequence is not known")
        return []
    columns: list[list[Value]] = []
    for index, item in enumerate(sequence.items):
        others = [
            other.items[index] if isinstance(other, TensorSequence) and other.items else other or unknown()
            for other in call.inputs[1:]
        ]
        body = _body(interpreter, scope, call, "body", [item, *others])
        tally.add(body.tally)
        columns.append(body.results)
    made = []
    for column in zip(*columns, strict=True):
        tensors = tuple(value for value in column if isinstance(value, Tensor))
        made.append(TensorSequence(tensors, tensors[0] if tensors else unknown()))
    return made


_RULES: dict[str, Callable[..., Sequence[Value | None]]] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
    "SequenceMap": _sequence_map,
}


def _note(call: Call, tally: Tally, reason: str) -> None:
    from tailwise.models.interpretation import unresolved  # noqa: PLC0415 -- each needs the other

    tally.unresolved.append(unresolved(call, reason))


def _changing(value: Value) -> Value:
    """A value whose content is another in each step, while its size is not."""
    if isinstance(value, Tensor):
        return replace(value, array=None, constant=False, stored=False)
    return value


def _alike(before: Sequence[Value], after: Sequence[Value]) -> bool:
    """Whether what is carried has the same sizes after a step as before."""
    if len(before) != len(after):
        return False
    for old, new in zip(before, after, strict=True):
        if isinstance(old, TensorSequence) or isinstance(new, TensorSequence):
            return False
        if old.shape is None or old.shape != new.shape:
            return False
    return True


def _kind(value: Value) -> int:
    return value.element_type if isinstance(value, Tensor) else 0


def _stacked(value: Value, trips: int, bounded: bool, axis: int = 0) -> Value:
    """Results of every step, stacked along a new axis."""
    if not isinstance(value, Tensor) or value.shape is None:
        return unknown(_kind(value))
    shape = list(value.shape)
    shape.insert(axis if axis >= 0 else len(shape) + 1 + axis, trips)
    return Tensor(value.element_type, tuple(shape), bounded=bounded or value.bounded)


def _without(value: Tensor, axis: int) -> Tensor:
    """One slice of a scanned tensor."""
    shape = list(value.shape or ())
    del shape[axis]
    return Tensor(value.element_type, tuple(shape), constant=value.constant)
