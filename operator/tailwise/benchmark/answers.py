"""What the clients' output says: latencies of each pod. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """LoadGen at one pod: latencies in milliseconds in the order of queries, or why there are none."""

    begin: float = 0.0
    end: float = 0.0
    valid: bool = False
    latencies_milliseconds: tuple[float, ...] = ()
    error: str | None = None


def parse(output: str) -> dict[str, Measured]:
    """Each pod's answers, by its name in the plan; lines that are not the driver's are passed over."""
    heads: dict[str, Mapping[str, object]] = {}
    latencies: dict[str, list[float]] = {}
    for line in output.splitlines():
        if not line.startswith("{"):
            continue
        try:
            value = json.loads(line)
            pod = str(value["pod"])
            if "latenciesMicroseconds" in value:
                latencies.setdefault(pod, []).extend(each / 1000 for each in value["latenciesMicroseconds"])
            else:
                heads[pod] = value
        except (ValueError, KeyError, TypeError):
            continue
    return {pod: _measured(head, latencies.get(pod, [])) for pod, head in heads.items()}


def _measured(head: Mapping[str, object], latencies: list[float]) -> Measured:
    if "error" in head or not latencies:
        return Measured(error=str(head.get("error") or "the clients' output holds no latencies"))
    return Measured(
        begin=float(str(head["begin"])),
        end=float(str(head["end"])),
        valid=bool(head["valid"]),
        latencies_milliseconds=tuple(latencies),
    )
