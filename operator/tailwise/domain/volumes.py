"""VolumeRestrictions, VolumeBinding and VolumeZone over all nodes at once, as kube-scheduler filters by them.

What makes a pod wait wherever it would go (a claim that is missing, or unbound though its class binds at
once) refuses every node before anything else does, as kube-scheduler's PreFilter does. The rest is asked
node by node: whether bound volumes can be reached, and whether unbound claims would find a volume or have
one made. Not followed: CSIStorageCapacity, the nodes' limits on attached volumes, disks that the pod names
itself, and volumes of the kinds that were built into Kubernetes and moved to CSI, where only the zones on
their labels count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tailwise.domain.objects import ClaimUse, Pod
from tailwise.domain.selection import absent, among, any_term
from tailwise.domain.selectors import holds
from tailwise.domain.snapshot import Bools, ClusterSnapshot, NodeTable
from tailwise.domain.storage import NO_PROVISIONER, Claim, ClaimKey, Storage, Volume
from tailwise.domain.verdicts import Filter, Refusal, Verdicts

_READ_WRITE_ONCE_POD = "ReadWriteOncePod"
_GENERAL_LABELS = {
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
}
ZONE_LABELS = (*_GENERAL_LABELS, *_GENERAL_LABELS.values())


def why_nowhere(pod: Pod, snapshot: ClusterSnapshot) -> Refusal | None:
    """What about its claims keeps a pod off every node; None where nothing does."""
    if not pod.claims:
        return None
    if snapshot.storage is None:
        return Refusal(Filter.STORAGE_UNREAD)
    return next(_against(pod, snapshot.storage), None)


def _against(pod: Pod, storage: Storage) -> Iterator[Refusal]:
    """What kube-scheduler's PreFilter plugins have against the pod, in their order."""
    named = [ClaimKey(pod.namespace, use.name) for use in pod.claims if not use.ephemeral]
    for key in named:  # VolumeRestrictions
        if key not in storage.claims:
            yield Refusal(Filter.CLAIM, f'"{key.name}" not found')
            return
    for use in pod.claims:  # VolumeBinding
        if refusal := _unusable(pod, use, storage):
            yield refusal
            return
    claims = [storage.claims[ClaimKey(pod.namespace, use.name)] for use in pod.claims]
    if not all(claim.bound or storage.waits(claim) for claim in claims):
        yield Refusal(Filter.UNBOUND_CLAIMS)
    for key in named:  # VolumeZone
        volume = storage.claims[key].volume_name
        if volume and volume not in storage.volumes:
            yield Refusal(Filter.VOLUME, f'"{volume}" not found')
    if pod.to_bind and not all(claim.bound for claim in claims):
        yield Refusal(Filter.CLAIMS_TO_BIND)


def _unusable(pod: Pod, use: ClaimUse, storage: Storage) -> Refusal | None:
    claim = storage.claims.get(ClaimKey(pod.namespace, use.name))
    if claim is None:
        return Refusal(Filter.EPHEMERAL_CLAIM, f'"{use.name}"')
    if claim.lost:
        return Refusal(
            Filter.CLAIM, f'"{use.name}" bound to non-existent persistentvolume "{claim.volume_name}"'
        )
    if claim.deleting:
        return Refusal(Filter.CLAIM, f'"{use.name}" is being deleted')
    if use.ephemeral and claim.owner_uid != pod.uid:
        where = f"{pod.namespace}/{use.name}"
        return Refusal(
            Filter.CLAIM_OF_ANOTHER,
            f"{where} was not created for pod {pod.namespace}/{pod.name} (pod is not owner)",
        )
    return None


def check_volumes(pod: Pod, snapshot: ClusterSnapshot, verdicts: Verdicts) -> Verdicts:
    """The verdicts after the three plugins, for a pod that ``why_nowhere`` keeps off no node."""
    storage, table = snapshot.storage, snapshot.table
    if not pod.claims or storage is None:
        return verdicts
    claims = [storage.claims[ClaimKey(pod.namespace, use.name)] for use in pod.claims]
    everywhere = np.ones(len(table), dtype=np.bool_)
    for claim, use in zip(claims, pod.claims, strict=True):
        users = snapshot.claim_users.get(claim.key, {}).keys() - {pod.uid}
        if users and not use.ephemeral and _READ_WRITE_ONCE_POD in claim.access_modes:
            verdicts = verdicts.refuse(everywhere, Refusal(Filter.CLAIM_IN_USE))
    bound = [storage.volumes.get(claim.volume_name) for claim in claims if claim.bound]
    for volume in bound:
        if volume is not None:
            verdicts = verdicts.refuse(~_reached(volume, table), Refusal(Filter.VOLUME_AFFINITY))
    unbound = [claim for claim in claims if not claim.bound]
    if unbound:
        verdicts = verdicts.refuse(~_found(unbound, storage, snapshot), Refusal(Filter.NO_VOLUME))
    if None in bound:
        verdicts = verdicts.refuse(everywhere, Refusal(Filter.VOLUME_GONE))
    # The claims of generic ephemeral volumes are passed over by VolumeZone.
    zoned = [
        storage.volumes[claim.volume_name]
        for claim, use in zip(claims, pod.claims, strict=True)
        if claim.bound and not use.ephemeral
    ]
    return verdicts.refuse(_elsewhere(zoned, table), Refusal(Filter.VOLUME_ZONE))


def _reached(volume: Volume, table: NodeTable) -> Bools:
    """Nodes (nodes,) that the volume's node affinity allows (CheckNodeAffinity)."""
    if volume.terms is None:
        return np.ones(len(table), dtype=np.bool_)
    return any_term(volume.terms, table, nameless=True)


def _found(claims: Sequence[Claim], storage: Storage, snapshot: ClusterSnapshot) -> Bools:
    """Nodes (nodes,) where each claim finds a volume that is there or may have one made (FindPodVolumes)."""
    table = snapshot.table
    found = np.ones(len(table), dtype=np.bool_)
    taken = _spoken_for({claim.key for claim in claims}, storage, snapshot)
    # The least claims choose first, each the least volume: what a node has left depends on the node.
    for claim in sorted(claims, key=lambda each: each.wanted_bytes):
        if claim.selected_node:
            there = np.zeros(len(table), dtype=np.bool_)
            if claim.selected_node in table.index:
                there[table.index[claim.selected_node]] = True
            found &= there & _may_be_made(claim, storage, table)
        else:
            found &= _matched(claim, storage, table, taken) | _may_be_made(claim, storage, table)
    return found


def _spoken_for(own: set[ClaimKey], storage: Storage, snapshot: ClusterSnapshot) -> dict[str, Bools]:
    """Volumes that other claims will take, whose pods are on their way to a node: taken from everywhere."""
    table = snapshot.table
    taken: dict[str, Bools] = {}
    for key, users in snapshot.claim_users.items():
        claim = storage.claims.get(key)
        places = [table.index[node] for node in users.values() if node in table.index]
        if not places or key in own or claim is None or claim.bound or not storage.waits(claim):
            continue
        for volume in _candidates(claim, storage):
            if volume.name not in taken and _reached(volume, table)[places[0]]:
                taken[volume.name] = np.ones(len(table), dtype=np.bool_)
                break
    return taken


def _matched(claim: Claim, storage: Storage, table: NodeTable, taken: dict[str, Bools]) -> Bools:
    """Nodes (nodes,) where a volume that is there suits; it is noted in ``taken`` (FindMatchingVolume)."""
    left = np.ones(len(table), dtype=np.bool_)
    for volume in _candidates(claim, storage):
        taking = left & _reached(volume, table)
        if volume.name in taken:
            taking &= ~taken[volume.name]
        taken[volume.name] = taken[volume.name] | taking if volume.name in taken else taking
        left &= ~taking
        if not left.any():
            break
    return ~left


def _candidates(claim: Claim, storage: Storage) -> list[Volume]:
    """Volumes that the claim may take, the least first; only the one that is kept for it, if one is."""
    suitable = sorted(_suitable(claim, storage), key=lambda each: each.capacity_bytes)
    kept = [volume for volume in suitable if volume.kept_for(claim)]
    return kept[:1] or [
        volume
        for volume in suitable
        if volume.available and _chosen_by_labels(claim, volume) and claim.access_modes <= volume.access_modes
    ]


def _suitable(claim: Claim, storage: Storage) -> Iterator[Volume]:
    for volume in storage.of_class(claim.storage_class):
        kept_for_another = volume.claim is not None and not volume.kept_for(claim)
        if kept_for_another or volume.deleting or volume.capacity_bytes < claim.wanted_bytes:
            continue
        if (volume.mode, volume.attributes_class) == (claim.mode, claim.attributes_class):
            yield volume


def _chosen_by_labels(claim: Claim, volume: Volume) -> bool:
    return all(holds(each, volume.labels.get(each.key)) for each in claim.selector or ())


def _may_be_made(claim: Claim, storage: Storage, table: NodeTable) -> Bools:
    """Nodes (nodes,) for which the claim's class makes volumes (checkVolumeProvisions)."""
    found = storage.classes[claim.storage_class]
    if found.provisioner in ("", NO_PROVISIONER):
        return np.zeros(len(table), dtype=np.bool_)
    if found.allowed_topologies is None:
        return np.ones(len(table), dtype=np.bool_)
    allowed = np.zeros(len(table), dtype=np.bool_)
    for requirements in found.allowed_topologies:
        alternative = np.full(len(table), bool(requirements))
        for requirement in requirements:
            alternative &= among(requirement.values, table.label(requirement.key))
        allowed |= alternative
    return allowed


def _elsewhere(volumes: Sequence[Volume], table: NodeTable) -> Bools:
    """Nodes (nodes,) in another zone or region than a volume; those in none fit (VolumeZone)."""
    elsewhere = np.zeros(len(table), dtype=np.bool_)
    for volume in volumes:
        for key in ZONE_LABELS:
            zones = _zones(volume.labels.get(key))
            if not zones:
                continue
            column = table.label(key)
            there = among(zones, column)
            if key in _GENERAL_LABELS:
                there |= absent(column) & among(zones, table.label(_GENERAL_LABELS[key]))
            elsewhere |= ~there
    zoned = np.zeros(len(table), dtype=np.bool_)
    for key in ZONE_LABELS:
        zoned |= ~absent(table.label(key))
    return elsewhere & zoned


def _zones(label: str | None) -> tuple[str, ...]:
    """A volume of several zones names them with two underscores between; one that is empty spoils all."""
    zones = tuple(zone.strip() for zone in (label or "").split("__"))
    return zones if all(zones) else ()
