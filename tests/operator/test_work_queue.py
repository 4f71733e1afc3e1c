"""The queue that controllers take their keys from."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tailwise.cluster.queue import WorkQueue


@contextlib.asynccontextmanager
async def worked(
    queue: WorkQueue[str], handle: Callable[[str], Awaitable[float | None]], workers: int = 4
) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(workers, handle))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for is no event of ours
            await asyncio.sleep(0.005)


async def test_a_key_added_many_times_before_its_turn_is_worked_on_once() -> None:
    queue: WorkQueue[str] = WorkQueue("t")
    seen: list[str] = []

    async def handle(key: str) -> None:
        seen.append(key)

    for _ in range(5):
        queue.add("a")
    queue.add("b")
    async with worked(queue, handle):
        await until(lambda: len(seen) == 2)
        await asyncio.sleep(0.05)
    assert seen == ["a", "b"]


async def test_a_key_is_never_with_two_workers_and_a_change_meanwhile_is_not_missed() -> None:
    queue: WorkQueue[str] = WorkQueue("t")
    busy = 0
    most = 0
    turns = 0

    async def handle(_: str) -> None:
        nonlocal busy, most, turns
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.02)
        busy -= 1
        turns += 1

    async with worked(queue, handle):
        queue.add("a")
        await until(lambda: busy == 1)
        queue.add("a")
        queue.add("a")
        await until(lambda: turns == 2)
        await asyncio.sleep(0.05)
    assert (most, turns) == (1, 2)


async def test_a_key_that_fails_backs_off_by_itself_and_does_not_hold_up_others() -> None:
    queue: WorkQueue[str] = WorkQueue("t")
    attempts: dict[str, list[float]] = {"bad": [], "good": []}
    loop = asyncio.get_running_loop()

    async def handle(key: str) -> None:
        attempts[key].append(loop.time())
        if key == "bad" and len(attempts["bad"]) < 4:
            raise RuntimeError("not yet")

    async with worked(queue, handle, workers=1):
        queue.add("bad")
        queue.add("good")
        await until(lambda: len(attempts["bad"]) == 4)
        await asyncio.sleep(0.05)
    assert len(attempts["good"]) == 1
    waits = [later - earlier for earlier, later in zip(attempts["bad"], attempts["bad"][1:], strict=False)]
    assert waits[0] < waits[1] < waits[2]


async def test_of_several_delays_for_a_key_the_earliest_counts_and_an_add_overtakes_them() -> None:
    queue: WorkQueue[str] = WorkQueue("t")
    seen: list[str] = []

    async def handle(key: str) -> None:
        seen.append(key)

    async with worked(queue, handle):
        queue.add_after("a", 60)
        queue.add_after("a", 0.05)
        queue.add_after("b", 0.05)
        queue.add("b")
        await until(lambda: sorted(seen) == ["a", "b"])
        await asyncio.sleep(0.1)
    assert sorted(seen) == ["a", "b"]


async def test_a_handler_that_returns_seconds_has_its_key_come_back() -> None:
    queue: WorkQueue[str] = WorkQueue("t")
    turns = 0

    async def handle(_: str) -> float | None:
        nonlocal turns
        turns += 1
        return 0.01 if turns < 3 else None

    async with worked(queue, handle):
        queue.add("a")
        await until(lambda: turns == 3)


@pytest.mark.parametrize("steps", range(6))
async def test_the_end_is_not_lost_when_something_becomes_due_in_the_same_moment(steps: int) -> None:
    queue: WorkQueue[str] = WorkQueue("t")

    async def handle(_: str) -> None:
        return None

    queue.add_after("later", 30)
    task = asyncio.create_task(queue.run(1, handle))
    await asyncio.sleep(0.01)
    queue.add_after("sooner", 20)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=2)
    assert done == {task}
