"""Pods that are alike and fit nowhere are one question, and none of them is forgotten."""

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tailwise.cluster.reflector import Key
from tailwise.controllers.waiting_pods import WaitingPods, likeness
from tailwise.domain.objects import Owner
from tests.unit.domain.builders import pod


def key(number: int) -> Key:
    return Key("default", f"p{number}")


def owned(kind: str, name: str = "r", generation: int = 1, **fields: Any) -> Hashable:
    return likeness(replace(pod(), owner=Owner(kind, name, f"uid-{name}"), **fields), generation)


def test_only_pods_of_one_replica_set_that_ask_the_same_are_alike() -> None:
    assert owned("ReplicaSet") == owned("ReplicaSet", uid="another")
    assert owned("ReplicaSet") != owned("ReplicaSet", name="other")
    assert owned("ReplicaSet") != owned("ReplicaSet", requests={"cpu": 7})
    assert owned("StatefulSet") != owned("StatefulSet", uid="another")
    assert owned("ReplicaSet") != owned("ReplicaSet", generation=2), "the workload changed in between"


def test_one_of_those_alike_is_tried_for_all_and_the_others_get_its_answer_for_a_second() -> None:
    now = [100.0]
    waiting: WaitingPods[str] = WaitingPods(clock=lambda: now[0])
    assert waiting.add(key(0), "alike")
    waiting.refused_one("alike", "no node")
    assert waiting.answer(key(0), "alike") is None
    assert waiting.answer(key(1), "alike") == "no node"
    assert not waiting.add(key(1), "alike")
    assert waiting.add(key(2), "other")
    assert waiting.firsts() == (key(0), key(2))
    now[0] += 1.5
    assert waiting.answer(key(1), "alike") is None


def test_when_one_is_placed_the_next_are_tried_and_what_was_said_before_is_void() -> None:
    waiting: WaitingPods[str] = WaitingPods()
    for number in range(20):
        waiting.add(key(number), "alike")
    waiting.refused_one("alike", "no node")
    assert waiting.discard(key(0)) == key(1), "who is tried from now on"
    assert waiting.discard(key(5)) is None
    following = list(waiting.placed_one("alike"))
    assert following[0] == key(1)
    assert 1 < len(following) < 20
    assert waiting.answer(key(7), "alike") is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 2))))
def test_every_kind_of_waiting_pod_has_one_that_is_tried(steps: list[tuple[bool, int, int]]) -> None:
    waiting: WaitingPods[str] = WaitingPods()
    expected: dict[Key, int] = {}
    for adds, number, alike in steps:
        if adds:
            waiting.add(key(number), alike)
            expected[key(number)] = alike
        else:
            waiting.discard(key(number))
            expected.pop(key(number), None)
        assert len(waiting) == len(expected)
        assert all(each in waiting for each in expected)
        assert sorted(expected[each] for each in waiting.firsts()) == sorted(set(expected.values()))
