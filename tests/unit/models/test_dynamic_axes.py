"""Free axes get their sizes from the request, and shapes computed in the graph follow them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from tailwise.api.profile import Completeness
from tailwise.models.errors import DynamicShape
from tailwise.models.graph import Skeleton
from tailwise.models.profile import build_profile
from tests.unit.models.brute_force import run, values
from tests.unit.models.graphs import model, node

HIDDEN, HEADS = 12, 3


def split_heads(source: str, name: str) -> list[onnx.NodeProto]:
    """[batch, sequence, hidden] to [batch, heads, sequence, size], with sizes taken from the input."""
    return [
        node("Shape", [source], [f"{name}.shape"]),
        node("Gather", [f"{name}.shape", "zero"], [f"{name}.batch"], axis=0),
        node("Gather", [f"{name}.shape", "one"], [f"{name}.length"], axis=0),
        node("Unsqueeze", [f"{name}.batch", "first"], [f"{name}.b"]),
        node("Unsqueeze", [f"{name}.length", "first"], [f"{name}.l"]),
        node("Concat", [f"{name}.b", f"{name}.l", "heads", "rest"], [f"{name}.target"], axis=0),
        node("Reshape", [source, f"{name}.target"], [f"{name}.split"]),
        node("Transpose", [f"{name}.split"], [name], perm=[0, 2, 1, 3]),
    ]


def transformer_block() -> onnx.ModelProto:
    """Self-attention as PyTorch's exporter writes it, over free axes of batch and sequence."""
    nodes = [node("MatMul", ["x", f"w{each}"], [f"p{each}"]) for each in "qkv"]
    for each in "qkv":
        nodes += split_heads(f"p{each}", each)
    nodes += [
        node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        node("MatMul", ["q", "kt"], ["scores"]),
        node("Softmax", ["scores"], ["weights"], axis=-1),
        node("MatMul", ["weights", "v"], ["heads.out"]),
        node("Transpose", ["heads.out"], ["back"], perm=[0, 2, 1, 3]),
        node("Shape", ["x"], ["x.shape"]),
        node("Reshape", ["back", "x.shape"], ["joined"]),
        node("MatMul", ["joined", "wo"], ["y"]),
    ]
    weights = {
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "first": np.array([0], np.int64),
        "heads": np.array([HEADS], np.int64),
        "rest": np.array([HIDDEN // HEADS], np.int64),
        **{name: values(HIDDEN, HIDDEN) for name in ("wq", "wk", "wv", "wo")},
    }
    return model(nodes, {"x": ("batch_size", "sequence_length", HIDDEN)}, weights)


BLOCK = transformer_block()


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 9), length=st.integers(1, 40))
def test_a_transformer_block_is_counted_at_any_batch_and_length(batch: int, length: int) -> None:
    found = build_profile(Skeleton(BLOCK, ""), {"sequence_length": (length,)}, batch)
    products = batch * (4 * length * HIDDEN * HIDDEN + 2 * length * length * HIDDEN)
    assert found.completeness is Completeness.COMPLETE
    assert found.multiply_accumulates == products
    assert found.batch_size == batch
    whole = build_profile(Skeleton(BLOCK, ""), {"x": (batch, length, HIDDEN)})
    assert whole.flops_by_kind == found.flops_by_kind


def test_the_block_is_one_that_runs() -> None:
    assert run(BLOCK, {"x": values(2, 5, HIDDEN)}).shape == (2, 5, HIDDEN)


def test_every_free_axis_is_named_with_shapes_that_would_do() -> None:
    made = model(
        [node("Add", ["a", "b"], ["y"])],
        {"a": ("batch", "height", "width", 3), "b": ("batch", "height", "width", 3)},
    )
    with pytest.raises(DynamicShape) as caught:
        build_profile(Skeleton(made, ""))
    message = str(caught.value)
    for name in ("'a' axis 1 (height)", "'a' axis 2 (width)", "'b' axis 1 (height)", "'b' axis 2 (width)"):
        assert name in message
    assert "a: [1, 224, 224, 3]; b: [1, 224, 224, 3]" in message
    assert "spec.model.inputShapes" in message
    assert caught.value.field == "spec.model.inputShapes"


def test_a_named_axis_has_one_size_wherever_it_occurs() -> None:
    made = model([node("Add", ["a", "b"], ["y"])], {"a": ("n", "s"), "b": ("n", "s")})
    assert build_profile(Skeleton(made, ""), {"s": (7,)}, 2).flops == 14
    assert build_profile(Skeleton(made, ""), {"a": (-1, 7)}, 2).flops == 14
    with pytest.raises(DynamicShape, match="'s' is given as 7 and as 8"):
        build_profile(Skeleton(made, ""), {"a": (1, 7), "b": (1, 8)})


def test_a_batch_the_file_does_not_allow_is_an_error_of_the_load() -> None:
    made = model([node("Relu", ["x"], ["y"])], {"x": (1, 8)})
    with pytest.raises(DynamicShape, match="batch of 4") as caught:
        build_profile(Skeleton(made, ""), None, 4)
    assert caught.value.field == "spec.load.batchSize"


def test_weights_that_were_not_read_do_not_hide_a_shape() -> None:
    """A skeleton's large tensors have sizes and no content."""
    stripped = onnx.ModelProto()
    stripped.CopyFrom(BLOCK)
    for tensor in stripped.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.ClearField("raw_data")
    for_both = ({"sequence_length": (6,)}, 2)
    assert build_profile(Skeleton(stripped, ""), *for_both) == build_profile(Skeleton(BLOCK, ""), *for_both)
