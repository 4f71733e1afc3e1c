"""Bounds, the gate for what was never seen, and the arithmetic behind both."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailwise.api.training_policy import FeatureSet
from tailwise.prediction.manifest import BoundCalibration
from tailwise.training.distance import distance, fit_gates
from tailwise.training.fitting import conformal_offset
from tailwise.training.matrix import matrix
from tailwise.training.metrics import binomial_interval, errors
from tailwise.training.rows import Dataset, dataset_of
from tailwise.training.run import Trained
from tailwise.training.splitting import blocks_of_time, families_apart, split_by_time
from tailwise.training.trees import floor_float32
from tests.unit.prediction.builders import node, profile
from tests.unit.training.builders import FAMILIES, NODES, row


@given(st.integers(20, 400), st.floats(0.5, 0.95), st.integers(0, 2**31))
@settings(deadline=None)
def test_a_conformal_offset_covers_at_least_its_share_of_the_scores_it_was_made_from(
    count: int, share: float, seed: int
) -> None:
    scores = np.random.default_rng(seed).standard_normal(count)
    offset = conformal_offset(scores, share)
    assert np.mean(scores <= offset) >= min(1.0, math.ceil((count + 1) * share) / count) - 1e-9


def test_over_many_draws_a_conformal_bound_covers_what_it_promises() -> None:
    rng = np.random.default_rng(0)
    covered = [rng.gumbel() <= conformal_offset(rng.gumbel(size=50), 0.9) for _ in range(4000)]
    assert 0.885 <= np.mean(covered) <= 0.92


def test_of_too_few_scores_the_largest_bounds() -> None:
    assert conformal_offset(np.array([0.3, 0.1, 0.2]), 0.9) == 0.3


def test_a_class_with_samples_enough_has_an_offset_of_its_own_and_an_unseen_model_the_wider() -> None:
    known = BoundCalibration(
        coverage_percent=90, pooled=0.2, by_node_class={"a": 0.1}, unseen=0.5, unseen_factor=1.2
    )
    assert known.offset("a", seen=True) == 0.1
    assert known.offset("b", seen=True) == 0.2
    assert known.offset("a", seen=False) == 0.5


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    [(0, 0, 0.0, 1.0), (0, 10, 0.0, 0.308), (10, 10, 0.692, 1.0), (90, 100, 0.824, 0.951)],
)
def test_coverage_is_told_with_its_exact_interval(hits: int, rows: int, low: float, high: float) -> None:
    assert list(binomial_interval(hits, rows)) == pytest.approx([low, high], abs=1e-3)


def test_errors_are_those_of_the_papers_table() -> None:
    off = errors(np.array([10.0, 100.0]), np.array([12.0, 90.0]))
    assert off.rmse == pytest.approx(math.sqrt((4 + 100) / 2))
    assert off.mape == pytest.approx(0.15)
    logs = (math.log(13 / 11), math.log(91 / 101))
    assert off.rmsle == pytest.approx(math.sqrt((logs[0] ** 2 + logs[1] ** 2) / 2))
    assert off.r2 == pytest.approx(1 - 104 / (2 * 45**2))


@given(st.floats(-1e30, 1e30))
def test_a_threshold_is_rounded_down_so_that_every_float32_falls_on_the_same_side(threshold: float) -> None:
    rounded = float(floor_float32(np.array([threshold]))[0])
    assert rounded <= threshold
    assert rounded == np.float32(rounded)
    above = float(np.nextafter(np.float32(rounded), np.float32(np.inf)))
    assert above > threshold


@given(st.integers(3, 200), st.integers(5, 50))
def test_a_split_by_time_keeps_every_row_once_and_in_order(rows: int, percent: int) -> None:
    split = split_by_time(rows, percent)
    together = np.concatenate([split.training, split.calibration, split.heldout])
    assert together.tolist() == list(range(rows))


@given(st.integers(4, 200), st.integers(2, 20))
def test_folds_are_blocks_of_time_that_judge_every_row_once(rows: int, folds: int) -> None:
    made = blocks_of_time(rows, folds)
    assert np.concatenate([fold.judging for fold in made]).tolist() == list(range(rows))
    for fold in made:
        assert not set(fold.training.tolist()) & set(fold.judging.tolist())
        assert np.ptp(fold.judging) == len(fold.judging) - 1


def test_a_family_left_out_is_left_out_whole(dataset: Dataset) -> None:
    rows = matrix(dataset, FeatureSet.PAPER)
    folds = families_apart(rows)
    assert set(folds) == set(FAMILIES)
    for family, fold in folds.items():
        assert set(rows.family[fold.judging].tolist()) == {family}
        assert family not in set(rows.family[fold.training].tolist())


def test_calibrated_bounds_cover_held_out_rows(trained: Trained) -> None:
    heldout = trained.manifest.heldout
    assert heldout.coverage is not None
    assert heldout.coverage_high is not None
    assert heldout.coverage_high >= 0.90
    assert (trained.heldout.bound >= trained.heldout.p90 - 1e-9).all()


_ALIEN = profile(recurrent_flops=10**11, copied_elements=10**9, operator_count=100_000)


@pytest.mark.parametrize(
    ("changed", "is_known"),
    [
        ({}, True),
        ({"profile": profile(dense_flops=3 * 10**8, depthwise_flops=5 * 10**7, operator_count=130)}, True),
        ({"hardware": node(cores=4, cpu_model="a little faster", measured={"gflops_per_core": 110.0})}, True),
        ({"cpu_utilisation": 0.99}, True),
        ({"profile": _ALIEN}, False),
        (
            {
                "hardware": node(
                    cores=96, measured={"gflops_per_core": 2000.0, "runtime_gflops_per_core": 1900.0}
                )
            },
            False,
        ),
    ],
)
def test_only_what_is_unlike_anything_seen_is_out_of_distribution(
    dataset: Dataset, changed: dict[str, Any], is_known: bool
) -> None:
    gates = fit_gates(matrix(dataset, FeatureSet.EXTENDED), 1)
    asked = row(0, 10.0, **{"profile": FAMILIES["conv"][0], "hardware": NODES[0], **changed})
    far = distance(gates, matrix(dataset_of([asked]), FeatureSet.EXTENDED).values)
    assert bool(far[0] <= 1) is is_known


def test_nothing_is_out_of_distribution_where_nothing_may_be(dataset: Dataset) -> None:
    assert fit_gates(matrix(dataset, FeatureSet.EXTENDED), 0) == ()
