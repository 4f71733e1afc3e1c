"""Random nodes, pods that stand on them, and a pod that asks for a node: what kube-scheduler's filters read.

Values are drawn from few, so that selectors meet labels, tolerations meet taints and ports meet ports often.
Each case is about one kind of filter and leaves the others alone, or no case would come past the first of
them.
"""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

NODES = tuple(f"diff-{number}" for number in range(5))
EXTENDED = "example.com/accelerator"
_KEYS = ("zone", "rack", "tier")
_VALUES = ("a", "b", "3", "07")
_APPS = ("x", "y")
_ALL = "all"
FOCUSES = ("cordons", "taints", "affinity", "resources", "ports", "spread", "pods", _ALL)
ROOMY = {"cpu": "64", "memory": "64Gi", "ephemeral-storage": "64Gi", "pods": "110", EXTENDED: "64"}

Spec = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One cluster and one question."""

    nodes: tuple[Spec, ...]
    residents: tuple[tuple[str, Spec], ...]
    pod: Spec


def forcing(node: str) -> str:
    """A resource that this node alone has: whoever asks for it fits nowhere else, whatever else it asks."""
    return f"only.example.com/{node}"


def sometimes(strategy: st.SearchStrategy[Any], *, one_in: int = 3) -> st.SearchStrategy[Any]:
    """The strategy once in so many times, else None."""
    return st.integers(1, one_in).flatmap(lambda n: strategy if n == 1 else st.none())


def _if(
    focus: str, about: tuple[str, ...], strategy: st.SearchStrategy[Any], otherwise: Any
) -> st.SearchStrategy[Any]:
    """The strategy in cases about one of these, else one plain value."""
    return strategy if focus in (*about, _ALL) else st.just(otherwise)


def _labels(least: int = 0) -> st.SearchStrategy[Spec]:
    return st.dictionaries(st.sampled_from(_KEYS), st.sampled_from(_VALUES), min_size=least, max_size=3)


def _taint() -> st.SearchStrategy[Spec]:
    return st.fixed_dictionaries(
        {
            "key": st.sampled_from(("t1", "t2")),
            "value": st.sampled_from(("", "a", "3")),
            "effect": st.sampled_from(("NoSchedule", "PreferNoSchedule", "NoExecute")),
        }
    )


def _node(focus: str) -> st.SearchStrategy[Spec]:
    offered = {
        "cpu": st.sampled_from(("1", "1500m", "2", "4")),
        "memory": st.sampled_from(("512Mi", "1Gi", "2Gi")),
        "ephemeral-storage": st.sampled_from(("1Gi", "10Gi")),
        "pods": st.sampled_from(("1", "2", "110")),
        EXTENDED: st.sampled_from(("0", "1", "2")),
    }
    taints = st.lists(_taint(), max_size=2, unique_by=lambda t: (t["key"], t["effect"]))
    return st.fixed_dictionaries(
        {
            "labels": _labels(2 if focus in ("spread", "pods") else 0),
            "taints": _if(focus, ("taints",), taints, []),
            "unschedulable": _if(focus, ("cordons",), st.booleans(), False),
            "allocatable": _if(focus, ("resources",), st.fixed_dictionaries(offered), ROOMY),
        }
    )


def _requirement() -> st.SearchStrategy[Spec]:
    key = st.sampled_from(_KEYS)
    among = st.lists(st.sampled_from(_VALUES), min_size=1, max_size=2, unique=True)
    return st.one_of(
        st.fixed_dictionaries({"key": key, "operator": st.sampled_from(("In", "NotIn")), "values": among}),
        st.fixed_dictionaries({"key": key, "operator": st.sampled_from(("Exists", "DoesNotExist"))}),
        st.fixed_dictionaries(
            {
                "key": key,
                "operator": st.sampled_from(("Gt", "Lt")),
                "values": st.sampled_from((["0"], ["3"], ["-7"])),
            }
        ),
    )


def _field() -> st.SearchStrategy[Spec]:
    return st.fixed_dictionaries(
        {
            "key": st.just("metadata.name"),
            "operator": st.sampled_from(("In", "NotIn")),
            "values": st.sampled_from(NODES).map(lambda name: [name]),
        }
    )


def _term() -> st.SearchStrategy[Spec]:
    both = st.tuples(st.lists(_requirement(), max_size=2), st.lists(_field(), max_size=1))
    return both.map(
        lambda found: {
            key: value for key, value in zip(("matchExpressions", "matchFields"), found, strict=True) if value
        }
    )


def _toleration() -> st.SearchStrategy[Spec]:
    effect = st.sampled_from(("", "NoSchedule", "NoExecute"))
    return st.one_of(
        st.fixed_dictionaries(
            {
                "key": st.sampled_from(("t1", "t2")),
                "operator": st.just("Equal"),
                "value": st.sampled_from(("", "a", "3")),
                "effect": effect,
            }
        ),
        st.fixed_dictionaries(
            {
                "key": st.sampled_from(("t1", "t2", "node.kubernetes.io/unschedulable")),
                "operator": st.just("Exists"),
                "effect": effect,
            }
        ),
        st.fixed_dictionaries({"operator": st.just("Exists"), "effect": effect}),
    )


def _requests(*, most: int = 4) -> st.SearchStrategy[Spec]:
    return st.fixed_dictionaries(
        {},
        optional={
            "cpu": st.sampled_from(("0", "100m", "500m", "1", "1500m")[:most]),
            "memory": st.sampled_from(("0", "100Mi", "300Mi", "1Gi")),
            "ephemeral-storage": st.sampled_from(("100Mi", "2Gi")),
            EXTENDED: st.sampled_from(("1", "2")),
        },
    )


def _container(name: str, focus: str) -> st.SearchStrategy[Spec]:
    def made(found: tuple[Spec, list[Spec]]) -> Spec:
        requests, ports = found
        resources: Spec = {"requests": requests}
        if EXTENDED in requests:
            resources["limits"] = {EXTENDED: requests[EXTENDED]}
        return {"name": name, "image": "none.invalid/none", "resources": resources, "ports": ports}

    port = st.fixed_dictionaries(
        {
            "containerPort": st.just(80),
            "hostPort": st.sampled_from((8001, 8002)),
            "protocol": st.sampled_from(("TCP", "UDP")),
        },
        optional={"hostIP": st.sampled_from(("0.0.0.0", "10.0.0.1", "10.0.0.2"))},  # noqa: S104 - not bound
    )
    ports = _if(focus, ("ports",), st.lists(port, max_size=1), []) if name == "main" else st.just([])
    return st.tuples(_if(focus, ("resources",), _requests(), {}), ports).map(made)


def _init(name: str, focus: str) -> st.SearchStrategy[Spec]:
    sidecar = st.booleans().map(lambda yes: {"restartPolicy": "Always"} if yes else {})
    return st.tuples(_container(name, focus), sidecar).map(lambda pair: pair[0] | pair[1])


def _selector() -> st.SearchStrategy[Spec | None]:
    label = st.sampled_from(_APPS)
    return st.one_of(
        st.none(),
        st.just({}),
        label.map(lambda app: {"matchLabels": {"app": app}}),
        label.map(lambda app: {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [app]}]}),
        st.just({"matchExpressions": [{"key": "app", "operator": "Exists"}]}),
    )


def without_none(value: Spec) -> Spec:
    """The fields that have a value."""
    return {key: each for key, each in value.items() if each is not None}


def _spread() -> st.SearchStrategy[Spec]:
    shape: Spec = {
        "topologyKey": st.sampled_from(_KEYS),
        "maxSkew": st.integers(1, 2),
        "whenUnsatisfiable": st.just("DoNotSchedule"),
        "labelSelector": _selector(),
        "minDomains": st.sampled_from((None, None, 2, 4)),
        "nodeAffinityPolicy": st.sampled_from((None, "Honor", "Ignore")),
        "nodeTaintsPolicy": st.sampled_from((None, "Honor", "Ignore")),
        "matchLabelKeys": st.sampled_from((None, None, ["version"])),
    }

    def valid(made: Spec) -> Spec:
        if made["labelSelector"] is None:
            made["matchLabelKeys"] = None
        return without_none(made)

    return st.fixed_dictionaries(shape).map(valid)


def _pod_term() -> st.SearchStrategy[Spec]:
    shape: Spec = {
        "topologyKey": st.sampled_from(_KEYS),
        "labelSelector": _selector(),
        "namespaces": st.sampled_from((None, None, ["elsewhere"])),
        "namespaceSelector": st.sampled_from((None, None, {})),
    }
    return st.fixed_dictionaries(shape).map(without_none)


def _affinity(focus: str, *, resident: bool) -> st.SearchStrategy[Spec | None]:
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    terms = st.lists(_pod_term(), min_size=1, max_size=2).map(lambda found: {required: found})
    node_terms = st.lists(_term(), min_size=1, max_size=2).map(
        lambda found: {required: {"nodeSelectorTerms": found}}
    )
    # Less often on the pod that asks: its own terms are asked before those of the pods that stand there.
    often = 2 if resident else 3
    shape: Spec = {
        "nodeAffinity": st.none()
        if resident
        else _if(focus, ("affinity", "spread"), sometimes(node_terms, one_in=2), None),
        "podAffinity": st.none() if resident else _if(focus, ("pods",), sometimes(terms, one_in=often), None),
        "podAntiAffinity": _if(focus, ("pods",), sometimes(terms, one_in=often), None),
    }
    return st.fixed_dictionaries(shape).map(lambda found: without_none(found) or None)


def _pod_labels() -> st.SearchStrategy[Spec]:
    return st.fixed_dictionaries(
        {"app": st.sampled_from(_APPS)}, optional={"version": st.sampled_from(("1", "2"))}
    )


def _pod(focus: str) -> st.SearchStrategy[Spec]:
    """Metadata's labels and spec of the pod that asks."""
    init = st.tuples(_init("i1", focus), _init("i2", focus)).map(list)
    pod_level = st.fixed_dictionaries({"requests": st.just({"cpu": "2", "memory": "1Gi"})})
    spread = st.lists(_spread(), min_size=1, max_size=2, unique_by=lambda c: c["topologyKey"])
    spec: Spec = {
        "containers": st.tuples(
            _container("main", focus),
            _if(focus, ("resources",), sometimes(_container("second", focus)), None),
        ).map(lambda pair: [each for each in pair if each]),
        "initContainers": _if(focus, ("resources",), sometimes(init, one_in=2), None),
        "resources": _if(focus, ("resources",), sometimes(pod_level, one_in=6), None),
        "runtimeClassName": _if(focus, ("resources",), st.sampled_from((None, None, "heavy")), None),
        "nodeSelector": _if(focus, ("affinity",), sometimes(_labels(), one_in=4), None),
        "affinity": _affinity(focus, resident=False),
        "topologySpreadConstraints": _if(focus, ("spread",), spread, None),
        "tolerations": _if(focus, ("taints", "cordons", "spread"), st.lists(_toleration(), max_size=2), []),
    }
    return st.fixed_dictionaries(
        {"labels": _pod_labels(), "spec": st.fixed_dictionaries(spec).map(without_none)}
    )


def _resident(focus: str) -> st.SearchStrategy[Spec]:
    spec: Spec = {
        "containers": _container("main", focus).map(lambda container: [container]),
        "affinity": _affinity(focus, resident=True),
    }
    return st.fixed_dictionaries(
        {"labels": _pod_labels(), "spec": st.fixed_dictionaries(spec).map(without_none)}
    )


def cases(focus: str) -> st.SearchStrategy[Case]:
    """Five nodes, up to eight residents anywhere, and one pod; ``focus`` is one of FOCUSES."""
    least = 0 if focus in ("cordons", "taints", "affinity") else 4
    residents = st.lists(
        st.tuples(st.sampled_from(NODES), _resident(focus)), min_size=least, max_size=max(2, 2 * least)
    )
    return st.builds(Case, st.tuples(*(_node(focus) for _ in NODES)), residents.map(tuple), _pod(focus))
