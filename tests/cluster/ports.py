"""Free ports that a cluster keeps for its life, so that what was written down about it stays true."""

import itertools
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import processes

_FIRST = 20000
_RELEASE_SECONDS = 2.0


def keep(
    directory: Path, owners: Mapping[str, str], address: str, *, elsewhere: bool = False
) -> dict[str, int]:
    """Return a port for each key of `owners`, remembered in the cluster's ports.json.

    A value of `owners` names the daemon that listens there. A remembered port is kept when that daemon runs
    or the port is free; else a stranger took it while the cluster was down, and another is chosen.
    `elsewhere`: the ports are of another network namespace, where no stranger can be.
    """
    path = directory / "ports.json"
    known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    chosen: dict[str, int] = {}
    for name, daemon in owners.items():
        port = known.get(name, 0)
        usable = port and (
            elsewhere or processes.running(directory, daemon) is not None or _becomes_free(address, port)
        )
        chosen[name] = port if usable else free_port(address, {*known.values(), *chosen.values()})
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**known, **chosen}))
    return chosen


def free_port(address: str, taken: set[int]) -> int:
    """Return a free port below the range that the kernel gives to outgoing connections.

    A port of that range could be lent to some connection between the choice and the listening.
    Clusters that come up at the same moment look from different places, by their process's id.
    """
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    begin = _FIRST + os.getpid() * 97 % max(1, end - _FIRST - 100)
    for port in itertools.chain(range(begin, end), range(_FIRST, begin)):
        if port not in taken and is_free(address, port):
            return port
    raise OSError(f"no free port on {address} from {_FIRST} to {end}")


def _becomes_free(address: str, port: int) -> bool:
    """Give a daemon that was just killed the moment in which its last threads let go of its sockets."""
    deadline = time.monotonic() + _RELEASE_SECONDS
    while not (free := is_free(address, port)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return free


def is_free(address: str, port: int) -> bool:
    """Return whether a server could listen on the port now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError:
            return False
    return True
