"""Reductions, searches and transforms: by the elements that go in."""

from __future__ import annotations

import math

from tailwise.models.operators.rule import Rule, Rules, Work, per_input, result, shaped
from tailwise.models.records import OperatorKind
from tailwise.models.standard_shapes import transform_axis
from tailwise.models.tensors import Call

# FLOPs an input element: the operation of the reduction, and what is done to each element before.
_EACH = {
    "ReduceL1": 2,
    "ReduceL2": 2,
    "ReduceLogSum": 1,
    "ReduceLogSumExp": 4,  # a maximum, a difference, an exponential, a sum
    "ReduceMax": 1,
    "ReduceMean": 1,
    "ReduceMin": 1,
    "ReduceProd": 1,
    "ReduceSum": 1,
    "ReduceSumSquare": 2,
    "ArgMax": 1,
    "ArgMin": 1,
    "NonZero": 1,
    "QLinearReduceMean": 3,  # to float, a sum, and back
    "ReduceSumInteger": 1,
}


def _top(call: Call) -> Work:
    """TopK: a heap of k: log2(k) comparisons an element, one at least."""
    elements = math.prod(shaped(call, 0, "X")[1])
    kept = result(call)[1][int(call.attributes.get("axis", -1))]
    return Work(flops=elements * max(1, math.ceil(math.log2(max(1, kept)))))


def _sorted(call: Call) -> Work:
    """Unique sorts: log2(n) comparisons an element."""
    elements = math.prod(shaped(call, 0, "X")[1])
    return Work(flops=elements * max(1, math.ceil(math.log2(max(1, elements)))))


def _non_max_suppression(call: Call) -> Work:
    """Every kept box against every other one, at most; one overlap of two boxes is 12 FLOPs."""
    scores = shaped(call, 1, "scores")[1]
    kept = result(call)[1][0]
    return Work(flops=12 * kept * scores[-1])


def _fourier(call: Call) -> Work:
    """DFT of length n as a fast transform: 5 n log2(n) FLOPs (Cooley and Tukey 1965) for each signal."""
    _, shape = shaped(call, 0, "input")
    output = result(call)[1]
    axis = transform_axis(call)
    length = max(shape[axis], output[axis])
    signals = math.prod(shape[:-1]) // max(1, shape[axis])
    return Work(flops=signals * _transform(length))


def _short_time(call: Call) -> Work:
    """STFT: for each frame a window (1 an element) and a fast transform of the frame's length."""
    output = result(call)[1]
    window = call.input(2)
    length = window.shape[0] if window is not None and window.shape else 2 * (output[-2] - 1)
    frames = math.prod(output[:-2])
    return Work(flops=frames * (length + _transform(length)))


def _real(call: Call) -> Work:
    """Rfft, Irfft (com.microsoft): a fast transform of the last axis of real values for each signal."""
    values = shaped(call, 0, "X")[1] if call.op_type == "Rfft" else result(call)[1]
    return Work(flops=math.prod(values[:-1]) * _transform(values[-1]))


def _grams(call: Call) -> Work:
    """TfIdfVectorizer: every n-gram of every length and skip is looked up, an element a comparison, and
    counted; a weight is one product for each result.
    """
    shape = shaped(call, 0, "X")[1]
    rows, length = (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])
    shortest, longest = int(call.attributes["min_gram_length"]), int(call.attributes["max_gram_length"])
    total = 0
    for size in range(shortest, min(longest, length) + 1):
        skips = int(call.attributes["max_skip_count"]) if size > 1 else 0
        for skip in range(min(skips, length) + 1):
            total += (size + 1) * max(0, length - (size - 1) * (skip + 1))
    return Work(flops=rows * total + (call.attributes["mode"] != "TF") * math.prod(result(call)[1]))


def _transform(length: int) -> int:
    return math.ceil(5 * length * math.log2(max(2, length)))


RULES: Rules = {
    **{name: Rule(OperatorKind.OTHER, per_input(flops)) for name, flops in _EACH.items()},
    "TopK": Rule(OperatorKind.OTHER, _top),
    "Unique": Rule(OperatorKind.OTHER, _sorted),
    "NonMaxSuppression": Rule(OperatorKind.OTHER, _non_max_suppression),
    "DFT": Rule(OperatorKind.OTHER, _fourier),
    "Rfft": Rule(OperatorKind.OTHER, _real),
    "Irfft": Rule(OperatorKind.OTHER, _real),
    "TfIdfVectorizer": Rule(OperatorKind.OTHER, _grams),
    "STFT": Rule(OperatorKind.OTHER, _short_time),
    "NegativeLogLikelihoodLoss": Rule(OperatorKind.OTHER, per_input(1)),
    "SoftmaxCrossEntropyLoss": Rule(OperatorKind.OTHER, per_input(6)),
}
