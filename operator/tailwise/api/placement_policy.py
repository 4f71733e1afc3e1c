"""How the nodes of a workload's pods are chosen, and when pods that run are moved."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from tailwise.api.document import Document


class Binding(StrEnum):
    """Who binds the pod to the node that was decided."""

    NODE_AFFINITY = "NodeAffinity"
    NODE_NAME = "NodeName"


class Policy(StrEnum):
    """How much of the decision is left to kube-scheduler."""

    BEST = "Best"
    FEASIBLE = "Feasible"


class Objective(StrEnum):
    """Which of the nodes that meet the SLO wins."""

    LOWEST_LATENCY = "LowestLatency"
    TIGHTEST = "Tightest"


class Neighbours(StrEnum):
    """Whether the SLOs of workloads already on a node count."""

    RESPECT = "Respect"
    IGNORE = "Ignore"


class Fallback(StrEnum):
    """What becomes of a pod for which nothing could be decided."""

    DEFAULT_SCHEDULER = "DefaultScheduler"
    HOLD = "Hold"


class RelocationMode(StrEnum):
    """When a pod that runs is moved."""

    NEVER = "Never"
    WHEN_SLO_MISSED = "WhenSLOMissed"
    WHEN_BETTER = "WhenBetter"


class Relocation(Document):
    """Moving pods that run, through the Eviction API."""

    mode: RelocationMode = Field(
        RelocationMode.NEVER,
        description="Never; WhenSLOMissed: when the observed latency misses the SLO and another node is "
        "predicted better; WhenBetter: also while the SLO is met.",
    )
    min_gain_percent: int = Field(
        20, ge=1, le=100, description="By how much the other node's predicted latency must be lower."
    )
    for_seconds: int = Field(
        300, ge=30, le=86_400, description="For how long that must hold before a pod is moved."
    )
    cooldown_seconds: int = Field(
        900, ge=60, le=604_800, description="Least time between two moves of this workload."
    )


class PlacementPolicy(Document):
    """How the pods' nodes are chosen."""

    binding: Binding = Field(
        Binding.NODE_AFFINITY,
        description="NodeAffinity: the decision is written as node affinity and kube-scheduler binds. "
        "NodeName: Tailwise binds by itself; pods carry schedulerName tailwise and are not gated.",
    )
    policy: Policy = Field(
        Policy.BEST,
        description="Best: the winner is required. Feasible: any node that meets the SLO is, with preference "
        "by headroom.",
    )
    objective: Objective = Field(
        Objective.LOWEST_LATENCY,
        description="LowestLatency: the node with the least predicted latency wins. Tightest: the one with "
        "the least headroom that still meets the SLO, so that fast nodes stay free.",
    )
    neighbours: Neighbours = Field(
        Neighbours.RESPECT,
        description="Respect: the pod goes where its own latency and what it adds to the latencies of the "
        "workloads already there are least together, and a node is refused where it would push one of them "
        "over its SLO. Ignore: the pod's own latency alone decides.",
    )
    fallback: Fallback = Field(
        Fallback.DEFAULT_SCHEDULER,
        description="What becomes of a pod for which no node could be chosen within timeoutSeconds. "
        "DefaultScheduler: it is let go without affinity. Hold: it waits until a node can be chosen.",
    )
    timeout_seconds: int = Field(
        60, ge=1, le=86_400, description="How long a pod may wait for its decision before fallback."
    )
    max_data_age_seconds: int = Field(
        120,
        ge=15,
        le=86_400,
        description="Age of a node's utilisation past which the bound widens; past twice that the prediction "
        "does without it and says Stale.",
    )
    relocation: Relocation | None = Field(
        None, description="Moving pods that run. Default: they are never moved."
    )
