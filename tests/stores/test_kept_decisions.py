"""Decisions kept in a bucket: each flush is an object of its own, under a prefix."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import obstore
import pytest

from tailwise.controllers.decision_sink import DecisionSink, writer_of
from tailwise.controllers.ledger import Happened
from tailwise.domain.ledger import Entry
from tailwise.models.object_store import store_of


def entry(uid: str) -> Entry:
    return Entry(
        uid,
        "shop",
        f"pod-{uid}",
        "iris",
        "n1",
        datetime(2026, 1, 1, tzinfo=UTC),
        "default",
        0,
        None,
        40.0,
        48.0,
        60.0,
    )


async def test_decisions_are_written_as_objects_that_sort_by_time(
    s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    sink = DecisionSink(writer_of("s3://models/decisions/", s3), "operator-1")
    for uid in ("a", "b"):
        sink.told(Happened.DECIDED, entry(uid))
        assert await sink.flush()
    store, *_ = store_of("s3://models/x", s3)
    paths = sorted(each["path"] for page in obstore.list(store, "decisions/") for each in page)
    assert len(paths) == 2
    assert all(
        path.startswith("decisions/decisions-20") and path.endswith("-operator-1.jsonl") for path in paths
    )
    told = [json.loads(bytes(obstore.get(store, path).bytes())) for path in paths]
    assert [each["uid"] for each in told] == ["a", "b"]


async def test_a_bucket_that_is_not_there_is_told_and_the_lines_wait(
    s3: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    sink = DecisionSink(writer_of("s3://no-such-bucket/decisions", s3), "operator-1")
    sink.told(Happened.DECIDED, entry("a"))
    assert not await sink.flush()
    assert "bucket no-such-bucket" in caplog.text
