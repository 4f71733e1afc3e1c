"""An inspection Job's answer fits into a termination message, whatever it is."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from tailwise.api.profile import FlopsByKind, ModelProfile, UnresolvedOperator
from tailwise.models.errors import DigestMismatch, InspectionJobFailed, ModelNotFound
from tailwise.models.inspection import ChildAnswer
from tailwise.models.report import MOST_BYTES, answer_of, report


def profile(operators: int = 3, unresolved: int = 0) -> ModelProfile:
    words = random.Random(0)  # noqa: S311 -- repeatable, not secret

    def name() -> str:
        return "".join(words.choices("abcdefghijklmnopqrstuvwxyz", k=60))

    return ModelProfile(
        flops=2**50,
        flops_by_kind=FlopsByKind(convolution=2**50),
        multiply_accumulates=2**49,
        parameters=2**30,
        parameter_bytes=2**32,
        operators={name(): 7 for _ in range(operators)},
        unresolved=tuple(
            UnresolvedOperator(node=name(), operator=name(), reason=name() * 2) for _ in range(unresolved)
        ),
        unresolved_count=unresolved,
        digest="a" * 64,
        digest_source="ETag",
    )


@pytest.mark.parametrize(("operators", "unresolved"), [(3, 0), (40, 5), (512, 64)])
def test_a_profile_comes_back_with_all_its_figures(operators: int, unresolved: int) -> None:
    given = profile(operators, unresolved)
    message = report(ChildAnswer(profile=given))
    assert len(message) <= MOST_BYTES
    back = answer_of(message.decode("ascii"))
    same = {"operators": back.operators, "unresolved": back.unresolved}
    assert back == given.model_copy(update=same)
    assert back.unresolved_count == unresolved
    if operators < 10:
        assert back == given


def test_an_error_comes_back_as_itself() -> None:
    with pytest.raises(DigestMismatch, match="another") as raised:
        answer_of(
            report(
                ChildAnswer(reason="DigestMismatch", field="spec.model.sha256", message="another")
            ).decode()
        )
    assert raised.value.field == "spec.model.sha256"


def test_an_error_of_any_length_fits() -> None:
    words = random.Random(1)  # noqa: S311 -- repeatable, not secret
    message = "".join(words.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=20_000))
    told = report(ChildAnswer(reason="ModelNotFound", message=message))
    assert len(told) <= MOST_BYTES
    with pytest.raises(ModelNotFound):
        answer_of(told.decode())


@pytest.mark.parametrize("message", ["", "exit code 137, OOMKilled", "zlib:!!", "zlib:00000", "{}x", "[1]"])
def test_what_is_no_answer_is_told_with_its_words(message: str) -> None:
    with pytest.raises(InspectionJobFailed):
        answer_of(message)


def test_a_process_that_gave_up_its_network_has_none_and_starts_nothing() -> None:
    code = """
import socket, subprocess, threading, time
from tailwise.models.sandbox import give_up_network
threading.Thread(target=time.sleep, args=(3,), daemon=True).start()
one, _ = socket.socketpair()
assert give_up_network()
def refused(action):
    try:
        action()
    except OSError:
        return True
    return False
seen = []
def look():
    seen.extend([refused(socket.socket), refused(lambda: one.send(b"x")),
                 refused(lambda: subprocess.run(["/bin/true"])),
                 refused(lambda: socket.create_connection(("127.0.0.1", 9)))])
look()
other = threading.Thread(target=look)
other.start()
other.join()
print(seen == [True] * 8)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr
