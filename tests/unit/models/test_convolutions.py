"""Convolutions of every kind cost what their definition multiplies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from tailwise.api.profile import Completeness
from tests.unit.models import definitions
from tests.unit.models.brute_force import (
    assert_counted_as_executed,
    integers,
    referred,
    run,
    unchecked,
    values,
)
from tests.unit.models.counting import counting
from tests.unit.models.graphs import MICROSOFT, model, node, profile, records, zeros

SETTINGS = settings(max_examples=25, deadline=None)


@dataclass(frozen=True)
class Layer:
    """Sizes and attributes of a random convolution whose input is no smaller than its kernel."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    strides: list[int]
    dilations: list[int]
    pads: list[int]
    group: int
    auto_pad: str = "NOTSET"

    @property
    def attributes(self) -> dict[str, Any]:
        """As the node has them."""
        chosen: dict[str, Any] = {"group": self.group, "strides": self.strides, "dilations": self.dilations}
        if self.auto_pad == "NOTSET":
            return {**chosen, "pads": self.pads}
        return {**chosen, "auto_pad": self.auto_pad}

    def defined(self, x: Any, w: Any) -> Any:
        """What the definition makes of an image and filters."""
        pads = self.pads
        if self.auto_pad != "NOTSET":
            sizes = (self.x[2:], self.w[2:], self.strides, self.dilations)
            pads = definitions.automatic_pads(*sizes, self.auto_pad)
        return definitions.convolution(x, w, self.strides, self.dilations, pads, self.group)


@st.composite
def layers(draw: st.DrawFn, dims: int | None = None, auto: bool = True) -> Layer:
    rank = draw(st.integers(1, 3)) if dims is None else dims
    group, per_group, out_per_group = draw(st.tuples(*[st.integers(1, 3)] * 3))
    kernel = [draw(st.integers(1, 3 if rank < 3 else 2)) for _ in range(rank)]
    dilations = [draw(st.integers(1, 2)) for _ in range(rank)]
    strides = [draw(st.integers(1, 3)) for _ in range(rank)]
    most = 8 if rank < 3 else 5
    size = [draw(st.integers((width - 1) * 2 + 1, most)) for width in kernel]
    mode = draw(
        st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"] if auto else ["NOTSET"])
    )
    return Layer(
        x=(draw(st.integers(1, 2)), group * per_group, *size),
        w=(group * out_per_group, per_group, *kernel),
        strides=strides,
        # The runtime refuses automatic padding of dilated filters, and what cannot run costs nothing.
        dilations=[1] * rank if mode != "NOTSET" else dilations,
        pads=[draw(st.integers(0, 2)) for _ in range(2 * rank)],
        group=group,
        auto_pad=mode,
    )


@SETTINGS
@given(layers())
def test_a_convolution_in_any_dimensions_costs_what_it_multiplies(layer: Layer) -> None:
    x, w = values(*layer.x), values(*layer.w)
    made = model([node("Conv", ["x", "w"], ["y"], **layer.attributes)], {"x": layer.x}, {"w": w})
    assert_counted_as_executed(made, {"x": x}, lambda: layer.defined(x, w))
    (record,) = records(made)
    assert record.batch * record.rows * record.columns * record.depth == record.multiply_accumulates
    assert record.groups == layer.group


@SETTINGS
@given(layers(), st.lists(st.integers(0, 1), min_size=6, max_size=6))
def test_a_transposed_convolution_costs_what_it_multiplies(layer: Layer, pads: list[int]) -> None:
    channels = layer.w[0]
    x = values(layer.x[0], channels, *layer.x[2:])
    w = values(channels, *layer.w[1:])
    rank = len(layer.strides)
    # No more is cut off than there is.
    cut = [min(pads[i], (layer.w[2 + i % rank] - 1) // 2) for i in range(2 * rank)]
    attributes: dict[str, Any] = {
        "group": layer.group,
        "strides": layer.strides,
        "dilations": layer.dilations,
        "pads": cut,
    }
    made = model([node("ConvTranspose", ["x", "w"], ["y"], **attributes)], {"x": x.shape}, {"w": w})

    def defined() -> Any:
        sizes = (layer.strides, layer.dilations, cut, layer.group)
        return definitions.transposed_convolution(x, w, *sizes)

    assert_counted_as_executed(made, {"x": x}, defined)
    assert records(made)[0].transposed


@SETTINGS
@given(layers(dims=2))
def test_a_convolution_of_integers_costs_as_one_of_floats(layer: Layer) -> None:
    x, w = integers(*layer.x), integers(*layer.w)
    made = model(
        [node("ConvInteger", ["x", "w"], ["y"], **layer.attributes)],
        {"x": layer.x},
        {"w": w},
        types={"x": TensorProto.UINT8, "y": TensorProto.INT32},
    )
    by = referred if layer.auto_pad == "NOTSET" else unchecked
    assert_counted_as_executed(made, {"x": x}, lambda: layer.defined(x, w), by=by)


@SETTINGS
@given(layers(dims=2))
def test_a_quantised_convolution_costs_as_the_one_it_quantises(layer: Layer) -> None:
    x, w = integers(*layer.x, most=4), integers(*layer.w, most=4)
    one = {"s": np.array(1, np.float32), "z": np.array(0, np.uint8), "w": w}
    made = model(
        [node("QLinearConv", ["x", "s", "z", "w", "s", "z", "s", "z"], ["y"], **layer.attributes)],
        {"x": layer.x},
        one,
        types={"x": TensorProto.UINT8, "y": TensorProto.UINT8},
    )
    assert_counted_as_executed(made, {"x": x}, lambda: np.clip(layer.defined(x, w), 0, 255))


@SETTINGS
@given(layers(dims=2, auto=False))
def test_a_deformable_convolution_costs_what_it_multiplies(layer: Layer) -> None:
    w_shape = (layer.w[0], layer.x[1], *layer.w[2:])
    sizes = [
        (size + layer.pads[i] + layer.pads[i + 2] - (width - 1) * dilation - 1) // stride + 1
        for i, (size, width, stride, dilation) in enumerate(
            zip(layer.x[2:], layer.w[2:], layer.strides, layer.dilations, strict=True)
        )
    ]
    x, w = values(*layer.x), values(*w_shape)
    offset = values(layer.x[0], 2 * w.shape[2] * w.shape[3], *sizes)
    made = model(
        [
            node(
                "DeformConv",
                ["x", "w", "o"],
                ["y"],
                strides=layer.strides,
                dilations=layer.dilations,
                pads=layer.pads,
            )
        ],
        {"x": layer.x, "o": offset.shape},
        {"w": w},
        opset=19,
    )
    (record,) = records(made)
    with counting() as tally:
        definitions.deformed_convolution(x, w, offset, layer.strides, layer.dilations, layer.pads)
    assert record.multiply_accumulates == tally.products
    assert record.flops > 2 * record.multiply_accumulates, "looking between the pixels costs too"


@SETTINGS
@given(batch=st.integers(1, 2), channels=st.integers(1, 4), steps=st.integers(1, 6), kernel=st.integers(1, 4))
def test_a_causal_convolution_costs_what_it_multiplies(
    batch: int, channels: int, steps: int, kernel: int
) -> None:
    x, w = values(batch, channels, steps), values(channels, 1, kernel)
    made = model(
        [node("CausalConvWithState", ["x", "w"], ["y", "state"])], {"x": x.shape}, {"w": w}, opset=27
    )
    assert_counted_as_executed(
        made,
        {"x": x},
        lambda: definitions.convolution(x, w, [1], [1], [kernel - 1, 0], channels),
        by=referred,
    )


@pytest.mark.parametrize("op_type", ["FusedConv", "NhwcConv", "NhwcFusedConv"])
def test_convolutions_the_runtime_makes_cost_as_the_ones_they_replace(op_type: str) -> None:
    x, w = values(2, 3, 6, 7), values(4, 3, 3, 3)
    last = op_type.startswith("Nhwc")
    given_x = np.moveaxis(x, 1, -1) if last else x
    attributes: dict[str, Any] = {"pads": [1, 1, 1, 1]}
    if op_type != "NhwcConv":
        attributes["activation"] = "Relu"
    made = model(
        [node(op_type, ["x", "w"], ["y"], domain=MICROSOFT, **attributes)], {"x": given_x.shape}, {"w": w}
    )

    def defined() -> Any:
        result = definitions.convolution(x, w, [1, 1], [1, 1], [1, 1, 1, 1])
        result = result if op_type == "NhwcConv" else np.maximum(result, 0)
        return np.moveaxis(result, 1, -1) if last else result

    by = run if op_type == "FusedConv" else unchecked
    assert_counted_as_executed(made, {"x": given_x}, defined, by=by)


def test_a_quantised_transposed_convolution_costs_as_the_one_it_quantises() -> None:
    x, w = integers(1, 3, 4, 4, most=4), integers(3, 2, 3, 3, most=4)
    weights = {"s": np.array(1, np.float32), "z": np.array(0, np.uint8), "w": w}
    made = model(
        [
            node(
                "QLinearConvTranspose",
                ["x", "s", "z", "w", "s", "z", "s", "z"],
                ["y"],
                domain=MICROSOFT,
                strides=[2, 2],
            )
        ],
        {"x": x.shape},
        weights,
        types={"x": TensorProto.UINT8},
    )
    defined = definitions.transposed_convolution
    assert_counted_as_executed(
        made, {"x": x}, lambda: defined(x, w, [2, 2], [1, 1], [0, 0, 0, 0]), by=unchecked
    )


def test_a_transposed_convolution_with_pads_from_an_input_costs_the_same() -> None:
    x, w = values(1, 3, 4, 4), values(3, 2, 3, 3)
    pads = {"w": w, "pads": np.array([1, 0, 1, 1], np.int64)}
    made = model(
        [node("ConvTransposeWithDynamicPads", ["x", "w", "pads"], ["y"], domain=MICROSOFT, strides=[2, 2])],
        {"x": x.shape},
        pads,
    )
    defined = definitions.transposed_convolution
    assert_counted_as_executed(made, {"x": x}, lambda: defined(x, w, [2, 2], [1, 1], [1, 0, 1, 1]))


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 15, 18, 20, 22, 23, onnx.defs.onnx_opset_version()])
def test_a_convolution_counts_the_same_in_every_operator_set(opset: int) -> None:
    nodes = [node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["y"])]
    made = model(nodes, {"x": ("batch", 3, 8, 8)}, {"w": zeros(4, 3, 3, 3)}, opset=opset)
    assert profile(made, 2).flops_by_kind.convolution == 2 * 2 * 4 * 64 * 27


def test_a_convolution_on_too_small_an_input_is_not_a_silent_zero() -> None:
    found = profile(model([node("Conv", ["x", "w"], ["y"])], {"x": (1, 1, 2, 2)}, {"w": zeros(1, 1, 3, 3)}))
    assert found.completeness is Completeness.PARTIAL
