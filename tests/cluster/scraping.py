"""What Prometheus scrapes on real nodes: API server, kubelets, cAdvisor, node-exporter, willing pods.

Every series has a label `node`. A pod asks with the annotations prometheus.io/scrape, /port and /path.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import controlplane, hosts
from tests.cluster.real_node import KUBELET_PORT, NODE_EXPORTER_PORT

PORT = 9090
_RECORDING_RULES = Path(__file__).parent / "real_nodes" / "recording-rules.yaml"
_INTERVAL = "5s"
_API_SERVER_INTERVAL = "15s"  # its page is megabytes long and shares two cores with the nodes
_ANNOTATION = "__meta_kubernetes_pod_annotation_prometheus_io"


def configuration(control_plane: controlplane.ControlPlane, network: hosts.HostNetwork, api_port: int) -> str:
    """Text of prometheus.yml for a cluster of real nodes."""
    tls = {
        "ca_file": str(control_plane.authority.certificate),
        "cert_file": str(control_plane.admin.certificate),
        "key_file": str(control_plane.admin.key),
    }
    discovery = str(control_plane.kubeconfig)
    api_server = {
        "job_name": "apiserver",
        "scheme": "https",
        "tls_config": tls,
        "scrape_interval": _API_SERVER_INTERVAL,
        "static_configs": [
            {
                "targets": [f"{network.control_plane_address}:{api_port}"],
                "labels": {"node": "control-plane"},
            }
        ],
    }
    jobs = [
        api_server,
        _node_job("kubelet", discovery, KUBELET_PORT, tls=tls),
        _node_job("cadvisor", discovery, KUBELET_PORT, tls=tls, path="/metrics/cadvisor"),
        _node_job("node-exporter", discovery, NODE_EXPORTER_PORT),
        _pod_job(discovery),
    ]
    content = {
        "global": {"scrape_interval": _INTERVAL, "scrape_timeout": "4s", "evaluation_interval": _INTERVAL},
        "rule_files": [str(_RECORDING_RULES)],
        "scrape_configs": jobs,
    }
    return yaml.safe_dump(content, sort_keys=False)


def _node_job(
    name: str, kubeconfig: str, port: int, *, tls: Mapping[str, str] | None = None, path: str = "/metrics"
) -> Mapping[str, Any]:
    """One target a node, at the node's own address."""
    return {
        "job_name": name,
        "metrics_path": path,
        **({"scheme": "https", "tls_config": dict(tls)} if tls else {}),
        "kubernetes_sd_configs": [{"role": "node", "kubeconfig_file": kubeconfig}],
        "relabel_configs": [
            _set("__address__", ["__meta_kubernetes_node_address_InternalIP"], replacement=f"$1:{port}"),
            _set("node", ["__meta_kubernetes_node_name"]),
            _set("instance", ["__meta_kubernetes_node_name"]),
        ],
    }


def _pod_job(kubeconfig: str) -> Mapping[str, Any]:
    """One target a running pod that carries the annotations; the pod's labels become the series'."""
    return {
        "job_name": "pods",
        "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": kubeconfig}],
        "relabel_configs": [
            {"action": "keep", "source_labels": [f"{_ANNOTATION}_scrape"], "regex": "true"},
            {"action": "keep", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Running"},
            # Every declared container port is discovered: one target a pod is enough.
            _set(
                "__address__", ["__meta_kubernetes_pod_ip", f"{_ANNOTATION}_port"], "(.+);([0-9]+)", "$1:$2"
            ),
            _set("__metrics_path__", [f"{_ANNOTATION}_path"], "(.+)"),
            {"action": "labelmap", "regex": "__meta_kubernetes_pod_label_(.+)"},
            _set("namespace", ["__meta_kubernetes_namespace"]),
            _set("pod", ["__meta_kubernetes_pod_name"]),
            _set("node", ["__meta_kubernetes_pod_node_name"]),
        ],
    }


def _set(
    target: str, sources: Sequence[str], regex: str = "(.*)", replacement: str = "$1"
) -> Mapping[str, Any]:
    return {
        "action": "replace",
        "source_labels": list(sources),
        "regex": regex,
        "target_label": target,
        "replacement": replacement,
    }
