"""The probe measures the core, not what the rest of the machine leaves of it."""

import json
import os
import signal
import subprocess
import sys
import time

from tailwise.agent.probe import TIMEOUT_SECONDS


def test_a_probe_that_is_stopped_most_of_the_time_measures_the_same_core() -> None:
    """As a quota or a neighbour would take the processor away: figures are of CPU time, not of the clock."""
    free, stopped = _figures(), _figures(run_seconds=0.002, stop_seconds=0.008)
    for name in ("gflopsPerCore", "runtimeGflopsPerCore"):
        assert stopped[name] > free[name] / 2  # by the clock it would be a fifth


def _figures(run_seconds: float = 0.0, stop_seconds: float = 0.0) -> dict[str, float]:
    """What the probe prints, while it is let run and stopped in turns if so asked."""
    one_thread = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "tailwise.agent.probe", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | one_thread) as probe:
        while stop_seconds and probe.poll() is None:
            time.sleep(run_seconds)
            probe.send_signal(signal.SIGSTOP)
            time.sleep(stop_seconds)
            probe.send_signal(signal.SIGCONT)
        out, _ = probe.communicate(timeout=TIMEOUT_SECONDS)
    assert probe.returncode == 0
    figures: dict[str, float] = json.loads(out)
    return figures
