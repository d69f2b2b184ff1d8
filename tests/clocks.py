"""Clocks for the engines of event loops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from fullduplex.api import host
from fullduplex.engine.engine import Engine
from fullduplex.engine.timers import RESOLUTION

SERVED = 5  # turns of a running loop in which what lies in sockets gets to both sides


def use_clock(patch: pytest.MonkeyPatch, now: Callable[[], float]) -> None:
    """Have the engines of all loops to come look at another clock."""

    class OtherEngine(Engine):
        def time(self) -> float:
            return now()

    patch.setattr(host, "Engine", OtherEngine)


class Clock:
    """The time of all engines, moved by hand while a loop runs: what waits for time waits for nothing else."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self._stopped = True
        use_clock(patch, lambda: self.now if self._stopped else time.monotonic() + 1e6)

    async def run_until(self, engine: Engine, condition: Callable[[], object], step: float = RESOLUTION) -> float:
        """Let time pass in small steps until something is so: gives the seconds that it took."""
        assert engine.time() == self.now  # it was made after this clock
        start = self.now
        try:
            for _ in range(5000):
                if condition():
                    return self.now - start
                self.now += step
                asyncio.get_running_loop().call_soon(engine.tick)
                for _ in range(SERVED):
                    await asyncio.sleep(0)
            raise AssertionError("it takes too long")
        except BaseException:
            self._stopped = False  # connections have to end, with all their timeouts
            raise

    async def run_for(self, engine: Engine, seconds: float) -> None:
        end = self.now + seconds
        await self.run_until(engine, lambda: self.now >= end)
