"""Which nodes may take a pod: kube-scheduler's filters over all nodes at once, in its order and words.

Followed, in the order of the default profile: NodeName, NodeUnschedulable, TaintToleration, NodeAffinity,
NodePorts, NodeResourcesFit, VolumeRestrictions, VolumeBinding, VolumeZone, PodTopologySpread,
InterPodAffinity. A node is refused for the first filter that it fails, so that the counts of a summary add up
to the number of nodes. (kube-scheduler counts a node that lacks both CPU and memory twice.) Nodes that are
not ready carry taints and need no rule of their own. Not followed, and told by ``objects.unsupported``: disks
that the pod names itself, resource claims, and inter-pod affinity that names namespaces by their labels.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from tailwise.domain.objects import Pod
from tailwise.domain.resources import CPU, EPHEMERAL_STORAGE, MEMORY, PODS
from tailwise.domain.selection import selected
from tailwise.domain.selectors import tolerates_unschedulable, untolerated
from tailwise.domain.snapshot import CEILING, Bools, ClusterSnapshot, NodeTable
from tailwise.domain.topology import check_topology
from tailwise.domain.verdicts import Filter, Refusal, Verdicts, all_fit
from tailwise.domain.volumes import check_volumes, why_nowhere


def filter_nodes(
    pod: Pod,
    snapshot: ClusterSnapshot,
    *,
    set_aside: Collection[str] = (),
    toleration_comparisons: bool = False,
) -> Verdicts:
    """A verdict for each node of the snapshot.

    ``set_aside`` names nodes that refused a sibling of the pod a moment ago. ``toleration_comparisons`` is
    the cluster's feature gate TaintTolerationComparisonOperators (alpha and off in 1.35 to 1.37).
    """
    table = snapshot.table
    verdicts = all_fit(table.names)
    if (nowhere := why_nowhere(pod, snapshot)) is not None:
        return verdicts.refuse(np.ones(len(table), dtype=np.bool_), nowhere)
    if pod.node_name:
        others = np.ones(len(table), dtype=np.bool_)
        if pod.node_name in table.index:
            others[table.index[pod.node_name]] = False
        verdicts = verdicts.refuse(others, Refusal(Filter.NODE_NAME))
    if not tolerates_unschedulable(pod.tolerations):
        verdicts = verdicts.refuse(table.unschedulable, Refusal(Filter.UNSCHEDULABLE))
    keeping_away = _untolerated(pod, table, comparisons=toleration_comparisons)
    for code, refusal in keeping_away.items():
        verdicts = verdicts.refuse(table.taint_codes == code, refusal)
    if pod.node_selector or pod.required_terms is not None:
        verdicts = verdicts.refuse(~selected(pod, table), Refusal(Filter.AFFINITY))
    for port in pod.host_ports:
        verdicts = verdicts.refuse(snapshot.ports_taken(port), Refusal(Filter.PORTS))
    verdicts = _check_resources(pod, snapshot, verdicts)
    verdicts = check_volumes(pod, snapshot, verdicts)
    if pod.spread or pod.affinity_terms or pod.anti_affinity_terms or snapshot.repelling:
        tolerated: Bools = ~np.isin(table.taint_codes, list(keeping_away))
        verdicts = check_topology(pod, snapshot, verdicts, selected=selected(pod, table), tolerated=tolerated)
    return _check_set_aside(set_aside, table, verdicts)


def _untolerated(pod: Pod, table: NodeTable, *, comparisons: bool) -> dict[int, Refusal]:
    """Codes of the sets of taints that keep the pod away, with the taint that does."""
    found = {}
    for code, taints in enumerate(table.taint_sets):
        taint = untolerated(taints, pod.tolerations, comparisons=comparisons)
        if taint is not None:
            words = f"{{{taint.key}: {taint.value}}}" if taint.value else f"{{{taint.key}}}"
            found[code] = Refusal(Filter.TAINT, words)
    return found


def _check_resources(pod: Pod, snapshot: ClusterSnapshot, verdicts: Verdicts) -> Verdicts:
    verdicts = verdicts.refuse(snapshot.free(PODS) < 1, Refusal(Filter.TOO_MANY_PODS))
    first = [name for name in (CPU, MEMORY, EPHEMERAL_STORAGE) if name in pod.requests]
    for resource in (*first, *sorted(pod.requests.keys() - set(first))):
        wanted = min(pod.requests[resource], CEILING)
        # A request of nothing fits also where more is requested than there is.
        if wanted > 0:
            short = snapshot.free(resource) < wanted
            verdicts = verdicts.refuse(short, Refusal(Filter.RESOURCE, resource))
    return verdicts


def _check_set_aside(set_aside: Collection[str], table: NodeTable, verdicts: Verdicts) -> Verdicts:
    mask = np.zeros(len(table), dtype=np.bool_)
    for name in set_aside:
        if name in table.index:
            mask[table.index[name]] = True
    return verdicts.refuse(mask, Refusal(Filter.SET_ASIDE))
