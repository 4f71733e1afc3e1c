"""A control plane: etcd, API server, controller-manager and scheduler as plain processes, no root needed.

By default on loopback and on free ports, which a cluster keeps so that its kubeconfig stays true. The `real`
size runs the same behind a command prefix (a network namespace) and on an address that nodes can reach.
"""

import ipaddress
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.cluster import binaries, pki, ports, probes, processes
from tests.cluster.locks import Progress, exclusive, say
from tests.cluster.paths import cluster_directory, logs_directory, remove_tree

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_LOOPBACK = "127.0.0.1"
_MUTATING_POLICIES_GA = (1, 36)  # KEP-3962; beta and off by default in 1.34 and 1.35


@dataclass(frozen=True, slots=True)
class ControlPlaneSpec:
    """What a control plane should be like; `up` makes it so.

    bind_address: where the API server listens; clients use it too unless advertise_address is given.
    advertise_address: an address the `kubernetes` Service may point at; None on loopback, which it may not.
    secure_port: 0 picks a free port. service_cidr: its first address is in the serving certificate.
    command_prefix: words before every daemon's command line, which must exec and not fork.
    extra_arguments: component -> more arguments. hosts: more names for the serving certificate.
    client_qps: requests a second that controller-manager and scheduler may send; burst is the same.
    """

    name: str
    kubernetes_version: str = binaries.DEFAULT_KUBERNETES
    bind_address: str = _LOOPBACK
    advertise_address: str | None = None
    secure_port: int = 0
    service_cidr: str = "10.96.0.0/16"
    command_prefix: tuple[str, ...] = ()
    extra_arguments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hosts: tuple[str, ...] = ()
    client_qps: int = 5000

    @property
    def cluster_ip(self) -> str:
        """The API server's own service address: the first one of service_cidr."""
        return str(next(ipaddress.ip_network(self.service_cidr).hosts()))


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """A running control plane. `admin` is a client pair in group system:masters."""

    name: str
    directory: Path
    logs: Path
    kubernetes_version: str
    server: str
    kubeconfig: Path
    authority: pki.KeyPair
    admin: pki.KeyPair
    service_account: pki.KeyPair

    @property
    def pki_directory(self) -> Path:
        """Where `pki` keeps this cluster's pairs: sign more of them here."""
        return self.directory / "pki"


@dataclass(frozen=True, slots=True)
class _Ports:
    secure: int
    etcd: int
    etcd_peer: int
    controller_manager: int
    scheduler: int


# Which daemon listens on which of them.
_PORT_OWNERS = {
    "secure": "kube-apiserver",
    "etcd": "etcd",
    "etcd_peer": "etcd",
    "controller_manager": "kube-controller-manager",
    "scheduler": "kube-scheduler",
}


@dataclass(frozen=True, slots=True)
class _Start:
    """All that the start of a component needs to know."""

    plane: ControlPlane
    spec: ControlPlaneSpec
    ports: _Ports
    programs: Path
    progress: Progress


# ---- what callers use


def up(spec: ControlPlaneSpec, progress: Progress = say) -> ControlPlane:
    """Bring a control plane up, or heal the one that has this name; returns when all four are ready.

    Raises ValueError when the name belongs to a cluster of another version, DaemonError when something
    does not become ready, BuildError when a program cannot be built.
    """
    programs = binaries.ensure(
        "kubernetes", COMPONENTS, kubernetes_version=spec.kubernetes_version, progress=progress
    )
    directory = cluster_directory(spec.name)
    with exclusive(directory.parent / f".{spec.name}.lock", f"cluster {spec.name}", progress):
        began = time.monotonic()
        _check_version(directory, spec)
        chosen = _ports(directory, spec)
        start = _Start(_credentials(directory, spec, chosen), spec, chosen, programs, progress)
        healing = any(processes.running(directory, component) is not None for component in COMPONENTS)
        try:
            _start_all(start)
        except processes.DaemonError as error:
            # A survivor of a crash may end while it is waited for: controllers do when etcd went away.
            if not healing:
                raise
            progress(f"cluster {spec.name}: {str(error).splitlines()[0]}; once more")
            _start_all(start)
        seconds = time.monotonic() - began
        version = spec.kubernetes_version
        progress(
            f"cluster {spec.name}: control plane {version} ready at {start.plane.server} in {seconds:.1f} s"
        )
    return start.plane


def get(name: str) -> ControlPlane | None:
    """Return the control plane of this name if its four daemons run, else None."""
    directory = cluster_directory(name)
    try:
        record = json.loads((directory / "controlplane.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    if any(processes.running(directory, component) is None for component in COMPONENTS):
        return None
    return _plane(directory, name, record["kubernetes_version"], record["server"])


def down(name: str, progress: Progress = say) -> None:
    """End everything that runs in the cluster's directory and remove its state; the logs stay."""
    directory = cluster_directory(name)
    with exclusive(directory.parent / f".{name}.lock", f"cluster {name}", progress, remove=True):
        existed = directory.exists()
        # Clients first: etcd going first would leave the others retrying until they are killed.
        order = [daemon.name for daemon in processes.recorded(directory) if daemon.name != "etcd"]
        ended = processes.stop_all(directory, order, progress=progress) if order else 0
        ended += processes.stop_all(directory, progress=progress)
        remove_tree(directory)
        if existed:
            progress(f"cluster {name}: down, {ended} processes ended, logs kept in {logs_directory(name)}")


# ---- its parts


def _check_version(directory: Path, spec: ControlPlaneSpec) -> None:
    path = directory / "controlplane.json"
    if not path.exists():
        return
    present = json.loads(path.read_text())["kubernetes_version"]
    if present != spec.kubernetes_version:
        raise ValueError(
            f"cluster {spec.name} is of Kubernetes {present}, not {spec.kubernetes_version}: "
            f"take it down first, or use another name"
        )


def _credentials(directory: Path, spec: ControlPlaneSpec, chosen: _Ports) -> ControlPlane:
    reached_at = spec.advertise_address or spec.bind_address
    server = f"https://{reached_at}:{chosen.secure}"
    pairs = directory / "pki"
    authority = pki.certificate_authority(pairs)
    hosts = dict.fromkeys(
        (
            reached_at,
            spec.bind_address,
            _LOOPBACK,
            spec.cluster_ip,
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            *spec.hosts,
        )
    )
    pki.serving(pairs, "kube-apiserver", authority, tuple(host for host in hosts if not _is_wildcard(host)))
    pki.client(pairs, "admin", authority, "admin", ("system:masters",))
    pki.client(pairs, "kubelet-client", authority, "kube-apiserver-kubelet-client", ("system:masters",))
    pki.service_account_keys(pairs)
    plane = _plane(directory, spec.name, spec.kubernetes_version, server)
    pki.kubeconfig(plane.kubeconfig, server, authority, plane.admin, f"tailwise-{spec.name}")
    for component in ("kube-controller-manager", "kube-scheduler"):
        pair = pki.client(pairs, component, authority, f"system:{component}")
        pki.kubeconfig(directory / f"{component}.kubeconfig", server, authority, pair)
    record = {"kubernetes_version": spec.kubernetes_version, "server": server}
    (directory / "controlplane.json").write_text(json.dumps(record))
    return plane


def _plane(directory: Path, name: str, kubernetes_version: str, server: str) -> ControlPlane:
    pairs = directory / "pki"
    return ControlPlane(
        name=name,
        directory=directory,
        logs=logs_directory(name),
        kubernetes_version=kubernetes_version,
        server=server,
        kubeconfig=directory / "kubeconfig",
        authority=pki.KeyPair(pairs / "ca.crt", pairs / "ca.key"),
        admin=pki.KeyPair(pairs / "admin.crt", pairs / "admin.key"),
        service_account=pki.KeyPair(pairs / "service-account.pub", pairs / "service-account.key"),
    )


def _is_wildcard(host: str) -> bool:
    return host in {str(ipaddress.IPv4Address(0)), str(ipaddress.IPv6Address(0))}


def _start(start: _Start, component: str, arguments: list[str]) -> processes.Daemon:
    command = [*start.spec.command_prefix, str(start.programs / component), *arguments]
    command += start.spec.extra_arguments.get(component, ())
    plane = start.plane
    return processes.start(plane.directory, component, command, logs=plane.logs, progress=start.progress)


def _await(start: _Start, url: str, *daemons: processes.Daemon) -> None:
    plane, spec = start.plane, start.spec
    # The two controllers serve on certificates of their own making.
    authority = plane.authority.certificate if url.startswith(plane.server) else None
    probe = probes.answers(url, authority=authority, pair=plane.admin, prefix=spec.command_prefix)
    what = f"cluster {spec.name}: {daemons[-1].name}"
    processes.wait_until_ready(what, probe, daemons=daemons, progress=start.progress)


def _start_all(start: _Start) -> None:
    etcd = _start_etcd(start)
    _start_api_server(start, etcd)
    _start_controllers(start)


def _start_etcd(start: _Start) -> processes.Daemon:
    client = _etcd_url(start.ports)
    peer = f"http://{_LOOPBACK}:{start.ports.etcd_peer}"
    arguments = [
        f"--data-dir={start.plane.directory / 'etcd'}",
        "--name=default",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        # What a process that is killed has written is in the page cache; only a machine's crash loses it.
        "--unsafe-no-fsync",
        "--logger=zap",
        "--log-level=warn",
    ]
    daemon = _start(start, "etcd", arguments)
    _await(start, f"{client}/health", daemon)
    return daemon


def _etcd_url(chosen: _Ports) -> str:
    return f"http://{_LOOPBACK}:{chosen.etcd}"


def _start_api_server(start: _Start, etcd: processes.Daemon) -> None:
    plane, spec, pairs = start.plane, start.spec, start.plane.pki_directory
    arguments = [
        f"--etcd-servers={_etcd_url(start.ports)}",
        f"--bind-address={spec.bind_address}",
        f"--secure-port={start.ports.secure}",
        f"--tls-cert-file={pairs / 'kube-apiserver.crt'}",
        f"--tls-private-key-file={pairs / 'kube-apiserver.key'}",
        f"--client-ca-file={plane.authority.certificate}",
        f"--kubelet-client-certificate={pairs / 'kubelet-client.crt'}",
        f"--kubelet-client-key={pairs / 'kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={plane.service_account.certificate}",
        f"--service-account-signing-key-file={plane.service_account.key}",
        f"--service-cluster-ip-range={spec.service_cidr}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
        *_mutating_policies(spec.kubernetes_version),
    ]
    if spec.advertise_address is None:
        # A loopback address cannot be advertised, and the reconciler would try for ever.
        arguments.append("--endpoint-reconciler-type=none")
    else:
        arguments.append(f"--advertise-address={spec.advertise_address}")
    daemon = _start(start, "kube-apiserver", arguments)
    _await(start, f"{plane.server}/readyz", etcd, daemon)


def _mutating_policies(kubernetes_version: str) -> tuple[str, ...]:
    if tuple(map(int, kubernetes_version.split("."))) >= _MUTATING_POLICIES_GA:
        return ()
    return (
        "--feature-gates=MutatingAdmissionPolicy=true",
        "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
    )


def _start_controllers(start: _Start) -> None:
    scheduler_arguments = [
        f"--config={_scheduler_configuration(start.plane, start.spec)}",
        f"--bind-address={_LOOPBACK}",
        f"--secure-port={start.ports.scheduler}",
    ]
    manager = _start(start, "kube-controller-manager", _controller_manager_arguments(start))
    scheduler = _start(start, "kube-scheduler", scheduler_arguments)
    _await(start, f"https://{_LOOPBACK}:{start.ports.controller_manager}/healthz", manager)
    _await(start, f"https://{_LOOPBACK}:{start.ports.scheduler}/healthz", scheduler)


def _controller_manager_arguments(start: _Start) -> list[str]:
    plane, spec = start.plane, start.spec
    configuration = plane.directory / "kube-controller-manager.kubeconfig"
    return [
        f"--kubeconfig={configuration}",
        f"--authentication-kubeconfig={configuration}",
        f"--authorization-kubeconfig={configuration}",
        f"--bind-address={_LOOPBACK}",
        f"--secure-port={start.ports.controller_manager}",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={plane.service_account.key}",
        f"--root-ca-file={plane.authority.certificate}",
        f"--cluster-signing-cert-file={plane.authority.certificate}",
        f"--cluster-signing-key-file={plane.authority.key}",
        f"--kube-api-qps={spec.client_qps}",
        f"--kube-api-burst={spec.client_qps}",
        "--profiling=false",
        # The default lies below /usr/libexec and would be made there.
        f"--flex-volume-plugin-dir={plane.directory / 'volume-plugins'}",
    ]


def _scheduler_configuration(plane: ControlPlane, spec: ControlPlaneSpec) -> Path:
    path = plane.directory / "kube-scheduler.yaml"
    content = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {
            "kubeconfig": str(plane.directory / "kube-scheduler.kubeconfig"),
            "qps": spec.client_qps,
            "burst": spec.client_qps,
        },
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def _ports(directory: Path, spec: ControlPlaneSpec) -> _Ports:
    elsewhere = bool(spec.command_prefix)
    address = _LOOPBACK if elsewhere else spec.bind_address
    chosen = ports.keep(directory, _PORT_OWNERS, address, elsewhere=elsewhere)
    return _Ports(**{**chosen, **({"secure": spec.secure_port} if spec.secure_port else {})})
