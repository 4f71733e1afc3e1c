"""Image stores made once: a new node starts from hard links to a seed instead of importing every image.

Comes in: docker-archives. Goes out: a containerd root in the cache (the seed), named by the hash of the
images' contents, and from it the roots of new nodes. Blobs and unpacked layers are shared: containerd and
overlayfs write none of them in place, they add and unlink, so neither a node's garbage collection nor its end
reaches the seed. Databases are written in place and therefore copied; they hold ids and digests, no paths, so
a store works wherever it lies.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from tests.cluster import base_images, paths, probes, processes
from tests.cluster.base_images import ImageError, file_name, run
from tests.cluster.locks import Progress, exclusive, say

NAMESPACE = "k8s.io"  # containerd's own, of the images that kubelet sees
_SHARED = ("io.containerd.content.v1.content/blobs", "io.containerd.snapshotter.v1.overlayfs/snapshots")
_COPIED = ("io.containerd.snapshotter.v1.overlayfs/metadata.db", "io.containerd.metadata.v1.bolt/meta.db")
_RECIPE = "1"  # raised when seeds are made in another way
_STORE = "store"
_RECORD = "images.json"


def directory() -> Path:
    """Where seeds are cached."""
    return base_images.directory() / "seeds"


def plant(archives: Sequence[Path], roots: Sequence[Path], progress: Progress = say) -> None:
    """Make every containerd root of `roots`, none of which exists yet, as if it had imported `archives`.

    The seed is made first if these very images have none; it takes the place of an older one of the same
    names. A root is there whole or not at all.

    Raises:
        ImageError: when an archive is none, or containerd cannot import it.
    """
    if not roots:
        return
    with exclusive(directory() / "lock", "image seeds", progress):
        seed = _ensure(archives, progress)
        began = time.monotonic()
        # As many at once as there are CPUs: each is a process of its own that copies names.
        with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1)) as pool:
            list(pool.map(lambda root: _copy_store(seed / _STORE, root), roots))
        seconds = time.monotonic() - began
        progress(f"images {seed.name}: {len(roots)} nodes start with them, after {seconds:.1f} s")


# ---- the seed


def _ensure(archives: Sequence[Path], progress: Progress) -> Path:
    images = dict(sorted(_identity(archive) for archive in archives))
    content = json.dumps({"recipe": _RECIPE, "containerd": _containerd_version(), "images": images})
    names = "+".join(file_name(tags) for tags in images)
    seed = directory() / f"{names}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if seed.exists():
        return seed
    older = [path for path in directory().iterdir() if path.name.rpartition("-")[0] == names]
    began = time.monotonic()
    making = directory() / ".making"
    processes.stop_all(making, progress=progress)  # of one that was interrupted
    paths.remove_tree(making)
    present = _start_from(older, making / _STORE)
    lacking = [archive for archive in archives if _identity(archive) not in present.items()]
    _import(making, lacking, progress)
    (making / _RECORD).write_text(content)
    making.rename(seed)
    for each in older:
        paths.remove_tree(each)
    progress(f"images {seed.name}: seed made in {time.monotonic() - began:.0f} s")
    return seed


def _start_from(older: Sequence[Path], store: Path) -> Mapping[str, str]:
    """Begin with the images of an older seed, of which most layers are the same still; return what it has."""
    for seed in older:
        record = json.loads((seed / _RECORD).read_text())
        if (record["recipe"], record["containerd"]) == (_RECIPE, _containerd_version()):
            _copy_store(seed / _STORE, store)
            present: dict[str, str] = record["images"]
            return present
    return {}


def _identity(archive: Path) -> tuple[str, str]:
    """The tags of a docker-archive and the hash of its contents: its configurations name layers by digest."""
    try:
        with tarfile.open(archive, "r:") as tar:
            manifest = _read(tar, "manifest.json")
            entries = json.loads(manifest)
            digest = hashlib.sha256(manifest)
            for entry in entries:
                digest.update(_read(tar, entry["Config"]))
            tags = "+".join(sorted(tag for entry in entries for tag in entry["RepoTags"]))
    except (KeyError, TypeError, ValueError, tarfile.TarError) as error:
        raise ImageError(f"{archive} is no docker-archive with tags: {error!r}") from error
    return tags, digest.hexdigest()


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read()


@cache
def _containerd_version() -> str:
    return subprocess.run(
        ["containerd", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()


# ---- a containerd for the length of the imports


def _import(making: Path, archives: Sequence[Path], progress: Progress) -> None:
    (making / _STORE).mkdir(parents=True, exist_ok=True)
    # A socket's path has 107 characters at most, and the cache's may be long.
    with tempfile.TemporaryDirectory(prefix="tailwise-seed-") as state:
        socket = Path(state) / "containerd.sock"
        configuration = making / "containerd.toml"
        configuration.write_text(_configuration(making / _STORE, Path(state), socket))
        # In a mount namespace of its own: the mounts of unpacking end with it, whatever it leaves.
        command = ["unshare", "--mount", "containerd", "--config", str(configuration)]
        client = ["ctr", f"--address={socket}", f"--namespace={NAMESPACE}"]
        logs = base_images.directory() / "logs"
        daemon = processes.start(making, "seed-containerd", command, logs=logs, progress=progress)
        try:
            processes.wait_until_ready(
                "image seed: containerd",
                probes.succeeds([*client, "version"]),
                daemons=[daemon],
                progress=progress,
            )
            for archive in archives:
                command = [*client, "images", "import", str(archive)]
                run(command, f"image {archive.stem}: importing once for all nodes", progress)
            # Collects now what older images leave: the end of a lease is the only command that waits for it.
            for words in (("create", "--id=seed"), ("delete", "--sync", "seed")):
                subprocess.run([*client, "leases", *words], capture_output=True, check=True)
        finally:
            processes.stop_all(making, progress=progress)
    configuration.unlink()
    paths.remove_tree(making / "run")


def _configuration(store: Path, state: Path, socket: Path) -> str:
    """containerd's file: content, snapshots and images; no CRI, which is for kubelets."""
    return f"""\
version = 2
root = "{store}"
state = "{state}"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{socket}"
# A new image of an old name takes the old one's layers over: collected meanwhile, they fail the import. Only
# `_import` collects, when all is there.
[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "1h"
  deletion_threshold = 1000000
  mutation_threshold = 0
"""


# ---- copies that share


def _copy_store(source: Path, root: Path) -> None:
    """Make `root` of links to blobs and layers and copies of databases; between file systems, of copies."""
    partial = root.with_name(f"{root.name}.new")
    paths.remove_tree(partial)
    for name in (*_SHARED, *_COPIED):
        (partial / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    how = "--link" if _can_link(source / _COPIED[0], partial / "probe") else "--reflink=auto"
    for name in _SHARED:
        # --archive keeps owners, and the extended attributes by which overlayfs knows replaced directories.
        command = ["cp", "--archive", how, "--no-target-directory", str(source / name), str(partial / name)]
        copied = subprocess.run(command, capture_output=True, text=True, check=False)
        if copied.returncode != 0:
            raise ImageError(f"{' '.join(command)}: {copied.stderr.strip()[-400:]}")
    for name in _COPIED:
        shutil.copyfile(source / name, partial / name)
        (partial / name).chmod(0o600)
    partial.rename(root)


def _can_link(source: Path, target: Path) -> bool:
    """Whether a hard link can be made: not between file systems, and not on every kind of them."""
    try:
        os.link(source, target)
    except OSError:
        return False
    target.unlink()
    return True
