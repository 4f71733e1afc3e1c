"""Normalisations, by FLOPs for each element.

In inference batch normalisation is a scale and a shift: 2. Layer, group and instance normalisation
compute their statistics: a sum for the mean, a difference, its square and sum for the variance, a scale by
the deviation: 5, and with learned scale and shift 7. Root-mean-square ones have no mean: 3, scaled 4.
What is done once for each group (the root, the division) is not counted.
"""

from __future__ import annotations

import math

from tailwise.models.operators.rule import Rule, Rules, Work, per_input, result_elements, shaped
from tailwise.models.records import OperatorKind
from tailwise.models.tensors import Call


def _of_elements(flops: int) -> Rule:
    return Rule(OperatorKind.NORMALIZATION, per_input(flops))


def _local_response(call: Call) -> Work:
    """LRN: squares summed over ``size`` channels, then scale, shift, power and division."""
    return Work(flops=(2 * int(call.attributes.get("size", 1)) + 4) * result_elements(call))


def _skip(flops: int) -> Rule:
    """A residual addition (and one of a bias) before the normalisation."""

    def work(call: Call) -> Work:
        elements = math.prod(shaped(call, 0, "input")[1])
        return Work(flops=(flops + 1) * elements)

    return Rule(OperatorKind.NORMALIZATION, work)


def _embedding(call: Call) -> Work:
    """EmbedLayerNormalization: two additions of embeddings, then a layer normalisation."""
    return Work(flops=9 * result_elements(call))


RULES: Rules = {
    "BatchNormalization": _of_elements(2),
    "LayerNormalization": _of_elements(7),
    "InstanceNormalization": _of_elements(7),
    "GroupNormalization": _of_elements(7),
    "GroupNorm": _of_elements(7),
    "SkipGroupNorm": _skip(7),
    "RMSNormalization": _of_elements(4),
    "SimplifiedLayerNormalization": _of_elements(4),
    "SkipLayerNormalization": _skip(7),
    "SkipSimplifiedLayerNormalization": _skip(4),
    "EmbedLayerNormalization": Rule(OperatorKind.NORMALIZATION, _embedding),
    "QEmbedLayerNormalization": Rule(OperatorKind.NORMALIZATION, _embedding),
    "QOrderedLayerNormalization": _of_elements(7),
    "GatedRMSNorm": _of_elements(6),  # an activation and a product with the gate
    "MeanVarianceNormalization": _of_elements(5),
    "LpNormalization": _of_elements(3),
    "LRN": Rule(OperatorKind.NORMALIZATION, _local_response),
    "Normalizer": _of_elements(3),
}
