"""Shapes of contributed element-wise operators, normalisations, lookups, reductions and transforms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from tailwise.models.contributed_shapes.rule import ShapeRule, ShapeRules, like_first, made, required
from tailwise.models.tensors import Call, Tensor, Value


def _broadcast(*indices: int, element_type: int | None = None) -> ShapeRule:
    """These inputs broadcast to the result, which is of the first one's type."""

    def rule(call: Call) -> Sequence[Value | None]:
        shapes = [required(call, index)[1] for index in indices]
        typed = required(call, indices[-1])[0]
        return [made(typed, np.broadcast_shapes(*shapes), element_type)]

    return rule


def _skip_normalization(call: Call) -> Sequence[Value | None]:
    tensor, shape = required(call, 0)
    outputs: list[Value | None] = [None if not name else made(tensor, shape) for name in call.node.output]
    for index in (1, 2):
        if index < len(outputs) and outputs[index] is not None:
            outputs[index] = made(tensor, (*shape[:-1], 1), onnx.TensorProto.FLOAT)
    return outputs


def _normalised_and_sum(call: Call) -> Sequence[Value | None]:
    """SkipGroupNorm: the result, and the sum that was normalised."""
    tensor, shape = required(call, 0)
    return [made(tensor, shape), made(tensor, shape)]


def _embedding(call: Call) -> Sequence[Value | None]:
    _, (batch, sequence) = required(call, 0)
    words, table = required(call, 2)
    kind = onnx.TensorProto.FLOAT if call.op_type.startswith("Q") else words.element_type
    out = made(words, (batch, sequence, table[1]), kind)
    return [out, Tensor(onnx.TensorProto.INT32, (batch,)), out]


def _dequantize(call: Call) -> Sequence[Value | None]:
    scale = call.input(1)
    kind = onnx.TensorProto.FLOAT if scale is None else scale.element_type
    return [made(*required(call, 0), kind)]


def _quantize(call: Call) -> Sequence[Value | None]:
    zero = call.input(2)
    kind = onnx.TensorProto.UINT8 if zero is None else zero.element_type
    return [made(*required(call, 0), kind)]


def _concat(call: Call) -> Sequence[Value | None]:
    """QLinearConcat: output scale and zero point, then triples of tensor, scale, zero point."""
    parts = [required(call, index) for index in range(2, len(call.inputs), 3)]
    axis = call.attributes["axis"]
    first, shape = parts[0]
    sizes = list(shape)
    sizes[axis] = sum(part[axis] for _, part in parts)
    return [made(first, sizes)]


def _block_gather(call: Call) -> Sequence[Value | None]:
    data, table = required(call, 0)
    _, indices = required(call, 1)
    scale, _ = required(call, 2)
    axis = call.attributes.get("gather_axis", 0)
    in_bytes = data.element_type == onnx.TensorProto.UINT8
    packed = 8 // call.attributes.get("bits", 4) if in_bytes else 1
    full = (*table[:-1], table[-1] * packed)
    return [made(scale, (*full[:axis], *indices, *full[axis + 1 :]))]


def _reduced(call: Call) -> Sequence[Value | None]:
    """Reductions with their axes as an attribute; all axes without one."""
    tensor, shape = required(call, 0)
    axes = {axis % len(shape) for axis in call.attributes.get("axes") or range(len(shape))}
    if call.attributes.get("keepdims", 1):
        return [made(tensor, [1 if axis in axes else size for axis, size in enumerate(shape)])]
    return [made(tensor, [size for axis, size in enumerate(shape) if axis not in axes])]


def _halved(call: Call) -> Sequence[Value | None]:
    """BiasSplitGelu: one half of the last axis gates the other."""
    tensor, shape = required(call, 0)
    return [made(tensor, (*shape[:-1], shape[-1] // 2))]


def _expanded(call: Call) -> Sequence[Value | None]:
    tensor, shape = required(call, 0)
    axis = required(call, 1)[0].array
    if axis is None:
        raise ValueError("the axis depends on data")
    at = int(axis.ravel()[0])
    at = at if at >= 0 else len(shape) + 1 + at
    return [made(tensor, (*shape[:at], 1, *shape[at:]))]


def _real_transform(call: Call) -> Sequence[Value | None]:
    """Rfft: n real values become n // 2 + 1 complex ones, in pairs."""
    tensor, shape = required(call, 0)
    return [made(tensor, (*shape[:-1], shape[-1] // 2 + 1, 2))]


def _inverse_transform(call: Call) -> Sequence[Value | None]:
    """Irfft: n // 2 + 1 complex values, in pairs, become n real ones."""
    tensor, shape = required(call, 0)
    return [made(tensor, (*shape[:-2], 2 * (shape[-2] - 1)))]


def _quantised_lstm(call: Call) -> Sequence[Value | None]:
    """DynamicQuantizeLSTM: Y [steps, directions, batch, hidden], and the last states."""
    tensor, (steps, batch, _) = required(call, 0)
    directions, hidden, _ = required(call, 2)[1]
    last = made(tensor, (directions, batch, hidden))
    return [made(tensor, (steps, directions, batch, hidden)), last, last]


def _rotated_pair(call: Call) -> Sequence[Value | None]:
    """GemmaRotaryEmbedding: queries and keys, each as they came."""
    return [made(*required(call, 1)), made(*required(call, 3))]


_LIKE_FIRST = (
    "BiasAdd",
    "BiasDropout",
    "BiasGelu",
    "BiasSoftmax",
    "FastGelu",
    "GatedRMSNorm",
    "Gelu",
    "GroupNorm",
    "Inverse",
    "QLinearLeakyRelu",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QOrderedGelu",
    "QOrderedLayerNormalization",
    "QuickGelu",
    "ScaledSiLU",
    "Silu",
    "SimplifiedLayerNormalization",
    "SwiGLU",
    "Trilu",
)

RULES: ShapeRules = {
    **dict.fromkeys(_LIKE_FIRST, like_first),
    "QLinearAdd": _broadcast(3, 0),
    "QLinearMul": _broadcast(3, 0),
    "QLinearWhere": _broadcast(0, 4, 1),
    "MulInteger": _broadcast(2, 0, element_type=onnx.TensorProto.INT32),
    "ComplexMul": _broadcast(1, 0),
    "ComplexMulConj": _broadcast(1, 0),
    "BiasSplitGelu": _halved,
    "SkipLayerNormalization": _skip_normalization,
    "SkipSimplifiedLayerNormalization": _skip_normalization,
    "SkipGroupNorm": _normalised_and_sum,
    "EmbedLayerNormalization": _embedding,
    "QEmbedLayerNormalization": _embedding,
    "DequantizeLinear": _dequantize,
    "QuantizeLinear": _quantize,
    "QLinearConcat": _concat,
    "QLinearReduceMean": _reduced,
    "ReduceSumInteger": _reduced,
    "GatherBlockQuantized": _block_gather,
    "ExpandDims": _expanded,
    "Rfft": _real_transform,
    "Irfft": _inverse_transform,
    "DynamicQuantizeLSTM": _quantised_lstm,
    "GemmaRotaryEmbedding": _rotated_pair,
}
