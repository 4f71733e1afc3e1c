"""Raw rows with defaults, and small datasets whose truth is known: synthetic, and called so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from tailwise.api.hardware import NodeHardware
from tailwise.api.profile import ModelProfile
from tailwise.prediction.prediction import NodeLoad, Question, Serving
from tailwise.prediction.predictor import PriorPredictor
from tailwise.training.rows import Dataset, Row, dataset_of
from tests.unit.prediction.builders import node, profile

NOW = datetime(2026, 6, 1, tzinfo=UTC)
BEGIN = datetime(2026, 5, 1, tzinfo=UTC)


def raw(**columns: Any) -> dict[str, Any]:
    """A row that can be used, as JSON has it."""
    return {
        "time": BEGIN.isoformat(),
        "profile": profile().model_dump(mode="json", by_alias=True),
        "hardware": node().model_dump(mode="json", by_alias=True),
        "cpu_utilisation": 0.25,
        "latencies_milliseconds": [float(value) for value in range(1, 101)],
        "workload": "shop/iris",
        "pod": "iris-1",
    } | columns


def row(minute: int, p90_milliseconds: float = 10.0, **fields: Any) -> Row:
    """A cleaned row, ``minute`` minutes after BEGIN."""
    values: dict[str, Any] = {
        "time": (BEGIN + timedelta(minutes=minute)).timestamp(),
        "profile": profile(),
        "hardware": node(),
        "serving": Serving(None),
        "cpu_utilisation": 0.0,
        "frequency_utilisation": None,
        "p90_milliseconds": p90_milliseconds,
        "workload": "shop/iris",
        "pod": "iris-1",
    }
    return Row(**values | fields)


FAMILIES: dict[str, tuple[ModelProfile, ...]] = {
    "conv": (
        profile(dense_flops=4 * 10**8, operator_count=60),
        profile(dense_flops=2 * 10**9, operator_count=90),
    ),
    "mobile": (
        profile(dense_flops=10**8, depthwise_flops=4 * 10**7, operator_count=120),
        profile(dense_flops=3 * 10**8, depthwise_flops=10**8, operator_count=150),
    ),
    "transformer": (
        profile(matmul_flops=10**9, elementwise_elements=10**6, operator_count=200),
        profile(matmul_flops=5 * 10**9, elementwise_elements=5 * 10**6, operator_count=400),
    ),
    "mlp": (profile(matrix_vector_bytes=10**8, operator_count=8), profile(matrix_vector_bytes=5 * 10**7)),
}
"""Four families of two synthetic models each."""

NODES: tuple[NodeHardware, ...] = (
    node(cores=4, cpu_model="fast"),
    node(cores=8, cpu_model="slow", measured={"runtime_gflops_per_core": 40.0, "gflops_per_core": 38.0}),
)


def synthetic(rows: int = 600, seed: int = 0, noise: float = 0.03, bias: float = 1.3) -> Dataset:
    """A SYNTHETIC dataset: the prior times what it does not know, times lognormal noise.

    The truth is ``bias`` times slower on the node called slow, and 1.2 times for the mobile family.
    """
    rng = np.random.default_rng(seed)
    prior = PriorPredictor()
    tables = {}
    made = []
    for minute in range(rows):
        family = list(FAMILIES)[rng.integers(len(FAMILIES))]
        model = FAMILIES[family][rng.integers(2)]
        hardware = NODES[rng.integers(len(NODES))]
        serving = Serving((None, 1000, 500)[rng.integers(3)])
        load = float(rng.uniform(0, 0.9))
        key = (id(model), hardware.node_class, serving)
        if key not in tables:
            tables[key] = prior.table(model, serving, hardware)
        truth = tables[key].at(load)[1] * (bias if hardware.cpu_model == "slow" else 1.0)
        truth *= 1.2 if family == "mobile" else 1.0
        made.append(
            row(
                minute,
                truth * float(np.exp(rng.normal(0, noise))),
                profile=model,
                hardware=hardware,
                serving=serving,
                cpu_utilisation=load,
                family=family,
                workload=f"shop/{family}",
                pod=f"{family}-{minute % 3}",
            )
        )
    return dataset_of(made)


def question(model: ModelProfile, hardware: NodeHardware, load: float | None = 0.0) -> Question:
    """What a predictor is asked about an unlimited pod."""
    return Question(model, Serving(None), hardware, NodeLoad(cpu=load))


def raw_rows(dataset: Dataset) -> list[dict[str, Any]]:
    """A dataset as the raw rows of a file; SYNTHETIC as it is."""
    return [
        {
            "time": datetime.fromtimestamp(dataset.time[place], UTC).isoformat(),
            "profile": dataset.profiles[dataset.profile_index[place]].model_dump_json(by_alias=True),
            "hardware": dataset.hardware[dataset.hardware_index[place]].model_dump_json(by_alias=True),
            "cpu_utilisation": float(dataset.cpu_utilisation[place]),
            "cpu_limit_millicores": dataset.servings[dataset.serving_index[place]].cpu_limit_millicores,
            "p90_milliseconds": float(dataset.p90_milliseconds[place]),
            "workload": dataset.workload[place],
            "pod": dataset.pod[place],
            "family": dataset.family[place],
            "source": "synthetic",
        }
        for place in range(len(dataset))
    ]
