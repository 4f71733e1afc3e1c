"""Rows and datasets in memory: what was measured, under which circumstances, as arrays.

A dataset keeps each distinct profile and node once; its rows point at them. Everything is frozen: filters
and splits give a new dataset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tailwise.api.document import Document
from tailwise.api.hardware import NodeHardware
from tailwise.api.profile import ModelProfile
from tailwise.prediction.features import profile_key
from tailwise.prediction.prediction import Serving
from tailwise.prediction.quota import FloatArray

IndexArray = NDArray[np.intp]
TextArray = NDArray[np.object_]
T = TypeVar("T")


class DropReason(StrEnum):
    """Why a row is left out."""

    GAP = "Gap"
    RESET = "Reset"
    NOT_A_NUMBER = "NotANumber"
    NEGATIVE = "Negative"
    OUT_OF_RANGE = "OutOfRange"
    DUPLICATE = "Duplicate"
    CLOCK_SKEW = "ClockSkew"
    NO_LATENCY = "NoLatency"
    TOO_FEW_QUERIES = "TooFewQueries"
    ABOVE_BUCKETS = "AboveBuckets"
    UNREADABLE = "Unreadable"
    CELL_FULL = "CellFull"


class DatasetError(ValueError):
    """A dataset cannot be used. The message names the file or field, and the way out."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement, cleaned. Times are Unix seconds; utilisations are fractions without the pod's own use.

    ``cpu_utilisation`` is what others used of the node: U_C as it was before the pod came.
    """

    time: float
    profile: ModelProfile
    hardware: NodeHardware
    serving: Serving
    cpu_utilisation: float
    frequency_utilisation: float | None
    p90_milliseconds: float
    queries: int | None = None
    workload: str = ""
    pod: str = ""
    family: str = ""
    source: str = ""
    window_seconds: float | None = None
    throttled_share: float | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows as arrays, each of shape (rows,). ``p90_milliseconds`` is the target.

    ``profile_index``, ``hardware_index`` and ``serving_index`` point into the tuples beside them.
    ``frequency_utilisation``, ``throttled_share`` and ``queries`` are NaN where unknown.
    """

    profiles: tuple[ModelProfile, ...]
    hardware: tuple[NodeHardware, ...]
    servings: tuple[Serving, ...]
    time: FloatArray
    profile_index: IndexArray
    hardware_index: IndexArray
    serving_index: IndexArray
    cpu_utilisation: FloatArray
    frequency_utilisation: FloatArray
    throttled_share: FloatArray
    queries: FloatArray
    p90_milliseconds: FloatArray
    workload: TextArray
    pod: TextArray
    family: TextArray
    source: TextArray

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: IndexArray | NDArray[np.bool_]) -> Dataset:
        """The rows at these places, or where the mask is true, in that order."""
        arrays = {
            field.name: getattr(self, field.name)[rows]
            for field in fields(self)
            if isinstance(getattr(self, field.name), np.ndarray)
        }
        return replace(self, **arrays)

    def by_time(self) -> Dataset:
        """The same rows, oldest first; equals keep an order that does not depend on how they came."""
        order = np.lexsort(
            (
                self.p90_milliseconds,
                self.pod.astype(str),
                self.workload.astype(str),
                self.node.astype(str),
                self.time,
            )
        )
        return self.take(order)

    @property
    def node(self) -> TextArray:
        """Name of each row's node, shape (rows,)."""
        return np.array([each.node for each in self.hardware], dtype=object)[self.hardware_index]

    @property
    def node_class(self) -> TextArray:
        """Class of each row's node, shape (rows,)."""
        return np.array([each.node_class for each in self.hardware], dtype=object)[self.hardware_index]

    @property
    def profile_key(self) -> TextArray:
        """A short name of each row's profile by its figures, shape (rows,)."""
        return np.array([profile_key(each) for each in self.profiles], dtype=object)[self.profile_index]

    def fingerprint(self) -> str:
        """``sha256:…`` of what is learned from; the same rows in any order give the same."""
        ordered = self.by_time()
        digest = hashlib.sha256()
        for document in (*self.profiles, *self.hardware):
            digest.update(document.model_dump_json(by_alias=True).encode())
        for serving in self.servings:
            digest.update(repr(serving).encode())
        for array in (
            ordered.time, ordered.profile_index, ordered.hardware_index, ordered.serving_index,
            ordered.cpu_utilisation, ordered.frequency_utilisation, ordered.p90_milliseconds,
        ):  # fmt: skip
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        for texts in (ordered.workload, ordered.pod, ordered.family):
            digest.update("\n".join(texts.tolist()).encode())
        return f"sha256:{digest.hexdigest()}"


def dataset_of(rows: Sequence[Row]) -> Dataset:
    """Rows as a dataset, oldest first; documents that are equal are kept once, in order of their text."""
    profiles = _distinct([row.profile for row in rows], _document)
    hardware = _distinct([row.hardware for row in rows], _document)
    servings = _distinct([row.serving for row in rows], repr)

    def numbers(name: str) -> FloatArray:
        values = [getattr(row, name) for row in rows]
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

    def texts(name: str) -> TextArray:
        array = np.empty(len(rows), dtype=object)
        array[:] = [getattr(row, name) for row in rows]
        return array

    return Dataset(
        profiles=profiles.values,
        hardware=hardware.values,
        servings=servings.values,
        time=numbers("time"),
        profile_index=profiles.index,
        hardware_index=hardware.index,
        serving_index=servings.index,
        cpu_utilisation=numbers("cpu_utilisation"),
        frequency_utilisation=numbers("frequency_utilisation"),
        throttled_share=numbers("throttled_share"),
        queries=numbers("queries"),
        p90_milliseconds=numbers("p90_milliseconds"),
        workload=texts("workload"),
        pod=texts("pod"),
        family=texts("family"),
        source=texts("source"),
    ).by_time()


def joined(datasets: Sequence[Dataset]) -> Dataset:
    """Several datasets as one, oldest row first."""
    if len(datasets) == 1:
        return datasets[0]
    profiles = _distinct([each for dataset in datasets for each in dataset.profiles], _document)
    hardware = _distinct([each for dataset in datasets for each in dataset.hardware], _document)
    servings = _distinct([each for dataset in datasets for each in dataset.servings], repr)

    def together(name: str) -> Any:
        return np.concatenate([getattr(each, name) for each in datasets])

    def moved(name: str, documents: str, distinct: _Distinct[Any]) -> IndexArray:
        begin, parts = 0, []
        for dataset in datasets:
            count = len(getattr(dataset, documents))
            parts.append(distinct.index[begin : begin + count][getattr(dataset, name)])
            begin += count
        return np.concatenate(parts)

    return Dataset(
        profiles=profiles.values,
        hardware=hardware.values,
        servings=servings.values,
        profile_index=moved("profile_index", "profiles", profiles),
        hardware_index=moved("hardware_index", "hardware", hardware),
        serving_index=moved("serving_index", "servings", servings),
        **{
            name: together(name)
            for name in (
                "time", "cpu_utilisation", "frequency_utilisation", "throttled_share", "queries",
                "p90_milliseconds", "workload", "pod", "family", "source",
            )
        },
    ).by_time()  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Distinct(Generic[T]):
    values: tuple[T, ...]
    index: IndexArray


def _distinct(values: Sequence[T], key: Callable[[T], str]) -> _Distinct[T]:
    # Rows of one file share their documents: the text is made once an object, not once a row.
    texts: dict[int, str] = {}
    for value in values:
        if id(value) not in texts:
            texts[id(value)] = key(value)
    kept = {texts[id(value)]: value for value in reversed(values)}
    places = {text: place for place, text in enumerate(sorted(kept))}
    index = np.array([places[texts[id(value)]] for value in values], dtype=np.intp)
    return _Distinct(tuple(kept[text] for text in sorted(kept)), index)


def _document(document: Document) -> str:
    return document.model_dump_json(by_alias=True)
