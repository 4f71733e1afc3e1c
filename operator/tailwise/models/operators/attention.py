"""Attention: scores are queries x keys, results are scores x values; both are matrix products.

For each head a query row of size d is multiplied with T keys, and the T scores with T values of size dv:
S x T x (d + dv) multiply-accumulates a head. Projections are counted where the operator holds them. A
causal mask does not change the count: FLOPs of what is masked are spent by most runtimes, and counted by
the convention of the papers.
"""

from __future__ import annotations

from dataclasses import replace

from tailwise.models.contrib_shapes import attended_length, grouped_length
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
    past = call.input(4 if call.op_type == "Attention" else 8)
    total = rows + (past.shape[3] if past is not None and past.shape else 0)
    projection = product(batch * rows, columns, depth)
    inner = _heads(batch, heads, rows, total, (int(sizes[0]) // heads, int(sizes[2]) // heads))
    return replace(
        projection,
        flops=projection.flops + inner.flops,
        multiply_accumulates=projection.multiply_accumulates + inner.multiply_accumulates,
    )


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


def _experts(call: Call) -> Work:
    """MoE (com.microsoft): each token passes k experts; weights [experts, hidden, inner] and back."""
    tokens = shaped(call, 0, "input")[1]
    first, second = shaped(call, 2, "fc1_experts_weights")[1], shaped(call, 4, "fc2_experts_weights")[1]
    rows = tokens[0] * (tokens[1] if len(tokens) == 3 else 1) * int(call.attributes.get("k", 1))
    up = product(rows, first[2], first[1])
    down = product(rows, second[2], second[1])
    return replace(
        up,
        flops=up.flops + down.flops,
        multiply_accumulates=up.multiply_accumulates + down.multiply_accumulates,
    )


STANDARD_RULES: Rules = {"Attention": Rule(OperatorKind.MATMUL, _standard)}
MICROSOFT_RULES: Rules = {
    "Attention": Rule(OperatorKind.MATMUL, _with_projection),
    "QAttention": Rule(OperatorKind.MATMUL, _with_projection),
    "MultiHeadAttention": Rule(OperatorKind.MATMUL, _multi_head),
    "DecoderMaskedMultiHeadAttention": Rule(OperatorKind.MATMUL, _multi_head),
    "GroupQueryAttention": Rule(OperatorKind.MATMUL, _grouped),
    "MoE": Rule(OperatorKind.MATMUL, _experts),
}
