"""Claims, volumes and classes of storage as kube-scheduler's filters read them, and a frozen view of all.

Only clusters whose pods use claims have them read at all: until then there is no view. Source of the rules:
k8s.io/component-helpers/storage (volume, ephemeral).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from tailwise.domain.pod_rules import LabelSelector
from tailwise.domain.selectors import NodeSelectorTerm, Requirement

K = TypeVar("K")
V = TypeVar("V")

NO_PROVISIONER = "kubernetes.io/no-provisioner"


class ClaimKey(NamedTuple):
    """A PersistentVolumeClaim's namespace and name."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim. ``bound``: for good, as its annotation says; ``wanted_bytes`` its request."""

    key: ClaimKey
    uid: str
    storage_class: str = ""
    volume_name: str = ""
    bound: bool = False
    lost: bool = False
    deleting: bool = False
    # The pod that a generic ephemeral volume's claim was made for.
    owner_uid: str = ""
    # Where kube-scheduler has ordered the volume to be made; empty while it has not.
    selected_node: str = ""
    access_modes: frozenset[str] = frozenset()
    mode: str = "Filesystem"
    attributes_class: str = ""
    wanted_bytes: int = 0
    # None: any volume will do, whatever its labels.
    selector: LabelSelector = None


@dataclass(frozen=True, slots=True)
class Volume:
    """A PersistentVolume. ``terms`` are its node affinity, None where it can be reached from everywhere."""

    name: str
    storage_class: str = ""
    terms: tuple[NodeSelectorTerm, ...] | None = None
    # Whom it is bound to or kept for, and the uid if it is known; None: for anybody.
    claim: ClaimKey | None = None
    claim_uid: str = ""
    available: bool = True
    deleting: bool = False
    access_modes: frozenset[str] = frozenset()
    mode: str = "Filesystem"
    attributes_class: str = ""
    capacity_bytes: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    def kept_for(self, claim: Claim) -> bool:
        """Whether it is bound to this claim, or kept for it (IsVolumeBoundToClaim)."""
        return self.claim == claim.key and self.claim_uid in ("", claim.uid)


@dataclass(frozen=True, slots=True)
class StorageClass:
    """A StorageClass. ``waits``: volumes are found when a pod is scheduled (WaitForFirstConsumer).

    ``allowed_topologies``: alternatives, each of requirements that must all hold; None allows every node.
    """

    name: str
    provisioner: str = ""
    waits: bool = False
    allowed_topologies: tuple[tuple[Requirement, ...], ...] | None = None


@dataclass(frozen=True, slots=True)
class Storage:
    """All of it at one moment."""

    claims: Mapping[ClaimKey, Claim]
    volumes: Mapping[str, Volume]
    classes: Mapping[str, StorageClass]

    def waits(self, claim: Claim) -> bool:
        """Whether a volume is found for the claim only when its pod is scheduled."""
        found = self.classes.get(claim.storage_class)
        return found is not None and found.waits and not claim.volume_name

    def of_class(self, name: str) -> Iterator[Volume]:
        """The volumes of a class."""
        return (volume for volume in self.volumes.values() if volume.storage_class == name)


class StorageState:
    """What is known of storage now. ``complete`` is set once all of it has been read."""

    def __init__(self) -> None:
        self.complete = False
        self._claims: dict[ClaimKey, Claim] = {}
        self._volumes: dict[str, Volume] = {}
        self._classes: dict[str, StorageClass] = {}
        self._frozen: Storage | None = None

    def put_claim(self, key: ClaimKey, claim: Claim | None) -> None:
        """A claim came, changed, or (None) went."""
        self._put(self._claims, key, claim)

    def put_volume(self, name: str, volume: Volume | None) -> None:
        """A volume came, changed, or (None) went."""
        self._put(self._volumes, name, volume)

    def put_class(self, name: str, storage_class: StorageClass | None) -> None:
        """A class came, changed, or (None) went."""
        self._put(self._classes, name, storage_class)

    def frozen(self) -> Storage | None:
        """All of it as a value that stays the same while nothing changes; None until it has been read."""
        if self._frozen is None and self.complete:
            self._frozen = Storage(dict(self._claims), dict(self._volumes), dict(self._classes))
        return self._frozen

    def _put(self, kept: dict[K, V], key: K, value: V | None) -> None:
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = value
        self._frozen = None
