"""How long training and tables take. The rows are SYNTHETIC: of the shape of real ones, for speed alone.

    python -m bench training [--rows 100000] [--profiles 100] [--node-classes 20]

Training runs the whole protocol in a process of its own: features, four algorithms, the winner's grid, fits
on all rows, calibration, export. Tables are what the operator works out when a version comes: every profile
on every class of nodes at 101 utilisations, on one core.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection

import numpy as np

from tailwise.api.hardware import MeasuredSpeed, NodeHardware
from tailwise.api.latency_dataset import Dataset as DatasetSpec
from tailwise.api.latency_model import LatencyModelSpec
from tailwise.api.profile import FlopsByKind, ModelProfile, WorkTerms
from tailwise.prediction.artefact import load
from tailwise.prediction.coefficients import coefficients
from tailwise.prediction.learned import LearnedPredictor
from tailwise.prediction.prediction import Serving
from tailwise.prediction.predictor import PriorPredictor
from tailwise.prediction.prior import UTILISATION_GRID
from tailwise.training.rows import Dataset
from tailwise.training.run import Progress, Trained, train

QUICK_ROWS, FULL_ROWS = 10_000, 100_000
_LIMITS = (None, 2000, 1000, 500, 250)
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class StageTime:
    """Wall clock seconds of one stage of a run."""

    stage: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainingFigures:
    """One run on synthetic rows. ``table_seconds`` is CPU time of one core, with and without CPU limits."""

    rows: int
    seconds: float
    cpu_seconds: float
    peak_mebibytes: float
    candidates: int
    artefact_bytes: int
    stages: tuple[StageTime, ...]
    tables: int
    table_seconds: dict[str, float]


def synthetic_profiles(count: int) -> list[ModelProfile]:
    """Models of mixed kinds and sizes."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        size = 10 ** rng.uniform(7.5, 10)
        kinds = rng.dirichlet((1.0, 1.0, 0.3, 0.3))
        work = WorkTerms(
            dense_flops=int(size * kinds[0]),
            matmul_flops=int(size * kinds[1]),
            depthwise_flops=int(size * kinds[2] / 10),
            grouped_flops=int(size * kinds[3] / 4),
            weight_bytes=int(size / 100),
            elementwise_elements=int(size / 500),
            operator_count=int(rng.integers(10, 400)),
        )
        made.append(
            ModelProfile(
                flops=int(size), flops_by_kind=FlopsByKind(), parameters=int(size / 400),
                parameter_bytes=int(size / 100), work=work,
            )
        )  # fmt: skip
    return made


def synthetic_nodes(count: int) -> list[NodeHardware]:
    """Classes of nodes of several speeds and sizes."""
    rng = np.random.default_rng(1)
    reference = coefficients().reference
    made = []
    for place in range(count):
        speed = float(rng.uniform(0.4, 1.5))
        made.append(
            NodeHardware(
                node=f"node-{place}",
                cores=int(rng.choice((2, 4, 8, 16, 32))),
                cpu_model=f"class {place}",
                l3_cache_bytes=int(rng.choice((8, 16, 32))) * 2**20,
                measured=MeasuredSpeed(
                    gflops_per_core=reference.runtime_gflops_per_core * speed,
                    runtime_gflops_per_core=reference.runtime_gflops_per_core * speed,
                    copy_gigabytes_per_second_per_core=reference.copy_gigabytes_per_second_per_core
                    * float(rng.uniform(0.6, 1.2)),
                    operator_overhead_nanoseconds=reference.operator_overhead_nanoseconds / speed,
                ),
                measured_at=datetime(2026, 1, 1, tzinfo=UTC),
            )
        )
    return made


def synthetic_rows(count: int, models: list[ModelProfile], nodes: list[NodeHardware]) -> Dataset:
    """SYNTHETIC rows: the prior, a factor for each model and node, and noise."""
    rng = np.random.default_rng(2)
    prior = PriorPredictor()
    servings = [Serving(limit) for limit in _LIMITS]
    pairs = [
        (int(model), int(node)) for model in range(len(models)) for node in rng.choice(len(nodes), 4, False)
    ]
    odd_models, odd_nodes = np.exp(rng.normal(0, 0.15, len(models))), np.exp(rng.normal(0, 0.1, len(nodes)))
    keys = [(pair, int(rng.integers(len(servings)))) for pair in pairs for _ in range(2)]
    chosen = rng.integers(len(keys), size=count)
    load = rng.uniform(0, 0.95, count)
    noise = np.exp(rng.normal(0, 0.05, count))
    p90 = np.empty(count)
    for place, ((model, node), serving) in enumerate(keys):
        rows = np.flatnonzero(chosen == place)
        table = prior.table(models[model], servings[serving], nodes[node])
        p90[rows] = np.interp(load[rows], UTILISATION_GRID, table.p90) * odd_models[model] * odd_nodes[node]
    profile_index = np.array([keys[place][0][0] for place in chosen], dtype=np.intp)
    texts = np.array([f"shop/w{place}" for place in profile_index], dtype=object)
    nothing = np.full(count, np.nan)
    return Dataset(
        profiles=tuple(models),
        hardware=tuple(nodes),
        servings=tuple(servings),
        time=np.asarray(_BEGIN + 30.0 * np.arange(count), dtype=np.float64),
        profile_index=profile_index,
        hardware_index=np.array([keys[place][0][1] for place in chosen], dtype=np.intp),
        serving_index=np.array([keys[place][1] for place in chosen], dtype=np.intp),
        cpu_utilisation=load,
        frequency_utilisation=nothing,
        throttled_share=nothing,
        queries=nothing,
        p90_milliseconds=p90 * noise,
        workload=texts,
        pod=texts,
        family=np.array([f"family-{place % 8}" for place in profile_index], dtype=object),
        source=np.array(["synthetic"] * count, dtype=object),
    )


def measure(
    rows: int | None,
    profiles: int,
    node_classes: int,
    threads: int,
    full: bool,
    write: Callable[[str], object],
) -> TrainingFigures:
    """Train in a process of its own, then tabulate; every stage is written as it ends."""
    count = rows or (FULL_ROWS if full else QUICK_ROWS)
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sending, count, profiles, node_classes, threads))
    child.start()
    sending.close()
    write(f"{count} synthetic rows, {profiles} profiles, {node_classes} node classes, {threads} threads")
    try:
        while True:
            told = receiving.recv()
            if isinstance(told, TrainingFigures):
                return told
            write(told)
    except EOFError:
        raise SystemExit("training: the process ended before its figures came") from None
    finally:
        child.join()


def _child(sending: Connection, count: int, profiles: int, node_classes: int, threads: int) -> None:
    models, nodes = synthetic_profiles(profiles), synthetic_nodes(node_classes)
    data = synthetic_rows(count, models, nodes)
    spec = LatencyModelSpec(dataset=DatasetSpec(max_rows_per_cell=1_000_000))
    begun = {"": time.perf_counter()}

    def told(progress: Progress) -> None:
        if progress.stage.value not in begun:
            begun[progress.stage.value] = time.perf_counter()
            sending.send(f"{progress.stage.value} begins after {time.perf_counter() - begun['']:.0f} s")

    cpu = time.process_time()
    trained = train(data, spec, threads=threads, told=told)
    seconds = time.perf_counter() - begun[""]
    cpu = time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ends = [*list(begun.values())[2:], begun[""] + seconds]
    stages = tuple(
        StageTime(name, end - began) for (name, began), end in zip(list(begun.items())[1:], ends, strict=True)
    )
    tables = _table_seconds(trained, models, nodes)
    sending.send(
        TrainingFigures(
            rows=count,
            seconds=seconds,
            cpu_seconds=cpu,
            peak_mebibytes=peak,
            candidates=len(trained.searched.tried),
            artefact_bytes=sum(len(data) for data in trained.files.values()),
            stages=stages,
            tables=len(models) * len(nodes),
            table_seconds=tables,
        )
    )


def _table_seconds(
    trained: Trained, models: list[ModelProfile], nodes: list[NodeHardware]
) -> dict[str, float]:
    predictor = LearnedPredictor(load(trained.files, "version 1"), 1)
    grid = np.linspace(0, 1, 101)
    took = {}
    for name, serving in (("no limit", Serving(None)), ("limit 500m", Serving(500))):
        begun = time.process_time()
        for model in models:
            for node in nodes:
                predictor.tabulate(model, serving, node, grid)
        took[name] = time.process_time() - begun
    return took
