"""Operators that move data, or only rename it. Interpolation is the one among them that computes.

Text and categories are moved too: FLOPs are of numbers, and work on text has none.
"""

from __future__ import annotations

import math

from tailwise.models.operators.rule import (
    Rule,
    Rules,
    Work,
    nothing,
    result,
    result_elements,
    shaped,
)
from tailwise.models.records import OperatorKind
from tailwise.models.tensors import Call

_VIEWS = (
    "Constant",
    "Dropout",
    "Flatten",
    "Identity",
    "Reshape",
    "Shape",
    "Size",
    "Squeeze",
    "Unsqueeze",
    "Optional",
    "OptionalGetElement",
    "OptionalHasElement",
    "SequenceAt",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceLength",
    "ExpandDims",
)

_COPIES = (
    "BitCast",
    "Cast",
    "CastLike",
    "CastMap",
    "CenterCropPad",
    "Col2Im",
    "Compress",
    "Concat",
    "ConcatFromSequence",
    "ConstantOfShape",
    "DepthToSpace",
    "EyeLike",
    "Expand",
    "LabelEncoder",
    "OneHot",
    "OneHotEncoder",
    "Pad",
    "QLinearConcat",
    "Range",
    "ReverseSequence",
    "ScatterElements",
    "Scatter",
    "ScatterND",
    "Slice",
    "SpaceToDepth",
    "Split",
    "SplitToSequence",
    "Tile",
    "Transpose",
    "Trilu",
    "ArrayFeatureExtractor",
    "FeatureVectorizer",
    "TensorScatter",
    "ReorderInput",
    "ReorderOutput",
    "CategoryMapper",
    "DictVectorizer",
    "RegexFullMatch",
    "StringNormalizer",
    "StringSplit",
    "RelativePositionBias",
)

_LOOKUPS = ("Gather", "GatherElements", "GatherND", "GatherBlockQuantized")


def _lookup(call: Call) -> Work:
    """Of a table only the rows that are asked for are read."""
    output = call.output()
    size = None if output is None else output.size_bytes
    result(call)
    table = call.input(0)
    return Work(weight_bytes=size if table is not None and table.constant else 0)


def _resize(call: Call) -> Work:
    """Interpolation over d resized axes: 2^d neighbours when linear, 4^d when cubic, a product and a sum
    each; nearest only copies."""
    _, source = shaped(call, 0, "X")
    _, output = result(call)
    mode = str(call.attributes.get("mode", "nearest"))
    axes = sum(before != after for before, after in zip(source, output, strict=True))
    neighbours = {"linear": 2, "bilinear": 2, "cubic": 4}.get(mode)
    return Work() if neighbours is None else Work(flops=2 * neighbours**axes * math.prod(output) * (axes > 0))


def _grid_sample(call: Call) -> Work:
    """GridSample: as interpolation over all spatial axes."""
    _, source = shaped(call, 0, "X")
    mode = str(call.attributes.get("mode", "linear"))
    neighbours = {"bilinear": 2, "linear": 2, "bicubic": 4, "cubic": 4}.get(mode)
    axes = len(source) - 2
    return Work() if neighbours is None else Work(flops=2 * neighbours**axes * result_elements(call))


def _crops(call: Call) -> Work:
    """CropAndResize (com.microsoft): four neighbours of every result, a product and a sum each."""
    nearest = str(call.attributes.get("mode", "bilinear")) == "nearest"
    return Work() if nearest else Work(flops=8 * result_elements(call))


def _affine_grid(call: Call) -> Work:
    """AffineGrid: each position is multiplied with a matrix of d x (d + 1)."""
    axes = result(call)[1][-1]
    return Work(flops=2 * (axes + 1) * result_elements(call))


RULES: Rules = {
    **{name: Rule(OperatorKind.DATA_MOVEMENT, nothing, view=True) for name in _VIEWS},
    **{name: Rule(OperatorKind.DATA_MOVEMENT, nothing) for name in _COPIES},
    **{name: Rule(OperatorKind.DATA_MOVEMENT, _lookup) for name in _LOOKUPS},
    "Resize": Rule(OperatorKind.OTHER, _resize),
    "Upsample": Rule(OperatorKind.OTHER, _resize),
    "GridSample": Rule(OperatorKind.OTHER, _grid_sample),
    "CropAndResize": Rule(OperatorKind.OTHER, _crops),
    "AffineGrid": Rule(OperatorKind.OTHER, _affine_grid),
}
