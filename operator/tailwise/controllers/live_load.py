"""Who stands on nodes and how busy these are, as the operator and who asks like it tell the assessor."""

from __future__ import annotations

from datetime import datetime, timedelta

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.inference_workload_status import PlacementResult
from tailwise.api.profile import ModelProfile
from tailwise.cluster.reflector import Key
from tailwise.controllers.assessment import Assessor
from tailwise.domain.objects import Pod
from tailwise.telemetry.pod_usage import used_cores
from tailwise.telemetry.prometheus import Prometheus
from tailwise.telemetry.utilisation import Utilisation

# Utilisation is a mean over minutes: of a pod ready for longer it shows all.
_RECENT = timedelta(minutes=10)


def count_standing(
    assessor: Assessor, pod: Pod, served: tuple[InferenceWorkloadSpec, ModelProfile], now: datetime
) -> None:
    """Count a pod on its node, if it has one; as coming load while utilisation may not show it yet."""
    if pod.gated or not pod.occupied_node or pod.deleted_at is not None:
        return
    recent = pod.ready_at is None or now - pod.ready_at < _RECENT
    if pod.record and pod.record.result is PlacementResult.PLACED and recent:
        assessor.assume(pod, pod.occupied_node, served, pod.record.decided_at or pod.created_at)
    else:
        assessor.reside(pod, *served)


async def take_samples(assessor: Assessor, prometheus: Prometheus, utilisation: Utilisation) -> None:
    """Take newer samples; of full nodes also what their pods use, for there utilisation does not tell all."""
    assessor.sampled(utilisation)
    pods = [(key.namespace, key.name) for keys in assessor.full_nodes().values() for key in keys]
    used = await used_cores(prometheus, pods, round(utilisation.window_seconds))
    assessor.used({Key(*pod): cores for pod, cores in used.items()})
