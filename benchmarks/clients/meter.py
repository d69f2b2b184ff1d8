"""What the clients have in common:  [LIBRARY] receive|roundtrip PORT SECONDS

Each prints one line of JSON and is gone: how a client takes leave of a server that never stops is not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from time import perf_counter_ns, process_time_ns

MESSAGE = b"x" * 64
WARMUP = 0.3


class Options(argparse.Namespace):
    """What is asked for."""

    library: str
    mode: str
    port: int
    seconds: float

    @property
    def uri(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"


def parse(*libraries: str) -> Options:
    parser = argparse.ArgumentParser()
    if libraries:
        parser.add_argument("library", choices=libraries)
    parser.add_argument("mode", choices=["receive", "roundtrip"])
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    return parser.parse_args(namespace=Options())


class Meter:
    """Begins after the warm-up, and ends the process when its time is over.

    `messages` counts what was received, `taken` has the nanoseconds of each round trip. The clock is read once at the
    beginning and once at the end, not for each message.
    """

    def __init__(self, seconds: float) -> None:
        self.messages = 0
        self.taken: list[int] = []
        self._sent = 0
        self._start = (0, 0, 0)
        loop = asyncio.get_running_loop()
        loop.call_later(WARMUP, self._begin)
        loop.call_later(WARMUP + seconds, self._end)

    def sends(self) -> None:
        """A message is about to be sent."""
        self._sent = perf_counter_ns()

    def answered(self) -> None:
        """Its echo is here."""
        self.taken.append(perf_counter_ns() - self._sent)

    def _begin(self) -> None:
        self._start = (process_time_ns(), self.messages, len(self.taken))

    def _end(self) -> None:
        cpu, messages, trips = self._start
        cpu = process_time_ns() - cpu
        if self.taken:
            taken = sorted(self.taken[trips:])
            messages = len(taken)
            result = {"p50_us": taken[messages // 2] / 1e3, "p99_us": taken[messages * 99 // 100] / 1e3}
        else:
            messages = self.messages - messages
            result = {}
        print(json.dumps({"messages": messages, "cpu_us": cpu / 1e3 / messages, **result}), flush=True)
        os._exit(0)
