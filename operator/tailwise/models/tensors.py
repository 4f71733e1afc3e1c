"""What is known of a value in the graph while it is walked: its type, its shape, sometimes its content."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tailwise.models.graph import byte_size

Shape = tuple[int, ...]
Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor. ``shape`` is None where it depends on data beyond any bound.

    ``array`` holds the content where it is small and follows from the graph and the inputs' shapes alone.
    ``constant``: does not change between inferences. ``bounded``: sizes (or content) are upper bounds.
    ``stored`` is True for a weight of the file, and for a mere alias of one.
    """

    element_type: int
    shape: Shape | None
    array: Array | None = None
    constant: bool = False
    bounded: bool = False
    stored: bool = False

    @property
    def elements(self) -> int | None:
        """Number of elements, None where the shape is not known."""
        return None if self.shape is None else math.prod(self.shape)

    @property
    def size_bytes(self) -> int | None:
        """Bytes of the elements, None where the shape is not known."""
        return None if self.shape is None else byte_size(self.element_type, math.prod(self.shape))


@dataclass(frozen=True, slots=True)
class TensorSequence:
    """A sequence of tensors; ``items`` is None where their number is not known, ``item`` is then any one."""

    items: tuple[Tensor, ...] | None
    item: Tensor


Value = Tensor | TensorSequence


@dataclass(frozen=True, slots=True)
class Call:
    """A node with all that is known of what goes in and out; absent optional ones are None."""

    node: onnx.NodeProto
    domain: str
    opset: int
    attributes: Mapping[str, Any]
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value | None, ...] = ()
    scope: str = ""
    """Names of the control-flow nodes around it, each followed by a slash."""

    @property
    def op_type(self) -> str:
        """The operator's type, without its domain."""
        return str(self.node.op_type)

    @property
    def name(self) -> str:
        """The node's own name, or its first output's, which is unique."""
        own = self.node.name or next((output for output in self.node.output if output), self.op_type)
        return self.scope + str(own)

    def input(self, index: int) -> Tensor | None:
        """An input that is a tensor; None where absent or a sequence."""
        value = self.inputs[index] if index < len(self.inputs) else None
        return value if isinstance(value, Tensor) else None

    def output(self, index: int = 0) -> Tensor | None:
        """An output that is a tensor; None where absent or a sequence."""
        value = self.outputs[index] if index < len(self.outputs) else None
        return value if isinstance(value, Tensor) else None


def normal_domain(domain: str) -> str:
    """The default domain has two spellings; this is the shorter."""
    return "" if domain == "ai.onnx" else domain


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values; strings decoded, graphs and tensors as they are."""
    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute) if attribute.type else None
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        attributes[attribute.name] = value
    return attributes


def unknown(element_type: int = 0) -> Tensor:
    """A tensor of which nothing, or only the type, is known."""
    return Tensor(element_type, None)


def with_shape(tensor: Tensor, shape: Shape | None) -> Tensor:
    """The same type with another shape and no known content."""
    return replace(tensor, shape=shape, array=None, stored=False)


@functools.lru_cache(maxsize=4096)
def type_of(element_type: int, shape: Shape | None) -> onnx.TypeProto:
    """The ONNX description of a tensor's type."""
    return onnx.helper.make_tensor_type_proto(element_type, shape)


def described(value: Value) -> onnx.TypeProto:
    """The ONNX description of a value's type."""
    if isinstance(value, Tensor):
        return type_of(value.element_type, value.shape)
    item = value.item
    return onnx.helper.make_sequence_type_proto(type_of(item.element_type, item.shape))


def from_type(kind: onnx.TypeProto, *, bounded: bool = False) -> Value:
    """What an ONNX type says; sizes that are named or missing make the shape unknown."""
    if kind.HasField("sequence_type"):
        item = from_type(kind.sequence_type.elem_type, bounded=bounded)
        return TensorSequence(None, item if isinstance(item, Tensor) else unknown())
    if kind.HasField("optional_type"):
        return from_type(kind.optional_type.elem_type, bounded=bounded)
    tensor = kind.tensor_type
    shape: Shape | None = None
    if tensor.HasField("shape"):
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
        shape = tuple(dims) if all(0 <= dim < 2**48 for dim in dims) else None
    return Tensor(tensor.elem_type, shape, bounded=bounded)
