"""A node-exporter for nodes that do not exist: the same series, advanced in real time by a script.

One process speaks for all simulated nodes; each series carries `instance` and `node`, which Prometheus keeps
(honor_labels). The script file is read again whenever it changes, so that a test can load a node.
"""

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tests.cluster.utilisation import Segment, busy_seconds, from_mapping, share_at

_LABELS = ("cpu", "instance", "node")
# Linux' schedutil governor asks for 1.25 x the utilised frequency; idle cores rest at about a third.
_GOVERNOR_HEADROOM = 1.25
_LOWEST_SHARE_OF_CLOCK = 1 / 3
# Of busy time; the rest is user time. Both count as busy for the product.
_SYSTEM_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class ScriptedNode:
    """A node's cores, clock and script. `silent`: its exporter does not answer, as on a node that hangs."""

    name: str
    cores: int
    megahertz: int
    segments: tuple[Segment, ...]
    silent: bool = False


def write_script(path: Path, nodes: tuple[ScriptedNode, ...]) -> None:
    """Write the script file in one step, so that the exporter never reads half of one."""
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps([asdict(node) for node in nodes]))
    temporary.replace(path)


def read_script(path: Path) -> tuple[ScriptedNode, ...]:
    """Read a script file."""
    return tuple(
        ScriptedNode(
            name=entry["name"],
            cores=entry["cores"],
            megahertz=entry["megahertz"],
            segments=tuple(
                Segment(segment["since_epoch_seconds"], from_mapping(segment["utilisation"]))
                for segment in entry["segments"]
            ),
            silent=entry["silent"],
        )
        for entry in json.loads(path.read_text())
    )


class ScriptCollector(Collector):
    """Computes every series when it is asked: nothing advances by itself, so nothing can drift."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at_nanoseconds = -1
        self._nodes: tuple[ScriptedNode, ...] = ()

    def collect(self) -> Iterator[Metric]:
        """Yield the families of all nodes that answer."""
        modified = self._path.stat().st_mtime_ns
        if modified != self._read_at_nanoseconds:
            self._nodes, self._read_at_nanoseconds = read_script(self._path), modified
        now = time.time()
        seconds = CounterMetricFamily(
            "node_cpu_seconds", "Seconds the CPUs spent in each mode.", labels=(*_LABELS, "mode")
        )
        clock = GaugeMetricFamily("node_cpu_scaling_frequency_hertz", "Current scaled clock.", labels=_LABELS)
        highest = GaugeMetricFamily("node_cpu_frequency_max_hertz", "Highest clock of a CPU.", labels=_LABELS)
        for node in self._nodes:
            if not node.silent:
                _add(node, now, seconds, clock, highest)
        yield from (seconds, clock, highest)


def _add(
    node: ScriptedNode,
    now: float,
    seconds: CounterMetricFamily,
    clock: GaugeMetricFamily,
    highest: GaugeMetricFamily,
) -> None:
    busy = busy_seconds(node.segments, now)
    lifetime = max(0.0, now - node.segments[0].since_epoch_seconds) if node.segments else 0.0
    share = max(_LOWEST_SHARE_OF_CLOCK, min(1.0, _GOVERNOR_HEADROOM * share_at(node.segments, now)))
    modes = {
        "idle": lifetime - busy,
        "system": busy * _SYSTEM_SHARE,
        "user": busy * (1 - _SYSTEM_SHARE),
    }
    for cpu in range(node.cores):
        labels = (str(cpu), node.name, node.name)
        for mode, value in modes.items():
            seconds.add_metric((*labels, mode), value)
        clock.add_metric(labels, node.megahertz * 1e6 * share)
        highest.add_metric(labels, node.megahertz * 1e6)


def main() -> None:
    """Serve until TERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    registry = CollectorRegistry()
    registry.register(ScriptCollector(arguments.script))
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    server, _ = start_http_server(arguments.port, arguments.address, registry)
    print(f"serving {arguments.script} at {arguments.address}:{arguments.port}", flush=True)
    ended.wait()
    server.shutdown()
    sys.exit(0)


if __name__ == "__main__":
    main()
