"""Every hostile file ends in a clean error or a profile, within the child's limits."""

import resource
import time

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailwise.models.addresses import AddressPolicy
from tailwise.models.errors import InspectionCrashed, InspectionError
from tailwise.models.inspection import InspectionLimits, InspectionRequest, inspect
from tests.fuzz import hostile, target
from tests.models import rehydrate
from tests.models.store import Store, serving

# Less than an operator's child has, so that what would fill its memory does not fill the machine's.
LIMITS = InspectionLimits(cpu_seconds=30, wall_seconds=120.0)
SEEDS = ("decoder_convtranspose", "mlp_512_2048", "shufflenet_v2_x1_0")


@pytest.mark.parametrize("name", hostile.FILES)
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "whole"])
def test_a_hostile_file_ends_in_an_answer_of_the_child(name: str, ranges: bool) -> None:
    content = hostile.FILES[name]()
    assert len(content) < 50 * 2**20
    with serving(Store(files={"/m.onnx": content}, ranges=ranges)) as store:
        request = InspectionRequest(
            url=f"{store.url}/m.onnx",
            addresses=AddressPolicy(allow_local=True),
            allow_http=True,
            limits=LIMITS,
        )
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        began = time.monotonic()
        try:
            answer = inspect(request).completeness.value
        except InspectionCrashed as error:
            pytest.fail(f"the child gave no clean answer: {error}")
        except InspectionError as error:
            answer = error.reason
            assert error.field.startswith("spec.")
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used
        print(f"{name}: {answer} after {time.monotonic() - began:.1f} s, {used:.1f} s of CPU")
    assert answer != "InspectionTimeout"


_CONTENTS = [bytes(rehydrate.skeleton(name).SerializeToString()) for name in SEEDS] + [
    made()
    for name, made in hostile.FILES.items()
    if name not in ("many_tiny_fields", "long_names", "exploding_functions")
]


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_a_mutated_or_truncated_file_ends_in_a_profile_or_a_reason(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(_CONTENTS)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        match data.draw(st.sampled_from(["flip", "insert", "delete", "cut", "lie", "copy"])):
            case "flip":
                content[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
            case "insert":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=12))
            case "delete":
                del content[at : at + data.draw(st.integers(1, 40))]
            case "cut":
                del content[at:]
            case "lie":
                content[at : at + 1] = hostile.varint(data.draw(st.integers(0, 2**63)))
            case _:
                content[at:at] = content[at : at + data.draw(st.integers(1, 200))]
    assert target.inspected(bytes(content))


_DIMENSIONS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-2, 5))


_KINDS = [
    "Conv",
    "MatMul",
    "Gemm",
    "Reshape",
    "Gather",
    "Loop",
    "If",
    "LSTM",
    "Resize",
    "Concat",
    "Slice",
    "Einsum",
    "Pad",
    "ConvTranspose",
    "Expand",
    "TopK",
    "Split",
    "Squeeze",
    "Scan",
    "NonZero",
    "OneHot",
    "Nonsense",
]


@st.composite
def _graphs(draw: st.DrawFn) -> bytes:
    """Well-formed messages with nonsense in them."""
    names = st.sampled_from(["x", "y", "w", "a", "b", ""])
    kinds = st.sampled_from(_KINDS)
    nodes = []
    for _ in range(draw(st.integers(1, 6))):
        node = onnx.NodeProto(
            op_type=draw(kinds),
            input=draw(st.lists(names, max_size=5)),
            output=draw(st.lists(names, max_size=3)),
        )
        for key in draw(
            st.lists(
                st.sampled_from(["axis", "axes", "perm", "pads", "group", "equation", "kernel_shape"]),
                max_size=3,
            )
        ):
            value = draw(
                st.one_of(_DIMENSIONS, st.lists(_DIMENSIONS, min_size=1, max_size=5), st.text(max_size=8))
            )
            node.attribute.append(onnx.helper.make_attribute(key, value))
        nodes.append(node)
    weights = [
        onnx.TensorProto(
            name=draw(names), data_type=draw(st.integers(0, 30)), dims=draw(st.lists(_DIMENSIONS, max_size=5))
        )
        for _ in range(draw(st.integers(0, 3)))
    ]
    shape = draw(st.lists(_DIMENSIONS, max_size=5))
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, shape)],
        [onnx.ValueInfoProto(name="y")],
        weights,
    )
    return hostile.model(graph)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(_graphs())
def test_a_graph_of_nonsense_ends_in_a_profile_or_a_reason(content: bytes) -> None:
    assert target.inspected(content)
