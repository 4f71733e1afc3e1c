"""Shapes of contributed matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from tailwise.models.contributed_shapes.rule import ShapeRule, ShapeRules, made, required
from tailwise.models.tensors import Call, Shape, Value


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
    left, left_shape = required(call, 0)
    _, right_shape = required(call, 1)
    return [made(left, product_shape(transposed(call, left_shape, "A"), transposed(call, right_shape, "B")))]


def _matmul(right: int, element_type: int | None = None) -> ShapeRule:
    def rule(call: Call) -> Sequence[Value | None]:
        left, left_shape = required(call, 0)
        return [made(left, product_shape(left_shape, required(call, right)[1]), element_type)]

    return rule


def _gemm(right: int, element_type: int | None = None) -> ShapeRule:
    def rule(call: Call) -> Sequence[Value | None]:
        left, a = required(call, 0)
        b = required(call, right)[1]
        rows = a[1] if call.attributes.get("transA") else a[0]
        columns = b[0] if call.attributes.get("transB") else b[1]
        return [made(left, (rows, columns), element_type)]

    return rule


def _quantised_gemm(call: Call) -> Sequence[Value | None]:
    """QGemm: without a scale of the result (input 7) the result is float."""
    return _gemm(3, onnx.TensorProto.FLOAT if call.input(7) is None else None)(call)


def _packed(*columns: str) -> ShapeRule:
    """Weights packed below a byte: the true columns are attributes, one for each result."""

    def rule(call: Call) -> Sequence[Value | None]:
        tensor, shape = required(call, 0)
        return [made(tensor, (*shape[:-1], call.attributes[name])) for name in columns]

    return rule


def _packed_fp4(call: Call) -> Sequence[Value | None]:
    """MatMulFpQ4: the shape of the unpacked weight is its third input."""
    tensor, shape = required(call, 0)
    whole = required(call, 2)[0].array
    if whole is None:
        raise ValueError("the shape of the weight is not known")
    return [made(tensor, product_shape(shape, tuple(int(size) for size in whole.ravel())))]


def _distances(call: Call) -> Sequence[Value | None]:
    left, (rows, _) = required(call, 0)
    return [made(left, (rows, required(call, 1)[1][0]))]


RULES: ShapeRules = {
    "FusedMatMul": _fused_matmul,
    "FusedMatMulActivation": _fused_matmul,
    "SparseToDenseMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "MatMulIntegerToFloat": _matmul(1, onnx.TensorProto.FLOAT),
    "DynamicQuantizeMatMul": _matmul(1),
    "GemmFastGelu": _matmul(1),
    "MatMulInteger16": _matmul(1, onnx.TensorProto.INT32),
    "QLinearMatMul": _matmul(3),
    "QOrderedMatMul": _matmul(2),
    "FusedGemm": _gemm(1),
    "GemmFloat8": _gemm(1),
    "QGemm": _quantised_gemm,
    "MatMulNBits": _packed("N"),
    "MatMulBnb4": _packed("N"),
    "MatMulNBitsMlp": _packed("N"),
    "MatMulNBitsQkv": _packed("Nq", "Nkv", "Nkv"),
    "MatMulFpQ4": _packed_fp4,
    "CDist": _distances,
}
