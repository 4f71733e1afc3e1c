"""Claims and volumes rule by rule; that the rules are kube-scheduler's is shown against the real one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tailwise.domain.filtering import filter_nodes
from tailwise.domain.objects import Node, Pod
from tailwise.domain.parse_storage import claim_from_object, storage_class_from_object, volume_from_object
from tailwise.domain.state import ClusterState
from tests.unit.domain.builders import bound, node, pod

ZONE, OLD_ZONE = "topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"
MISSING = 'persistentvolumeclaim "c" not found'
UNBOUND = "pod has unbound immediate PersistentVolumeClaims"
AFFINITY = "node(s) didn't match PersistentVolume's node affinity"
NO_VOLUME = "node(s) didn't find available persistent volumes to bind"
ELSEWHERE = "node(s) had no available volume zone"
IN_USE = (
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by "
    "another pod"
)

Object = dict[str, Any]


def claim(name: str = "c", *, on: str = "", made_for: str = "", status: str = "", **spec: Any) -> Object:
    """A claim of class ``late``; with ``on`` it is bound for good to the volume of this name."""
    metadata: Object = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
    if on:
        metadata["annotations"] = {"pv.kubernetes.io/bind-completed": "yes"}
        spec["volumeName"] = on
    if made_for:
        metadata["ownerReferences"] = [{"uid": made_for, "controller": True}]
    wanted = {"storageClassName": "late", "accessModes": ["ReadWriteOnce"]}
    sized = {"resources": {"requests": {"storage": spec.pop("storage", "1Gi")}}}
    return {"metadata": metadata, "spec": wanted | sized | spec, "status": {"phase": status}}


def volume(
    name: str = "v",
    *,
    at: str | None = None,
    labels: Object | None = None,
    phase: str = "Available",
    **spec: Any,
) -> Object:
    """A volume of class ``late``; with ``at`` only nodes whose label rack says so reach it."""
    offered = {"storageClassName": "late", "accessModes": ["ReadWriteOnce"]}
    sized = {"capacity": {"storage": spec.pop("storage", "1Gi")}}
    if at is not None:
        here = {"matchExpressions": [{"key": "rack", "operator": "In", "values": [at]}]}
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [here]}}
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": offered | sized | spec,
        "status": {"phase": phase},
    }


def storage_class(
    name: str = "late", provisioner: str = "kubernetes.io/no-provisioner", **more: Any
) -> Object:
    return {
        "metadata": {"name": name},
        "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer",
    } | more


def asking(*claims: str, ephemeral: bool = False, **arguments: Any) -> Pod:
    kind: Object = {"ephemeral": {}} if ephemeral else {}
    volumes = [
        {"name": name} | (kind or {"persistentVolumeClaim": {"claimName": name}}) for name in claims or ("c",)
    ]
    return pod(volumes=volumes, **arguments)


RACKS = tuple(node(f"node-{rack}", labels={"rack": rack}) for rack in "ab")


def verdicts(
    candidate: Pod,
    *storage: Object,
    nodes: Sequence[Node] = RACKS,
    residents: Sequence[Pod] = (),
    read: bool = True,
) -> list[str]:
    """Why each node was refused, "" where it fits."""
    state = _state(*storage, nodes=nodes)
    for resident in residents:
        state.put_pod(resident)
    state.storage.complete = read
    return _words(candidate, state)


def _state(*storage: Object, nodes: Sequence[Node]) -> ClusterState:
    state = ClusterState()
    for each in nodes:
        state.put_node(each)
    state.storage.complete = True
    for obj in storage:
        name = obj["metadata"]["name"]
        if "provisioner" in obj:
            state.storage.put_class(name, storage_class_from_object(obj))
        elif "capacity" in obj["spec"]:
            state.storage.put_volume(name, volume_from_object(obj))
        else:
            made = claim_from_object(obj)
            state.storage.put_claim(made.key, made)
    return state


def _words(candidate: Pod, state: ClusterState) -> list[str]:
    found = filter_nodes(candidate, state.snapshot())
    refusals = [found.of(place) for place in range(len(found.names))]
    return ["" if refusal is None else refusal.words for refusal in refusals]


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ((), MISSING),
        ((claim(),), UNBOUND),  # its class is not there: it should have been bound at once
        ((storage_class(volumeBindingMode="Immediate"), claim()), UNBOUND),
        ((storage_class(), claim(volumeName="v"), volume()), UNBOUND),  # chosen by hand, and not yet bound
        ((claim(on="v"),), 'persistentvolume "v" not found'),
        ((claim(on="v", status="Lost"), volume()), MISSING.replace("not found", "bound to non-existent ")),
    ],
)
def test_a_claim_that_cannot_be_used_keeps_the_pod_off_every_node(
    storage: tuple[Object, ...], words: str
) -> None:
    first, second = verdicts(asking(), *storage)
    assert first == second
    assert first.startswith(words)


def test_nothing_is_said_of_claims_before_they_have_been_read() -> None:
    assert (
        verdicts(asking(), claim(on="v"), volume(), read=False)
        == ["claims and volumes have not been read yet"] * 2
    )
    assert verdicts(pod(), read=False) == ["", ""]


def test_a_bound_volume_is_reached_from_where_its_node_affinity_says() -> None:
    assert verdicts(asking(), claim(on="v"), volume(at="a")) == ["", AFFINITY]
    assert verdicts(asking(), claim(on="v"), volume()) == ["", ""]
    assert verdicts(
        asking("c", "d"), claim(on="v"), volume(at="a"), claim("d", on="w"), volume("w", at="b")
    ) == [
        AFFINITY,
        AFFINITY,
    ]


def test_a_volume_cannot_be_held_to_a_node_by_its_name() -> None:
    """kube-scheduler reads a volume's node affinity by labels alone and passes fields over."""
    by_name = {"key": "metadata.name", "operator": "In", "values": ["node-a"]}
    rack_b = {"key": "rack", "operator": "In", "values": ["b"]}
    for term, fits in (
        ({"matchFields": [by_name]}, ["", ""]),
        ({"matchFields": [by_name], "matchExpressions": [rack_b]}, [AFFINITY, ""]),
    ):
        held = volume(nodeAffinity={"required": {"nodeSelectorTerms": [term]}})
        assert verdicts(asking(), claim(on="v"), held) == fits


@pytest.mark.parametrize(
    ("labels", "on_volume", "fits"),
    [
        ({ZONE: "z1"}, {ZONE: "z1"}, True),
        ({ZONE: "z2"}, {ZONE: "z1"}, False),
        ({ZONE: "z2"}, {ZONE: "z1__z2"}, True),
        ({ZONE: "z1"}, {OLD_ZONE: "z1"}, True),
        ({OLD_ZONE: "z1"}, {ZONE: "z1"}, False),
        ({OLD_ZONE: "z2", ZONE: "z1"}, {OLD_ZONE: "z1"}, False),
        ({"rack": "a"}, {ZONE: "z1"}, True),  # a cluster of one zone need not say so
        ({"topology.kubernetes.io/region": "r"}, {ZONE: "z1"}, False),
        ({ZONE: "z2"}, {ZONE: ""}, True),
    ],
)
def test_a_bound_volume_stays_in_its_zone(labels: Object, on_volume: Object, fits: bool) -> None:
    words = verdicts(asking(), claim(on="v"), volume(labels=on_volume), nodes=[node(labels=labels)])
    assert words == ["" if fits else ELSEWHERE]


@pytest.mark.parametrize(
    ("offered", "wanted", "fits"),
    [
        ({}, {}, True),
        ({"phase": "Released"}, {}, False),
        ({"storage": "1Gi"}, {"storage": "2Gi"}, False),
        ({"storageClassName": "other"}, {}, False),
        ({"volumeMode": "Block"}, {}, False),
        ({"accessModes": ["ReadOnlyMany"]}, {}, False),
        ({"accessModes": ["ReadOnlyMany", "ReadWriteOnce"]}, {}, True),
        ({"volumeAttributesClassName": "gold"}, {}, False),
        ({"labels": {"disk": "ssd"}}, {"selector": {"matchLabels": {"disk": "ssd"}}}, True),
        ({}, {"selector": {"matchLabels": {"disk": "ssd"}}}, False),
        ({"claimRef": {"namespace": "default", "name": "another"}}, {}, False),
        ({"claimRef": {"namespace": "default", "name": "c", "uid": "older"}}, {}, False),
        # Kept for this very claim: neither phase nor modes are asked.
        (
            {"claimRef": {"namespace": "default", "name": "c"}, "phase": "Pending", "accessModes": []},
            {},
            True,
        ),
    ],
)
def test_a_claim_that_waits_for_its_pod_takes_a_volume_that_suits(
    offered: Object, wanted: Object, fits: bool
) -> None:
    words = verdicts(asking(), storage_class(), claim(**wanted), volume(at="a", **offered))
    assert words == ["" if fits else NO_VOLUME, NO_VOLUME]


def test_two_claims_need_two_volumes_and_the_lesser_takes_the_lesser() -> None:
    both = asking("small", "large")
    claims = (storage_class(), claim("large", storage="5Gi"), claim("small"))
    one, ten = volume("one", storage="1Gi"), volume("ten", storage="10Gi")
    assert verdicts(both, *claims, ten) == [NO_VOLUME, NO_VOLUME]
    assert verdicts(both, *claims, one, ten) == ["", ""]
    # On rack b the small claim can only take the large volume, and leaves none.
    assert verdicts(both, *claims, volume("one", at="a"), ten) == ["", NO_VOLUME]


def test_a_volume_that_a_pod_on_its_way_will_take_is_taken() -> None:
    here, there = volume("here", at="a"), volume("there", at="b")
    storage = (storage_class(), claim("c"), claim("d"), here, there)
    state = _state(*storage, nodes=RACKS)
    assert _words(asking("c"), state) == _words(asking("d"), state) == ["", ""]
    first = asking("c")
    state.put_pod(first)
    state.assume(first, "node-a")
    assert _words(replace(asking("d"), uid="second"), state) == [NO_VOLUME, ""]
    state.remove_pod(first.uid)
    assert _words(replace(asking("d"), uid="second"), state) == ["", ""]


def test_a_volume_is_made_where_its_class_allows() -> None:
    made = storage_class(provisioner="example.com/disk")
    assert verdicts(asking(), made, claim()) == ["", ""]
    rack_b = {"matchLabelExpressions": [{"key": "rack", "values": ["b", "c"]}]}
    assert verdicts(asking(), made | {"allowedTopologies": [rack_b]}, claim()) == [NO_VOLUME, ""]
    # A volume that is there may still be taken elsewhere.
    assert verdicts(asking(), made | {"allowedTopologies": [rack_b]}, claim(), volume(at="a")) == ["", ""]


def test_a_volume_that_is_being_made_for_a_node_holds_the_pod_to_it() -> None:
    ordered = claim()
    ordered["metadata"]["annotations"] = {"volume.kubernetes.io/selected-node": "node-b"}
    assert verdicts(asking(), storage_class(provisioner="example.com/disk"), ordered) == [NO_VOLUME, ""]


def test_a_claim_for_one_pod_is_refused_to_a_second() -> None:
    alone = claim(on="v", accessModes=["ReadWriteOncePod"])
    other = bound("other", "node-a", volumes=asking_volumes("c"))
    assert verdicts(asking(), alone, volume(), residents=[other]) == [IN_USE, IN_USE]
    assert verdicts(asking(), alone, volume()) == ["", ""]
    assert verdicts(asking(), claim(on="v"), volume(), residents=[other]) == ["", ""]


def asking_volumes(*claims: str) -> list[Object]:
    return [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]


def test_a_generic_ephemeral_volume_has_a_claim_of_its_own() -> None:
    waiting = "waiting for ephemeral volume controller to create the persistentvolumeclaim"
    own = asking("scratch", ephemeral=True)
    assert verdicts(own) == [f'{waiting} "pod-1-scratch"'] * 2
    foreign = claim("pod-1-scratch", on="v", made_for="another")
    assert verdicts(own, foreign, volume())[0].startswith("PVC default/pod-1-scratch was not created for pod")
    mine = claim("pod-1-scratch", on="v", made_for="uid-pod-1")
    assert verdicts(own, mine, volume(at="b")) == [AFFINITY, ""]
    assert (
        verdicts(own, mine)
        == ["node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"] * 2
    )


def test_a_pod_that_tailwise_binds_itself_cannot_have_its_claims_bound() -> None:
    direct = asking(gates=(), schedulerName="tailwise")
    assert verdicts(direct, claim(on="v"), volume(at="a")) == ["", AFFINITY]
    words = verdicts(direct, storage_class(provisioner="example.com/disk"), claim())
    assert words[0].startswith("pod has unbound PersistentVolumeClaims, which only kube-scheduler binds")


def test_the_view_of_storage_changes_only_with_it() -> None:
    state = ClusterState()
    assert state.snapshot().storage is None
    state.storage.complete = True
    before = state.snapshot()
    assert state.snapshot() is before
    made = claim_from_object(claim())
    state.storage.put_claim(made.key, made)
    assert state.snapshot().storage != before.storage
    state.storage.put_claim(made.key, None)
    assert state.snapshot().storage == before.storage
