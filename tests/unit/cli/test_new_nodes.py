"""Nodes that are only asked about: from a few words, as like to a real one as is said."""

from datetime import UTC, datetime

import pytest

from tailwise.cli.answering import NoAnswerError
from tailwise.cli.new_nodes import NodeWords, add_nodes, hardware_from_words, parse_words
from tailwise.controllers.assessment import Assessor
from tailwise.prediction.predictor import PriorPredictor
from tests.operator.stage import NodeShape, memory_view

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_words_are_read_with_their_units() -> None:
    read = parse_words("name=big,cores=32,gflops=80.5,limit=2.5")
    assert read == NodeWords(name="big", cores=32, gflops_per_core=80.5, limit_cores=2.5)


@pytest.mark.parametrize("text", ["cores", "cores=", "colour=red", "cores=many", "cores=0", "gflops=inf"])
def test_what_is_no_word_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text.split("=", maxsplit=1)[0]):
        parse_words(text)


def test_a_node_like_another_has_its_processor_and_what_is_said_otherwise() -> None:
    model = NodeShape("real", cores=8, gflops_per_core=60.0).hardware
    made = hardware_from_words(parse_words("like=real,cores=32"), [model], NOW)
    assert (made.cores, made.measured, made.cpu_model) == (32, model.measured, model.cpu_model)
    assert hardware_from_words(parse_words("like=real,limit=0.5"), [model], NOW).capacity_cores == 0.5


def test_a_node_without_a_speed_is_no_node() -> None:
    with pytest.raises(NoAnswerError, match="gflops"):
        hardware_from_words(parse_words("cores=4"), [], NOW)


async def test_a_new_node_is_as_busy_as_was_said_and_those_there_stay_unknown() -> None:
    async with memory_view([NodeShape("real")]) as view:
        assessor = Assessor(view, PriorPredictor())
        wanted = hardware_from_words(parse_words("name=real,like=real"), view.described(), NOW)
        (added,) = add_nodes(assessor, [wanted], {"pool": "gold"}, 0.25, NOW)
        assert added.node == "real-2"  # the name was taken
        snapshot, _, load = assessor.load(NOW, 120)
    assert snapshot.names == ("real", "real-2")
    assert load.total[1] == 0.25
    assert load.total[0] != load.total[0]
    assert snapshot.table.nodes[1].labels["pool"] == "gold"
