"""Node selectors over all nodes at once: the vector forms of what ``selectors`` asks of one node."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from tailwise.domain.objects import Pod
from tailwise.domain.selectors import (
    NAME_FIELD,
    NodeSelectorTerm,
    Operator,
    Requirement,
    holds,
    term_valid,
)
from tailwise.domain.snapshot import ABSENT, Bools, LabelColumn, NodeTable


def selected(pod: Pod, table: NodeTable) -> Bools:
    """Nodes (nodes,) that meet the pod's nodeSelector and required node affinity."""
    result = np.ones(len(table), dtype=np.bool_)
    for key, value in (pod.node_selector or {}).items():
        result &= _requirement(Requirement(key, Operator.IN, (value,)), table)
    return result if pod.required_terms is None else result & any_term(pod.required_terms, table)


def any_term(terms: Iterable[NodeSelectorTerm], table: NodeTable, *, nameless: bool = False) -> Bools:
    """Nodes (nodes,) that meet one of the terms; none where there is no term.

    ``nameless``: by a node's labels alone, as kube-scheduler reads a volume's node affinity; fields are then
    passed over, though a term that has no more than fields is not an empty one.
    """
    result = np.zeros(len(table), dtype=np.bool_)
    for term in terms:
        result |= _term(term, table, nameless)
    return result


def _term(term: NodeSelectorTerm, table: NodeTable, nameless: bool) -> Bools:
    """The vector form of ``selectors.term_matches``."""
    if term.empty or not term_valid(term):
        return np.zeros(len(table), dtype=np.bool_)
    result = np.ones(len(table), dtype=np.bool_)
    for requirement in term.expressions:
        result &= _requirement(requirement, table)
    for requirement in () if nameless else term.fields:
        result &= _field(requirement, table)
    return result


def _requirement(requirement: Requirement, table: NodeTable) -> Bools:
    """The vector form of ``selectors.holds``, over one label."""
    column = table.label(requirement.key)
    match requirement.operator:
        case Operator.IN:
            return among(requirement.values, column)
        case Operator.NOT_IN:
            return ~among(requirement.values, column)
        case Operator.EXISTS:
            return ~absent(column)
        case Operator.DOES_NOT_EXIST:
            return absent(column)
    # One answer for each value that occurs and, last, one for its absence: code -1 reads the last.
    answers = np.array([holds(requirement, value) for value in (*column.code_of, None)], dtype=np.bool_)
    return answers[column.codes]


def among(values: Collection[str], column: LabelColumn) -> Bools:
    """Nodes (nodes,) whose label has one of the values."""
    codes = [column.code_of[value] for value in values if value in column.code_of]
    found: Bools = column.codes == codes[0] if len(codes) == 1 else np.isin(column.codes, codes)
    return found


def absent(column: LabelColumn) -> Bools:
    """Nodes (nodes,) that do not have the label."""
    missing: Bools = column.codes == ABSENT
    return missing


def _field(requirement: Requirement, table: NodeTable) -> Bools:
    """metadata.name is the only field that nodes can be selected by; any other is empty."""
    named = np.zeros(len(table), dtype=np.bool_)
    wanted = requirement.values[0]
    if requirement.key == NAME_FIELD and wanted in table.index:
        named[table.index[wanted]] = True
    return named if requirement.operator == Operator.IN else ~named
