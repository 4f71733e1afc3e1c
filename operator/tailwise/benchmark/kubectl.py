"""kubectl as a value: which binary, which cluster. What a user would type is what is run here."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


class KubectlError(RuntimeError):
    """A command that failed, with what it said."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Runs kubectl against one cluster; without a kubeconfig against the one of the environment."""

    binary: Path
    kubeconfig: Path | None
    context: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment for kubectl and helm."""
        return {**os.environ, **({"KUBECONFIG": str(self.kubeconfig)} if self.kubeconfig else {})}

    def run(self, *arguments: str, stdin: str | None = None, timeout_seconds: float = 120) -> str:
        """Standard output of ``kubectl ARGUMENTS``; raises KubectlError with its standard error."""
        chosen = ("--context", self.context) if self.context else ()
        try:
            done = subprocess.run(
                [str(self.binary), *chosen, *arguments],
                input=stdin,
                capture_output=True,
                text=True,
                env=self.environment,
                timeout=timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlError(
                f"kubectl {' '.join(arguments)}: not within {timeout_seconds:.0f} s"
            ) from error
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """The answer of ``kubectl get ARGUMENTS`` as JSON."""
        return json.loads(self.run("get", *arguments, "--output", "json"))

    def apply(self, manifests: Sequence[Mapping[str, Any]]) -> None:
        """Server-side apply of the manifests, under a field manager of our own."""
        self.run(
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager",
            "tailwise-benchmark",
            "--filename",
            "-",
            stdin=yaml.safe_dump_all(manifests, sort_keys=False),
        )

    def delete(self, manifests: Sequence[Mapping[str, Any]]) -> None:
        """Delete the manifests' objects and wait until they are gone."""
        self.run(
            "delete",
            "--ignore-not-found",
            "--wait",
            "--filename",
            "-",
            stdin=yaml.safe_dump_all(manifests, sort_keys=False),
            timeout_seconds=300,
        )


def wait_for(
    what: str,
    ready: Callable[[], str | None],
    *,
    timeout_seconds: float,
    report: Callable[[str], None],
    interval_seconds: float = 1.0,
) -> None:
    """Poll until ``ready`` returns None; its text says what is still missing and is shown when it changes."""
    deadline = time.monotonic() + timeout_seconds
    shown = ""
    while (missing := ready()) is not None:
        if missing != shown:
            report(f"{what}: {missing}")
            shown = missing
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_seconds:.0f} s; {missing}")
        time.sleep(interval_seconds)
