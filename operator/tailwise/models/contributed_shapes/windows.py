"""Shapes of contributed convolutions and pooling: they infer as the operator they are made of.

Some keep channels last; their images are turned to ONNX's order for the inference, and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx

from tailwise.models.contributed_shapes.rule import ShapeRule, ShapeRules, made, required
from tailwise.models.tensors import Call, Shape, Tensor, Value

_ATTRIBUTES = frozenset(
    {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides", "output_padding", "output_shape"}
    | {"ceil_mode", "count_include_pad"}
)


def channels_first(call: Call, shape: Shape) -> Shape:
    """The shape in ONNX's order, [N, C, ...], whatever order the operator keeps."""
    return (shape[0], shape[-1], *shape[1:-1]) if _channels_last(call) else shape


def _channels_last(call: Call) -> bool:
    return call.op_type.startswith("Nhwc") or bool(call.attributes.get("channels_last"))


def _as(standard: str, *others: int) -> ShapeRule:
    """Inferred as a standard operator, with these inputs after the image."""

    def rule(call: Call) -> Sequence[Value | None]:
        tensor, shape = required(call, 0)
        shapes = [channels_first(call, shape), *(required(call, index)[1] for index in others)]
        out = _inferred(call, standard, shapes)
        if _channels_last(call):
            out = (out[0], *out[2:], out[1])
        return [made(tensor, out)]

    return rule


def _inferred(call: Call, standard: str, shapes: Sequence[Shape]) -> Shape:
    """What ONNX's inference says of the standard operator with these attributes."""
    node = onnx.NodeProto(op_type=standard, output=["y"], input=[f"i{n}" for n in range(len(shapes))])
    known = onnx.defs.get_schema(standard, 11, "")
    node.attribute.extend(a for a in call.node.attribute if a.name in _ATTRIBUTES & set(known.attributes))
    types = {
        name: onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, shape)
        for name, shape in zip(node.input, shapes, strict=True)
    }
    dims = onnx.shape_inference.infer_node_outputs(known, node, types)["y"].tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims)


def _cut(call: Call) -> Sequence[Value | None]:
    """ConvTransposeWithDynamicPads: what its third input says is cut off; nothing when that is not known."""
    (whole,) = _as("ConvTranspose", 1)(call)
    pads = call.input(2)
    if not isinstance(whole, Tensor) or whole.shape is None or pads is None:
        return [whole]
    if pads.array is None:
        return [replace(whole, bounded=True)]
    axes, cut = len(whole.shape) - 2, [int(pad) for pad in pads.array.ravel()]
    sizes = [size - cut[axis] - cut[axis + axes] for axis, size in enumerate(whole.shape[2:])]
    return [made(whole, (*whole.shape[:2], *sizes))]


def _global_pool(call: Call) -> Sequence[Value | None]:
    tensor, shape = required(call, 0)
    if _channels_last(call):
        return [made(tensor, (shape[0], *(1 for _ in shape[1:-1]), shape[-1]))]
    return [made(tensor, (*shape[:2], *(1 for _ in shape[2:])))]


def _reordered(call: Call) -> Sequence[Value | None]:
    """ReorderOutput gives back as many channels as there were; ReorderInput pads to whole blocks of 8."""
    tensor, shape = required(call, 0)
    first = channels_first(call, shape)
    if call.op_type == "ReorderOutput":
        out = (first[0], call.attributes["channels"], *first[2:])
        return [made(tensor, (out[0], *out[2:], out[1]) if call.attributes.get("channels_last") else out)]
    return [made(tensor, (first[0], -(-first[1] // 8) * 8, *first[2:]))]


def _upsampled(call: Call) -> Sequence[Value | None]:
    tensor, shape = required(call, 0)
    scales = call.attributes["scales"]
    return [made(tensor, [size * scale for size, scale in zip(shape, scales, strict=True)])]


def _cropped(call: Call) -> Sequence[Value | None]:
    """CropAndResize: one image of the asked size for each region."""
    tensor, shape = required(call, 0)
    regions, size = required(call, 1)[1][0], required(call, 3)[0].array
    if size is None:
        raise ValueError("the size of the crops is not known")
    return [made(tensor, (regions, shape[1], *size.ravel()))]


def _with_indices(call: Call) -> Sequence[Value | None]:
    (pooled,) = _as("MaxPool")(call)
    if not isinstance(pooled, Tensor) or pooled.shape is None:
        return [pooled]
    return [pooled, made(pooled, pooled.shape, onnx.TensorProto.INT64)]


RULES: ShapeRules = {
    "Conv": _as("Conv", 1),
    "FusedConv": _as("Conv", 1),
    "NhwcConv": _as("Conv", 1),
    "NhwcFusedConv": _as("Conv", 1),
    "QLinearConv": _as("Conv", 3),
    "QLinearConvTranspose": _as("ConvTranspose", 3),
    "ConvTransposeWithDynamicPads": _cut,
    "AveragePool": _as("AveragePool"),
    "QLinearAveragePool": _as("AveragePool"),
    "MaxPool": _with_indices,
    "MaxpoolWithMask": _as("MaxPool"),
    "NhwcMaxPool": _as("MaxPool"),
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "QLinearGlobalAveragePool": _global_pool,
    "ReorderInput": _reordered,
    "ReorderOutput": _reordered,
    "Upsample": _upsampled,
    "CropAndResize": _cropped,
}
