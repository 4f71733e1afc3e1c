"""Matrix products of every kind cost what their definition multiplies."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from tests.unit.models import definitions
from tests.unit.models.brute_force import assert_counted_as_executed, integers, run, unchecked, values
from tests.unit.models.counting import times
from tests.unit.models.graphs import MICROSOFT, model, node, profile, records

SETTINGS = settings(max_examples=25, deadline=None)
SIZE = st.integers(1, 5)

Shapes = tuple[tuple[int, ...], tuple[int, ...]]


@st.composite
def operands(draw: st.DrawFn) -> Shapes:
    """Shapes of two operands that numpy can multiply, either of which may be a vector or broadcast."""
    rows, depth, columns = draw(SIZE), draw(SIZE), draw(SIZE)
    outer = draw(st.lists(st.integers(1, 3), max_size=2))
    left = [draw(st.sampled_from([1, size])) for size in outer]
    right = [draw(st.sampled_from([1, size])) for size in outer]
    left, right = left[draw(st.integers(0, len(left))) :], right[draw(st.integers(0, len(right))) :]
    form = draw(st.sampled_from(["both", "both", "row", "column"]))
    first = (depth,) if form == "row" else (*left, rows, depth)
    second = (depth,) if form == "column" else (*right, depth, columns)
    return first, second


@SETTINGS
@given(operands())
def test_a_product_broadcasts_as_numpy_does(shapes: Shapes) -> None:
    a, b = values(*shapes[0]), values(*shapes[1])
    made = model([node("MatMul", ["a", "b"], ["y"])], {"a": a.shape, "b": b.shape})
    assert_counted_as_executed(made, {"a": a, "b": b}, lambda: times(a, b))
    (record,) = records(made)
    assert record.batch * record.rows * record.columns * record.depth == record.multiply_accumulates


@SETTINGS
@given(SIZE, SIZE, SIZE, st.booleans(), st.booleans())
def test_a_gemm_takes_transposed_operands(
    rows: int, depth: int, columns: int, first: bool, second: bool
) -> None:
    a = values(depth, rows) if first else values(rows, depth)
    b = values(columns, depth) if second else values(depth, columns)
    attributes: dict[str, Any] = {"transA": int(first), "transB": int(second), "alpha": 0.5}
    made = model([node("Gemm", ["a", "b"], ["y"], **attributes)], {"a": a.shape}, {"b": b})
    assert_counted_as_executed(made, {"a": a}, lambda: 0.5 * times(a.T if first else a, b.T if second else b))


@st.composite
def equations(draw: st.DrawFn) -> tuple[str, list[tuple[int, ...]]]:
    """An Einsum over two or three operands, with the shapes of its operands."""
    sizes = {label: draw(st.integers(1, 4)) for label in "abcde"}
    count = draw(st.integers(2, 3))
    terms = [
        "".join(draw(st.lists(st.sampled_from("abcde"), min_size=1, max_size=3, unique=True)))
        for _ in range(count)
    ]
    used = sorted(set("".join(terms)))
    output = "".join(draw(st.lists(st.sampled_from(used), max_size=3, unique=True)))
    shapes = [tuple(sizes[label] for label in term) for term in terms]
    return f"{','.join(terms)}->{output}", shapes


@settings(max_examples=60, deadline=None)
@given(equations())
def test_an_einsum_costs_what_it_multiplies_from_left_to_right(
    drawn: tuple[str, list[tuple[int, ...]]],
) -> None:
    equation, shapes = drawn
    arrays = {f"x{index}": values(*shape) for index, shape in enumerate(shapes)}
    made = model(
        [node("Einsum", list(arrays), ["y"], equation=equation)],
        {name: array.shape for name, array in arrays.items()},
    )
    assert_counted_as_executed(made, arrays, lambda: definitions.contraction(equation, list(arrays.values())))


@pytest.mark.parametrize(
    ("equation", "left", "right", "expected"),
    [
        ("...ij,...jk->...ik", (5, 2, 3), (5, 3, 4), 5 * 2 * 3 * 4),
        ("...ij,jk->...ik", (5, 6, 2, 3), (3, 4), 5 * 6 * 2 * 3 * 4),
        ("ij,jk", (2, 3), (3, 4), 24),
        ("b h i d , b h j d -> b h i j", (2, 3, 4, 5), (2, 3, 6, 5), 2 * 3 * 4 * 6 * 5),
    ],
)
def test_an_einsum_may_leave_out_labels_and_its_result(
    equation: str, left: tuple[int, ...], right: tuple[int, ...], expected: int
) -> None:
    made = model([node("Einsum", ["a", "b"], ["y"], equation=equation)], {"a": left, "b": right})
    assert records(made)[0].multiply_accumulates == expected


UNSIGNED = {"a": TensorProto.UINT8}


@SETTINGS
@given(operands())
def test_a_product_of_integers_costs_as_one_of_floats(shapes: Shapes) -> None:
    a, b = integers(*shapes[0]), integers(*shapes[1])
    made = model(
        [node("MatMulInteger", ["a", "b"], ["y"])],
        {"a": a.shape},
        {"b": b},
        types={**UNSIGNED, "y": TensorProto.INT32},
    )
    assert_counted_as_executed(made, {"a": a}, lambda: times(a, b))
    assert profile(made).precision == "uint8"


@SETTINGS
@given(SIZE, SIZE, SIZE)
def test_a_quantised_product_costs_as_the_one_it_quantises(rows: int, depth: int, columns: int) -> None:
    a, b = integers(rows, depth, most=5), integers(depth, columns, most=5)
    scalars: dict[str, Any] = {"s": np.array(1, np.float32), "z": np.array(0, np.uint8), "b": b}
    made = model(
        [node("QLinearMatMul", ["a", "s", "z", "b", "s", "z", "s", "z"], ["y"])],
        {"a": a.shape},
        scalars,
        types={**UNSIGNED, "y": TensorProto.UINT8},
    )
    assert_counted_as_executed(made, {"a": a}, lambda: np.clip(times(a, b), 0, 255))
    gemm = model(
        [node("QGemm", ["a", "s", "z", "b", "s", "z"], ["y"], domain=MICROSOFT)],
        {"a": a.shape},
        scalars,
        types=UNSIGNED,
    )
    assert_counted_as_executed(gemm, {"a": a}, lambda: times(a, b))


@SETTINGS
@given(st.lists(SIZE, min_size=1, max_size=2), SIZE, SIZE, SIZE, st.booleans(), st.booleans())
def test_a_fused_product_takes_transposed_operands(
    outer: list[int], rows: int, depth: int, columns: int, first: bool, second: bool
) -> None:
    a = values(*outer, *((depth, rows) if first else (rows, depth)))
    b = values(*outer, *((columns, depth) if second else (depth, columns)))
    made = model(
        [node("FusedMatMul", ["a", "b"], ["y"], domain=MICROSOFT, transA=int(first), transB=int(second))],
        {"a": a.shape, "b": b.shape},
    )

    def defined() -> Any:
        return times(a.swapaxes(-1, -2) if first else a, b.swapaxes(-1, -2) if second else b)

    assert_counted_as_executed(made, {"a": a, "b": b}, defined)


def test_a_fused_product_moves_its_batch_axis() -> None:
    a, b = values(4, 2, 3), values(2, 3, 5)
    made = model(
        [node("FusedMatMul", ["a", "b"], ["y"], domain=MICROSOFT, transBatchA=1)],
        {"a": a.shape, "b": b.shape},
    )
    assert_counted_as_executed(made, {"a": a, "b": b}, lambda: times(a.transpose(1, 0, 2), b))


def by_name(op_type: str, **attributes: Any) -> onnx.ModelProto:
    """A contributed product of [3, 8] and a constant [8, 5]."""
    return model(
        [node(op_type, ["a", "b"], ["y"], domain=MICROSOFT, **attributes)], {"a": (3, 8)}, {"b": WEIGHT}
    )


WEIGHT = values(8, 5)


@pytest.mark.parametrize(
    ("op_type", "runs"),
    [
        ("FusedGemm", True),
        ("TransposeMatMul", True),
        ("DynamicQuantizeMatMul", False),
        ("FusedMatMulActivation", False),
        ("GemmFastGelu", False),
        ("GemmFloat8", False),
        ("MatMulIntegerToFloat", False),
        ("MatMulInteger16", False),
        ("SparseToDenseMatMul", False),
    ],
)
def test_products_the_runtime_makes_cost_as_the_ones_they_replace(op_type: str, runs: bool) -> None:
    a = values(3, 8)
    needed: dict[str, Any] = (
        {"activation": "Relu"} if op_type in ("FusedGemm", "FusedMatMulActivation") else {}
    )

    def defined() -> Any:
        result = times(a, WEIGHT)
        return np.maximum(result, 0) if needed else result

    by = run if runs else unchecked
    assert_counted_as_executed(by_name(op_type, **needed), {"a": a}, defined, by=by)


def test_a_product_of_ordered_integers_costs_as_one_of_floats() -> None:
    a, b = integers(3, 8), integers(8, 5)
    made = model(
        [node("QOrderedMatMul", ["a", "s", "b", "s", "s"], ["y"], domain=MICROSOFT)],
        {"a": a.shape},
        {"b": b, "s": np.array(1, np.float32)},
        types={"a": TensorProto.INT8},
    )
    assert_counted_as_executed(made, {"a": a}, lambda: times(a, b), by=unchecked)


@SETTINGS
@given(rows=st.integers(1, 3), columns=st.integers(1, 6), blocks=st.integers(1, 2))
def test_weights_packed_to_four_bits_cost_as_the_unpacked(rows: int, columns: int, blocks: int) -> None:
    depth = 32 * blocks
    packed, scales = integers(columns, blocks, 16, most=256), np.abs(values(columns * blocks)) / 8
    a = values(1, rows, depth)
    made = model(
        [
            node(
                "MatMulNBits", ["a", "w", "s"], ["y"], domain=MICROSOFT,
                K=depth, N=columns, bits=4, block_size=32,
            )
        ],
        {"a": a.shape},
        {"w": packed, "s": scales},
    )  # fmt: skip

    def defined() -> Any:
        halves = np.stack([packed & 15, packed >> 4], axis=-1).reshape(columns, blocks, 32)
        weight = (halves.astype(np.float64) - 8) * scales.reshape(columns, blocks, 1)
        return times(a, weight.reshape(columns, depth).T)

    assert_counted_as_executed(made, {"a": a}, defined, tolerance=0.05)
    assert profile(made).parameter_bytes == packed.size + 4 * scales.size


def test_other_packed_weights_cost_as_the_unpacked() -> None:
    a = values(3, 64)
    whole: dict[str, Any] = {"K": 64, "block_size": 32, "bits": 4}
    packed, scales = integers(16, 2, 16), values(32)
    bnb = model(
        [
            node(
                "MatMulBnb4",
                ["a", "w", "s"],
                ["y"],
                domain=MICROSOFT,
                K=64,
                N=16,
                block_size=32,
                quant_type=0,
            )
        ],
        {"a": a.shape},
        {"w": packed, "s": scales},
    )
    assert_counted_as_executed(bnb, {"a": a}, lambda: times(a, np.zeros((64, 16))), by=unchecked)
    pair = model(
        [
            node(
                "MatMulNBitsMlp",
                ["a", "", "", "g", "s", "", "u", "s"],
                ["y"],
                domain=MICROSOFT,
                N=16,
                **whole,
            )
        ],
        {"a": a.shape},
        {"g": packed, "u": packed, "s": scales},
    )
    assert_counted_as_executed(pair, {"a": a}, lambda: times(a, np.zeros((64, 32))), by=unchecked)
    triple = model(
        [
            node(
                "MatMulNBitsQkv", ["a", "", "n", "q", "s", "", "k", "s", "", "v", "s"], ["y", "k2", "v2"],
                domain=MICROSOFT, Nq=16, Nkv=8, **whole,
            )
        ],
        {"a": a.shape},
        {"n": values(64), "q": packed, "k": packed[:8], "v": packed[:8], "s": scales},
    )  # fmt: skip
    assert_counted_as_executed(triple, {"a": a}, lambda: times(a, np.zeros((64, 32))), by=unchecked)
    four = model(
        [node("MatMulFpQ4", ["a", "w", "shape"], ["y"], domain=MICROSOFT)],
        {"a": a.shape},
        {"w": integers(500), "shape": np.array([64, 16], np.int64)},
    )
    assert_counted_as_executed(four, {"a": a}, lambda: times(a, np.zeros((64, 16))), by=unchecked)


def test_distances_of_all_pairs_are_a_product() -> None:
    a, b = values(4, 3), values(5, 3)
    made = model(
        [node("CDist", ["a", "b"], ["y"], domain=MICROSOFT, metric="sqeuclidean")],
        {"a": a.shape, "b": b.shape},
    )

    def defined() -> Any:
        return (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * times(a, b.T)

    assert_counted_as_executed(made, {"a": a, "b": b}, defined)
