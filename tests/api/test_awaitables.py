"""What verbs return, in the places of a coroutine; and where a task waits."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any

import pytest

from fullduplex import ConcurrencyError, ConnectionClosedOK, connect, serve
from fullduplex.api.awaitables import DONE, Failed, Later, Ready, Step, Waiter
from fullduplex.api.connection import Receive
from peers import HOST, echo, pair, url
from support import LoopFactory, asynchronous

# Alone.


def test_a_step_is_a_coroutine_for_asyncio() -> None:
    assert asyncio.iscoroutine(DONE)
    assert isinstance(DONE, Coroutine)
    assert iter(DONE) is DONE
    with pytest.raises(StopIteration):
        Step().send(None)
    Step().close()


@pytest.mark.parametrize("args", [(ValueError("x"),), (ValueError,), (ValueError, ValueError("x"), None)])
def test_a_step_raises_what_is_thrown_into_it(args: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError):
        Step().throw(*args)
    with pytest.raises(ValueError):
        Later(asyncio.sleep, 0).throw(*args)


@asynchronous
async def test_ready_and_failed() -> None:
    assert await Ready(5) == 5
    assert await DONE is None
    with pytest.raises(KeyError):
        await Failed(KeyError())


@asynchronous
async def test_later_runs_when_it_is_awaited() -> None:
    ran = []

    async def function(value: int) -> int:
        ran.append(value)
        await asyncio.sleep(0)
        return value

    later = Later(function, 3)
    assert not ran
    assert await later == 3
    Later(function, 4).close()
    assert ran == [3]


def test_later_passes_on_what_is_thrown_and_closing() -> None:
    seen: list[str] = []

    async def function() -> None:
        try:
            await asyncio.sleep(0)
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    for kind, value in ((ValueError, None), (ValueError("x"), None), (ValueError, ValueError("x"))):
        later = Later(function)
        later.send(None)
        with pytest.raises(ValueError):
            later.throw(kind, value)
    later = Later(function)
    later.send(None)
    later.close()
    assert seen == ["ValueError"] * 3 + ["GeneratorExit"]


@asynchronous
async def test_a_waiter_as_a_future() -> None:
    loop = asyncio.get_running_loop()
    waiter = Waiter(loop)
    called: list[object] = []
    assert waiter.get_loop() is loop
    assert waiter.done()
    assert not waiter.waiting
    assert not waiter.cancel()
    waiter.wake()
    waiter.schedule()
    waiter.add_done_callback(called.append)
    assert waiter.waiting
    assert waiter.remove_done_callback(print) == 0
    assert waiter.remove_done_callback(called.append) == 1
    waiter.add_done_callback(called.append)
    waiter.wake()
    assert called == [waiter]
    waiter.result()
    waiter.exception()
    waiter.add_done_callback(called.append)
    assert waiter.cancel("why")
    assert not waiter.cancel()
    assert waiter.cancelled()
    for ask in (waiter.result, waiter.exception):
        with pytest.raises(asyncio.CancelledError, match="why"):
            ask()
    await asyncio.sleep(0)
    assert called == [waiter, waiter]
    waiter = Waiter(loop)
    waiter.add_done_callback(called.append)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        waiter.result()
    assert not caught.value.args
    await asyncio.sleep(0)


# In tasks, on each loop.


@asynchronous
async def test_in_the_places_of_a_coroutine(loop_factory: LoopFactory) -> None:
    async with serve(echo, HOST, 0) as server, connect(url(server)) as ws:
        await asyncio.create_task(ws.send("1"))  # type: ignore[arg-type]
        assert await asyncio.create_task(ws.recv()) == "1"  # type: ignore[arg-type]
        assert await asyncio.gather(ws.send("2"), ws.send("3"), ws.recv()) == [None, None, "2"]  # type: ignore[comparison-overlap]
        assert await asyncio.wait_for(ws.recv(), 10) == "3"
        await asyncio.wait_for(ws.send("4"), 10)
        assert await asyncio.shield(ws.recv()) == "4"
        async with asyncio.TaskGroup() as group:
            task: asyncio.Task[bytes] = group.create_task(ws.recv(decode=False))  # type: ignore[arg-type]
            group.create_task(ws.send("5"))  # type: ignore[arg-type]
        assert task.result() == b"5"
        receiving = asyncio.ensure_future(ws.recv())
        await asyncio.wait([receiving, asyncio.ensure_future(ws.send("6"))])
        assert receiving.result() == "6"
        waiting = [asyncio.ensure_future(ws.wait_closed()), asyncio.ensure_future(ws.close())]
        await asyncio.wait(waiting)


@asynchronous
async def test_in_debug_mode(loop_factory: LoopFactory) -> None:
    asyncio.get_running_loop().set_debug(True)
    async with serve(echo, HOST, 0) as server, connect(url(server)) as ws:
        task: asyncio.Task[Any] = asyncio.create_task(ws.recv())  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert "Receive" in repr(task)
        assert task.get_stack() == []
        await ws.send("1")
        assert await task == "1"


@asynchronous
async def test_two_receives_at_once_are_two() -> None:
    async with pair() as (ws, peer):
        both = asyncio.gather(ws.recv(), ws.recv(), return_exceptions=True)
        await asyncio.sleep(0)
        await peer.send("1")
        first, second = await both
        assert first == "1"
        assert isinstance(second, ConcurrencyError)


@asynchronous
async def test_a_cancelled_receive_loses_nothing(loop_factory: LoopFactory) -> None:
    async with pair() as (ws, peer):
        for number in range(20):
            task = asyncio.ensure_future(ws.recv())
            await asyncio.sleep(0)
            await peer.send(str(number))
            if number % 2:
                task.cancel()
            try:
                assert await task == str(number)
            except asyncio.CancelledError:
                assert await ws.recv() == str(number)


@asynchronous
async def test_a_receive_that_is_cancelled_says_why() -> None:
    async with pair() as (ws, _):
        task = asyncio.ensure_future(ws.recv())
        await asyncio.sleep(0)
        task.cancel("reason")
        task.cancel()
        with pytest.raises(asyncio.CancelledError, match="reason"):
            await task


@asynchronous
async def test_timeouts(loop_factory: LoopFactory) -> None:
    async with pair() as (ws, peer):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.recv(), 0.001)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await ws.recv()
        await peer.send("kept")
        assert await ws.recv() == "kept"


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


@asynchronous
async def test_a_task_runs_in_its_own_context(loop_factory: LoopFactory) -> None:
    async with pair() as (ws, peer):
        seen = []

        async def receive(name: str) -> None:
            variable.set(name)
            await ws.recv()
            seen.append(variable.get())
            variable.set(name + "!")

        for name in ("a", "b"):
            task = asyncio.create_task(receive(name))
            await asyncio.sleep(0)
            await peer.send("go")
            await task
        assert seen == ["a", "b"]
        assert variable.get() == "none"


@asynchronous
async def test_receiving_ends_as_iterating_does() -> None:
    async with pair() as (ws, peer):
        await peer.send("last")
        peer.close()
        assert await Receive(ws, True) == "last"
        await ws.wait_closed()
        with pytest.raises(StopAsyncIteration):
            Receive(ws, True).send(None)
        with pytest.raises(ConnectionClosedOK):
            Receive(ws, False).send(None)
