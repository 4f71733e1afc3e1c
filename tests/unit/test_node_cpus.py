"""Which CPUs of the machine each emulated node runs on."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster.node_shapes import NodeShape, cpus_of, load


def test_each_of_the_papers_nodes_keeps_to_one_cpu_and_both_are_promised_alike() -> None:
    shapes = load()
    chosen = cpus_of(shapes, (0, 1))
    promised: dict[int, float] = defaultdict(float)
    for shape in shapes:
        if shape.cores is not None:
            (cpu,) = chosen[shape.name]
            promised[cpu] += shape.cores
    assert promised == {0: pytest.approx(0.75), 1: pytest.approx(0.75)}


def test_a_node_without_a_quota_is_not_kept_from_any_cpu() -> None:
    assert cpus_of([NodeShape("client")], (0, 1)) == {}


@given(st.lists(st.floats(0.1, 16), min_size=1, max_size=6), st.integers(1, 8))
def test_a_node_has_the_cpus_that_its_cores_need_as_far_as_there_are_any(
    cores: list[float], cpus: int
) -> None:
    shapes = [NodeShape(f"n{place}", cores=value) for place, value in enumerate(cores)]
    chosen = cpus_of(shapes, range(cpus))
    for shape in shapes:
        assert shape.cores is not None
        assert len(set(chosen[shape.name])) == len(chosen[shape.name]) >= min(shape.cores, cpus)
