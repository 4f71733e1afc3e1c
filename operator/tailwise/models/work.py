"""Operator records become the prior's terms: work that costs the same a unit is summed.

What belongs to which term was found by measurement (``bench/prior``): convolutions run at speeds that depend
on the channels of a group, products of few rows are bound by reading their weights, and what the runtime
does not fuse costs by the bytes it moves.
"""

from __future__ import annotations

from collections.abc import Iterable

from tailwise.api.profile import WorkTerms
from tailwise.models.records import OperatorKind, OperatorRecord

FEW_ROWS = 8
"""Products with fewer rows than this read their weights more slowly than they multiply."""

NARROW_CHANNELS = 16
"""Grouped convolutions below this many channels a group leave most vector lanes idle."""

STEM_CHANNELS = 4
"""Convolutions over fewer input channels (images) have no blocked kernel."""

METADATA = frozenset(
    {
        "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Shape", "Size", "Identity", "Constant",
        "ConstantOfShape", "Dropout", "Range", "SequenceAt", "SequenceInsert", "NonZero",
    }
)  # fmt: skip
"""Operators that change what a tensor is called, not where it lies: they cost a call and no bytes."""

TRANSCENDENTAL = frozenset(
    {
        "Erf", "Exp", "Gelu", "Log", "LogSoftmax", "Mish", "Pow", "Sigmoid", "Sin", "Cos", "Softmax",
        "Softplus", "Swish", "Silu", "Tanh", "HardSwish", "Elu", "Selu",
    }
)  # fmt: skip
"""Element-wise functions that take tens of instructions an element."""

QUANTISED = frozenset(
    {
        "ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "QLinearConv",
        "QLinearMatMul", "QGemm", "QAttention", "MatMulIntegerToFloat",
    }
)  # fmt: skip
"""Products of 8-bit integers: they have kernels, and a speed, of their own."""


def work_terms(records: Iterable[OperatorRecord]) -> WorkTerms:
    """Sum the work of one inference by the prior's terms.

    Records the runtime folds away (``constant``) cost nothing. Those it fuses into the operator before
    (``fused_into_previous``) cost neither a call nor bytes.
    """
    sums = dict.fromkeys(WorkTerms.model_fields, 0)
    for record in records:
        if record.constant or record.fused_into_previous:
            continue
        for term, amount in _terms(record):
            sums[term] += amount * record.count
        sums["operator_count"] += record.count
    return WorkTerms(**sums)


def _terms(record: OperatorRecord) -> Iterable[tuple[str, int]]:
    """Yield the terms one execution of an operator adds to."""
    if record.op_type in QUANTISED:
        yield "quantised_flops", record.flops
        yield "weight_bytes", record.weight_bytes
    elif record.recurrent:
        yield "recurrent_flops", record.flops
        yield "weight_bytes", record.weight_bytes
    elif record.kind is OperatorKind.CONVOLUTION:
        yield _convolution_term(record), record.flops
        yield "weight_bytes", record.weight_bytes
        yield "convolution_bytes", record.input_bytes + record.output_bytes
    elif record.kind is OperatorKind.MATMUL:
        if record.weight_bytes and record.batch * record.rows < FEW_ROWS:
            yield "matrix_vector_bytes", record.weight_bytes
        else:
            yield "matmul_flops", record.flops
            yield "weight_bytes", record.weight_bytes
            yield "product_bytes", record.input_bytes + record.output_bytes
    elif record.op_type not in METADATA:
        yield "moved_bytes", record.input_bytes + record.output_bytes
        if record.op_type in TRANSCENDENTAL:
            yield "transcendental_elements", record.output_elements
        elif record.kind is not OperatorKind.DATA_MOVEMENT:
            yield "elementwise_elements", record.output_elements
        if record.kind is OperatorKind.POOLING:
            yield "pooling_operations", record.output_elements * max(1, record.kernel_elements)


def _convolution_term(record: OperatorRecord) -> str:
    if record.transposed:
        return "transposed_flops"
    if record.groups == 1:
        if record.input_channels_per_group < STEM_CHANNELS:
            return "stem_flops"
        return "pointwise_flops" if record.kernel_elements == 1 else "dense_flops"
    if record.input_channels_per_group == 1:
        return "depthwise_flops"
    return "grouped_flops" if record.input_channels_per_group >= NARROW_CHANNELS else "narrow_grouped_flops"
