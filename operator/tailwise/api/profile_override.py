"""A model's profile given by hand, field by field, for what cannot be read or counted."""

from __future__ import annotations

from pydantic import Field

from tailwise.api.document import Document
from tailwise.api.profile import FlopsByKind, ModelProfile, WorkTerms, intensity_milliflops_per_byte


class ProfileOverride(Document):
    """Figures that replace those counted from the graph; each is for one query of load.batchSize items."""

    flops: int | None = Field(
        None,
        ge=1,
        le=10**18,
        description="FLOPs of one query, two for each multiply-accumulate. With parameterBytes also given, "
        "the URL is not read at all.",
    )
    parameters: int | None = Field(None, ge=1, le=10**18, description="Number of parameters.")
    parameter_bytes: int | None = Field(
        None, ge=1, le=10**18, description="Bytes of the parameters as stored."
    )
    flops_by_kind: FlopsByKind | None = Field(
        None, description="FLOPs by kind of operator. Default: those counted, in proportion to flops."
    )
    multiply_accumulates: int | None = Field(
        None, ge=0, le=10**18, description="Multiply-accumulates of convolutions and products."
    )
    activation_bytes: int | None = Field(
        None, ge=0, le=10**18, description="Bytes of all intermediate results of one query."
    )
    moved_weight_bytes: int | None = Field(
        None, ge=0, le=10**18, description="Bytes of weights that all operators read in one query."
    )
    moved_activation_bytes: int | None = Field(
        None, ge=0, le=10**18, description="Bytes of activations that all operators read and write."
    )
    depth: int | None = Field(None, ge=0, le=10_000_000, description="Operators on the longest path.")
    precision: str | None = Field(
        None, min_length=1, max_length=32, description="Element type of the parameters, such as float16."
    )
    operator_count: int | None = Field(
        None, ge=1, le=10_000_000, description="Operators that the runtime calls for one query, after fusion."
    )
    work: WorkTerms | None = Field(
        None, description="The work by the terms of the physics prior. Default: all FLOPs count as dense."
    )

    @property
    def is_complete(self) -> bool:
        """Whether the graph need not be read: FLOPs and parameter bytes are enough for a prediction."""
        return self.flops is not None and self.parameter_bytes is not None

    def as_profile(self, batch_size: int) -> ModelProfile:
        """The profile these figures make without any graph; ValueError unless ``is_complete``."""
        if self.flops is None or self.parameter_bytes is None:
            raise ValueError("spec.model.profile needs flops and parameterBytes to do without the graph")
        unread = ModelProfile(
            flops=self.flops,
            flops_by_kind=FlopsByKind(other=self.flops),
            parameters=self.parameters or self.parameter_bytes // 4,
            parameter_bytes=self.parameter_bytes,
            batch_size=batch_size,
            work=WorkTerms(dense_flops=self.flops),
        )
        return self.over(unread)

    def over(self, profile: ModelProfile) -> ModelProfile:
        """``profile`` with the fields given here in the place of its own."""
        given = {name: value for name in _REPLACED if (value := getattr(self, name)) is not None}
        if self.flops_by_kind is not None:
            given.setdefault("flops", self.flops_by_kind.total)
        elif self.flops is not None:
            given["flops_by_kind"] = _in_proportion(profile.flops_by_kind, self.flops)
        made = profile.model_copy(update=given)
        work = self.work or _scaled(profile.work, profile.flops, given.get("flops"))
        if self.operator_count is not None:
            work = work.model_copy(update={"operator_count": self.operator_count})
        moved = made.moved_weight_bytes + made.moved_activation_bytes
        intensity = intensity_milliflops_per_byte(made.flops, moved)
        if not {"flops", "moved_weight_bytes", "moved_activation_bytes"} & given.keys():
            intensity = profile.arithmetic_intensity_milliflops_per_byte
        return made.model_copy(update={"work": work, "arithmetic_intensity_milliflops_per_byte": intensity})


_REPLACED = (
    "flops",
    "flops_by_kind",
    "multiply_accumulates",
    "parameters",
    "parameter_bytes",
    "activation_bytes",
    "moved_weight_bytes",
    "moved_activation_bytes",
    "depth",
    "precision",
)


def _in_proportion(counted: FlopsByKind, flops: int) -> FlopsByKind:
    """FLOPs given as a whole keep the shares of those counted; what rounding leaves is other."""
    total = counted.total
    if not total or total == flops:
        return counted if total == flops else FlopsByKind(other=flops)
    shares = {name: getattr(counted, name) * flops // total for name in FlopsByKind.model_fields}
    shares["other"] += flops - sum(shares.values())
    return FlopsByKind(**shares)


def _scaled(work: WorkTerms, counted_flops: int, given_flops: int | None) -> WorkTerms:
    """FLOPs given by hand keep the proportions of those counted; nothing counted makes them all dense."""
    if given_flops is None or given_flops == counted_flops:
        return work
    if counted_flops == 0:
        return work.model_copy(update={"dense_flops": given_flops})
    terms = [name for name in WorkTerms.model_fields if name.endswith("_flops")]
    return work.model_copy(
        update={name: getattr(work, name) * given_flops // counted_flops for name in terms}
    )
