"""Documents read what the API server sends and write what it takes."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from tailwise.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from tailwise.api.inference_workload import InferenceWorkload
from tailwise.api.inference_workload_status import InferenceWorkloadStatus
from tailwise.api.labels import hardware_config_map_name

MANIFEST = {
    "apiVersion": "tailwise.dev/v1alpha1",
    "kind": "InferenceWorkload",
    "metadata": {"name": "w", "namespace": "n", "uid": "u", "managedFields": [{"manager": "kubectl"}]},
    "spec": {
        "model": {"url": "https://models.example/m.onnx"},
        "slo": {"latencyMilliseconds": 50},
        "template": {
            "metadata": {"labels": {"a": "b"}, "creationTimestamp": None},
            "spec": {"containers": [{"name": "server", "image": "i", "anythingNew": 1}], "hostNetwork": True},
        },
    },
}


def test_a_pod_template_is_taken_as_it_is() -> None:
    template = InferenceWorkload.model_validate(MANIFEST).spec.template
    assert template is not None
    assert template.spec == MANIFEST["spec"]["template"]["spec"]  # type: ignore[index]
    assert template.metadata.labels == {"a": "b"}


def test_an_unknown_field_of_the_spec_is_an_error_not_ignored() -> None:
    spec = MANIFEST["spec"] | {"priority": 5}  # type: ignore[operator]
    with pytest.raises(ValidationError, match="priority"):
        InferenceWorkload.model_validate(MANIFEST | {"spec": spec})


def test_a_status_of_a_newer_version_can_still_be_read() -> None:
    status = InferenceWorkloadStatus.model_validate({"replicas": 2, "somethingNew": {"a": 1}})
    assert status.replicas == 2


def test_times_are_written_in_whole_seconds_of_utc() -> None:
    east = timezone(timedelta(hours=2))
    condition = Condition(
        type=ConditionType.READY,
        status=ConditionStatus.TRUE,
        reason=Reason.SERVING,
        last_transition_time=datetime(2030, 1, 2, 3, 4, 5, 678_900, tzinfo=east),
    )
    written = condition.model_dump(mode="json", exclude_none=True)
    assert written["lastTransitionTime"] == "2030-01-02T01:04:05Z"
    assert Condition.model_validate(written).last_transition_time == datetime(2030, 1, 2, 1, 4, 5, tzinfo=UTC)


def test_a_nodes_config_map_has_the_name_that_the_admission_policy_expects() -> None:
    assert hardware_config_map_name("node-1") == "tailwise-hardware-node-1"
