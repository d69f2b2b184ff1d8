"""Engines in asyncio's loops: one for each, and nothing of them left, however a loop ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from engine.bench import Owner, Plain
from fullduplex.api.host import AsyncioHost, _run, get_engine
from fullduplex.engine import poller
from fullduplex.engine.engine import Acceptor
from fullduplex.engine.link import Link
from fullduplex.engine.poller import SelectorPoller
from fullduplex.engine.timers import NEVER
from fullduplex.wire.session import Session
from support import LoopFactory, asynchronous, open_descriptors
from wire.frames import BINARY, CLOSE, PING, Frame, close_payload

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody's")


class Party(Owner):
    """An owner in a running loop, who can be waited for."""

    def __init__(self, *, opened: bool = True, open_deadline: float = NEVER, **settings: Any) -> None:
        super().__init__()
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        engine = get_engine()
        settings.setdefault("ping_interval", None)
        self.link = Link(engine, Plain(ours.detach()), Session(True, **settings), self, open_deadline)
        if opened:
            self.link.open()
        engine.add(self.link)
        self._told = asyncio.Event()
        self._heard_in: str | None = None

    def _hear(self, name: str, *what: Any) -> None:
        super()._hear(name, *what)
        self._heard_in = variable.get()
        self._told.set()

    async def next(self) -> Any:
        """What is heard next."""
        while not self.heard:
            self._told.clear()
            await self._told.wait()
        return self.heard.pop(0)

    async def leave(self) -> None:
        self.peer.close()
        while (await self.next())[0] != "ended":
            pass


# While it runs.


@asynchronous
async def test_bytes_come_and_go(loop_factory: LoopFactory) -> None:
    party = Party()
    party.on["received"] = lambda: party.link.session.send(0x80 | BINARY, b"answer")
    party.say((BINARY, b"a"))
    assert await party.next() == ("received", b"a")
    assert party.read_frames() == [Frame(BINARY, b"answer")]
    await party.leave()


@asynchronous
async def test_what_is_said_outside_a_tick_leaves_soon(loop_factory: LoopFactory) -> None:
    loop = asyncio.get_running_loop()
    party = Party()
    party.link.session.send(0x80 | BINARY, b"a")
    party.link.touch()
    assert await loop.sock_recv(party.peer, 100) == b"\x82\x01a"
    await party.leave()


@asynchronous
async def test_time(loop_factory: LoopFactory) -> None:
    """The timer is there for the earliest deadline, and again for the next one."""
    now = get_engine().time()
    parties = [Party(opened=False, open_deadline=now + after) for after in (0.2, 0.1, 0.15)]
    for party in parties:
        assert await party.next() == "opening_expired"
        assert party.link.engine.now >= now + 0.1
        await party.leave()


@asynchronous
async def test_keepalive(loop_factory: LoopFactory) -> None:
    loop = asyncio.get_running_loop()
    party = Party(ping_interval=0.01)
    assert (await loop.sock_recv(party.peer, 2))[0] == 0x80 | PING
    await party.leave()


@asynchronous
async def test_what_ticks_do_is_nobodys(loop_factory: LoopFactory) -> None:
    """Handlers do not see the variables of who made the engine, nor of who asked for a tick."""
    variable.set("ours")
    party = Party(ping_interval=0.01, ping_timeout=0.01)
    party.say((BINARY, b"a"))
    assert (await party.next(), party._heard_in) == (("received", b"a"), "nobody's")
    other = Party()
    other.script["send"] = [BrokenPipeError()]
    other.link.session.send(0x80 | BINARY, b"a")
    other.link.touch()
    assert (await other.next(), other._heard_in) == (("ended", "BrokenPipeError"), "nobody's")
    assert (await party.next(), party._heard_in) == (("ended", None), "nobody's")
    for each in (party, other):
        each.peer.close()


# One for each loop.


@asynchronous
async def test_one_engine_for_all_of_a_loop(loop_factory: LoopFactory) -> None:
    party, other = Party(), Party()
    engine = party.link.engine
    assert other.link.engine is engine
    await party.leave()
    assert not engine.closed
    await other.leave()
    assert engine.closed
    assert get_engine() is not engine
    again = Party()
    again.say((BINARY, b"a"))
    assert await again.next() == ("received", b"a")
    await again.leave()


def test_loops_of_threads_have_their_own(loop_factory: LoopFactory) -> None:
    engines: list[Any] = []
    before = open_descriptors()
    together = threading.Barrier(4)

    async def main() -> None:
        for _ in range(10):
            party = Party()
            party.say((BINARY, b"a"))
            assert await party.next() == ("received", b"a")
            engine = party.link.engine
            together.wait()
            await party.leave()
        engines.append(engine)

    def work() -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(asyncio.wait_for(main(), 20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, engines))) == 4
    assert open_descriptors() == before


def test_a_loop_is_needed() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        get_engine()


# The loop ends.


def leave_open(kept: list[Any]) -> Callable[[], Any]:
    """A program that returns while something is open."""

    async def main() -> None:
        party = Party(ping_interval=20.0)
        door = Acceptor(get_engine(), socket.create_server(("127.0.0.1", 0)), lambda sock: None)
        get_engine().listen(door)
        kept.extend((party, door))
        party.say((BINARY, b"a"))
        assert await party.next() == ("received", b"a")

    return main


def check_closed(party: Party, door: Acceptor) -> None:
    assert party.read_frames() == [Frame(CLOSE, close_payload(1001))]
    assert party.is_eof()
    assert party.heard == [("ended", None)]
    assert party.link.engine.closed
    assert door.sock.fileno() == -1
    party.peer.close()


def test_a_runner_closes_what_is_open(loop_factory: LoopFactory) -> None:
    before = open_descriptors()
    kept: list[Any] = []
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(leave_open(kept)())
    check_closed(*kept)
    assert open_descriptors() == before


def test_a_loop_that_closes_its_generators_closes_what_is_open(loop_factory: LoopFactory) -> None:
    before = open_descriptors()
    kept: list[Any] = []
    loop = loop_factory()
    loop.run_until_complete(leave_open(kept)())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    check_closed(*kept)
    assert open_descriptors() == before


def test_an_engine_that_ended_leaves_nothing_to_the_loop(loop_factory: LoopFactory) -> None:
    """The usual end of a program that closes what it opened, on a loop that is merely closed."""
    before = open_descriptors()

    async def main() -> None:
        party = Party(ping_interval=20.0)
        await party.leave()

    loop = loop_factory()
    loop.run_until_complete(main())
    loop.close()
    gc.collect()
    assert open_descriptors() == before


def test_a_loop_that_is_merely_closed_can_still_be_tidied_up(loop_factory: LoopFactory) -> None:
    """Nothing tells us of that end. Whoever ends the links then, though late, ends the engine."""
    before = open_descriptors()
    kept: list[Any] = []
    loop = loop_factory()
    loop.run_until_complete(leave_open(kept)())
    loop.close()
    party, door = kept
    party.link.engine.close()
    check_closed(party, door)
    assert open_descriptors() == before


def test_a_loop_that_is_merely_closed_is_warned_of(loop_factory: LoopFactory) -> None:
    """As for asyncio's own connections: the collector closes sockets, and says so."""
    before = open_descriptors()
    kept: list[Any] = []
    loop = loop_factory()
    loop.run_until_complete(leave_open(kept)())
    loop.close()
    peer = kept[0].peer
    kept.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.collect()
    assert {warning.category for warning in caught} == {ResourceWarning}
    peer.close()
    assert open_descriptors() == before


def test_an_engine_without_links_ends_with_the_loop(loop_factory: LoopFactory) -> None:
    before = open_descriptors()

    async def main() -> Any:
        return get_engine()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        engine = runner.run(main())
    assert engine.closed
    assert open_descriptors() == before


# Where there is neither epoll nor kqueue, the loop watches each socket.


@pytest.fixture
def no_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "system", object())


@pytest.mark.usefixtures("no_system")
@asynchronous
async def test_mirrored(loop_factory: LoopFactory) -> None:
    loop = asyncio.get_running_loop()
    party, other = Party(), Party()
    assert isinstance(party.link.engine.poller, SelectorPoller)
    party.on["received"] = lambda: party.link.session.send(0x80 | BINARY, b"answer")
    party.say((BINARY, b"a"))
    assert await party.next() == ("received", b"a")
    assert party.read_frames() == [Frame(BINARY, b"answer")]
    # More than the kernel takes, said in a tick that no socket asked for.
    payload = b"m" * (1 << 20)
    other.link.draining = True
    other.link.session.send(0x80 | BINARY, payload)
    other.link.touch()
    came = b""
    while not came.endswith(payload):
        came += await loop.sock_recv(other.peer, len(payload))
        came = came[-2 * len(payload) :]
    assert await other.next() == "drained"
    party.link.pause_reading()
    party.say((BINARY, b"b"))
    other.say((BINARY, b"c"))
    assert await other.next() == ("received", b"c")
    assert party.heard == []
    party.link.resume_reading()
    assert await party.next() == ("received", b"b")
    await party.leave()
    await other.leave()
    assert other.link.engine.closed


@pytest.mark.usefixtures("no_system")
def test_mirrored_to_the_end(loop_factory: LoopFactory) -> None:
    test_a_runner_closes_what_is_open(loop_factory)
    test_a_loop_that_is_merely_closed_can_still_be_tidied_up(loop_factory)


def test_a_poller_that_no_loop_can_watch() -> None:
    """Somebody else has to call `tick` then."""

    class Deaf:
        def fileno(self) -> int:
            return -1

    class Engine:
        poller = Deaf()
        closed = False

        def tick(self) -> None: ...
        def close(self) -> None:
            self.closed = True

    async def main() -> None:
        engine: Any = Engine()
        host = AsyncioHost(asyncio.get_running_loop())
        host.attach(engine)
        host.detach(engine)
        assert engine.closed

    asyncio.run(main())


def test_what_must_not_wait_does_not() -> None:
    with pytest.raises(AssertionError, match="it waits"):
        _run(asyncio.sleep(0))
