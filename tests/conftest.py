"""Clusters for tests. Nothing here is a stand-in: each fixture is a real API server, kwok or kubelets.

control_plane       an API server, controller-manager and scheduler, one a session, with crds/ applied
namespace, api      a new namespace a test on it, and a kubernetes-asyncio client
simulated_cluster   the same with simulated nodes and Prometheus (and simulated_namespace, simulated_api)
real_cluster        real kubelets, one a session, for tests marked real_nodes

With TAILWISE_KEEP_CLUSTERS=1 the clusters stay up and the next session finds them (end them with
`python -m tests.cluster clean`). Otherwise they end with the session; what a killed session left is ended by
the next one.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from kubernetes_asyncio.client import ApiClient

from tests.cluster import api as cluster_api
from tests.cluster import crds, lifecycle
from tests.cluster.clients import api_client, fresh_namespace
from tests.cluster.controlplane import ControlPlane
from tests.cluster.locks import Progress
from tests.cluster.simulated import SimulatedCluster
from tests.cluster.sizes import Size

if TYPE_CHECKING:
    from tests.cluster.real import RealCluster

_LEFT_OUT: pytest.StashKey[list[tuple[str, str, list[str]]]] = pytest.StashKey()
_SIMULATED_NODES = "12"
_OF_THE_PRODUCT = Path(__file__).parent / "real"

# On a busy machine the time of one example says nothing about the product.
settings.register_profile("tailwise", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tailwise")


# ---- clusters


@pytest.fixture(scope="session")
def progress(request: pytest.FixtureRequest) -> Progress:
    """Lines that are seen at once, past pytest's capture: a cold build takes minutes."""
    capture = request.config.pluginmanager.get_plugin("capturemanager")

    def line(text: str) -> None:
        with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
            print(f"\n{text}", end="", file=sys.stderr, flush=True)

    return line


@pytest.fixture(scope="session")
def control_plane(progress: Progress) -> Iterator[ControlPlane]:
    """A control plane with the product's CRDs; it has no nodes but those that a test creates."""
    for plane in _session_cluster(Size.CONTROL_PLANE, None, progress):
        crds.apply(cluster_api.connect(plane), progress)
        yield plane


@pytest.fixture(scope="session")
def simulated_cluster(progress: Progress) -> Iterator[SimulatedCluster]:
    """Simulated nodes (the paper's four shapes, three of each), Prometheus, and the product's CRDs."""
    for cluster in _session_cluster(Size.SIMULATED, _SIMULATED_NODES, progress):
        crds.apply(cluster_api.connect(cluster.plane), progress)
        yield cluster


@pytest.fixture(scope="session")
def real_cluster(request: pytest.FixtureRequest, progress: Progress) -> "Iterator[RealCluster]":
    """Real kubelets; use it only from tests marked real_nodes. CRDs are the chart's to install."""
    unmarked = [item.nodeid for item in request.session.items if _uses_real_nodes_unmarked(item)]
    if unmarked:
        pytest.fail(f"real_cluster is used by tests without the mark real_nodes: {', '.join(unmarked)}")
    yield from _session_cluster(Size.REAL, None, progress, _images(request.session.items, progress))


def _images(items: Sequence[pytest.Item], progress: Progress) -> Sequence[Path]:
    """What nodes shall have from the start: operator and model server, if a test of the product will run."""
    if not any(_OF_THE_PRODUCT in item.path.parents for item in items):
        return ()
    from tests.demo import clusters  # noqa: PLC0415 - only where there are real nodes

    return clusters.build_images(progress)


def _session_cluster(
    size: Size, nodes: str | None, progress: Progress, images: Sequence[Path] = ()
) -> Iterator[Any]:
    if os.environ.get("TAILWISE_KEEP_CLUSTERS"):
        yield lifecycle.up(size, f"test-{size}", nodes=nodes, images=images, progress=progress)
        return
    lifecycle.end_orphans(progress)
    name = f"test-{os.getpid()}-{size}"
    try:
        yield lifecycle.up(size, name, nodes=nodes, images=images, owned=True, progress=progress)
    finally:
        lifecycle.down(size, name, progress)


# ---- clients and namespaces


@pytest.fixture
async def api(control_plane: ControlPlane) -> AsyncIterator[ApiClient]:
    """A client of the session's control plane, with all rights."""
    async with api_client(control_plane.kubeconfig) as connected:
        yield connected


@pytest.fixture
async def namespace(api: ApiClient) -> AsyncIterator[str]:
    """The name of a new namespace on the session's control plane."""
    async with fresh_namespace(api) as name:
        yield name


@pytest.fixture
async def simulated_api(simulated_cluster: SimulatedCluster) -> AsyncIterator[ApiClient]:
    """A client of the simulated cluster, with all rights."""
    async with api_client(simulated_cluster.kubeconfig) as connected:
        yield connected


@pytest.fixture
async def simulated_namespace(simulated_api: ApiClient) -> AsyncIterator[str]:
    """The name of a new namespace on the simulated cluster."""
    async with fresh_namespace(simulated_api) as name:
        yield name


# ---- what is left out is said


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests where what they run on cannot be or was not asked for; the summary says so."""
    if config.option.collectonly:
        return
    config.stash[_LEFT_OUT] = []
    for marker, where, why_not in (
        ("real_nodes", "real nodes", _why_no_real_nodes),
        ("older_kubernetes", "older control planes", _why_no_older_kubernetes),
    ):
        wanted = [item for item in items if item.get_closest_marker(marker) is not None]
        reason = why_not() if wanted else None
        if reason is not None:
            config.hook.pytest_deselected(items=wanted)
            items[:] = [item for item in items if item not in wanted]
            config.stash[_LEFT_OUT].append((where, reason, [item.nodeid for item in wanted]))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say loudly which tests were left out and why."""
    for where, reason, left_out in config.stash.get(_LEFT_OUT, []):
        terminalreporter.section(f"LEFT OUT: {len(left_out)} tests on {where}", red=True, bold=True)
        terminalreporter.write_line(f"why: {reason}")
        for nodeid in left_out:
            terminalreporter.write_line(f"  {nodeid}")


def _why_no_real_nodes() -> str | None:
    if os.geteuid() != 0:
        return "not root: namespaces, mounts and control groups need it. Run the same as root"
    if shutil.which("unshare") is None or _fails(("unshare", "--net", "--mount", "true")):
        return "this root may not make namespaces (unshare --net --mount fails): give it CAP_SYS_ADMIN"
    from tests.cluster import debian  # noqa: PLC0415 - only where there may be real nodes

    try:
        debian.ensure((*debian.NODE_PROGRAMS, *debian.IMAGE_PROGRAMS), print)
    except debian.MissingProgramsError as error:
        return str(error)
    return None


def _why_no_older_kubernetes() -> str | None:
    if os.environ.get("TAILWISE_KUBERNETES"):
        return None
    return "each builds its version for ten minutes. To run them: TAILWISE_KUBERNETES=1.34,1.35,1.36"


def _fails(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


def _uses_real_nodes_unmarked(item: pytest.Item) -> bool:
    names: Sequence[str] = getattr(item, "fixturenames", ())
    return "real_cluster" in names and item.get_closest_marker("real_nodes") is None
