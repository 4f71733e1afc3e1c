"""``tailwise nodes`` gives what is known of a node, and leaves blank what is not."""

from tailwise.cli.nodes import _table, node_documents
from tests.operator.stage import NodeShape
from tests.unit.cli.clusters import cluster_of

SHAPES = (
    NodeShape("busy", cores=8),
    NodeShape("kept", cores=8, taints=({"key": "dedicated", "value": "batch", "effect": "NoSchedule"},)),
    NodeShape("unread", cores=8),
    NodeShape("bare", agent=False),
)


async def test_what_load_leaves_of_a_node_is_told_with_its_age() -> None:
    async with cluster_of(SHAPES, utilisation={"busy": 0.75, "kept": 0.0}) as cluster:
        nodes = {each["node"]: each for each in node_documents(cluster)}
    busy = nodes["busy"]
    assert (busy["effectiveCores"], busy["utilisationPercent"], busy["dataAgeSeconds"]) == (2, 75, 0)
    assert busy["out"] is None
    assert nodes["kept"]["out"] == "node(s) had untolerated taint(s) {dedicated: batch}"
    # Nobody measured it: that is not idle.
    assert (nodes["unread"]["effectiveCores"], nodes["unread"]["utilisationPercent"]) == (None, None)
    assert nodes["bare"]["out"] == "node(s) without hardware data"
    row = next(line for line in _table({"nodes": [busy]}).splitlines() if line.startswith("busy"))
    assert row.split()[-1] == "-"  # OUT
