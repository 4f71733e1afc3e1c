"""Fully connected layers and matrix products: equation (2), 2 x N_in x N_out for each row."""

from __future__ import annotations

import math
from dataclasses import replace

from tailwise.models.contributed_shapes.products import product_shape, transposed
from tailwise.models.operators.rule import Rule, Rules, Uncountable, Work, product, result, shaped
from tailwise.models.records import OperatorKind
from tailwise.models.tensors import Call, Shape


def _of_shapes(left: Shape, right: Shape) -> Work:
    """Work of numpy's matmul of two shapes, which ONNX follows: batch axes are broadcast."""
    if left[-1:] != (right[-2] if len(right) > 1 else right[-1],):
        raise Uncountable(f"its operands {list(left)} and {list(right)} do not fit")
    try:
        shape = product_shape(left, right)
    except ValueError as error:
        raise Uncountable(f"its operands {list(left)} and {list(right)} do not broadcast") from error
    rows = left[-2] if len(left) > 1 else 1
    columns = right[-1] if len(right) > 1 else 1
    outer = math.prod(shape) // max(1, (rows if len(left) > 1 else 1) * (columns if len(right) > 1 else 1))
    if len(right) <= 2:
        # One weight for all samples: a single tall product, which is how runtimes do it.
        return product(rows * outer, columns, left[-1])
    return product(rows, columns, left[-1], outer)


def _matmul(left_index: int, right_index: int) -> Rule:
    def work(call: Call) -> Work:
        left, right = shaped(call, left_index, "A")[1], shaped(call, right_index, "B")[1]
        if not left or not right:
            raise Uncountable("an operand is a scalar")
        result(call)
        return _of_shapes(left, right)

    return Rule(OperatorKind.MATMUL, work)


def _fused_matmul(call: Call) -> Work:
    """FusedMatMul: operands may be transposed first (com.microsoft)."""
    left, right = shaped(call, 0, "A")[1], shaped(call, 1, "B")[1]
    result(call)
    return _of_shapes(transposed(call, left, "A"), transposed(call, right, "B"))


def _gemm(right_index: int) -> Rule:
    """Gemm: alpha x A' x B' + beta x C; only the product is counted."""

    def work(call: Call) -> Work:
        left, right = shaped(call, 0, "A")[1], shaped(call, right_index, "B")[1]
        if len(left) != 2 or len(right) != 2:
            raise Uncountable(f"its operands {list(left)} and {list(right)} are not matrices")
        rows, depth = left[::-1] if call.attributes.get("transA") else left
        inner, columns = right[::-1] if call.attributes.get("transB") else right
        if inner != depth:
            raise Uncountable(f"its operands {list(left)} and {list(right)} do not fit")
        return product(rows, columns, depth)

    return Rule(OperatorKind.MATMUL, work)


def _packed(*columns: str) -> Rule:
    """Weights packed below a byte: their sizes are the attributes K and N (com.microsoft).

    MatMulNBitsMlp multiplies with two of N columns, MatMulNBitsQkv with queries, keys and values at once.
    """

    def work(call: Call) -> Work:
        _, left = shaped(call, 0, "A")
        wide = sum(int(call.attributes[name]) for name in columns)
        return product(math.prod(left[:-1]), wide, int(call.attributes["K"]))

    return Rule(OperatorKind.MATMUL, work)


def _packed_fp4(call: Call) -> Work:
    """MatMulFpQ4: the packed weight's sizes are its third input (com.microsoft)."""
    left, sizes = shaped(call, 0, "A")[1], shaped(call, 2, "B_shape")[0].array
    if sizes is None:
        raise Uncountable("the shape of its weight is not a constant")
    return _of_shapes(left, tuple(int(size) for size in sizes.ravel()))


def _distances(call: Call) -> Work:
    """CDist by |a|^2 + |b|^2 - 2ab, as the runtime does: a product of all rows with all others."""
    (rows, depth), (others, _) = shaped(call, 0, "A")[1], shaped(call, 1, "B")[1]
    return product(rows, others, depth)


def _einsum(call: Call) -> Work:
    """Einsum: operands are contracted from left to right, as runtimes do.

    One step over two operands is a product for each combination of the labels of both: labels in both
    operands and in what remains are batch, labels in both only are depth (ONNX: Einsum).
    """
    equation = str(call.attributes.get("equation", "")).replace(" ", "")
    shapes = [shaped(call, index, "operand")[1] for index in range(len(call.inputs))]
    terms, output = _terms(equation, shapes)
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for label, size in zip(term, shape, strict=True):
            if sizes.setdefault(label, size) in (1, size):
                sizes[label] = size
            elif size != 1:
                raise Uncountable(f"the label {label} has sizes {sizes[label]} and {size}")
    if len(terms) == 1:
        # A sum over labels that do not remain, a transposition, or a diagonal.
        reduced = set(terms[0]) - set(output)
        return Work(flops=math.prod(sizes[label] for label in set(terms[0])) if reduced else 0)
    total = Work()
    held = terms[0]
    for index, term in enumerate(terms[1:], start=1):
        needed = set(output).union(*terms[index + 1 :])
        total = _added(total, _contraction(set(held), set(term), needed, sizes))
        held = "".join(sorted((set(held) | set(term)) & needed))
    return total


def _contraction(left: set[str], right: set[str], needed: set[str], sizes: dict[str, int]) -> Work:
    """One pairwise step; labels of one operand only that are not needed are summed beforehand."""

    def extent(labels: set[str]) -> int:
        return math.prod(sizes[label] for label in labels)

    both = left & right
    return product(
        extent((left - right) & needed),
        extent((right - left) & needed),
        extent(both - needed),
        extent(both & needed),
    )


def _added(total: Work, step: Work) -> Work:
    """The sum of two steps, with the shape of the larger product."""
    larger = step if step.flops >= total.flops else total
    return replace(
        larger,
        flops=total.flops + step.flops,
        multiply_accumulates=total.multiply_accumulates + step.multiply_accumulates,
    )


def _terms(equation: str, shapes: list[Shape]) -> tuple[list[str], str]:
    """Labels of each operand and of the result; an ellipsis becomes labels of its own, aligned right."""
    left, arrow, output = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise Uncountable(f"its equation {equation!r} is for {len(terms)} operands")
    expanded, widest = [], 0
    for term, shape in zip(terms, shapes, strict=True):
        count = len(shape) - len(term.replace("...", ""))
        if count < 0 or (count > 0 and "..." not in term):
            raise Uncountable(f"its equation {equation!r} does not fit {list(shape)}")
        widest = max(widest, count)
        # Labels that cannot occur in an equation, numbered from the right.
        expanded.append(term.replace("...", "".join(chr(0x2460 + i) for i in reversed(range(count)))))
    every = "".join(chr(0x2460 + i) for i in reversed(range(widest)))
    if not arrow:
        letters = left.replace(",", "").replace("...", "")
        output = every + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return expanded, output.replace("...", every)


def _determinant(call: Call) -> Work:
    """Det by elimination: 2/3 n^3 for each matrix."""
    _, shape = shaped(call, 0, "X")
    return Work(flops=math.prod(shape[:-2]) * 2 * shape[-1] ** 3 // 3)


def _inverse(call: Call) -> Work:
    """Inverse by elimination: 2 n^3 for each matrix."""
    _, shape = shaped(call, 0, "X")
    return Work(flops=math.prod(shape[:-2]) * 2 * shape[-1] ** 3)


RULES: Rules = {
    "MatMul": _matmul(0, 1),
    "MatMulInteger": _matmul(0, 1),
    "MatMulInteger16": _matmul(0, 1),
    "MatMulIntegerToFloat": _matmul(0, 1),
    "DynamicQuantizeMatMul": _matmul(0, 1),
    "QLinearMatMul": _matmul(0, 3),
    "QOrderedMatMul": _matmul(0, 2),
    "GemmFastGelu": _matmul(0, 1),
    "FusedMatMul": Rule(OperatorKind.MATMUL, _fused_matmul),
    "FusedMatMulActivation": Rule(OperatorKind.MATMUL, _fused_matmul),
    "SparseToDenseMatMul": Rule(OperatorKind.MATMUL, _fused_matmul),
    "TransposeMatMul": Rule(OperatorKind.MATMUL, _fused_matmul),
    "Gemm": _gemm(1),
    "FusedGemm": _gemm(1),
    "GemmFloat8": _gemm(1),
    "QGemm": _gemm(3),
    "MatMulNBits": _packed("N"),
    "MatMulBnb4": _packed("N"),
    "MatMulNBitsMlp": _packed("N", "N"),
    "MatMulNBitsQkv": _packed("Nq", "Nkv", "Nkv"),
    "MatMulFpQ4": Rule(OperatorKind.MATMUL, _packed_fp4),
    "CDist": Rule(OperatorKind.MATMUL, _distances),
    "Einsum": Rule(OperatorKind.MATMUL, _einsum),
    "Det": Rule(OperatorKind.OTHER, _determinant),
    "Inverse": Rule(OperatorKind.OTHER, _inverse),
}
