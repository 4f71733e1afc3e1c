"""Output shapes of ONNX's own operators for which its inference says nothing, or not enough.

Each rule is the operator's definition in the ONNX specification, which names the sizes in words.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from tailwise.models.contributed_shapes.rule import ShapeRule, ShapeRules, like_first, made, required
from tailwise.models.tensors import Call, Shape, Tensor, Value


def infer(call: Call) -> Sequence[Value | None] | None:
    """Outputs of an operator of the default domain or of ai.onnx.ml; None where ONNX's inference is right."""
    rule = _RULES.get(call.op_type) if call.domain in ("", "ai.onnx.ml") else None
    if rule is None:
        return None
    try:
        return rule(call)
    except (IndexError, KeyError, ValueError, TypeError, OverflowError):
        return []


def _number(call: Call, index: int) -> int:
    """An input that is one number known from the graph; ValueError where it depends on data."""
    tensor = call.input(index)
    if tensor is None or tensor.array is None:
        raise ValueError(f"input {index} depends on data")
    return int(tensor.array.ravel()[0])


def _window(call: Call) -> Sequence[Value | None]:
    """BlackmanWindow, HannWindow, HammingWindow: as long as asked for."""
    kind = int(call.attributes.get("output_datatype", onnx.TensorProto.FLOAT))
    return [Tensor(kind, (max(0, _number(call, 0)),))]


def _mel_weights(call: Call) -> Sequence[Value | None]:
    """MelWeightMatrix: [dft_length // 2 + 1, num_mel_bins]."""
    kind = int(call.attributes.get("output_datatype", onnx.TensorProto.FLOAT))
    return [Tensor(kind, (_number(call, 1) // 2 + 1, _number(call, 0)))]


def transform_axis(call: Call) -> int:
    """The axis a DFT goes along: an attribute up to operator set 19, an input from 20 on."""
    if call.opset < 20:
        return int(call.attributes.get("axis", 1))
    return -2 if call.input(2) is None else _number(call, 2)


def _fourier(call: Call) -> Sequence[Value | None]:
    """DFT: pairs of a real and an imaginary part; one-sided keeps n // 2 + 1 of n, or makes n real ones."""
    tensor, shape = required(call, 0)
    sizes, axis = list(shape), transform_axis(call)
    onesided, inverse = call.attributes.get("onesided"), call.attributes.get("inverse")
    length = sizes[axis] if not (onesided and inverse) else 2 * (sizes[axis] - 1)
    if call.input(1) is not None:
        length = _number(call, 1)
    sizes[axis] = length // 2 + 1 if onesided and not inverse else length
    sizes[-1] = 1 if onesided and inverse else 2
    return [made(tensor, sizes)]


def _short_time(call: Call) -> Sequence[Value | None]:
    """STFT: [batch, frames, bins, 2]; a frame is as long as the window unless a length is given."""
    tensor, shape = required(call, 0)
    step, window = _number(call, 1), call.input(2)
    length = window.shape[0] if window is not None and window.shape else _number(call, 3)
    bins = length // 2 + 1 if call.attributes.get("onesided", 1) else length
    return [made(tensor, (shape[0], max(0, 1 + (shape[1] - length) // step), bins, 2))]


def _unpooled(call: Call) -> Sequence[Value | None]:
    """MaxUnpool: the size given as input 2, else what pooling would have taken in."""
    tensor, shape = required(call, 0)
    given = call.input(2)
    if given is not None:
        if given.array is None:
            raise ValueError("the size depends on data")
        return [made(tensor, given.array.ravel().tolist())]
    kernel = call.attributes["kernel_shape"]
    strides = call.attributes.get("strides") or [1] * len(kernel)
    pads = call.attributes.get("pads") or [0] * (2 * len(kernel))
    sizes = [
        (size - 1) * stride + width - pads[axis] - pads[axis + len(kernel)]
        for axis, (size, stride, width) in enumerate(zip(shape[2:], strides, kernel, strict=True))
    ]
    return [made(tensor, (*shape[:2], *sizes))]


def _vocabulary(call: Call) -> Sequence[Value | None]:
    """DictVectorizer: one row, a column for each word of the vocabulary."""
    words = call.attributes.get("string_vocabulary") or call.attributes["int64_vocabulary"]
    return [Tensor(onnx.TensorProto.FLOAT, (1, len(words)))]


def _regressed(targets: str) -> ShapeRule:
    """A regressor (ai.onnx.ml): a row for each sample, a column for each target."""

    def rule(call: Call) -> Sequence[Value | None]:
        rows = samples(call)[0]
        return [Tensor(onnx.TensorProto.FLOAT, (rows, int(call.attributes.get(targets, 1))))]

    return rule


def samples(call: Call) -> Shape:
    """Rows and features of a classical learner's input: a vector is one row."""
    shape = required(call, 0)[1]
    return (1, *shape) if len(shape) == 1 else shape


def _classified(call: Call) -> Sequence[Value | None]:
    """A classifier (ai.onnx.ml): a label for each sample, and a score for each sample and class."""
    rows = samples(call)[0]
    words, numbers = call.attributes.get("classlabels_strings"), call.attributes.get("classlabels_int64s")
    labels = words or numbers or call.attributes.get("classlabels_ints") or [0]
    kind = onnx.TensorProto.STRING if words else onnx.TensorProto.INT64
    return [Tensor(kind, (rows,)), Tensor(onnx.TensorProto.FLOAT, (rows, len(labels)))]


def _joined_features(call: Call) -> Sequence[Value | None]:
    """FeatureVectorizer (ai.onnx.ml): every input's columns, side by side."""
    rows = samples(call)[0]
    return [Tensor(onnx.TensorProto.FLOAT, (rows, sum(call.attributes["inputdimensions"])))]


def _has_element(_call: Call) -> Sequence[Value | None]:
    """OptionalHasElement: yes or no, which stands in the data."""
    return [Tensor(onnx.TensorProto.BOOL, ())]


def _element(call: Call) -> Sequence[Value | None]:
    """Optional, OptionalGetElement: the value itself, since only its absence would be different."""
    return [call.inputs[0]]


_RULES: ShapeRules = {
    "OptionalHasElement": _has_element,
    "OptionalGetElement": _element,
    "BlackmanWindow": _window,
    "HammingWindow": _window,
    "HannWindow": _window,
    "MelWeightMatrix": _mel_weights,
    "DFT": _fourier,
    "STFT": _short_time,
    "MaxUnpool": _unpooled,
    "DictVectorizer": _vocabulary,
    "FeatureVectorizer": _joined_features,
    "LinearRegressor": _regressed("targets"),
    "SVMRegressor": _regressed(""),
    "TreeEnsemble": _regressed("n_targets"),
    "TreeEnsembleRegressor": _regressed("n_targets"),
    **dict.fromkeys(("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"), _classified),
    **dict.fromkeys(("GroupNormalization", "MeanVarianceNormalization"), like_first),
    **dict.fromkeys(("Scaler", "Normalizer", "Imputer", "Binarizer"), like_first),
}
