"""What was counted for one operator of a graph: the value that all later sums are made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class OperatorKind(StrEnum):
    """What sort of work an operator does; the keys of ``flopsByKind``, and data movement, which has none."""

    CONVOLUTION = "Convolution"
    MATMUL = "Matmul"
    ACTIVATION = "Activation"
    POOLING = "Pooling"
    NORMALIZATION = "Normalization"
    OTHER = "Other"
    DATA_MOVEMENT = "DataMovement"


@dataclass(frozen=True, slots=True)
class OperatorRecord:
    """One operator's work. Figures are for one execution; ``count`` is how often one inference runs it.

    ``flops`` is what equations (1) to (4) of the paper say for its kind: twice ``multiply_accumulates`` for
    convolutions and products. Channels and kernel describe convolutions; ``rows``, ``columns``, ``depth``
    and ``batch`` describe the matrix product that an operator is or (for convolutions) is equal to:
    ``batch`` independent products of a rows x depth with a depth x columns matrix, so that
    ``multiply_accumulates = batch * rows * columns * depth``. Weights are the inputs that do not change
    between inferences; their bytes are not among ``input_bytes``.
    """

    name: str
    op_type: str
    domain: str
    kind: OperatorKind
    flops: int = 0
    multiply_accumulates: int = 0
    weight_bytes: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    output_elements: int = 0
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
    fused_into_previous: bool = False
    """Done by the runtime in the operator before it (activation or addition after a convolution)."""
    constant: bool = False
    """Depends on weights and shapes only: the runtime folds it away, so one inference does not run it."""
    bounded: bool = False
    """Sizes depend on the data (detections, selections): the figures are the largest they can be."""
    count: int = 1
    """How often one inference executes it (trip count of loops around it)."""

    @property
    def activation_bytes(self) -> int:
        """Bytes of activations that one execution reads and writes."""
        return self.input_bytes + self.output_bytes

    @property
    def total_flops(self) -> int:
        """FLOPs of all executions of one inference; none for what the runtime folds away."""
        return 0 if self.constant else self.flops * self.count


@dataclass(frozen=True, slots=True)
class Conditional:
    """An If whose condition depends on the data: the FLOPs of both branches, and which is counted."""

    name: str
    then_flops: int
    else_flops: int
    counts_then: bool
