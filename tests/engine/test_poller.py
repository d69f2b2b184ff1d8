"""The three pollers say the same of the same sockets."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from fullduplex.engine import poller as module
from fullduplex.engine.poller import READ, WRITE, KqueuePoller, Poller, SelectorPoller, make_poller
from support import open_descriptors


class Kevent(NamedTuple):
    ident: int
    filter: int
    flags: int = 0


class Kqueue:
    """kqueue, as far as it is used here, made of poll. Like the real one it refuses to delete what is not there."""

    def __init__(self) -> None:
        self.watched: set[tuple[int, int]] = set()
        self.closed = False

    def control(self, changes: list[Kevent] | None, maxevents: int, timeout: float | None = None) -> list[Kevent]:
        for change in changes or ():
            if change.flags == System.KQ_EV_ADD:
                self.watched.add((change.ident, change.filter))
            else:
                self.watched.remove((change.ident, change.filter))
        if not maxevents:
            return []
        assert timeout == 0
        found = []
        for ident, kind in sorted(self.watched):
            poll = select.poll()
            poll.register(ident, select.POLLIN if kind == System.KQ_FILTER_READ else select.POLLOUT)
            found += [Kevent(ident, kind) for _ in poll.poll(0)]
        return found[:maxevents]

    def fileno(self) -> int:
        return 77

    def close(self) -> None:
        self.closed = True


class System:
    """The `select` module of a system with kqueue."""

    KQ_FILTER_READ = -1
    KQ_FILTER_WRITE = -2
    KQ_EV_ADD = 1
    KQ_EV_DELETE = 2
    kqueue = Kqueue
    kevent = Kevent


@pytest.fixture(params=["epoll", "kqueue", "selectors"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Poller]:
    if request.param == "epoll" and not hasattr(select, "epoll"):
        pytest.skip("needs epoll")
    if request.param == "kqueue":
        monkeypatch.setattr(module, "system", System)
    elif request.param == "selectors":
        monkeypatch.setattr(module, "system", object())
    return make_poller


@pytest.fixture
def poller(make: Callable[[], Poller]) -> Iterator[Poller]:
    before = open_descriptors()
    poller = make()
    yield poller
    poller.close()
    assert open_descriptors() == before


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, peer = socket.socketpair()
    with ours, peer:
        yield ours, peer


Pair = tuple[socket.socket, socket.socket]


def test_reading_and_writing(poller: Poller, pair: Pair) -> None:
    ours, peer = pair
    fd = ours.fileno()
    poller.register(fd, READ)
    assert poller.poll(0, 10) == []
    poller.modify(fd, WRITE)
    assert poller.poll(0, 10) == [(fd, WRITE)]
    peer.send(b"x")
    poller.modify(fd, READ | WRITE)
    assert poller.poll(0, 10) == [(fd, READ | WRITE)]
    poller.modify(fd, READ | WRITE)
    poller.modify(fd, READ)
    assert poller.poll(0, 10) == [(fd, READ)]
    poller.modify(fd, 0)
    assert poller.poll(0, 10) == []
    poller.unregister(fd)


def test_an_unregistered_socket_is_quiet_and_may_come_back(poller: Poller, pair: Pair) -> None:
    ours, peer = pair
    fd = ours.fileno()
    poller.register(fd, READ | WRITE)
    poller.unregister(fd)
    peer.close()
    assert poller.poll(0, 10) == []
    poller.register(fd, READ)
    (event,) = poller.poll(0, 10)
    assert event[0] == fd
    assert event[1] & READ
    poller.unregister(fd)


def test_nothing_is_watched(poller: Poller) -> None:
    assert poller.poll(0, 10) == []


def test_many(poller: Poller) -> None:
    """Whatever is ready comes sooner or later, though it is more than `maxevents`."""
    pairs = [socket.socketpair() for _ in range(8)]
    waiting = {ours.fileno() for ours, _ in pairs}
    for ours, peer in pairs:
        poller.register(ours.fileno(), READ)
        peer.send(b"x")
    while waiting:
        for fd, _ in poller.poll(0, 3):
            waiting.remove(fd)
            poller.unregister(fd)
    for ours, peer in pairs:
        ours.close()
        peer.close()


def test_a_descriptor_for_loops() -> None:
    poller = make_poller()
    assert (poller.fileno() >= 0) is not isinstance(poller, SelectorPoller)
    poller.close()


def test_kqueue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "system", System)
    poller = make_poller()
    assert isinstance(poller, KqueuePoller)
    assert poller.fileno() == 77
    poller.close()
    assert poller._queue.closed


def test_mirror(pair: Pair) -> None:
    """A loop that has to watch each socket itself hears what for."""
    poller = SelectorPoller()
    assert poller.fileno() == -1
    heard: list[Any] = []
    poller.mirror = lambda fd, events: heard.append((fd, events))
    fd = pair[0].fileno()
    poller.register(fd, READ)
    poller.modify(fd, READ | WRITE)
    poller.unregister(fd)
    assert heard == [(fd, READ), (fd, READ | WRITE), (fd, 0)]
    poller.close()
