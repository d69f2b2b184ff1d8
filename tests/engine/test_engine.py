"""The tick: who is served when, what handlers may do in it, how connections come, and how it all ends."""

from __future__ import annotations

import errno
import gc
import logging
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from engine.bench import Bench, Owner, Plain, Shaken
from engine.test_link import binary, send, tell
from fullduplex.engine import engine, poller
from fullduplex.engine.engine import Acceptor, Engine
from fullduplex.engine.link import Link
from fullduplex.engine.shares import ACCEPT_PAUSE, BUFFER, LOOK, SLICE, TOGETHER
from wire.frames import BINARY, CLOSE, KEY, Frame, close_payload, frame


class Door:
    """A listening socket, and the links of those who came in."""

    def __init__(self, bench: Bench) -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        self.bench = bench
        self.address = sock.getsockname()
        self.sock = Plain(sock.detach())
        self.acceptor = Acceptor(bench.engine, self.sock, self.accepted)
        self.owners: list[Owner] = []
        bench.engine.listen(self.acceptor)

    def accepted(self, sock: socket.socket) -> None:
        assert not sock.getblocking()
        self.owners.append(self.bench.link(sock=sock))

    def knock(self) -> socket.socket:
        peer = socket.create_connection(self.address)
        self.bench.peers.append(peer)
        return peer


# The tick.


def test_nothing_is_ready(bench: Bench) -> None:
    owner = bench.link()
    bench.tick()
    assert owner.heard == []


EMPTY = frame(BINARY, b"", key=KEY)  # which the kernel knows nothing of, nor the poller


def alone(bench: Bench) -> Owner:
    """A link that is to be read unasked: nobody else is there, and nothing was left."""
    owner = bench.link()
    bench.tick()
    return owner


def test_the_only_link_is_read_unasked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = alone(bench)
    sent: list[bytes] = []

    class Poller:
        def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
            sent.append(owner.read())
            return []

    owner.script["recv_into"] = [EMPTY]
    owner.on["received"] = lambda: send(owner, b"answer")
    with monkeypatch.context() as patch:
        patch.setattr(bench.engine, "_epoll", -1)
        patch.setattr(bench.engine, "poller", Poller())
        bench.tick()
    assert sent == [frame(BINARY, b"answer")]


def test_the_only_link_is_not_read_twice_where_something_was_left(bench: Bench) -> None:
    owner = alone(bench)
    owner.on["received"] = lambda: owner.say((BINARY, b"more"))
    owner.say((BINARY, b"a"))
    bench.tick()  # unasked, and as the poller says so: a tick is one batch here
    assert len(owner.heard) == 2
    bench.tick()  # as the poller says so
    assert len(owner.heard) == 3


def test_the_only_link_is_not_read_where_it_will_be_anyway(bench: Bench) -> None:
    owner = alone(bench)
    bench.engine.serve_again(owner.link)
    owner.script["recv_into"] = [EMPTY] * 2
    bench.tick()
    assert len(owner.heard) == 1


def test_what_comes_while_the_only_link_is_served_comes_then(bench: Bench) -> None:
    owner = alone(bench)

    def take_long() -> None:
        bench.engine.clock += 1
        if len(owner.heard) == 1:
            owner.say((BINARY, b"meanwhile"))

    owner.on["received"] = take_long
    owner.say((BINARY, b"a"))
    before = bench.engine.clock
    bench.tick()
    assert owner.heard == [("received", b"a"), ("received", b"meanwhile")]
    assert owner.link.session.received_at == before + 1


FULL = frame(BINARY, bytes(BUFFER - 14), key=KEY)


def test_the_only_link_is_read_on_while_reads_are_full(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = alone(bench)
    bench.engine.spell = 1.0
    heard: list[int] = []

    class Poller:
        def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
            heard.append(len(owner.heard))
            return []

    owner.script["recv_into"] = [FULL, FULL, EMPTY]
    with monkeypatch.context() as patch:
        patch.setattr(bench.engine, "_epoll", -1)
        patch.setattr(bench.engine, "poller", Poller())
        bench.tick()
    assert heard == [3]


@pytest.mark.parametrize(
    ("do", "heard"),
    [
        (lambda owner: owner.link.pause_reading(), ["received"]),
        (lambda owner: owner.link.abort("local", "test"), ["received", "ended"]),
        (lambda owner: owner.link.engine.close(), ["received", "ended"]),
        (lambda owner: owner.peer.close(), ["received", "ended"]),
    ],
)
def test_the_only_link_changes_while_it_is_read_on(bench: Bench, do: Any, heard: list[str]) -> None:
    Door(bench)  # the engine stays
    owner = alone(bench)
    bench.engine.spell = 1.0
    owner.on["received"] = lambda: do(owner)
    owner.script["recv_into"] = [FULL]
    bench.tick()
    assert [what[0] for what in owner.heard] == heard


def test_the_only_link_gives_way_after_a_spell(bench: Bench) -> None:
    door = Door(bench)
    owner = alone(bench)
    door.knock()
    owner.script["recv_into"] = [FULL] * 3
    bench.tick()  # unasked: a tick is one batch here
    assert (len(owner.heard), len(door.owners)) == (1, 0)
    bench.tick()
    assert len(door.owners) == 1


def test_the_only_link_does_not_fill_the_buffer_with_small_messages(bench: Bench) -> None:
    large = ("received", bytes(BUFFER - 14))
    owner = alone(bench)
    owner.say((BINARY, large[1]))
    bench.tick()
    assert owner.heard == [large]
    owner.say((BINARY, b"a"), (BINARY, b"b"))
    bench.tick()
    owner.say((BINARY, large[1]))
    bench.engine.tick()
    assert owner.heard == [large, ("received", b"a", b"b")]
    bench.settle()
    half = BUFFER // 2 - 14
    owner.say((BINARY, bytes(half)), (BINARY, bytes(half)))
    bench.tick()
    owner.say((BINARY, large[1]))
    bench.tick()
    assert owner.heard[2:] == [large, ("received", bytes(half), bytes(half)), large]


def test_one_of_two_is_read_when_it_is_ready(bench: Bench) -> None:
    owners = [bench.link(), bench.link()]
    bench.tick()
    for owner in owners:
        owner.script["recv_into"] = [EMPTY]
    bench.tick()
    owners.pop().link.abort("local", "test")
    bench.tick()
    assert owners[0].heard == []


def test_the_only_link_is_not_read_while_it_is_paused(bench: Bench) -> None:
    owner = alone(bench)
    owner.script["recv_into"] = [EMPTY]
    owner.link.pause_reading()
    bench.tick()
    assert owner.heard == []
    owner.link.resume_reading()
    bench.tick()
    assert owner.heard == [("received", b"")]


def test_the_only_link_is_not_read_before_it_is_connected(bench: Bench) -> None:
    sock, _ = bench.pair()
    sock.script["connect_ex"] = [errno.EINPROGRESS]
    owner = bench.link(sock=sock, opened=False, address="anywhere")
    bench.engine.poller.modify(owner.link.fd, 0)  # the kernel does not tell yet
    bench.tick()
    bench.tick()
    assert owner.heard == []
    bench.engine.poller.modify(owner.link.fd, owner.link.events())
    bench.tick()
    assert owner.heard == ["ready"]


def test_the_host_is_asked_once(bench: Bench) -> None:
    owners = [bench.link(), bench.link()]
    for owner in owners * 2:
        send(owner, b"a")
    assert len(bench.host.soon) == 1
    bench.settle()
    assert [owner.read_frames() for owner in owners] == [binary(b"a", b"a")] * 2


def test_who_asks_for_a_tick_in_each_tick_gets_one_a_turn(bench: Bench) -> None:
    """However often ticks run for other reasons: what they ask for does not add up."""
    link = bench.link(tls=Shaken(), opened=False).link
    for _ in range(5):
        soon, bench.host.soon = bench.host.soon, []
        for callback in [*soon, bench.tick]:
            link.reading = False  # what is to be served once more stays so
            bench.engine.serve_again(link)
            callback()
            send_to = bench.link()
            bench.engine.serve_again(send_to.link)
        assert len(bench.host.soon) <= 1


def test_a_link_is_served_once_more_only_once(bench: Bench) -> None:
    owner = bench.link()
    for _ in range(3):
        bench.engine.serve_again(owner.link)
    owner.script["recv_into"] = [b"\x82\x80\0\0\0\0"] * 3
    bench.settle()
    assert owner.heard == [("received", b"")]


def test_a_link_that_is_to_be_served_once_more_ends(bench: Bench) -> None:
    owner = bench.link()
    bench.engine.serve_again(owner.link)
    send(owner, b"a")
    bench.link()
    owner.link.abort("local", "test")
    bench.settle()
    assert owner.heard == [("ended", None)]


def test_what_is_said_for_another_leaves_in_the_same_tick(bench: Bench) -> None:
    owner, other = bench.link(), bench.link()
    owner.on["received"] = lambda: send(other, b"to you")
    owner.say((BINARY, b"a"))
    bench.tick()
    assert other.read_frames() == binary(b"to you")
    assert bench.host.soon == []


def answering(bench: Bench, seconds: float) -> tuple[list[Owner], list[bytes]]:
    """Two who answer, which takes so long; and what the other one had been sent when each of them did."""
    owners = [bench.link(), bench.link()]
    seen: list[bytes] = []

    def answer(owner: Owner, other: Owner) -> None:
        seen.append(other.read())
        send(owner, b"answer")
        bench.engine.clock += seconds

    for owner, other in (owners, owners[::-1]):
        owner.on["received"] = partial(answer, owner, other)
    return owners, seen


def test_answers_leave_together(bench: Bench) -> None:
    owners, seen = answering(bench, 0.0)
    for owner in owners:
        owner.say((BINARY, b"a"))
    bench.tick()
    assert seen == [b"", b""]
    assert [owner.read_frames() for owner in owners] == [binary(b"answer")] * 2


def test_answers_do_not_wait_for_those_that_take_long(bench: Bench) -> None:
    owners, seen = answering(bench, 10 * SLICE)
    for owner in owners:
        owner.say((BINARY, b"a"))
    bench.tick()
    assert seen == [b"", frame(BINARY, b"answer")]


def test_many_answers_leave_in_parts(bench: Bench) -> None:
    owners = [bench.link() for _ in range(TOGETHER + 1)]
    sent: list[int] = []

    def answer(owner: Owner) -> None:
        sent.append(sum(bool(each.read()) for each in owners))
        send(owner, b"answer")

    for owner in owners:
        owner.on["received"] = partial(answer, owner)
        owner.say((BINARY, b"a"))
    bench.tick()
    assert sent == [0] * TOGETHER + [TOGETHER]


@pytest.mark.parametrize("said_to_all", [False, True])
def test_an_interrupt_keeps_nothing_from_others(bench: Bench, said_to_all: bool) -> None:
    """^C while some are answered, or are told what was said elsewhere."""
    owner, others = bench.link(), [bench.link() for _ in range(3)]
    owner.script["send"] = [BrokenPipeError()]

    def interrupt() -> None:
        raise KeyboardInterrupt

    owner.on["ended"] = interrupt
    for each in (owner, *others):
        if said_to_all:
            send(each, b"answer")
        else:
            each.on["received"] = partial(send, each, b"answer")
            each.say((BINARY, b"a"))
    with pytest.raises(KeyboardInterrupt):
        bench.tick()
    bench.settle()
    assert [other.read_frames() for other in others] == [binary(b"answer")] * 3


def test_an_interrupt_keeps_no_answer(bench: Bench) -> None:
    """^C in a handler: what those before it have said leaves in the next tick."""
    owners = [bench.link() for _ in range(3)]
    heard: list[Owner] = []

    def answer(owner: Owner) -> None:
        heard.append(owner)
        if len(heard) == 3:
            raise KeyboardInterrupt
        send(owner, b"answer")

    for owner in owners:
        owner.on["received"] = partial(answer, owner)
        owner.say((BINARY, b"a"))
    with pytest.raises(KeyboardInterrupt):
        bench.tick()
    bench.settle()
    assert [owner.read_frames() for owner in heard[:2]] == [binary(b"answer")] * 2


def test_an_answer_does_not_wait_behind_what_is_said_to_many(bench: Bench) -> None:
    owners = [bench.link() for _ in range(3 * LOOK)]
    other = bench.link()
    other.on["received"] = lambda: send(other, b"echo")
    bench.engine.step = SLICE
    for owner in owners:
        send(owner, b"news")
    other.say((BINARY, b"a"))
    bench.tick()
    assert other.read_frames() == binary(b"echo")
    assert sum(owner.link.buffered() > 0 for owner in owners) == 2 * LOOK


def test_others_are_served_while_many_are_told(bench: Bench) -> None:
    owners = [bench.link() for _ in range(3 * LOOK)]
    other = bench.link()
    other.on["received"] = lambda: send(other, b"echo")
    bench.engine.step = SLICE
    tell(owners, b"news")
    for slices in (1, 2, 3):
        other.say((BINARY, b"a"))
        bench.tick()
        assert other.read_frames() == binary(b"echo")
        assert [owner.read_frames() for owner in owners].count(binary(b"news")) == LOOK
        assert sum(owner.link.buffered() for owner in owners) == (3 - slices) * LOOK * len(b"..news")
    assert len(bench.host.soon) == 1


def test_who_is_spoken_to_does_not_wait_until_many_are_told(bench: Bench) -> None:
    owners = [bench.link() for _ in range(3 * LOOK)]
    bench.engine.step = SLICE
    tell(owners, b"news")
    send(owners[-1], b"to you")
    bench.tick()
    assert owners[-1].read_frames() == binary(b"news", b"to you")


def test_many_are_told_while_others_are_spoken_to(bench: Bench) -> None:
    """Nobody is left out, whoever else there is, and whatever they are told."""
    owners = [bench.link() for _ in range(2 * LOOK)]
    others = [bench.link() for _ in range(2 * LOOK)]
    bench.engine.step = SLICE
    for _ in range(4):
        tell(owners, b"news")
        for other in others:
            send(other, b"to you")
        bench.tick()
    for each in (*owners, *others):
        assert each.read_frames()
    bench.engine.step = 0.0
    bench.settle()
    assert not any(each.link.buffered() for each in (*owners, *others))


def test_who_ends_before_they_are_told(bench: Bench) -> None:
    """Whoever has their descriptor next is not told."""
    owners = [bench.link() for _ in range(LOOK + 2)]
    bench.engine.step = SLICE
    tell(owners, b"news")
    left, *_ = [owner for owner in owners if owner.link.buffered()]
    left.link.abort("local", "test")
    newcomer = bench.link()
    bench.engine.step = 0.0
    bench.settle()
    assert left.read() == newcomer.read() == b""
    assert all(owner.read_frames() == binary(b"news") for owner in owners if owner is not left)


def test_the_end_takes_along_what_many_are_told(bench: Bench) -> None:
    owners = [bench.link() for _ in range(2 * LOOK)]
    bench.engine.step = SLICE
    tell(owners, b"news")
    bench.tick()
    bench.engine.close()
    for owner in owners:
        assert [frame.opcode for frame in owner.read_frames()] == [BINARY, CLOSE]


def test_what_is_said_at_the_very_end_of_a_tick_leaves_in_the_next(bench: Bench) -> None:
    owner, other = bench.link(), bench.link(opened=False, open_deadline=bench.engine.time())
    other.on["opening_expired"] = lambda: send(owner, b"late")
    bench.pass_time(1)
    assert owner.read_frames() == binary(b"late")


def test_who_is_to_be_served_once_more_in_a_tick_is_served_in_it(bench: Bench) -> None:
    owner = bench.link()
    owner.on["received"] = lambda: bench.engine.serve_again(owner.link) if len(owner.heard) == 1 else None
    owner.script["recv_into"] = [b"\x82\x80\0\0\0\0"] * 2
    owner.say((BINARY, b"a"))
    bench.tick()
    assert owner.heard == [("received", b"")] * 2
    assert bench.host.soon == []


def test_who_is_not_watched_is_watched_again(bench: Bench) -> None:
    owner, left = bench.link(), bench.link()
    for each in (owner, left):
        bench.engine.unwatch(each.link)
        each.say((BINARY, b"a"))
    bench.settle()
    left.link.abort("local", "test")
    assert owner.heard == []
    for _ in range(2):
        bench.engine.watch(owner.link, poller.READ)
    bench.settle()
    assert owner.heard == [("received", b"a")]


# Handlers may do anything to anyone.


def test_a_handler_ends_another_of_the_same_batch(bench: Bench) -> None:
    """Each ends the other: one of them only is served, and its descriptor is not given back before the tick ends."""
    owners = [bench.link(), bench.link()]

    def end(other: Owner, owner: Owner) -> None:
        other.link.abort("local", "test")
        owner.heard.append(other.link.sock.fileno() >= 0)

    for owner, other in zip(owners, reversed(owners), strict=True):
        owner.on["received"] = partial(end, other, owner)
        owner.say((BINARY, b"a"))
    bench.tick()
    assert sorted(map(str, (owner.heard for owner in owners))) == ["[('ended', None)]", "[('received', b'a'), True]"]


def test_a_newcomer_gets_no_stale_event(bench: Bench) -> None:
    """The handler ends the others, and makes new links: none may get a number that has an event in the batch."""
    owners = [bench.link() for _ in range(3)]
    numbers = {owner.link.fd for owner in owners}
    newcomers: list[Owner] = []

    def renew() -> None:
        if not newcomers:
            for other in owners:
                other.link.abort("local", "test")
            newcomers.extend(bench.link() for _ in range(3))

    for owner in owners:
        owner.on["received"] = renew
        owner.say((BINARY, b"a"))
    bench.tick()
    assert not numbers & {owner.link.fd for owner in newcomers}
    assert all(owner.heard == [] for owner in newcomers)
    assert not bench.engine.closed
    assert bench.link().link.fd in numbers  # free now


def test_a_handler_ends_its_own_link_while_it_also_writes(bench: Bench) -> None:
    """One event tells of reading and of writing: after the one there is no other."""
    owner = bench.link()
    bench.link()
    owner.link.draining = True
    owner.link.low_water = 10
    owner.script["send"] = [BlockingIOError()]
    send(owner, b"a")
    bench.tick()
    owner.on["drained"] = lambda: owner.link.abort("local", "test")
    owner.say((BINARY, b"b"))
    bench.settle()
    assert owner.heard == ["drained", ("ended", None)]


def test_a_handler_closes_the_engine(bench: Bench) -> None:
    owners = [bench.link(), bench.link()]
    door = Door(bench)
    door.knock()
    for owner in owners:
        owner.on["received"] = bench.engine.close
        owner.say((BINARY, b"a"))
    bench.wait()
    assert bench.engine.closed
    assert sorted(len(owner.heard) for owner in owners) == [1, 2]
    assert all(owner.link.sock.fileno() == -1 for owner in owners)
    assert door.sock.fileno() == -1
    assert door.owners == []
    assert bench.host.timer is None
    bench.tick()


def test_the_only_link_closes_the_engine(bench: Bench) -> None:
    owner = alone(bench)
    owner.on["received"] = bench.engine.close
    owner.say((BINARY, b"a"))
    bench.tick()
    assert owner.heard == [("received", b"a"), ("ended", None)]


def test_the_only_link_is_let_go_of_when_it_ends(bench: Bench) -> None:
    Door(bench)  # the engine stays
    owner = bench.link()
    owner.link.abort("local", "test")
    del owner.link
    assert not any(isinstance(kept, Link) for kept in gc.get_referents(bench.engine))


def test_a_handler_stops_listening(bench: Bench) -> None:
    door = Door(bench)
    accepted = door.accepted

    def accept_one(sock: socket.socket) -> None:
        accepted(sock)
        bench.engine.unlisten(door.acceptor)

    door.acceptor.accepted = accept_one
    door.knock()
    door.knock()
    bench.wait()
    bench.settle()
    assert len(door.owners) == 1
    assert door.sock.fileno() == -1
    bench.engine.unlisten(door.acceptor)


@pytest.mark.parametrize("when", ["received", "drained", "again", "flush", "expire"])
def test_a_mistake_ends_one_link_only(bench: Bench, caplog: pytest.LogCaptureFixture, when: str) -> None:
    owner, other = bench.link(), bench.link(ping_interval=5)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    owner.on["received"] = owner.on["drained"] = fail
    if when == "received":
        owner.say((BINARY, b"a"))
    elif when == "drained":
        owner.link.draining = True
        owner.script["send"] = [BlockingIOError()]
        send(owner, b"a")
    elif when == "again":
        owner.script["recv_into"] = [b"\x82\x80\0\0\0\0"]
        bench.engine.serve_again(owner.link)
    elif when == "flush":
        owner.script["send"] = [ZeroDivisionError()]
        send(owner, b"a")
    else:
        owner = bench.link(opened=False, open_deadline=bench.engine.time() + 1)
        owner.on["opening_expired"] = fail
    send(other, b"b")
    other.say((BINARY, b"c"))
    bench.settle()
    bench.pass_time(6)
    assert owner.heard[-1] == ("ended", None)
    assert owner.link.session.error().detail == "internal error"
    assert other.heard == [("received", b"c")]
    assert other.read_frames()[0] == Frame(BINARY, b"b")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_a_mistake_while_a_mistake_is_seen_to(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    owner, other = bench.link(), bench.link()

    def fail() -> None:
        raise ZeroDivisionError

    owner.on["received"] = owner.on["ended"] = fail
    for each in (owner, other):
        each.say((BINARY, b"a"))
    bench.settle()
    assert owner.link.is_closed()
    assert other.heard == [("received", b"a")]
    messages = ["error while serving a connection", "error while ending a connection"]
    assert [record.message for record in caplog.records] == messages


# Time.


def test_the_timer(bench: Bench) -> None:
    """One, for the earliest of all; an earlier one replaces it, a later one does not."""
    start = bench.engine.time()
    owners = [bench.link(opened=False, open_deadline=start + after) for after in (10, 5, 20)]
    assert bench.host.timer is not None
    assert start + 5 <= bench.host.timer[0] <= start + 5.1
    bench.pass_time(6)
    assert [owner.heard for owner in owners] == [[], ["opening_expired"], []]
    assert start + 10 <= bench.host.timer[0] <= start + 10.1
    bench.pass_time(60)
    assert [owner.heard for owner in owners] == [["opening_expired"]] * 3


def test_a_timer_that_comes_early_is_set_again(bench: Bench) -> None:
    """Loops round to milliseconds, or to the ticks of a clock."""
    bench.link(opened=False, open_deadline=bench.engine.time() + 10)
    timer = bench.host.timer
    assert timer is not None
    bench.host.timer = None
    timer[1]()
    assert bench.host.timer == timer


def test_a_tick_that_comes_first_does_what_is_due(bench: Bench) -> None:
    owner = bench.link(opened=False, open_deadline=bench.engine.time() + 10)
    bench.engine.clock += 11
    bench.tick()
    assert owner.heard == ["opening_expired"]


# Connecting.


def connect(bench: Bench, address: object, family: int = socket.AF_INET, **script: Any) -> Owner:
    sock = Plain(socket.socket(family).detach())
    sock.script.update(script)
    return bench.link(sock=sock, opened=False, address=address)


def test_connect(bench: Bench) -> None:
    door = Door(bench)
    owner = connect(bench, door.address)
    assert owner.link.connecting
    assert not owner.link.established
    bench.wait_until(lambda: owner.heard and door.owners)
    assert owner.heard == ["ready"]
    assert owner.link.established
    assert not owner.link.connecting


@pytest.mark.parametrize("code", [0, errno.EINPROGRESS, errno.EINTR])
def test_connect_with_what_is_connected(bench: Bench, code: int) -> None:
    """A Unix socket connects at once."""
    sock, _ = bench.pair()
    sock.script["connect_ex"] = [code]
    owner = bench.link(sock=sock, opened=False, address="anywhere")
    bench.settle()
    assert owner.heard == ["ready"]


@pytest.mark.parametrize(("address", "kind"), [("/nowhere", "FileNotFoundError"), ("/" + "a" * 500, "OSError")])
def test_connect_fails_at_once(bench: Bench, address: str, kind: str) -> None:
    owner = connect(bench, address, socket.AF_UNIX)
    assert owner.heard == [("ended", kind)]
    assert owner.link.sock.fileno() == -1
    assert owner.link.session.error().who == "network"
    assert bench.engine.closed


# Accepting.


def test_accept(bench: Bench) -> None:
    door = Door(bench)
    peers = [door.knock() for _ in range(3)]
    bench.wait_until(lambda: len(door.owners) == 3)
    assert [owner.heard for owner in door.owners] == [[], [], []]
    peers[1].sendall(b"\x82\x80\0\0\0\0")
    bench.wait_until(lambda: any(owner.heard for owner in door.owners))


def test_newcomers_do_not_keep_others_waiting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many knock, those who are in are served between two batches of them."""
    monkeypatch.setattr(engine, "BATCH", 4)
    door = Door(bench)
    owner = bench.link()
    for _ in range(10):
        door.knock()
    bench.wait()
    assert len(door.owners) == 4
    owner.say((BINARY, b"a"))
    bench.tick()
    assert len(door.owners) == 8
    assert owner.heard == [("received", b"a")]
    bench.settle()
    assert len(door.owners) == 10


def test_accept_from_two(bench: Bench) -> None:
    doors = [Door(bench), Door(bench)]
    for door in doors:
        door.knock()
    bench.wait_until(lambda: all(door.owners for door in doors))


@pytest.mark.parametrize("error", [ConnectionAbortedError(), InterruptedError(), BlockingIOError()])
def test_who_left_the_backlog(bench: Bench, error: OSError) -> None:
    door = Door(bench)
    door.sock.script["accept"] = [error]
    door.knock()
    bench.wait_until(lambda: door.owners)


def test_no_descriptor_left(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Those who wait stay in the backlog for a moment; it is said once, and does not keep the loop busy."""
    door = Door(bench)
    owner = bench.link()
    for _ in range(2):
        door.knock()
    with no_descriptors():
        bench.settle()
        owner.say((BINARY, b"a"))
        bench.settle()
        assert owner.heard == [("received", b"a")]
        (record,) = caplog.records
        assert "cannot accept" in record.message
        bench.pass_time(ACCEPT_PAUSE + 0.1)
        assert len(caplog.records) == 2
    bench.settle()
    assert door.owners == []
    bench.pass_time(ACCEPT_PAUSE + 0.1)
    assert len(door.owners) == 2
    assert len(caplog.records) == 2


@contextmanager
def no_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = socket.socket()
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe.fileno(), hard))
    probe.close()
    # Whatever number below that is free is taken.
    taken = []
    try:
        while True:
            taken.append(socket.socket())
    except OSError:
        pass
    yield
    for sock in taken:
        sock.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("code", [errno.EPERM, errno.EPROTO, errno.ENOBUFS])
def test_other_errors_pause_too(bench: Bench, caplog: pytest.LogCaptureFixture, code: int) -> None:
    door = Door(bench)
    door.sock.script["accept"] = [OSError(code, "no")]
    door.knock()
    bench.settle()
    assert len(caplog.records) == 1
    bench.pass_time(ACCEPT_PAUSE + 0.1)
    assert len(door.owners) == 1


def test_a_listening_socket_that_was_shut_down(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """It reports a hang-up all the time."""
    door = Door(bench)
    door.sock.shutdown(socket.SHUT_RDWR)
    bench.settle()
    assert len(caplog.records) == 1


def test_no_more_listening_in_a_pause(bench: Bench) -> None:
    door = Door(bench)
    bench.link()
    door.sock.script["accept"] = [OSError(errno.EMFILE, "too many")]
    door.knock()
    bench.settle()
    bench.engine.unlisten(door.acceptor)
    bench.pass_time(ACCEPT_PAUSE + 0.1)
    assert door.sock.fileno() == -1


def test_a_pause_that_ends_after_the_listening(bench: Bench) -> None:
    """Both are due in one tick, and the first to be called stops the listening."""
    doors = [Door(bench), Door(bench)]
    bench.link()
    for door in doors:
        door.sock.script["accept"] = [OSError(errno.EMFILE, "too many")]
        door.knock()
    bench.settle()
    for door in doors:
        # Whichever is called first.
        owner = bench.link(opened=False, open_deadline=door.acceptor.deadline())
        owner.on["opening_expired"] = partial(bench.engine.unlisten, door.acceptor)
    bench.pass_time(ACCEPT_PAUSE + 0.1)
    for door in doors:
        door.acceptor.expire(bench.engine.time())  # as if it had been due behind the other
        assert door.sock.fileno() == -1


def test_a_listening_socket_that_was_closed_in_a_pause(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A mistake of its owner, and of no other."""
    door = Door(bench)
    owner = bench.link(ping_interval=ACCEPT_PAUSE)
    door.sock.script["accept"] = [OSError(errno.EMFILE, "too many")]
    door.knock()
    bench.settle()
    door.sock.close()
    bench.pass_time(ACCEPT_PAUSE + 0.1)
    assert len(caplog.records) == 2
    assert owner.read_frames()


def test_who_cannot_be_taken_is_closed(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    door = Door(bench)
    accepted = door.accepted

    def fail_once(sock: socket.socket) -> None:
        door.acceptor.accepted = accepted
        raise ZeroDivisionError

    door.acceptor.accepted = fail_once
    first = door.knock()
    door.knock()
    bench.wait_until(lambda: door.owners)
    assert first.recv(1) == b""
    assert len(caplog.records) == 1


# The end.


def test_it_ends_with_the_last_link(bench: Bench) -> None:
    owners = [bench.link(), bench.link()]
    for owner in owners:
        assert not bench.engine.closed
        owner.peer.close()
        bench.settle()
    assert bench.engine.closed
    assert not bench.host.attached
    bench.tick()
    bench.engine.close()


def test_it_ends_with_the_last_listening_socket(bench: Bench) -> None:
    door = Door(bench)
    owner = bench.link()
    owner.link.abort("local", "test")
    assert not bench.engine.closed
    bench.engine.unlisten(door.acceptor)
    assert bench.engine.closed


def test_close_tells_the_peers(bench: Bench) -> None:
    door = Door(bench)
    owner, silent, closing, opening = bench.link(), bench.link(), bench.link(), bench.link(opened=False)
    fill = b"m" * (1 << 20)
    send(silent, fill)
    bench.settle()
    send(owner, b"last")
    closing.link.session.close(1000, "", bench.engine.time())
    owner.link.pause_reading()
    bench.host.soon.clear()
    bench.engine.close()
    assert owner.read_frames() == [*binary(b"last"), Frame(CLOSE, close_payload(1001))]
    assert closing.read_frames() == [Frame(CLOSE, close_payload(1000))]
    for each in (owner, silent, closing, opening):
        assert each.heard == [("ended", None)]
        assert each.link.session.error().who == "local"
    assert door.sock.fileno() == -1
    assert bench.host.soon == []
    assert bench.host.timer is None


def test_what_is_said_at_the_end_is_not_heard(bench: Bench) -> None:
    """An owner that is told of the end speaks to another: the host is asked for nothing more."""
    first, second = bench.link(), bench.link()
    first.on["ended"] = second.link.touch
    bench.engine.close()
    assert bench.host.soon == []


def test_engines_of_threads_have_nothing_in_common() -> None:
    """Each is one thread's own, as each has its poller, its buffer and its clock's last reading."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            bench = Bench()
            door = Door(bench)
            for _ in range(20):
                peer = door.knock()
                peer.sendall(b"\x82\x81\0\0\0\0x")
                bench.wait_until(lambda: door.owners and door.owners[-1].heard)
                assert door.owners.pop().heard == [("received", b"x")]
            bench.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_clock_is_monotonic_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for descriptor in bench.engine._epoll, -1:
        monkeypatch.setattr(bench.engine, "_epoll", descriptor)
        before = time.monotonic()
        now = Engine.time(bench.engine)
        assert before <= now <= time.monotonic()


def test_any_poller_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "system", object())
    bench = Bench()
    owner = bench.link()
    owner.on["received"] = lambda: send(owner, b"answer")
    owner.say((BINARY, b"a"))
    bench.tick()
    assert owner.read_frames() == binary(b"answer")
    owner.peer.close()
    bench.tick()
    assert bench.engine.closed
    bench.close()


def test_logs_go_to_one_logger(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    owner = bench.link()
    owner.on["received"] = lambda: 1 / 0
    owner.say((BINARY, b"a"))
    with caplog.at_level(logging.ERROR, "fullduplex.engine"):
        bench.settle()
    assert [record.name for record in caplog.records] == ["fullduplex.engine"]
