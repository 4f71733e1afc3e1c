"""Sums what was counted for each operator into the model's profile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import onnx

from tailwise.api.profile import Completeness, FlopsByKind, ModelProfile, intensity_milliflops_per_byte
from tailwise.models.binding import bind_inputs
from tailwise.models.costs import MOST_FIGURE, MOST_LISTED, conditional_costs, heaviest, kind_costs
from tailwise.models.errors import ModelTooLarge, NotAModel
from tailwise.models.graph import Skeleton
from tailwise.models.interpretation import Interpreter, Scope, Tally
from tailwise.models.local_functions import inlined
from tailwise.models.parameters import count_parameters
from tailwise.models.records import OperatorKind, OperatorRecord
from tailwise.models.tensors import normal_domain
from tailwise.models.work import work_terms

MOST_UNRESOLVED = 64


def build_profile(
    skeleton: Skeleton,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    batch_size: int | None = None,
    *,
    listed_operators: int = MOST_LISTED,
    file_bytes: int = 0,
    bytes_read: int = 0,
) -> ModelProfile:
    """The profile of one inference at these input shapes.

    As many as ``listed_operators`` of the heaviest are listed one by one.
    ``file_bytes`` and ``bytes_read`` are what the source says; the bytes of external data are added to the
    first. Raises DynamicShape, NotAModel, ModelTooLarge.
    """
    model = inlined(skeleton.model)
    tally = count_operators(model, input_shapes or {}, batch_size)
    parameters = count_parameters(model)
    by_kind = _flops_by_kind(tally.records)
    flops = by_kind.total
    if max(flops, parameters.count, parameters.bytes) > MOST_FIGURE:
        raise ModelTooLarge("the sizes in the graph multiply to more than 2^63: they cannot be meant")
    executed = [record for record in tally.records if not record.constant]
    weight_bytes = _sum(record.weight_bytes * record.count for record in executed)
    moved_bytes = _sum(record.activation_bytes * record.count for record in executed)
    counts = Counter(_operators(model.graph))
    unresolved = len(tally.unresolved)
    total = len(tally.records) + unresolved
    return ModelProfile(
        flops=flops,
        flops_by_kind=by_kind,
        multiply_accumulates=_sum(record.multiply_accumulates * record.count for record in executed),
        parameters=parameters.count,
        parameter_bytes=parameters.bytes,
        activation_bytes=_sum(record.output_bytes * record.count for record in executed),
        moved_weight_bytes=weight_bytes,
        moved_activation_bytes=moved_bytes,
        arithmetic_intensity_milliflops_per_byte=intensity_milliflops_per_byte(
            flops, weight_bytes + moved_bytes
        ),
        file_bytes=file_bytes + parameters.external_bytes,
        bytes_read=bytes_read,
        operators=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        kinds=kind_costs(executed),
        heaviest=heaviest(executed, listed_operators),
        conditionals=conditional_costs(tally.conditionals),
        unresolved=tuple(tally.unresolved[:MOST_UNRESOLVED]),
        unresolved_count=unresolved,
        counted_percent=100 if not unresolved else min(99, 100 * (total - unresolved) // max(1, total)),
        completeness=Completeness.PARTIAL if unresolved else Completeness.COMPLETE,
        depth=tally.depth,
        precision=parameters.precision,
        batch_size=batch_size or 1,
        opset=_operator_sets(model).get("", 0),
        work=work_terms(tally.records),
    )


def count_operators(
    model: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]], batch_size: int | None
) -> Tally:
    """A record for each operator that is executed, and an entry for each that cannot be counted."""
    fed = bind_inputs(model.graph, input_shapes, batch_size)
    tally = Interpreter(_operator_sets(model)).run(Scope(model.graph), fed)
    if not tally.records and not tally.unresolved:
        raise NotAModel("the graph has no operators")
    return tally


def _operator_sets(model: onnx.ModelProto) -> dict[str, int]:
    return {normal_domain(entry.domain): entry.version for entry in model.opset_import}


def _flops_by_kind(records: Sequence[OperatorRecord]) -> FlopsByKind:
    sums: Counter[OperatorKind] = Counter()
    for record in records:
        sums[record.kind] += record.total_flops
    return FlopsByKind(
        convolution=sums[OperatorKind.CONVOLUTION],
        matmul=sums[OperatorKind.MATMUL],
        activation=sums[OperatorKind.ACTIVATION],
        pooling=sums[OperatorKind.POOLING],
        normalization=sums[OperatorKind.NORMALIZATION],
        other=sums[OperatorKind.OTHER] + sums[OperatorKind.DATA_MOVEMENT],
    )


def _sum(figures: Iterator[int]) -> int:
    return min(sum(figures), MOST_FIGURE)


def _operators(graph: onnx.GraphProto) -> Iterator[str]:
    """Types of a graph's nodes, those of bodies included, with the domain where it is not the default."""
    for node in graph.node:
        domain = normal_domain(node.domain)
        yield f"{domain}.{node.op_type}" if domain else node.op_type
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _operators(attribute.g)
            for body in attribute.graphs:
                yield from _operators(body)
