"""Claims, volumes and classes out of the API's JSON, as ``parse`` does for nodes and pods."""

from __future__ import annotations

from sys import intern

from tailwise.domain.parse import Object, interned, label_selector, node_selector_term
from tailwise.domain.resources import whole
from tailwise.domain.selectors import Operator, Requirement
from tailwise.domain.storage import Claim, ClaimKey, StorageClass, Volume

_BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
_SELECTED_NODE = "volume.kubernetes.io/selected-node"
# Older than spec.storageClassName, and still read before it.
_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_WAITS = "WaitForFirstConsumer"


def claim_from_object(obj: Object) -> Claim:
    """A Claim from a PersistentVolumeClaim's JSON."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    annotations = metadata.get("annotations") or {}
    volume_name = spec.get("volumeName") or ""
    owners = [each["uid"] for each in metadata.get("ownerReferences") or () if each.get("controller")]
    selector = spec.get("selector")
    return Claim(
        key=ClaimKey(intern(metadata["namespace"]), metadata["name"]),
        uid=metadata.get("uid", ""),
        storage_class=intern(annotations.get(_CLASS_ANNOTATION, spec.get("storageClassName") or "")),
        volume_name=volume_name,
        bound=bool(volume_name) and _BIND_COMPLETED in annotations,
        lost=status.get("phase") == "Lost",
        deleting="deletionTimestamp" in metadata,
        owner_uid=owners[0] if owners else "",
        selected_node=intern(annotations.get(_SELECTED_NODE) or ""),
        access_modes=_modes(spec),
        mode=intern(spec.get("volumeMode") or "Filesystem"),
        attributes_class=intern(spec.get("volumeAttributesClassName") or ""),
        wanted_bytes=_bytes((spec.get("resources") or {}).get("requests")),
        selector=label_selector(selector) if selector is not None else None,
    )


def volume_from_object(obj: Object) -> Volume:
    """A Volume from a PersistentVolume's JSON."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    required = (spec.get("nodeAffinity") or {}).get("required")
    reference = spec.get("claimRef")
    return Volume(
        name=metadata["name"],
        storage_class=intern(
            (metadata.get("annotations") or {}).get(_CLASS_ANNOTATION, spec.get("storageClassName") or "")
        ),
        terms=None
        if required is None
        else tuple(node_selector_term(term) for term in required.get("nodeSelectorTerms") or ()),
        claim=ClaimKey(reference.get("namespace", ""), reference.get("name", "")) if reference else None,
        claim_uid=(reference or {}).get("uid") or "",
        available=status.get("phase") == "Available",
        deleting="deletionTimestamp" in metadata,
        access_modes=_modes(spec),
        mode=intern(spec.get("volumeMode") or "Filesystem"),
        attributes_class=intern(spec.get("volumeAttributesClassName") or ""),
        capacity_bytes=_bytes(spec.get("capacity")),
        labels=interned(metadata.get("labels")),
    )


def storage_class_from_object(obj: Object) -> StorageClass:
    """A StorageClass from its JSON."""
    topologies = obj.get("allowedTopologies") or ()
    return StorageClass(
        name=obj["metadata"]["name"],
        provisioner=obj.get("provisioner") or "",
        waits=obj.get("volumeBindingMode") == _WAITS,
        allowed_topologies=tuple(
            tuple(
                Requirement(intern(each["key"]), Operator.IN, tuple(each.get("values") or ()))
                for each in topology.get("matchLabelExpressions") or ()
            )
            for topology in topologies
        )
        or None,
    )


def _modes(spec: Object) -> frozenset[str]:
    return frozenset(map(intern, spec.get("accessModes") or ()))


def _bytes(amounts: Object | None) -> int:
    quantity = (amounts or {}).get("storage")
    return whole(quantity) if quantity is not None else 0
