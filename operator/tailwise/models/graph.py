"""An ONNX file without its weights: every node, attribute and small constant, no tensor data to speak of.

The file's protobuf fields are walked in order. What describes the graph is copied; the data of tensors
is skipped, so that a model of hundreds of megabytes becomes a message of some ten kilobytes. Integers
of moderate size are kept, because shapes depend on them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tailwise.models.errors import ModelTooLarge, ModelTruncated, NotAModel
from tailwise.models.sources import ByteSource
from tailwise.models.wire import FIXED32, FIXED64, LENGTH_DELIMITED, VARINT, WireReader

WHOLE_BYTES = 2 * 1024
"""Messages and tensor data up to this size are copied without a look inside."""
INTEGER_BYTES = 64 * 1024
"""Data of integer tensors up to this size is kept: shapes, axes and indices are computed from it."""
ATTRIBUTE_BYTES = 4 * 2**20
MOST_NESTING = 32
MOST_NODES = 200_000
MOST_FIELDS = 4_000_000
"""Fields looked at one by one: ten times those of the largest graphs there are, some seconds of CPU."""
MOST_MESSAGE_BYTES = 2**31 - 1
"""No protobuf message can be larger, so no ONNX file is: weights beyond that lie in files of their own."""
MOST_NAME_BYTES = 64 * 1024
"""A node's names, inputs and outputs; a longer field is no name."""

# The messages of onnx.proto that are walked field by field, and which of their fields are such messages.
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_MODEL_FIELDS = {1: VARINT, 5: VARINT} | dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), LENGTH_DELIMITED)
_TENSOR_DATA = frozenset({4, 5, 6, 7, 9, 10, 11})
_TENSOR_TYPE = 2
_DOCUMENTATION = {"Model": {6, 14}, "Graph": {10}, "Node": {6}, "Attribute": {13}, "Tensor": {12}}
_NAMES = frozenset({1, 2, 3, 4, 7, 8})  # of a node: inputs, outputs, name, op_type, domain, overload
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
_GRAPH, _OPERATOR_SETS = 7, 8
_KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})

INTEGER_TYPES = frozenset(
    {
        onnx.TensorProto.INT8,
        onnx.TensorProto.INT16,
        onnx.TensorProto.INT32,
        onnx.TensorProto.INT64,
        onnx.TensorProto.UINT8,
        onnx.TensorProto.UINT16,
        onnx.TensorProto.UINT32,
        onnx.TensorProto.UINT64,
        onnx.TensorProto.BOOL,
    }
)
_BITS: dict[int, int] = {
    onnx.TensorProto.DOUBLE: 64,
    onnx.TensorProto.INT64: 64,
    onnx.TensorProto.UINT64: 64,
    onnx.TensorProto.COMPLEX64: 64,
    onnx.TensorProto.COMPLEX128: 128,
    onnx.TensorProto.FLOAT: 32,
    onnx.TensorProto.INT32: 32,
    onnx.TensorProto.UINT32: 32,
    onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.BFLOAT16: 16,
    onnx.TensorProto.INT16: 16,
    onnx.TensorProto.UINT16: 16,
    onnx.TensorProto.STRING: 64,
}
_HALF_BYTE = {"INT4", "UINT4", "FLOAT4E2M1"}
_BITS |= {value: 4 for name, value in onnx.TensorProto.DataType.items() if name in _HALF_BYTE}
_BITS |= {value: 2 for name, value in onnx.TensorProto.DataType.items() if name in {"INT2", "UINT2"}}


@dataclass(frozen=True, slots=True)
class GraphLimits:
    """How much may be fetched, and how much of it may be kept as the graph."""

    read_bytes: int = 256 * 2**20
    stream_bytes: int = 2 * 2**30
    kept_bytes: int = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A model whose large tensors have dimensions and type, but no data."""

    model: onnx.ModelProto
    sha256: str
    """Digest of the skeleton: the same graph has the same, whatever its weights."""


def read_skeleton(source: ByteSource, limits: GraphLimits = GraphLimits()) -> Skeleton:
    """Walk the file and keep its graph.

    Raises NotAModel, ModelTruncated, ModelTooLarge, and what the source raises.
    """
    return parse_skeleton(walk_graph(source, limits))


def walk_graph(source: ByteSource, limits: GraphLimits = GraphLimits()) -> bytes:
    """The serialized skeleton: all that needs the source. Raises as ``read_skeleton``."""
    limit = limits.read_bytes if source.seekable else limits.stream_bytes
    if source.size is not None and source.size > MOST_MESSAGE_BYTES:
        raise _too_large(source.size)
    if not source.seekable and source.size is not None and source.size > limit:
        raise ModelTooLarge(
            f"the file has {source.size // 2**20} MiB and its server sends it only whole (no ranges); "
            "use a server with range requests, or give spec.model.profile by hand"
        )
    return _Walker(WireReader(source, limit), limits.kept_bytes).model()


def parse_skeleton(serialized: bytes) -> Skeleton:
    """What ``walk_graph`` has kept, as a message; needs no source any more."""
    try:
        model = onnx.ModelProto.FromString(serialized)
    except DecodeError as error:
        raise NotAModel("the file is not an ONNX model (its structure cannot be decoded)") from error
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise NotAModel("the file is not an ONNX model (it holds no graph)")
    if len(model.graph.node) > MOST_NODES:
        raise ModelTooLarge(f"the graph has {len(model.graph.node)} nodes, more than {MOST_NODES}")
    return Skeleton(model, hashlib.sha256(serialized).hexdigest())


class _Walker:
    """Copies a model's fields from a reader, without the data of large tensors."""

    def __init__(self, reader: WireReader, kept_bytes: int) -> None:
        self._reader = reader
        self._room = kept_bytes
        self._kept_bytes = kept_bytes
        self._fields_left = MOST_FIELDS

    def model(self) -> bytes:
        """The model's message; its own length is the file's, which may be unknown until it ends."""
        reader, out = self._reader, bytearray()
        if reader.at_end():
            raise ModelTruncated("the file is empty; upload it again")
        domains: set[str] = set()
        graph_seen = False
        while not reader.at_end():
            begin = reader.position
            key, raw = reader.varint()
            field, wire = key >> 3, key & 7
            if begin == 0 and _MODEL_FIELDS.get(field) != wire:
                raise NotAModel("the file is not an ONNX model (it does not begin like one)")
            if graph_seen and domains and field != _OPERATOR_SETS and domains <= _KNOWN_DOMAINS:
                break  # No local function can follow that a node would need: the graph is complete.
            part = self._field("Model", (field, wire, raw), reader.size, 0)
            if field == _OPERATOR_SETS:
                domains.add(_domain(part))
            graph_seen = graph_seen or field == _GRAPH
            out += part
        return bytes(out)

    def _message(self, kind: str, end: int, depth: int) -> bytes:
        """The fields of a message that ends at ``end``."""
        if depth > MOST_NESTING:
            raise ModelTooLarge(f"graphs are nested deeper than {MOST_NESTING}")
        reader, out = self._reader, bytearray()
        keep = WHOLE_BYTES
        while reader.position < end:
            key, raw = reader.varint()
            field, wire = key >> 3, key & 7
            if kind == "Tensor" and wire == LENGTH_DELIMITED and field in _TENSOR_DATA:
                out += self._tensor_data(raw, end, keep)
                continue
            part = self._field(kind, (field, wire, raw), end, depth)
            if kind == "Tensor" and field == _TENSOR_TYPE and wire == VARINT and part[-1] in INTEGER_TYPES:
                keep = INTEGER_BYTES
            out += part
        if reader.position > end:
            raise NotAModel("the file is not an ONNX model (a part is longer than the whole)")
        return bytes(out)

    def _field(self, kind: str, key: tuple[int, int, bytes], end: int | None, depth: int) -> bytes:
        """One field, as it stands in the file or with tensors' data left out of it.

        ``key`` is the field's number, its wire type, and the bytes both are written in.
        """
        reader, (field, wire, raw) = self._reader, key
        self._fields_left -= 1
        if self._fields_left < 0:
            raise ModelTooLarge(f"the graph has more than {MOST_FIELDS} fields")
        if wire == VARINT:
            return self._kept(raw + reader.varint()[1])
        if wire in _FIXED_BYTES:
            return self._kept(raw + reader.take(_FIXED_BYTES[wire]))
        if wire != LENGTH_DELIMITED or field == 0:
            raise NotAModel("the file is not an ONNX model (an unknown kind of field)")
        length, raw_length = self._length(end)
        child = _CHILDREN[kind].get(field)
        unwanted = field in _DOCUMENTATION.get(kind, ()) and length > 64
        if kind == "Node" and child is None and not unwanted and length > MOST_NAME_BYTES and field in _NAMES:
            raise ModelTooLarge(f"a node of the graph has a name of {length} bytes")
        if unwanted or (child is None and length > ATTRIBUTE_BYTES):
            reader.skip(length)
            return b""
        if child is None or length <= WHOLE_BYTES:
            return self._kept(raw + raw_length + reader.take(length))
        inner = self._message(child, reader.position + length, depth + (child == "Graph"))
        return raw + _varint(len(inner)) + inner

    def _tensor_data(self, raw: bytes, end: int, keep: int) -> bytes:
        """The data of a tensor when it is small, else nothing."""
        length, raw_length = self._length(end)
        if length <= keep:
            return self._kept(raw + raw_length + self._reader.take(length))
        self._reader.skip(length)
        return b""

    def _length(self, end: int | None) -> tuple[int, bytes]:
        """The length of the field that begins here; it must end within what it is a part of."""
        length, raw = self._reader.varint()
        if end is not None and self._reader.position + length > end:
            if self._reader.size is not None and self._reader.position + length > self._reader.size:
                raise ModelTruncated(
                    f"the file ends at byte {self._reader.size}, inside its graph; upload it again"
                )
            raise NotAModel("the file is not an ONNX model (a part is longer than the whole)")
        if length > MOST_MESSAGE_BYTES:
            raise _too_large(length)
        return length, raw

    def _kept(self, part: bytes) -> bytes:
        self._room -= len(part)
        if self._room < 0:
            raise ModelTooLarge(f"the graph without weights is larger than {self._kept_bytes // 2**20} MiB")
        return part


def _too_large(size: int) -> ModelTooLarge:
    return ModelTooLarge(
        f"it claims {size} bytes in one message, and an ONNX file has at most 2 GiB: larger weights are "
        "external data; export the model with them, or give spec.model.profile by hand"
    )


def _varint(value: int) -> bytes:
    """Write a variable-length integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _domain(part: bytes) -> str:
    """The domain of a serialized field of operator sets; its own name where it cannot be read."""
    try:
        return str(onnx.ModelProto.FromString(part).opset_import[0].domain)
    except (DecodeError, IndexError):
        return "unknown"


def elements(tensor: onnx.TensorProto) -> int:
    """Number of elements a tensor says it has; NotAModel when a dimension is negative."""
    if any(dim < 0 for dim in tensor.dims):
        raise NotAModel(f"the tensor {tensor.name!r} has a negative dimension")
    return math.prod(tensor.dims)


def byte_size(element_type: int, count: int) -> int:
    """Bytes of that many elements as ONNX stores them: types under a byte are packed."""
    return (count * _BITS.get(element_type, 8) + 7) // 8


def data_of(tensor: onnx.TensorProto) -> npt.NDArray[np.generic] | None:
    """A tensor's values, None where the skeleton does not hold them (skipped, or in another file)."""
    if not isinstance(tensor, onnx.TensorProto):  # an attribute that claims to be one and is empty
        return None
    count = elements(tensor)
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.data_type == onnx.TensorProto.STRING:
        return None
    held = any(
        len(getattr(tensor, field))
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")
    )
    if count and not held:
        return None
    try:
        values: npt.NDArray[np.generic] = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    return values if values.size == count else None
