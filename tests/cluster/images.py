"""Container images without a container engine: builds of Dockerfiles, and their way into nodes.

Comes in: a Dockerfile with its context. Goes out: a docker-archive tar in the cache, named by the hash of
what went in, and the image in every node's containerd under its own name (`localhost/tailwise/operator:dev`;
imagePullPolicy: Never). The Dockerfile takes its base as the build argument BASE_IMAGE: elsewhere it is any
python image, here one from debootstrap. What this machine needs to reach package registries is mounted for
the build and is not in the image.
"""

import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster import base_images, debian, image_seeds, node_runtime, paths, registry_access
from tests.cluster.base_images import ImageError, directory, file_name, run
from tests.cluster.locks import Progress, exclusive, say
from tests.cluster.real_node import RealNode


def build(
    dockerfile: Path,
    tag: str,
    *,
    context: Path | None = None,
    build_args: Mapping[str, str] | None = None,
    progress: Progress = say,
) -> Path:
    """Build `dockerfile` as `tag` and return its docker-archive, unless nothing it copies has changed.

    `context` is the Dockerfile's own directory if not given. BASE_IMAGE is added to `build_args` when the
    Dockerfile asks for it and the caller does not name one.

    Raises:
        ImageError: when the build fails.
        MissingProgramsError: without root, where a program is missing.
    """
    context = context or dockerfile.parent
    arguments = dict(build_args or {})
    if "BASE_IMAGE" not in arguments and re.search(r"(?mi)^ARG\s+BASE_IMAGE\b", dockerfile.read_text()):
        arguments["BASE_IMAGE"] = base_images.name()
    archive = directory() / f"{file_name(tag)}-{_hash_of_inputs(dockerfile, context, tag, arguments)}.tar"
    if archive.exists():
        progress(f"image {tag}: unchanged")
        return archive
    with exclusive(directory() / "build.lock", f"image {tag}", progress):
        if archive.exists():  # made by another process in the meantime
            return archive
        debian.ensure(debian.IMAGE_PROGRAMS, progress)
        if arguments.get("BASE_IMAGE") == base_images.name():
            _ensure_base_in_builder(progress)
        _build(
            dockerfile=dockerfile,
            context=context,
            tag=tag,
            arguments=arguments,
            archive=archive,
            progress=progress,
        )
        for older in directory().glob(f"{file_name(tag)}-*.tar"):
            if older != archive:
                older.unlink()
    return archive


def seed(archives: Sequence[Path], nodes: Sequence[RealNode], progress: Progress = say) -> None:
    """Give nodes whose containerd has never run a store with these images in it; leave others as they are.

    Raises:
        ImageError: when an archive cannot be imported.
    """
    new = [node for node in nodes if not node.image_store.exists()]
    for node in new:
        paths.remove_tree(_marks(node))
    image_seeds.plant(archives, [node.image_store for node in new], progress)
    for node in new:
        for archive in archives:
            _mark_loaded(archive, node)


def load(archive: Path, nodes: Sequence[RealNode], progress: Progress = say) -> None:
    """Import a docker-archive into every node's containerd, at once; nodes that have it already are left out.

    Raises:
        ImageError: naming the nodes where the import failed.
    """
    lacking = [node for node in nodes if not _loaded(archive, node)]
    if not lacking:
        progress(f"image {archive.stem}: already on {len(nodes)} nodes")
        return
    began = time.monotonic()
    progress(f"image {archive.stem}: importing into {', '.join(node.name for node in lacking)}")
    with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1)) as pool:
        failures = [failure for failure in pool.map(lambda node: _import(archive, node), lacking) if failure]
    if failures:
        raise ImageError(f"{archive.name}: " + "; ".join(failures))
    progress(f"image {archive.stem}: on {len(lacking)} nodes after {time.monotonic() - began:.0f} s")


# ---- building


def _build(
    *,
    dockerfile: Path,
    context: Path,
    tag: str,
    arguments: Mapping[str, str],
    archive: Path,
    progress: Progress,
) -> None:
    command = [
        "build",
        "--isolation=chroot",
        "--network=host",
        "--layers",
        "--pull=never",
        "--force-rm",
        "--format=docker",
    ]
    with registry_access.volumes(directory()) as volumes:
        words = [
            *_builder(),
            *command,
            *(f"--volume={volume}" for volume in volumes),
            *(f"--build-arg={key}={value}" for key, value in sorted(arguments.items())),
            f"--tag={tag}",
            f"--file={dockerfile}",
            str(context),
        ]
        run(words, f"image {tag}: building", progress)
    # A stage that a later one only copies from leaves its working container.
    subprocess.run([*_builder(), "rm", "--all"], capture_output=True, check=False)
    partial = archive.with_suffix(".new")
    partial.unlink(missing_ok=True)
    run([*_builder(), "push", tag, f"docker-archive:{partial}:{tag}"], f"image {tag}: packing", progress)
    partial.replace(archive)


def _builder() -> list[str]:
    """buildah with its storage in the cache: nothing of a user's own images is seen or touched."""
    storage = directory() / "buildah"
    # The kernel cannot stack overlay on overlay (inside a container); vfs copies instead.
    kind = subprocess.run(
        ["stat", "--file-system", "--format=%T", str(directory())], capture_output=True, text=True, check=True
    ).stdout.strip()
    driver = "vfs" if kind in {"overlayfs", "UNKNOWN"} else "overlay"
    settings = storage / "containers.conf"
    settings.parent.mkdir(parents=True, exist_ok=True)
    # Without this a directory below /etc is made.
    settings.write_text(f'[network]\nnetwork_config_dir = "{storage / "cni"}"\n')
    return [
        "env",
        f"CONTAINERS_CONF={settings}",
        # In a mount namespace of its own: the builder's mounts end with it, whatever it leaves.
        "unshare",
        "--mount",
        "buildah",
        f"--root={storage / 'root'}",
        f"--runroot={storage / 'run'}",
        f"--storage-driver={driver}",
    ]


def _ensure_base_in_builder(progress: Progress) -> None:
    name = base_images.name()
    inspected = subprocess.run(
        [*_builder(), "inspect", "--type=image", name], capture_output=True, check=False
    )
    if inspected.returncode != 0:
        archive = base_images.base(progress)
        run([*_builder(), "pull", f"docker-archive:{archive}"], f"image {name}: unpacking", progress)


# ---- what a build depends on


def _hash_of_inputs(dockerfile: Path, context: Path, tag: str, arguments: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps([tag, dict(sorted(arguments.items()))]).encode())
    digest.update(dockerfile.read_bytes())
    for file in _copied_files(dockerfile, context):
        digest.update(f"\0{file.relative_to(context)}\0{file.stat().st_mode & 0o111}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _copied_files(dockerfile: Path, context: Path) -> tuple[Path, ...]:
    """Every file that a COPY or ADD of the Dockerfile takes from the context, compiled Python left out."""
    instructions = re.sub(r"\\\s*\n", " ", dockerfile.read_text()).splitlines()
    files: set[Path] = set()
    for instruction in instructions:
        words = instruction.split()
        if len(words) < 3 or words[0].upper() not in {"COPY", "ADD"} or "--from=" in instruction:
            continue
        for source in [word for word in words[1:] if not word.startswith("--")][:-1]:
            for path in context.glob(source.strip("/")) if source not in {".", "./", "/"} else [context]:
                files.update(path.rglob("*") if path.is_dir() else [path])
    ignored = ("__pycache__", ".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache")
    kept = (file for file in files if not any(part in ignored for part in file.relative_to(context).parts))
    return tuple(sorted(file for file in kept if file.is_file()))


# ---- import


def _loaded_mark(archive: Path, node: RealNode) -> Path:
    """File with the name of the last archive imported under this tag; each import moves the tag."""
    return _marks(node) / archive.stem.rpartition("-")[0]


def _marks(node: RealNode) -> Path:
    return node.files / "images"


def _mark_loaded(archive: Path, node: RealNode) -> None:
    mark = _loaded_mark(archive, node)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(archive.stem)


def _loaded(archive: Path, node: RealNode) -> bool:
    mark = _loaded_mark(archive, node)
    return mark.exists() and mark.read_text() == archive.stem


def _import(archive: Path, node: RealNode) -> str | None:
    command = node_runtime.inside(
        node, "ctr", f"--namespace={image_seeds.NAMESPACE}", "images", "import", str(archive)
    )
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        return f"{node.name}: {finished.stderr.strip()[-400:]}"
    _mark_loaded(archive, node)
    return None
