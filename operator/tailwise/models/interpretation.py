"""Walks a graph in order with every size known, and counts each operator on the way.

One pass does it all: a node's inputs are known when it is reached, its outputs are inferred, small contents
are computed, its work is counted. Bodies of control flow are walked by ``control_flow``, through the same
class, in a scope of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import onnx

from tailwise.api.profile import UnresolvedOperator
from tailwise.models import control_flow, folding, fusion, operators, sequences, shapes
from tailwise.models.errors import ModelTooLarge, NotAModel
from tailwise.models.graph import data_of, elements
from tailwise.models.operators.rule import Uncountable
from tailwise.models.records import Conditional, OperatorRecord
from tailwise.models.tensors import (
    Call,
    Tensor,
    Value,
    attributes_of,
    from_type,
    normal_domain,
    unknown,
)

MOST_STEPS = 2_000_000
MOST_NESTING = 32


@dataclass(slots=True)
class Tally:
    """What has been counted so far."""

    records: list[OperatorRecord] = field(default_factory=list)
    unresolved: list[UnresolvedOperator] = field(default_factory=list)
    conditionals: list[Conditional] = field(default_factory=list)
    depth: int = 0

    @property
    def flops(self) -> int:
        """FLOPs of all records."""
        return sum(record.total_flops for record in self.records)

    def add(self, other: Tally, times: int = 1) -> None:
        """Take in what another scope counted, executed that many times."""
        for record in other.records:
            self.records.append(replace(record, count=record.count * times) if times != 1 else record)
        self.unresolved.extend(other.unresolved)
        self.conditionals.extend(other.conditionals)
        self.depth = max(self.depth, other.depth)


class Scope:
    """Values by name, those of the graphs around it included."""

    def __init__(self, graph: onnx.GraphProto, outer: Scope | None = None, label: str = "") -> None:
        self.graph = graph
        self.outer = outer
        self.label: str = label if outer is None else outer.label + label
        self.nesting: int = 0 if outer is None else outer.nesting + 1
        self.values: dict[str, Value] = {}
        self.leads: dict[str, fusion.Lead | None] = {}
        self.depths: dict[str, int] = {}
        self.uses = Counter(name for node in graph.node for name in _used_by(node))
        self.uses.update(value.name for value in graph.output)
        self.declared = {info.name: info for info in graph.value_info}
        if self.nesting > MOST_NESTING:
            raise ModelTooLarge(f"graphs are nested deeper than {MOST_NESTING}")

    def __contains__(self, name: str) -> bool:
        return name in self.values or (self.outer is not None and name in self.outer)

    def value(self, name: str) -> Value | None:
        """The value of that name here or around; None for an absent one."""
        if not name:
            return None
        found = self.values.get(name)
        if found is None and self.outer is not None:
            return self.outer.value(name)
        return found

    def depth(self, name: str) -> int:
        """Operators on the longest path to that value, within the whole graph."""
        if name in self.depths or self.outer is None:
            return self.depths.get(name, 0)
        return self.outer.depth(name)


def _used_by(node: onnx.NodeProto) -> Iterator[str]:
    """Names a node uses, those used within its bodies included."""
    yield from node.input
    for attribute in node.attribute:
        bodies = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
        for body in bodies:
            for inner in body.node:
                yield from _used_by(inner)
            yield from (value.name for value in body.output)


class Interpreter:
    """Walks graphs of one model; ``operator_sets`` are the model's versions by domain."""

    def __init__(self, operator_sets: Mapping[str, int]) -> None:
        self._operator_sets = operator_sets
        self._steps = 0

    def run(self, scope: Scope, fed: Mapping[str, Value]) -> Tally:
        """Walk a scope's graph with its inputs given; results stay in the scope's values."""
        tally = Tally()
        scope.values.update(_stored(scope.graph))
        scope.values.update(fed)
        for node in scope.graph.node:
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise ModelTooLarge("loops of the graph take too many steps to be followed")
            self._step(scope, node, tally)
        return tally

    def _step(self, scope: Scope, node: onnx.NodeProto, tally: Tally) -> None:
        """Infer and count one node."""
        words = (node.op_type, node.domain, node.name, *node.input, *node.output)
        if not all(isinstance(word, str) for word in words):
            raise NotAModel("the file is not an ONNX model (names in it are not text)")
        missing = next((name for name in node.input if name and name not in scope), None)
        if missing is not None:
            raise NotAModel(
                f"the node {node.name or node.op_type!r} uses {missing!r}, which nothing before it makes: "
                "the graph is not in order"
            )
        domain = normal_domain(node.domain)
        call = Call(
            node=node,
            domain=domain,
            opset=self._operator_sets.get(domain, 1),
            attributes=attributes_of(node),
            inputs=tuple(scope.value(name) for name in node.input),
            scope=scope.label,
        )
        if domain == "" and node.op_type in control_flow.OPERATORS:
            inner = Tally()
            call = replace(call, outputs=control_flow.run(self, scope, call, inner))
            tally.add(inner)
            self._leave(scope, call, tally, fused=False, least_depth=inner.depth)
            return
        call = self._with_outputs(scope, call)
        fused = self._fused(scope, call)
        self._leave(scope, call, tally, fused=fused)
        try:
            tally.records.append(operators.count(call, fused=fused, times=1))
        except Uncountable as reason:
            tally.unresolved.append(unresolved(call, str(reason)))

    def _with_outputs(self, scope: Scope, call: Call) -> Call:
        """The call with its outputs' types, and their content where it follows."""
        made = sequences.infer(call) if call.domain == "" else None
        if made is not None:
            return replace(call, outputs=made)
        if call.op_type == "Constant" and call.domain == "":
            return replace(call, outputs=(_constant(call),))
        alone = folding.fold_alone(call)
        if alone is not None:
            bounded = any(isinstance(value, Tensor) and value.bounded for value in call.inputs)
            kind = int(onnx.helper.np_dtype_to_tensor_dtype(alone.dtype))
            made_alone = Tensor(kind, alone.shape, alone, constant=not bounded, bounded=bounded)
            return replace(call, outputs=(made_alone,))
        outputs = [
            self._declared(scope, name, value)
            for name, value in zip(call.node.output, shapes.infer(call), strict=True)
        ]
        call = replace(call, outputs=tuple(outputs))
        contents = folding.fold(call)
        if contents is None:
            return _aliased(call)
        bounded = any(isinstance(value, Tensor) and value.bounded for value in call.inputs)
        for index, content in enumerate(contents):
            value = outputs[index] if index < len(outputs) else None
            if isinstance(value, Tensor) and content is not None:
                outputs[index] = replace(
                    value, shape=content.shape, array=content, constant=not bounded, bounded=bounded
                )
        return _aliased(replace(call, outputs=tuple(outputs)))

    def _declared(self, scope: Scope, name: str, value: Value | None) -> Value | None:
        """What the file says of a value whose shape could not be inferred."""
        if isinstance(value, Tensor) and value.shape is None and name in scope.declared:
            said = from_type(scope.declared[name].type)
            if isinstance(said, Tensor) and said.shape is not None:
                return replace(value, shape=said.shape, element_type=value.element_type or said.element_type)
        return value

    def _fused(self, scope: Scope, call: Call) -> bool:
        """Whether the runtime does it within the operator before; remembers what may follow."""
        names = list(call.node.input)
        before = [scope.leads.get(name) for name in names]
        sole = [scope.uses[name] == 1 for name in names]
        fused, lead = fusion.lead_of(call, before, sole_use=sole)
        if call.node.output:
            scope.leads[call.node.output[0]] = lead
        return fused

    def _leave(self, scope: Scope, call: Call, tally: Tally, *, fused: bool, least_depth: int = 0) -> None:
        """Put the outputs into the scope, with their depth in the graph."""
        inputs = [name for name in call.node.input if name]
        constant = all(isinstance(value, Tensor) and value.constant for value in call.outputs)
        moves = constant or fused or call.op_type == "Identity"
        depth = max((scope.depth(name) for name in inputs), default=0) + (not moves)
        depth = max(depth, least_depth)
        tally.depth = max(tally.depth, depth)
        for name, value in zip(call.node.output, call.outputs, strict=True):
            if name:
                scope.values[name] = unknown() if value is None else value
                scope.depths[name] = depth


def _aliased(call: Call) -> Call:
    """An Identity of a weight is that weight: exporters share equal weights so."""
    source = call.input(0)
    if call.op_type != "Identity" or source is None or not source.stored:
        return call
    return replace(call, outputs=(source,))


def _constant(call: Call) -> Tensor:
    """What a Constant node holds."""
    held = call.attributes.get("value")
    if held is not None and not isinstance(held, onnx.TensorProto):
        raise NotAModel(f"the constant {call.name!r} holds no tensor")
    content = folding.constant_content(call)
    if held is not None:
        shape = tuple(held.dims)
        keep = elements(held) <= folding.MOST_ELEMENTS
        return Tensor(held.data_type, shape, content if keep else None, constant=True, stored=True)
    sparse = call.attributes.get("sparse_value")
    if sparse is not None:
        return Tensor(sparse.values.data_type, tuple(sparse.dims), constant=True, stored=True)
    if content is None:
        count = len(call.attributes.get("value_strings", [""]))
        return Tensor(onnx.TensorProto.STRING, (count,), constant=True)
    kind = onnx.helper.np_dtype_to_tensor_dtype(content.dtype)
    return Tensor(kind, content.shape, content, constant=True, stored=True)


def _stored(graph: onnx.GraphProto) -> Iterable[tuple[str, Tensor]]:
    """A graph's initialisers, with the content of small ones."""
    for tensor in graph.initializer:
        content = data_of(tensor) if elements(tensor) <= folding.MOST_ELEMENTS else None
        shape = tuple(tensor.dims)
        yield tensor.name, Tensor(tensor.data_type, shape, content, constant=True, stored=True)
    for sparse in graph.sparse_initializer:
        shape = tuple(sparse.dims)
        yield sparse.values.name, Tensor(sparse.values.data_type, shape, constant=True, stored=True)


def unresolved(call: Call, reason: str) -> UnresolvedOperator:
    """The entry for an operator that could not be counted."""
    operator = f"{call.domain}.{call.op_type}" if call.domain else call.op_type
    return UnresolvedOperator(node=call.name[:253], operator=operator[:128], reason=reason[:512])
