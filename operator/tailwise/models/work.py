"""Operator records become the prior's terms: work that costs the same a unit is summed.

What belongs to which term was found by measurement (``bench/prior``): convolutions run at speeds that depend
on the channels of a group, products of few rows are bound by reading their weights, and what the runtime
does not fuse costs by the bytes it moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tailwise.api.profile import WorkTerms
from tailwise.models.records import OperatorKind, OperatorRecord

FEW_ROWS = 8
"""Products with fewer rows than this read their weights more slowly than they multiply."""

BLOCK = 16
"""Channels the runtime's convolution kernels work on at once (AVX-512); others are padded or do not fit."""

NARROW_CHANNELS, THIN_CHANNELS = 16, 6
"""Grouped convolutions below these many channels a group leave more and more vector lanes idle."""

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

UNFUSED_TERMS = {
    "Transpose": "transposed_elements",
    "Resize": "resized_elements",
    "Upsample": "resized_elements",
} | dict.fromkeys(TRANSCENDENTAL, "transcendental_elements")
"""Unfused operators whose cost an element is their own."""

QUANTISED = frozenset(
    {
        "ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "QLinearConv",
        "QLinearMatMul", "QGemm", "QAttention", "MatMulIntegerToFloat",
    }
)  # fmt: skip
"""Products of 8-bit integers: they have kernels, and a speed, of their own."""

COMPOSITES: tuple[tuple[tuple[str, ...], int], ...] = (
    (("Div", "Erf", "Add", "Mul", "Mul"), 1),
    (("Mul", "Erf", "Add", "Mul", "Mul"), 1),
    (("ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Add"), 7),
    (("Sigmoid", "Mul"), 0),
    (("BatchNormalization", "Relu"), 0),
)
"""Chains the runtime replaces by one operator (GELU, layer normalisation, SiLU), and which link stays."""


def work_terms(records: Iterable[OperatorRecord]) -> WorkTerms:
    """Sum the work of one inference by the prior's terms.

    Records the runtime folds away (``constant``) cost nothing. Those it fuses into the operator before
    (``fused_into_previous``) cost neither a call nor bytes.
    """
    run = [record for record in records if not (record.constant or record.fused_into_previous)]
    sums = dict.fromkeys(WorkTerms.model_fields, 0)
    for record in _without_composites(run):
        for term, amount in _terms(record):
            sums[term] += amount * record.count
        sums["operator_count"] += record.count
    return WorkTerms(**sums)


def _without_composites(records: Sequence[OperatorRecord]) -> Iterator[OperatorRecord]:
    """Leave one record of each chain that the runtime fuses."""
    index = 0
    while index < len(records):
        for chain, stays in COMPOSITES:
            links = records[index : index + len(chain)]
            if tuple(link.op_type for link in links) == chain:
                yield links[stays]
                index += len(chain)
                break
        else:
            yield records[index]
            index += 1


def _terms(record: OperatorRecord) -> Iterator[tuple[str, int]]:
    """Yield the terms one execution of an operator adds to."""
    moved = record.input_bytes + record.output_bytes
    if record.op_type in QUANTISED:
        yield "quantised_flops", record.flops
    elif record.recurrent:
        yield "recurrent_flops", record.flops
    elif record.kind is OperatorKind.CONVOLUTION:
        yield _convolution_term(record), _padded_flops(record)
        yield "weight_bytes", record.weight_bytes
        yield "convolution_bytes", moved
    elif record.kind is OperatorKind.MATMUL:
        yield "product_bytes", moved
        if record.weight_bytes and record.batch * record.rows < FEW_ROWS:
            yield "matrix_vector_bytes", record.weight_bytes
            if record.batch * record.rows > 1:
                yield "matmul_flops", record.flops
        else:
            yield "matmul_flops", record.flops
            yield "weight_bytes", record.weight_bytes
    elif record.op_type not in METADATA:
        yield (
            _unfused_term(record),
            (
                record.output_elements * max(1, record.kernel_elements)
                if record.kind is OperatorKind.POOLING
                else record.output_elements
            ),
        )
        yield "moved_bytes", moved


def _unfused_term(record: OperatorRecord) -> str:
    """Which elements an operator's output counts among, beside the bytes it moves."""
    if record.op_type in UNFUSED_TERMS:
        return UNFUSED_TERMS[record.op_type]
    if record.kind is OperatorKind.POOLING:
        return "pooling_operations"
    if record.kind is OperatorKind.NORMALIZATION and record.op_type != "BatchNormalization":
        return "normalised_elements"
    return "copied_elements" if record.kind is OperatorKind.DATA_MOVEMENT else "elementwise_elements"


def _convolution_term(record: OperatorRecord) -> str:
    channels = record.input_channels_per_group
    if record.transposed:
        return "transposed_flops"
    if record.groups == 1:
        return "dense_flops"
    if channels == 1:
        return "depthwise_flops"
    if channels % BLOCK == 0 and record.output_channels_per_group % BLOCK == 0:
        return "grouped_flops"
    wide = "narrow_grouped_flops" if channels < NARROW_CHANNELS else "unblocked_grouped_flops"
    return "thin_grouped_flops" if channels < THIN_CHANNELS else wide


def _padded_flops(record: OperatorRecord) -> int:
    """FLOPs with the output channels padded to whole blocks, as the blocked kernels compute them."""
    channels = record.output_channels_per_group * record.groups
    blocked = record.groups == 1 or record.input_channels_per_group == 1
    if record.transposed or not blocked or channels == 0:
        return record.flops
    return record.flops * (-(-channels // BLOCK) * BLOCK) // channels
