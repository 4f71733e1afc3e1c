"""Which candidate: the paper's protocol. The best algorithm by its error, then its grid.

Every candidate is judged on folds that are blocks of time. Large sets are searched on rows evenly spread over
time, and fitted on all. With successive halving many candidates see few rows, the best third of them three
times as many, until one sees all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tailwise.api.training_policy import AlgorithmSearch, Search, SearchStrategy
from tailwise.training.candidates import Candidate, default_candidate, fit, grid
from tailwise.training.fitting import milliseconds, spread, targets
from tailwise.training.matrix import Matrix
from tailwise.training.metrics import Errors, errors
from tailwise.training.splitting import blocks_of_time

MOST_ROWS = 12_000
"""Rows that one candidate is judged on at most; all of a hundred thousand tell the same in longer."""

_HALVING = 3
_LEAST_ROWS = 300

Tried = Callable[[int, int, str], None]
"""Candidates judged so far, of how many, and which one is next."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate and its error over all folds together."""

    candidate: Candidate
    errors: Errors


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The winner first; ``algorithms`` is every algorithm with its defaults, best first."""

    best: Judged
    algorithms: tuple[Judged, ...]
    tried: tuple[Judged, ...]


def search(
    rows: Matrix,
    algorithms: Sequence[AlgorithmSearch],
    settings: Search,
    *,
    threads: int,
    tried: Tried = lambda _done, _of, _what: None,
) -> SearchResult:
    """Find the best candidate for ``rows``, which are in order of time. Raises CandidateError."""
    rows = rows.take(spread(len(rows), MOST_ROWS))
    grids = {each.name: grid(each) for each in algorithms}  # refused before anything is fitted
    counted = _Counted(len(algorithms), tried)
    judged = [_judge(default_candidate(each), rows, settings, threads, counted) for each in algorithms]
    ranked = tuple(sorted(judged, key=lambda each: each.errors.by(settings.metric)))
    candidates = _limited(grids[ranked[0].candidate.algorithm], settings)
    counted.expect(_count(len(candidates), len(rows), settings))
    if settings.strategy is SearchStrategy.SUCCESSIVE_HALVING:
        tuned = _halving(candidates, rows, settings, threads, counted)
    else:
        tuned = [_judge(each, rows, settings, threads, counted) for each in candidates]
    # Errors on few rows do not compare with those on all.
    on_all = [each for each in tuned if each.errors.rows == len(rows)]
    best = min((ranked[0], *on_all), key=lambda each: each.errors.by(settings.metric))
    return SearchResult(best, ranked, (*judged, *tuned))


class _Counted:
    def __init__(self, total: int, tried: Tried) -> None:
        self._done, self._total, self._tried = 0, total, tried

    def expect(self, more: int) -> None:
        self._total += more

    def next(self, what: str) -> None:
        self._tried(self._done, max(self._total, self._done + 1), what)
        self._done += 1


def _judge(candidate: Candidate, rows: Matrix, settings: Search, threads: int, counted: _Counted) -> Judged:
    counted.next(str(candidate))
    measured, answered = [], []
    for fold in blocks_of_time(len(rows), settings.folds):
        taught, judged = rows.take(fold.training), rows.take(fold.judging)
        fitted = fit(candidate, taught, targets(taught), seed=settings.seed, threads=threads)
        measured.append(judged.measured)
        answered.append(milliseconds(judged, fitted.predict(judged.values)))
    return Judged(candidate, errors(np.concatenate(measured), np.concatenate(answered)))


def _limited(candidates: list[Candidate], settings: Search) -> list[Candidate]:
    """At most so many, drawn by the seed, in the grid's order."""
    if len(candidates) <= settings.max_candidates:
        return candidates
    drawn = np.random.default_rng(settings.seed).choice(
        len(candidates), settings.max_candidates, replace=False
    )
    return [candidates[place] for place in sorted(drawn.tolist())]


def _halving(
    candidates: list[Candidate], rows: Matrix, settings: Search, threads: int, counted: _Counted
) -> list[Judged]:
    """Every judgement; those on all rows are of the last round."""
    every: list[Judged] = []
    for count, left in _rounds(len(candidates), len(rows)):
        some = rows.take(spread(len(rows), count))
        judged = [_judge(each, some, settings, threads, counted) for each in candidates]
        every += judged
        judged.sort(key=lambda each: each.errors.by(settings.metric))
        candidates = [each.candidate for each in judged[:left]]
    return every


def _rounds(candidates: int, rows: int) -> list[tuple[int, int]]:
    """Rows of each round, and how many candidates it leaves."""
    rounds = []
    left = candidates
    steps = max(0, math.ceil(math.log(max(1, candidates), _HALVING)))
    for step in range(steps, -1, -1):
        count = min(rows, max(_LEAST_ROWS, rows // _HALVING**step))
        left = max(1, math.ceil(left / _HALVING))
        rounds.append((count, left))
        if count == rows:
            break
    return rounds


def _count(candidates: int, rows: int, settings: Search) -> int:
    if settings.strategy is not SearchStrategy.SUCCESSIVE_HALVING:
        return candidates
    total, alive = 0, candidates
    for _, left in _rounds(candidates, rows):
        total += alive
        alive = left
    return total
