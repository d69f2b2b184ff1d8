"""Pings, pongs, and the silence between them: RFC 6455, sections 5.5.2 and 5.5.3.

A ping of our own leaves every `interval` seconds. Any byte that comes after it is a sign of life, since a peer that is
busy sending may be slow to answer; `timeout` seconds without one, and the peer is given up. What looks like silence may
be our own fault, though: a driver that does not read hears nothing, and a loop that was blocked looks too late.
"""

from __future__ import annotations

import secrets
from typing import Final

FOREVER: Final = float("inf")

# Seconds. Later than this, a deadline that has passed says that our own loop was blocked.
_LATE: Final = 1.0


class Keepalive:
    """The pings of one connection. `interval` and `timeout` are seconds, infinity for never."""

    __slots__ = ("_blocked_for", "_due", "_next", "_own", "_own_at", "_pings", "interval", "latency", "timeout")

    def __init__(self, interval: float, timeout: float) -> None:
        self.interval = interval
        self.timeout = timeout
        self.latency = 0.0  # the last round trip in seconds
        self._pings: dict[bytes, float] | None = None  # under way, and when they were sent; in order
        self._own: bytes | None = None  # the last one of our own ...
        self._own_at = 0.0  # ... when it was sent ...
        self._due = FOREVER  # ... and when to look for a sign of life
        self._next = FOREVER
        self._blocked_for = 0.0

    def start(self, now: float) -> None:
        """The connection is open."""
        self._next = now + self.interval

    def ping(self, data: bytes | None, now: float) -> bytes:
        """A ping is sent: give its payload, `data` or one of our own. Raises ValueError if it is under way already."""
        pings = self._pings
        if pings is None:
            pings = self._pings = {}
        if data is None:
            data = secrets.token_bytes(4)
            while data in pings:
                data = secrets.token_bytes(4)
        elif data in pings:
            raise ValueError("a ping with this payload waits for its pong already")
        pings[data] = now
        return data

    def pong(self, data: bytes, now: float) -> list[tuple[bytes, float]]:
        """A pong came: give the pings that it answers, each with its round trip in seconds.

        These are its own and all before it; none if nobody asked for it. Section 5.5.3.
        """
        pings = self._pings
        if pings is None or data not in pings:
            return []
        before = list(pings)
        answered = [(ping, now - pings.pop(ping)) for ping in before[: before.index(data) + 1]]
        if not pings:
            self._pings = None
        self.latency = answered[-1][1]
        self._due = FOREVER
        return answered

    def deadline(self) -> float:
        """When `is_silent` and `next_ping` want to be asked."""
        return min(self._next, self._due)

    def is_silent(self, now: float, received_at: float, paused: bool) -> bool:
        """Tell whether to give up on the peer, from whom bytes came last at `received_at`.

        `paused`: we do not read. A loop that was blocked gets another `timeout`, once: what came meanwhile may be late.
        """
        late = now - self._due
        if late < 0:
            return False
        if paused:
            self._due = now + self.timeout
        elif received_at > self._own_at:
            self._due = FOREVER
        elif late > _LATE and not self._blocked_for:
            self._blocked_for = late
            self._due = now + self.timeout
        else:
            return True
        return False

    def describe_silence(self, now: float) -> str:
        text = f"keepalive: the peer was silent for {now - self._own_at:.1f} s"
        if self._blocked_for:
            text += f", and our own event loop was blocked for {self._blocked_for:.1f} s of them"
        return text

    def next_ping(self, now: float, paused: bool) -> bytes | None:
        """The payload of a ping to send now, if one is due and none is waited for."""
        if now < self._next:
            return None
        self._next = now + self.interval
        if self._due != FOREVER:
            return None
        if self._own is not None and self._pings is not None:
            self._pings.pop(self._own, None)  # never answered, though the peer lives
        self._own = self.ping(None, now)
        self._own_at = now
        # While we do not read, its pong may come and stay unread until after we read again.
        self._due = FOREVER if paused else now + self.timeout
        self._blocked_for = 0.0
        return self._own
