"""What a counting rule is: an operator's kind, and a function from a call to its work."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tailwise.models.records import OperatorKind
from tailwise.models.tensors import Call, Shape, Tensor


class Uncountable(Exception):  # noqa: N818 -- a finding about an operator, not a fault
    """An operator cannot be counted; the text says why, for ``unresolved``."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a rule counts; the fields of the same names in ``OperatorRecord`` say what they mean."""

    flops: int = 0
    multiply_accumulates: int = 0
    groups: int = 1
    input_channels_per_group: int = 0
    output_channels_per_group: int = 0
    kernel_elements: int = 0
    rows: int = 0
    columns: int = 0
    depth: int = 0
    batch: int = 1
    transposed: bool = False
    recurrent: bool = False
    weight_bytes: int | None = None
    """Bytes of weights read where not all of the constant inputs are (a lookup)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How an operator is counted. ``view``: the result shares its input's memory, nothing is moved."""

    kind: OperatorKind
    work: Callable[[Call], Work]
    view: bool = False


Rules = dict[str, Rule]


def shaped(call: Call, index: int, what: str) -> tuple[Tensor, Shape]:
    """An input that a formula needs, with its shape; Uncountable when absent or of unknown shape."""
    tensor = call.input(index)
    if tensor is None:
        raise Uncountable(f"its input {index} ({what}) is missing")
    if tensor.shape is None:
        raise Uncountable(f"the shape of its input {index} ({what}) is not known")
    return tensor, tensor.shape


def result(call: Call, index: int = 0) -> tuple[Tensor, Shape]:
    """An output that a formula needs, with its shape."""
    tensor = call.output(index)
    if tensor is None or tensor.shape is None:
        raise Uncountable("the shape of its output is not known")
    return tensor, tensor.shape


def result_elements(call: Call) -> int:
    """Elements of the first output."""
    return math.prod(result(call)[1])


def nothing(_call: Call) -> Work:
    """Moves data, or not even that: no arithmetic."""
    return Work()


def product(rows: int, columns: int, depth: int, batch: int = 1, *, recurrent: bool = False) -> Work:
    """Work of ``batch`` matrix products; 2 x multiply-accumulates as in equation (2)."""
    accumulates = batch * rows * columns * depth
    return Work(
        flops=2 * accumulates,
        multiply_accumulates=accumulates,
        rows=rows,
        columns=columns,
        depth=depth,
        batch=batch,
        recurrent=recurrent,
    )


def per_result(flops: int) -> Callable[[Call], Work]:
    """A fixed number of FLOPs for each element of the result."""

    def work(call: Call) -> Work:
        return Work(flops=flops * result_elements(call))

    return work


def per_input(flops: int) -> Callable[[Call], Work]:
    """A fixed number of FLOPs for each element of the first input."""

    def work(call: Call) -> Work:
        return Work(flops=flops * math.prod(shaped(call, 0, "data")[1]))

    return work
