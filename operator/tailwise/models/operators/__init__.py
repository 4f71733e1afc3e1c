"""How much work each operator of a graph is: one rule an operator, found by domain and type.

In: a ``Call``, a node with the types of what goes in and out. Out: an ``OperatorRecord``, or the reason why
it cannot be counted, never a silent zero. A rule states its formula and the formula's source; equations
are the paper's. Imports only the values it works on.
"""

from __future__ import annotations

from tailwise.models.operators import (
    attention,
    convolution,
    elementwise,
    learned_trees,
    movement,
    normalization,
    pooling,
    products,
    recurrent,
    reduction,
)
from tailwise.models.operators.rule import Rule, Rules, Uncountable, Work
from tailwise.models.records import OperatorRecord
from tailwise.models.tensors import Call, Tensor, TensorSequence

_SHARED: Rules = {
    **convolution.RULES,
    **elementwise.RULES,
    **learned_trees.RULES,
    **movement.RULES,
    **normalization.RULES,
    **pooling.RULES,
    **products.RULES,
    **recurrent.RULES,
    **reduction.RULES,
}
_OWN: dict[str, Rules] = {
    "": attention.STANDARD_RULES,
    "com.microsoft": attention.MICROSOFT_RULES,
}
_DOMAINS = frozenset({"", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})


def rule_for(domain: str, op_type: str) -> Rule | None:
    """The rule for an operator, None where there is none."""
    if domain not in _DOMAINS:
        return None
    return _OWN.get(domain, {}).get(op_type) or _SHARED.get(op_type)


def every_rule() -> tuple[Rules, ...]:
    """All rules: those all domains share, then those of one domain."""
    return (_SHARED, *_OWN.values())


def count(call: Call, *, fused: bool, times: int) -> OperatorRecord:
    """The record of one operator; raises Uncountable with the reason."""
    rule = rule_for(call.domain, call.op_type)
    if rule is None:
        raise Uncountable("there is no rule for this operator")
    output_bytes, elements, bounded = _outputs(call)
    try:
        work = rule.work(call)
    except (IndexError, KeyError, ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise Uncountable(f"its attributes or shapes do not fit its definition ({error!r})"[:400]) from error
    constant = all(not isinstance(v, Tensor) or v.constant for v in call.outputs if v is not None)
    return OperatorRecord(
        name=call.name,
        op_type=call.op_type,
        domain=call.domain,
        kind=rule.kind,
        flops=work.flops,
        multiply_accumulates=work.multiply_accumulates,
        weight_bytes=_weight_bytes(call, rule, work),
        input_bytes=0 if rule.view or work.weight_bytes else _inputs(call),
        output_bytes=0 if rule.view else output_bytes,
        output_elements=elements,
        groups=work.groups,
        input_channels_per_group=work.input_channels_per_group,
        output_channels_per_group=work.output_channels_per_group,
        kernel_elements=work.kernel_elements,
        rows=work.rows,
        columns=work.columns,
        depth=work.depth,
        batch=work.batch,
        transposed=work.transposed,
        recurrent=work.recurrent,
        fused_into_previous=fused,
        constant=constant,
        bounded=bounded,
        count=times,
    )


def _outputs(call: Call) -> tuple[int, int, bool]:
    """Bytes and elements of all outputs, and whether they are upper bounds."""
    size, elements, bounded = 0, 0, False
    for value in call.outputs:
        items = (value.items or (value.item,)) if isinstance(value, TensorSequence) else (value,)
        for item in items:
            if item is None:
                continue
            if item.size_bytes is None or item.elements is None:
                if isinstance(value, TensorSequence):
                    continue
                raise Uncountable("the shape of its output depends on data, without a bound")
            size += item.size_bytes
            elements += item.elements
            bounded = bounded or item.bounded
    return size, elements, bounded


def _weight_bytes(call: Call, rule: Rule, work: Work) -> int:
    """Bytes of weights read: what the rule says, none for a view, else all of them."""
    if work.weight_bytes is not None:
        return work.weight_bytes
    return 0 if rule.view else _weights(call)


def _weights(call: Call) -> int:
    """Bytes of the inputs that do not change between inferences."""
    tensors = [value for value in call.inputs if isinstance(value, Tensor) and value.constant]
    return sum(tensor.size_bytes or 0 for tensor in tensors)


def _inputs(call: Call) -> int:
    """Bytes of the inputs that do change."""
    tensors = [value for value in call.inputs if isinstance(value, Tensor) and not value.constant]
    return sum(tensor.size_bytes or 0 for tensor in tensors)
