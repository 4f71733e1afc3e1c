"""What is set aside lasts as long as was said, and outlives the process that said it."""

from datetime import UTC, datetime, timedelta

from tailwise.api.inference_workload_status import MAX_AVOIDED_NODES, AvoidedNode, InferenceWorkloadStatus
from tailwise.cluster.reflector import Key
from tailwise.controllers.registry import KnownWorkload
from tailwise.controllers.rests import Rests

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOON, LATER = NOW + timedelta(minutes=1), NOW + timedelta(minutes=5)
W = Key("default", "w")


def known(status: InferenceWorkloadStatus) -> KnownWorkload:
    return KnownWorkload(W, "uid", 1, None, status)


def test_a_node_is_set_aside_until_its_time() -> None:
    rests = Rests()
    rests.avoid(W, "a", SOON)
    rests.avoid(W, "b", LATER)
    assert rests.set_aside(W, NOW) == {"a", "b"}
    assert rests.set_aside(W, SOON) == {"b"}
    assert rests.set_aside(Key("default", "another"), NOW) == frozenset()
    assert rests.avoided(W, SOON) == (AvoidedNode(node="b", until=LATER),)
    assert rests.avoided(W, LATER) == ()


def test_the_next_process_reads_it_from_the_status_and_keeps_what_it_knows_better() -> None:
    first, second = Rests(), Rests()
    first.avoid(W, "a", SOON)
    first.moved(W, NOW)
    status = InferenceWorkloadStatus(
        avoided_nodes=first.avoided(W, NOW), last_moved_at=first.last_moved_at(W)
    )
    second.avoid(W, "a", LATER)
    second.recover([known(status), known(InferenceWorkloadStatus())])
    assert second.avoided(W, NOW) == (AvoidedNode(node="a", until=LATER),)
    assert second.moves == {W: NOW}
    second.forget(W)
    assert not second.set_aside(W, NOW)
    assert not second.moves


def test_the_status_holds_those_that_last_longest() -> None:
    rests = Rests()
    for number in range(MAX_AVOIDED_NODES + 4):
        rests.avoid(W, f"n{number:02}", NOW + timedelta(minutes=number + 1))
    kept = [each.node for each in rests.avoided(W, NOW)]
    assert kept == [f"n{number:02}" for number in range(4, MAX_AVOIDED_NODES + 4)]
    assert len(rests.set_aside(W, NOW)) == MAX_AVOIDED_NODES + 4
