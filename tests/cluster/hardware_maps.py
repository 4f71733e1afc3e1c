"""The hardware that an agent would measure, for nodes on which no agent can run.

The document is the product's own model, so a simulated node cannot say what a real agent could not.
"""

from datetime import UTC, datetime

from tailwise.api.hardware import MeasuredSpeed, NodeHardware
from tests.cluster.simulated_nodes import SimulatedNode

NAMESPACE = "tailwise-system"
_MEBIBYTE = 2**20


def hardware(node: SimulatedNode) -> NodeHardware:
    """Return what an agent would have measured on a node of this shape."""
    shape = node.shape
    return NodeHardware(
        node=node.name,
        cores=shape.cores,
        cpu_model=f"Simulated {shape.node_class}",
        architecture="x86_64",
        base_megahertz=shape.megahertz,
        maximum_megahertz=shape.megahertz,
        current_megahertz=shape.megahertz,
        l1d_cache_bytes=32 * 1024,
        l2_cache_bytes=_MEBIBYTE,
        l3_cache_bytes=2 * _MEBIBYTE * shape.cores,
        instruction_sets=("avx2", "fma"),
        memory_bytes=shape.memory_mebibytes * _MEBIBYTE,
        measured=MeasuredSpeed(
            gflops_per_core=shape.gflops_per_core,
            copy_gigabytes_per_second_per_core=shape.gigabytes_per_second_per_core,
        ),
        measured_at=datetime.now(UTC),
    )
