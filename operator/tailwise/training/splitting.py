"""Rows apart by time and by family, so that nothing is judged on what it was taught."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tailwise.training.matrix import Matrix
from tailwise.training.rows import IndexArray

CALIBRATION_SHARE = 0.25
"""Newest share of what is not held out that calibrates bounds: it must be rows the model never saw."""


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Places of rows, oldest first: what is fitted, what calibrates, what judges."""

    training: IndexArray
    calibration: IndexArray
    heldout: IndexArray


def split_by_time(rows: int, holdout_percent: int) -> TimeSplit:
    """The newest rows are held out, the newest of the rest calibrate. Rows are in order of time."""
    heldout = max(1, round(rows * holdout_percent / 100))
    calibration = max(1, round((rows - heldout) * CALIBRATION_SHARE))
    places = np.arange(rows)
    begin = rows - heldout - calibration
    return TimeSplit(places[:begin], places[begin : begin + calibration], places[begin + calibration :])


@dataclass(frozen=True, slots=True)
class Fold:
    """Places of rows to fit and to judge by."""

    training: IndexArray
    judging: IndexArray


def blocks_of_time(rows: int, folds: int) -> list[Fold]:
    """Each fold judges one block of time and fits the others; rows are in order of time."""
    blocks = np.array_split(np.arange(rows), min(folds, rows))
    return [
        Fold(np.concatenate([other for other in blocks if other is not block]), block) for block in blocks
    ]


def families_apart(rows: Matrix, most: int | None = None) -> dict[str, Fold]:
    """Each fold judges one family of models and fits the others; at most ``most`` folds, of several together.

    A row without a family counts as a family of its model alone.
    """
    named = np.array([family or key for family, key in zip(rows.family, rows.profile_key, strict=True)])
    families = sorted(set(named.tolist()))
    count = min(len(families), most or len(families))
    together = [families[place::count] for place in range(count)] if count else []
    places = np.arange(len(rows))
    folds = {}
    for members in together:
        judged = np.isin(named, members)
        folds[", ".join(members)] = Fold(places[~judged], places[judged])
    return folds if len(folds) > 1 else {}
