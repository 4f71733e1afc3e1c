"""The operator as a process of its own, as a pod would run it."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.cluster.hardware_maps import NAMESPACE
from tests.cluster.simulated import SimulatedCluster

_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """A test session that is killed must not leave an operator that holds the Lease (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Operator:
    """The operator as its own process, as a pod would run it."""

    def __init__(self, kubeconfig: Path, namespace: str, log: Path, *arguments: str) -> None:
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        self._log = log
        self._command = [
            sys.executable,
            "-m",
            "tailwise",
            "operator",
            "--namespace",
            namespace,
            "--metrics-port",
            "0",
            "--health-port",
            "0",
            "--allow-model-network",
            "127.0.0.0/8",
            "--log-format",
            "text",
            "--log-level",
            "info",
            *arguments,
        ]
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process; it is ready when it places, which tests wait for anyway."""
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,
            )

    async def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """End it as a kubelet would, and return the exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.process.wait(), 30)
            except TimeoutError:
                await self.kill()
        assert self.process.returncode is not None
        return self.process.returncode

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.returncode is None

    @property
    def log_text(self) -> str:
        """All that its processes have logged."""
        return self._log.read_text(errors="replace")


def operator_beside_prometheus(cluster: SimulatedCluster, log: Path, *arguments: str) -> Operator:
    """An operator of a simulated cluster that reads its nodes' utilisation every five seconds."""
    watches = ("--prometheus-url", cluster.prometheus_url, "--utilisation-preset", "NodeExporter")
    return Operator(cluster.kubeconfig, NAMESPACE, log, *watches, "--poll-seconds", "5", *arguments)


@contextlib.asynccontextmanager
async def running(operator: Operator) -> AsyncIterator[Operator]:
    """Run an operator and print what it logged; it must end with 0 and without a traceback."""
    await operator.start()
    try:
        yield operator
    finally:
        code = await operator.stop()
        print(operator.log_text)
        assert code == 0
        assert "Traceback" not in operator.log_text
