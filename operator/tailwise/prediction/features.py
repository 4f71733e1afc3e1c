"""What a learned predictor sees: named numbers with units, from the same question the prior answers.

``Paper`` keeps exactly the paper's features. ``Extended`` adds what is known to matter. NaN stands for what
cannot be known (a clock without cpufreq, a load without samples); it never stands for zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from tailwise.api.profile import WorkTerms
from tailwise.prediction.capacity import pod_share
from tailwise.prediction.coefficients import Coefficients, coefficients
from tailwise.prediction.prediction import Question
from tailwise.prediction.prior import latencies, query_cost
from tailwise.prediction.quota import FloatArray, sustained_cores


class FeatureSet(StrEnum):
    """Which features are used."""

    PAPER = "Paper"
    EXTENDED = "Extended"


PAPER_FEATURES = ("effective_cores", "effective_megahertz", "parameter_mebibytes", "flops")

_WORK = tuple(f"work_{name}" for name in WorkTerms.model_fields)

EXTENDED_FEATURES = (
    *PAPER_FEATURES,
    "prior_p50_milliseconds",
    "prior_p90_milliseconds",
    "query_cpu_milliseconds",
    "moved_bytes",
    "flops_per_byte",
    "batch_size",
    "concurrency",
    "requests_per_second",
    "threads",
    "cpu_limit_cores",
    "pod_cores",
    "throttled_queries",
    "cpu_utilisation",
    "node_cores",
    "capacity_cores",
    "gflops_per_core",
    "runtime_gflops_per_core",
    "copy_gigabytes_per_second_per_core",
    "operator_overhead_nanoseconds",
    "l2_cache_mebibytes",
    "l3_cache_mebibytes",
    "has_avx512",
    "is_quantised",
    *_WORK,
)


def feature_names(feature_set: FeatureSet) -> tuple[str, ...]:
    """Names, in the order of the columns of ``features``; units are in the names."""
    return PAPER_FEATURES if feature_set is FeatureSet.PAPER else EXTENDED_FEATURES


def features(
    questions: Sequence[Question], feature_set: FeatureSet, known: Coefficients | None = None
) -> FloatArray:
    """One row a question, one column a name: shape (len(questions), len(feature_names(feature_set)))."""
    names = feature_names(feature_set)
    rows = np.empty((len(questions), len(names)))
    for index, question in enumerate(questions):
        row = _paper(question)
        if feature_set is FeatureSet.EXTENDED:
            row |= _extended(question, known or coefficients())
        rows[index] = [row[name] for name in names]
    return rows


def _paper(question: Question) -> dict[str, float]:
    """Equations (1) to (8): CPU_eff, FREQ_eff, M in MiB, F."""
    hardware, load = question.hardware, question.load
    clock = hardware.maximum_megahertz or hardware.base_megahertz or hardware.current_megahertz
    cpu = np.nan if load.cpu is None else min(1.0, max(0.0, load.cpu))
    frequency = 0.0 if load.frequency is None else min(1.0, max(0.0, load.frequency))
    return {
        "effective_cores": hardware.capacity_cores * (1 - cpu),
        "effective_megahertz": np.nan if clock is None else clock * (1 - frequency),
        "parameter_mebibytes": question.profile.parameter_mebibytes,
        "flops": float(question.profile.flops),
    }


def _extended(question: Question, known: Coefficients) -> dict[str, float]:
    profile, serving, hardware, load = (
        question.profile, question.serving, question.hardware, question.load,
    )  # fmt: skip
    cost = query_cost(profile, hardware, serving.threads, known)
    assumed = known.errors.unknown_load_utilisation if load.cpu is None else load.cpu
    utilisation = np.array([assumed])
    prior = latencies(cost, serving, hardware, utilisation, known.query_sigma)
    share = pod_share(hardware, serving, utilisation)
    quota = min(
        (float(np.min(q.quota_milliseconds)) for q in share.quotas if q.period_milliseconds >= 100),
        default=np.inf,
    )
    moved = sum(
        (
            profile.work.moved_bytes, profile.work.weight_bytes, profile.work.matrix_vector_bytes,
            profile.work.convolution_bytes, profile.work.product_bytes,
        )
    )  # fmt: skip
    measured = hardware.measured
    return {
        "prior_p50_milliseconds": float(prior.p50[0]),
        "prior_p90_milliseconds": float(prior.p90[0]),
        "query_cpu_milliseconds": cost.burnt,
        "moved_bytes": float(moved),
        "flops_per_byte": profile.flops / max(1, moved),
        "batch_size": float(profile.batch_size),
        "concurrency": float(serving.concurrency),
        "requests_per_second": np.nan if serving.requests_per_second is None else serving.requests_per_second,
        "threads": float(serving.threads),
        "cpu_limit_cores": serving.cpu_limit_millicores / 1000
        if serving.cpu_limit_millicores
        else float(hardware.cores),
        "pod_cores": float(sustained_cores(share.rate_cores, share.quotas).min()),
        "throttled_queries": cost.burnt / quota,
        "cpu_utilisation": np.nan if load.cpu is None else load.cpu,
        "node_cores": float(hardware.cores),
        "capacity_cores": hardware.capacity_cores,
        "gflops_per_core": measured.gflops_per_core,
        "runtime_gflops_per_core": _number(measured.runtime_gflops_per_core),
        "copy_gigabytes_per_second_per_core": measured.copy_gigabytes_per_second_per_core,
        "operator_overhead_nanoseconds": _number(measured.operator_overhead_nanoseconds),
        "l2_cache_mebibytes": hardware.l2_cache_bytes / 2**20,
        "l3_cache_mebibytes": hardware.l3_cache_bytes / 2**20,
        "has_avx512": float("avx512f" in hardware.instruction_sets),
        "is_quantised": float(profile.work.quantised_flops > 0),
    } | {f"work_{name}": float(getattr(profile.work, name)) for name in WorkTerms.model_fields}


def _number(value: float | None) -> float:
    return np.nan if value is None else value
