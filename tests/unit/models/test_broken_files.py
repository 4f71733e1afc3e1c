"""However a file is broken, the answer is a profile or an error with a reason."""

from __future__ import annotations

import random

import onnx
import pytest

from tailwise.models.errors import InspectionError, NotAModel
from tailwise.models.graph import Skeleton, read_skeleton
from tailwise.models.profile import build_profile
from tailwise.models.sources import FileSource
from tests.models import rehydrate

HUGE = b"\xff" * 8 + b"\x7f"


def broken(content: bytes, generator: random.Random) -> bytes:
    """The file with some bytes changed, lost, put in, or its end cut off."""
    changed = bytearray(content)
    for _ in range(generator.choice([1, 2, 5, 30])):
        at = generator.randrange(len(changed) or 1)
        match generator.randrange(5):
            case 0:
                changed[at : at + 1] = generator.randbytes(1)
            case 1:
                del changed[at : at + generator.randrange(1, 9)]
            case 2:
                changed[at:at] = generator.randbytes(generator.randrange(1, 9))
            case 3:
                changed[at : at + len(HUGE)] = HUGE
            case _:
                del changed[max(at, len(changed) // 2) :]
    return bytes(changed)


@pytest.mark.parametrize("name", ["decoder_convtranspose", "shufflenet_v2_x1_0", "distilbert_seq128"])
def test_a_broken_file_ends_in_a_profile_or_a_reason(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("broken") / "m.onnx"
    content = rehydrate.skeleton(name).SerializeToString()
    generator = random.Random(name)  # noqa: S311 -- repeatable, not secret
    for _ in range(150):
        path.write_bytes(broken(content, generator))
        source = FileSource(path)
        try:
            build_profile(read_skeleton(source))
        except InspectionError as error:
            assert error.reason
            assert error.field.startswith("spec.")
        finally:
            source.close()


@pytest.mark.parametrize(("operator", "inputs"), [("If", 1), ("Loop", 3), ("Scan", 2)])
def test_control_flow_without_a_body_is_named(operator: str, inputs: int) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 3])
    node = onnx.helper.make_node(operator, ["x"] * inputs, ["y"], name="bare")
    if operator == "Scan":
        node.attribute.append(onnx.helper.make_attribute("num_scan_inputs", 1))
    graph = onnx.helper.make_graph([node], "g", [value], [out])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    with pytest.raises(NotAModel, match="bare"):
        build_profile(Skeleton(model, ""))
