"""What operators cost, as the profile shows it: by kind, and one by one for the dearest.

Bytes are those of the graph as it is written: every operator reads its inputs and its weights and writes
its results, and a mere view moves nothing. What the runtime fuses moves less; the prior's terms
(``work``) know about that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tailwise.api.profile import ConditionalCost, KindCost, OperatorCost
from tailwise.models.records import Conditional, OperatorKind, OperatorRecord

MOST_LISTED = 10
MOST_CONDITIONALS = 16
MOST_FIGURE = 2**63 - 1
"""Kubernetes keeps integers in 64 bits; a real model is ten orders of magnitude below."""

_KEYS = {
    OperatorKind.CONVOLUTION: "convolution",
    OperatorKind.MATMUL: "matmul",
    OperatorKind.ACTIVATION: "activation",
    OperatorKind.POOLING: "pooling",
    OperatorKind.NORMALIZATION: "normalization",
    OperatorKind.OTHER: "other",
    OperatorKind.DATA_MOVEMENT: "dataMovement",
}


def kind_costs(records: Iterable[OperatorRecord]) -> dict[str, KindCost]:
    """Operators, FLOPs and bytes moved of every kind that occurs; ``records`` are those executed."""
    sums: dict[str, list[int]] = {}
    for record in records:
        figures = sums.setdefault(_KEYS[record.kind], [0, 0, 0, 0])
        for index, amount in enumerate((1, record.flops, record.weight_bytes, record.activation_bytes)):
            figures[index] = min(figures[index] + amount * record.count, MOST_FIGURE)
    return {
        key: KindCost(operators=count, flops=flops, weight_bytes=weights, activation_bytes=activations)
        for key in _KEYS.values()
        if key in sums
        for count, flops, weights, activations in [sums[key]]
    }


def heaviest(records: Sequence[OperatorRecord], most: int = MOST_LISTED) -> tuple[OperatorCost, ...]:
    """The operators with the most FLOPs, ``most`` of them; among equals those that move the most bytes."""

    def weight(record: OperatorRecord) -> tuple[int, int]:
        moved = record.weight_bytes + record.activation_bytes
        return record.total_flops, moved * record.count

    return tuple(_cost(record) for record in sorted(records, key=weight, reverse=True)[:most])


def _cost(record: OperatorRecord) -> OperatorCost:
    operator = f"{record.domain}.{record.op_type}" if record.domain else record.op_type
    return OperatorCost(
        node=record.name[:253],
        operator=operator[:128],
        kind=_KEYS[record.kind],
        executions=record.count,
        flops=record.total_flops,
        weight_bytes=min(record.weight_bytes * record.count, MOST_FIGURE),
        activation_bytes=min(record.activation_bytes * record.count, MOST_FIGURE),
        upper_bound=record.bounded,
    )


def conditional_costs(conditionals: Sequence[Conditional]) -> tuple[ConditionalCost, ...]:
    """Both branches of every If that depends on the data, of the first ones where there are many."""
    return tuple(
        ConditionalCost(
            node=each.name[:253],
            then_flops=min(each.then_flops, MOST_FIGURE),
            else_flops=min(each.else_flops, MOST_FIGURE),
            counted="Then" if each.counts_then else "Else",
        )
        for each in conditionals[:MOST_CONDITIONALS]
    )
