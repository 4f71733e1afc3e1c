"""Convolutions: equation (1), 2 x IC x OC x KH x KW x OH x OW, with IC / groups where grouped.

Any number of spatial dimensions; strides, dilations and padding are in the output's size. Positions that
fall on padding count as others do, as in the paper and in PyTorch's FlopCounterMode.
"""

from __future__ import annotations

import math
from dataclasses import replace

from tailwise.models.contributed_shapes.windows import channels_first
from tailwise.models.operators.rule import Rule, Rules, Uncountable, Work, result, shaped
from tailwise.models.records import OperatorKind
from tailwise.models.tensors import Call, Shape


def _forward(weight_index: int) -> Rule:
    """Weights are [OC, IC / groups, *kernel] (ONNX: Conv)."""

    def work(call: Call) -> Work:
        source = channels_first(call, shaped(call, 0, "X")[1])
        weight = _weight(call, weight_index)
        output = channels_first(call, result(call)[1])
        groups = _groups(call, source, per_group=weight[1])
        kernel = math.prod(weight[2:])
        positions = math.prod(output[2:])
        depth = weight[1] * kernel
        accumulates = output[0] * weight[0] * positions * depth
        _check(accumulates, source)
        return Work(
            flops=2 * accumulates,
            multiply_accumulates=accumulates,
            groups=groups,
            input_channels_per_group=weight[1],
            output_channels_per_group=weight[0] // groups,
            kernel_elements=kernel,
            rows=positions,
            columns=weight[0] // groups,
            depth=depth,
            batch=output[0] * groups,
        )

    return Rule(OperatorKind.CONVOLUTION, work)


def _transposed(weight_index: int) -> Rule:
    """Weights are [IC, OC / groups, *kernel] (ONNX: ConvTranspose).

    Every input element is multiplied with OC / groups x kernel weights: equation (1) with the input's
    positions for the output's, since the operator is the gradient of a convolution from output to input.
    """

    def work(call: Call) -> Work:
        _, source = shaped(call, 0, "X")
        weight = _weight(call, weight_index)
        result(call)
        groups = int(call.attributes.get("group", 1))
        if groups < 1 or source[1] != weight[0]:
            raise Uncountable(f"its input has {source[1]} channels, its weights are for {weight[0]}")
        kernel = math.prod(weight[2:])
        positions = math.prod(source[2:])
        accumulates = source[0] * source[1] * positions * weight[1] * kernel
        _check(accumulates, source)
        return Work(
            flops=2 * accumulates,
            multiply_accumulates=accumulates,
            groups=groups,
            input_channels_per_group=source[1] // groups,
            output_channels_per_group=weight[1],
            kernel_elements=kernel,
            rows=positions,
            columns=weight[1] * kernel,
            depth=source[1] // groups,
            batch=source[0] * groups,
            transposed=True,
        )

    return Rule(OperatorKind.CONVOLUTION, work)


def _deformable(call: Call) -> Work:
    """DeformConv: the convolution's own products; sampling (four neighbours) adds 8 FLOPs a sample."""
    work = _forward(1).work(call)
    _, output = result(call)
    groups = int(call.attributes.get("offset_group", 1))
    samples = output[0] * math.prod(output[2:]) * work.kernel_elements * groups
    channels = shaped(call, 0, "X")[1][1] // groups
    return replace(work, flops=work.flops + 8 * samples * channels)


def _causal(call: Call) -> Work:
    """CausalConvWithState: depthwise over time, each result sums the kernel's k positions (Gu and Dao 2023).

    Positions before the first come from the carried state, so that every result has all k products.
    """
    batch, channels, steps = shaped(call, 0, "input")[1]
    kernel = _weight(call, 1)[2]
    accumulates = batch * channels * steps * kernel
    return Work(
        flops=2 * accumulates,
        multiply_accumulates=accumulates,
        groups=channels,
        input_channels_per_group=1,
        output_channels_per_group=1,
        kernel_elements=kernel,
        rows=steps,
        columns=1,
        depth=kernel,
        batch=batch * channels,
    )


def _weight(call: Call, index: int) -> Shape:
    _, weight = shaped(call, index, "W")
    if len(weight) < 3:
        raise Uncountable(f"its weights have {len(weight)} axes, three or more are needed")
    return weight


def _groups(call: Call, source: Shape, per_group: int) -> int:
    """The number of groups; it must agree with the channels."""
    groups = int(call.attributes.get("group", 1))
    if groups < 1 or len(source) < 2 or source[1] != per_group * groups:
        raise Uncountable(f"its input {list(source)} is not {per_group} x {groups} channels")
    return groups


def _check(accumulates: int, source: Shape) -> None:
    if accumulates == 0 and math.prod(source) > 0:
        raise Uncountable("its output would be empty: the input is smaller than the kernel")


RULES: Rules = {
    "Conv": _forward(1),
    "ConvInteger": _forward(1),
    "QLinearConv": _forward(3),
    "FusedConv": _forward(1),
    "NhwcConv": _forward(1),
    "NhwcFusedConv": _forward(1),
    "CausalConvWithState": Rule(OperatorKind.CONVOLUTION, _causal),
    "ConvTranspose": _transposed(1),
    "QLinearConvTranspose": _transposed(3),
    "ConvTransposeWithDynamicPads": _transposed(1),
    "DeformConv": Rule(OperatorKind.CONVOLUTION, _deformable),
}
