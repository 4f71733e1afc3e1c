"""How a pod serves its model, by its own resources and by what its workload states; and what that takes."""

from __future__ import annotations

import math

from tailwise.api.hardware import NodeHardware
from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.profile import ModelProfile
from tailwise.domain import assumption
from tailwise.domain.objects import Pod, serving_cpu_limit_millicores, serving_cpu_request_millicores
from tailwise.prediction.coefficients import coefficients
from tailwise.prediction.prediction import Serving
from tailwise.prediction.prior import served_cost


def serving_of(pod: Pod, spec: InferenceWorkloadSpec) -> Serving:
    """How a pod will serve: its limits, and the threads and load that its workload states."""
    container = spec.serving.container if spec.serving else None
    limit = serving_cpu_limit_millicores(pod, container)
    request = serving_cpu_request_millicores(pod, container)
    threads = spec.serving.threads if spec.serving else None
    return Serving(
        cpu_limit_millicores=limit,
        threads=threads or max(1, math.ceil((limit or request) / 1000)),
        batch_size=spec.load.batch_size,
        concurrency=spec.load.concurrency,
        requests_per_second=spec.load.requests_per_second,
        cpu_request_millicores=request,
        bound_percentile=spec.slo.percentile,
        overhead_milliseconds=(spec.serving.overhead_microseconds or 0) / 1000 if spec.serving else 0.0,
    )


def expected_millicores(profile: ModelProfile, serving: Serving, hardware: NodeHardware) -> int:
    """Thousandths of a core that one pod is expected to keep busy on a node of this hardware."""
    seconds = None
    if serving.requests_per_second is not None:
        seconds = served_cost(profile, hardware, serving, coefficients()).burnt / 1000
    return assumption.expected_millicores(
        cpu_seconds_per_query=seconds,
        requests_per_second=serving.requests_per_second,
        concurrency=serving.concurrency,
        threads=serving.threads,
        cpu_limit_millicores=serving.cpu_limit_millicores,
        cpu_request_millicores=serving.cpu_request_millicores,
    )
