"""Helpers for tests with coroutines: no plugin, a bound on time, and nothing may be left behind.

    @asynchronous
    async def test_something(): ...

    @asynchronous
    async def test_on_each_loop(loop_factory): ...

`run` does the same for one coroutine, such as one example of a property.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import sysconfig
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from fullduplex import build_info
from fullduplex.wire.session import Session

T = TypeVar("T")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

# The memory of delivered messages is used again: see `spare` in wire/leaves.pxd.
SPARES = build_info()["form"] == "compiled" and not sysconfig.get_config_var("Py_GIL_DISABLED")

LIMIT = 30.0  # seconds: far beyond what any test takes, so that only a hang meets it
LAST_TURNS = 10  # of the loop, for what is already on its way out: transports being closed, tasks being cancelled
DESCRIPTORS = Path("/proc/self/fd")


def empty_spares() -> None:
    """Let go of the memory that messages of other tests have left: each message takes some, and none is given back."""
    session = Session(False)
    session.open(0.0)
    frame = bytearray(b"\x82\x7e\x04\x00" + bytes(1024))
    for _ in range(128):
        session.receive(frame, len(frame), 0.0)
    assert session.queued() == 128


def run(main: Coroutine[Any, Any, T], *, loop_factory: LoopFactory | None = None, limit: float = LIMIT) -> T:
    """Run `main` on a loop of its own. It may leave no task, no descriptor, and no exception that nobody saw."""
    unseen: list[dict[str, Any]] = []

    async def bounded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        async with asyncio.timeout(limit):
            result = await main
        for _ in range(LAST_TURNS):
            if not (left := asyncio.all_tasks() - {asyncio.current_task()}):
                break
            await asyncio.sleep(0)
        else:
            raise AssertionError(f"tasks left behind: {left}")
        return result

    before = open_descriptors()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        result = runner.run(bounded())
    # Tasks tell of their exceptions and sockets of being open when they are collected: here, not in a later test.
    gc.collect()
    assert not unseen, f"exceptions nobody saw: {unseen}"
    # Poll objects do not warn when they are collected open, so all descriptors are counted.
    assert not (left := open_descriptors().items() - before.items()), f"descriptors left open: {left}"
    return result


def asynchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a plain test of a coroutine function, run on the `loop_factory` fixture if it asks for that one."""

    @functools.wraps(test)
    def plain(*args: Any, **kwargs: Any) -> None:
        run(test(*args, **kwargs), loop_factory=kwargs.get("loop_factory"))

    return plain


def open_descriptors() -> dict[str, str]:
    """Map this process's descriptors to what they are; empty where the system does not tell."""
    found = {}
    for link in DESCRIPTORS.iterdir() if DESCRIPTORS.exists() else ():
        try:
            found[link.name] = os.readlink(link)
        except FileNotFoundError:  # the one that iterates
            pass
    return found
