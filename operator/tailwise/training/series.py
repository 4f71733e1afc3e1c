"""Datasets before training: the log window of equation (15), and a set that is bounded and balanced."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tailwise.prediction.quota import FloatArray
from tailwise.training.rows import Dataset, DropReason, IndexArray

K = TypeVar("K", bound=Hashable)


def log_window(series: FloatArray, window: int) -> FloatArray:
    """Equation (15): ``M_i = 1 / min(w, i) sum_{j = max(1, i - w + 1)}^{i} log(S_j + 1)``.

    Shape as ``series``, which is in order of time.
    """
    logs = np.log1p(series)
    sums = np.concatenate([[0.0], np.cumsum(logs)])
    ends = np.arange(1, len(series) + 1)
    counts = np.minimum(ends, window)
    return np.asarray((sums[ends] - sums[ends - counts]) / counts)


def smoothed(dataset: Dataset, window: int) -> Dataset:
    """The dataset with each series' P90 smoothed by a log window, back in milliseconds: ``exp(M) - 1``.

    A series is what changes with time alone: one pod of one workload on one node, served the same way, under
    one class of load.
    """
    if window <= 1:
        return dataset
    values = dataset.p90_milliseconds.copy()
    for rows in groups(_series_keys(dataset)).values():
        values[rows] = np.expm1(log_window(values[rows], window))
    return replace(dataset, p90_milliseconds=values)


@dataclass(frozen=True, slots=True)
class Retained:
    """What is kept, and how many rows were left out because their cell is full."""

    dataset: Dataset
    dropped: Mapping[DropReason, int]


def retained(dataset: Dataset, max_rows_per_cell: int, max_rows: int) -> Retained:
    """At most so many rows a cell and in all, so that no cell outweighs the others.

    A cell is a profile, a class of nodes and a class of load (``load_class``). Of a full cell the newest row
    and others evenly spread over time stay. Where all cells together hold too many, the fullest lose first.
    """
    cells = groups(list(zip(dataset.profile_key, dataset.node_class, load_class(dataset), strict=True)))
    sizes = np.array([len(rows) for rows in cells.values()], dtype=np.int64)
    limit = min(max_rows_per_cell, _fair_limit(sizes, max_rows))
    kept = [rows[_spread(len(rows), limit)] for rows in cells.values()]
    order = np.sort(np.concatenate(kept)) if kept else np.empty(0, dtype=np.intp)
    dropped = len(dataset) - len(order)
    return Retained(dataset.take(order), {DropReason.CELL_FULL: dropped} if dropped else {})


def load_class(dataset: Dataset) -> list[tuple[object, ...]]:
    """Class of load of each row: utilisation by tenths, limit, threads, clients, rate by doublings."""
    tenths = np.minimum((dataset.cpu_utilisation * 10).astype(int), 9)
    servings = [
        (
            each.cpu_limit_millicores,
            each.threads,
            each.concurrency,
            None if each.requests_per_second is None else round(float(np.log2(each.requests_per_second))),
        )
        for each in dataset.servings
    ]
    return [(tenth, *servings[place]) for tenth, place in zip(tenths, dataset.serving_index, strict=True)]


def groups(keys: Iterable[K]) -> dict[K, IndexArray]:
    """Places of each distinct key, in the order of first appearance."""
    found: dict[K, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        found[key].append(place)
    return {key: np.array(places, dtype=np.intp) for key, places in found.items()}


def _series_keys(dataset: Dataset) -> list[tuple[object, ...]]:
    names = (dataset.workload, dataset.pod, dataset.node, dataset.profile_index, load_class(dataset))
    return list(zip(*names, strict=True))


def _spread(count: int, limit: int) -> NDArray[np.intp]:
    """At most ``limit`` of ``count`` places, evenly spread, the last among them."""
    if count <= limit:
        return np.arange(count)
    return np.unique(np.round(np.linspace(count - 1, 0, limit)).astype(np.intp))


def _fair_limit(sizes: NDArray[np.int64], total: int) -> int:
    """The largest limit a cell at which all cells together hold at most ``total`` rows; at least 1."""
    low, high = 1, int(max(sizes.max(initial=1), 1))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(sizes, middle).sum() <= total else (low, middle - 1)
    return low
