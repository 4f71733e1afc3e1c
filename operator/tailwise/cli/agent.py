"""``tailwise agent``: describe this node's hardware, once to standard output or for ever to its ConfigMap."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import platform
import re
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from tailwise.agent.probe import ProbeError, measure
from tailwise.agent.reading import Roots, online_cores, read_hardware

_UNITS = {"s": 1, "m": 60, "h": 3600}


def add_parser(subparsers: Any) -> None:
    """Add ``agent`` and its options."""
    parser = subparsers.add_parser("agent", help="describe this node's hardware")
    parser.add_argument("--print", action="store_true", help="print this machine's NODE.yaml and end")
    parser.add_argument(
        "--node-name", default=os.environ.get("NODE_NAME"), help="Node to speak for (default: $NODE_NAME)"
    )
    parser.add_argument("--namespace", default="tailwise-system", help="namespace of the ConfigMap")
    parser.add_argument(
        "--interval", type=_seconds, default=600.0, metavar="10m", help="time between readings: 30s, 10m, 1h"
    )
    parser.add_argument("--health-port", type=int, default=8080, help="port of /healthz; 0 for none")
    parser.add_argument(
        "--host-cgroup-root", type=Path, default=Path("/sys/fs/cgroup"), help="the host's /sys/fs/cgroup"
    )
    parser.add_argument("--host-proc-root", type=Path, default=Path("/proc"), help="the host's /proc")
    parser.add_argument("--host-sys-root", type=Path, default=Path("/sys"), help="the host's /sys")
    parser.add_argument(
        "--pod-uid",
        default=os.environ.get("POD_UID"),
        help="uid of the agent's pod, where a cgroup namespace hides its place (default: $POD_UID)",
    )
    parser.add_argument("--kubeconfig", default=None, help="kubeconfig; default: the pod's service account")


def run(arguments: argparse.Namespace) -> int:
    """Print or publish; exit code 1 when the machine cannot be measured, 2 on wrong usage."""
    roots = Roots(
        proc=arguments.host_proc_root,
        sys=arguments.host_sys_root,
        cgroup=arguments.host_cgroup_root,
        pod_uid=arguments.pod_uid,
    )
    if arguments.print:
        return _print(arguments.node_name or platform.node(), roots)
    if not arguments.node_name:
        print("tailwise agent: --node-name is needed (or NODE_NAME, or --print)", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return asyncio.run(_publish(arguments, roots))


def _print(node: str, roots: Roots) -> int:
    print("tailwise agent: measuring this machine, about 2 s of CPU time", file=sys.stderr)
    try:
        measured = measure(online_cores(roots))
    except ProbeError as error:
        print(f"tailwise agent: {error}", file=sys.stderr)
        return 1
    hardware = read_hardware(node, roots, measured, datetime.now(UTC).replace(microsecond=0))
    document = hardware.model_dump(mode="json", by_alias=True, exclude_none=True)
    print(yaml.safe_dump(document, sort_keys=False), end="")
    return 0


async def _publish(arguments: argparse.Namespace, roots: Roots) -> int:
    # Only here: printing needs no Kubernetes client.
    from tailwise.agent.publishing import AgentState, serve_health  # noqa: PLC0415
    from tailwise.agent.publishing import run as keep_published  # noqa: PLC0415
    from tailwise.cluster.client import ConfigurationError, connect  # noqa: PLC0415

    state = AgentState()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, state.stop.set)
    health = None
    if arguments.health_port:
        health = await serve_health(state, arguments.health_port, arguments.interval)
    try:
        await keep_published(
            lambda: connect(kubeconfig=arguments.kubeconfig, connections=2),
            node=arguments.node_name,
            namespace=arguments.namespace,
            roots=roots,
            interval_seconds=arguments.interval,
            state=state,
        )
    except ConfigurationError as error:
        print(f"tailwise agent: {error}", file=sys.stderr)
        return 1
    finally:
        if health is not None:
            await health.cleanup()
    return 0


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 30s, 10m or 1h")
    return float(match[1]) * _UNITS[match[2] or "s"]
