"""Attention of every kind costs what its definition multiplies: projections, scores, results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from tests.unit.models import definitions
from tests.unit.models.brute_force import (
    assert_counted_as_executed,
    integers,
    referred,
    run,
    unchecked,
    values,
)
from tests.unit.models.counting import times
from tests.unit.models.definitions import joined_heads, split_heads
from tests.unit.models.graphs import MICROSOFT, model, node

SETTINGS = settings(max_examples=15, deadline=None)
SMALL = st.integers(1, 3)
LENGTH = st.integers(1, 5)


@SETTINGS
@given(SMALL, SMALL, SMALL, LENGTH, LENGTH, st.integers(1, 4), st.booleans())
def test_attention_of_the_default_domain_costs_what_it_multiplies(
    batch: int, groups: int, repeat: int, rows: int, columns: int, size: int, flat: bool
) -> None:
    heads = groups * repeat
    q, k = values(batch, heads, rows, size), values(batch, groups, columns, size)
    v = values(batch, groups, columns, size + 1)
    fed = {"q": q, "k": k, "v": v}
    attributes: dict[str, Any] = {"q_num_heads": heads, "kv_num_heads": groups} if flat else {}
    shown = {name: joined_heads(array) if flat else array for name, array in fed.items()}
    made = model(
        [node("Attention", ["q", "k", "v"], ["y"], **attributes)],
        {name: array.shape for name, array in shown.items()},
        opset=23,
    )

    def defined() -> Any:
        result = definitions.attention(q, k, v)
        return joined_heads(result) if flat else result

    assert_counted_as_executed(made, shown, defined, by=referred)


@SETTINGS
@given(SMALL, SMALL, LENGTH, LENGTH, st.integers(1, 4))
def test_attention_over_projected_operands_costs_what_it_multiplies(
    batch: int, heads: int, rows: int, columns: int, size: int
) -> None:
    q, k, v = (values(batch, length, heads * size) for length in (rows, columns, columns))
    fed = {"q": q, "k": k, "v": v}
    made = model(
        [node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain=MICROSOFT, num_heads=heads)],
        {name: array.shape for name, array in fed.items()},
    )
    assert_counted_as_executed(
        made, fed, lambda: joined_heads(definitions.attention(*(split_heads(x, heads) for x in (q, k, v))))
    )


@SETTINGS
@given(SMALL, SMALL, SMALL, LENGTH)
def test_grouped_attention_costs_every_head_of_queries(
    batch: int, groups: int, repeat: int, rows: int
) -> None:
    heads, size = groups * repeat, 8
    q, k, v = (values(batch, rows, count * size) for count in (heads, groups, groups))
    fed = {"q": q, "k": k, "v": v}
    names = ["q", "k", "v", "", "", "lengths", "total"]
    made = model(
        [
            node(
                "GroupQueryAttention",
                names,
                ["y", "pk", "pv"],
                domain=MICROSOFT,
                num_heads=heads,
                kv_num_heads=groups,
            )
        ],
        {name: array.shape for name, array in fed.items()},
        {"lengths": np.full((batch,), rows - 1, np.int32), "total": np.array(rows, np.int32)},
    )

    def defined() -> Any:
        split = (split_heads(q, heads), split_heads(k, groups), split_heads(v, groups))
        return joined_heads(definitions.attention(*split, causal=True))

    assert_counted_as_executed(made, fed, defined)


def projected(batch: int, rows: int, depth: int, heads: int) -> tuple[Any, Any, Any]:
    """An input, the weight of its projections, and what attention makes of both."""
    x, w = values(batch, rows, depth), values(depth, 3 * depth)

    def defined() -> Any:
        q, k, v = np.split(times(x, w), 3, axis=-1)
        return joined_heads(definitions.attention(*(split_heads(each, heads) for each in (q, k, v))))

    return x, w, defined


@SETTINGS
@given(SMALL, SMALL, LENGTH, st.integers(1, 4))
def test_attention_with_its_projections_costs_them_too(batch: int, heads: int, rows: int, size: int) -> None:
    x, w, defined = projected(batch, rows, heads * size, heads)
    made = model(
        [node("Attention", ["x", "w", "b"], ["y"], domain=MICROSOFT, num_heads=heads)],
        {"x": x.shape},
        {"w": w, "b": np.zeros(w.shape[1], np.float32)},
    )
    assert_counted_as_executed(made, {"x": x}, defined)


def test_quantised_attention_costs_as_the_one_it_quantises() -> None:
    x, w, defined = projected(2, 4, 8, 2)
    byte = {"x": TensorProto.UINT8}
    made = model(
        [node("QAttention", ["x", "w", "b", "s", "s"], ["y"], domain=MICROSOFT, num_heads=2)],
        {"x": x.shape},
        {"w": integers(*w.shape), "b": values(24), "s": np.array(1, np.float32)},
        types=byte,
    )
    assert_counted_as_executed(made, {}, defined, by=unchecked)


def test_packed_attention_costs_its_tokens_only() -> None:
    _, w, defined = projected(2, 4, 8, 2)
    made = model(
        [node("PackedAttention", ["x", "w", "b", "o", "c"], ["y"], domain=MICROSOFT, num_heads=2)],
        {"x": (8, 8)},
        {"w": w, "b": values(24), "o": integers(2, 4, dtype=np.int32), "c": integers(3, dtype=np.int32)},
    )
    assert_counted_as_executed(made, {}, defined, by=unchecked)


@pytest.mark.parametrize("op_type", ["MultiHeadAttention", "DecoderMaskedMultiHeadAttention"])
def test_a_cache_of_keys_is_looked_at_too(op_type: str) -> None:
    heads, before, size = 2, 5, 4
    q, k, v = (values(1, 1, heads * size) for _ in range(3))
    past = values(1, heads, before, size)
    names = ["q", "k", "v", "", "", "", "pk", "pv"]
    if op_type.startswith("Decoder"):
        names = ["q", "k", "v", "", "", "pk", "pv"]
    made = model(
        [node(op_type, names, ["y", "k2", "v2"], domain=MICROSOFT, num_heads=heads)],
        {"q": q.shape, "k": k.shape, "v": v.shape, "pk": past.shape, "pv": past.shape},
    )

    def defined() -> Any:
        keys = np.concatenate([past, split_heads(k, heads)], axis=2)
        entries = np.concatenate([past, split_heads(v, heads)], axis=2)
        return joined_heads(definitions.attention(split_heads(q, heads), keys, entries))

    fed = {"q": q, "k": k, "v": v, "pk": past, "pv": past}
    by = run if op_type == "MultiHeadAttention" else unchecked
    assert_counted_as_executed(made, fed, defined, by=by)


def test_a_decoder_step_with_projections_looks_at_its_cache() -> None:
    x, w = values(1, 1, 8), values(8, 24)
    past = values(2, 1, 2, 5, 4)
    made = model(
        [
            node(
                "DecoderMaskedSelfAttention",
                ["x", "w", "b", "", "past"],
                ["y", "p"],
                domain=MICROSOFT,
                num_heads=2,
            )
        ],
        {"x": x.shape, "past": past.shape},
        {"w": w, "b": values(24)},
    )

    def defined() -> Any:
        q, k, v = (split_heads(each, 2) for each in np.split(times(x, w), 3, axis=-1))
        keys, entries = np.concatenate([past[0], k], axis=2), np.concatenate([past[1], v], axis=2)
        return joined_heads(definitions.attention(q, keys, entries))

    assert_counted_as_executed(made, {}, defined, by=unchecked)


def test_sparse_attention_is_counted_as_if_it_were_dense() -> None:
    q, k, v = values(1, 4, 16), values(1, 4, 8), values(1, 4, 8)
    names = ["q", "k", "v", "pk", "pv", "r", "c", "total", "lengths"]
    integer = {
        name: np.array(4, np.int32).reshape(shape) for name, shape in (("total", (1,)), ("lengths", (1,)))
    }
    made = model(
        [
            node(
                "SparseAttention", names, ["y", "k2", "v2"], domain=MICROSOFT,
                num_heads=2, kv_num_heads=1, sparse_block_size=16,
            )
        ],
        {"q": q.shape, "k": k.shape, "v": v.shape, "pk": (1, 1, 4, 8), "pv": (1, 1, 4, 8)},
        {"r": integers(1, 2, dtype=np.int32), "c": integers(1, 1, dtype=np.int32), **integer},
    )  # fmt: skip

    def defined() -> Any:
        return joined_heads(definitions.attention(split_heads(q, 2), split_heads(k, 1), split_heads(v, 1)))

    assert_counted_as_executed(made, {}, defined, by=unchecked)


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
@SETTINGS
@given(batch=SMALL, groups=SMALL, repeat=SMALL, steps=LENGTH)
def test_linear_attention_costs_what_it_multiplies(
    rule: str, batch: int, groups: int, repeat: int, steps: int
) -> None:
    heads, key_size, value_size = groups * repeat, 3, 2
    q, k = values(batch, steps, heads, key_size), values(batch, steps, groups, key_size) / 2
    v = values(batch, steps, groups, value_size)
    fed = {name: array.reshape(batch, steps, -1) for name, array in (("q", q), ("k", k), ("v", v))}
    names, decay = ["q", "k", "v"], -0.25
    if rule != "linear":
        names += ["", "decay" if "gated" in rule else "", "beta" if "delta" in rule else ""]
    weights = {"decay": np.full((batch, steps, groups), decay, np.float32)} if "gated" in rule else {}
    if "delta" in rule:
        weights["beta"] = np.full((batch, steps, groups), 0.5, np.float32)
    made = model(
        [
            node(
                "LinearAttention",
                names,
                ["y", "state"],
                q_num_heads=heads,
                kv_num_heads=groups,
                update_rule=rule,
            )
        ],
        {name: array.shape for name, array in fed.items()},
        weights,
        opset=27,
    )

    def defined() -> Any:
        gate = decay if "gated" in rule else 0.0
        made = definitions.linear_attention(q, k, v, gate, 0.5, delta="delta" in rule)
        return made.reshape(batch, steps, -1)

    assert_counted_as_executed(made, fed, defined, by=referred)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("op_type", ["MoE", "QMoE"])
def test_experts_cost_the_products_of_those_a_token_is_sent_to(op_type: str, gated: bool) -> None:
    experts, chosen, hidden, inner, tokens = 4, 2, 6, 10, 5
    wide = 2 * inner if gated else inner
    first = integers(experts, wide, hidden // 2) if op_type == "QMoE" else values(experts, wide, hidden)
    second = integers(experts, hidden, inner // 2) if op_type == "QMoE" else values(experts, hidden, inner)
    names = ["x", "r", "a", "", "b"] if op_type == "MoE" else ["x", "r", "a", "", "", "b"]
    made = model(
        [node(op_type, names, ["y"], domain=MICROSOFT, k=chosen, swiglu_fusion=int(gated))],
        {"x": (tokens, hidden), "r": (tokens, experts)},
        {"a": first, "b": second},
    )

    def defined() -> Any:
        for _ in range(tokens * chosen):
            up = times(np.zeros((1, hidden)), np.zeros((hidden, wide)))
            times(up[:, :inner], np.zeros((inner, hidden)))

    assert_counted_as_executed(made, {}, defined, by=unchecked)
