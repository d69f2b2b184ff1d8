"""The guard itself: what `run` says when a coroutine leaves something behind."""

from __future__ import annotations

import asyncio
import select

import pytest

from support import LoopFactory, asynchronous, run


@asynchronous
async def test_runs_on_each_loop(loop_factory: LoopFactory) -> None:
    assert type(asyncio.get_running_loop()).__module__.startswith(("asyncio", "uvloop"))


def test_returns_the_result() -> None:
    assert run(asyncio.sleep(0, "result")) == "result"


def test_has_a_limit() -> None:
    with pytest.raises(TimeoutError):
        run(asyncio.sleep(60), limit=0.01)


def test_sees_a_task_left_behind() -> None:
    async def main() -> None:
        main.task = asyncio.ensure_future(asyncio.sleep(60))  # type: ignore[attr-defined]

    with pytest.raises(AssertionError, match="tasks left behind"):
        run(main())


def test_sees_an_exception_nobody_retrieved() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run(main())


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="needs epoll")
def test_sees_a_descriptor_left_open() -> None:
    pollers = []

    async def main() -> None:
        pollers.append(select.epoll())

    with pytest.raises(AssertionError, match="descriptors left open"):
        run(main())
    pollers.pop().close()
