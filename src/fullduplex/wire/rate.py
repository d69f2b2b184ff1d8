"""Rates, in units a second: the bucket that measures them, what we send no faster than, what we read no faster than.

The law here: time is an argument, and nothing is lost. What comes over a rate waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from .extensions import Payload
from .keepalive import FOREVER
from .limits import Limits
from .opcodes import FIN, Opcode

# Seconds' worth of a rate that may leave at once after a pause, and in one frame. A driver's clock is coarse, and may
# be late by less than the difference.
BURST: Final = 0.25
PIECE: Final = 0.1
# Seconds after a frame's turn that it is asked for: rounded numbers may say that it has not quite come.
SURELY: Final = 0.001
# Bytes. Frames are not cut smaller, however low the rate is.
SMALLEST_PIECE: Final = 256
# Bytes that the head of a frame is counted as: its longest but for the mask.
HEAD: Final = 10


class Bucket:
    """A token bucket: `rate` tokens a second come in, as long as there are less than `burst`."""

    __slots__ = ("_at", "_left", "burst", "rate")

    def __init__(self, rate: float, burst: float | None = None, now: float = 0.0) -> None:
        self.rate = rate
        self.burst = rate if burst is None else burst
        self._left = self.burst
        self._at = now

    def _fill(self, now: float) -> None:
        self._left = min(self.burst, self._left + (now - self._at) * self.rate)
        self._at = now

    def take(self, amount: float, now: float) -> bool:
        """Take so much, if it is there."""
        self._fill(now)
        if self._left < amount:
            return False
        self._left -= amount
        return True

    def spend(self, amount: float, now: float) -> None:
        """Take so much, there or not: what is not will be missing later."""
        self._fill(now)
        self._left -= amount

    def wait(self, now: float, amount: float = 0.0) -> float:
        """Seconds until `amount` is there."""
        self._fill(now)
        return max(0.0, (amount - self._left) / self.rate)


class Pacer:
    """Frames that leave no faster than `rate` bytes a second, their heads included, in order.

    Long ones are cut into fragments, so that control frames, which do not wait here, find a gap. RFC 6455, section 5.4.
    """

    __slots__ = ("_bucket", "_due", "_frames", "_piece", "waiting")

    def __init__(self, rate: float, now: float) -> None:
        self._piece = max(SMALLEST_PIECE, int(rate * PIECE))
        self._bucket = Bucket(rate, max(2.0 * SMALLEST_PIECE, rate * BURST), now)
        self._frames: deque[tuple[int, memoryview]] = deque()
        self._due = FOREVER
        self.waiting = 0  # bytes

    def add(self, first: int, payload: Payload) -> None:
        """Have a frame wait for its turn: its first byte and its payload."""
        self._frames.append((first, memoryview(bytes(payload))))
        self.waiting += len(payload) + HEAD

    def release(self, now: float, append: Callable[[int, memoryview], None]) -> None:
        """Append the frames whose turn has come."""
        frames = self._frames
        self._due = FOREVER
        while frames:
            first, payload = frames[0]
            size = min(len(payload), self._piece)
            if not self._bucket.take(size + HEAD, now):
                self._due = now + self._bucket.wait(now, size + HEAD) + SURELY
                return
            self.waiting -= size
            if size == len(payload):
                append(first, payload)
                frames.popleft()
                self.waiting -= HEAD
            else:
                append(first & ~FIN, payload[:size])
                frames[0] = (first & FIN | Opcode.CONT, payload[size:])

    def clear(self) -> None:
        """Forget what waits."""
        self._frames.clear()
        self._due = FOREVER
        self.waiting = 0

    def deadline(self) -> float:
        """When `release` wants to be called again; infinity if nothing waits."""
        return self._due

    def seconds(self) -> float:
        """How long what waits now will take at least."""
        return self.waiting / self._bucket.rate


class Meter:
    """What is read of one connection, held against `bytes_per_second` and `messages_per_second` of its limits."""

    __slots__ = ("_bytes", "_messages", "closes", "limit", "read_size", "rule")

    def __init__(self, limits: Limits, now: float) -> None:
        self.closes = limits.over_rate == "close"
        self.limit = ""  # the one that was broken ...
        self.rule = ""  # ... and how
        self._bytes = _bucket(limits.bytes_per_second, now)
        self._messages = _bucket(limits.messages_per_second, now)
        # Bytes to read at once: about a second's worth, since a pause is as long as what was read before it was much.
        most = min(limits.bytes_per_second or FOREVER, 16 * (limits.messages_per_second or FOREVER), 262_144.0)
        self.read_size = max(128, int(most))

    def spend(self, size: int, messages: int, now: float) -> float:
        """So much was read: give the seconds after which to read on, 0 if it was in the rate."""
        wait = 0.0
        if self._bytes is not None:
            self._bytes.spend(size, now)
            wait = self._bytes.wait(now)
            if wait:
                self.limit = "bytes_per_second"
                self.rule = f"more than {self._bytes.rate:.12g} bytes a second"
        if self._messages is not None:
            self._messages.spend(messages, now)
            longer = self._messages.wait(now)
            if longer > wait:
                wait = longer
                self.limit = "messages_per_second"
                self.rule = f"more than {self._messages.rate:.12g} messages a second"
        return wait


def make_meter(limits: Limits, now: float) -> Meter | None:
    """None where nothing is limited."""
    if limits.bytes_per_second is None and limits.messages_per_second is None:
        return None
    return Meter(limits, now)


def _bucket(rate: float | None, now: float) -> Bucket | None:
    return None if rate is None else Bucket(rate, None, now)
