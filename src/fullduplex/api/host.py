"""Engines in asyncio loops: one for each loop that has connections, gone with the last of them or with the loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable

from ..engine.engine import Engine
from ..engine.poller import READ, WRITE, SelectorPoller

_engines: weakref.WeakValueDictionary[int, Engine] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def get_engine() -> Engine:
    """The engine of the running loop."""
    loop = asyncio.get_running_loop()
    with _lock:
        engine = _engines.get(id(loop))  # an engine holds its loop, so the id is not another's
        if engine is None or engine.closed:
            engine = Engine(AsyncioHost(loop))
            _engines[id(loop)] = engine
    return engine


class AsyncioHost:
    """Any asyncio loop that has `add_reader`: asyncio's own selector loops and uvloop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # Handlers must not see the variables of whoever happened to make the engine.
        self._context = contextvars.Context()
        self._timer: asyncio.TimerHandle | None = None
        self._farewell: AsyncGenerator[None, None] | None = None

    def attach(self, engine: Engine) -> None:
        poller = engine.poller
        if poller.fileno() >= 0:
            contextvars.Context().run(self.loop.add_reader, poller.fileno(), engine.tick)
        elif isinstance(poller, SelectorPoller):
            poller.mirror = lambda fd, events: self._mirror(fd, events, engine.tick)
        # A loop that ends well closes its asynchronous generators: the one moment to close what is still open.
        self._farewell = self._close_at_the_end(engine)
        _run(self._farewell.asend(None))

    def _mirror(self, fd: int, events: int, tick: Callable[[], None]) -> None:
        context = contextvars.Context()  # a tick may run in `_context` now, which cannot be entered again
        if events & READ:
            context.run(self.loop.add_reader, fd, tick)
        else:
            self.loop.remove_reader(fd)
        if events & WRITE:
            context.run(self.loop.add_writer, fd, tick)
        else:
            self.loop.remove_writer(fd)

    async def _close_at_the_end(self, engine: Engine) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._farewell = None
            engine.close()

    def detach(self, engine: Engine) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if engine.poller.fileno() >= 0 and not self.loop.is_closed():
            self.loop.remove_reader(engine.poller.fileno())
        if self._farewell is not None:
            _run(self._farewell.aclose())

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.loop.call_soon(callback, context=self._context)

    def wake_in(self, seconds: float, callback: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, callback, context=self._context)


def _run(step: Awaitable[None]) -> None:
    """Run to its end what never waits."""
    for _ in step.__await__():
        raise AssertionError("it waits")
