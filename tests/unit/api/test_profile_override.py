"""Figures given by hand replace those counted, field by field."""

import pytest

from tailwise.api.profile import FlopsByKind, ModelProfile, WorkTerms
from tailwise.api.profile_override import ProfileOverride

COUNTED = ModelProfile(
    flops=1_000,
    flops_by_kind=FlopsByKind(convolution=1_000),
    parameters=10,
    parameter_bytes=40,
    work=WorkTerms(dense_flops=600, depthwise_flops=400, operator_count=7),
)


def test_what_is_not_given_stays_as_counted() -> None:
    assert ProfileOverride().over(COUNTED) == COUNTED


def test_given_flops_keep_the_counted_proportions() -> None:
    profile = ProfileOverride(flops=2_000).over(COUNTED)
    assert (profile.flops, profile.work.dense_flops, profile.work.depthwise_flops) == (2_000, 1_200, 800)
    assert profile.work.operator_count == 7


def test_given_work_stands_as_it_is() -> None:
    work = WorkTerms(matmul_flops=5)
    assert ProfileOverride(flops=9, work=work, operator_count=3).over(COUNTED).work == WorkTerms(
        matmul_flops=5, operator_count=3
    )


def test_flops_and_parameter_bytes_need_no_graph() -> None:
    override = ProfileOverride(flops=2_000, parameter_bytes=400)
    profile = override.as_profile(batch_size=4)
    assert override.is_complete
    assert (profile.flops, profile.parameter_bytes, profile.batch_size) == (2_000, 400, 4)
    assert profile.work.dense_flops == 2_000


def test_flops_alone_need_the_graph_and_say_so() -> None:
    override = ProfileOverride(flops=2_000)
    assert not override.is_complete
    with pytest.raises(ValueError, match=r"spec\.model\.profile needs flops and parameterBytes"):
        override.as_profile(batch_size=1)


def test_given_flops_keep_the_shares_of_the_kinds_and_their_sum() -> None:
    counted = COUNTED.model_copy(update={"flops_by_kind": FlopsByKind(convolution=667, matmul=333)})
    kinds = ProfileOverride(flops=500).over(counted).flops_by_kind
    assert (kinds.convolution, kinds.matmul, kinds.total) == (333, 166, 500)
    given = FlopsByKind(matmul=300, other=4)
    profile = ProfileOverride(flops_by_kind=given).over(counted)
    assert (profile.flops, profile.flops_by_kind) == (304, given)


def test_every_figure_of_a_profile_can_be_given() -> None:
    override = ProfileOverride(
        flops=900,
        multiply_accumulates=450,
        parameters=3,
        parameter_bytes=6,
        activation_bytes=8,
        moved_weight_bytes=100,
        moved_activation_bytes=200,
        depth=9,
        precision="float16",
    )
    profile = override.over(COUNTED)
    for name, value in override.model_dump(by_alias=False, exclude_none=True).items():
        assert getattr(profile, name) == value
    assert profile.arithmetic_intensity_milliflops_per_byte == 3_000
    assert profile.arithmetic_intensity == 3.0
