"""Output shapes of ONNX Runtime's contributed operators (domain com.microsoft), which ONNX does not know.

Rules follow ONNX Runtime's documentation of its contributed operators (docs/ContribOperators.md there).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from tailwise.models.tensors import Call, Shape, Tensor, Value

MICROSOFT = "com.microsoft"

ELEMENTWISE = frozenset(
    {
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Mod",
        "Min",
        "Max",
        "Sum",
        "Mean",
        "And",
        "Or",
        "Xor",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Where",
        "PRelu",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "BitShift",
    }
)

_IN_DEFAULT_DOMAIN = frozenset({"SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"})

_Rule = Callable[[Call], Sequence[Value | None]]


def infer(call: Call) -> Sequence[Value | None] | None:
    """Output values by this domain's rules, or None where it has none for the operator.

    Of the default domain only what ONNX Runtime added there on its own is known here.
    """
    if call.domain not in (MICROSOFT, "com.microsoft.nchwc") and call.op_type not in _IN_DEFAULT_DOMAIN:
        return None
    rule = _RULES.get(call.op_type)
    if rule is None:
        return None
    try:
        return rule(call)
    except (AttributeError, IndexError, ValueError, TypeError, ZeroDivisionError):
        return []


def _required(call: Call, index: int) -> tuple[Tensor, Shape]:
    """An input that must be a tensor of known shape."""
    tensor = call.input(index)
    if tensor is None or tensor.shape is None:
        raise ValueError(f"input {index} has no known shape")
    return tensor, tensor.shape


def _made(tensor: Tensor, shape: Sequence[int], element_type: int | None = None) -> Tensor:
    kind = tensor.element_type if element_type is None else element_type
    return Tensor(kind, tuple(int(size) for size in shape))


def _like_first(call: Call) -> Sequence[Value | None]:
    tensor, shape = _required(call, 0)
    return [_made(tensor, shape)]


def _broadcast(call: Call) -> Sequence[Value | None]:
    left, left_shape = _required(call, 0)
    right = call.input(1)
    other = () if right is None or right.shape is None else right.shape
    return [_made(left, np.broadcast_shapes(left_shape, other))]


def _quantized_broadcast(call: Call) -> Sequence[Value | None]:
    left, left_shape = _required(call, 0)
    return [_made(left, np.broadcast_shapes(left_shape, _required(call, 3)[1]))]


def product_shape(left: Shape, right: Shape) -> Shape:
    """The shape of numpy's matmul, which ONNX follows."""
    if not left or not right:
        raise ValueError("a product needs operands of rank one or more")
    rows = left[-2:-1]
    columns = right[-1:] if len(right) > 1 else ()
    return (*np.broadcast_shapes(left[:-2], right[:-2]), *rows, *columns)


def transposed(call: Call, shape: Shape, side: str) -> Shape:
    """An operand of FusedMatMul as it is multiplied: last axes exchanged, batch axes moved."""
    if call.attributes.get(f"transBatch{side}") and len(shape) > 2:
        shape = (*shape[1:-1], shape[0], shape[-1])
    if call.attributes.get(f"trans{side}") and len(shape) > 1:
        shape = (*shape[:-2], shape[-1], shape[-2])
    return shape


def _fused_matmul(call: Call) -> Sequence[Value | None]:
    left, left_shape = _required(call, 0)
    _, right_shape = _required(call, 1)
    return [_made(left, product_shape(transposed(call, left_shape, "A"), transposed(call, right_shape, "B")))]


def _matmul(right: int, element_type: int | None = None) -> _Rule:
    def rule(call: Call) -> Sequence[Value | None]:
        left, left_shape = _required(call, 0)
        return [_made(left, product_shape(left_shape, _required(call, right)[1]), element_type)]

    return rule


def _gemm(call: Call) -> Sequence[Value | None]:
    """FusedGemm has operands at 0 and 1, QGemm at 0 and 3."""
    right_index = 3 if call.op_type == "QGemm" else 1
    left, a = _required(call, 0)
    b = _required(call, right_index)[1]
    rows = a[1] if call.attributes.get("transA") else a[0]
    columns = b[0] if call.attributes.get("transB") else b[1]
    kind = None
    if call.op_type == "QGemm" and call.input(8) is None:
        kind = onnx.TensorProto.FLOAT
    return [_made(left, (rows, columns), kind)]


def _matmul_nbits(call: Call) -> Sequence[Value | None]:
    """MatMulNBits and MatMulBnb4: the packed weight's true columns are the attribute N."""
    tensor, shape = _required(call, 0)
    return [_made(tensor, (*shape[:-1], call.attributes["N"]))]


def _conv(call: Call) -> Sequence[Value | None]:
    """FusedConv and its like infer as the operator they are made of."""
    weight = 3 if call.op_type.startswith("QLinear") else 1
    standard = onnx.NodeProto()
    standard.CopyFrom(call.node)
    standard.op_type = "ConvTranspose" if "Transpose" in call.op_type else "Conv"
    kept = [attribute for attribute in standard.attribute if attribute.name in _CONV_ATTRIBUTES]
    del standard.attribute[:]
    standard.attribute.extend(kept)
    del standard.input[:]
    standard.input.extend(["x", "w"])
    types = {}
    for name, index in (("x", 0), ("w", weight)):
        tensor, shape = _required(call, index)
        types[name] = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, shape)
        if name == "x":
            kind = tensor.element_type
    schema = onnx.defs.get_schema(standard.op_type, 11, "")
    found = onnx.shape_inference.infer_node_outputs(schema, standard, types)
    dims = found[standard.output[0]].tensor_type.shape.dim
    return [Tensor(kind, tuple(dim.dim_value for dim in dims))]


_CONV_ATTRIBUTES = frozenset(
    {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides", "output_padding", "output_shape"}
)


def _attention(call: Call) -> Sequence[Value | None]:
    """Attention and QAttention: X [B, S, D], W [D, 3 x hidden]; past and present are [2, B, h, T, d]."""
    tensor, (batch, sequence, _) = _required(call, 0)
    _, weight = _required(call, 1)
    sizes = call.attributes.get("qkv_hidden_sizes")
    hidden = sizes[2] if sizes else weight[-1] // 3
    kind = None if call.op_type == "Attention" else onnx.TensorProto.FLOAT
    outputs: list[Value | None] = [_made(tensor, (batch, sequence, hidden), kind)]
    heads = call.attributes["num_heads"]
    past = call.input(4) if call.op_type == "Attention" else call.input(8)
    before = past.shape[3] if past is not None and past.shape else 0
    outputs.append(_made(tensor, (2, batch, heads, before + sequence, hidden // heads), kind))
    return outputs


def _multi_head_attention(call: Call) -> Sequence[Value | None]:
    """Query [B, S, H], value [B, T, Hv] or [B, h, T, d]; packed forms put several in one."""
    query, shape = _required(call, 0)
    heads = call.attributes["num_heads"]
    if len(shape) == 5:
        batch, sequence, hidden = shape[0], shape[1], shape[2] * shape[4]
    else:
        batch, sequence, hidden = shape
    value = call.input(2)
    if value is not None and value.shape:
        hidden = value.shape[-1] if len(value.shape) == 3 else value.shape[1] * value.shape[3]
    total = attended_length(call)
    present = _made(query, (batch, heads, total, hidden // heads))
    return [_made(query, (batch, sequence, hidden)), present, present]


def attended_length(call: Call) -> int:
    """How many positions each query of a MultiHeadAttention looks at: those before, and its own keys."""
    shape = _required(call, 0)[1]
    key, past = call.input(1), call.input(6)
    own = shape[1]
    if key is not None and key.shape:
        own = key.shape[2] if len(key.shape) == 4 else key.shape[1]
    before = past.shape[2] if past is not None and past.shape and len(past.shape) == 4 else 0
    return before + own


def _group_query_attention(call: Call) -> Sequence[Value | None]:
    query, (batch, sequence, hidden) = _required(call, 0)
    heads, kv_heads = call.attributes["num_heads"], call.attributes["kv_num_heads"]
    packed = call.input(1) is None
    size = hidden // (heads + 2 * kv_heads) if packed else hidden // heads
    total = grouped_length(call)
    present = _made(query, (batch, kv_heads, total, size))
    return [_made(query, (batch, sequence, heads * size)), present, present]


def grouped_length(call: Call) -> int:
    """Positions a GroupQueryAttention looks at: the total length where known, else the cache and its own."""
    sequence = _required(call, 0)[1][1]
    past, total = call.input(3), call.input(6)
    if total is not None and total.array is not None and total.array.size:
        return int(total.array.ravel()[0])
    before = past.shape[2] if past is not None and past.shape and len(past.shape) == 4 else 0
    return before + sequence


def _skip_normalization(call: Call) -> Sequence[Value | None]:
    tensor, shape = _required(call, 0)
    outputs: list[Value | None] = [None if not name else _made(tensor, shape) for name in call.node.output]
    for index in (1, 2):
        if index < len(outputs) and outputs[index] is not None:
            outputs[index] = _made(tensor, (*shape[:-1], 1), onnx.TensorProto.FLOAT)
    return outputs


def _embedding(call: Call) -> Sequence[Value | None]:
    _, (batch, sequence) = _required(call, 0)
    words, table = _required(call, 2)
    out = _made(words, (batch, sequence, table[1]))
    return [out, Tensor(onnx.TensorProto.INT32, (batch,)), out]


def _dequantize(call: Call) -> Sequence[Value | None]:
    scale = call.input(1)
    kind = onnx.TensorProto.FLOAT if scale is None else scale.element_type
    return [_made(_required(call, 0)[0], _required(call, 0)[1], kind)]


def _quantize(call: Call) -> Sequence[Value | None]:
    zero = call.input(2)
    kind = onnx.TensorProto.UINT8 if zero is None else zero.element_type
    return [_made(_required(call, 0)[0], _required(call, 0)[1], kind)]


def _global_pool(call: Call) -> Sequence[Value | None]:
    tensor, shape = _required(call, 0)
    if call.attributes.get("channels_last"):
        return [_made(tensor, (shape[0], *(1 for _ in shape[1:-1]), shape[-1]))]
    return [_made(tensor, (*shape[:2], *(1 for _ in shape[2:])))]


def _concat(call: Call) -> Sequence[Value | None]:
    """QLinearConcat: output scale and zero point, then triples of tensor, scale, zero point."""
    parts = [_required(call, index) for index in range(2, len(call.inputs), 3)]
    axis = call.attributes["axis"]
    first, shape = parts[0]
    sizes = list(shape)
    sizes[axis] = sum(part[axis] for _, part in parts)
    return [_made(first, sizes)]


def _block_gather(call: Call) -> Sequence[Value | None]:
    _, table = _required(call, 0)
    _, indices = _required(call, 1)
    scale, _ = _required(call, 2)
    axis = call.attributes.get("gather_axis", 0)
    packed = 2 if call.input(0) is not None and call.attributes.get("bits", 4) == 4 else 1
    width = table[-1] * (packed if _required(call, 0)[0].element_type == onnx.TensorProto.UINT8 else 1)
    full = (*table[:-1], width)
    return [_made(scale, (*full[:axis], *indices, *full[axis + 1 :]))]


def _average_pool(call: Call) -> Sequence[Value | None]:
    """QLinearAveragePool infers as the pooling it quantises."""
    tensor, shape = _required(call, 0)
    standard = onnx.NodeProto()
    standard.CopyFrom(call.node)
    standard.op_type = "AveragePool"
    kept = [a for a in standard.attribute if a.name != "channels_last"]
    del standard.attribute[:]
    standard.attribute.extend(kept)
    del standard.input[:]
    standard.input.append("x")
    last = bool(call.attributes.get("channels_last"))
    inner = (shape[0], shape[-1], *shape[1:-1]) if last else shape
    schema = onnx.defs.get_schema("AveragePool", 11, "")
    types = {"x": onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, inner)}
    dims = onnx.shape_inference.infer_node_outputs(schema, standard, types)[
        standard.output[0]
    ].tensor_type.shape.dim
    out = tuple(dim.dim_value for dim in dims)
    return [_made(tensor, (out[0], *out[2:], out[1]) if last else out)]


_RULES: dict[str, _Rule] = {
    "Gelu": _like_first,
    "FastGelu": _like_first,
    "QuickGelu": _like_first,
    "BiasGelu": _like_first,
    "BiasSoftmax": _like_first,
    "BiasDropout": _like_first,
    "QLinearSigmoid": _like_first,
    "QLinearLeakyRelu": _like_first,
    "QLinearSoftmax": _like_first,
    "RotaryEmbedding": _like_first,
    "Inverse": _like_first,
    "Silu": _like_first,
    "BiasAdd": _like_first,
    "SkipGroupNorm": _like_first,
    "GroupNorm": _like_first,
    "GemmaRotaryEmbedding": _like_first,
    "MoE": _like_first,
    "QMoE": _like_first,
    "SimplifiedLayerNormalization": _like_first,
    "QLinearAdd": _quantized_broadcast,
    "QLinearMul": _quantized_broadcast,
    "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "MatMulIntegerToFloat": _matmul(1, onnx.TensorProto.FLOAT),
    "DynamicQuantizeMatMul": _matmul(1),
    "MatMulInteger16": _matmul(1, onnx.TensorProto.INT32),
    "QLinearMatMul": _matmul(3),
    "FusedGemm": _gemm,
    "QGemm": _gemm,
    "MatMulNBits": _matmul_nbits,
    "MatMulBnb4": _matmul_nbits,
    "FusedConv": _conv,
    "Conv": _conv,
    "QLinearConvTranspose": _conv,
    "ConvTransposeWithDynamicPads": _conv,
    "Attention": _attention,
    "QAttention": _attention,
    "MultiHeadAttention": _multi_head_attention,
    "PackedMultiHeadAttention": _like_first,
    "DecoderMaskedMultiHeadAttention": _multi_head_attention,
    "GroupQueryAttention": _group_query_attention,
    "SparseAttention": _group_query_attention,
    "SkipLayerNormalization": _skip_normalization,
    "SkipSimplifiedLayerNormalization": _skip_normalization,
    "EmbedLayerNormalization": _embedding,
    "DequantizeLinear": _dequantize,
    "QuantizeLinear": _quantize,
    "QLinearGlobalAveragePool": _global_pool,
    "QLinearAveragePool": _average_pool,
    "QLinearConcat": _concat,
    "GatherBlockQuantized": _block_gather,
}
