"""How much of a model is read, and how long it takes: near, far, and beside a download of the whole file.

The server runs in this process, paced and delayed by itself; the reader is a process of its own, as in the
operator. A whole download ends, like a reading, with the graph in hand: what is received is walked in memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.models import rehydrate
from tests.models.store import Store, serving

NEAR = ("resnet50", "vgg16")
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Link:
    """A way to a store: how long until an answer begins, and how fast it comes; None: as fast as may be."""

    name: str
    delay_seconds: float = 0.0
    bytes_per_second: float | None = None


LOOPBACK = Link("loopback")
SLOW = Link("30 ms, 100 Mbit/s", 0.030, 12.5e6)
FAST = Link("30 ms, 1 Gbit/s", 0.030, 125e6)


@dataclass(frozen=True, slots=True)
class NearReading:
    """Reading and counting in the child process, imports apart; medians of the rounds."""

    model: str
    file_bytes: int
    bytes_read: int
    requests: int
    read_and_count_milliseconds: float
    read_milliseconds: float
    resident_mebibytes: float


@dataclass(frozen=True, slots=True)
class FarReading:
    """Reading the graph beside downloading the file, over one link; medians of the rounds."""

    model: str
    link: str
    file_bytes: int
    bytes_read: int
    requests: int
    read_milliseconds: float
    whole_milliseconds: float

    @property
    def speedup(self) -> float:
        """How many times faster than the whole download."""
        return self.whole_milliseconds / self.read_milliseconds


def near(models: Sequence[str], rounds: int, tell: Callable[[str], None]) -> list[NearReading]:
    """ResNet-50 and its like from a server on loopback, each round in a process of its own."""
    out = []
    tell(
        f"{'model':24} {'file MB':>8} {'read MB':>8} {'requests':>8} {'read ms':>8} {'+ count':>8} {'MiB':>6}"
    )
    for model in models:
        with _served(model, LOOPBACK) as (store, size):
            figures = []
            for _ in range(rounds):
                store.requests = 0
                figures.append({**_child("near", store.url, "1"), "requests": store.requests // 2})
        row = NearReading(
            model,
            size,
            int(_median(figures, "bytes")),
            int(_median(figures, "requests")),
            round(_median(figures, "all"), 1),
            round(_median(figures, "read"), 1),
            round(_median(figures, "resident"), 1),
        )
        tell(
            f"{model:24} {size / 1e6:8.1f} {row.bytes_read / 1e6:8.2f} {row.requests:8} "
            f"{row.read_milliseconds:8.1f} {row.read_and_count_milliseconds:8.1f} "
            f"{row.resident_mebibytes:6.1f}"
        )
        out.append(row)
    return out


def far(models: Sequence[str], link: Link, rounds: int, tell: Callable[[str], None]) -> list[FarReading]:
    """Each model over a link, in turn with the download of its file."""
    out = []
    titles = f"{'model':24} {'file MB':>8} {'read MB':>8} {'requests':>8}"
    tell(f"{titles} {'read ms':>9} {'whole ms':>9} {'times':>6}")
    for model in models:
        with _served(model, link) as (store, size):
            found = _child("far", store.url, str(rounds))
        row = FarReading(
            model,
            link.name,
            size,
            int(found["bytes"]),
            store.requests // rounds - 1,
            round(found["read"], 1),
            round(found["whole"], 1),
        )
        tell(
            f"{model:24} {size / 1e6:8.1f} {row.bytes_read / 1e6:8.2f} {row.requests:8} "
            f"{row.read_milliseconds:9.1f} {row.whole_milliseconds:9.1f} {row.speedup:6.2f}"
        )
        out.append(row)
    return out


def measure(rounds: int, tell: Callable[[str], None]) -> dict[str, object]:
    """All of it; the figures as JSON has them."""
    found = near(NEAR, rounds, tell)
    tell(f"\n{SLOW.name}")
    slow = far(("resnet50",), SLOW, rounds, tell)
    tell(f"\n{FAST.name}")
    fast = far(all_models(), FAST, rounds, tell)
    return {
        "near": [asdict(each) for each in found],
        "far": [asdict(each) | {"speedup": round(each.speedup, 2)} for each in (*slow, *fast)],
    }


@contextmanager
def _served(model: str, link: Link) -> Iterator[tuple[Store, int]]:
    content = bytes(rehydrate.rehydrated(model).SerializeToString())
    store = Store(
        files={"/model.onnx": content},
        delay_seconds=link.delay_seconds,
        bytes_per_second=link.bytes_per_second,
    )
    with serving(store):
        yield store, len(content)


def _median(figures: Sequence[dict[str, float]], key: str) -> float:
    return sorted(each[key] for each in figures)[len(figures) // 2]


def _child(kind: str, url: str, rounds: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.reading_child", kind, f"{url}/model.onnx", rounds]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[2:])} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def all_models() -> list[str]:
    """Every model of tests/models."""
    return sorted(path.name.partition(".")[0] for path in (_ROOT / "tests/models").glob("*.onnx.skel.gz"))
