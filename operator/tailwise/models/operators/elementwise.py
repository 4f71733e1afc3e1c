"""Element-wise operators: activations by equation (3), one FLOP a neuron; the others one a result.

Elementary functions (exponential, error function, root) count as one, as the paper counts activations.
Softmax is a maximum, a difference, an exponential, a sum and a division: 5 an element.
"""

from __future__ import annotations

import math

from tailwise.models.operators.rule import Rule, Rules, Work, per_result, result, result_elements, shaped
from tailwise.models.records import OperatorKind
from tailwise.models.tensors import Call

ACTIVATIONS = (
    "Celu",
    "Clip",
    "Elu",
    "Erf",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "LeakyRelu",
    "Mish",
    "PRelu",
    "Relu",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Silu",
    "Softplus",
    "Softsign",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
    "FastGelu",
    "QuickGelu",
    "QLinearSigmoid",
    "QOrderedGelu",
    "ScaledSiLU",
    "QLinearLeakyRelu",
)

_ONE_EACH = (
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Bernoulli",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Binarizer",
    "Ceil",
    "Cos",
    "Cosh",
    "Div",
    "Equal",
    "Exp",
    "Floor",
    "Greater",
    "GreaterOrEqual",
    "Imputer",
    "IsInf",
    "IsNaN",
    "Less",
    "LessOrEqual",
    "Log",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pow",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Reciprocal",
    "Round",
    "Sign",
    "Sin",
    "Sinh",
    "Sqrt",
    "Sub",
    "Tan",
    "Where",
    "Xor",
    "QLinearAdd",
    "QLinearMul",
    "BiasAdd",
    "CumSum",
    "CumProd",
    "MulInteger",
    "QLinearWhere",
)

# FLOPs a result where it is not one, each with its steps.
_OTHERS = {
    "Softmax": 5,
    "LogSoftmax": 5,
    "QLinearSoftmax": 5,
    "BiasSoftmax": 6,  # a bias, then softmax
    "BiasDropout": 1,
    "QuantizeLinear": 3,  # division, rounding, shift
    "DequantizeLinear": 2,  # shift, scale
    "RotaryEmbedding": 3,  # two products and a sum
    "GemmaRotaryEmbedding": 3,
    "Scaler": 2,
    "BlackmanWindow": 4,
    "HannWindow": 3,
    "HammingWindow": 3,
    "StringConcat": 1,
    "MelWeightMatrix": 2,  # a difference and a division on a triangle's side
    "ComplexMul": 3,  # four products and two sums for each pair of values
    "ComplexMulConj": 3,
}


def _variadic(call: Call) -> Work:
    """Sum, Mean, Max, Min: one FLOP for each operand but the first, and one more for a mean."""
    operands = len([value for value in call.inputs if value is not None])
    each = max(1, operands - 1) + (call.op_type == "Mean" and operands > 1)
    return Work(flops=each * result_elements(call))


def _multinomial(call: Call) -> Work:
    """Multinomial: an exponential and a running sum for each class, a binary search for each sample."""
    shape = shaped(call, 0, "input")[1]
    search = max(1, math.ceil(math.log2(max(1, shape[-1]))))
    return Work(flops=2 * math.prod(shape) + search * result_elements(call))


def _gated_pair(call: Call) -> Work:
    """SwiGLU, BiasSplitGelu: an activation of one half, times the other; the latter adds a bias to both."""
    biased = 2 if call.op_type == "BiasSplitGelu" else 0
    return Work(flops=(2 + biased) * result_elements(call))


def _dynamic_quantize(call: Call) -> Work:
    """DynamicQuantizeLinear: minimum and maximum, then division, rounding and shift."""
    return Work(flops=5 * math.prod(result(call)[1]))


RULES: Rules = {
    **{name: Rule(OperatorKind.ACTIVATION, per_result(1)) for name in ACTIVATIONS},
    **{name: Rule(OperatorKind.OTHER, per_result(1)) for name in _ONE_EACH},
    **{name: Rule(OperatorKind.OTHER, per_result(flops)) for name, flops in _OTHERS.items()},
    "SwiGLU": Rule(OperatorKind.ACTIVATION, _gated_pair),
    "BiasSplitGelu": Rule(OperatorKind.ACTIVATION, _gated_pair),
    "Multinomial": Rule(OperatorKind.OTHER, _multinomial),
    "BiasGelu": Rule(OperatorKind.ACTIVATION, per_result(2)),
    "Sum": Rule(OperatorKind.OTHER, _variadic),
    "Mean": Rule(OperatorKind.OTHER, _variadic),
    "Max": Rule(OperatorKind.OTHER, _variadic),
    "Min": Rule(OperatorKind.OTHER, _variadic),
    "DynamicQuantizeLinear": Rule(OperatorKind.OTHER, _dynamic_quantize),
}
