from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailwise.domain.filtering import filter_nodes
from tailwise.domain.objects import Node, Pod, Unmodelled, unsupported
from tailwise.domain.selection import selected
from tailwise.domain.selectors import (
    NodeSelectorTerm,
    Requirement,
    Taint,
    Toleration,
    term_matches,
    tolerates,
)
from tailwise.domain.snapshot import node_table
from tailwise.domain.verdicts import candidate_summary
from tests.unit.domain.builders import bound, cluster, node, pod

GPU = {"key": "gpu", "value": "a100", "effect": "NoSchedule"}
SOFT = {"key": "soft", "effect": "PreferNoSchedule"}
DOWN = {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}
ANY_PORT = {"containerPort": 80, "hostPort": 80}
PORT_AT = ANY_PORT | {"hostIP": "10.0.0.1"}
PORT_ELSEWHERE = ANY_PORT | {"hostIP": "10.0.0.2"}
CORDON_TOLERATION = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}


def _why(candidate: Pod, target: Node, *residents: Pod) -> str:
    refusal = filter_nodes(candidate, cluster(target, pods=residents)).of(0)
    return "" if refusal is None else refusal.words


@pytest.mark.parametrize(
    ("candidate", "target", "residents", "words"),
    [
        (pod(), node(), (), ""),
        (pod(nodeName="node-2"), node(), (), "node(s) didn't match the requested node name"),
        (pod(), node(unschedulable=True), (), "node(s) were unschedulable"),
        (pod(tolerations=[CORDON_TOLERATION]), node(unschedulable=True), (), ""),
        (pod(), node(taints=[GPU]), (), "node(s) had untolerated taint(s) {gpu: a100}"),
        (pod(), node(taints=[DOWN]), (), "node(s) had untolerated taint(s) {node.kubernetes.io/not-ready}"),
        (pod(), node(taints=[SOFT]), (), ""),
        (pod(tolerations=[{"operator": "Exists"}]), node(taints=[GPU, DOWN]), (), ""),
        (pod(nodeSelector={"disk": "ssd"}), node(), (), "node(s) didn't match Pod's node affinity/selector"),
        (pod(required=[{}]), node(), (), "node(s) didn't match Pod's node affinity/selector"),
        (pod(cpu="4"), node(), (), ""),
        (pod(cpu="4001m"), node(), (), "Insufficient cpu"),
        (pod(cpu="1"), node(), (bound("a", "node-1", cpu="3500m"),), "Insufficient cpu"),
        (pod(requests={"memory": "9Gi"}), node(), (), "Insufficient memory"),
        (pod(requests={"ephemeral-storage": "1Gi"}), node(), (), "Insufficient ephemeral-storage"),
        (pod(requests={"x.com/gpu": "1"}), node(), (), "Insufficient x.com/gpu"),
        (pod(requests={"x.com/gpu": "1"}), node(extended={"x.com/gpu": "1"}), (), ""),
        (pod(cpu=None), node(pods="1"), (bound("a", "node-1"),), "Too many pods"),
        # A pod that asks for nothing fits on a node where more is requested than there is.
        (pod(cpu=None), node(cpu="1"), (bound("a", "node-1", cpu="2"),), ""),
        (
            pod(host_ports=[ANY_PORT]),
            node(),
            (bound("a", "node-1", host_ports=[PORT_AT]),),
            "node(s) didn't have free ports for the requested pod ports",
        ),
        (
            pod(host_ports=[PORT_AT]),
            node(),
            (bound("a", "node-1", host_ports=[ANY_PORT]),),
            "node(s) didn't have free ports for the requested pod ports",
        ),
        (pod(host_ports=[PORT_AT]), node(), (bound("a", "node-1", host_ports=[PORT_ELSEWHERE]),), ""),
        (
            pod(host_ports=[ANY_PORT | {"protocol": "UDP"}]),
            node(),
            (bound("a", "node-1", host_ports=[ANY_PORT]),),
            "",
        ),
        # The first filter that fails is the one that is told.
        (
            pod(cpu="9", nodeSelector={"a": "b"}),
            node(taints=[GPU]),
            (),
            "node(s) had untolerated taint(s) {gpu: a100}",
        ),
    ],
)
def test_a_node_is_refused_as_kube_scheduler_would_and_in_its_words(
    candidate: Pod, target: Node, residents: tuple[Pod, ...], words: str
) -> None:
    assert _why(candidate, target, *residents) == words


@pytest.mark.parametrize(
    ("toleration", "taint", "covered"),
    [
        (Toleration(key="a", value="1"), Taint("a", "1", "NoSchedule"), True),
        (Toleration(key="a", value="2"), Taint("a", "1", "NoSchedule"), False),
        (Toleration(key="a", operator="Exists", effect="NoExecute"), Taint("a", "1", "NoSchedule"), False),
        (Toleration(operator="Exists"), Taint("a", "1", "NoExecute"), True),
        (Toleration(key="a", operator="Gt", value="3"), Taint("a", "5", "NoSchedule"), True),
        (Toleration(key="a", operator="Lt", value="3"), Taint("a", "5", "NoSchedule"), False),
        (Toleration(key="a", operator="Gt", value="x"), Taint("a", "5", "NoSchedule"), False),
        (Toleration(key="a", operator="Near", value="5"), Taint("a", "5", "NoSchedule"), False),
    ],
)
def test_a_toleration_covers_a_taint_by_all_of_effect_key_and_operator(
    toleration: Toleration, taint: Taint, covered: bool
) -> None:
    assert tolerates(toleration, taint, comparisons=True) is covered


def test_comparing_tolerations_cover_nothing_while_their_feature_gate_is_off() -> None:
    assert not tolerates(Toleration("a", "Gt", "3"), Taint("a", "5", "NoSchedule"))


def test_a_summary_counts_each_node_once() -> None:
    snapshot = cluster(
        *(node(f"n{n:02}", cpu="1") for n in range(7)), *(node(f"t{n}", taints=[GPU]) for n in range(5))
    )
    verdicts = filter_nodes(pod(cpu="2"), snapshot)
    assert verdicts.summary() == (
        "0/12 nodes fit: 7 Insufficient cpu, 5 node(s) had untolerated taint(s) {gpu: a100}"
    )


def test_forty_kinds_of_taint_still_fit_into_status_and_add_up() -> None:
    taint_sets = [[{"key": f"k{n}", "effect": "NoSchedule"}] for n in range(40)]
    verdicts = filter_nodes(pod(), cluster(*(node(f"n{n:02}", taints=t) for n, t in enumerate(taint_sets))))
    status = candidate_summary(verdicts)
    assert len(status.rejections) == 32
    assert status.feasible + sum(each.nodes for each in status.rejections) == status.nodes == 40


def test_a_node_set_aside_is_refused_last() -> None:
    verdicts = filter_nodes(pod(), cluster(node("a"), node("b")), set_aside={"a"})
    assert (
        verdicts.summary()
        == "1/2 nodes fit: 1 node(s) set aside after a pod of the workload was refused or moved away"
    )


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ({"matchLabels": {"tailwise.dev/workload": "resnet"}}, {"b"}),
        # kube-scheduler counts nobody for an empty selector, and nobody for none.
        ({}, {"a", "b"}),
        (None, {"a", "b"}),
    ],
)
def test_spread_keeps_the_skew(selector: Any, fits: set[str]) -> None:
    constraint = {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    if selector is not None:
        constraint["labelSelector"] = selector
    nodes = [node(name, labels={"zone": name}) for name in ("a", "b")]
    asking = pod("p2", topologySpreadConstraints=[constraint])
    verdicts = filter_nodes(asking, cluster(*nodes, pods=[bound("p1", "a")]))
    assert {name for name, fit in zip(verdicts.names, verdicts.fits, strict=True) if fit} == fits


def test_anti_affinity_counts_from_both_sides() -> None:
    term = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"tailwise.dev/workload": "resnet"}}}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    nodes = [node(name, labels={"zone": zone}) for name, zone in (("a", "1"), ("b", "1"), ("c", "2"))]
    shy, plain = bound("p1", "a", affinity=apart), bound("p1", "a")
    theirs = filter_nodes(pod("p2"), cluster(*nodes, pods=[shy]))
    assert theirs.summary() == ("1/3 nodes fit: 2 node(s) didn't satisfy existing pods anti-affinity rules")
    ours = filter_nodes(pod("p2", affinity=apart), cluster(*nodes, pods=[plain]))
    assert ours.summary() == "1/3 nodes fit: 2 node(s) didn't match pod anti-affinity rules"


def test_what_the_filters_do_not_check_is_named() -> None:
    found = pod(
        volumes=[{"name": "v", "iscsi": {"iqn": "i"}}, {"name": "e", "emptyDir": {}}],
        affinity={
            "podAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "zone", "namespaceSelector": {"matchLabels": {"team": "a"}}}
                ]
            }
        },
    )
    assert unsupported(found) == (Unmodelled.VOLUMES, Unmodelled.NAMESPACE_SELECTOR)
    claim = {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}
    assert unsupported(pod(volumes=[{"name": "e", "emptyDir": {}}, claim])) == ()


# ---- properties

_KEYS = st.sampled_from(["zone", "disk", "size"])
_VALUES = st.sampled_from(["a", "b", "1", "2", "-3", "+4", "x9"])
_NAMES = st.sampled_from([f"node-{n}" for n in range(6)])
_EXPRESSION = st.one_of(
    st.builds(
        Requirement,
        _KEYS,
        st.sampled_from(["In", "NotIn"]),
        st.lists(_VALUES, min_size=1, max_size=3).map(tuple),
    ),
    st.builds(Requirement, _KEYS, st.sampled_from(["Exists", "DoesNotExist"])),
    st.builds(Requirement, _KEYS, st.sampled_from(["Gt", "Lt"]), st.tuples(_VALUES)),
)
_FIELD = st.builds(Requirement, st.just("metadata.name"), st.sampled_from(["In", "NotIn"]), st.tuples(_NAMES))
_TERM = st.builds(
    NodeSelectorTerm, st.lists(_EXPRESSION, max_size=3).map(tuple), st.lists(_FIELD, max_size=2).map(tuple)
)
_LABELS = st.dictionaries(_KEYS, _VALUES, max_size=3)


def _with_terms(terms: list[NodeSelectorTerm]) -> Pod:
    def objects(requirements: tuple[Requirement, ...]) -> list[dict[str, Any]]:
        return [{"key": r.key, "operator": r.operator, "values": list(r.values)} for r in requirements]

    return pod(
        required=[
            {"matchExpressions": objects(t.expressions), "matchFields": objects(t.fields)} for t in terms
        ]
    )


@given(st.lists(_LABELS, min_size=1, max_size=6), st.lists(_TERM, max_size=3))
def test_affinity_over_all_nodes_at_once_equals_affinity_node_by_node(
    labels: list[dict[str, str]], terms: list[NodeSelectorTerm]
) -> None:
    nodes = [node(f"node-{n}", labels=each) for n, each in enumerate(labels)]
    expected = [any(term_matches(term, each.name, each.labels) for term in terms) for each in nodes]
    assert selected(_with_terms(terms), node_table(nodes)).tolist() == expected


@given(st.lists(st.tuples(st.integers(1, 8), st.booleans(), st.booleans()), max_size=12), st.integers(1, 9))
def test_verdicts_always_add_up_to_the_nodes(shapes: list[tuple[int, bool, bool]], cores: int) -> None:
    nodes = [
        node(f"n{n:02}", cpu=str(cpu), unschedulable=cordoned, taints=[GPU] if tainted else [])
        for n, (cpu, cordoned, tainted) in enumerate(shapes)
    ]
    verdicts = filter_nodes(pod(cpu=str(cores)), cluster(*nodes))
    assert verdicts.feasible + sum(number for _, number in verdicts.counts()) == len(nodes)


@given(st.lists(st.integers(1, 8), min_size=1, max_size=8), st.integers(0, 4), st.integers(1, 8))
def test_more_allocatable_never_removes_a_node(cores: list[int], more: int, wanted: int) -> None:
    candidate = pod(cpu=str(wanted))
    before = filter_nodes(candidate, cluster(*(node(f"n{n}", cpu=str(c)) for n, c in enumerate(cores))))
    after = filter_nodes(candidate, cluster(*(node(f"n{n}", cpu=str(c + more)) for n, c in enumerate(cores))))
    assert not (before.fits & ~after.fits).any()
