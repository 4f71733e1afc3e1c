"""A scenario: which pods, on which nodes, asked how, beside which neighbours, placed by which policies.

The file is YAML in camelCase; unknown fields are refused. docs/reference/scenario.md is generated from here.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from tailwise.api.document import Document
from tailwise.api.placement_policy import PlacementPolicy

NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
Name = Annotated[str, Field(min_length=1, max_length=30, pattern=NAME)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi)?$")]


class ScenarioError(ValueError):
    """A scenario cannot be used; the message names the file, the field and the way out."""


class NodeShape(Document):
    """A node of the project's own cluster; on other clusters the nodes are what they are."""

    name: Name = Field(description="Name of the node.")
    cores: float = Field(ge=0.1, le=1024, description="CPU quota of all its pods, and what it offers.")
    slowdown: float = Field(
        1.0, ge=1, le=8, description="2: half of the node's time goes to a neighbour, by CPU shares."
    )
    memory_mebibytes: int = Field(8192, ge=256, description="Memory that it offers.")
    paper_cores: int | None = Field(None, ge=1, description="Cores of the paper's node that it stands for.")


class Workload(Document):
    """Pods that serve one model under one objective."""

    name: Name = Field(description="Name of the workload; its pods are NAME-0, NAME-1 and so on.")
    family: str = Field(description="Family of the model, for training.", max_length=63)
    model: str = Field(description="File of the model in the image's /models.", pattern=r"^[\w.-]+\.onnx$")
    replicas: int = Field(ge=1, le=1000, description="Pods.")
    slo_milliseconds: int = Field(ge=1, le=3_600_000, description="P90 that is promised.")
    cpu_request: Quantity = Field("100m", description="CPU request of a pod.")
    cpu_limit: Quantity = Field("1", description="CPU limit of a pod; the server's threads follow it.")
    memory_request: Quantity = Field("448Mi", description="Memory request of a pod.")
    memory_limit: Quantity = Field("768Mi", description="Memory limit of a pod.")
    overhead_microseconds: int = Field(
        1900, ge=0, le=60_000_000, description="CPU time of a query that the server spends beside the model."
    )


class LoadKind(StrEnum):
    """LoadGen's scenario."""

    SINGLE_STREAM = "SingleStream"
    MULTI_STREAM = "MultiStream"
    SERVER = "Server"


class Load(Document):
    """What LoadGen asks of every pod."""

    kind: LoadKind = Field(
        LoadKind.SINGLE_STREAM,
        description="SingleStream: the next query when the last is answered. MultiStream: the same with "
        "several samples a query. Server: queries arrive at random (Poisson).",
    )
    queries: int = Field(1024, ge=64, le=1_000_000, description="Queries at each pod that are measured.")
    warm_up_queries: int = Field(16, ge=0, le=10_000, description="Queries before them.")
    samples_per_query: int = Field(8, ge=2, le=256, description="MultiStream: samples of a query.")
    queries_per_second: float = Field(1.0, gt=0, le=100_000, description="Server: arrivals at each pod.")


class Pattern(StrEnum):
    """How a neighbour uses CPU over time."""

    STEADY = "Steady"
    ON_OFF = "OnOff"
    MOVING = "Moving"


class Neighbour(Document):
    """Others' load beside the pods: a pod on each named node that computes without rest while it is busy."""

    name: Name = Field(description="Name of the neighbour.")
    nodes: tuple[Name, ...] = Field(min_length=1, max_length=64, description="Nodes it runs on.")
    pattern: Pattern = Field(
        Pattern.STEADY,
        description="Steady: always busy. OnOff: busy for periodSeconds, idle for as long. Moving: busy on "
        "one of the nodes for periodSeconds, then on the next.",
    )
    period_seconds: int = Field(60, ge=5, le=86_400, description="OnOff and Moving: length of a phase.")
    threads: int = Field(1, ge=1, le=256, description="Threads that compute.")
    cpu_request: Quantity = Field("50m", description="CPU request: its weight against the pods.")


class Change(Document):
    """A node that slows down in the middle of a measurement: others begin to compute there without rest."""

    node: Name = Field(description="The node.")
    after_seconds: int = Field(60, ge=20, le=3600, description="When, after the clients have begun.")
    follow_seconds: int = Field(
        240, ge=30, le=86_400, description="For how long the clients go on asking afterwards."
    )
    threads: int = Field(1, ge=1, le=256, description="Threads that compute.")
    cpu_request: Quantity = Field("50m", description="CPU request: their weight against the pods.")


class PolicyKind(StrEnum):
    """Who decides where a pod goes."""

    DEFAULT = "DefaultScheduler"
    SCHEDULER = "Scheduler"
    RANDOM = "Random"
    ROUND_ROBIN = "RoundRobin"
    TAILWISE = "Tailwise"
    PAPER = "Paper"
    ORACLE = "Oracle"
    SAME = "Same"


class Policy(Document):
    """One way of placing the pods, compared with the others."""

    name: Name = Field(description="Name in tables and pictures.")
    kind: PolicyKind = Field(
        description="DefaultScheduler: kube-scheduler alone. Scheduler: the one named by schedulerName. "
        "Random and RoundRobin: among the nodes where the pod fits. Tailwise: by an InferenceWorkload. "
        "Paper: Algorithm 1 with the paper's four features, trained on what the run measured before. "
        "Oracle: the best in hindsight, searched over what the run measured. Same: exactly where the "
        "policy named by sameAs put them in this round; the difference is the machine's noise (A/A)."
    )
    scheduler_name: str | None = Field(None, max_length=253, description="Scheduler: its name.")
    same_as: Name | None = Field(None, description="Same: whose placement is repeated.")
    settle_seconds: int | None = Field(
        None, ge=0, le=3600, description="Rest before it, instead of the scenario's."
    )
    placement: PlacementPolicy | None = Field(
        None, description="Tailwise: spec.placement of the InferenceWorkloads. Default: its defaults."
    )

    @model_validator(mode="after")
    def _fields_belong_to_kinds(self) -> Self:
        for field, value, kind in (
            ("schedulerName", self.scheduler_name, PolicyKind.SCHEDULER),
            ("sameAs", self.same_as, PolicyKind.SAME),
        ):
            if (value is not None) != (self.kind is kind):
                raise ValueError(f"policy {self.name}: {field} belongs to kind {kind} and no other")
        if self.placement is not None and self.kind is not PolicyKind.TAILWISE:
            raise ValueError(f"policy {self.name}: placement belongs to kind Tailwise and no other")
        return self


class Arrival(StrEnum):
    """How the pods come."""

    ONE_BY_ONE = "OneByOne"
    BURST = "Burst"


class Scenario(Document):
    """What is compared, and how."""

    description: str = Field(max_length=2000, description="What the scenario is for.")
    held_out_since: str | None = Field(
        None,
        pattern=r"^\d{4}-\d\d-\d\d$",
        description="Set where nothing is tuned on this scenario: the day since when it stands unchanged.",
    )
    image: str = Field(
        "localhost/tailwise/bench:dev",
        description="Image of the model server and LoadGen (examples/bench/README.md tells how to build it).",
    )
    image_pull_policy: str = Field(
        "IfNotPresent", pattern="^(Always|IfNotPresent|Never)$", description="Of the image."
    )
    nodes: tuple[NodeShape, ...] = Field(
        (), max_length=64, description="Nodes of the project's own cluster that serve."
    )
    workloads: tuple[Workload, ...] = Field(min_length=1, max_length=32, description="What is served.")
    arrival: Arrival = Field(
        Arrival.ONE_BY_ONE,
        description="OneByOne: the next pod when the last has a node, as in the paper. Burst: all at once.",
    )
    load: Load = Field(Load(), description="What is asked of the pods.")
    neighbours: tuple[Neighbour, ...] = Field((), max_length=16, description="Others' load.")
    change: Change | None = Field(
        None,
        description="A node that slows down while the pods are asked. The pods are then asked for a time "
        "instead of for a number of queries, by one client each that follows a pod which is moved.",
    )
    policies: tuple[Policy, ...] = Field(min_length=1, max_length=16, description="What is compared.")
    rounds: int = Field(3, ge=1, le=100, description="How often each policy is measured, interleaved.")
    settle_seconds: int = Field(
        75,
        ge=0,
        le=3600,
        description="Rest before a policy that looks at utilisation: what ended must be out of its window.",
    )
    seed: int = Field(0, ge=0, description="Of the order of pods, of Random and of resampling.")

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        for what, names in (
            ("workloads", [each.name for each in self.workloads]),
            ("policies", [each.name for each in self.policies]),
            ("nodes", [each.name for each in self.nodes]),
            ("neighbours", [each.name for each in self.neighbours]),
        ):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise ValueError(f"{what}: {', '.join(twice)} is there twice")
        before: set[str] = set()
        for policy in self.policies:
            if policy.same_as is not None and policy.same_as not in before:
                raise ValueError(f"policy {policy.name}: sameAs {policy.same_as}: no policy before it")
            before.add(policy.name)
        shapes = {each.name for each in self.nodes}
        for neighbour in self.neighbours:
            unknown = sorted(set(neighbour.nodes) - shapes) if shapes else []
            if unknown:
                raise ValueError(f"neighbour {neighbour.name}: no node {', '.join(unknown)} under nodes")
        return self

    @property
    def digest(self) -> str:
        """Names the circumstances: a run of them may be continued with more rounds, or other policies."""
        text = self.model_dump_json(by_alias=True, exclude={"rounds", "description", "policies"})
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def pods(self) -> int:
        """Pods of all workloads."""
        return sum(workload.replicas for workload in self.workloads)

    def workload(self, name: str) -> Workload:
        """The workload of this name; KeyError if there is none."""
        return {each.name: each for each in self.workloads}[name]


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file.

    Raises:
        ScenarioError: it cannot be read, or a field is wrong.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise ScenarioError(f"{path}: this is not YAML") from error
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        where = f"{path}: {field}" if field else str(path)
        raise ScenarioError(f"{where}: {first['msg']}; docs/reference/scenario.md has all fields") from error
