"""PodTopologySpread and InterPodAffinity over all nodes at once, as kube-scheduler filters by them.

A pod whose spread honours node affinity (the default) is counted here over the nodes that the pod itself
brought. Once its affinity is narrowed to one node kube-scheduler sees a single domain, so that this check is
the one that counts; with ``minDomains`` above 1 it then takes the least count for 0 and may refuse the pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from tailwise.domain.objects import Pod
from tailwise.domain.pod_rules import (
    PodAffinityTerm,
    PodGroup,
    SpreadConstraint,
    all_concern,
    concerns,
    selects,
)
from tailwise.domain.snapshot import ABSENT, Bools, ClusterSnapshot, Counts, NodeTable
from tailwise.domain.verdicts import Filter, Refusal, Verdicts

_MANY = 2**31 - 1  # what kube-scheduler takes for the least count where no domain counts


def check_topology(
    pod: Pod, snapshot: ClusterSnapshot, verdicts: Verdicts, *, selected: Bools, tolerated: Bools
) -> Verdicts:
    """The verdicts after both plugins; ``selected`` and ``tolerated`` (nodes,) are for spread's policies."""
    if pod.spread:
        verdicts = _check_spread(pod, snapshot, verdicts, selected, tolerated)
    if pod.affinity_terms:
        near = _near_wanted(pod, snapshot)
        verdicts = verdicts.refuse(~near, Refusal(Filter.POD_AFFINITY))
    for term in pod.anti_affinity_terms:
        counts = _count(snapshot, (g for g in _groups(snapshot, term) if concerns(term, *_who(g))))
        verdicts = verdicts.refuse(
            _in_domains(snapshot.table, term.topology_key, counts), Refusal(Filter.POD_ANTI_AFFINITY)
        )
    return verdicts.refuse(_repelled(pod, snapshot), Refusal(Filter.EXISTING_ANTI_AFFINITY))


def _check_spread(
    pod: Pod, snapshot: ClusterSnapshot, verdicts: Verdicts, selected: Bools, tolerated: Bools
) -> Verdicts:
    table = snapshot.table
    has_all = np.ones(len(table), dtype=np.bool_)
    for constraint in pod.spread:
        has_all &= table.label(constraint.topology_key).codes != ABSENT
    for constraint in pod.spread:
        missing: Bools = table.label(constraint.topology_key).codes == ABSENT
        verdicts = verdicts.refuse(missing, Refusal(Filter.SPREAD_LABEL))
        counted = has_all.copy()
        if constraint.honors_affinity:
            counted &= selected
        if constraint.honors_taints:
            counted &= tolerated
        skewed = _skew(pod, snapshot, constraint, counted) > constraint.max_skew
        verdicts = verdicts.refuse(skewed, Refusal(Filter.SPREAD))
    return verdicts


def _skew(pod: Pod, snapshot: ClusterSnapshot, constraint: SpreadConstraint, counted: Bools) -> Counts:
    """Pods in each node's domain with this one, less those of the emptiest domain; shape (nodes,)."""
    column = snapshot.table.label(constraint.topology_key)
    # An empty selector takes the pod itself and counts no other: so does kube-scheduler.
    groups = (
        group
        for group in snapshot.groups.get(pod.namespace, {})
        if constraint.selector and not group.ending and selects(constraint.selector, dict(group.labels))
    )
    pods = _count(snapshot, groups)
    size = len(column.code_of) + 1  # the last stands for nodes without the label
    domains = np.bincount(column.codes[counted], weights=pods[counted], minlength=size).astype(np.int64)
    there = np.bincount(column.codes[counted], minlength=size) > 0
    least = int(domains[there].min()) if there.any() else _MANY
    if int(there.sum()) < constraint.min_domains:
        least = 0
    itself = int(selects(constraint.selector, pod.labels))
    skew: Counts = domains[column.codes] + itself - least
    return skew


def _near_wanted(pod: Pod, snapshot: ClusterSnapshot) -> Bools:
    """Nodes (nodes,) where each affinity term finds a pod in the node's domain."""
    terms, table = pod.affinity_terms, snapshot.table
    wanted = _count(
        snapshot,
        (
            group
            for namespace in tuple(snapshot.groups)
            for group in snapshot.groups[namespace]
            if all_concern(terms, *_who(group))
        ),
    )
    labelled = np.ones(len(table), dtype=np.bool_)
    near = np.ones(len(table), dtype=np.bool_)
    somewhere = False
    for term in terms:
        codes = table.label(term.topology_key).codes
        labelled &= codes != ABSENT
        near &= _in_domains(table, term.topology_key, wanted)
        somewhere |= bool(wanted[codes != ABSENT].any())
    # The first of a series that wants its own kind near may go anywhere.
    if not somewhere and all_concern(terms, pod.namespace, pod.labels):
        return labelled
    return labelled & near


def _repelled(pod: Pod, snapshot: ClusterSnapshot) -> Bools:
    """Nodes (nodes,) in whose domain stands a pod that wants this one away."""
    repelled = np.zeros(len(snapshot), dtype=np.bool_)
    for group in snapshot.repelling:
        for term in group.repels:
            if concerns(term, pod.namespace, pod.labels):
                repelled |= _in_domains(snapshot.table, term.topology_key, _count(snapshot, (group,)))
    return repelled


def _in_domains(table: NodeTable, key: str, pods: Counts) -> Bools:
    """Nodes (nodes,) that share a value of the label ``key`` with a node that has some of the pods."""
    column = table.label(key)
    held = np.zeros(len(column.code_of) + 1, dtype=np.bool_)
    held[column.codes[pods > 0]] = True
    held[ABSENT] = False
    result: Bools = held[column.codes]
    return result


def _count(snapshot: ClusterSnapshot, groups: Iterable[PodGroup]) -> Counts:
    """Pods of these groups on each node, shape (nodes,)."""
    counts = np.zeros(len(snapshot), dtype=np.int64)
    index = snapshot.table.index
    for group in groups:
        for node, number in snapshot.groups[group.namespace][group].items():
            position = index.get(node)
            if position is not None:
                counts[position] += number
    return counts


def _groups(snapshot: ClusterSnapshot, term: PodAffinityTerm) -> Iterable[PodGroup]:
    namespaces = snapshot.groups.keys() if term.namespaces is None else term.namespaces
    return [group for namespace in namespaces for group in snapshot.groups.get(namespace, {})]


def _who(group: PodGroup) -> tuple[str, Mapping[str, str]]:
    return group.namespace, dict(group.labels)
