"""Image stores that nodes start from: what is shared, what never is, and what becomes of the seed."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.cluster import base_images, image_seeds, images, lifecycle, paths
from tests.cluster.locks import Progress
from tests.cluster.node_runtime import inside
from tests.cluster.node_shapes import NodeShape
from tests.cluster.real import RealCluster, up
from tests.cluster.sizes import Size

pytestmark = pytest.mark.real_nodes

_DOCKERFILE = Path(__file__).parent / "cluster" / "real_nodes" / "image" / "Dockerfile"
_IMAGE = "localhost/tailwise/who-am-i:dev"
_MEMORY = Path("/dev/shm")  # a file system of its own
_SNAPSHOTS = "io.containerd.snapshotter.v1.overlayfs/snapshots"
_DATABASES = ("metadata.db", "meta.db")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, so that no seed of the developer's is replaced."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _archive(directory: Path, name: str, text: str) -> Path:
    """A docker-archive with the file /data/file, whose upper layer replaces the directory as a whole."""
    directory.mkdir(exist_ok=True)
    layers = [
        _layer(directory / "lower.tar", {"data/hidden": "hidden"}),
        _layer(directory / "upper.tar", {"data/.wh..wh..opq": "", "data/file": text}),
    ]
    archive = directory / f"{name}-{text}.tar"
    base_images.write_archive(archive, f"localhost/tailwise/{name}:1", layers, {"Cmd": ["/none"]})
    return archive


def _layer(path: Path, files: Mapping[str, str]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return path


def _contents(store: Path) -> dict[str, str]:
    """Every file of a store with the hash of its bytes, and every directory with its overlayfs marks."""
    seen = {}
    for path in sorted(store.rglob("*")):
        name = str(path.relative_to(store))
        if path.is_symlink():
            seen[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            marks = [mark for mark in os.listxattr(path) if mark.startswith("trusted.overlay.")]
            seen[name] = f"{oct(path.stat().st_mode)} {marks}"
        elif path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            seen[name] = f"{oct(path.stat().st_mode)} {path.stat().st_mtime_ns} {digest}"
    return seen


def _bytes(stores: Iterable[Path]) -> int:
    """What stores take on the disk together: each inode counts once."""
    listed = [path.lstat() for store in stores for path in store.rglob("*")]
    return sum({stat.st_ino: 512 * stat.st_blocks for stat in listed}.values())


def _seed_of(name: str) -> Path:
    (found,) = (path for path in image_seeds.directory().iterdir() if path.name.rpartition("-")[0] == name)
    return found / "store"


def test_nodes_start_with_the_images_on_one_copy_which_neither_pods_nor_their_end_change(
    progress: Progress,
) -> None:
    archive = images.build(_DOCKERFILE, _IMAGE, progress=progress)
    name = f"seeded-{os.getpid()}"
    said: list[str] = []

    def listen(line: str) -> None:
        said.append(line)
        progress(line)

    try:
        lifecycle.claim(Size.REAL, name, owned=True)
        cluster = up(
            name, [NodeShape("one", cores=0.5), NodeShape("two", cores=0.5)], listen, images=[archive]
        )
        assert not any("importing into" in line for line in said)
        assert any(line == f"image {archive.stem}: already on 2 nodes" for line in said)
        seed = _seed_of("pause-1+who-am-i-dev")
        before = _contents(seed)
        stores = [node.image_store for node in cluster.nodes]
        one_copy = _bytes([seed])
        assert _bytes([seed, *stores]) < 1.2 * one_copy  # directories and databases are each node's own
        for node in ("one", "two"):
            _run_and_write_over_a_file_of_the_image(cluster, node)
        first = cluster.node("one")
        removal = inside(first, "ctr", "--namespace=k8s.io", "images", "remove", "--sync", _IMAGE)
        subprocess.run(removal, check=True, capture_output=True)
        assert _contents(seed) == before
        again = up(name, [node.shape for node in cluster.nodes], listen, images=[archive])
        assert again == cluster
    finally:
        lifecycle.down(Size.REAL, name, progress)
    assert _contents(seed) == before


def _run_and_write_over_a_file_of_the_image(cluster: RealCluster, node: str) -> None:
    write = "echo spoilt >> /usr/bin/env && rm /usr/bin/id && echo written"
    container = {
        "name": "main",
        "image": _IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", write],
        "securityContext": {"runAsUser": 0},
    }
    spec = {"nodeName": node, "restartPolicy": "Never", "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"writes-{node}"}, "spec": spec}
    cluster.run_kubectl("create", "--filename=-", stdin=json.dumps(pod))
    succeeded = "--for=jsonpath={.status.phase}=Succeeded"
    cluster.run_kubectl("wait", f"pod/writes-{node}", succeeded, "--timeout=120s")
    assert cluster.run_kubectl("logs", f"writes-{node}") == "written\n"


def test_a_seed_takes_the_place_of_an_older_one_of_the_same_images_and_no_other(
    cache: Path, tmp_path: Path, progress: Progress
) -> None:
    old, new = (_archive(tmp_path / "images", "changing", text) for text in ("old", "new"))
    other = _archive(tmp_path / "images", "other", "other")
    image_seeds.plant([other], [tmp_path / "node-0"], progress)
    image_seeds.plant([other, old], [tmp_path / "node-1"], progress)
    image_seeds.plant([new, other], [tmp_path / "node-2"], progress)
    assert cache in image_seeds.directory().parents
    seeds = [
        path.name.rpartition("-")[0] for path in image_seeds.directory().iterdir() if path.name != "lock"
    ]
    assert sorted(seeds) == ["changing-1+other-1", "other-1"]
    texts = {file.read_text() for file in _seed_of("changing-1+other-1").rglob("data/file")}
    assert texts == {"new", "other"}  # the layers of the older image are collected
    texts = {file.read_text() for file in (tmp_path / "node-1").rglob("data/file")}
    assert texts == {"old", "other"}  # the node keeps what the seed no longer has


def test_a_store_on_another_file_system_is_a_whole_copy(
    cache: Path, tmp_path: Path, progress: Progress
) -> None:
    cache.mkdir()
    assert _MEMORY.stat().st_dev != cache.stat().st_dev
    archive = _archive(tmp_path / "images", "copied", "text")
    near, elsewhere = tmp_path / "near", _MEMORY / f"tailwise-store-{os.getpid()}"
    try:
        image_seeds.plant([archive], [near, elsewhere], progress)
        seed = _seed_of("copied-1")
        for part in ("io.containerd.content.v1.content/blobs", _SNAPSHOTS):
            assert _contents(seed / part) == _contents(near / part) == _contents(elsewhere / part)
        assert any("trusted.overlay.opaque" in entry for entry in _contents(seed / _SNAPSHOTS).values())
        (far_file,), (near_file,), (own,) = (
            tuple(root.rglob("data/file")) for root in (elsewhere, near, seed)
        )
        assert near_file.samefile(own)
        assert not far_file.samefile(own)
        for database in _DATABASES:
            (copied,) = near.rglob(database)
            assert copied.stat().st_nlink == 1  # written in place: never shared
    finally:
        paths.remove_tree(elsewhere)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("content", [b"not a tar", b""])
def test_what_is_no_docker_archive_is_refused_by_its_name(
    tmp_path: Path, content: bytes, progress: Progress
) -> None:
    (broken := tmp_path / "broken.tar").write_bytes(content)
    with pytest.raises(base_images.ImageError, match=r"broken\.tar is no docker-archive"):
        image_seeds.plant([broken], [tmp_path / "node"], progress)
    assert not (tmp_path / "node").exists()
