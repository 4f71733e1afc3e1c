"""The profile of real exports agrees with what PyTorch and torchvision say of the same models."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from tailwise.api.profile import Completeness, ModelProfile
from tailwise.models.graph import Skeleton
from tailwise.models.profile import build_profile
from tests.models import rehydrate
from tests.models.dynamic_batch import is_dynamic, with_dynamic_batch
from tests.unit.models.brute_force import run, values

NAMES = rehydrate.names()

# What the exported graph lacks of the model that the reference was taken from, in FLOPs.
NOT_IN_THE_GRAPH = {
    # The auxiliary classifier, which only training uses: 3 x 3 convolution 1024 -> 256 and 1 x 1 -> 21.
    "fcn_resnet50": 2 * 65 * 65 * (9 * 1024 * 256 + 256 * 21),
    # The pooler behind the last layer, whose result this export does not return.
    "bert_base_seq128": 2 * 768 * 768,
}

# Convolution and matmul FLOPs and parameters, as counted from each file.
COUNTED = {
    "bert_base_seq128": (22_347_251_712, 108_808_707),
    "decoder_convtranspose": (89_128_960, 36_739),
    "densenet121": (5_668_323_328, 7_928_936),
    "distilbert_seq128": (11_173_625_856, 66_321_411),
    "efficientnet_b0": (771_629_504, 5_242_196),
    "fcn_resnet50": (285_451_545_600, 32_906_901),
    "inception_v3": (11_426_432_192, 23_802_088),
    "mlp_512_2048": (10_526_720, 5_267_466),
    "mobilenet_v2": (601_548_544, 3_475_008),
    "mobilenet_v3_small": (113_020_800, 2_529_712),
    "resnet18": (3_628_146_688, 11_680_872),
    "resnet50": (8_178_368_512, 25_507_944),
    "retinanet_resnet50_fpn": (303_080_874_496, 34_014_935),
    "shufflenet_v2_x1_0": (289_815_984, 2_263_878),
    "squeezenet1_1": (698_303_872, 1_233_288),
    "swin_t": (8_981_133_312, 28_545_202),
    "vgg16": (30_940_528_640, 138_350_184),
    "vit_b_16": (35_127_656_448, 86_519_809),
}


@functools.cache
def profile_of(name: str, batch_size: int | None = None) -> ModelProfile:
    return build_profile(Skeleton(rehydrate.skeleton(name), ""), batch_size=batch_size)


def counted_flops(profile: ModelProfile) -> int:
    return profile.flops_by_kind.convolution + profile.flops_by_kind.matmul


@pytest.mark.parametrize("name", NAMES)
def test_convolution_and_matmul_flops_agree_with_the_reference(name: str) -> None:
    entry = rehydrate.reference()[name]
    counted = counted_flops(profile_of(name)) + NOT_IN_THE_GRAPH.get(name, 0)
    expected = entry["convolutionAndMatmulFlops"]
    if entry["source"].startswith("PyTorch"):
        assert counted == expected
    else:
        # torchvision states 10^9 multiply-accumulates with three decimals: half of the last one is open.
        assert abs(counted - expected) <= max(1e6, 0.001 * expected)


@pytest.mark.parametrize("name", NAMES)
def test_convolution_and_matmul_flops_are_within_one_per_cent_of_the_reference(name: str) -> None:
    expected = rehydrate.reference()[name]["convolutionAndMatmulFlops"] - NOT_IN_THE_GRAPH.get(name, 0)
    assert counted_flops(profile_of(name)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_a_real_export_is_counted_the_same_for_ever(name: str) -> None:
    profile = profile_of(name)
    assert (counted_flops(profile), profile.parameters) == COUNTED[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_of_a_real_export_is_counted(name: str) -> None:
    profile = profile_of(name)
    assert profile.unresolved == ()
    assert profile.completeness is Completeness.COMPLETE
    assert profile.counted_percent == 100
    assert profile.flops == profile.flops_by_kind.total
    assert profile.flops == sum(cost.flops for cost in profile.kinds.values())
    assert 2 * profile.multiply_accumulates == counted_flops(profile)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_what_the_file_holds(name: str) -> None:
    model = rehydrate.skeleton(name)
    floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    held = sum(math.prod(tensor.dims) for tensor in floats)
    profile = profile_of(name)
    assert profile.parameters == held
    assert profile.parameter_bytes == 4 * held
    assert profile.precision == "float32"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [2, 7])
def test_a_batch_costs_its_size_times_one_sample(name: str, batch: int) -> None:
    model = with_dynamic_batch(rehydrate.skeleton(name))
    assert is_dynamic(model)
    one, many = build_profile(Skeleton(model, "")), build_profile(Skeleton(model, ""), batch_size=batch)
    assert many.unresolved == one.unresolved == ()
    assert many.flops == batch * one.flops
    assert many.multiply_accumulates == batch * one.multiply_accumulates
    for kind in ("convolution", "matmul", "activation", "pooling", "normalization", "other"):
        assert getattr(many.flops_by_kind, kind) == batch * getattr(one.flops_by_kind, kind)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "retinanet_resnet50_fpn"])
def test_a_free_batch_axis_changes_nothing_at_one_sample(name: str) -> None:
    dynamic = with_dynamic_batch(rehydrate.skeleton(name))
    assert build_profile(Skeleton(dynamic, "")).flops_by_kind == profile_of(name).flops_by_kind


@pytest.mark.parametrize("name", ["mlp_512_2048", "decoder_convtranspose"])
def test_a_dynamic_batch_export_gives_each_sample_the_result_it_has_alone(name: str) -> None:
    fixed = rehydrate.rehydrated(name)
    dynamic = with_dynamic_batch(rehydrate.rehydrated(name))
    shape = [dim.dim_value for dim in fixed.graph.input[0].type.tensor_type.shape.dim]
    x = values(2, *shape[1:])
    both = run(dynamic, {"x": x})
    for index in range(2):
        alone = run(fixed, {"x": x[index : index + 1]})
        np.testing.assert_allclose(both[index : index + 1], alone, rtol=1e-3, atol=1e-4)


def test_detection_counts_operators_whose_size_depends_on_the_picture_at_their_largest() -> None:
    profile = profile_of("retinanet_resnet50_fpn")
    assert profile.operators["Conv"] == 111
    assert profile.operators["NonZero"] == 10
    assert profile.unresolved_count == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_document_of_model_profiles_states_what_is_counted(name: str) -> None:
    text = (Path(__file__).parents[3] / "docs" / "model-profiles.md").read_text()
    flops, _ = COUNTED[name]
    assert re.search(rf"^\| {name} \| [0-9.]+ \| {flops:,} \|", text, re.MULTILINE)
