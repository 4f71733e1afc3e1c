"""What a shape rule is, and the few steps every rule takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tailwise.models.tensors import Call, Shape, Tensor, Value

ShapeRule = Callable[[Call], Sequence[Value | None]]
ShapeRules = dict[str, ShapeRule]


def required(call: Call, index: int) -> tuple[Tensor, Shape]:
    """An input that must be a tensor of known shape; ValueError where it is not."""
    tensor = call.input(index)
    if tensor is None or tensor.shape is None:
        raise ValueError(f"input {index} has no known shape")
    return tensor, tensor.shape


def made(tensor: Tensor, shape: Sequence[int], element_type: int | None = None) -> Tensor:
    """A result of that shape, of the tensor's type unless another is given."""
    kind = tensor.element_type if element_type is None else element_type
    return Tensor(kind, tuple(int(size) for size in shape))


def like_first(call: Call) -> Sequence[Value | None]:
    """The result is as the first input."""
    tensor, shape = required(call, 0)
    return [made(tensor, shape)]
