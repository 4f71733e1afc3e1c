"""The one patch that places a pod, and the one that lets it go."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailwise.api.inference_workload_status import PlacementResult, PredictionSource
from tailwise.api.labels import PLACEMENT_GATE
from tailwise.domain.parse import pod_from_object
from tailwise.domain.placement import (
    PlacementError,
    WeightedNode,
    before_placement,
    headroom_weights,
    release,
    require_any,
    require_node,
)
from tailwise.domain.record import PlacementRecord
from tailwise.domain.selection import selected
from tailwise.domain.snapshot import node_table
from tests.unit.domain.builders import node, pod, pod_object

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
RECORD = PlacementRecord(PlacementResult.PLACED, NOW, "node-1", 20, 25, 30, PredictionSource.PRIOR, 7)


def _apply(target: dict[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
    """RFC 6902, as much of it as is used."""
    # Not a deep copy: that would keep two terms that are one object so.
    result: dict[str, Any] = json.loads(json.dumps(target))
    for operation in operations:
        *parents, last = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
        ]
        at: Any = result
        for part in parents:
            at = at[int(part)] if isinstance(at, list) else at[part]
        if operation["op"] == "test":
            found = at[int(last)] if isinstance(at, list) else at.get(last)
            assert found == operation["value"], operation
        elif operation["op"] == "remove":
            del at[int(last)]
        elif isinstance(at, list):
            at.append(operation["value"])
        else:
            at[last] = operation["value"]
    return result


_TERMS = st.lists(
    st.sampled_from(
        [
            {},
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
            {"matchExpressions": [{"key": "zone", "operator": "Exists"}]},
            {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["node-2"]}]},
        ]
    ),
    min_size=1,
    max_size=3,
)
_NODES = [
    node(f"node-{n}", labels={"zone": zone, "kubernetes.io/hostname": f"host-{n}"})
    for n, zone in enumerate("aabbc")
]


@given(st.none() | _TERMS, st.sets(st.integers(0, 4), min_size=1), st.booleans())
def test_the_patch_leaves_of_a_pods_nodes_only_those_that_were_chosen(
    terms: list[dict[str, Any]] | None, chosen: set[int], annotated: bool
) -> None:
    target = pod_object(
        required=terms, gates=("first", PLACEMENT_GATE), annotations={"a/b": "c"} if annotated else None
    )
    before = pod_from_object(target)
    table = node_table(_NODES)
    record = replace(RECORD, node=f"node-{min(chosen)}")
    for operations, kept in (
        (require_any(before, [WeightedNode(_NODES[n]) for n in sorted(chosen)], record), chosen),
        (require_node(before, record.node, record), {min(chosen)}),
    ):
        after = pod_from_object(_apply(target, operations))
        expected = {n for n in kept if selected(before, table)[n]}
        assert {int(n) for n in np.flatnonzero(selected(after, table))} == expected
        assert after.gates == ("first",)
        assert after.record == record
        _check_only_additions(before.required_terms, after.required_terms)
        # And what a pod asked for before it was placed can be read back.
        asks_again = before_placement(replace(after, node_name=record.node))
        assert asks_again.required_terms == before.required_terms
        assert asks_again.gated and not asks_again.node_name


def _check_only_additions(before: Any, after: Any) -> None:
    """What the API server checks of a gated pod (validateNodeAffinityMutation)."""
    if not before:
        return
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert not old.empty or new.empty
        assert new.expressions[: len(old.expressions)] == old.expressions
        assert new.fields[: len(old.fields)] == old.fields


def test_what_stands_beside_node_affinity_is_left_alone() -> None:
    spread: dict[str, Any] = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    target = pod_object(affinity=spread)
    after = _apply(target, require_node(pod_from_object(target), "node-1", RECORD))
    assert after["spec"]["affinity"]["podAntiAffinity"] == spread["podAntiAffinity"]


def test_fallback_opens_only_our_gate_and_sets_no_affinity() -> None:
    target = pod_object(gates=("first", PLACEMENT_GATE, "last"))
    after = pod_from_object(_apply(target, release(pod_from_object(target), NOW)))
    assert after.gates == ("first", "last")
    assert after.required_terms is None
    assert after.record == PlacementRecord(PlacementResult.FALLBACK, NOW)


def test_a_pod_that_is_not_gated_cannot_be_placed_a_second_time() -> None:
    with pytest.raises(PlacementError, match=r"default/pod-1: spec\.schedulingGates"):
        require_node(pod(gates=()), "node-1", RECORD)


@pytest.mark.parametrize(
    ("p90", "own", "cost"),
    [(25, None, "-25"), (None, None, "-1000000000"), (10**12, None, "-999999999"), (25, "7", "7")],
)
def test_a_scale_down_takes_the_slowest_first_and_before_it_the_unknown(
    p90: int | None, own: str | None, cost: str
) -> None:
    given = {"controller.kubernetes.io/pod-deletion-cost": own} if own else {"a": "b"}
    target = pod_object(annotations=given)
    record = replace(RECORD, predicted_p90_milliseconds=p90)
    after = _apply(target, require_node(pod_from_object(target), "node-1", record))
    assert after["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"] == cost


def test_weights_follow_headroom() -> None:
    assert headroom_weights(100, [50, 75, 99.9, 100]) == [100, 50, 1, 1]
    assert headroom_weights(10, [10, 12]) == [1, 1]
