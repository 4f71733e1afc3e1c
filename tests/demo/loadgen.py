"""MLPerf LoadGen against every pod at once: one Job a pod, on nodes that serve nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tailwise.benchmark.kubectl import KubectlError, wait_for
from tests.demo.target import Target

_LABEL = "tailwise.dev/demo-loadgen"


@dataclass(frozen=True, slots=True)
class Query:
    """Whom a client asks, and for what."""

    pod: str
    address: str
    port: int
    model: str


@dataclass(frozen=True, slots=True)
class Latency:
    """What LoadGen measured at one pod, in milliseconds, by nearest rank over all its queries."""

    p50_milliseconds: float
    p90_milliseconds: float
    p99_milliseconds: float
    queries: int
    valid: bool
    latencies_milliseconds: tuple[float, ...] = ()


def job(target: Target, namespace: str, run: str, query: Query, queries: int) -> dict[str, Any]:
    """The Job of one client: SingleStream, so many queries, one result line on standard output."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"loadgen-{run}-{query.pod}"[:63].rstrip("-."),
            "namespace": namespace,
            "labels": {_LABEL: run},
            "annotations": {"tailwise.dev/demo-pod": query.pod},
        },
        "spec": {
            "backoffLimit": 0,
            "template": {
                "metadata": {
                    "labels": {_LABEL: run},
                    "annotations": {"tailwise.dev/demo-pod": query.pod},
                },
                "spec": {
                    **target.clients.spec(),
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "containers": [
                        {
                            "name": "loadgen",
                            "image": target.serving_image,
                            "imagePullPolicy": target.image_pull_policy,
                            "command": [
                                "python",
                                "-m",
                                "loadgen_client",
                                "--url",
                                f"http://{query.address}:{query.port}",
                                "--model",
                                query.model,
                                "--queries",
                                str(queries),
                                # Every latency on a line of its own, for the report's distributions.
                                *("--latencies", "/dev/stdout"),
                            ],
                            "workingDir": "/tmp",
                            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
                        }
                    ],
                },
            },
        },
    }


def measure(
    target: Target,
    namespace: str,
    run: str,
    asked: Sequence[Query],
    queries: int,
    report: Callable[[str], None],
    timeout_seconds: float = 3600,
) -> Mapping[str, Latency]:
    """Latencies by pod name; a pod whose client failed is left out, and that is said."""
    jobs = [job(target, namespace, run, query, queries) for query in asked]
    target.kubectl.apply(jobs)
    try:
        wait_for(
            f"LoadGen SingleStream, {queries} queries at each of {len(asked)} pods",
            lambda: _running(target, namespace, run, len(asked)),
            timeout_seconds=timeout_seconds,
            report=report,
            interval_seconds=3.0,
        )
        return _results(target, namespace, run, report)
    finally:
        target.kubectl.delete(jobs)


def _running(target: Target, namespace: str, run: str, expected: int) -> str | None:
    jobs = target.kubectl.get("jobs", "--namespace", namespace, "--selector", f"{_LABEL}={run}")["items"]
    ended = sum(bool(job["status"].get("succeeded") or job["status"].get("failed")) for job in jobs)
    return None if ended == expected else f"{ended} of {expected} clients have finished"


def _results(target: Target, namespace: str, run: str, report: Callable[[str], None]) -> dict[str, Latency]:
    results: dict[str, Latency] = {}
    pods = target.kubectl.get("pods", "--namespace", namespace, "--selector", f"{_LABEL}={run}")["items"]
    for client in pods:
        name = client["metadata"]["name"]
        served = client["metadata"]["annotations"]["tailwise.dev/demo-pod"]
        try:
            text = target.kubectl.run("logs", name, "--namespace", namespace, "--container", "loadgen")
        except KubectlError as error:
            text = str(error)
        latency = parse(text)
        if latency is None:
            last = text.strip().splitlines()[-1:] or ["no output"]
            report(f"LoadGen at {served} gave no result: {last[0][:300]}")
        else:
            results[served] = latency
    return results


def parse(text: str) -> Latency | None:
    """The result line among a client's output; None when there is none."""
    lines = text.splitlines()
    latencies = tuple(
        int(fields[2]) / 1e6
        for fields in (line.split("\t") for line in lines)
        if len(fields) == 3 and fields[2].isdigit()
    )
    for line in reversed(lines):
        if not line.startswith("{"):
            continue
        try:
            value = json.loads(line)
            return Latency(
                p50_milliseconds=float(value["p50Milliseconds"]),
                p90_milliseconds=float(value["p90Milliseconds"]),
                p99_milliseconds=float(value["p99Milliseconds"]),
                queries=int(value["queries"]),
                valid=bool(value["valid"]),
                latencies_milliseconds=latencies,
            )
        except (ValueError, KeyError, TypeError):
            continue
    return None
