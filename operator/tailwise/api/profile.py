"""A model's profile: what one inference of it costs, counted from its graph alone.

All figures are for one inference at ``batch_size``; FLOPs follow equations (1) to (5) of the paper, two
for each multiply-accumulate. ``tailwise inspect --output json`` prints exactly this document.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from tailwise.api.document import Document, StatusDocument

MOST_OPERATORS_LISTED = 16_384
"""More than real graphs have; a status lists ten."""


class Completeness(StrEnum):
    """Whether every operator of the graph could be counted."""

    COMPLETE = "Complete"
    PARTIAL = "Partial"


class FlopsByKind(Document):
    """FLOPs of one inference by the kind of operator that spends them."""

    convolution: int = Field(0, ge=0, description="Convolutions, equation (1): 2 x multiply-accumulates.")
    matmul: int = Field(0, ge=0, description="Fully connected and matrix products, equation (2).")
    activation: int = Field(0, ge=0, description="Activations, equation (3): one for each neuron.")
    pooling: int = Field(0, ge=0, description="Pooling, equation (4): H x W x C of the output.")
    normalization: int = Field(0, ge=0, description="Batch, layer, group and instance normalisation.")
    other: int = Field(
        0, ge=0, description="Everything else that computes: element-wise, reductions, softmax."
    )

    @property
    def total(self) -> int:
        """The sum over kinds, equation (5)."""
        return (
            self.convolution + self.matmul + self.activation + self.pooling + self.normalization + self.other
        )


class UnresolvedOperator(Document):
    """An operator that could not be counted, and why; it is never counted as zero in silence."""

    node: str = Field(max_length=253, description="The operator's name in the graph.")
    operator: str = Field(max_length=128, description="Its type, with the domain when not the default one.")
    reason: str = Field(max_length=512, description="Why it could not be counted.")


class KindCost(StatusDocument):
    """What all operators of one kind cost, as the graph has them: nothing is fused yet."""

    operators: int = Field(0, ge=0, description="How many operators one inference executes.")
    flops: int = Field(0, ge=0, description="Their FLOPs.")
    weight_bytes: int = Field(0, ge=0, description="Bytes of weights they read.")
    activation_bytes: int = Field(0, ge=0, description="Bytes of activations they read and write.")


class OperatorCost(StatusDocument):
    """What one operator costs in one inference, all its executions together."""

    node: str = Field(max_length=253, description="The operator's name in the graph.")
    operator: str = Field(max_length=128, description="Its type, with the domain when not the default one.")
    kind: str = Field(max_length=32, description="Its kind, as in kinds.")
    executions: int = Field(1, ge=0, description="How often one inference executes it (loops).")
    flops: int = Field(0, ge=0, description="Its FLOPs.")
    weight_bytes: int = Field(0, ge=0, description="Bytes of weights it reads.")
    activation_bytes: int = Field(0, ge=0, description="Bytes of activations it reads and writes.")
    upper_bound: bool = Field(False, description="Sizes depend on the data; these are the largest possible.")


class ConditionalCost(StatusDocument):
    """The two branches of an If whose condition depends on the data: the dearer one is counted."""

    node: str = Field(max_length=253, description="The If's name in the graph.")
    then_flops: int = Field(ge=0, description="FLOPs of its then branch.")
    else_flops: int = Field(ge=0, description="FLOPs of its else branch.")
    counted: str = Field(max_length=4, description="Which one is in the profile: Then or Else.")


class WorkTerms(Document):
    """What the runtime has to do for one inference, by terms that cost differently a unit.

    These are the regressors of the prior: FLOPs of different kinds run at different speeds, small
    operators pay a fixed price, and matrix-vector products are bound by reading their weights.
    """

    dense_flops: int = Field(
        0, ge=0, description="FLOPs of convolutions with one group, channels padded to blocks of 16."
    )
    matmul_flops: int = Field(0, ge=0, description="FLOPs of matrix products with many rows.")
    depthwise_flops: int = Field(0, ge=0, description="FLOPs of convolutions with one channel a group.")
    grouped_flops: int = Field(
        0, ge=0, description="FLOPs of grouped convolutions with whole blocks of 16 channels a group."
    )
    unblocked_grouped_flops: int = Field(
        0, ge=0, description="FLOPs of other grouped convolutions, 16 channels a group or more."
    )
    narrow_grouped_flops: int = Field(
        0, ge=0, description="FLOPs of grouped convolutions with 6 to 15 channels a group."
    )
    thin_grouped_flops: int = Field(
        0, ge=0, description="FLOPs of grouped convolutions with 2 to 5 channels a group."
    )
    transposed_flops: int = Field(0, ge=0, description="FLOPs of transposed convolutions.")
    recurrent_flops: int = Field(0, ge=0, description="FLOPs of RNN, GRU and LSTM.")
    quantised_flops: int = Field(0, ge=0, description="FLOPs of products of 8-bit integers.")
    matrix_vector_bytes: int = Field(0, ge=0, description="Weight bytes read by products with few rows.")
    weight_bytes: int = Field(0, ge=0, description="Weight bytes read by all other products.")
    convolution_bytes: int = Field(0, ge=0, description="Activation bytes in and out of convolutions.")
    product_bytes: int = Field(0, ge=0, description="Activation bytes in and out of matrix products.")
    elementwise_elements: int = Field(
        0, ge=0, description="Output elements of operators the runtime does not fuse, unless named below."
    )
    transcendental_elements: int = Field(
        0, ge=0, description="Output elements of exponentials and their kin."
    )
    normalised_elements: int = Field(0, ge=0, description="Output elements of layer and group normalisation.")
    resized_elements: int = Field(0, ge=0, description="Output elements of Resize.")
    transposed_elements: int = Field(0, ge=0, description="Output elements of Transpose.")
    copied_elements: int = Field(0, ge=0, description="Output elements of other data movement.")
    pooling_operations: int = Field(0, ge=0, description="Output elements of pooling x its window.")
    moved_bytes: int = Field(
        0, ge=0, description="Bytes of activations read and written by operators not fused."
    )
    operator_count: int = Field(0, ge=0, description="Operators that the runtime calls after fusion.")


class ModelProfile(StatusDocument):
    """What one inference of a model costs."""

    flops: int = Field(ge=0, description="FLOPs of one inference, equation (5).")
    flops_by_kind: FlopsByKind = Field(description="The same, by kind of operator.")
    multiply_accumulates: int = Field(
        0, ge=0, description="Multiply-accumulates of convolutions and products."
    )
    parameters: int = Field(ge=0, description="Number of parameters.")
    parameter_bytes: int = Field(ge=0, description="Bytes of the parameters as they are stored.")
    activation_bytes: int = Field(0, ge=0, description="Bytes of all intermediate results of one inference.")
    moved_weight_bytes: int = Field(
        0, ge=0, description="Bytes of weights that all operators read in one inference."
    )
    moved_activation_bytes: int = Field(
        0, ge=0, description="Bytes of activations that all operators read and write in one inference."
    )
    arithmetic_intensity_milliflops_per_byte: int = Field(
        0, ge=0, description="FLOPs for each byte of weights and activations moved, in thousandths."
    )
    file_bytes: int = Field(
        0, ge=0, description="Size of the model's file, external data included where known."
    )
    bytes_read: int = Field(0, ge=0, description="Bytes that were read to make this profile.")
    operators: dict[str, int] = Field(
        default_factory=dict, max_length=512, description="Operator counts by type."
    )
    kinds: dict[str, KindCost] = Field(
        default_factory=dict,
        max_length=8,
        description="Operators, FLOPs and bytes moved by kind: those of flopsByKind, and dataMovement.",
    )
    heaviest: tuple[OperatorCost, ...] = Field(
        default=(),
        max_length=MOST_OPERATORS_LISTED,
        description="The operators with the most FLOPs, then with the most bytes moved; ten in a status.",
        json_schema_extra={"x-kubernetes-list-type": "atomic", "maxItems": 16},
    )
    conditionals: tuple[ConditionalCost, ...] = Field(
        default=(),
        max_length=16,
        description="Ifs whose branch depends on the data, with the FLOPs of both (the first 16).",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    unresolved: tuple[UnresolvedOperator, ...] = Field(
        default=(),
        max_length=64,
        description="Operators that could not be counted (the first 64).",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    unresolved_count: int = Field(
        0, ge=0, description="How many operators could not be counted, listed or not."
    )
    counted_percent: int = Field(100, ge=0, le=100, description="Share of the operators that were counted.")
    completeness: Completeness = Field(Completeness.COMPLETE, description="Partial when any is unresolved.")
    depth: int = Field(0, ge=0, description="Operators on the longest path through the graph.")
    precision: str = Field("float32", max_length=32, description="Element type of most parameter bytes.")
    batch_size: int = Field(1, ge=1, description="Batch size all figures are for.")
    opset: int = Field(0, ge=0, description="Version of the default operator set.")
    digest: str = Field(
        "", max_length=200, description="sha256 of the file where read whole, else the store's own."
    )
    digest_source: str = Field("", max_length=64, description="What digest is: Sha256, ETag, or GraphSha256.")
    work: WorkTerms = Field(default_factory=WorkTerms, description="The same work by the prior's terms.")

    @property
    def arithmetic_intensity(self) -> float:
        """FLOPs for each byte moved between memory and cores, before fusion (Williams et al. 2009)."""
        return self.arithmetic_intensity_milliflops_per_byte / 1000

    @property
    def parameter_mebibytes(self) -> float:
        """Model size M of the paper, in MiB (ResNet-50 float32: 97.5)."""
        return self.parameter_bytes / 2**20


def intensity_milliflops_per_byte(flops: int, moved_bytes: int) -> int:
    """Arithmetic intensity of the roofline model (Williams et al. 2009): FLOPs / bytes, in thousandths."""
    return 1000 * flops // moved_bytes if moved_bytes else 0
