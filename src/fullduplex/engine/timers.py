"""One coarse wheel for the deadlines of all links: no timer and no task a connection.

A link stands in the slot of the earliest deadline it has asked for. Deadlines that move later, as keepalive's do with
every ping, cost nothing: when the slot comes, the link is asked anew.

A slot is an array of descriptors, four bytes each, and keeps no link in memory. A link that has left its slot, for an
earlier one or for good, is not searched for: when the slot comes, whoever has the descriptor stands in another one.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable
from typing import Final, Protocol

# Seconds. A deadline is met at most this late, and never early.
RESOLUTION: Final = 0.05
NEVER: Final = float("inf")
NO_SLOT: Final = 2**62


class Timed(Protocol):
    """What stands in the wheel, in `slot`."""

    fd: int
    slot: int

    def deadline(self) -> float: ...

    def expire(self, now: float) -> None: ...


class Wheel:
    """Slots of `RESOLUTION` seconds, in a heap by time."""

    __slots__ = ("_order", "_slots")

    def __init__(self) -> None:
        self._slots: dict[int, array[int]] = {}
        self._order: list[int] = []

    def add(self, timed: Timed) -> None:
        """Have `timed` returned by `due` at its deadline, if that is earlier than what was asked before."""
        when = timed.deadline()
        if when == NEVER:
            return
        slot = int(when / RESOLUTION) + 1
        if slot >= timed.slot:
            return
        timed.slot = slot
        entries = self._slots.get(slot)
        if entries is None:
            self._slots[slot] = array("i", (timed.fd,))
            heapq.heappush(self._order, slot)
        else:
            entries.append(timed.fd)

    def remove(self, timed: Timed) -> None:
        """Forget what `timed` asked for. Its slot stays, if only to find nobody in it."""
        timed.slot = NO_SLOT

    def next(self) -> float:
        """When the next slot is due; infinity if there is none."""
        return self._order[0] * RESOLUTION if self._order else NEVER

    def due(self, now: float, find: Callable[[int], Timed | None]) -> list[Timed]:
        """Take out what is due at `now`; `find` knows who has a descriptor. Who still has a deadline adds itself again."""
        found: list[Timed] = []
        while self._order and self._order[0] * RESOLUTION <= now:
            slot = heapq.heappop(self._order)
            for fd in self._slots.pop(slot):
                timed = find(fd)
                if timed is not None and timed.slot == slot:
                    timed.slot = NO_SLOT
                    found.append(timed)
        return found
