"""Container images without a container engine: a Debian base, builds of Dockerfiles, and their import into nodes.

Comes in: a Dockerfile with its context. Goes out: a docker-archive tar in the cache, named by the hash of what went in, and
the image in every node's containerd under its own name (`localhost/tailwise/operator:dev`; imagePullPolicy: Never).
The Dockerfile takes its base as the build argument BASE_IMAGE: elsewhere it is any python image, here one from debootstrap.
What this machine needs to reach package registries is mounted for the build and is not in the image.
"""

import configparser
import contextlib
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster import debian, node_runtime, paths
from tests.cluster.locks import Progress, exclusive, say

BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates", "libgomp1")
_BUSYBOX = Path("/bin/busybox")
_CA_BUNDLE_IN_IMAGE = "/etc/ssl/certs/ca-certificates.crt"
_PIP_CONF_IN_IMAGE = "/etc/pip.conf"
_WHEELS_IN_IMAGE = "/mnt"
_PATH_IN_IMAGE = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROGRESS_INTERVAL_SECONDS = 5.0


class ImageError(RuntimeError):
    """An image could not be made or imported; the message quotes the end of the program's output."""


def directory() -> Path:
    """Where images and the builder's storage are cached."""
    return paths.cache_directory() / "images"


def build(
    dockerfile: Path,
    tag: str,
    *,
    context: Path | None = None,
    build_args: Mapping[str, str] | None = None,
    progress: Progress = say,
) -> Path:
    """Build `dockerfile` as `tag` and return its docker-archive; nothing is built when nothing it copies has changed.

    `context` is the Dockerfile's own directory if not given. BASE_IMAGE is added to `build_args` when the Dockerfile asks
    for it and the caller does not name one.

    Raises:
        ImageError: when the build fails.
        MissingProgramsError: without root, where a program is missing.
    """
    context = context or dockerfile.parent
    arguments = dict(build_args or {})
    if "BASE_IMAGE" not in arguments and re.search(r"(?mi)^ARG\s+BASE_IMAGE\b", dockerfile.read_text()):
        arguments["BASE_IMAGE"] = base_image_name()
    archive = directory() / f"{_file_name(tag)}-{_hash_of_inputs(dockerfile, context, tag, arguments)}.tar"
    with exclusive(directory() / "build.lock", f"image {tag}", progress):
        if archive.exists():
            progress(f"image {tag}: unchanged")
            return archive
        debian.ensure(debian.IMAGE_PROGRAMS, progress)
        if arguments.get("BASE_IMAGE") == base_image_name():
            _ensure_base_in_builder(progress)
        _build(dockerfile, context, tag, arguments, archive, progress)
        for older in directory().glob(f"{_file_name(tag)}-*.tar"):
            if older != archive:
                older.unlink()
    return archive


def base_image_name() -> str:
    """Name of the Debian base; it changes with the release and the packages inside."""
    return f"localhost/tailwise/base:{_short_hash(_release(), *BASE_PACKAGES)}"


def base(progress: Progress = say) -> Path:
    """Return the docker-archive of a minimal Debian with Python, made by debootstrap when it is not in the cache."""
    name = base_image_name()
    archive = directory() / f"{_file_name(name)}.tar"
    if archive.exists():
        return archive
    debian.ensure(debian.IMAGE_PROGRAMS, progress)
    tree = directory() / "base-tree"
    paths.remove_tree(tree)
    try:
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}", _release()]
        _run([*command, str(tree), *_debian_mirror()], f"image {name}: debootstrap", progress)
        # What debootstrap took from this machine goes; pip.conf is there for builds to mount over.
        for emptied in (_PIP_CONF_IN_IMAGE, "/etc/resolv.conf", "/etc/hostname"):
            (tree / emptied.strip("/")).write_text("")
        # Packages' archives and lists are of no use in an image.
        for useless in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
            paths.remove_tree(tree / useless)
        for needed in ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial"):
            (tree / needed).mkdir(parents=True, exist_ok=True)
        progress(f"image {name}: packing")
        layer = directory() / "base-layer.tar"
        with tarfile.open(layer, "w") as tar:
            tar.add(tree, arcname=".", filter=_without_devices)
        _write_archive(archive, name, layer, {"Cmd": ["/bin/sh"], "Env": [f"PATH={_PATH_IN_IMAGE}"]})
        layer.unlink()
    finally:
        paths.remove_tree(tree)
    return archive


def pause(progress: Progress = say) -> Path:
    """Return the docker-archive of the image that holds a pod's namespaces: a static busybox, asleep.

    With another command it is also the smallest image to try things with: sh, wget, httpd, nc.
    """
    if not _BUSYBOX.exists():
        debian.ensure(debian.IMAGE_PROGRAMS, progress)
    content = _BUSYBOX.read_bytes()
    if b"/ld-linux" in content[:4096]:
        raise ImageError(f"{_BUSYBOX} is not static: install the package busybox-static")
    name = node_runtime.PAUSE_IMAGE
    archive = directory() / f"{_file_name(name)}-{hashlib.sha256(content).hexdigest()[:12]}.tar"
    if not archive.exists():
        layer = directory() / f"{archive.stem}-layer.tar"
        layer.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(layer, "w") as tar:
            for made in ("bin", "tmp", "etc"):
                tar.addfile(_entry(made, mode=0o1777 if made == "tmp" else 0o755, kind=tarfile.DIRTYPE))
            file = _entry("bin/busybox", mode=0o755)
            file.size = len(content)
            tar.addfile(file, io.BytesIO(content))
            for applet in ("sh", "sleep", "wget", "httpd", "nc", "cat", "ls", "env", "ip", "ping"):
                link = _entry(f"bin/{applet}", mode=0o777, kind=tarfile.SYMTYPE)
                link.linkname = "busybox"
                tar.addfile(link)
        _write_archive(archive, name, layer, {"Entrypoint": ["/bin/sleep", "infinity"], "Env": ["PATH=/bin"]})
        layer.unlink()
    return archive


def load(archive: Path, nodes: Sequence[node_runtime.RealNode], progress: Progress = say) -> None:
    """Import a docker-archive into every node's containerd, at once; nodes that have it already are left out.

    Raises:
        ImageError: naming the nodes where the import failed.
    """
    lacking = [node for node in nodes if not _loaded(archive, node)]
    if not lacking:
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
    dockerfile: Path,
    context: Path,
    tag: str,
    arguments: Mapping[str, str],
    archive: Path,
    progress: Progress,
) -> None:
    command = ["build", "--isolation=chroot", "--network=host", "--layers", "--pull=never", "--format=docker"]
    with _registry_access() as volumes:
        words = [
            *_builder(),
            *command,
            *(f"--volume={volume}" for volume in volumes),
            *(f"--build-arg={key}={value}" for key, value in sorted(arguments.items())),
            f"--tag={tag}",
            f"--file={dockerfile}",
            str(context),
        ]
        _run(words, f"image {tag}: building", progress)
    partial = archive.with_suffix(".new")
    partial.unlink(missing_ok=True)
    _run([*_builder(), "push", tag, f"docker-archive:{partial}:{tag}"], f"image {tag}: packing", progress)
    partial.replace(archive)


def _builder() -> list[str]:
    """buildah with its storage in the cache: nothing of a user's own images is seen or touched."""
    storage = directory() / "buildah"
    # The kernel cannot stack overlay on overlay (inside a container); vfs copies instead.
    kind = subprocess.run(
        ["stat", "--file-system", "--format=%T", str(directory())], capture_output=True, text=True, check=True
    ).stdout.strip()
    driver = "vfs" if kind in {"overlayfs", "UNKNOWN"} else "overlay"
    return [
        "buildah",
        f"--root={storage / 'root'}",
        f"--runroot={storage / 'run'}",
        f"--storage-driver={driver}",
    ]


def _ensure_base_in_builder(progress: Progress) -> None:
    name = base_image_name()
    inspected = subprocess.run(
        [*_builder(), "inspect", "--type=image", name], capture_output=True, check=False
    )
    if inspected.returncode != 0:
        archive = base(progress)
        _run([*_builder(), "pull", f"docker-archive:{archive}"], f"image {name}: unpacking", progress)


@contextlib.contextmanager
def _registry_access() -> Iterator[tuple[str, ...]]:
    """Volumes (machine path:image path:ro) that give a build this machine's CA bundle and pip settings."""
    volumes = []
    bundle = next((path for path in map(Path, _ca_bundles()) if path.is_file()), None)
    if bundle is not None:
        volumes.append(f"{bundle.resolve()}:{_CA_BUNDLE_IN_IMAGE}:ro")
    settings = _pip_settings()
    wheels = next(
        (Path(word) for word in settings.get("find-links", "").split() if Path(word).is_dir()), None
    )
    settings.pop("find-links", None)
    if wheels is not None:
        settings["find-links"] = _WHEELS_IN_IMAGE
        volumes.append(f"{wheels.resolve()}:{_WHEELS_IN_IMAGE}:ro")
    if "cert" in settings:
        settings["cert"] = _CA_BUNDLE_IN_IMAGE
    file = directory() / "pip.conf"
    lines = ["[global]", *(f"{key} = {value}" for key, value in sorted(settings.items()))]
    file.touch(mode=0o600)
    file.write_text("\n".join(lines) + "\n")
    try:
        yield (*volumes, f"{file}:{_PIP_CONF_IN_IMAGE}:ro")
    finally:
        file.unlink()


def _ca_bundles() -> tuple[str, ...]:
    named = (os.environ.get(name) for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"))
    return (*(path for path in named if path), _CA_BUNDLE_IN_IMAGE)


def _pip_settings() -> dict[str, str]:
    """pip's settings as pip itself reads them: the machine's file, the user's, then the environment."""
    files = ["/etc/pip.conf", Path.home() / ".pip" / "pip.conf", Path.home() / ".config" / "pip" / "pip.conf"]
    parser = configparser.RawConfigParser()
    parser.read([*files, *filter(None, [os.environ.get("PIP_CONFIG_FILE")])])
    settings: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            settings.update({key: " ".join(value.split()) for key, value in parser.items(section)})
    for key, value in os.environ.items():
        if key.startswith("PIP_") and key != "PIP_CONFIG_FILE":
            settings[key.removeprefix("PIP_").lower().replace("_", "-")] = value
    for unwanted in ("cache-dir", "require-virtualenv", "user", "target"):
        settings.pop(unwanted, None)
    return settings


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
    return tuple(
        sorted(file for file in files if file.is_file() and not any(part in ignored for part in file.parts))
    )


def _release() -> str:
    """Code name of the Debian or Ubuntu release to make the base of: this machine's."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "bookworm")


def _debian_mirror() -> list[str]:
    """The mirror that this machine's apt uses for its own release; none leaves debootstrap's default."""
    form = "$(REPO_URI) $(CODENAME) $(LABEL)"
    listed = subprocess.run(
        ["apt-get", "indextargets", f"--format={form}", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    for line in listed.stdout.splitlines():
        address, _, rest = line.partition(" ")
        if rest in {f"{_release()} Debian", f"{_release()} Ubuntu"}:
            return [address]
    return []


# ---- archives


def _write_archive(archive: Path, name: str, layer: Path, settings: Mapping[str, object]) -> None:
    """Write a docker-archive of one layer: the layer, a configuration and manifest.json."""
    with layer.open("rb") as file:
        layer_digest = hashlib.file_digest(file, "sha256").hexdigest()
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    configuration = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": dict(settings),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "tests/cluster/images.py"}],
        }
    ).encode()
    configuration_name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    layer_name = f"{layer_digest}.tar"
    manifest = json.dumps(
        [{"Config": configuration_name, "RepoTags": [name], "Layers": [layer_name]}]
    ).encode()
    partial = archive.with_suffix(".new")
    with tarfile.open(partial, "w") as tar:
        tar.add(layer, arcname=layer_name)
        for file_name, content in ((configuration_name, configuration), ("manifest.json", manifest)):
            entry = _entry(file_name, mode=0o644)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    partial.replace(archive)


def _entry(name: str, *, mode: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    entry.type = kind
    return entry


def _without_devices(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if entry.isdev() and not entry.isfile() else entry


# ---- import


def _loaded_mark(archive: Path, node: node_runtime.RealNode) -> Path:
    return node.files / "images" / archive.stem


def _loaded(archive: Path, node: node_runtime.RealNode) -> bool:
    return _loaded_mark(archive, node).exists()


def _import(archive: Path, node: node_runtime.RealNode) -> str | None:
    command = node_runtime.inside(node, "ctr", "--namespace=k8s.io", "images", "import", str(archive))
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        return f"{node.name}: {finished.stderr.strip()[-400:]}"
    mark = _loaded_mark(archive, node)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return None


# ---- running programs


def _run(command: Sequence[str], what: str, progress: Progress) -> None:
    """Run a program to its end, showing its last line every few seconds; its whole output goes to a log in the cache."""
    log = directory() / "logs" / f"{_file_name(what)}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    progress(what)
    began = shown = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            while (code := process.poll()) is None:
                time.sleep(0.05)
                if time.monotonic() - shown > _PROGRESS_INTERVAL_SECONDS:
                    shown = time.monotonic()
                    progress(f"{what}: {shown - began:.0f} s, {_last_line(log)}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code != 0:
        tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ImageError(f"{what}: {Path(command[0]).name} ended with {code}; {log} ends:\n  {tail}")
    progress(f"{what}: done in {time.monotonic() - began:.0f} s")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip()[:100] for line in reversed(lines) if line.strip()), "started")


def _file_name(text: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", text.lower().removeprefix("localhost/tailwise/")).strip("-")


def _short_hash(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]


def remove_old_storage() -> None:
    """Forget the builder's layers and all images; the next build starts from nothing."""
    storage = directory() / "buildah"
    if storage.exists() and shutil.which("buildah"):
        subprocess.run([*_builder(), "rmi", "--all", "--force"], capture_output=True, check=False)
    paths.remove_tree(directory())
