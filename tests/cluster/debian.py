"""Programs that come from Debian packages: which are missing, and their installation without starting any.

Only what is not there is installed, so a machine's own containerd (Docker's, say) is used as a program and
never replaced. Services stay down: policy-rc.d forbids their start, and where systemd runs they are disabled.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.locks import Progress

POLICY = Path("/usr/sbin/policy-rc.d")
_FORBID_STARTS = (
    "#!/bin/sh\n# Written for one installation: no service is started. Removed afterwards.\nexit 101\n"
)
_ACTION_FORBIDDEN = 101


@dataclass(frozen=True, slots=True)
class Program:
    """One file that must be there, the Debian package that brings it, and the service that comes along."""

    path: str  # a name looked up on PATH, or an absolute path
    package: str
    service: str | None = None

    def present(self) -> bool:
        """Whether the program is on this machine."""
        return Path(self.path).exists() if self.path.startswith("/") else shutil.which(self.path) is not None


NODE_PROGRAMS: tuple[Program, ...] = (
    Program("containerd", "containerd", service="containerd.service"),
    Program("ctr", "containerd"),
    Program("runc", "runc"),
    Program("/usr/lib/cni/bridge", "containernetworking-plugins"),
    Program("/usr/lib/cni/host-local", "containernetworking-plugins"),
    Program(
        "prometheus-node-exporter", "prometheus-node-exporter", service="prometheus-node-exporter.service"
    ),
    Program("ip", "iproute2"),
    Program("nsenter", "util-linux"),
)
IMAGE_PROGRAMS: tuple[Program, ...] = (
    Program("buildah", "buildah"),
    Program("debootstrap", "debootstrap"),
    Program("/bin/busybox", "busybox-static"),
)


class MissingProgramsError(RuntimeError):
    """Programs are missing and cannot be installed from here; the message says which and how."""


def missing(programs: Sequence[Program]) -> tuple[Program, ...]:
    """Those of `programs` that this machine lacks."""
    return tuple(program for program in programs if not program.present())


def ensure(programs: Sequence[Program], progress: Progress) -> None:
    """Install the packages of missing programs with apt-get; nothing is done when all are present.

    Raises:
        MissingProgramsError: without root or apt-get, or when the installation failed.
    """
    lacking = missing(programs)
    if not lacking:
        return
    packages = sorted({program.package for program in lacking})
    by_hand = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        names = ", ".join(program.path for program in lacking)
        raise MissingProgramsError(f"not on this machine: {names}. As root on Debian or Ubuntu: {by_hand}")
    progress(f"installing Debian packages: {' '.join(packages)}")
    policy_is_ours = _forbid_service_starts()
    try:
        _apt_get("update")
        _apt_get("install", "--yes", "--no-install-recommends", *packages)
    finally:
        if policy_is_ours:
            POLICY.unlink(missing_ok=True)
    _disable({program.service for program in lacking if program.service})
    still = missing(programs)
    if still:
        names = ", ".join(program.path for program in still)
        raise MissingProgramsError(f"installed {' '.join(packages)}, yet these are absent: {names}")


def _forbid_service_starts() -> bool:
    """Write a policy that forbids starts unless one stands there already; True when it is ours to remove."""
    if POLICY.exists():
        answer = subprocess.run([POLICY, "containerd", "start"], check=False).returncode
        if answer != _ACTION_FORBIDDEN:
            raise MissingProgramsError(
                f"{POLICY} lets installed services start; install the packages by hand or make it exit 101"
            )
        return False
    POLICY.write_text(_FORBID_STARTS)
    POLICY.chmod(0o755)
    return True


def _apt_get(*arguments: str) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", *arguments]
    finished = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if finished.returncode != 0:
        last_lines = "\n".join((finished.stdout + finished.stderr).splitlines()[-15:])
        raise MissingProgramsError(f"{' '.join(command)} failed:\n{last_lines}")


def _disable(services: set[str]) -> None:
    if services and Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "disable", *sorted(services)], capture_output=True, check=False)
