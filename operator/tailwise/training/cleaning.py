"""Raw rows become a dataset: what cannot be used is dropped and counted by reason, never mended in silence.

In: mappings from column names (``schema``) to values, as files or Prometheus give them. Out: ``Cleaned``.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from tailwise.api.document import Document
from tailwise.api.hardware import NodeHardware
from tailwise.api.profile import ModelProfile
from tailwise.prediction.prediction import Serving
from tailwise.prediction.quota import nearest_rank
from tailwise.training.rows import Dataset, DropReason, Row, dataset_of

MIN_QUERIES = 10
"""A P90 by nearest rank needs ten values to be other than their maximum."""

_LATEST_SECONDS_AHEAD = 60.0
_EARLIEST = datetime(2015, 1, 1, tzinfo=UTC).timestamp()
_LONGEST_MILLISECONDS = 86_400_000.0
D = TypeVar("D", bound=Document)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What can be used, and how many rows were dropped for which reason.

    ``examples`` tells for each reason what was wrong with the first row it struck; ``kept`` are the places of
    the raw rows that can be used, from 0, in their order.
    """

    dataset: Dataset
    dropped: Mapping[DropReason, int]
    examples: Mapping[DropReason, str]
    kept: tuple[int, ...] = ()


class _Dropped(Exception):  # noqa: N818 - control flow of this module, no error of the program
    def __init__(self, reason: DropReason, example: str) -> None:
        super().__init__(example)
        self.reason = reason


@dataclass(slots=True)
class Documents:
    """Profiles and nodes that were read already: rows repeat them."""

    _known: dict[tuple[type[Document], str], Document | str] = field(default_factory=dict)

    def read(self, kind: type[D], value: Any, column: str) -> D:
        """Read one; raises _Dropped with what is wrong."""
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        known = self._known.get((kind, text))
        if known is None:
            try:
                known = kind.model_validate_json(text)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                known = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
            self._known[kind, text] = known
        if isinstance(known, str):
            raise _Dropped(DropReason.UNREADABLE, f"column {column}: {known}")
        return known  # type: ignore[return-value]  # the key holds its type


def clean(rows: Iterable[Mapping[str, Any]], *, now: datetime, name: str = "row") -> Cleaned:
    """Read raw rows, in the order given; of duplicates the first is kept.

    ``name`` is what the examples call the rows' origin. Raises nothing for what a row holds.
    """
    kept: dict[tuple[float, str, str, str], Row] = {}
    places: list[int] = []
    dropped: Counter[DropReason] = Counter()
    examples: dict[DropReason, str] = {}
    documents = Documents()
    for place, raw in enumerate(rows, start=1):
        try:
            row = _row(raw, documents, now.timestamp())
            key = (row.time, row.workload, row.pod, row.hardware.node)
        except _Dropped as drop:
            dropped[drop.reason] += 1
            examples.setdefault(drop.reason, f"{name} {place}: {drop}")
            continue
        if key in kept:
            dropped[DropReason.DUPLICATE] += 1
            told = f"{name} {place}: same time, workload, pod and node as an earlier row"
            examples.setdefault(DropReason.DUPLICATE, told)
        else:
            kept[key] = row
            places.append(place - 1)
    return Cleaned(dataset_of(list(kept.values())), dict(dropped), examples, tuple(places))


def _row(raw: Mapping[str, Any], documents: Documents, now: float) -> Row:
    time = _time(raw.get("time"), now)
    profile = documents.read(ModelProfile, _present(raw, "profile"), "profile")
    hardware = documents.read(NodeHardware, _present(raw, "hardware"), "hardware")
    limit = _integer(raw, "cpu_limit_millicores", least=0)
    rate = _number(raw, "requests_per_second")
    p90, queries = _p90(raw)
    return Row(
        time=time,
        profile=profile,
        hardware=hardware,
        serving=Serving(
            cpu_limit_millicores=limit or None,
            threads=_integer(raw, "threads", least=1) or 1,
            batch_size=profile.batch_size,
            concurrency=_integer(raw, "concurrency", least=1) or 1,
            requests_per_second=coarse_rate(rate) if rate else None,
            cpu_request_millicores=_integer(raw, "cpu_request_millicores", least=0) or 0,
            overhead_milliseconds=_number(raw, "server_overhead_milliseconds") or 0.0,
        ),
        cpu_utilisation=_others(raw, hardware),
        frequency_utilisation=_share(raw, "frequency_utilisation"),
        p90_milliseconds=p90,
        queries=queries,
        workload=str(raw.get("workload") or ""),
        pod=str(raw.get("pod") or ""),
        family=str(raw.get("family") or ""),
        source=str(raw.get("source") or ""),
        window_seconds=_number(raw, "window_seconds"),
        throttled_share=_share(raw, "throttled_share"),
    )


def coarse_rate(requests_per_second: float) -> float:
    """A rate to within 2.5 %: an observed rate is no better known, and rows of one rate share their prior."""
    step = math.log(1.05)
    return float(f"{math.exp(round(math.log(requests_per_second) / step) * step):.6g}")


def _present(raw: Mapping[str, Any], name: str) -> Any:
    value = raw.get(name)
    if value is None or value == "":
        raise _Dropped(DropReason.UNREADABLE, f"column {name} is missing")
    return value


def _time(value: Any, now: float) -> float:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise _Dropped(DropReason.UNREADABLE, f"column time: {value!r} is not RFC 3339") from None
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _Dropped(DropReason.UNREADABLE, "column time is missing")
    if math.isnan(value):
        raise _Dropped(DropReason.NOT_A_NUMBER, "column time is NaN")
    if not _EARLIEST <= value <= now + _LATEST_SECONDS_AHEAD:
        raise _Dropped(DropReason.CLOCK_SKEW, f"time {value:.0f} lies before 2015 or in the future")
    return float(value)


def _number(raw: Mapping[str, Any], name: str) -> float | None:
    value = raw.get(name)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise _Dropped(DropReason.NOT_A_NUMBER, f"column {name}: {value!r} is no number") from None
    if not math.isfinite(number):
        raise _Dropped(DropReason.NOT_A_NUMBER, f"column {name} is {number}")
    if number < 0:
        raise _Dropped(DropReason.NEGATIVE, f"column {name} is {number:g}")
    return number


def _integer(raw: Mapping[str, Any], name: str, least: int) -> int | None:
    number = _number(raw, name)
    if number is None:
        return None
    if number != int(number) or number < least:
        raise _Dropped(
            DropReason.OUT_OF_RANGE, f"column {name} is {number:g}: a whole number from {least} up"
        )
    return int(number)


def _share(raw: Mapping[str, Any], name: str) -> float | None:
    share = _number(raw, name)
    if share is not None and share > 1:
        raise _Dropped(DropReason.OUT_OF_RANGE, f"column {name} is {share:g}: a share is at most 1")
    return share


def _others(raw: Mapping[str, Any], hardware: NodeHardware) -> float:
    """U_C without what the pod itself used, which was not there when it was placed."""
    used = _number(raw, "cpu_utilisation")
    if used is None:
        raise _Dropped(DropReason.GAP, "column cpu_utilisation is missing: the node's load is not known")
    if used > 1.5:  # rates extrapolate a little above 1
        raise _Dropped(DropReason.OUT_OF_RANGE, f"column cpu_utilisation is {used:g}: a share, not cores")
    own = _number(raw, "pod_cpu_cores") or 0.0
    return min(1.0, max(0.0, used - own / hardware.capacity_cores))


def _p90(raw: Mapping[str, Any]) -> tuple[float, int | None]:
    """P90 in milliseconds and the number of queries behind it: from latencies, buckets, or as given."""
    queries = _integer(raw, "queries", least=0)
    latencies = raw.get("latencies_milliseconds")
    if latencies is not None and len(latencies):
        values = _floats(latencies, "latencies_milliseconds")
        if len(values) < MIN_QUERIES:
            raise _Dropped(DropReason.TOO_FEW_QUERIES, f"{len(values)} latencies, {MIN_QUERIES} are needed")
        return _plausible(float(nearest_rank(values, 0.9))), len(values)
    if raw.get("bucket_counts") is not None:
        counts = _floats(raw["bucket_counts"], "bucket_counts")
        value = bucket_quantile(_bounds(raw.get("bucket_bounds_milliseconds")), counts, 0.9)
        return _plausible(value), int(counts[-1])
    if queries is not None and queries < MIN_QUERIES:
        raise _Dropped(DropReason.TOO_FEW_QUERIES, f"{queries} queries, {MIN_QUERIES} are needed")
    given = _number(raw, "p90_milliseconds")
    if given is None:
        raise _Dropped(DropReason.NO_LATENCY, "no latencies, no buckets, no p90_milliseconds")
    return _plausible(given), queries


def _plausible(p90: float) -> float:
    if p90 <= 0:
        raise _Dropped(DropReason.NEGATIVE, "the P90 is 0 or less")
    if p90 > _LONGEST_MILLISECONDS:
        raise _Dropped(DropReason.OUT_OF_RANGE, f"the P90 is {p90:g} ms, above a day")
    return p90


def _floats(values: Any, name: str) -> Any:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise _Dropped(DropReason.NOT_A_NUMBER, f"column {name} holds what is no number") from None
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise _Dropped(DropReason.NOT_A_NUMBER, f"column {name} holds NaN, an infinity, or nothing")
    if (array < 0).any():
        raise _Dropped(DropReason.NEGATIVE, f"column {name} holds {array.min():g}")
    return array


def _bounds(values: Any) -> Any:
    bounds = np.array(
        [math.inf if value in (None, "Infinity", "+Inf") else float(value) for value in values or ()]
    )
    if not len(bounds) or np.isnan(bounds).any() or (np.diff(bounds) <= 0).any() or bounds[0] < 0:
        raise _Dropped(DropReason.OUT_OF_RANGE, "column bucket_bounds_milliseconds does not ascend from 0")
    return bounds


def bucket_quantile(bounds: Any, counts: Any, share: float) -> float:
    """Quantile of summed, cumulative buckets by interpolation within one, as PromQL's histogram_quantile.

    Raises _Dropped: fewer queries than ``MIN_QUERIES``, counts that fall (a counter was reset), or a quantile
    beyond the last finite bound.
    """
    if len(bounds) != len(counts):
        raise _Dropped(DropReason.OUT_OF_RANGE, f"{len(counts)} bucket counts for {len(bounds)} bounds")
    if (np.diff(counts) < 0).any():
        raise _Dropped(DropReason.RESET, "bucket counts fall from a bound to the next: a counter was reset")
    if counts[-1] < MIN_QUERIES:
        raise _Dropped(DropReason.TOO_FEW_QUERIES, f"{counts[-1]:g} queries, {MIN_QUERIES} are needed")
    rank = share * counts[-1]
    place = int(np.searchsorted(counts, rank, side="left"))
    if math.isinf(bounds[place]):
        raise _Dropped(DropReason.ABOVE_BUCKETS, f"the P90 is above the last bound, {bounds[place - 1]:g} ms")
    low, below = (bounds[place - 1], counts[place - 1]) if place else (0.0, 0.0)
    return float(low + (bounds[place] - low) * (rank - below) / max(counts[place] - below, 1e-12))
