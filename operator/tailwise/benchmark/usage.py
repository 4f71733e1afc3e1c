"""What nodes and pods used while they were measured, read from Prometheus with the operator's own queries."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from tailwise.api.hardware import NodeHardware
from tailwise.benchmark.manifests import NAMESPACE
from tailwise.benchmark.records import RunError
from tailwise.telemetry.queries import NODE_LABELS, CpuUnit, UtilisationQueries, cadvisor, node_exporter

PRESETS = {"CAdvisor": cadvisor, "NodeExporter": node_exporter}
_SECONDS = 15.0
# cAdvisor looks at a container every ten to fifteen seconds: a shorter window would miss whole containers.
_LEAST_WINDOW_SECONDS = 45


def window_seconds(seconds: float) -> int:
    """A query's window for a measurement of this length; too short a one holds no two samples."""
    return max(_LEAST_WINDOW_SECONDS, int(seconds))


class Usage:
    """Asks one Prometheus; ``url`` is as seen from here."""

    def __init__(self, url: str, preset: str, hardware: Mapping[str, NodeHardware]) -> None:
        self._url = url.rstrip("/")
        self._preset = preset
        self._hardware = hardware

    def nodes(self, window: int, at: float | None = None) -> dict[str, float]:
        """U_C of equation (6) of each node that is known, over the window that ends ``at`` (now)."""
        queries: UtilisationQueries = PRESETS[self._preset](window)
        found = {}
        for sample in self._ask(queries.cpu.value, at):
            labels = sample["metric"]
            name = next((labels[each] for each in NODE_LABELS if labels.get(each) in self._hardware), None)
            if name is None:
                continue
            value = float(sample["value"][1])
            if queries.cpu_unit is CpuUnit.CORES:
                value /= self._hardware[name].capacity_cores
            found[name] = min(1.0, max(0.0, value))
        return found

    def pods(self, window: int, at: float | None = None) -> dict[str, float]:
        """Cores that each pod of the benchmark used."""
        series = (
            f'container_cpu_usage_seconds_total{{namespace="{NAMESPACE}",container!="",container!="POD"}}'
        )
        query = f"max by (pod) (sum by (pod, job) (rate({series}[{window}s])))"
        return {
            sample["metric"]["pod"]: float(sample["value"][1])
            for sample in self._ask(query, at)
            if "pod" in sample["metric"]
        }

    def _ask(self, query: str, at: float | None) -> list[dict[str, Any]]:
        form = {"query": query, **({"time": f"{at:.3f}"} if at is not None else {})}
        request = f"{self._url}/api/v1/query?{urllib.parse.urlencode(form)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_SECONDS) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except (urllib.error.URLError, TimeoutError, ValueError, KeyError) as error:
            raise RunError(f"Prometheus at {self._url}: {error}; see --prometheus-url") from error
        return found
