"""Algorithm 1 as the benchmark carries it out: rows of a run train f, and the node of least f wins."""

from pathlib import Path

import numpy as np
import pytest

from tailwise.api.profile import FlopsByKind, ModelProfile, WorkTerms
from tailwise.benchmark import dataset
from tailwise.benchmark.answers import Measured
from tailwise.benchmark.paper import competitors, trained
from tailwise.benchmark.records import PodRecord, RunError
from tailwise.prediction.prediction import Serving
from tailwise.training.files import write_parquet
from tests.unit.benchmark.stored import hardware, scenario, workload

CORES = {"small": 0.2, "medium": 0.4, "large": 0.8}
GFLOPS = {"light": 1, "heavy": 8}
NODES = {name: hardware(name, cores) for name, cores in CORES.items()}


def profile(gigaflops: int) -> ModelProfile:
    flops = gigaflops * 10**9
    return ModelProfile(
        flops=flops,
        flops_by_kind=FlopsByKind(convolution=flops),
        parameters=10**7,
        parameter_bytes=4 * 10**7 * gigaflops,
        work=WorkTerms(dense_flops=flops),
    )


PROFILES = {name: profile(gigaflops) for name, gigaflops in GFLOPS.items()}


def rows_of(model: str, node: str, begin: float) -> list[dict[str, object]]:
    """A pod whose queries take 10 ms a GFLOP on a whole core, a tenth of them twice as long."""
    random = np.random.default_rng(int(begin))
    base = 10.0 * GFLOPS[model] / CORES[node]
    latencies = tuple(float(base * each) for each in random.uniform(0.95, 1.05, 64))
    pod = PodRecord(slot=f"{model}-0", workload=model, node=node, slo_milliseconds=100)
    measured = Measured(begin, begin + 60, True, latencies)
    whole = scenario(*(workload(name, 1) for name in GFLOPS))
    return dataset.rows(
        whole,
        {f"{model}-{node}": (pod, measured)},
        PROFILES,
        NODES,
        {node: 0.5},
        {f"{model}-{node}": 0.5 * CORES[node]},
    )


def test_rows_of_a_run_train_the_papers_regressor_which_sends_pods_to_the_fastest_node(
    tmp_path: Path,
) -> None:
    rows = [
        row
        for number in range(6)
        for model in GFLOPS
        for node in CORES
        for row in rows_of(model, node, 1_700_000_000.0 + 1000 * number)
    ]
    assert len(rows) == 6 * 2 * 3 * dataset.WINDOWS
    file = tmp_path / "rows.parquet"
    write_parquet(file, rows)

    regressor = trained([file], tmp_path / "version", threads=2)

    nodes = {name: (each, 0.0) for name, each in NODES.items()}
    node, predicted = regressor.choose(PROFILES["heavy"], nodes, Serving(1000))
    assert node == "large"
    assert predicted == pytest.approx(100.0, rel=0.3)
    # Busy nodes have less left: f sees it, and nothing else of who is there.
    busy = {**nodes, "large": (NODES["large"], 0.9)}
    assert regressor.choose(PROFILES["heavy"], busy, Serving(1000))[0] == "medium"
    assert {"RandomForest", "XGBoost", "MLP"} <= {each.algorithm for each in competitors(regressor)}
    assert (tmp_path / "version" / "manifest.json").exists()


def test_without_rows_the_policy_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="put policy Paper after others"):
        trained([tmp_path / "missing.parquet"], tmp_path / "version", threads=1)
