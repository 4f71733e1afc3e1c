"""The join document from the operator's own state: pods that stand, and those that it saw go.

What a pod served, how and where is known while it stands; when it goes it is kept, bounded, and the document
that was written last gives what a restart forgot. ``publish`` writes it where training Jobs read it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tailwise.api.hardware import NodeHardware
from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.labels import MANAGED_BY, MANAGED_BY_LABEL
from tailwise.api.latency_dataset import Dataset, LabelSelector
from tailwise.api.profile import ModelProfile
from tailwise.api.serving_metrics import LatencyQueries, ServingMetrics, ServingPreset
from tailwise.cluster import apply
from tailwise.cluster.client import CONFIG_MAPS, Client
from tailwise.cluster.reflector import Key
from tailwise.controllers.registry import KnownWorkload
from tailwise.controllers.serving import serving_of
from tailwise.controllers.view import ClusterView
from tailwise.domain.objects import Pod, serving_container
from tailwise.prediction.features import profile_key
from tailwise.telemetry.join import (
    JOIN_FILE,
    DatasetJoin,
    JoinedPod,
    JoinError,
    ServedPods,
    ServingSettings,
    UtilisationSource,
    bounded,
    merged,
    packed,
    unpacked,
)
from tailwise.telemetry.queries import UtilisationQueries

_LOGGER = logging.getLogger(__name__)

MOST_GONE = 10_000
"""Pods that are gone and still told of; of about half a kilobyte each."""

JOIN_LABEL = "tailwise.dev/dataset-join"
"""On ConfigMaps with a join document: the LatencyModel that it is for."""

_NAME_LIMIT = 200
_LONGEST_LABEL = 63
_P90 = 90


def join_name(latency_model: str, made_at: datetime) -> str:
    """Name of the ConfigMap that holds the document of a LatencyModel as it was at a time."""
    return f"tailwise-join-{latency_model[:_NAME_LIMIT].rstrip('-.')}-{made_at:%Y%m%d%H%M%S}"


@dataclass(frozen=True, slots=True)
class _Served:
    """One pod with all that its rows need to know of it."""

    labels: tuple[tuple[str, str], ...]
    spec: InferenceWorkloadSpec
    profile: ModelProfile
    namespace: str
    workload: str
    container: str | None
    settings: ServingSettings
    pod: JoinedPod


@dataclass(slots=True)
class DatasetJoins:
    """Follows pods; ``join`` makes the document of a LatencyModel's dataset, ``publish`` writes it too.

    ``profile`` tells a workload's profile, or anything else while there is none.
    """

    view: ClusterView
    profile: Callable[[KnownWorkload], object]
    utilisation: UtilisationQueries
    _gone: OrderedDict[str, _Served] = field(default_factory=OrderedDict)
    _hardware: dict[str, NodeHardware] = field(default_factory=dict)

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Follow what the watch tells of pods: one that served and goes is remembered."""
        leaves = old is not None and (new is None or new.deleted_at is not None)
        if old is None or not leaves or old.deleted_at is not None or old.ready_at is None:
            return
        known = self.view.registry.workloads.get(Key(old.namespace, old.workload or ""))
        served = self._served(old, known, datetime.now(UTC)) if known is not None else None
        if served is None:
            return
        hardware = self.view.hardware_of(old.node_name)
        if hardware is not None:
            self._hardware[old.node_name] = hardware
        self._gone[old.uid] = served
        while len(self._gone) > MOST_GONE:
            self._gone.popitem(last=False)

    def join(self, dataset: Dataset, now: datetime, before: DatasetJoin | None = None) -> DatasetJoin:
        """The document for ``spec.dataset``: its workloads, its presets, its lookback.

        ``before`` is the document that was written last: pods of it that this process does not know any more
        are kept as long as their rows may be asked for.
        """
        oldest = now - timedelta(hours=dataset.lookback_hours)
        groups: dict[str, list[ServedPods]] = {}
        profiles: dict[str, ModelProfile] = {}
        for each in (*self._gone.values(), *self._standing()):
            ended = each.pod.until is not None and each.pod.until <= oldest
            if ended or not _selected(dataset.workload_selector, each.labels):
                continue
            key = profile_key(each.profile)
            profiles.setdefault(key, each.profile)
            for metrics in _metrics(each.spec, dataset):
                served = ServedPods(
                    namespace=each.namespace,
                    workload=each.workload,
                    container=each.container,
                    model_name=each.spec.serving.model_name if each.spec.serving else None,
                    profile=key,
                    metrics=metrics,
                    serving=each.settings,
                    pods=(each.pod,),
                )
                alike = served.model_copy(update={"pods": ()}).model_dump_json()
                groups.setdefault(alike, []).append(served)
        join = DatasetJoin(
            made_at=now,
            utilisation=UtilisationSource.of(self.utilisation),
            profiles={key: profile for key, profile in sorted(profiles.items()) if groups},
            hardware=self._described({each.pods[0].node for alike in groups.values() for each in alike}),
            served=tuple(
                alike[0].model_copy(update={"pods": tuple(pod for each in alike for pod in each.pods)})
                for alike in groups.values()
            ),
        )
        return join if before is None else merged(join, before, oldest)

    async def publish(
        self,
        client: Client,
        namespace: str,
        latency_model: str,
        dataset: Dataset,
        now: datetime,
        owners: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Write the document into a ConfigMap of its own and return that one's name.

        ``owners`` take it with them. The ones before it go once it stands: a writer that is killed loses
        nothing. Raises ApiError or what the connection raises: the caller's queue tries again.
        """
        written = await _written(client, namespace, latency_model)
        before = next((join for _, join in written if join is not None), None)
        join, left_out = bounded(self.join(dataset, now, before))
        if left_out:
            _LOGGER.warning(
                "LatencyModel %s: %d pods that ended first are left out of the join document, a ConfigMap "
                "holds no more",
                latency_model,
                left_out,
            )
        manifest = join_config_map(join, latency_model, namespace, now, owners)
        name = str(manifest["metadata"]["name"])
        made = await apply.create(client, CONFIG_MAPS, manifest)
        if not made.done and made.outcome is not apply.Outcome.CONFLICT:
            raise RuntimeError(f"ConfigMap {namespace}/{name} refused: {made.message}")
        for older, _ in written:
            if older != name:
                await apply.delete(client, CONFIG_MAPS, namespace, older)
        return name

    def _standing(self) -> Iterator[_Served]:
        for known in self.view.registry.workloads.values():
            for pod in self.view.pods_of(known.key):
                if pod.ready_at is not None and pod.deleted_at is None:
                    served = self._served(pod, known, None)
                    if served is not None:
                        yield served

    def _served(self, pod: Pod, known: KnownWorkload, until: datetime | None) -> _Served | None:
        profile = self.profile(known)
        if known.workload is None or not isinstance(profile, ModelProfile):
            return None
        if pod.workload != known.key.name or not pod.node_name:
            return None
        spec = known.workload.spec
        container = serving_container(pod, spec.serving.container if spec.serving else None)
        return _Served(
            labels=tuple(sorted(known.workload.metadata.labels.items())),
            spec=spec,
            profile=profile,
            namespace=known.key.namespace,
            workload=known.key.name,
            container=container.name if container else None,
            settings=ServingSettings.of(serving_of(pod, spec)),
            # Of its creation, which never changes: that says which pod of this name it is. Until it is ready
            # its windows have gaps.
            pod=JoinedPod(name=pod.name, node=pod.node_name, since=pod.created_at, until=until),
        )

    def _described(self, nodes: set[str]) -> tuple[NodeHardware, ...]:
        """Hardware of nodes that there are, and of those that pods were on that are gone."""
        gone = {each.pod.node for each in self._gone.values()}
        self._hardware = {node: known for node, known in self._hardware.items() if node in gone}
        known = self._hardware | {each.node: each for each in self.view.described()}
        return tuple(known[node] for node in sorted(nodes & known.keys()))


def join_config_map(
    join: DatasetJoin,
    latency_model: str,
    namespace: str,
    made_at: datetime,
    owners: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The ConfigMap that a training Job mounts, under the key ``JOIN_FILE``."""
    return {
        "apiVersion": CONFIG_MAPS.api_version,
        "kind": CONFIG_MAPS.kind,
        "metadata": {
            "name": join_name(latency_model, made_at),
            "namespace": namespace,
            "labels": {JOIN_LABEL: _label(latency_model), MANAGED_BY_LABEL: MANAGED_BY},
            "ownerReferences": list(owners),
        },
        "immutable": True,
        "binaryData": {JOIN_FILE: base64.b64encode(packed(join)).decode()},
    }


async def _written(
    client: Client, namespace: str, latency_model: str
) -> list[tuple[str, DatasetJoin | None]]:
    """Documents that were written and not removed, by name, the newest first; None where one is broken."""
    query = {"labelSelector": f"{JOIN_LABEL}={_label(latency_model)}"}
    listed = (await client.request("GET", CONFIG_MAPS.path(namespace), query=query)).get("items") or ()
    found: list[tuple[str, DatasetJoin | None]] = []
    for each in sorted(listed, key=lambda item: str(item["metadata"]["name"]), reverse=True):
        name = str(each["metadata"]["name"])
        try:
            content = base64.b64decode((each.get("binaryData") or {}).get(JOIN_FILE, ""), validate=True)
            found.append((name, unpacked(content, f"ConfigMap {namespace}/{name}")))
        except (JoinError, binascii.Error) as error:
            _LOGGER.warning("%s; it is made anew", error)
            found.append((name, None))
    return found


def _label(latency_model: str) -> str:
    """A label's value for a name that may be longer, which keeps names apart."""
    if len(latency_model) <= _LONGEST_LABEL:
        return latency_model
    return f"{latency_model[:40].rstrip('-.')}-{hashlib.sha256(latency_model.encode()).hexdigest()[:16]}"


def _selected(selector: LabelSelector | None, labels: tuple[tuple[str, str], ...]) -> bool:
    return selector is None or set(selector.match_labels.items()) <= set(labels)


def _metrics(spec: InferenceWorkloadSpec, dataset: Dataset) -> Iterator[ServingMetrics]:
    """Where a workload's latency is read: where it says itself, else by the dataset's own queries."""
    if spec.metrics is not None:
        own = spec.metrics.preset is ServingPreset.CUSTOM
        if own or spec.metrics.preset in dataset.presets:
            # A summary's quantile by a query of one's own is that of spec.slo.percentile.
            queries = spec.metrics.queries
            if not (queries and queries.quantile and spec.slo.percentile != _P90):
                yield spec.metrics
        return
    for each in dataset.queries:
        queries = LatencyQueries.model_validate(each.model_dump(exclude={"name"}))
        yield ServingMetrics(preset=ServingPreset.CUSTOM, queries=queries)
