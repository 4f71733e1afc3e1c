"""A move by one pod more: nobody goes before as many others as are asked for serve."""

from datetime import timedelta
from typing import Any

import pytest

from tailwise.domain.objects import Pod
from tailwise.domain.parse import pod_from_object
from tailwise.domain.relocation import Move
from tailwise.domain.surge import LONGEST, Surge, SurgeStep, newcomers, surge_step
from tests.unit.domain.builders import pod_object
from tests.unit.domain.test_relocation import START, standpoint

PLACED = {"tailwise.dev/placement-result": "Placed", "tailwise.dev/node": "b"}
FELL_BACK = {"tailwise.dev/placement-result": "Fallback"}
SURGE = Surge(Move(standpoint("uid-old"), START), frozenset({"uid-old", "uid-other"}), 2, START)


def a_pod(
    name: str, node: str = "", *, ready: bool = True, ending: bool = False, result: Any = PLACED
) -> Pod:
    made = pod_object(
        name, gates=() if node else ("tailwise.dev/placement",), nodeName=node, annotations=result
    )
    ready_now = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    made["status"] = {"conditions": [ready_now] if ready and node else []}
    if ending:
        made["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return pod_from_object(made)


OLD, OTHER, NEW = a_pod("old", "a"), a_pod("other", "c"), a_pod("new", "b")


@pytest.mark.parametrize(
    ("pods", "step"),
    [
        ((OLD, OTHER), SurgeStep.WAIT),
        ((OLD, OTHER, a_pod("new")), SurgeStep.WAIT),
        ((OLD, OTHER, a_pod("new", "b", ready=False)), SurgeStep.WAIT),
        ((OLD, OTHER, NEW), SurgeStep.EVICT),
        # As many as are asked for must be ready without the one that goes.
        ((OLD, a_pod("other", "c", ready=False), NEW), SurgeStep.WAIT),
        ((OLD, a_pod("other", "c", ending=True), NEW), SurgeStep.WAIT),
        # Where a fallback let the newcomer, or on the very node that is to be left, nothing is gained.
        ((OLD, OTHER, a_pod("new", "b", result=FELL_BACK)), SurgeStep.WAIT),
        ((OLD, OTHER, a_pod("new", "a")), SurgeStep.WAIT),
        ((OTHER, NEW), SurgeStep.END),
        ((a_pod("old", "a", ending=True), OTHER, NEW), SurgeStep.END),
    ],
)
def test_the_pod_that_moves_goes_when_the_others_are_enough(pods: tuple[Pod, ...], step: SurgeStep) -> None:
    assert surge_step(SURGE, pods, 2, START + timedelta(seconds=30)) is step


def test_a_surge_that_leads_nowhere_is_taken_back() -> None:
    waiting = (OLD, OTHER, a_pod("new"))
    assert surge_step(SURGE, waiting, 2, START + LONGEST - timedelta(seconds=1)) is SurgeStep.WAIT
    assert surge_step(SURGE, waiting, 2, START + LONGEST) is SurgeStep.TAKE_BACK
    assert [pod.uid for pod in newcomers(SURGE, waiting)] == ["uid-new"]


def test_a_workload_that_is_scaled_meanwhile_ends_its_surge() -> None:
    assert surge_step(SURGE, (OLD, OTHER, NEW), 3, START) is SurgeStep.END
