"""Pods that stand on nodes, told to the assessor when something that it counts by has changed.

Most of what the watch tells of a pod is its status. A pod is counted anew only when it comes to a node, when
its resources change, or when what is known of its workload or of its node's hardware does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.profile import ModelProfile
from tailwise.cluster.reflector import Key
from tailwise.controllers.assessment import Assessor
from tailwise.controllers.inference_workload import InferenceWorkloadController
from tailwise.controllers.live_load import count_standing
from tailwise.controllers.registry import KnownWorkload
from tailwise.controllers.view import ClusterView
from tailwise.domain.objects import Pod


@dataclass(frozen=True, slots=True)
class StandingPods:
    """Every method returns at once."""

    view: ClusterView
    assessor: Assessor
    workloads: InferenceWorkloadController

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Follow what the watch tells of pods."""
        self.assessor.pod_changed(old, new)
        if new is not None and _stands(new) and (old is None or not _counts_alike(old, new)):
            self._reside(new)

    def hardware_changed(self, node: str) -> None:
        """A node's hardware came, changed or went: those that stand there count by what it is now."""
        self.assessor.hardware_changed()
        for resident in self.assessor.residents.on(node):
            pod = self.view.pods.get(resident.key.namespace, resident.key.name)
            if pod is not None and pod.uid == resident.uid and _stands(pod):
                self._reside(pod)

    def workload_known(self, workload: Key) -> None:
        """A workload came, changed, or had its model read: its pods count on their nodes as it says now."""
        for pod in self.view.pods_of(workload):
            if _stands(pod):
                self._reside(pod)

    def recover(self, now: datetime) -> None:
        """Count pods that stand on nodes, and as coming load those that utilisation may not show yet."""
        for known in self.view.registry.workloads.values():
            served = self._served(known)
            if served is not None:
                for pod in self.view.pods_of(known.key):
                    count_standing(self.assessor, pod, served, now)

    def _reside(self, pod: Pod) -> None:
        known = self.view.registry.workloads.get(Key(pod.namespace, pod.workload or ""))
        served = self._served(known) if known is not None else None
        if served is not None:
            self.assessor.reside(pod, *served)

    def _served(self, known: KnownWorkload) -> tuple[InferenceWorkloadSpec, ModelProfile] | None:
        profile = self.workloads.profile(known)
        if known.workload is None or not isinstance(profile, ModelProfile):
            return None
        return known.workload.spec, profile


def _stands(pod: Pod) -> bool:
    return bool(pod.workload and pod.occupied_node) and not pod.gated and pod.deleted_at is None


def _counts_alike(old: Pod, new: Pod) -> bool:
    """Whether a pod counts as it did: on which node, for which workload, with which resources."""
    return (
        _stands(old)
        and (old.uid, old.occupied_node, old.workload) == (new.uid, new.occupied_node, new.workload)
        and (old.containers, old.cpu_limit_millicores) == (new.containers, new.cpu_limit_millicores)
        and old.requests == new.requests
    )
