"""Which operators the runtime does within the operator before them.

After ONNX Runtime's graph optimisations for CPUs (its fusions Conv + BatchNormalization, Conv + Add +
activation, Gemm + activation, MatMul + Add): the second operator then costs nothing of its own, since the
result is still in registers when it is written.
"""

from __future__ import annotations

from enum import Enum

from tailwise.models.tensors import Call

_ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish"})


class Lead(Enum):
    """What ends in a tensor, and so what may still be taken in."""

    CONVOLUTION = "Convolution"
    SUMMED_CONVOLUTION = "SummedConvolution"
    GEMM = "Gemm"
    MATMUL = "Matmul"


_LEADS = {"Conv": Lead.CONVOLUTION, "Gemm": Lead.GEMM, "MatMul": Lead.MATMUL}


def lead_of(call: Call, before: list[Lead | None], *, sole_use: list[bool]) -> tuple[bool, Lead | None]:
    """Whether a call is done by the one before it, and what its own result can still take in.

    ``before`` is what ends in each input, ``sole_use`` whether that input is used here only.
    """
    op_type = call.op_type
    if op_type in _LEADS:
        return False, _LEADS[op_type]
    free = [lead if sole else None for lead, sole in zip(before, sole_use, strict=True)]
    first = free[0] if free else None
    if op_type == "BatchNormalization":
        return first is Lead.CONVOLUTION, first
    if op_type == "Add":
        return _addition(call, free)
    if op_type in _ACTIVATIONS:
        taken = first in (Lead.CONVOLUTION, Lead.SUMMED_CONVOLUTION, Lead.GEMM)
        return taken, None
    return False, None


def _addition(call: Call, free: list[Lead | None]) -> tuple[bool, Lead | None]:
    """An Add of a bias after a product, or of a second branch after a convolution."""
    tensors = [call.input(0), call.input(1)]
    if Lead.CONVOLUTION in free[:2]:
        same = all(t is not None and t.shape is not None for t in tensors)
        return same, Lead.SUMMED_CONVOLUTION if same else None
    if Lead.MATMUL in free[:2]:
        bias = tensors[1 - free.index(Lead.MATMUL)]
        fits = bias is not None and bias.constant and bias.shape is not None and len(bias.shape) <= 1
        return fits, Lead.GEMM if fits else None
    return False, None
