"""Every name that Tailwise writes on other objects: labels, annotations, gate, field managers, lease."""

from __future__ import annotations

from typing import Final

from tailwise.api.hardware import HARDWARE_KEY, HARDWARE_LABEL

__all__ = ["HARDWARE_KEY", "HARDWARE_LABEL"]

GROUP: Final = "tailwise.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

# On pods: which InferenceWorkload of their namespace they belong to.
WORKLOAD_LABEL: Final = "tailwise.dev/workload"
# In a pod's spec.schedulingGates until its placement is decided (KEP-3521).
PLACEMENT_GATE: Final = "tailwise.dev/placement"
# spec.schedulerName of pods that are bound by Tailwise itself (binding: NodeName); they are not gated.
SCHEDULER_NAME: Final = "tailwise"

# Written on a pod by the patch that opens its gate, so that the next operator knows what was decided.
PLACEMENT_RESULT_ANNOTATION: Final = "tailwise.dev/placement-result"
NODE_ANNOTATION: Final = "tailwise.dev/node"
PREDICTED_P50_ANNOTATION: Final = "tailwise.dev/predicted-p50-milliseconds"
PREDICTED_P90_ANNOTATION: Final = "tailwise.dev/predicted-p90-milliseconds"
BOUND_ANNOTATION: Final = "tailwise.dev/bound-milliseconds"
SOURCE_ANNOTATION: Final = "tailwise.dev/prediction-source"
LATENCY_MODEL_VERSION_ANNOTATION: Final = "tailwise.dev/latency-model-version"
DATA_AGE_ANNOTATION: Final = "tailwise.dev/data-age-seconds"
DECIDED_AT_ANNOTATION: Final = "tailwise.dev/decided-at"

# Kubernetes' own (KEP-2255): of a ReplicaSet's pods those with the least go first when it is scaled down.
DELETION_COST_ANNOTATION: Final = "controller.kubernetes.io/pod-deletion-cost"

# Set on a LatencyModel by a user (any new value, by habit the time): train now.
RETRAIN_ANNOTATION: Final = "tailwise.dev/retrain-requested-at"

# On what belongs to a LatencyModel: artefacts, training and profiling Jobs.
LATENCY_MODEL_LABEL: Final = "tailwise.dev/latency-model"
LATENCY_MODEL_VERSION_LABEL: Final = "tailwise.dev/latency-model-version"
# On ConfigMaps of a version: its index, which is written last, or one of its parts.
ARTEFACT_LABEL: Final = "tailwise.dev/artefact"
ARTEFACT_INDEX: Final = "index"
ARTEFACT_PART: Final = "part"
# On training Jobs: what asked for the run, and what it answers.
TRIGGER_ANNOTATION: Final = "tailwise.dev/training-trigger"
SCHEDULED_FOR_ANNOTATION: Final = "tailwise.dev/scheduled-for"
# The ConfigMap in which training Jobs tell how far they are, each under its own name.
TRAINING_PROGRESS_NAME: Final = "tailwise-training"
# The LatencyModel that serves workloads without a latencyModelRef.
DEFAULT_LATENCY_MODEL: Final = "default"

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "tailwise"

# Field managers of server-side apply; one writer each, so that conflicts name a person, not ourselves.
OPERATOR_FIELD_MANAGER: Final = "tailwise-operator"
AGENT_FIELD_MANAGER: Final = "tailwise-agent"

# The Lease by which operators elect one among themselves.
LEASE_NAME: Final = "tailwise-operator"

HARDWARE_NAME_PREFIX: Final = "tailwise-hardware-"


def hardware_config_map_name(node: str) -> str:
    """Name of the ConfigMap that holds ``node``'s hardware; the chart's admission policy expects it."""
    return f"{HARDWARE_NAME_PREFIX}{node}"
