"""Which sockets are ready: epoll, kqueue, or what `selectors` has, behind the four methods of `select.epoll`.

epoll and kqueue are descriptors themselves: an event loop that watches that one descriptor (`fileno`) knows when any of
our sockets is ready. Where there is neither, `fileno` is -1, and the loop has to watch each socket: `mirror` is called
with each socket and the events that it is to be watched for from now on.
"""

from __future__ import annotations

import select
import selectors
from collections.abc import Callable
from typing import Any, Final, Protocol

# Its names differ from system to system, for type checkers too.
system: Any = select

# The numbers of epoll, used with all three. Errors and hang-ups are reported beside them, unasked.
READ: Final = 1
WRITE: Final = 4


class Watcher:
    """Who is told what is ready."""

    __slots__ = ()

    def serve(self, fd: int, events: int) -> None:
        """`fd` is ready: READ, WRITE, errors and hang-ups in `events`."""
        raise NotImplementedError


class Poller(Protocol):
    def register(self, fd: int, events: int) -> None: ...
    def modify(self, fd: int, events: int) -> None: ...
    def unregister(self, fd: int) -> None: ...
    def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class KqueuePoller:
    """kqueue, for macOS and the BSDs."""

    def __init__(self) -> None:
        self._queue = system.kqueue()
        self._events: dict[int, int] = {}

    def register(self, fd: int, events: int) -> None:
        self._events[fd] = 0
        self.modify(fd, events)

    def modify(self, fd: int, events: int) -> None:
        before = self._events[fd]
        changes = []
        for event, kind in ((READ, system.KQ_FILTER_READ), (WRITE, system.KQ_FILTER_WRITE)):
            if (before ^ events) & event:
                flag = system.KQ_EV_ADD if events & event else system.KQ_EV_DELETE
                changes.append(system.kevent(fd, kind, flag))
        if changes:
            self._queue.control(changes, 0)
        self._events[fd] = events

    def unregister(self, fd: int) -> None:
        self.modify(fd, 0)
        del self._events[fd]

    def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]:
        ready: dict[int, int] = {}
        for event in self._queue.control(None, maxevents, timeout):
            kind = WRITE if event.filter == system.KQ_FILTER_WRITE else READ
            ready[event.ident] = ready.get(event.ident, 0) | kind
        return list(ready.items())

    def fileno(self) -> int:
        fd: int = self._queue.fileno()
        return fd

    def close(self) -> None:
        self._queue.close()


class SelectorPoller:
    """Whatever `selectors` finds. A socket that waits for nothing is kept out of it."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._events: dict[int, int] = {}
        self.mirror: Callable[[int, int], None] = lambda fd, events: None

    def register(self, fd: int, events: int) -> None:
        self._events[fd] = 0
        self.modify(fd, events)

    def modify(self, fd: int, events: int) -> None:
        before = self._events[fd]
        self._events[fd] = events
        mask = (selectors.EVENT_READ if events & READ else 0) | (selectors.EVENT_WRITE if events & WRITE else 0)
        if before and mask:
            self._selector.modify(fd, mask)
        elif mask:
            self._selector.register(fd, mask)
        elif before:
            self._selector.unregister(fd)
        self.mirror(fd, events)

    def unregister(self, fd: int) -> None:
        self.modify(fd, 0)
        del self._events[fd]

    def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]:
        if not self._selector.get_map():
            return []
        return [
            (key.fd, (READ if mask & selectors.EVENT_READ else 0) | (WRITE if mask & selectors.EVENT_WRITE else 0))
            for key, mask in self._selector.select(timeout)  # all: the first ones must not keep the last from us
        ]

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self._selector.close()


def make_poller() -> Poller:
    """The best poller of this system."""
    if hasattr(system, "epoll"):
        epoll: Poller = system.epoll()
        return epoll
    if hasattr(system, "kqueue"):
        return KqueuePoller()
    return SelectorPoller()
