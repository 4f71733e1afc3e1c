"""A model that cannot be read ends in a condition that names the field and the way out, and one event.

How often the model is read again, and whether its pods are held or let go, changes nothing of that.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from tailwise.api.labels import NODE_ANNOTATION
from tailwise.cluster.client import INFERENCE_WORKLOADS
from tests.operator.process import Operator
from tests.operator.stage import Look, gated, until, workload

CLOSED_PORT = "http://127.0.0.1:9/model.onnx"


@dataclass(frozen=True, slots=True)
class Case:
    """A model that is wrong, the reason it must lead to, and words of the message: the field, the way out."""

    url: str
    reason: str
    words: tuple[str, ...]
    fallback: str = "DefaultScheduler"
    model: dict[str, Any] = field(default_factory=dict)


URL, BY_HAND = "spec.model.url", "spec.model.profile"
MODELS = {
    "unreachable": Case(CLOSED_PORT, "ModelUnreachable", (URL, "check the host")),
    "no such file": Case("{models}/missing.onnx", "ModelNotFound", (URL, "check the path"), "Hold"),
    "no such file, told late": Case("{models}/late.onnx", "ModelNotFound", (URL, "check the path")),
    "truncated": Case("{models}/truncated.onnx", "ModelInvalid", (URL, "upload it again")),
    "not ONNX": Case("{models}/words.onnx", "ModelInvalid", (URL, "ONNX file"), "Hold"),
    "5 GB, in ranges": Case("{models}/huge-ranges.onnx", "ModelTooLarge", (URL, BY_HAND)),
    "5 GB, sent whole": Case("{models}/huge-whole.onnx", "ModelTooLarge", (URL, BY_HAND), "Hold"),
    "endless, in ranges": Case("{models}/endless-ranges.onnx", "ModelTooLarge", (URL, BY_HAND)),
    "endless, sent whole": Case("{models}/endless-whole.onnx", "ModelTooLarge", (URL, BY_HAND)),
    "redirect to link-local": Case(
        "{models}/redirect.onnx", "AddressRefused", (URL, "169.254.169.254", "--allow-model-network")
    ),
    "dynamic shapes": Case(
        "{models}/dynamic.onnx", "InputShapesMissing", ("spec.model.inputShapes", "for example x0"), "Hold"
    ),
    "another digest": Case(
        "{models}/good.onnx",
        "DigestMismatch",
        ("spec.model.sha256", "correct it"),
        model={"sha256": "0" * 64},
    ),
}


@pytest.mark.parametrize("name", MODELS)
async def test_a_model_that_cannot_be_read_is_named_once_and_its_pods_follow_the_fallback(
    name: str, look: Look, operator: Operator, models: str
) -> None:
    case = MODELS[name]
    # Of this test alone, so that the readings are counted in the log.
    url = f"{case.url.format(models=models)}?{look.namespace}"
    made = workload(
        look.namespace, "w", url, replicas=2, timeout_seconds=1, fallback=case.fallback, **case.model
    )
    await look.create(INFERENCE_WORKLOADS, made)

    async def told(kind: str = "ModelProfiled") -> dict[str, Any]:
        condition = await look.condition("w", kind)
        return condition if case.words[0] in condition.get("message", "") else {}

    async def read_thrice() -> bool:
        return any(f"{url}: " in line and "(attempt 3)" in line for line in operator.log_text.splitlines())

    condition = await until(told, f"the reason {case.reason}", 120)
    assert (condition["status"], condition["reason"]) == ("False", case.reason)
    for word in case.words:
        assert word in condition["message"]
    await until(read_thrice, "two more readings", 120)

    (event,) = await look.told_of("ModelUnreadable", "w")
    assert event["regarding"]["kind"] == "InferenceWorkload"
    assert event["type"] == "Warning"
    assert all(word in event["note"] for word in case.words)
    # The pods' time was up before the model was read: what came of it replaces that it was being read.
    placed = await until(partial(told, "Placed"), "the real reason in condition Placed")
    assert placed["status"] == "False"
    if case.fallback == "Hold":
        assert placed["reason"] == case.reason
        await _assert_held(look, case)
    else:
        assert placed["reason"] == "FellBack"
        await _assert_let_go(look)
    told_of_workload = [each for each in await look.all_events() if each["regarding"]["name"] == "w"]
    assert [each["reason"] for each in told_of_workload] == ["ModelUnreadable"]
    assert operator.running
    assert "Traceback" not in operator.log_text


async def _assert_held(look: Look, case: Case) -> None:
    """Both pods wait at the gate, and each was told why, once."""
    for pod in await look.pods():
        assert gated(pod)
        (held,) = await look.told_of("Held", pod["metadata"]["name"])
        assert all(word in held["note"] for word in case.words)


async def _assert_let_go(look: Look) -> None:
    """Both pods are the default scheduler's, and each was told so, once, in words that stay true."""
    for pod in await until(lambda: look.bound_pods(2), "two pods let go"):
        assert NODE_ANNOTATION not in pod["metadata"]["annotations"]
        (event,) = await look.told_of("FellBack", pod["metadata"]["name"])
        assert "is being read" not in event["note"]


async def test_dynamic_axes_with_their_shapes_given_are_counted(
    look: Look, operator: Operator, models: str
) -> None:
    shapes = [{"name": "x0", "dimensions": [1, 32, 56, 56]}]
    made = workload(look.namespace, "w", f"{models}/dynamic.onnx", replicas=1, inputShapes=shapes)
    await look.create(INFERENCE_WORKLOADS, made)
    (pod,) = await until(lambda: look.bound_pods(1), "a bound pod", 120)
    assert NODE_ANNOTATION in pod["metadata"]["annotations"]
    assert operator.running
