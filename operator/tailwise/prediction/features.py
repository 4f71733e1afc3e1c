"""What a learned predictor sees: named numbers with units, from the same question the prior answers.

``Paper`` keeps exactly the paper's features. ``Extended`` adds what is known to matter, first of all the
prior's own answer. NaN stands for what cannot be known (a clock without cpufreq, a load without samples); it
never stands for zero.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tailwise.api.hardware import NodeHardware
from tailwise.api.profile import ModelProfile, WorkTerms
from tailwise.api.training_policy import FeatureSet
from tailwise.domain.capacity import effective_capacity
from tailwise.prediction.capacity import pod_share
from tailwise.prediction.coefficients import Coefficients, coefficients
from tailwise.prediction.prediction import Question, Serving
from tailwise.prediction.prior import Latencies, QueryCost, latencies, served_cost, work_units
from tailwise.prediction.quota import FloatArray, sustained_cores

PAPER_FEATURES = ("effective_cores", "effective_megahertz", "parameter_mebibytes", "flops")

# What the prior spends on each kind of work, as a share of the whole: a model's character without its size.
_SHARES = (*WorkTerms.model_fields, "cached_matrix_vector_bytes")

EXTENDED_FEATURES = (
    *PAPER_FEATURES,
    "prior_p50_milliseconds",
    "prior_p90_milliseconds",
    "query_cpu_milliseconds",
    "moved_bytes",
    "flops_per_byte",
    "operator_count",
    "batch_size",
    "concurrency",
    "requests_per_second",
    "threads",
    "server_overhead_milliseconds",
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
    *(f"share_of_{name}" for name in _SHARES),
)


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """Features over utilisation, and the prior's answer at the same places.

    ``values``: shape (n, len(feature_names)); ``prior``: P50 and P90 in milliseconds, shape (n,) each.
    """

    values: FloatArray
    prior: Latencies


def feature_names(feature_set: FeatureSet) -> tuple[str, ...]:
    """Names, in the order of the columns of ``features``; units are in the names."""
    return PAPER_FEATURES if feature_set is FeatureSet.PAPER else EXTENDED_FEATURES


def features(
    questions: Sequence[Question], feature_set: FeatureSet, known: Coefficients | None = None
) -> FloatArray:
    """One row a question, one column a name: shape (len(questions), len(feature_names(feature_set)))."""
    rows = np.empty((len(questions), len(feature_names(feature_set))))
    for index, question in enumerate(questions):
        load = question.load
        utilisation = np.array([np.nan if load.cpu is None else load.cpu])
        frequency = None if load.frequency is None else np.array([load.frequency])
        made = feature_rows(
            question.profile, question.serving, question.hardware, utilisation, feature_set,
            frequency=frequency, known=known,
        )  # fmt: skip
        rows[index] = made.values[0]
    return rows


def feature_rows(
    profile: ModelProfile,
    serving: Serving,
    hardware: NodeHardware,
    utilisation: FloatArray,
    feature_set: FeatureSet,
    *,
    frequency: FloatArray | None = None,
    known: Coefficients | None = None,
    played: Latencies | None = None,
) -> FeatureRows:
    """Features of one model served one way on one node, at each ``utilisation`` (fractions, NaN unknown).

    ``frequency``: U_F of equation (7) at the same places, shape (n,). ``played``: the prior's answer at the
    same places, where it is known already; else one play of the prior serves all.
    """
    known = known or coefficients()
    cost = served_cost(profile, hardware, serving, known)
    assumed = np.where(np.isnan(utilisation), known.errors.unknown_load_utilisation, utilisation)
    prior = played or latencies(cost, serving, hardware, assumed, known.query_sigma)
    columns = _paper(profile, hardware, utilisation, frequency)
    if feature_set is FeatureSet.EXTENDED:
        share = pod_share(hardware, serving, assumed)
        columns |= _extended(profile, serving, hardware, cost, known) | {
            "prior_p50_milliseconds": prior.p50,
            "prior_p90_milliseconds": prior.p90,
            "pod_cores": sustained_cores(share.rate_cores, share.quotas),
            "throttled_queries": cost.burnt
            / np.min(
                [
                    np.broadcast_to(np.asarray(quota.quota_milliseconds), utilisation.shape)
                    for quota in share.quotas
                    if quota.period_milliseconds >= 100
                ]
                or [np.full(utilisation.shape, np.inf)],
                axis=0,
            ),
            "cpu_utilisation": utilisation,
        }
    values = np.empty((len(utilisation), len(feature_names(feature_set))))
    for place, name in enumerate(feature_names(feature_set)):
        values[:, place] = columns[name]
    return FeatureRows(values, prior)


def profile_key(profile: ModelProfile) -> str:
    """A digest of the figures predictions are made from: two files of one graph are one model."""
    figures = (profile.flops, profile.parameter_bytes, profile.batch_size, profile.work.model_dump_json())
    return hashlib.sha256(repr(figures).encode()).hexdigest()[:16]


def _paper(
    profile: ModelProfile, hardware: NodeHardware, utilisation: FloatArray, frequency: FloatArray | None
) -> dict[str, FloatArray | float]:
    """Equations (1) to (8): CPU_eff, FREQ_eff, M in MiB, F."""
    clock = hardware.maximum_megahertz or hardware.base_megahertz or hardware.current_megahertz
    left = effective_capacity(
        np.asarray(hardware.capacity_cores),
        utilisation,
        np.asarray(np.nan if clock is None else clock),
        np.zeros_like(utilisation) if frequency is None else np.nan_to_num(frequency),
    )
    return {
        "effective_cores": left.cores,
        "effective_megahertz": left.megahertz,
        "parameter_mebibytes": profile.parameter_mebibytes,
        "flops": float(profile.flops),
    }


def _extended(
    profile: ModelProfile, serving: Serving, hardware: NodeHardware, cost: QueryCost, known: Coefficients
) -> dict[str, FloatArray | float]:
    """What does not change with the node's load."""
    moved = sum(
        (
            profile.work.moved_bytes, profile.work.weight_bytes, profile.work.matrix_vector_bytes,
            profile.work.convolution_bytes, profile.work.product_bytes,
        )
    )  # fmt: skip
    measured = hardware.measured
    return {
        "query_cpu_milliseconds": cost.burnt,
        "moved_bytes": float(moved),
        "flops_per_byte": profile.flops / max(1, moved),
        "operator_count": float(profile.work.operator_count),
        "batch_size": float(profile.batch_size),
        "concurrency": float(serving.concurrency),
        "requests_per_second": np.nan if serving.requests_per_second is None else serving.requests_per_second,
        "threads": float(serving.threads),
        "server_overhead_milliseconds": serving.overhead_milliseconds,
        "cpu_limit_cores": serving.cpu_limit_millicores / 1000
        if serving.cpu_limit_millicores
        else float(hardware.cores),
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
    } | _shares(profile, hardware, cost, known)


def _shares(
    profile: ModelProfile, hardware: NodeHardware, cost: QueryCost, known: Coefficients
) -> dict[str, FloatArray | float]:
    slowdown = known.reference.slowdown(hardware.measured)
    shares: dict[str, FloatArray | float] = {f"share_of_{name}": 0.0 for name in _SHARES}
    for name, units in work_units(profile, hardware).items():
        term = known.terms.get(name)
        if term is not None and cost.cpu_one_thread > 0:
            spent = units * term.nanoseconds_per_unit / 1e6 * slowdown[term.scale]
            shares[f"share_of_{name}"] = spent / cost.cpu_one_thread
    return shares


def _number(value: float | None) -> float:
    return np.nan if value is None else value
