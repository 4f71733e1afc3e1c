"""Daemons that outlive the command that started them, and are ended by id only.

Each has a record `run/NAME.json` (id, start time, boot, command) and a log. An id alone names nobody: ids are
reused, so a process counts as ours only when its start time and boot match the record too. A daemon whose
record was lost in a crash is still found: each has its cluster's directory in its environment (MARKER).
"""

import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster.locks import Progress, say

MARKER = "TAILWISE_CLUSTER_DIRECTORY"
_LOG_ROTATED_ABOVE_BYTES = 20 * 2**20
_PROBE_INTERVAL_SECONDS = 0.1
_PROGRESS_INTERVAL_SECONDS = 5.0


class DaemonError(RuntimeError):
    """A daemon ended or did not become ready; the message names its log and quotes the end of it."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A started daemon. `start_ticks` is field 22 of /proc/PID/stat: clock ticks from boot to its start."""

    name: str
    pid: int
    start_ticks: int
    boot: str
    command: tuple[str, ...]
    log: Path


# ---- starting


def start(
    directory: Path,
    name: str,
    command: Sequence[str],
    *,
    logs: Path | None = None,
    environment: Mapping[str, str] | None = None,
    progress: Progress = say,
) -> Daemon:
    """Start a daemon detached from this process, or return the one that already runs with the same command.

    `directory` is the cluster's; the record goes to its run/, the log to `logs` (default: its logs/).
    `environment` is added to this process's own. One that runs with another command is stopped first; a stale
    record is replaced. A prefix that execs (nsenter --net, unshare -m, nice, env -C) keeps the id; one that
    forks (nsenter --pid) does not. Raises DaemonError when it ends at once.
    """
    wanted = tuple(str(word) for word in command)
    recorded = running(directory, name)
    if recorded is not None:
        if recorded.command == wanted:
            return recorded
        progress(f"{name}: runs with other arguments, starting again")
        stop(directory, name, progress=progress)
    log = (logs or directory / "logs") / f"{name}.log"
    pid = _spawn(wanted, log, {**os.environ, **(environment or {}), MARKER: str(directory)})
    ticks = start_ticks(pid)
    if ticks is None:
        raise DaemonError(f"{name} ended at once; {_end_of(log)}")
    daemon = Daemon(name, pid, ticks, _boot(), wanted, log)
    _write_record(_record_path(directory, name), daemon)
    return daemon


def _spawn(command: tuple[str, ...], log: Path, environment: Mapping[str, str]) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_ROTATED_ABOVE_BYTES:
        log.replace(log.with_suffix(".log.1"))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        os.write(descriptor, f"--- {stamp} {' '.join(command)}\n".encode())
        return os.posix_spawnp(
            command[0],
            list(command),
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, descriptor, 1),
                (os.POSIX_SPAWN_DUP2, descriptor, 2),
            ],
            setsid=True,
        )
    finally:
        os.close(descriptor)


# ---- asking


def running(directory: Path, name: str) -> Daemon | None:
    """Return the recorded daemon if it still runs; None also after a reboot, or when another has its id."""
    daemon = _read_record(_record_path(directory, name))
    return daemon if daemon is not None and is_alive(daemon) else None


def recorded(directory: Path) -> tuple[Daemon, ...]:
    """Return every daemon that has a record in this cluster's directory, in the order they were started."""
    daemons = (_read_record(path) for path in (directory / "run").glob("*.json"))
    return tuple(
        sorted((daemon for daemon in daemons if daemon is not None), key=lambda daemon: daemon.start_ticks)
    )


def is_alive(daemon: Daemon) -> bool:
    """Return whether the very process of the record still runs; a zombie does not."""
    if daemon.boot != _boot():
        return False
    with suppress(ChildProcessError):
        os.waitpid(daemon.pid, os.WNOHANG)  # our own ended child would stay a zombie for ever
    return start_ticks(daemon.pid) == daemon.start_ticks


def marked(directory: Path) -> tuple[int, ...]:
    """Return the ids of all processes marked with this directory or one below it, recorded or not."""
    mark = f"{MARKER}={directory}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (path / "environ").read_bytes().split(b"\0")
            if any(word == mark or word.startswith(mark + b"/") for word in words):
                found.append(int(path.name))
    return tuple(pid for pid in sorted(found) if pid != os.getpid() and start_ticks(pid) is not None)


# ---- waiting


def wait_until_ready(
    what: str,
    probe: Callable[[], str | None],
    *,
    daemons: Sequence[Daemon] = (),
    timeout_seconds: float = 120.0,
    interval_seconds: float = _PROBE_INTERVAL_SECONDS,
    progress: Progress = say,
) -> float:
    """Call `probe` until it returns None (ready) and return the seconds that took.

    Until then it returns in words what is still missing, shown every few seconds and in the error.
    Raises DaemonError when one of `daemons` ends or time is up.
    """
    began = shown = time.monotonic()
    while (missing := probe()) is not None:
        now = time.monotonic()
        for daemon in daemons:
            if not is_alive(daemon):
                raise DaemonError(f"{what}: {daemon.name} ended; {_end_of(daemon.log)}")
        if now - began > timeout_seconds:
            logs = "; ".join(_end_of(daemon.log) for daemon in daemons)
            raise DaemonError(f"{what}: not ready after {timeout_seconds:.0f} s: {missing}; {logs}")
        if now - shown > _PROGRESS_INTERVAL_SECONDS:
            shown = now
            progress(f"{what}: {now - began:.0f} s, {missing}")
        time.sleep(interval_seconds)
    return time.monotonic() - began


# ---- ending


def stop(directory: Path, name: str, *, grace_seconds: float = 10.0, progress: Progress = say) -> None:
    """End one daemon (TERM, then KILL after the grace) and remove its record, whether or not it runs."""
    path = _record_path(directory, name)
    daemon = _read_record(path)
    if daemon is not None and is_alive(daemon):
        _end((daemon,), grace_seconds, progress)
    path.unlink(missing_ok=True)


def stop_all(
    directory: Path,
    names: Sequence[str] | None = None,
    *,
    grace_seconds: float = 10.0,
    progress: Progress = say,
) -> int:
    """End the named daemons together (None: all, and all marked leftovers); return how many ran."""
    daemons = [daemon for daemon in recorded(directory) if names is None or daemon.name in names]
    alive = [daemon for daemon in daemons if is_alive(daemon)]
    _end(tuple(alive), grace_seconds, progress)
    for daemon in daemons:
        _record_path(directory, daemon.name).unlink(missing_ok=True)
    return len(alive) + (
        end_marked(directory, grace_seconds=grace_seconds, progress=progress) if names is None else 0
    )


def end_marked(directory: Path, *, grace_seconds: float = 10.0, progress: Progress = say) -> int:
    """End processes marked with this directory or one below it, recorded or not; return how many."""
    left = []
    for pid in marked(directory):
        ticks = start_ticks(pid)
        if ticks is not None:
            left.append(Daemon(f"leftover {pid}", pid, ticks, _boot(), (), Path(os.devnull)))
    _end(tuple(left), grace_seconds, progress)
    return len(left)


def _end(daemons: Sequence[Daemon], grace_seconds: float, progress: Progress) -> None:
    for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, grace_seconds)):
        alive = [daemon for daemon in daemons if is_alive(daemon)]
        for daemon in alive:
            if number == signal.SIGKILL:
                progress(
                    f"{daemon.name}: did not end within {grace_seconds:.0f} s, killing process {daemon.pid}"
                )
            with suppress(ProcessLookupError):
                os.kill(daemon.pid, number)
        deadline = time.monotonic() + seconds
        while any(is_alive(daemon) for daemon in alive) and time.monotonic() < deadline:
            time.sleep(0.02)
    stuck = [f"{daemon.name} ({daemon.pid})" for daemon in daemons if is_alive(daemon)]
    if stuck:
        raise DaemonError(f"these processes survived SIGKILL: {', '.join(stuck)}")


# ---- records and /proc


def _record_path(directory: Path, name: str) -> Path:
    return directory / "run" / f"{name}.json"


def _write_record(path: Path, daemon: Daemon) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({**asdict(daemon), "log": str(daemon.log)}))
    temporary.replace(path)


def _read_record(path: Path) -> Daemon | None:
    try:
        record = json.loads(path.read_text())
        return Daemon(**{**record, "command": tuple(record["command"]), "log": Path(record["log"])})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks from boot; None when there is none, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the command's name may itself hold spaces and brackets
    return None if fields[0] in "ZX" else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _end_of(log: Path, lines: int = 8) -> str:
    try:
        tail = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return f"no log at {log}"
    return f"the end of {log}:\n  " + "\n  ".join(line[:400] for line in tail)
