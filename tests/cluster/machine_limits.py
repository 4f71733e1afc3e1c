"""The one setting of the machine itself that several kubelets need raised, put back with the last cluster.

Each kubelet and containerd watches files through several inotify instances, and a user has 128 by default:
the third cluster's cAdvisor fails with "inotify_init: too many open files".
"""

from pathlib import Path

from tests.cluster import paths
from tests.cluster.locks import Progress

_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
_WANTED_INSTANCES = 2048


def raise_for_kubelets(progress: Progress) -> None:
    """Raise the limit where it is lower, and write down what it was."""
    present = int(_INSTANCES.read_text())
    if present >= _WANTED_INSTANCES:
        return
    before = _before()
    if not before.exists():
        before.parent.mkdir(parents=True, exist_ok=True)
        before.write_text(str(present))
    _INSTANCES.write_text(str(_WANTED_INSTANCES))
    progress(f"{_INSTANCES}: raised from {present} to {_WANTED_INSTANCES} until the last cluster is down")


def put_back() -> None:
    """Restore what `raise_for_kubelets` found; nothing happens when it changed nothing."""
    before = _before()
    if before.exists():
        _INSTANCES.write_text(before.read_text())
        before.unlink()


def _before() -> Path:
    return paths.clusters_directory() / ".inotify-instances-before"
