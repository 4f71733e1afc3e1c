"""Who is told of a profile, and when one is forgotten."""

from __future__ import annotations

from tailwise.cluster.reflector import Key
from tailwise.controllers.askers import Askers
from tailwise.controllers.profiles import ProfileQuestion

FIRST, SECOND = Key("default", "first"), Key("default", "second")


def question(url: str) -> ProfileQuestion:
    return ProfileQuestion(url, "ONNX", None, (), 1)


def test_all_who_ask_one_question_are_told() -> None:
    askers = Askers()
    for key in (FIRST, SECOND):
        assert askers.put(key, question("https://models.example/a")) is None
    assert set(askers.of(question("https://models.example/a"))) == {FIRST, SECOND}
    assert list(askers.of(question("https://models.example/b"))) == []


def test_a_profile_is_forgotten_with_the_last_who_asked_for_it() -> None:
    askers, asked = Askers(), question("https://models.example/a")
    askers.put(FIRST, asked)
    askers.put(SECOND, asked)
    assert askers.put(FIRST, None) is None
    assert askers.put(SECOND, None) == asked
    assert askers.put(SECOND, None) is None


def test_a_workload_that_asks_something_else_leaves_its_question() -> None:
    askers, before, after = (
        Askers(),
        question("https://models.example/a"),
        question("https://models.example/b"),
    )
    askers.put(FIRST, before)
    assert askers.put(FIRST, before) is None
    assert askers.put(FIRST, after) == before
    assert list(askers.of(after)) == [FIRST]
