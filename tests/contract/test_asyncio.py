"""Use from asyncio: nothing blocks the loop."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from . import functions as f
from .pools import Gate, make


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 60))


async def responsive(work: Awaitable[Any]) -> float:
    """The longest time that the loop was held up while `work` went on."""
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            begin = time.monotonic()
            await asyncio.sleep(0.005)
            worst = max(worst, time.monotonic() - begin - 0.005)

    ticker = asyncio.create_task(tick())
    try:
        await work
    finally:
        ticker.cancel()
    return worst


def test_futures_can_be_awaited(kind: str) -> None:
    async def main() -> None:
        async with make(kind) as pool:
            assert await pool.submit(f.square, 5) == 25
            assert await asyncio.gather(*[_await(pool.submit(f.square, n)) for n in range(50)]) == [
                n * n for n in range(50)
            ]
            with pytest.raises(ValueError, match="sabotage"):
                await pool.submit(f.fail)

    run(main)


async def _await(one: Awaitable[Any]) -> Any:
    return await one


def test_run_in_executor(kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with make(kind) as pool:
            assert await loop.run_in_executor(pool, f.square, 5) == 25
            with pytest.raises(ValueError, match="sabotage"):
                await loop.run_in_executor(pool, f.fail)

    run(main)


def test_the_loop_stays_responsive(parallel_kind: str) -> None:
    async def main() -> None:
        async def work() -> None:
            async with make(parallel_kind) as pool:
                assert await pool.submit(f.sleep_pid, 1.0)
                found = [one async for one in pool.amap(f.sleep_pid, [0.05] * 6)]
                assert len(found) == 6
                pool.submit(f.sleep_pid, 1.0)  # the end of the `async with` waits for it

        assert await responsive(work()) < 0.7

    run(main)


def test_amap(kind: str) -> None:
    async def main() -> None:
        async with make(kind) as pool:
            found = [one async for one in pool.amap(f.square, range(1000))]
            assert found == [n * n for n in range(1000)]
            found = [one async for one in pool.amap(f.mul, [1, 2, 3], [4, 5, 6], ordered=False)]
            assert sorted(found) == [4, 10, 18]
            assert [one async for one in pool.amap(f.square, [])] == []

    run(main)


def test_amap_errors(kind: str) -> None:
    async def main() -> None:
        async with make(kind) as pool:
            found = []
            with pytest.raises(ValueError, match="3 is odd"):
                async for one in pool.amap(f.fail_if_odd, [0, 2, 3, 4]):
                    found.append(one)  # noqa: PERF401 - it is kept when the loop raises
            assert found == [0, 2]
            skipped = [one async for one in pool.amap(f.fail_if_odd, range(6), on_error="skip")]
            assert skipped == [0, 2, 4]
            with pytest.raises(ExceptionGroup):
                async for _ in pool.amap(f.fail_if_odd, range(6), on_error="group"):
                    pass

    run(main)


def test_amap_of_endless_inputs_ends_when_it_is_closed(kind: str) -> None:
    async def main() -> None:
        async with make(kind) as pool:
            results = pool.amap(f.square, itertools.count())
            found = []
            async for one in results:
                found.append(one)
                if len(found) == 300:
                    break
            await results.aclose()  # type: ignore[attr-defined]
            assert found == [n * n for n in range(300)]
            assert await pool.submit(f.square, 3) == 9

    run(main)


def test_a_cancelled_await_cancels_what_has_not_started(parallel_kind: str, gate: Gate) -> None:
    async def main() -> None:
        async with make(parallel_kind, 1) as pool:
            first = pool.submit(f.start_and_pass_gate, gate.started, gate.path, 1)
            second = pool.submit(f.noted, gate.started, "second")
            waiter = asyncio.create_task(_await(second))
            await asyncio.to_thread(gate.wait_started, 1)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            await asyncio.sleep(0.05)
            assert second.cancelled()
            gate.open()
            assert await first == 1

    run(main)
    assert f.notes(gate.started) == ["1"]


def test_a_cancelled_amap_ends(parallel_kind: str, gate: Gate) -> None:
    async def main() -> None:
        async with make(parallel_kind, 1) as pool:

            async def consume() -> None:
                async for _ in pool.amap(f.pass_gate, [gate.path] * 3):
                    pass

            consumer = asyncio.create_task(consume())
            await asyncio.sleep(0.1)
            consumer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await consumer
            gate.open()

    run(main)
