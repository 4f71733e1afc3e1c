"""Images made without a Dockerfile: a minimal Debian with Python, and the pause image of every pod.

Comes in: debootstrap and a static busybox. Goes out: docker-archives in the cache, each of one layer.
"""

import hashlib
import io
import json
import platform
import re
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster import debian, paths
from tests.cluster.locks import Progress, say
from tests.cluster.real_node import PAUSE_IMAGE
from tests.cluster.registry_access import PIP_CONF_IN_IMAGE

BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates", "libgomp1")
_RECIPE = "3"  # raised when the base is made in another way
_BUSYBOX = Path("/bin/busybox")
_PATH_IN_IMAGE = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROGRESS_INTERVAL_SECONDS = 5.0


class ImageError(RuntimeError):
    """An image could not be made or imported; the message quotes the end of the program's output."""


def directory() -> Path:
    """Where images and the builder's storage are cached."""
    return paths.cache_directory() / "images"


def name() -> str:
    """Name of the Debian base; it changes with the release and the packages inside."""
    return f"localhost/tailwise/base:{_short_hash(_RECIPE, _release(), *BASE_PACKAGES)}"


def base(progress: Progress = say) -> Path:
    """Return the docker-archive of a minimal Debian with Python, made by debootstrap if not cached."""
    image = name()
    archive = directory() / f"{file_name(image)}.tar"
    if archive.exists():
        return archive
    debian.ensure(debian.IMAGE_PROGRAMS, progress)
    tree = directory() / "base-tree"
    paths.remove_tree(tree)
    try:
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}", _release()]
        run([*command, str(tree), *_debian_mirror()], f"image {image}: debootstrap", progress)
        # What debootstrap took from this machine goes; pip.conf is there for builds to mount over.
        for emptied in (PIP_CONF_IN_IMAGE, "/etc/resolv.conf", "/etc/hostname"):
            (tree / emptied.strip("/")).write_text("")
        # Packages' archives and lists are of no use in an image.
        for useless in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
            paths.remove_tree(tree / useless)
        for needed in ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial"):
            (tree / needed).mkdir(parents=True, exist_ok=True)
        progress(f"image {image}: packing")
        layer = directory() / "base-layer.tar"
        with tarfile.open(layer, "w") as tar:
            tar.add(tree, arcname=".", filter=_without_devices)
        write_archive(archive, image, [layer], {"Cmd": ["/bin/sh"], "Env": [f"PATH={_PATH_IN_IMAGE}"]})
        layer.unlink()
        for older in directory().glob("base-*.tar"):
            if older != archive:
                older.unlink()
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
    archive = directory() / f"{file_name(PAUSE_IMAGE)}-{hashlib.sha256(content).hexdigest()[:12]}.tar"
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
        write_archive(
            archive, PAUSE_IMAGE, [layer], {"Entrypoint": ["/bin/sleep", "infinity"], "Env": ["PATH=/bin"]}
        )
        layer.unlink()
    return archive


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


def write_archive(archive: Path, name: str, layers: Sequence[Path], settings: Mapping[str, object]) -> None:
    """Write a docker-archive: its layers, a configuration and manifest.json.

    `layers` are tars, the lowest first; `settings` are the image's Cmd, Env and the like.
    """
    digests = [_digest(layer) for layer in layers]
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    configuration = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": dict(settings),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "tests/cluster/images.py"}],
        }
    ).encode()
    configuration_name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    names = [f"{digest}.tar" for digest in digests]
    manifest = json.dumps([{"Config": configuration_name, "RepoTags": [name], "Layers": names}]).encode()
    partial = archive.with_suffix(".new")
    with tarfile.open(partial, "w") as tar:
        for layer, layer_name in zip(layers, names, strict=True):
            tar.add(layer, arcname=layer_name)
        for file_name, content in ((configuration_name, configuration), ("manifest.json", manifest)):
            entry = _entry(file_name, mode=0o644)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    partial.replace(archive)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _entry(name: str, *, mode: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    entry.type = kind
    return entry


def _without_devices(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if entry.isdev() and not entry.isfile() else entry


# ---- running programs


def run(command: Sequence[str], what: str, progress: Progress) -> None:
    """Run a program to its end, showing its last line every few seconds; a log in the cache has all."""
    log = directory() / "logs" / f"{file_name(what)}.log"
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


def file_name(text: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", text.lower().removeprefix("localhost/tailwise/")).strip("-")


def _short_hash(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]
