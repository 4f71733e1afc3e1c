"""From a run's steps to its figures: pure. The field names are those of results.json.

AVG_NP90 is equation (16): for each node and model the mean P90 of the pods there. It hides nodes without
pods and weighs a node with one pod like one with nine, so the mean over all pods and the worst pod stand
beside it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, median

from tailwise.api.document import Document
from tailwise.benchmark.change import held_percent, recovery_seconds
from tailwise.benchmark.records import Competitor, PodRecord, RunRecord, StepRecord
from tailwise.benchmark.scenario import PolicyKind, Scenario
from tailwise.benchmark.statistics import Interval, Key, mean_interval, ratio_interval


class Figure(Document):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


class NodeFigure(Document):
    """AVG_NP90 of equation (16) on one node, and how many pods it is of in all rounds."""

    workload: str
    node: str
    average_p90_milliseconds: float
    pods: int


class Errors(Document):
    """How far predictions were off, over the pods that had one."""

    pods: int
    mean_absolute_percent: float
    rmsle: float
    rmse_milliseconds: float
    below_prediction_percent: float


class Recovery(Document):
    """What came of a node that slowed down in the middle, over all rounds."""

    moves: int
    recovered_rounds: int
    recovery_seconds: float | None
    slo_held_percent: float


class PolicyResult(Document):
    """What a policy achieved over all its rounds."""

    policy: str
    kind: PolicyKind
    rounds: int
    pods: int
    measured: int
    mean_p90_milliseconds: Figure
    worst_p90_milliseconds: float
    mean_p50_milliseconds: float
    mean_p99_milliseconds: float
    slo_violations: int
    slow_queries_percent: float
    queries_per_second: float
    placement_seconds_median: float | None
    placement_seconds_worst: float | None
    over_default: Figure | None
    over_oracle: Figure | None
    prediction: Errors | None
    recovery: Recovery | None
    node_averages: tuple[NodeFigure, ...]


class Calibration(Document):
    """A node that served one pod alone: what it has, and how slow it was."""

    node: str
    workload: str
    capacity_cores: float
    p50_milliseconds: float
    p90_milliseconds: float
    pods: int


class Results(Document):
    """All figures of a run."""

    scenario: str
    digest: str
    machine: str
    kubernetes: str
    release: str
    rounds: int
    policies: tuple[PolicyResult, ...]
    same_placement: tuple[tuple[str, str, Figure], ...]
    table_three: tuple[Competitor, ...]
    calibration: tuple[Calibration, ...]


def results(run: RunRecord, steps: Sequence[StepRecord], table_three: Sequence[Competitor] = ()) -> Results:
    """The figures of a run; policies in the scenario's order, those without a step left out."""
    by_policy: dict[str, list[StepRecord]] = defaultdict(list)
    for step in steps:
        by_policy[step.policy].append(step)
    scenario = run.scenario
    default = _first(scenario, PolicyKind.DEFAULT, by_policy)
    oracle = _first(scenario, PolicyKind.ORACLE, by_policy)
    return Results(
        scenario=scenario.description,
        digest=run.digest,
        machine=run.machine,
        kubernetes=run.kubernetes,
        release=run.release,
        rounds=max((step.round for step in steps), default=0),
        policies=tuple(
            _policy(by_policy[policy.name], scenario.seed, default, oracle)
            for policy in scenario.policies
            if _p90s(by_policy.get(policy.name, []))
        ),
        same_placement=tuple(
            (policy.name, policy.same_as, _figure(ratio_interval(again, first, scenario.seed)))
            for policy in scenario.policies
            if policy.same_as is not None
            and (again := _p90s(by_policy.get(policy.name, [])))
            and (first := _p90s(by_policy.get(policy.same_as, [])))
        ),
        table_three=tuple(table_three),
        calibration=_calibration(run, steps),
    )


def _first(scenario: Scenario, kind: PolicyKind, steps: dict[str, list[StepRecord]]) -> dict[Key, float]:
    name = next((policy.name for policy in scenario.policies if policy.kind is kind), "")
    return _p90s(steps.get(name, []))


def _policy(
    steps: Sequence[StepRecord], seed: int, default: dict[Key, float], oracle: dict[Key, float]
) -> PolicyResult:
    pods = [pod for step in steps for pod in step.pods]
    measured = [pod for pod in pods if pod.measured]
    p90s = _p90s(steps)
    delays = [pod.placement_seconds for pod in pods if pod.placement_seconds is not None]
    queries = sum(pod.queries for pod in measured)
    return PolicyResult(
        policy=steps[0].policy,
        kind=steps[0].kind,
        rounds=len(steps),
        pods=len(pods),
        measured=len(measured),
        mean_p90_milliseconds=_figure(mean_interval(p90s, seed)),
        worst_p90_milliseconds=max(p90s.values()),
        mean_p50_milliseconds=fmean(pod.percentile(50) for pod in measured),
        mean_p99_milliseconds=fmean(pod.percentile(99) for pod in measured),
        slo_violations=sum(pod.percentile(90) > pod.slo_milliseconds for pod in measured),
        slow_queries_percent=100 * sum(pod.slow_queries for pod in measured) / queries,
        queries_per_second=fmean(sum(_rate(pod) for pod in step.pods) for step in steps),
        placement_seconds_median=median(delays) if delays else None,
        placement_seconds_worst=max(delays, default=None),
        over_default=_over(p90s, default, seed),
        over_oracle=_over(p90s, oracle, seed),
        prediction=errors(measured),
        recovery=recovery(steps),
        node_averages=node_averages(measured),
    )


def _over(p90s: dict[Key, float], other: dict[Key, float], seed: int) -> Figure | None:
    return _figure(ratio_interval(p90s, other, seed)) if p90s.keys() & other.keys() else None


def _rate(pod: PodRecord) -> float:
    """Queries a second, over the pod's own measured time."""
    if not pod.measured or pod.begin is None or pod.end is None or pod.end <= pod.begin:
        return 0.0
    return pod.queries / (pod.end - pod.begin)


def node_averages(pods: Iterable[PodRecord]) -> tuple[NodeFigure, ...]:
    """Equation (16) for each workload and node that has pods."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for pod in pods:
        if pod.measured:
            groups[pod.workload, pod.node].append(pod.percentile(90))
    return tuple(
        NodeFigure(workload=workload, node=node, average_p90_milliseconds=fmean(values), pods=len(values))
        for (workload, node), values in sorted(groups.items())
    )


def errors(pods: Iterable[PodRecord]) -> Errors | None:
    """Predicted against measured P90; None where nothing was predicted."""
    pairs = [
        (pod.predicted_p90_milliseconds, pod.percentile(90))
        for pod in pods
        if pod.measured and pod.predicted_p90_milliseconds is not None
    ]
    if not pairs:
        return None
    return Errors(
        pods=len(pairs),
        mean_absolute_percent=100 * fmean(abs(predicted / measured - 1) for predicted, measured in pairs),
        rmsle=math.sqrt(
            fmean((math.log1p(predicted) - math.log1p(measured)) ** 2 for predicted, measured in pairs)
        ),
        rmse_milliseconds=math.sqrt(fmean((predicted - measured) ** 2 for predicted, measured in pairs)),
        below_prediction_percent=100 * fmean(measured <= predicted for predicted, measured in pairs),
    )


def recovery(steps: Sequence[StepRecord]) -> Recovery | None:
    """Mean time until the SLO held again, of the rounds in which it did; None where no node slowed down."""
    changed = [step for step in steps if step.changed_at_seconds is not None]
    if not changed:
        return None
    times, held = [], []
    for step in changed:
        slo = {pod.slot: float(pod.slo_milliseconds) for pod in step.pods}
        at = step.changed_at_seconds or 0.0
        times.append(recovery_seconds(step.windows, slo, at))
        held.append(held_percent(step.windows, slo, at))
    recovered = [each for each in times if each is not None]
    return Recovery(
        moves=sum(len(step.moves) for step in changed),
        recovered_rounds=len(recovered),
        recovery_seconds=fmean(recovered) if recovered else None,
        slo_held_percent=fmean(held),
    )


def _p90s(steps: Iterable[StepRecord]) -> dict[Key, float]:
    return {(step.round, pod.slot): pod.percentile(90) for step in steps for pod in step.pods if pod.measured}


def _figure(interval: Interval) -> Figure:
    return Figure(value=interval.value, low=interval.low, high=interval.high)


def _calibration(run: RunRecord, steps: Iterable[StepRecord]) -> tuple[Calibration, ...]:
    """Pods that had their node for themselves, by node and model; nodes with a neighbour are left out."""
    beside = {node for neighbour in run.scenario.neighbours for node in neighbour.nodes}
    capacity = {each.node: each.capacity_cores for each in run.hardware}
    groups: dict[tuple[str, str], list[PodRecord]] = defaultdict(list)
    for step in steps:
        for pod in step.pods:
            alone = sum(other.node == pod.node for other in step.pods) == 1
            if alone and pod.measured and pod.node in capacity and pod.node not in beside:
                groups[pod.workload, pod.node].append(pod)
    return tuple(
        Calibration(
            node=node,
            workload=workload,
            capacity_cores=capacity[node],
            p50_milliseconds=fmean(pod.percentile(50) for pod in pods),
            p90_milliseconds=fmean(pod.percentile(90) for pod in pods),
            pods=len(pods),
        )
        for (workload, node), pods in sorted(groups.items())
    )
