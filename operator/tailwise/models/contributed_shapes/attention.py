"""Shapes of contributed attention, and over how many positions each query looks."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from tailwise.models.contributed_shapes.rule import ShapeRules, like_first, made, required
from tailwise.models.tensors import Call, Value


def _attention(call: Call) -> Sequence[Value | None]:
    """Attention and QAttention: X [B, S, D], W [D, 3 x hidden]; past and present are [2, B, h, T, d]."""
    tensor, (batch, sequence, _) = required(call, 0)
    _, weight = required(call, 1)
    sizes = call.attributes.get("qkv_hidden_sizes")
    hidden = sizes[2] if sizes else weight[-1] // 3
    kind = None if call.op_type != "QAttention" else onnx.TensorProto.FLOAT
    outputs: list[Value | None] = [made(tensor, (batch, sequence, hidden), kind)]
    heads = call.attributes["num_heads"]
    past = call.input(8 if call.op_type == "QAttention" else 4)
    before = past.shape[3] if past is not None and past.shape else 0
    shared = call.attributes.get("past_present_share_buffer")
    total = before if shared and before else before + sequence
    outputs.append(made(tensor, (2, batch, heads, total, hidden // heads), kind))
    return outputs


def _packed_attention(call: Call) -> Sequence[Value | None]:
    """PackedAttention: [tokens, D], without a batch axis."""
    tensor, (tokens, _) = required(call, 0)
    sizes = call.attributes.get("qkv_hidden_sizes")
    return [made(tensor, (tokens, sizes[2] if sizes else required(call, 1)[1][-1] // 3))]


def _multi_head_attention(call: Call) -> Sequence[Value | None]:
    """Query [B, S, H], value [B, T, Hv] or [B, h, T, d]; packed forms put several in one."""
    query, shape = required(call, 0)
    heads = call.attributes["num_heads"]
    if len(shape) == 5:
        batch, sequence, hidden = shape[0], shape[1], shape[2] * shape[4]
    else:
        batch, sequence, hidden = shape
    value = call.input(2)
    if value is not None and value.shape:
        hidden = value.shape[-1] if len(value.shape) == 3 else value.shape[1] * value.shape[3]
    total = attended_length(call)
    present = made(query, (batch, heads, total, hidden // heads))
    return [made(query, (batch, sequence, hidden)), present, present]


def attended_length(call: Call) -> int:
    """How many positions each query of a MultiHeadAttention looks at: those before, and its own keys."""
    shape = required(call, 0)[1]
    key = call.input(1)
    past = call.input(5 if call.op_type == "DecoderMaskedMultiHeadAttention" else 6)
    own = shape[1]
    if key is not None and key.shape:
        own = key.shape[2] if len(key.shape) == 4 else key.shape[1]
    before = past.shape[2] if past is not None and past.shape and len(past.shape) == 4 else 0
    if before and call.attributes.get("past_present_share_buffer"):
        return before
    return before + own


def _group_query_attention(call: Call) -> Sequence[Value | None]:
    query, (batch, sequence, hidden) = required(call, 0)
    heads, kv_heads = call.attributes["num_heads"], call.attributes["kv_num_heads"]
    packed = call.input(1) is None
    size = hidden // (heads + 2 * kv_heads) if packed else hidden // heads
    present = made(query, (batch, kv_heads, grouped_length(call), size))
    return [made(query, (batch, sequence, heads * size)), present, present]


def grouped_length(call: Call) -> int:
    """Positions a GroupQueryAttention looks at: the total length where known, else the cache and its own."""
    sequence = required(call, 0)[1][1]
    past, total = call.input(3), call.input(7 if call.op_type == "SparseAttention" else 6)
    if total is not None and total.array is not None and total.array.size:
        return int(total.array.ravel()[0])
    before = past.shape[2] if past is not None and past.shape and len(past.shape) == 4 else 0
    return before + sequence


def _relative_bias(call: Call) -> Sequence[Value | None]:
    """RelativePositionBias: [1, heads, queries, keys], from lengths that must be constants."""
    table, (_, heads) = required(call, 0)
    lengths = [call.input(1), call.input(2)]
    sizes = [int(t.array.ravel()[0]) for t in lengths if t is not None and t.array is not None]
    if len(sizes) != 2:
        raise ValueError("the lengths depend on data")
    return [made(table, (1, heads, *sizes))]


def _linear_attention(call: Call) -> Sequence[Value | None]:
    """LinearAttention: packed heads [B, T, H x d]; the state is [B, kv heads, dk, dv]."""
    query, (batch, steps, width) = required(call, 0)
    value = required(call, 2)[1]
    heads, kv_heads = call.attributes["q_num_heads"], call.attributes["kv_num_heads"]
    sizes = (width // heads, value[-1] // kv_heads)
    return [made(query, (batch, steps, heads * sizes[1])), made(query, (batch, kv_heads, *sizes))]


def _causal_convolution(call: Call) -> Sequence[Value | None]:
    """CausalConvWithState: as it came, and the last k - 1 positions as state."""
    if call.attributes.get("channels_last") or call.attributes.get("ndim", 1) != 1:
        raise ValueError("only [batch, channels, steps] is known")
    tensor, (batch, channels, steps) = required(call, 0)
    return [
        made(tensor, (batch, channels, steps)),
        made(tensor, (batch, channels, required(call, 1)[1][2] - 1)),
    ]


RULES: ShapeRules = {
    "Attention": _attention,
    "CausalConvWithState": _causal_convolution,
    "DecoderMaskedSelfAttention": _attention,
    "QAttention": _attention,
    "PackedAttention": _packed_attention,
    "MultiHeadAttention": _multi_head_attention,
    "DecoderMaskedMultiHeadAttention": _multi_head_attention,
    "GroupQueryAttention": _group_query_attention,
    "SparseAttention": _group_query_attention,
    "LinearAttention": _linear_attention,
    "RelativePositionBias": _relative_bias,
    "RotaryEmbedding": like_first,
    "MoE": like_first,
    "QMoE": like_first,
}
