"""Tables of a LatencyModel: worked out once, exchanged and widened in one step."""

import asyncio

import pytest

from tailwise.controllers.prediction_tables import PredictionTables, asked
from tailwise.prediction.prediction import Serving
from tailwise.prediction.predictor import PriorPredictor
from tests.unit.prediction.builders import node, profile

MODEL, SERVING = profile(), Serving(None)
CLASSES = (node(2), node(8))


def bounds(tables: PredictionTables, latency_model: str) -> list[float]:
    """The bound at no load on each class, by the single tables and by the stack, which must agree."""
    key = asked(MODEL, SERVING, latency_model)
    stacked = tables.stacked(key)
    assert stacked is not None
    assert stacked.stack is not None
    single = [tables.table(key, each) for each in CLASSES]
    assert [each.bound[0] for each in single if each is not None] == list(stacked.stack.bound[:, 0])
    return list(stacked.stack.bound[:, 0])


def test_bounds_widen_for_one_latency_model_also_where_tables_come_later_and_end_with_the_version() -> None:
    async def told() -> None:
        exchanged: list[bool] = []
        tables = PredictionTables(PriorPredictor(), lambda: CLASSES, exchanged.append)
        await tables.prepare(MODEL, SERVING, "a")
        await tables.prepare(MODEL, SERVING, "b")
        own = bounds(tables, "a")
        tables.widen("a", 1.5)
        assert exchanged[-1]
        assert bounds(tables, "a") == pytest.approx([1.5 * each for each in own])
        assert bounds(tables, "b") == own
        tables.widen("b", 3.0)
        tables.widen("b", 2.0)
        await tables.prepare(MODEL, Serving(500), "b")
        later = tables.table(asked(MODEL, Serving(500), "b"), CLASSES[0])
        alone = PriorPredictor().table(MODEL, Serving(500), CLASSES[0])
        assert later is not None
        assert later.bound == pytest.approx(2.0 * alone.bound)
        assert later.p90 == pytest.approx(alone.p90)
        await tables.exchange("b", PriorPredictor())
        assert bounds(tables, "b") == pytest.approx(own)

    asyncio.run(told())
