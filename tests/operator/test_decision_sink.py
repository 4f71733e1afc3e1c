"""Decisions as JSON Lines in a file: one line for each thing that happens, none lost while a disk is full."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tailwise.api.inference_workload_status import PredictionSource
from tailwise.cli.main import main
from tailwise.controllers import decision_sink
from tailwise.controllers.decision_sink import DecisionSink, writer_of
from tailwise.controllers.ledger import Happened
from tailwise.domain.ledger import Alternative, Entry, Outcome

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def entry(uid: str = "u", **fields: Any) -> Entry:
    other = Alternative("n2", 45.0, 50.0, PredictionSource.LEARNED)
    known: dict[str, Any] = {
        "predicted_p90_milliseconds": 40.0,
        "bound_milliseconds": 48.0,
        "slo_milliseconds": 60.0,
        "alternatives": (other,),
    }
    source = PredictionSource.LEARNED
    return Entry(uid, "shop", "iris-1", "iris", "n1", NOON, "default", 3, source, **known | fields)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


async def test_a_line_tells_the_decision_its_alternatives_and_its_outcome(tmp_path: Path) -> None:
    file = tmp_path / "kept" / "decisions.jsonl"
    sink = DecisionSink(writer_of(str(file)), "operator-1")
    sink.told(Happened.DECIDED, entry())
    assert await sink.flush()
    sink.told(Happened.OBSERVED, entry(outcome=Outcome(50.0, 300.0, NOON, NOON)))
    assert await sink.flush()
    assert await sink.flush()  # nothing new
    decided, observed = lines(file)
    assert decided["event"] == "Decided"
    assert decided["alternatives"][0]["node"] == "n2"
    assert "observedP90Milliseconds" not in decided
    assert (observed["event"], observed["observedP90Milliseconds"]) == ("Observed", 50.0)
    assert observed["error"] == pytest.approx(0.25)
    assert observed["exceeded"]


async def test_what_cannot_be_written_waits_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "in-the-way"
    blocked.write_text("a file where a directory should be")
    sink = DecisionSink(writer_of(f"file://{blocked}/decisions.jsonl"), "operator-1")
    for uid in ("a", "b"):
        sink.told(Happened.DECIDED, entry(uid))
        assert not await sink.flush()
    assert caplog.text.count("decisions cannot be written") == 1
    blocked.unlink()
    sink.told(Happened.DECIDED, entry("c"))
    assert await sink.flush()
    assert [each["uid"] for each in lines(blocked / "decisions.jsonl")] == ["a", "b", "c"]
    assert sink.lost == 0


async def test_what_waits_is_bounded_and_the_oldest_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_sink, "MOST_WAITING", 3)
    file = tmp_path / "decisions.jsonl"
    sink = DecisionSink(writer_of(str(file)), "operator-1")
    for uid in "abcde":
        sink.told(Happened.DECIDED, entry(uid))
    assert await sink.flush()
    assert [each["uid"] for each in lines(file)] == ["c", "d", "e"]
    assert sink.lost == 2


async def test_a_large_file_is_moved_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_sink, "MOST_FILE_BYTES", 1500)
    file = tmp_path / "decisions.jsonl"
    sink = DecisionSink(writer_of(str(file)), "operator-1")
    for uid in "abcdef":
        sink.told(Happened.DECIDED, entry(uid))
        assert await sink.flush()
    before, now = lines(tmp_path / "decisions.jsonl.1"), lines(file)
    assert [each["uid"] for each in (*before, *now)] == list("abcdef")[-len(before) - len(now) :]
    assert now[-1]["uid"] == "f"


async def test_an_operator_that_ends_writes_what_still_waits(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    sink = DecisionSink(writer_of(str(file)), "operator-1", flush_seconds=3600)
    running = asyncio.create_task(sink.run())
    await asyncio.sleep(0)
    sink.told(Happened.DECIDED, entry())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(lines(file)) == 1


def test_a_target_that_nobody_can_write_to_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["operator", "--decisions-to", "ftp://somewhere/decisions"])
    assert ended.value.code == 2
    assert "ftp://somewhere/decisions" in capsys.readouterr().err
