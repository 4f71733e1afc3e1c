"""Random claims, volumes and classes for a pod of a case: what kube-scheduler's volume plugins read.

Names are those of the case; on the API server each gets the case's number, for what is deleted goes later.
The pod wants to be near pods that are nowhere: that is asked after its volumes, so that no volume is bound
by asking, and who is refused for it alone has passed all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.operator.scheduling_cases import NODES, ROOMY, Case, Spec, sometimes, without_none

ZONE, OLD_ZONE = "topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"
_KEYS = ("rack", "kubernetes.io/hostname", ZONE)
LATE, MADE, SOON, NOWHERE = "late", "made", "soon", "nowhere"
_VOLUMES, _CLAIMS = ("v0", "v1", "v2", "v3"), ("c0", "c1")
_BOUND, _UNBOUND = "bound", "unbound"
NOBODY = {
    "podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "nobody"}}}
        ]
    }
}


@dataclass(frozen=True, slots=True)
class StorageCase:
    """A case and its storage: ``volumes`` and ``claims`` by name, ``topologies`` of the class ``made``."""

    case: Case
    topologies: tuple[Spec, ...]
    volumes: Mapping[str, Spec]
    claims: Mapping[str, Spec]

    def manifests(self, number: int, namespace: str) -> list[Spec]:
        """All of it as the API server gets it, in the order in which it is created."""
        made: list[Spec] = [_class(name, number, self.topologies) for name in (LATE, MADE, SOON)]
        for name, volume in self.volumes.items():
            spec = dict(volume["spec"])
            if kept_for := spec.pop("keptFor"):
                spec["claimRef"] = {"namespace": namespace, "name": f"{kept_for}-{number}"}
            spec["storageClassName"] = f"{spec['storageClassName']}-{number}"
            spec["csi"] = {"driver": "example.com", "volumeHandle": f"{name}-{number}"}
            metadata = {"name": f"{name}-{number}", "labels": volume["labels"]}
            made.append(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": metadata,
                    "spec": {**spec, "persistentVolumeReclaimPolicy": "Retain"},
                }
            )
        for name, claim in self.claims.items():
            spec = {**claim["spec"], "storageClassName": f"{claim['spec']['storageClassName']}-{number}"}
            if "volumeName" in spec:
                spec["volumeName"] = f"{spec['volumeName']}-{number}"
            metadata = {
                "name": f"{name}-{number}",
                "namespace": namespace,
                "annotations": claim["annotations"],
            }
            made.append(
                {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
            )
        return made


def pod_volumes(claims: list[str], number: int, ephemeral: str | None = None) -> list[Spec]:
    """A pod's volumes; ``ephemeral`` is the class of one more that is made for the pod alone."""
    volumes: list[Spec] = [
        {"name": name, "persistentVolumeClaim": {"claimName": f"{name}-{number}"}} for name in claims
    ]
    if ephemeral:
        spec = {**_claim_spec(1), "storageClassName": f"{ephemeral}-{number}"}
        volumes.append({"name": "own", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}})
    return volumes


def _claim_spec(gibibytes: int) -> Spec:
    requests = {"storage": f"{gibibytes}Gi"}
    return {"accessModes": ["ReadWriteOnce"], "resources": {"requests": requests}}


def _class(name: str, number: int, topologies: tuple[Spec, ...]) -> Spec:
    made: Spec = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": f"{name}-{number}"},
        "provisioner": "example.com/none" if name == MADE else "kubernetes.io/no-provisioner",
        "volumeBindingMode": "Immediate" if name == SOON else "WaitForFirstConsumer",
    }
    return made | ({"allowedTopologies": list(topologies)} if name == MADE and topologies else {})


def _values(key: str) -> st.SearchStrategy[list[str]]:
    among = NODES if key == "kubernetes.io/hostname" else ("a", "b", "c")
    return st.lists(st.sampled_from(among), min_size=1, max_size=2, unique=True)


def _node() -> st.SearchStrategy[Spec]:
    labels = st.fixed_dictionaries(
        {"rack": st.sampled_from(("a", "b"))},
        optional={
            ZONE: st.sampled_from(("a", "b")),
            OLD_ZONE: st.sampled_from(("a", "b")),
            "topology.kubernetes.io/region": st.just("r"),
        },
    )
    shape = {"taints": st.just([]), "unschedulable": st.just(False), "allocatable": st.just(ROOMY)}
    return st.fixed_dictionaries({"labels": labels, **shape})


def _requirement() -> st.SearchStrategy[Spec]:
    return st.sampled_from(_KEYS).flatmap(
        lambda key: st.fixed_dictionaries(
            {"key": st.just(key), "operator": st.sampled_from(("In", "In", "NotIn")), "values": _values(key)}
        )
    )


def _affinity() -> st.SearchStrategy[Spec]:
    by_name = st.fixed_dictionaries(
        {
            "key": st.just("metadata.name"),
            "operator": st.sampled_from(("In", "NotIn")),
            "values": st.sampled_from(NODES).map(lambda name: [name]),
        }
    )
    expressions = st.lists(_requirement(), min_size=1, max_size=2).map(
        lambda found: {"matchExpressions": found}
    )
    term = st.one_of(
        expressions, expressions, expressions, by_name.map(lambda found: {"matchFields": [found]})
    )
    return st.lists(term, min_size=1, max_size=2).map(
        lambda terms: {"required": {"nodeSelectorTerms": terms}}
    )


def _volume(name: str, kept_for: st.SearchStrategy[str | None], affinity: bool) -> st.SearchStrategy[Spec]:
    shape: Spec = {
        "storageClassName": st.sampled_from((LATE, LATE, MADE, SOON)),
        # No two alike: among equals kube-scheduler takes any.
        "capacity": st.just({"storage": f"{int(name[1:]) + 1}Gi"}),
        "accessModes": st.sampled_from((["ReadWriteOnce"], ["ReadWriteOnce"], ["ReadOnlyMany"])),
        "volumeMode": st.sampled_from(("Filesystem", "Filesystem", "Filesystem", "Block")),
        "keptFor": kept_for,
    }
    if affinity:
        shape["nodeAffinity"] = _affinity()
    return st.fixed_dictionaries({"labels": _volume_labels(), "spec": st.fixed_dictionaries(shape)})


def _volume_labels() -> st.SearchStrategy[Spec]:
    zone = sometimes(st.sampled_from(("a", "b", "a__b")))
    old_zone = sometimes(st.sampled_from(("a", "b")), one_in=6)
    return st.tuples(zone, old_zone, st.booleans()).map(
        lambda found: without_none({ZONE: found[0], OLD_ZONE: found[1], "disk": "ssd" if found[2] else None})
    )


def _unbound_claim() -> st.SearchStrategy[Spec]:
    def made(found: tuple[str, int, str, bool, str | None]) -> Spec:
        storage_class, gibibytes, mode, by_label, ordered = found
        spec = {**_claim_spec(gibibytes), "storageClassName": storage_class, "accessModes": [mode]}
        if by_label:
            spec["selector"] = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
        # Only who makes volumes is ordered to.
        chosen = {"volume.kubernetes.io/selected-node": ordered} if ordered and storage_class == MADE else {}
        return {"annotations": chosen, "spec": spec}

    return st.tuples(
        st.sampled_from((LATE, LATE, LATE, MADE, MADE, SOON, NOWHERE)),
        st.integers(1, 3),
        st.sampled_from(("ReadWriteOnce", "ReadWriteOnce", "ReadWriteOncePod")),
        st.sampled_from((False, False, False, True)),
        st.sampled_from((None, None, *NODES)),
    ).map(made)


def _bound(claim: str, number: int, mode: str, affinity: Spec | None, labels: Spec) -> tuple[Spec, Spec]:
    """A volume and a claim that name each other: the controller binds them."""
    spec: Spec = {
        "storageClassName": LATE,
        "capacity": {"storage": f"{number + 8}Gi"},
        "accessModes": [mode],
        "keptFor": claim,
    } | ({"nodeAffinity": affinity} if affinity else {})
    wanted = {**_claim_spec(1), "accessModes": [mode], "storageClassName": LATE, "volumeName": f"v{number}"}
    return {"labels": labels, "spec": spec}, {"annotations": {}, "spec": wanted}


@st.composite
def storage_cases(draw: st.DrawFn) -> StorageCase:
    """Five nodes, up to six volumes, up to two claims, and a pod that uses some of them."""
    nodes = draw(st.tuples(*(_node() for _ in NODES)))
    kept_for = st.sampled_from((None, None, None, None, *_CLAIMS, "foreign"))
    volumes = {name: draw(_volume(name, kept_for, draw(st.booleans()))) for name in _VOLUMES}
    # Mostly of one kind: a claim that keeps the pod off every node says nothing of the other.
    kinds = draw(
        st.sampled_from(
            (
                (_BOUND, _BOUND),
                (_UNBOUND, _UNBOUND),
                (_BOUND, _UNBOUND),
                (_BOUND, _BOUND),
                (_UNBOUND, _UNBOUND),
                ("missing", _BOUND),
            )
        )
    )
    claims: dict[str, Spec] = {}
    for number, (claim, kind) in enumerate(zip(_CLAIMS, kinds, strict=True), len(_VOLUMES)):
        if kind == _UNBOUND:
            claims[claim] = draw(_unbound_claim())
        elif kind == _BOUND:
            mode = draw(st.sampled_from(("ReadWriteOnce", "ReadWriteOnce", "ReadWriteOncePod")))
            affinity = draw(st.one_of(_affinity(), _affinity(), st.none()))
            volumes[f"v{number}"], claims[claim] = _bound(
                claim, number, mode, affinity, draw(_volume_labels())
            )
    used = draw(st.lists(st.sampled_from(_CLAIMS), min_size=1, max_size=2, unique=True))
    ephemeral = draw(st.sampled_from((None, None, None, None, LATE, MADE, SOON)))
    resident = draw(st.sampled_from((None, None, None, *_CLAIMS)))
    # Two that say the same in another order are refused.
    racks = st.lists(_values("rack").map(sorted), max_size=2, unique_by=str)
    topologies = [{"matchLabelExpressions": [{"key": "rack", "values": values}]} for values in draw(racks)]
    container = {"name": "main", "image": "none.invalid/none", "resources": {"requests": {}}}
    residents = []
    if resident:
        where = draw(st.sampled_from(NODES))
        residents.append((where, {"labels": {}, "spec": {"containers": [container], "claims": [resident]}}))
    pod = {
        "labels": {"app": "x"},
        "spec": {"containers": [container], "claims": used, "ephemeral": ephemeral, "affinity": NOBODY},
    }
    return StorageCase(Case(nodes, tuple(residents), pod), tuple(topologies), volumes, claims)


# ---- the plainest case of each rule, which chance may pass by


def _plain(claims: dict[str, Spec], volumes: dict[str, Spec], *, used_on: str | None = None) -> StorageCase:
    """A pod with one claim, on nodes of two racks; another pod may use the claim already."""
    nodes = tuple(
        {"labels": {"rack": rack}, "taints": [], "unschedulable": False, "allocatable": ROOMY}
        for rack in "aabbb"
    )
    container = {"name": "main", "image": "none.invalid/none", "resources": {"requests": {}}}
    resident = {"labels": {}, "spec": {"containers": [container], "claims": ["c0"]}}
    pod = {"labels": {"app": "x"}, "spec": {"containers": [container], "claims": ["c0"], "affinity": NOBODY}}
    return StorageCase(Case(nodes, ((used_on, resident),) if used_on else (), pod), (), volumes, claims)


def _plain_bound(mode: str, *, used_on: str | None = None) -> StorageCase:
    rack_a = {"matchExpressions": [{"key": "rack", "operator": "In", "values": ["a"]}]}
    volume, claim = _bound("c0", 4, mode, {"required": {"nodeSelectorTerms": [rack_a]}}, {})
    return _plain({"c0": claim}, {"v4": volume}, used_on=used_on)


MISSING = _plain({}, {})
ELSEWHERE = _plain_bound("ReadWriteOnce")
IN_USE = _plain_bound("ReadWriteOncePod", used_on=NODES[0])
