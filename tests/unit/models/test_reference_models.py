"""The profile of real exports agrees with what PyTorch and torchvision say of the same models."""

from __future__ import annotations

import math
from typing import Any

import onnx
import pytest

from tailwise.api.profile import Completeness, ModelProfile
from tailwise.models.graph import Skeleton
from tailwise.models.profile import build_profile
from tests.models import rehydrate

NAMES = rehydrate.names()

# What the exported graph lacks of the model that the reference was taken from, in FLOPs.
_NOT_IN_THE_GRAPH = {
    # The auxiliary classifier, which only training uses: 3 x 3 convolution 1024 -> 256 and 1 x 1 -> 21.
    "fcn_resnet50": 2 * 65 * 65 * (9 * 1024 * 256 + 256 * 21),
    # The pooler behind the last layer, whose result this export does not return.
    "bert_base_seq128": 2 * 768 * 768,
}


def profile_of(name: str, **options: Any) -> ModelProfile:
    return build_profile(Skeleton(rehydrate.skeleton(name), ""), **options)


@pytest.mark.parametrize("name", NAMES)
def test_convolution_and_matmul_flops_agree_with_the_reference(name: str) -> None:
    entry = rehydrate.reference()[name]
    kinds = profile_of(name).flops_by_kind
    counted = kinds.convolution + kinds.matmul + _NOT_IN_THE_GRAPH.get(name, 0)
    expected = entry["convolutionAndMatmulFlops"]
    if entry["source"].startswith("PyTorch"):
        assert counted == expected
    else:
        # torchvision states 10^9 multiply-accumulates with three decimals: half of the last one is open.
        assert abs(counted - expected) <= max(1e6, 0.001 * expected)


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_of_a_real_export_is_counted(name: str) -> None:
    profile = profile_of(name)
    assert profile.unresolved == ()
    assert profile.completeness is Completeness.COMPLETE
    assert profile.counted_percent == 100
    assert profile.flops == profile.flops_by_kind.total


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_what_the_file_holds(name: str) -> None:
    model = rehydrate.skeleton(name)
    floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    held = sum(math.prod(tensor.dims) for tensor in floats)
    profile = profile_of(name)
    assert profile.parameters == held
    assert profile.parameter_bytes == 4 * held
    assert profile.precision == "float32"


@pytest.mark.parametrize(
    "name", ["resnet50", "swin_t", "shufflenet_v2_x1_0", "efficientnet_b0", "densenet121"]
)
@pytest.mark.parametrize("batch", [2, 8])
def test_a_batch_costs_its_size_times_one_sample(name: str, batch: int) -> None:
    one, many = profile_of(name).flops_by_kind, profile_of(name, batch_size=batch).flops_by_kind
    assert many.convolution == batch * one.convolution
    assert many.matmul == batch * one.matmul
    assert many.activation == batch * one.activation


def test_detection_counts_operators_whose_size_depends_on_the_picture_at_their_largest() -> None:
    profile = profile_of("retinanet_resnet50_fpn")
    assert profile.operators["Conv"] == 111
    assert profile.operators["NonZero"] == 10
    assert profile.unresolved_count == 0
