"""Output shapes of operators that ONNX's own inference does not know: those of ONNX Runtime.

In: a ``Call`` of domain com.microsoft (or its blocked form com.microsoft.nchwc). Out: a value for each
output, or None where there is no rule. Rules follow ONNX Runtime's documentation of its contributed
operators (docs/ContribOperators.md there). Imports only the values it works on.
"""

from __future__ import annotations

from collections.abc import Sequence

from tailwise.models.contributed_shapes import attention, elements, products, windows
from tailwise.models.contributed_shapes.rule import ShapeRules
from tailwise.models.tensors import Call, Value

_DOMAINS = frozenset({"com.microsoft", "com.microsoft.nchwc"})

# What ONNX Runtime's transformations leave in the default domain although ONNX has no such operator.
_IN_DEFAULT_DOMAIN = frozenset({"SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"})

_AS_IN_DEFAULT_DOMAIN = {"GatherND": 12, "GridSample": 16, "Pad": 13, "Range": 11, "Unique": 11}
"""Operators that are ONNX's of the same name in that operator set."""

_RULES: ShapeRules = {**attention.RULES, **elements.RULES, **products.RULES, **windows.RULES}


def infer(call: Call) -> Sequence[Value | None] | None:
    """Output values by this domain's rules, or None where it has none for the operator.

    Of the default domain only what ONNX Runtime added there on its own is known here.
    """
    if call.domain not in _DOMAINS and call.op_type not in _IN_DEFAULT_DOMAIN:
        return None
    rule = _RULES.get(call.op_type)
    if rule is None:
        return None
    try:
        return rule(call)
    except (AttributeError, IndexError, KeyError, ValueError, TypeError, ZeroDivisionError, RuntimeError):
        return []


def is_known(op_type: str) -> bool:
    """Whether there is a rule for the contributed operator of that name."""
    return op_type in _RULES or op_type in _AS_IN_DEFAULT_DOMAIN


def standard_operator_set(call: Call) -> int | None:
    """The default domain's operator set whose operator of that name it is; None for any other."""
    return _AS_IN_DEFAULT_DOMAIN.get(call.op_type) if call.domain in _DOMAINS else None
