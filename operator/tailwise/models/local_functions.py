"""Functions that a model defines for itself are replaced by their bodies: each node is then an operator."""

from __future__ import annotations

import onnx
from onnx import inliner

from tailwise.models.errors import ModelTooLarge, NotAModel
from tailwise.models.graph import MOST_NODES

_Key = tuple[str, str]


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without local functions; ModelTooLarge or NotAModel when they are endless."""
    if not model.functions:
        return model
    _check(model)
    try:
        return inliner.inline_local_functions(model)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise NotAModel(f"the model's own functions cannot be resolved ({error})"[:500]) from error


def _check(model: onnx.ModelProto) -> None:
    """Functions that call themselves never end, and a few that double grow beyond any memory."""
    bodies: dict[_Key, list[_Key]] = {
        (function.domain, function.name): [(node.domain, node.op_type) for node in function.node]
        for function in model.functions
    }
    sizes: dict[_Key, int] = {}
    pending: set[_Key] = set()

    def size(key: _Key) -> int:
        if key not in bodies:
            return 1
        if key in pending or len(pending) > 100:
            raise NotAModel(f"the model's function {key[1]!r} calls itself, or nests too deeply")
        if key not in sizes:
            pending.add(key)
            sizes[key] = min(sum(map(size, bodies[key])), MOST_NODES + 1)
            pending.discard(key)
        return sizes[key]

    if sum(size((node.domain, node.op_type)) for node in model.graph.node) > MOST_NODES:
        raise ModelTooLarge(f"the model's functions expand to more than {MOST_NODES} nodes")
