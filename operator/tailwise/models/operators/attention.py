"""Attention: scores are queries x keys, results are scores x values; both are matrix products.

For each head a query row of size d is multiplied with T keys, and the T scores with T values of size dv:
S x T x (d + dv) multiply-accumulates a head. Projections are counted where the operator holds them. A
causal mask does not change the count: FLOPs of what is masked are spent by most runtimes, and counted by
the convention of the papers.
"""

from __future__ import annotations

import math
from dataclasses import replace

from tailwise.models.contributed_shapes.attention import attended_length, grouped_length
from tailwise.models.operators.rule import Rule, Rules, Uncountable, Work, product, result, shaped
from tailwise.models.records import OperatorKind
from tailwise.models.tensors import Call, Shape


def _heads(batch: int, heads: int, rows: int, total: int, sizes: tuple[int, int]) -> Work:
    """Scores and results of all heads; ``sizes`` are those of a key and of a value."""
    return product(rows, sum(sizes), total, batch * heads)


def _standard(call: Call) -> Work:
    """Attention of the default domain (opset 23): 4-D [B, h, S, d], or 3-D with numbers of heads given."""
    query, key, value = (shaped(call, index, name)[1] for index, name in enumerate("QKV"))
    result(call)
    q_heads, rows, size = _split(query, call.attributes.get("q_num_heads"))
    kv_heads, own, value_size = _split(value, call.attributes.get("kv_num_heads"))
    past = call.input(4)
    before = past.shape[-2] if past is not None and past.shape else 0
    if len(key) == 4 and key[1] != kv_heads:
        raise Uncountable("keys and values have different numbers of heads")
    return _heads(query[0], q_heads, rows, before + own, (size, value_size))


def _split(shape: Shape, heads: int | None) -> tuple[int, int, int]:
    """Heads, positions and size of a head of a 4-D or a 3-D operand."""
    if len(shape) == 4:
        return shape[1], shape[2], shape[3]
    if len(shape) != 3 or not heads:
        raise Uncountable("a 3-D operand needs its number of heads")
    return heads, shape[1], shape[2] // heads


def _with_projection(call: Call) -> Work:
    """Attention, QAttention (com.microsoft): X [B, S, D] x W [D, hidden of Q, K and V], then the heads."""
    batch, rows, depth = _three(shaped(call, 0, "input")[1])
    columns = shaped(call, 1, "weights")[1][-1]
    sizes = call.attributes.get("qkv_hidden_sizes") or [columns // 3] * 3
    heads = int(call.attributes["num_heads"])
    past = call.input(8 if call.op_type == "QAttention" else 4)
    before = past.shape[3] if past is not None and past.shape else 0
    shared = call.attributes.get("past_present_share_buffer")
    total = before if shared and before else before + rows
    projection = product(batch * rows, columns, depth)
    inner = _heads(batch, heads, rows, total, (int(sizes[0]) // heads, int(sizes[2]) // heads))
    return _sum(projection, inner)


def _three(shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise Uncountable(f"its input {list(shape)} needs three axes")
    return shape[0], shape[1], shape[2]


def _multi_head(call: Call) -> Work:
    """MultiHeadAttention (com.microsoft): projected queries, keys and values come in."""
    query = shaped(call, 0, "query")[1]
    out = result(call)[1]
    heads = int(call.attributes["num_heads"])
    batch, rows = query[0], query[1]
    hidden = query[2] * query[4] if len(query) == 5 else query[2]
    return _heads(batch, heads, rows, attended_length(call), (hidden // heads, out[-1] // heads))


def _grouped(call: Call) -> Work:
    """GroupQueryAttention (com.microsoft): fewer heads of keys than of queries; each query head counts."""
    batch, rows, _ = _three(shaped(call, 0, "query")[1])
    heads = int(call.attributes["num_heads"])
    size = result(call)[1][-1] // heads
    return _heads(batch, heads, rows, grouped_length(call), (size, size))


def _packed(call: Call) -> Work:
    """PackedAttention: tokens of several sequences without padding, [tokens, D]; their number is an input.

    Each token looks at its own sequence only. All sequences are taken as equally long.
    """
    tokens, depth = shaped(call, 0, "input")[1]
    columns = shaped(call, 1, "weights")[1][-1]
    batch, longest = shaped(call, 3, "token_offset")[1]
    sizes = call.attributes.get("qkv_hidden_sizes") or [columns // 3] * 3
    length = min(longest, -(-tokens // batch))
    projection = product(tokens, columns, depth)
    return _sum(projection, product(tokens, int(sizes[0]) + int(sizes[2]), length))


def _linear(call: Call) -> Work:
    """LinearAttention: for each step and key head the outer product k x v is added to a state of dk x dv,
    and each query head reads it with q (Katharopoulos et al. 2020); the delta rules read it once more, with
    k, before they write (Yang et al. 2024). The decay of the state is left out, as recurrent layers' gates.
    """
    batch, steps, width = _three(shaped(call, 0, "query")[1])
    heads, kv_heads = int(call.attributes["q_num_heads"]), int(call.attributes["kv_num_heads"])
    key_size, value_size = width // heads, shaped(call, 2, "value")[1][-1] // kv_heads
    rule = str(call.attributes.get("update_rule", "gated_delta"))
    passes = heads + kv_heads * (2 if rule.endswith("delta") else 1)
    return product(1, value_size, key_size, batch * steps * passes)


def _experts(first: int, second: int, third: int) -> Rule:
    """MoE, QMoE: each token passes k experts; weights [experts, inner, hidden] and [experts, hidden, inner].

    Where the gate is fused into the first weights they have 2 x inner rows; a third layer is as the first.
    Only the outer sizes are read: quantised weights are packed along the last axis.
    """

    def work(call: Call) -> Work:
        tokens = shaped(call, 0, "input")[1]
        hidden = tokens[-1]
        wide = shaped(call, first, "fc1_experts_weights")[1][1]
        back = shaped(call, second, "fc2_experts_weights")[1][1]
        inner = wide // 2 if call.attributes.get("swiglu_fusion") else wide
        rows = math.prod(tokens[:-1]) * int(call.attributes.get("k", 1))
        total = _sum(product(rows, wide, hidden), product(rows, back, inner))
        return total if call.input(third) is None else _sum(total, product(rows, inner, hidden))

    return Rule(OperatorKind.MATMUL, work)


def _sum(one: Work, other: Work) -> Work:
    """The sum of two products, with the sizes of the first."""
    return replace(
        one,
        flops=one.flops + other.flops,
        multiply_accumulates=one.multiply_accumulates + other.multiply_accumulates,
    )


STANDARD_RULES: Rules = {
    "Attention": Rule(OperatorKind.MATMUL, _standard),
    "LinearAttention": Rule(OperatorKind.MATMUL, _linear),
}
MICROSOFT_RULES: Rules = {
    "Attention": Rule(OperatorKind.MATMUL, _with_projection),
    "DecoderMaskedSelfAttention": Rule(OperatorKind.MATMUL, _with_projection),
    "QAttention": Rule(OperatorKind.MATMUL, _with_projection),
    "PackedAttention": Rule(OperatorKind.MATMUL, _packed),
    "MultiHeadAttention": Rule(OperatorKind.MATMUL, _multi_head),
    "DecoderMaskedMultiHeadAttention": Rule(OperatorKind.MATMUL, _multi_head),
    "GroupQueryAttention": Rule(OperatorKind.MATMUL, _grouped),
    "SparseAttention": Rule(OperatorKind.MATMUL, _grouped),
    "LinearAttention": Rule(OperatorKind.MATMUL, _linear),
    "MoE": _experts(2, 4, 6),
    "QMoE": _experts(2, 5, 8),
}
