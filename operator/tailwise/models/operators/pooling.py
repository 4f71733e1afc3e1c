"""Pooling: equation (4), H x W x C of the output (for each sample), whatever the window."""

from __future__ import annotations

import math

from tailwise.models.operators.rule import Rule, Rules, Work, per_result, result
from tailwise.models.records import OperatorKind
from tailwise.models.tensors import Call


def _region(call: Call) -> Work:
    """RoiAlign: sampling_ratio^2 points a bin, each from four neighbours (8 FLOPs); 0 means adaptive: 2."""
    ratio = int(call.attributes.get("sampling_ratio", 0)) or 2
    return Work(flops=8 * ratio * ratio * math.prod(result(call)[1]))


_POOLING = Rule(OperatorKind.POOLING, per_result(1))

RULES: Rules = {
    "AveragePool": _POOLING,
    "MaxPool": _POOLING,
    "LpPool": _POOLING,
    "GlobalAveragePool": _POOLING,
    "GlobalMaxPool": _POOLING,
    "GlobalLpPool": _POOLING,
    "MaxUnpool": _POOLING,
    "MaxRoiPool": _POOLING,
    "QLinearAveragePool": _POOLING,
    "MaxpoolWithMask": _POOLING,
    "NhwcMaxPool": _POOLING,
    "QLinearGlobalAveragePool": _POOLING,
    "RoiAlign": Rule(OperatorKind.POOLING, _region),
}
