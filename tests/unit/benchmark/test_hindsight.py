"""The oracle: no worse than anything that was measured, and right where the measurements say all."""

from hypothesis import given
from hypothesis import strategies as st

from tailwise.benchmark.choosing import Room
from tailwise.benchmark.oracle import best_placement, hindsight
from tests.unit.benchmark.stored import pod, step, workload

CORES = {"small": 1.0, "large": 3.0}
ROOMS = {node: Room(node, 100.0, 2.0**40) for node in CORES}
SLOTS = [(f"w-{place}", workload("w", 4)) for place in range(4)]


def served(*nodes: str) -> list[float]:
    """P90s of pods that share their nodes' cores evenly."""
    return [12.0 * nodes.count(node) / CORES[node] for node in nodes]


def measured(*nodes: str, number: int = 1) -> object:
    pods = [
        pod(f"w-{place}", node, p90, workload="w")
        for place, (node, p90) in enumerate(zip(nodes, served(*nodes), strict=True))
    ]
    return step("default", *pods, number=number)


def mean(placement: dict[str, str]) -> float:
    nodes = [placement[slot] for slot, _ in SLOTS]
    return sum(served(*nodes)) / len(nodes)


def test_the_best_split_is_found_from_two_measured_ones() -> None:
    known = hindsight([measured("small", "small", "large", "large"), measured(*["large"] * 4, number=2)])  # type: ignore[list-item]
    found = best_placement(known, SLOTS, ROOMS)
    assert sorted(found.values()) == ["large", "large", "large", "small"]
    assert mean(found) == 12.0


@given(
    st.lists(st.lists(st.sampled_from(["small", "large"]), min_size=4, max_size=4), min_size=1, max_size=4)
)
def test_it_is_never_worse_than_what_was_tried(tried: list[list[str]]) -> None:
    steps = [measured(*nodes, number=place) for place, nodes in enumerate(tried)]
    placements = [{f"w-{place}": node for place, node in enumerate(nodes)} for nodes in tried]
    found = best_placement(hindsight(steps), SLOTS, ROOMS, placements)  # type: ignore[arg-type]
    assert mean(found) <= min(map(mean, placements)) + 1e-9


def test_a_node_that_is_full_gets_no_more_than_fits() -> None:
    rooms = {"small": Room("small", 100.0, 2.0**40), "large": Room("large", 0.25, 2.0**40)}
    known = hindsight([measured("small", "large", "small", "large")])  # type: ignore[list-item]
    found = best_placement(known, SLOTS, rooms)
    assert list(found.values()).count("large") <= 2
