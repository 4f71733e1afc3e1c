"""A run: rounds over all policies, interleaved; one file a step, so that a run that was stopped goes on.

Policies take turns in beginning a round. Those that need what others have measured (Same, Paper, Oracle) come
after them. Every policy of a round is given the same pods in the same order.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from tailwise.api.hardware import NodeHardware
from tailwise.api.profile import ModelProfile
from tailwise.api.release import RELEASE
from tailwise.benchmark import choosing, dataset, manifests, oracle
from tailwise.benchmark.answers import Measured
from tailwise.benchmark.choosing import Chooser, NoRoomError, Room, arrivals, quantity
from tailwise.benchmark.following import follow
from tailwise.benchmark.kubectl import KubectlError
from tailwise.benchmark.manifests import SLOT_LABEL
from tailwise.benchmark.outcome import machine, of_followed, pod_record, step_record, with_change
from tailwise.benchmark.records import (
    PodRecord,
    RunDirectory,
    RunError,
    RunRecord,
    StepRecord,
    step_name,
)
from tailwise.benchmark.scenario import Arrival, Policy, PolicyKind, Workload
from tailwise.benchmark.stage import Stage, looks_at_load, sleep_until, target
from tailwise.benchmark.usage import Usage, window_seconds
from tailwise.prediction.prediction import Serving
from tailwise.training.files import write_parquet

_BOUND_SECONDS = 300.0
_POLL_SECONDS = 0.2
_LATER = (PolicyKind.SAME, PolicyKind.PAPER, PolicyKind.ORACLE)


def order(policies: Sequence[Policy], number: int) -> tuple[Policy, ...]:
    """The policies in the order of a round (counted from 1)."""
    first = [policy for policy in policies if policy.kind not in _LATER]
    turn = (number - 1) % len(first) if first else 0
    later = [policy for policy in policies if policy.kind in _LATER]
    return (*first[turn:], *first[:turn], *sorted(later, key=lambda each: _LATER.index(each.kind)))


@dataclass(slots=True)
class Runner:
    """Carries a scenario out on a cluster. ``only``: names of the policies; none named: all."""

    stage: Stage
    directory: RunDirectory
    prometheus_url: str
    preset: str
    only: Sequence[str] = ()
    threads: int = 2
    _hardware: Mapping[str, NodeHardware] = field(default_factory=dict)
    _profiles: Mapping[str, ModelProfile] = field(default_factory=dict)
    _load_ended: float = -1e9
    _step_seconds: list[float] = field(default_factory=list)

    def run(self) -> None:
        """All steps that are not there yet. What was made on the cluster goes, however this ends.

        Raises:
            RunError: a step cannot be done; those before it are kept.
        """
        scenario = self.stage.scenario
        policies = [each for each in scenario.policies if not self.only or each.name in self.only]
        rounds = range(1, scenario.rounds + 1)
        steps = [(number, policy) for number in rounds for policy in order(policies, number)]
        left = [each for each in steps if self.directory.step(step_name(each[0], each[1].name)) is None]
        self._begin()
        self.stage.report(f"{len(steps)} steps, {len(steps) - len(left)} of them done before")
        if not left:
            return
        self.stage.check_namespace()
        try:
            self.stage.set_up()
            self._hardware = self.stage.hardware()
            self._profiles = self.stage.profiles()
            self._check_hardware()
            self._begin()
            self._load_ended = time.monotonic()
            for place, (number, policy) in enumerate(left):
                self._tell(place, len(left), number, policy)
                began = time.monotonic()
                self._step_or_again(number, policy)
                self._step_seconds.append(time.monotonic() - began)
        finally:
            self.stage.report("taking away what was made on the cluster")
            self.stage.tear_down()

    # ---- a step

    def _step_or_again(self, number: int, policy: Policy) -> None:
        """One step; what failed is tried once more from a clean state, for a busy API server may be slow."""
        try:
            self._step(number, policy)
        except (RunError, KubectlError) as error:
            self.stage.report(f"{step_name(number, policy.name)} failed and is done again: {error}")
            self._load_ended = time.monotonic()
            self._step(number, policy)

    def _step(self, number: int, policy: Policy) -> None:
        begin = time.time()
        self.stage.clear()
        if looks_at_load(policy):
            rest = policy.settle_seconds
            rest = self.stage.scenario.settle_seconds if rest is None else rest
            sleep_until(self._load_ended + rest, self.stage.report)
        if policy.kind is PolicyKind.TAILWISE:
            self.stage.apply_workloads(policy)
        slots = arrivals(self.stage.scenario, number)
        decided: dict[str, float] = {}
        delays = self._place(slots, policy, self._chooser(number, policy, slots, decided))
        self.stage.wait_ready(len(slots))
        step = self._measured(number, policy, slots, delays, decided).model_copy(update={"begin": begin})
        self.directory.finish(step)
        self._conclude(step)
        self.stage.clear()

    def _measured(
        self,
        number: int,
        policy: Policy,
        slots: Sequence[tuple[str, Workload]],
        delays: Mapping[str, float],
        decided: Mapping[str, float],
    ) -> StepRecord:
        """Ask the pods that stand, and write their rows.

        Raises:
            RunError: none of them answered.
        """
        name = step_name(number, policy.name)
        served = {pod["metadata"]["labels"][SLOT_LABEL]: pod for pod in self.stage.pods()}
        names = {str(pod["metadata"]["name"]) for pod in served.values()}
        predictions = self.stage.predictions(names) if policy.kind is PolicyKind.TAILWISE else {}
        change = self.stage.scenario.change
        followed = follow(self.stage, slots, change) if change is not None else None
        measured = (
            self.stage.ask([target(served[slot], workload.name) for slot, workload in slots])
            if followed is None
            else of_followed(followed, served)
        )
        self._load_ended = time.monotonic()
        records = {
            served[slot]["metadata"]["name"]: pod_record(
                served[slot], slot, workload, measured, delays, predictions, decided
            )
            for slot, workload in slots
        }
        used, cores = self._usage(measured)
        if followed is None:
            self._write_rows(name, records, measured, used, cores)
        for record in records.values():
            if not record.measured:
                self.stage.report(f"{record.slot} was not measured: {record.error}")
        if not any(record.measured for record in records.values()):
            raise RunError(f"{name}: no pod was measured: {next(iter(records.values())).error}")
        step = step_record(number, policy, tuple(records.values()), measured, used)
        return step if followed is None or change is None else with_change(step, followed, change)

    def _place(
        self, slots: Sequence[tuple[str, Workload]], policy: Policy, choose: Chooser | None
    ) -> dict[str, float]:
        """Make the pods, one by one or at once; seconds until each had a node."""
        scenario = self.stage.scenario
        rooms = self.stage.serving_nodes() if choose is not None else {}
        waiting: dict[str, float] = {}
        delays: dict[str, float] = {}
        burst: list[Mapping[str, Any]] = []
        for slot, workload in slots:
            node = None
            asked = time.monotonic()
            if choose is not None:
                try:
                    node, rooms = choosing.place(slot, workload, rooms, choose)
                except NoRoomError as error:
                    raise RunError(str(error)) from error
            made = manifests.served_pod(scenario, workload, slot, policy, node)
            if scenario.arrival is Arrival.BURST:
                burst.append(made)
                continue
            waiting[slot] = asked
            self.stage.create([made])
            self._await_bound(waiting, delays)
        if burst:
            waiting = dict.fromkeys((slot for slot, _ in slots), time.monotonic())
            self.stage.create(burst)
            self._await_bound(waiting, delays)
        return delays

    def _await_bound(self, waiting: dict[str, float], delays: dict[str, float]) -> None:
        deadline = time.monotonic() + _BOUND_SECONDS
        while waiting:
            for slot in self.stage.bound().keys() & waiting.keys():
                delays[slot] = time.monotonic() - waiting.pop(slot)
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise RunError(
                    f"{', '.join(sorted(waiting))}: no node within {_BOUND_SECONDS:.0f} s; kubectl describe "
                    f"pods and inferenceworkloads -n {manifests.NAMESPACE} say why"
                )
            time.sleep(_POLL_SECONDS)

    # ---- who chooses

    def _chooser(
        self, number: int, policy: Policy, slots: Sequence[tuple[str, Workload]], decided: dict[str, float]
    ) -> Chooser | None:
        """What names the nodes; None where a scheduler of the cluster does."""
        match policy.kind:
            case PolicyKind.DEFAULT | PolicyKind.SCHEDULER | PolicyKind.TAILWISE:
                return None
            case PolicyKind.RANDOM:
                return choosing.at_random(self.stage.scenario, number)
            case PolicyKind.ROUND_ROBIN:
                return choosing.round_robin(list(self.stage.serving_nodes()))
            case PolicyKind.SAME:
                return choosing.pinned(self._nodes_of(number, str(policy.same_as)))
            case PolicyKind.ORACLE:
                return choosing.pinned(self._in_hindsight(slots))
            case PolicyKind.PAPER:
                return self._by_algorithm_one(number, decided)

    def _nodes_of(self, number: int, policy: str) -> dict[str, str]:
        step = self.directory.step(step_name(number, policy))
        if step is None:
            raise RunError(
                f"{step_name(number, policy)} is not done yet, and its placement is to be repeated"
            )
        return {pod.slot: pod.node for pod in step.pods}

    def _in_hindsight(self, slots: Sequence[tuple[str, Workload]]) -> dict[str, str]:
        steps = self.directory.steps()
        tried = [{pod.slot: pod.node for pod in step.pods} for step in steps]
        wanted = {slot for slot, _ in slots}
        return oracle.best_placement(
            oracle.hindsight(steps),
            slots,
            self.stage.serving_nodes(),
            [each for each in tried if each.keys() == wanted],
            self.stage.scenario.seed,
        )

    def _by_algorithm_one(self, number: int, decided: dict[str, float]) -> Chooser:
        # Loads the training libraries, which no other policy needs.
        from tailwise.benchmark.paper import competitors, trained  # noqa: PLC0415
        from tailwise.benchmark.report import write_table_three  # noqa: PLC0415

        steps = [step for step in self.directory.steps() if step.kind is not PolicyKind.PAPER]
        files = [self.directory.rows_path(step.name) for step in steps]
        self.stage.report(f"training the paper's regressor on the rows of {len(files)} steps")
        regressor = trained(files, self.directory.version_path(number), self.threads)
        write_table_three(self.directory.version_path(number), competitors(regressor))
        usage = Usage(self.prometheus_url, self.preset, self._hardware)

        def choose(slot: str, workload: Workload, rooms: Sequence[Room]) -> str:
            used = usage.nodes(window_seconds(30))
            nodes = {
                room.node: (self._hardware[room.node], used.get(room.node, 0.0))
                for room in rooms
                if room.node in self._hardware
            }
            limit = round(1000 * quantity(workload.cpu_limit))
            node, decided[slot] = regressor.choose(self._profiles[workload.name], nodes, Serving(limit))
            return node

        return choose

    # ---- parts

    def _begin(self) -> None:
        scenario = self.stage.scenario
        self.directory.begin(
            RunRecord(
                scenario=scenario,
                digest=scenario.digest,
                release=RELEASE,
                began=time.time(),
                context=self.stage.kubectl.context or "",
                kubernetes=self.stage.kubernetes_version(),
                machine=machine(),
                hardware=tuple(self._hardware.values()),
            )
        )

    def _check_hardware(self) -> None:
        lacking = sorted(self.stage.serving_nodes().keys() - self._hardware.keys())
        if lacking:
            raise RunError(
                f"no agent has measured {', '.join(lacking)}: is the chart installed in "
                f"{self.stage.operator_namespace}?"
            )

    def _usage(self, measured: Mapping[str, Measured]) -> tuple[dict[str, float], dict[str, float]]:
        """Utilisation of nodes and cores of pods over the time in which all pods were asked."""
        spans = [(each.begin, each.end) for each in measured.values() if each.latencies_milliseconds]
        if not spans or not self.prometheus_url:
            return {}, {}
        begin, end = max(first for first, _ in spans), max(last for _, last in spans)
        usage = Usage(self.prometheus_url, self.preset, self._hardware)
        window = window_seconds(end - begin)
        return usage.nodes(window, end), usage.pods(window, end)

    def _write_rows(
        self,
        step: str,
        records: Mapping[str, PodRecord],
        measured: Mapping[str, Measured],
        used: Mapping[str, float],
        cores: Mapping[str, float],
    ) -> None:
        pods = {name: (record, measured[name]) for name, record in records.items() if name in measured}
        rows = dataset.rows(self.stage.scenario, pods, self._profiles, self._hardware, used, cores)
        if rows:
            write_parquet(self.directory.rows_path(step), rows)
        else:
            self.stage.report(f"{step}: no rows for the dataset, for Prometheus knows nothing of its pods")

    def _tell(self, place: int, of: int, number: int, policy: Policy) -> None:
        left = ""
        if self._step_seconds:
            minutes = fmean(self._step_seconds) * (of - place) / 60
            left = f", about {minutes:.0f} min left"
        self.stage.report(f"==> step {place + 1} of {of}: round {number}, {policy.name}{left}")

    def _conclude(self, step: StepRecord) -> None:
        p90s = [pod.percentile(90) for pod in step.pods if pod.measured]
        missed = sum(pod.percentile(90) > pod.slo_milliseconds for pod in step.pods if pod.measured)
        self.stage.report(
            f"    mean P90 {fmean(p90s):.1f} ms, worst {max(p90s):.1f} ms, SLO missed by {missed} of "
            f"{len(step.pods)} pods; measured for {step.measured_seconds:.0f} s"
        )
