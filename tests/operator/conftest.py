"""Fixtures of the operator's tests: a client, nodes of unequal speed, and an operator that runs."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tailwise.cluster import apply
from tailwise.cluster.client import Client, Resource, connect
from tests.cluster.controlplane import ControlPlane
from tests.operator.model_server import model_server
from tests.operator.process import Operator, running
from tests.operator.stage import Look, NodeShape, nodes

NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
OPERATOR_NAMESPACE = "operator-under-test"

FAST, MIDDLE, SLOW = "op-fast", "op-middle", "op-slow"
BARE = "op-without-agent"
SHAPES = (
    NodeShape(FAST, cores=16, gflops_per_core=100.0),
    NodeShape(MIDDLE, cores=16, gflops_per_core=50.0),
    NodeShape(SLOW, cores=16, gflops_per_core=12.5),
    NodeShape(BARE, cores=16, agent=False),
)


@pytest_asyncio.fixture
async def client(control_plane: ControlPlane) -> AsyncIterator[Client]:
    connected = await connect(kubeconfig=str(control_plane.kubeconfig))
    yield connected
    await connected.close()


@pytest.fixture
def look(client: Client, namespace: str) -> Look:
    return Look(client, namespace)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage_client(control_plane: ControlPlane) -> AsyncIterator[Client]:
    connected = await connect(kubeconfig=str(control_plane.kubeconfig))
    yield connected
    await connected.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage_nodes(stage_client: Client) -> AsyncIterator[None]:
    """The nodes above, for the whole session."""
    await apply.create(stage_client, NAMESPACES, {"metadata": {"name": OPERATOR_NAMESPACE}})
    async with nodes(stage_client, SHAPES, OPERATOR_NAMESPACE):
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def operator(
    control_plane: ControlPlane, stage_nodes: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Operator]:
    """One operator for all tests that do not end it."""
    _ = stage_nodes
    log: Path = tmp_path_factory.mktemp("operator") / "operator.log"
    # A Prometheus that is away: what is not known of the nodes' load is no reason not to place.
    away = ("--prometheus-url", "http://127.0.0.1:9", "--observe-seconds", "2")
    # Waits between readings of a bad model: 20 ms up to 1.2 s, and 2.4 s where the file is wrong.
    hasty = ("--model-retry-seconds", "0.02")
    # Inspection Jobs that nobody answers are given up soon; models are checked for changes often.
    jobs = ("--inspection-image", "registry.invalid/tailwise:1", "--inspection-deadline-seconds", "30")
    training = ("--training-image", "registry.invalid/training:1")
    made = Operator(
        control_plane.kubeconfig,
        OPERATOR_NAMESPACE,
        log,
        *away,
        *hasty,
        *jobs,
        *training,
        "--resync-seconds",
        "3",
    )
    async with running(made):
        yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def models() -> AsyncIterator[str]:
    """URL of the model server."""
    async with model_server() as url:
        yield url
