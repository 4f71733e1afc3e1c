"""Where the harness keeps things outside the source tree: built binaries, clusters' state, daemons' logs."""

import os
import re
import shutil
from pathlib import Path

# Also a label value and part of host names and network interface names.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")


def cache_directory() -> Path:
    """Return the directory of what can be built again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tailwise"


def state_directory() -> Path:
    """Return the directory of what running clusters need."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tailwise"


def clusters_directory() -> Path:
    """Return the directory that holds one directory for each cluster."""
    return state_directory() / "clusters"


def cluster_directory(name: str) -> Path:
    """Return the directory of one cluster; raises ValueError for a name that is not a short DNS label."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"cluster name {name!r}: use up to 30 lower-case letters, digits and inner dashes")
    return clusters_directory() / name


def logs_directory(name: str) -> Path:
    """Return the directory of a cluster's logs, which outlives the cluster."""
    return state_directory() / "logs" / name


def cluster_names() -> tuple[str, ...]:
    """Return the names of all clusters that have state, running or not."""
    directory = clusters_directory()
    return (
        tuple(sorted(path.name for path in directory.iterdir() if path.is_dir()))
        if directory.is_dir()
        else ()
    )


def remove_tree(directory: Path) -> None:
    """Remove a directory whether or not it exists."""
    if directory.exists():
        shutil.rmtree(directory)
