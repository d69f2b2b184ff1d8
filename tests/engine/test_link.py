"""One socket and the session on it: bytes in, bytes out, TLS, and every way it ends."""

from __future__ import annotations

import socket
import ssl
import struct
from typing import Any

import pytest

from engine.bench import Bench, Owner, Plain, Shaken
from fullduplex.engine.link import PROGRESS, Link
from fullduplex.engine.timers import RESOLUTION
from fullduplex.engine.tls import TLS
from fullduplex.wire.limits import Limits
from fullduplex.wire.opcodes import CLOSED, CLOSING, Close
from fullduplex.wire.rate import BURST, HEAD
from fullduplex.wire.session import HOLD, Session
from fullduplex.wire.transfer import Paced
from wire.frames import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT, Frame, close_payload, frame, read_frames

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection
MEBI = b"m" * (1 << 20)


def no_linger(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def binary(*payloads: bytes) -> list[Frame]:
    return [Frame(BINARY, payload) for payload in payloads]


def send(owner: Owner, payload: bytes) -> None:
    """Say something, as a face does."""
    owner.link.session.send(0x80 | BINARY, payload)
    owner.link.touch()


def tell(owners: list[Owner], payload: bytes) -> None:
    """Say the same to many, as a face does."""
    made = frame(BINARY, payload)
    for owner in owners:
        owner.link.send_shared(0x80 | BINARY, payload, made)


def close(owner: Owner) -> None:
    """Say goodbye, as a face does."""
    owner.link.session.close(1000, "", owner.link.engine.time())
    owner.link.attend()
    owner.link.touch()


def read_to_the_end(bench: Bench, owner: Owner) -> bytes:
    """What comes until the link is closed."""
    came = b""
    for _ in bench.steps():
        came += owner.read()
        if owner.link.is_closed():
            break
    return came


# Bytes in and out.


def test_messages_come_and_answers_leave_in_one_write(bench: Bench) -> None:
    owner = bench.link()

    def answer() -> None:
        assert owner.link.corked
        for payload in (b"1", b"2"):
            send(owner, payload)
        assert owner.read() == b""

    owner.on["received"] = answer
    owner.say((BINARY, b"a"), (TEXT, b"b"))
    bench.tick()
    assert owner.heard == [("received", b"a", "b")]
    assert owner.read_frames() == binary(b"1", b"2")
    assert bench.host.soon == []


def test_what_is_said_outside_a_tick_leaves_in_the_next_one(bench: Bench) -> None:
    owner = bench.link()
    send(owner, b"1")
    send(owner, b"2")
    assert owner.read() == b""
    assert len(bench.host.soon) == 1
    bench.settle()
    assert owner.read_frames() == binary(b"1", b"2")


def test_nothing_to_read_after_all(bench: Bench) -> None:
    owner = bench.link()
    for error in (BlockingIOError(), InterruptedError()):
        owner.script["recv_into"] = [error]
        owner.say((BINARY, b"a"))
        bench.tick()
        assert owner.heard == []
        bench.tick()
        assert owner.heard.pop() == ("received", b"a")


def test_the_opening_handshake_gets_its_bytes(bench: Bench) -> None:
    owner = bench.link(opened=False)
    assert owner.link.established
    owner.peer.send(b"GET")
    bench.tick()
    assert owner.heard == [("receive_opening", b"GET")]


def test_bytes_right_behind_the_opening_handshake(bench: Bench) -> None:
    owner = bench.link(opened=False)
    owner.link.open()
    owner.link.feed(b"")
    assert owner.heard == []
    owner.link.feed(b"\x82\x80\0\0\0\0")
    assert owner.heard == [("received", b"")]
    owner.link.feed(b"\x88\x80\0\0\0\0")
    assert owner.heard[1:] == ["noticed"]
    owner.link.feed(b"")
    assert owner.heard[2:] == []
    owner.link.touch()
    bench.settle()
    assert owner.heard[2:] == [("ended", None)]


def test_pongs_are_noticed(bench: Bench) -> None:
    owner = bench.link()
    ping = owner.link.session.ping(b"p", bench.engine.time())
    owner.say((PONG, ping))
    bench.tick()
    assert owner.heard == ["noticed"]
    assert owner.link.session.acknowledged == [(b"p", 0.0)]


# A frame that many are sent.


@pytest.mark.parametrize("secure", [False, True])
def test_what_many_are_sent_leaves_in_the_next_tick(bench: Bench, secure: bool) -> None:
    owner = shaken(bench)[0] if secure else bench.link()
    owner.read()
    tell([owner], b"to all")
    assert not owner.link.session.out
    assert owner.link.buffered() == len(frame(BINARY, b"to all"))
    bench.settle()
    assert owner.link.buffered() == 0
    assert owner.read() == frame(BINARY, b"to all")


def test_nothing_overtakes_it(bench: Bench) -> None:
    """Whatever is said, by whomever, and however it is written."""
    owner = bench.link()
    for payload in (b"1", b"2"):
        tell([owner], payload)
    send(owner, b"3")
    owner.link.session.ping(b"4", bench.engine.time())
    bench.settle()
    assert [frame.payload for frame in owner.read_frames()] == [b"1", b"2", b"3", b"4"]
    tell([owner], b"5")
    assert owner.link.session.send_head(0x80 | BINARY, 1)
    owner.link.flush_with(b"6")
    tell([owner], b"7")
    owner.say((PING, b"8"))
    bench.tick()
    tell([owner], b"9")
    close(owner)
    bench.settle()
    assert [frame.payload for frame in owner.read_frames()] == [b"5", b"6", b"7", b"8", b"9", close_payload(1000)]


def test_who_is_served_is_told_behind_what_was_said(bench: Bench) -> None:
    owner, other = bench.link(), bench.link()

    def answer() -> None:
        tell([owner, other], b"1")
        send(owner, b"2")
        tell([owner, other], b"3")

    owner.on["received"] = answer
    owner.say((BINARY, b"a"))
    bench.tick()
    assert owner.read_frames() == binary(b"1", b"2", b"3")
    assert other.read_frames() == binary(b"1", b"3")


def test_who_is_told_twice_stands_in_nobodys_way(bench: Bench) -> None:
    owners, other = [bench.link() for _ in range(3)], bench.link()
    tell(owners, b"1")
    tell(owners, b"2")
    send(other, b"a")
    assert bench.engine._dirty == [other.link]
    bench.tick()
    assert [owner.read_frames() for owner in owners] == [binary(b"1", b"2")] * 3
    tell(owners, b"3")
    bench.tick()
    assert [owner.read_frames() for owner in owners] == [binary(b"3")] * 3


def test_the_kernel_takes_a_part_of_what_many_are_sent(bench: Bench) -> None:
    owner, other = bench.link(), bench.link()
    owner.script["send"] = [3, BlockingIOError()]
    tell([owner, other], b"abcdef")
    bench.tick()
    assert owner.link.is_blocked()
    assert owner.link.buffered() == len(frame(BINARY, b"abcdef")) - 3
    tell([owner, other], b"g")
    send(owner, b"h")
    bench.settle()
    assert owner.read() == (frame(BINARY, b"abcdef") + frame(BINARY, b"g") + frame(BINARY, b"h"))[3:]
    assert other.read_frames() == binary(b"abcdef", b"g")


@pytest.mark.parametrize("large", [False, True])
def test_the_network_fails_under_what_many_are_sent(bench: Bench, large: bool) -> None:
    owner, other = bench.link(), bench.link()
    owner.script["send"] = [ConnectionResetError()]
    tell([owner, other], b"a")
    if large:
        owner.link.flush_with(MEBI)
    bench.settle()
    assert owner.heard == [("ended", "ConnectionResetError")]
    assert owner.link.buffered() == 0
    assert other.read_frames() == binary(b"a")


def unscripted(bench: Bench) -> Owner:
    """A link whose socket the compiled form writes to by itself."""
    sock, peer = socket.socketpair()
    for each in (sock, peer):
        each.setblocking(False)
    bench.peers.append(peer)
    owner = bench.link(sock=sock)
    owner.peer = peer
    return owner


def test_a_large_frame_for_many(bench: Bench) -> None:
    owners = [unscripted(bench) for _ in range(3)]
    tell(owners, MEBI)
    tell(owners[:1], b"a")
    bench.tick()
    assert all(owner.link.is_blocked() for owner in owners)
    came = [b""] * 3
    while any(owner.link.buffered() for owner in owners):
        came = [data + owner.read() for data, owner in zip(came, owners, strict=True)]
        bench.settle()
    came = [data + owner.read() for data, owner in zip(came, owners, strict=True)]
    assert came == [frame(BINARY, MEBI) + frame(BINARY, b"a"), frame(BINARY, MEBI), frame(BINARY, MEBI)]


def test_the_peer_is_gone_when_many_are_told(bench: Bench) -> None:
    owner, other = unscripted(bench), unscripted(bench)
    owner.link.pause_reading()  # it is not seen before
    owner.peer.close()
    tell([owner, other], b"a")
    bench.settle()
    assert owner.heard == [("ended", "BrokenPipeError")]
    assert other.read_frames() == binary(b"a")


def test_who_is_paced_or_a_client_shares_no_frame(bench: Bench) -> None:
    paced, client = bench.link(extension=Paced(1000.0)), bench.link(server=False)
    tell([paced, client], b"a")
    bench.settle()
    for owner in (paced, client):
        (came,) = owner.read_frames()
        assert came.payload == b"a"


# A kernel that takes no more.


def test_what_the_kernel_does_not_take_waits(bench: Bench) -> None:
    owner = bench.link()
    owner.link.low_water = 100
    owner.link.draining = True
    send(owner, MEBI)
    bench.settle()
    assert owner.link.session.blocked
    send(owner, b"more")
    bench.settle()
    assert owner.link.buffered() > 100
    assert owner.heard == []
    came = b""
    while len(came) < len(MEBI):
        came += owner.read()
        bench.settle()
    came += owner.read()
    assert came.endswith(b"m\x82\x04more")
    assert owner.heard == ["drained"]
    assert owner.link.buffered() == 0
    assert not owner.link.session.blocked
    assert not owner.link.draining


@pytest.mark.parametrize("error", [BlockingIOError, InterruptedError])
def test_a_kernel_that_takes_nothing(bench: Bench, error: type[OSError]) -> None:
    owner = bench.link()
    owner.script["send"] = [error(), error(), error()]
    send(owner, b"payload")
    bench.settle()
    assert owner.read_frames() == binary(b"payload")
    assert owner.link.unsent is None


def test_a_pong_does_not_wait_behind_what_came_later(bench: Bench) -> None:
    owner = bench.link()
    owner.script["send"] = [BlockingIOError()]
    send(owner, b"first")
    bench.tick()
    owner.say((PING, b"1"), (PING, b"2"))
    send(owner, b"later")
    owner.link.readable()
    bench.settle()
    assert owner.read_frames() == [*binary(b"first"), Frame(PONG, b"2"), *binary(b"later")]


def test_not_drained_while_much_waits(bench: Bench) -> None:
    owner = bench.link()
    owner.link.draining = True
    owner.script["send"] = [BlockingIOError(), 0]
    send(owner, b"payload")
    bench.tick()
    bench.tick()
    assert owner.heard == []
    bench.settle()
    assert owner.heard == ["drained"]


@pytest.mark.parametrize("at", [0, 1])
def test_the_network_fails_while_writing(bench: Bench, at: int) -> None:
    owner = bench.link()
    owner.link.draining = True
    owner.script["send"] = [BlockingIOError()] * at + [ConnectionResetError(104, "reset")]
    send(owner, b"payload")
    bench.settle()
    assert owner.heard == [("ended", "ConnectionResetError")]
    error = owner.link.session.error()
    assert error.who == "network"
    assert "reset" in error.detail


# Reading stops and goes on.


def test_paused_reading(bench: Bench) -> None:
    owner = bench.link()
    owner.link.pause_reading()
    owner.link.pause_reading()
    assert owner.link.session.paused
    owner.say((BINARY, b"a"))
    bench.settle()
    assert owner.heard == []
    owner.link.resume_reading()
    owner.link.resume_reading()
    bench.settle()
    assert owner.heard == [("received", b"a")]


def test_a_hang_up_while_reading_is_paused(bench: Bench) -> None:
    """It is reported all the time, and must not keep the loop busy; what came before it is read in the end."""
    owner = bench.link()
    owner.link.pause_reading()
    owner.say((BINARY, b"a"))
    owner.peer.close()
    bench.settle()
    assert owner.heard == []
    owner.link.resume_reading()
    bench.settle()
    assert owner.heard == [("received", b"a"), ("ended", None)]
    assert owner.link.session.error().who == "remote"


def test_a_hang_up_while_reading_is_paused_and_something_is_said(bench: Bench) -> None:
    owner = bench.link()
    owner.link.pause_reading()
    owner.peer.close()
    bench.settle()
    send(owner, b"payload")
    bench.settle()
    assert owner.heard == [("ended", "BrokenPipeError")]


def test_a_hang_up_while_reading_is_paused_and_bytes_wait(bench: Bench) -> None:
    owner = bench.link()
    owner.link.pause_reading()
    send(owner, MEBI)
    bench.settle()
    owner.peer.close()
    bench.settle()
    assert owner.heard == [("ended", "BrokenPipeError")]


def test_a_paused_link_that_was_hung_up_is_aborted(bench: Bench) -> None:
    owner = bench.link()
    bench.link()
    owner.link.pause_reading()
    owner.peer.close()
    bench.settle()
    owner.link.abort("local", "test")
    owner.link.pause_reading()
    owner.link.resume_reading()
    assert owner.heard == [("ended", None)]


# A peer that does not read.

UNSENT = 1 << 18
STUCK = Limits(unsent=UNSENT, unsent_for=10)


def test_a_peer_that_does_not_read_is_cut_off(bench: Bench) -> None:
    owner = bench.link(limits=STUCK)
    send(owner, MEBI)
    bench.settle()
    bench.pass_time(9.9)
    send(owner, b"more")
    bench.settle()
    assert owner.heard == []
    waiting = owner.link.buffered()
    bench.pass_time(0.2)
    assert owner.heard == [("ended", None)]
    assert owner.link.session.limit == "unsent"
    error = owner.link.session.error()
    assert (error.who, error.code) == ("remote", 1006)
    assert f"the peer does not read: {waiting} bytes wait for it" in error.detail


def test_less_may_wait_for_ever(bench: Bench) -> None:
    owner = bench.link(limits=STUCK)
    owner.script["send"] = [BlockingIOError(), *[0] * 100]
    send(owner, bytes(UNSENT - 10))
    bench.tick()
    for _ in range(3):
        bench.engine.clock += 10
        bench.tick()
    assert owner.heard == []
    assert owner.link.buffered() == UNSENT


@pytest.mark.parametrize(("taken", "is_cut_off"), [(UNSENT // PROGRESS, False), (UNSENT // PROGRESS - 1, True)])
def test_a_peer_that_reads_slowly(bench: Bench, taken: int, is_cut_off: bool) -> None:
    """A large message takes a slow line its time. Who trickles, to have us hold it, does not read."""
    owner = bench.link(limits=STUCK)
    owner.script["send"] = [BlockingIOError()]
    send(owner, bytes(3 * UNSENT))
    bench.tick()
    for _ in range(10):
        bench.engine.clock += 9.9
        owner.script["send"] = [taken]
        bench.tick()
        owner.script["send"] = [0]
        bench.engine.clock += 0.2
        bench.tick()
    assert owner.link.is_closed() == is_cut_off


def test_a_peer_that_reads_less_than_is_sent(bench: Bench) -> None:
    """However much it reads: what waits for it must not grow without end."""
    owner = bench.link(limits=STUCK)
    owner.script["send"] = [BlockingIOError()]
    send(owner, bytes(2 * UNSENT))
    bench.tick()
    for _ in range(4):
        bench.engine.clock += 2.6
        send(owner, bytes(UNSENT // 2))
        owner.script["send"] = [UNSENT // 2]
        bench.tick()
    assert owner.link.session.limit == "unsent"


def test_a_peer_that_reads_again_in_time(bench: Bench) -> None:
    owner = bench.link(limits=STUCK)
    owner.script["send"] = [BlockingIOError()]
    for _ in range(2):
        send(owner, bytes(2 * UNSENT))
        bench.tick()
        bench.engine.clock += 9
        for _ in bench.steps():  # it reads ...
            owner.read()
            if not owner.link.buffered():
                break
        owner.script["send"] = [BlockingIOError()]  # ... and not what comes next
    bench.pass_time(9)
    assert not owner.link.is_closed()


def test_the_first_limit_that_was_broken_is_told(bench: Bench) -> None:
    owner = bench.link(limits=Limits(unsent=UNSENT, unsent_for=5, messages_per_second=1, over_rate="close"))
    send(owner, MEBI)
    owner.say((BINARY, b"a"), (BINARY, b"b"))
    bench.settle()
    bench.pass_time(6)
    assert owner.link.is_closed()
    assert owner.link.session.limit == "messages_per_second"
    assert owner.link.session.error().detail == "more than 1 messages a second"


def test_what_the_peer_takes_is_a_sign_of_life(bench: Bench) -> None:
    """It cannot answer a ping that stands behind a large message before it has all of that."""
    owner = bench.link(ping_interval=20, ping_timeout=5)
    owner.script["send"] = [BlockingIOError()]
    send(owner, MEBI)
    bench.tick()
    bench.engine.clock += 20.1
    owner.script["send"] = [0]
    bench.tick()
    for _ in range(3):
        bench.engine.clock += 5.1
        owner.script["send"] = [1000]
        bench.tick()
    assert not owner.link.is_closed()
    bench.engine.clock += 20
    owner.script["send"] = [0]
    bench.tick()
    bench.engine.clock += 5.1
    owner.script["send"] = [0]
    bench.tick()
    assert "keepalive" in owner.link.session.error().detail


# Reading no faster than a limit.


def resting(bench: Bench, **limits: Any) -> Owner:
    """A link that reads 2000 bytes a second and has read 3000: it goes on in half a second."""
    owner = bench.link(limits=Limits(bytes_per_second=2000, **limits))
    owner.say((BINARY, bytes(2992)))
    bench.settle()
    assert owner.heard == [("received", bytes(2992)), "noticed"]
    assert owner.link.session.paused
    owner.heard.clear()
    return owner


def test_a_rate_is_kept_by_resting(bench: Bench) -> None:
    rate, count = 10_000, 100
    owner = bench.link(limits=Limits(bytes_per_second=rate))
    messages = [bytes([n]) * 992 for n in range(count)]  # 1000 bytes each, with their heads
    owner.say(*((BINARY, message) for message in messages))
    bench.settle()
    for seconds in bench.steps():
        came = [message for heard in owner.heard if heard != "noticed" for message in heard[1:]]
        # A second's worth may come at once, and so much is read at once.
        assert 1000 * len(came) <= rate * (seconds + 2)
        if len(came) == count:
            break
    assert came == messages
    assert 8 <= seconds <= 10


def test_resting_and_paused(bench: Bench) -> None:
    """It reads on when neither of both holds any more."""
    owner = resting(bench)
    owner.link.pause_reading()
    owner.say((BINARY, b"a"))
    bench.pass_time(1)
    assert owner.heard == []
    owner.link.resume_reading()
    bench.settle()
    assert owner.heard == [("received", b"a")]
    owner = resting(bench)
    owner.link.pause_reading()
    owner.say((BINARY, b"a"))
    owner.link.resume_reading()
    bench.settle()
    assert owner.heard == []
    bench.pass_time(1)
    assert owner.heard == [("received", b"a")]


def test_a_ping_is_answered_after_the_rest(bench: Bench) -> None:
    owner = resting(bench)
    owner.say((PING, b"p"))
    bench.settle()
    assert owner.read() == b""
    bench.pass_time(1)
    assert owner.read_frames() == [Frame(PONG, b"p")]


def test_an_answer_that_takes_longer_than_the_rest_would(bench: Bench) -> None:
    owner = bench.link(limits=Limits(messages_per_second=1))

    def think() -> None:
        bench.engine.clock += 5

    owner.on["received"] = think
    owner.say(*[(BINARY, b"a")] * 5)
    bench.settle()
    assert not owner.link.session.paused


def test_a_hang_up_while_resting(bench: Bench) -> None:
    """It is reported all the time, and must not keep the loop busy; what came before it is read in the end."""
    owner = resting(bench)
    owner.say((BINARY, b"a"))
    owner.peer.close()
    bench.settle()
    assert owner.heard == []
    bench.pass_time(1)
    assert owner.heard == [("received", b"a"), ("ended", None)]


def test_the_peer_says_goodbye_while_resting(bench: Bench) -> None:
    owner = resting(bench)
    owner.say((CLOSE, b""))
    owner.peer.shutdown(socket.SHUT_WR)
    bench.settle()
    assert owner.heard == []
    bench.pass_time(1)
    assert owner.heard == ["noticed", ("ended", None)]
    assert owner.read_frames() == [Frame(CLOSE, b"")]


def test_the_owner_says_goodbye_while_resting(bench: Bench) -> None:
    owner = resting(bench)
    close(owner)
    bench.settle()
    assert owner.read_frames() == [Frame(CLOSE, close_payload(1000))]
    owner.say((CLOSE, close_payload(1000)))
    bench.pass_time(1)
    assert owner.heard[-1] == ("ended", None)
    assert owner.link.session.error().rcvd == Close(1000)


def test_aborted_while_resting(bench: Bench) -> None:
    owner = resting(bench)
    bench.link()
    owner.link.abort("local", "test")
    bench.pass_time(1)
    assert owner.heard == [("ended", None)]


def test_a_limit_that_closes(bench: Bench) -> None:
    """What came is answered first."""
    owner = bench.link(limits=Limits(messages_per_second=2, over_rate="close"))
    owner.on["received"] = lambda: send(owner, b"answer")
    owner.say(*[(BINARY, b"a")] * 3)
    bench.settle()
    assert owner.read_frames() == [
        *binary(b"answer"),
        Frame(CLOSE, close_payload(1008, "more than 2 messages a second")),
    ]
    assert owner.is_eof()


# Sending no faster than the peer wants.

RATE = 10_000


def paced(bench: Bench, **settings: Any) -> Owner:
    return bench.link(extension=Paced(RATE), **settings)


def spend_burst(bench: Bench, owner: Owner) -> None:
    """What is sent from now on waits, whatever its size."""
    send(owner, bytes(int(RATE * BURST)))
    bench.settle()
    owner.read()
    assert owner.link.buffered()


def test_what_the_peer_wants_later_waits(bench: Bench) -> None:
    owner = paced(bench)
    payload = bytes(range(250)) * (2 * RATE // 250)
    send(owner, payload)
    owner.link.low_water = RATE
    owner.link.draining = True
    bench.settle()
    frames: list[Frame] = []
    for seconds in bench.steps():
        frames += owner.read_frames()
        size = sum(len(each.payload) for each in frames)
        assert size + HEAD * len(frames) <= RATE * (seconds + BURST)
        assert owner.link.buffered() == (len(payload) - size + HEAD if size < len(payload) else 0)
        assert owner.heard == (["drained"] if owner.link.buffered() <= RATE else [])
        if size == len(payload):
            break
    assert b"".join(each.payload for each in frames) == payload
    assert [each.opcode for each in frames] == [BINARY] + [CONT] * (len(frames) - 1)
    assert [each.fin for each in frames] == [False] * (len(frames) - 1) + [True]
    assert seconds < 2 * 1.1


def test_pings_and_pongs_do_not_wait(bench: Bench) -> None:
    owner = paced(bench)
    spend_burst(bench, owner)
    owner.link.session.ping(b"ours", bench.engine.time())
    owner.say((PING, b"theirs"))
    bench.tick()
    assert owner.read_frames() == [Frame(PING, b"ours"), Frame(PONG, b"theirs")]


def test_what_is_said_while_served_has_its_turn(bench: Bench) -> None:
    """At the end of the read all of it waits, and nothing is in `out`."""
    owner = paced(bench)
    owner.on["received"] = lambda: send(owner, bytes(RATE // 2))
    owner.say((BINARY, b"a"))
    bench.tick()
    assert owner.link.buffered() < RATE // 2
    for _ in bench.steps():
        if not owner.link.buffered():
            break
    assert sum(len(each.payload) for each in owner.read_frames()) == RATE // 2


def test_much_waits_for_a_moment_only(bench: Bench) -> None:
    """An owner who stopped because of it hears that it has left."""
    owner = paced(bench)

    def answer() -> None:
        send(owner, bytes(500))
        owner.link.pause_reading()
        owner.link.draining = True

    owner.on["received"] = answer
    owner.on["drained"] = owner.link.resume_reading
    owner.say((BINARY, b"a"))
    bench.tick()
    assert owner.heard == [("received", b"a"), "drained"]
    assert owner.link.reading


def test_a_goodbye_goes_behind_what_waits(bench: Bench) -> None:
    owner = paced(bench, close_timeout=5)
    send(owner, bytes(10 * RATE))
    close(owner)
    bench.settle()
    frames = read_to_the_goodbye(bench, owner)
    assert sum(len(each.payload) for each in frames[:-1]) == 10 * RATE
    assert frames[-1] == Frame(CLOSE, close_payload(1000))
    owner.say((CLOSE, close_payload(1000)))
    bench.settle()
    assert owner.heard[-1] == ("ended", None)
    assert owner.link.session.error().rcvd == Close(1000)


def read_to_the_goodbye(bench: Bench, owner: Owner) -> list[Frame]:
    frames: list[Frame] = []
    for _ in bench.steps():
        frames += owner.read_frames()
        if frames and frames[-1].opcode == CLOSE:
            break
    return frames


@pytest.mark.parametrize("server", [True, False])
@pytest.mark.parametrize("half_closed", [True, False])
def test_a_goodbye_is_answered_before_what_waits(bench: Bench, server: bool, half_closed: bool) -> None:
    owner = paced(bench, server=server)
    send(owner, bytes(RATE))
    bench.settle()
    owner.peer.send(frame(CLOSE, close_payload(1000), key=KEY if server else None))
    if half_closed:
        owner.peer.shutdown(socket.SHUT_WR)
    bench.settle()
    frames = read_to_the_goodbye(bench, owner)
    assert sum(len(each.payload) for each in frames) < RATE
    assert (frames[-1].opcode, frames[-1].payload) == (CLOSE, close_payload(1000))
    # A client that does not know yet that there is no more to read waits for it (section 7.1.1).
    assert owner.link.is_closed() == (server or half_closed)
    assert owner.link.session.error().rcvd == owner.link.session.error().sent == Close(1000)


def test_a_failure_sends_nothing_of_what_waits(bench: Bench) -> None:
    owner = paced(bench)
    send(owner, bytes(10 * RATE))
    bench.settle()
    owner.read()
    owner.say((3, b""))
    bench.settle()
    bench.pass_time(RESOLUTION)
    (goodbye,) = owner.read_frames()
    assert goodbye.payload[:2] == b"\x03\xea"
    assert owner.is_eof()


def test_a_kernel_that_takes_nothing_of_what_may_be_sent(bench: Bench) -> None:
    """Deadlines pass meanwhile, which must not keep the loop busy; nothing overtakes, nothing is lost."""
    owner = paced(bench)
    payload = bytes(range(200)) * (RATE // 200)
    owner.script["send"] = [BlockingIOError(), *[0] * 1000]
    send(owner, payload)
    for _ in range(100):
        bench.engine.clock += RESOLUTION / 2
        bench.tick()
        assert bench.engine.wheel.next() > bench.engine.clock
    assert owner.link.unsent is not None
    owner.say((PING, b"p"))
    bench.tick()
    owner.script["send"].clear()
    bench.settle()
    frames = owner.read_frames()
    assert b"".join(each.payload for each in frames if each.opcode != PONG) == payload
    assert frames.index(Frame(PONG, b"p")) < len(frames) - 1
    assert owner.link.buffered() == 0


def test_the_end_while_much_waits(bench: Bench) -> None:
    """Who waits to send must not wait for ever."""
    owner = paced(bench)
    bench.link()
    send(owner, bytes(10 * RATE))
    bench.settle()
    assert owner.link.is_blocked()
    owner.link.abort("local", "test")
    assert owner.link.buffered() == 0
    assert not owner.link.is_blocked()
    bench.pass_time(5)
    assert owner.heard == [("ended", None)]


@pytest.mark.parametrize(("unsent", "is_cut_off"), [(RATE, False), (20 * 10 * RATE, True)])
def test_a_peer_that_wants_next_to_nothing(bench: Bench, unsent: int, is_cut_off: bool) -> None:
    """What waits for it must not grow without end either."""
    owner = paced(bench, limits=Limits(unsent=unsent, unsent_for=10))
    send(owner, bytes(unsent + 12 * RATE))
    for _ in range(11):
        bench.pass_time(1)
        owner.read()
    assert owner.link.is_closed() == is_cut_off


# The end.


def test_the_peer_ends_tcp(bench: Bench) -> None:
    owner = bench.link()
    owner.peer.shutdown(socket.SHUT_WR)
    bench.settle()
    assert owner.heard == [("ended", None)]
    assert owner.link.is_closed()
    error = owner.link.session.error()
    assert (error.who, error.code) == ("remote", 1006)
    assert "without a close frame" in error.detail


def test_the_peer_resets_tcp(bench: Bench) -> None:
    sock, peer = bench.tcp()
    owner = bench.link(sock=sock)
    no_linger(peer)
    bench.wait()
    assert owner.heard == [("ended", "ConnectionResetError")]
    assert owner.link.session.error().who == "network"


def test_a_server_ends_tcp_after_both_close_frames(bench: Bench) -> None:
    """RFC 6455, section 7.1.1."""
    owner = bench.link()
    owner.on["received"] = lambda: send(owner, b"answer")
    owner.say((BINARY, b"a"), (CLOSE, close_payload(1001)), (BINARY, b"late"))
    bench.settle()
    assert owner.heard == [("received", b"a"), "noticed", ("ended", None)]
    assert owner.read_frames() == [*binary(b"answer"), Frame(CLOSE, close_payload(1001))]
    assert owner.is_eof()


def test_a_server_ends_tcp_once_all_is_sent(bench: Bench) -> None:
    owner = bench.link()
    send(owner, MEBI)
    bench.settle()
    owner.say((CLOSE, b""))
    bench.settle()
    assert owner.link.session.state is CLOSING
    assert read_to_the_end(bench, owner).endswith(MEBI + b"\x88\x00")


def test_a_verdict_waits_for_messages_to_be_taken(bench: Bench) -> None:
    """The peer has ended its half of TCP meanwhile; the answers still go to the other one."""
    owner = bench.link()
    owner.behind = True
    owner.say((BINARY, b"a"), (CLOSE, b""))
    owner.peer.shutdown(socket.SHUT_WR)
    bench.settle()
    send(owner, b"answer")
    bench.settle()
    assert owner.read_frames() == binary(b"answer")
    owner.behind = False
    owner.link.attend()
    owner.link.touch()
    bench.settle()
    assert owner.read_frames() == [Frame(CLOSE, b"")]
    assert owner.heard[-1] == ("ended", None)


def test_a_verdict_does_not_wait_for_ever(bench: Bench) -> None:
    owner = bench.link()
    owner.behind = True
    owner.say((BINARY, b"a"), (CLOSE, b""))
    bench.settle()
    bench.pass_time(HOLD + RESOLUTION)
    owner.behind = False
    bench.pass_time(HOLD)
    assert owner.read_frames() == [Frame(CLOSE, b"")]


def test_the_network_fails_after_the_end_of_what_came(bench: Bench) -> None:
    owner = bench.link()
    owner.peer.shutdown(socket.SHUT_WR)
    send(owner, b"payload")
    owner.script["send"] = [BrokenPipeError(32, "broken")]
    bench.tick()
    assert owner.heard == [("ended", "BrokenPipeError")]


def test_a_client_waits_for_the_end_of_tcp(bench: Bench) -> None:
    owner = bench.link(server=False, close_timeout=5)
    close(owner)
    bench.settle()
    owner.peer.send(b"\x88\x02\x03\xe8")
    bench.settle()
    assert owner.link.session.over
    assert not owner.link.is_closed()
    bench.pass_time(6)
    assert owner.link.is_closed()
    assert owner.link.session.error().rcvd == Close(1000)


def test_a_silent_peer_in_the_closing_handshake(bench: Bench) -> None:
    owner = bench.link(close_timeout=5)
    close(owner)
    bench.pass_time(1)
    assert not owner.link.is_closed()
    bench.pass_time(5)
    assert owner.heard[-1] == ("ended", None)
    assert "closing handshake" in owner.link.session.error().detail


def test_a_failure_ends_only_our_half(bench: Bench) -> None:
    """What the peer still sends is read and dropped: else the kernel would reset, and our close frame be lost."""
    owner = bench.link()
    owner.say((3, b""))
    bench.settle()
    assert owner.read_frames()[0].payload[:2] == b"\x03\xea"
    assert owner.is_eof()
    assert not owner.link.is_closed()
    owner.say((BINARY, b"a" * 1000))
    bench.settle()
    assert owner.heard == ["noticed"]
    owner.peer.close()
    bench.settle()
    assert owner.heard == ["noticed", ("ended", None)]


def test_a_failure_while_reading_is_paused(bench: Bench) -> None:
    owner = bench.link()
    owner.on["received"] = owner.link.pause_reading
    owner.say((BINARY, b"a"), (3, b""))
    bench.settle()
    assert owner.link.reading
    owner.peer.close()
    bench.settle()
    assert owner.link.is_closed()


def test_a_peer_that_does_not_end_tcp_after_a_failure(bench: Bench) -> None:
    owner = bench.link(close_timeout=5)
    owner.say((3, b""))
    bench.settle()
    bench.pass_time(6)
    assert owner.link.is_closed()
    assert owner.link.session.error().rcvd is None


def test_half_closing_what_is_closed_already(bench: Bench) -> None:
    owner = bench.link()
    owner.script["shutdown"] = [OSError(107, "not connected")]
    owner.say((3, b""))
    bench.settle()
    assert owner.heard == ["noticed", ("ended", "OSError")]


def test_abort(bench: Bench) -> None:
    owner = bench.link()
    send(owner, b"lost")
    owner.link.abort("local", "test")
    owner.link.abort("remote", "again")
    bench.settle()
    assert owner.heard == [("ended", None)]
    assert owner.read() == b""
    assert (owner.link.session.error().who, owner.link.session.error().detail) == ("local", "test")


def test_what_is_closed_can_be_paused(bench: Bench) -> None:
    owner = bench.link()
    bench.link()
    owner.link.abort("local", "test")
    owner.link.pause_reading()
    owner.link.touch()
    bench.settle()
    assert owner.heard == [("ended", None)]


def test_tcp_cannot_be_established(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
    sock = Plain(socket.socket().detach())
    owner = bench.link(sock=sock, opened=False, address=address)
    bench.wait_until(owner.link.is_closed)
    assert owner.heard == [("ended", "ConnectionRefusedError")]
    assert "cannot connect" in owner.link.session.error().detail


def test_an_owner_that_aborts_hears_nothing_more(bench: Bench) -> None:
    owner = bench.link()
    owner.on["received"] = lambda: owner.link.abort("local", "test")
    owner.say((BINARY, b"a"), (CLOSE, b""))
    bench.settle()
    assert owner.heard == [("received", b"a"), ("ended", None)]


def test_finish_sends_what_waits_first(bench: Bench) -> None:
    owner = bench.link(opened=False)
    owner.link.session.out += b"HTTP/1.1 404"
    owner.link.finish(bench.engine.time() + 5)
    bench.settle()
    assert owner.read() == b"HTTP/1.1 404"
    assert owner.is_eof()
    owner.peer.send(b"more of the request")
    bench.settle()
    assert owner.heard == []
    owner.peer.close()
    bench.settle()
    assert owner.heard == [("ended", None)]


def test_finish_ends_though_the_peer_does_not(bench: Bench) -> None:
    """Nothing else had set a timer: no deadline was known before."""
    owner = bench.link(opened=False)
    owner.link.finish(bench.engine.time() + 5)
    bench.settle()
    bench.pass_time(6)
    assert owner.heard == [("ended", None)]
    assert owner.link.session.error().detail == "the peer did not end TCP"


def test_finish_gives_more_time(bench: Bench) -> None:
    owner = bench.link(opened=False, open_deadline=bench.engine.time() + 10)
    bench.pass_time(9)
    owner.link.finish(bench.engine.time() + 5)
    bench.pass_time(2)
    assert owner.heard == []
    bench.pass_time(5)
    assert owner.heard == [("ended", None)]


def test_finish_while_served(bench: Bench) -> None:
    owner = bench.link(opened=False)

    def refuse() -> None:
        owner.link.session.out += b"HTTP/1.1 400"
        owner.link.finish(bench.engine.time() + 5)

    owner.on["receive_opening"] = refuse
    owner.peer.send(b"GET")
    bench.tick()
    assert owner.read() == b"HTTP/1.1 400"
    assert owner.is_eof()


def test_finish_after_the_end(bench: Bench) -> None:
    owner = bench.link(opened=False)
    bench.link()
    owner.link.abort("local", "test")
    owner.link.finish(bench.engine.time() + 5)
    bench.pass_time(6)
    assert owner.heard == [("ended", None)]


# Time.


def test_the_opening_handshake_takes_too_long(bench: Bench) -> None:
    owner = bench.link(opened=False, open_deadline=bench.engine.time() + 10)
    bench.pass_time(9)
    assert owner.heard == []
    bench.pass_time(2)
    assert owner.heard == ["opening_expired"]


def test_an_opening_deadline_is_nothing_to_an_open_session(bench: Bench) -> None:
    owner = bench.link(opened=False, open_deadline=bench.engine.time() + 10)
    owner.link.open()
    bench.pass_time(11)
    assert owner.heard == []
    assert owner.link.deadline() == float("inf")


def test_keepalive(bench: Bench) -> None:
    owner = bench.link(ping_interval=20, ping_timeout=5)
    bench.pass_time(20.1)
    (ping,) = owner.read_frames()
    assert ping.opcode == PING
    owner.say((PONG, ping.payload))
    bench.pass_time(1)
    assert owner.heard == ["noticed"]
    bench.pass_time(19.1)
    assert [frame.opcode for frame in owner.read_frames()] == [PING]
    bench.pass_time(5.1)
    assert owner.heard == ["noticed", ("ended", None)]
    assert owner.read_frames() == [Frame(CLOSE, close_payload(1011, "keepalive ping timeout"))]
    assert "keepalive" in owner.link.session.error().detail


def test_a_keepalive_that_fails_and_cannot_say_so(bench: Bench) -> None:
    owner = bench.link(ping_interval=20, ping_timeout=5)
    bench.pass_time(20.1)
    owner.script["send"] = [BrokenPipeError(32, "broken")]
    bench.pass_time(5.1)
    assert owner.heard == [("ended", "BrokenPipeError")]
    assert "keepalive" in owner.link.session.error().detail


def test_a_slot_that_comes_before_the_deadline(bench: Bench) -> None:
    owner = bench.link(opened=False, open_deadline=bench.engine.time() + 10, close_timeout=15)
    owner.link.open()
    owner.link.session.close(1000, "", bench.engine.time())
    owner.link.touch()
    bench.pass_time(11)
    assert not owner.link.is_closed()
    bench.pass_time(5)
    assert owner.link.is_closed()


def test_a_loop_that_was_blocked_reads_before_it_looks_at_the_clock(bench: Bench) -> None:
    owner = bench.link(ping_interval=20, ping_timeout=5)
    bench.pass_time(20.1)
    owner.say((PONG, owner.read_frames()[0].payload))
    bench.pass_time(60)
    assert not owner.link.is_closed()


def test_expired_after_the_end(bench: Bench) -> None:
    owner = bench.link()
    owner.link.abort("local", "test")
    owner.link.expire(bench.engine.time())
    assert owner.heard == [("ended", None)]


# TLS, scripted: what OpenSSL may answer, and a peer can make it answer.


def shaken(bench: Bench, **settings: Any) -> tuple[Owner, Shaken]:
    """A link whose TLS is up."""
    openssl = Shaken()
    owner = bench.link(tls=openssl, opened=False, **settings)
    owner.link.flush()  # not before TLS is up
    owner.peer.send(b"hello")
    bench.tick()
    assert owner.heard.pop() == "ready"
    owner.link.open()
    bench.settle()
    assert owner.read() == b"hello"
    return owner, openssl


def tls_of(owner: Owner) -> TLS:
    assert owner.link.tls is not None
    return owner.link.tls


EMPTY = frame(BINARY, b"", key=KEY)


def test_the_handshake_wants_this_and_that(bench: Bench) -> None:
    owner = bench.link(tls=Shaken(), opened=False)

    def ask() -> None:
        owner.link.session.out += b"GET"

    owner.on["ready"] = ask
    owner.script["send"] = [BlockingIOError(), BlockingIOError(), BlockingIOError()]
    owner.peer.send(b"hel")
    bench.tick()
    assert tls_of(owner).wants_write
    bench.tick()
    assert tls_of(owner).wants_write
    bench.tick()
    bench.tick()
    assert not tls_of(owner).wants_write
    assert owner.heard == []
    owner.peer.send(b"lo")
    bench.tick()
    assert owner.heard == ["ready"]
    assert owner.read() == b"helloGET"


def test_the_handshake_does_not_spin_while_it_cannot_write(bench: Bench) -> None:
    owner = bench.link(tls=Shaken(), opened=False)
    fill(owner.link.sock)
    owner.peer.send(b"hel")
    bench.settle()
    owner.peer.send(b"lo")
    bench.settle()
    assert owner.heard == []
    owner.read()
    bench.settle()
    assert owner.heard == ["ready"]
    assert owner.read() == b"hello"


def fill(sock: socket.socket) -> None:
    """Until the kernel takes no more."""
    try:
        while True:
            socket.socket.send(sock, MEBI)
    except BlockingIOError:
        pass


def test_the_handshake_fails(bench: Bench) -> None:
    """The peer learns why by an alert: what OpenSSL has to say still leaves."""
    openssl = Shaken()
    owner = bench.link(tls=openssl, opened=False)
    openssl.script["do_handshake"] = [ssl.SSLWantReadError(), ssl.SSLError(1, "no shared cipher")]
    owner.peer.send(b"x")
    bench.tick()
    openssl.outgoing.write(b"alert")
    owner.script["send"] = [BlockingIOError()]
    owner.peer.send(b"x")
    bench.tick()
    bench.settle()
    assert owner.heard == [("ended", "SSLError")]
    assert "no shared cipher" in owner.link.session.error().detail
    assert owner.read() == b"helloalert"


def test_an_owner_that_aborts_when_tls_is_up(bench: Bench) -> None:
    owner = bench.link(tls=Shaken(), opened=False)
    owner.on["ready"] = lambda: owner.link.abort("local", "test")
    owner.peer.send(b"hello")
    bench.settle()
    assert owner.heard == ["ready", ("ended", None)]


def test_reading_wants_to_write(bench: Bench) -> None:
    """A peer that has keys updated and does not read: TLS waits for it, and does not spin."""
    owner, openssl = shaken(bench)
    fill(owner.link.sock)
    openssl.outgoing.write(b"keys")
    owner.peer.send(EMPTY)
    bench.settle()
    assert tls_of(owner).wants_write
    owner.link.engine.serve_again(owner.link)
    owner.peer.send(EMPTY)
    bench.settle()
    assert owner.heard == [("received", b"")]
    owner.read()
    bench.settle()
    assert not tls_of(owner).wants_write
    assert owner.heard == [("received", b""), ("received", b"")]
    assert owner.read() == b"keys"


def test_reading_wants_to_write_while_paused(bench: Bench) -> None:
    """It is no hang-up: what is to be written must leave."""
    owner, openssl = shaken(bench)
    owner.on["received"] = owner.link.pause_reading
    owner.script["send"] = [BlockingIOError()]
    openssl.outgoing.write(b"keys")
    owner.peer.send(EMPTY)
    bench.tick()
    assert tls_of(owner).wants_write
    send(owner, b"payload")
    bench.settle()
    assert owner.read() == b"keys\x82\x07payload"
    assert not tls_of(owner).wants_write
    assert not owner.link.reading


def test_reading_wants_to_write_to_nobody(bench: Bench) -> None:
    owner, openssl = shaken(bench)
    owner.script["send"] = [BlockingIOError(), BrokenPipeError()]
    openssl.outgoing.write(b"keys")
    owner.peer.send(EMPTY)
    bench.settle()
    assert owner.heard == [("received", b""), ("ended", "BrokenPipeError")]


def test_writing_wants_to_read(bench: Bench) -> None:
    """A peer that begins a new handshake and does not end it: TLS waits for it, and does not spin."""
    owner, openssl = shaken(bench)
    openssl.script["write"] = [3, ssl.SSLWantReadError()]
    send(owner, b"payload")
    bench.settle()
    assert tls_of(owner).wants_read
    assert owner.link.buffered() == 6
    owner.peer.send(EMPTY)
    bench.tick()
    assert not tls_of(owner).wants_read
    bench.settle()
    assert owner.read() == b"\x82\x07payload"


def test_bytes_before_an_error_are_served_first(bench: Bench) -> None:
    owner, openssl = shaken(bench)
    openssl.script["read"] = [EMPTY, ssl.SSLError(1, "bad record mac")]
    owner.peer.send(b"x")
    bench.settle()
    assert owner.heard == [("received", b""), ("ended", "SSLError")]


def test_bytes_before_the_end_are_served_first(bench: Bench) -> None:
    owner, openssl = shaken(bench)
    openssl.script["read"] = [EMPTY, b"", b""]
    owner.peer.send(b"x")
    bench.settle()
    assert owner.heard == [("received", b""), ("ended", None)]


def test_records_fill_the_buffer(bench: Bench) -> None:
    """What stays inside OpenSSL is read though the kernel has nothing; paused reading keeps it there."""
    owner, openssl = shaken(bench, max_size=None)
    owner.on["received"] = owner.link.pause_reading
    size = len(bench.engine.buffer)
    head = b"\x82\xff" + (size - 14).to_bytes(8, "big") + b"\0\0\0\0"
    openssl.script["read"] = [head + bytes(size - 24), bytes(10), EMPTY, ssl.SSLWantReadError()]
    owner.peer.send(b"x")
    bench.tick()
    assert owner.heard == [("received", bytes(size - 14))]
    bench.settle()
    assert owner.heard[1:] == []
    owner.link.resume_reading()
    bench.settle()
    assert owner.heard[1:] == [("received", b"")]


def test_a_rest_keeps_records_inside_openssl(bench: Bench) -> None:
    """They are read after it, though the kernel has nothing."""
    owner, _ = shaken(bench, limits=Limits(bytes_per_second=1000))
    whole = frame(BINARY, bytes(992), key=KEY)  # what is read at once
    owner.peer.send(whole + whole + frame(BINARY, b"a", key=KEY))
    bench.tick()
    bench.settle()
    assert owner.heard == [("received", bytes(992)), ("received", bytes(992)), "noticed"]
    bench.pass_time(2)
    assert owner.heard[3:] == [("received", b"a")]


def test_the_network_fails_under_tls(bench: Bench) -> None:
    owner, openssl = shaken(bench)
    openssl.script["write"] = [ssl.SSLError(1, "broken")]
    send(owner, b"payload")
    bench.settle()
    assert owner.heard == [("ended", "SSLError")]


@pytest.mark.parametrize("answer", [None, ssl.SSLWantReadError(), ssl.SSLError(1, "shutdown while in init")])
def test_ending_tls(bench: Bench, answer: Exception | None) -> None:
    owner, openssl = shaken(bench)
    openssl.script["unwrap"] = [answer]
    owner.peer.send(b"\x88\x80\0\0\0\0")
    bench.settle()
    assert owner.read() == b"\x88\x00bye"
    assert owner.heard == ["noticed", ("ended", None)]


def test_ending_our_half_of_tls(bench: Bench) -> None:
    """What the peer says after that is read in the raw, and dropped."""
    owner, _ = shaken(bench)
    owner.peer.send(b"\x83\x80\0\0\0\0")
    bench.settle()
    assert owner.read().endswith(b"bye")
    assert owner.is_eof()
    owner.peer.send(b"raw")
    bench.settle()
    assert owner.heard == ["noticed"]
    owner.peer.shutdown(socket.SHUT_WR)
    bench.settle()
    assert owner.heard == ["noticed", ("ended", None)]


# TLS for real: both ends are links of one engine.


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


class Ends:
    """A server's and a client's link, with TLS between them where there is a context."""

    def __init__(self, bench: Bench, server: ssl.SSLContext | None, client: ssl.SSLContext | None) -> None:
        ours, peer = socket.socketpair()
        for sock in (ours, peer):
            sock.setblocking(False)
        self.server = self._link(bench, ours, True, server)
        self.client = self._link(bench, peer, False, client)

    def _link(self, bench: Bench, sock: socket.socket, server: bool, context: ssl.SSLContext | None) -> Owner:
        owner = Owner()
        owner.link = Link(bench.engine, sock, Session(server, ping_interval=None, max_size=None), owner)
        if context is not None:
            owner.link.secure(context, None if server else "localhost")
        if server:
            owner.on["ready"] = owner.link.open
            bench.engine.add(owner.link)
        else:

            def greet() -> None:
                owner.link.open()
                send(owner, b"hello")

            owner.on["ready"] = greet
            bench.engine.connect(owner.link, None)
        return owner


def test_tls(bench: Bench, contexts: Contexts) -> None:
    ends = Ends(bench, *contexts)
    bench.settle()
    assert ends.client.heard == ["ready"]
    assert ends.server.heard == ["ready", ("received", b"hello")]
    assert ends.server.link.established
    # Far more than the buffer, the kernel's queue and a record, both ways at once.
    for owner in (ends.client, ends.server):
        send(owner, 4 * MEBI)
    bench.wait_until(lambda: len(ends.client.heard) > 1 and len(ends.server.heard) > 2)
    assert ends.client.heard[1:] == ends.server.heard[2:] == [("received", 4 * MEBI)]
    close(ends.client)
    bench.wait_until(lambda: ends.client.link.is_closed() and ends.server.link.is_closed())
    for owner in (ends.client, ends.server):
        error = owner.link.session.error()
        assert (error.rcvd, error.sent) == (Close(1000), Close(1000))
        assert owner.heard[-1] == ("ended", None)


def test_tls_fails_for_good(bench: Bench, contexts: Contexts) -> None:
    """After a failure our half of TLS and of TCP is ended; the peer gets the close frame, and then the end."""
    ends = Ends(bench, *contexts)
    bench.settle()
    ends.client.link.session.out += b"\x83\x80\0\0\0\0"
    ends.client.link.touch()
    bench.wait_until(lambda: ends.server.link.is_closed() and ends.client.link.is_closed())
    rcvd = ends.client.link.session.error().rcvd
    assert rcvd is not None
    assert rcvd.code == 1002


def test_tls_ends_without_close_notify(bench: Bench, contexts: Contexts) -> None:
    ends = Ends(bench, *contexts)
    bench.settle()
    ends.client.link.abort("local", "test")
    bench.settle()
    assert ends.server.heard[-1] == ("ended", None)
    error = ends.server.link.session.error()
    assert (error.code, error.who) == (1006, "remote")


def test_tls_to_a_server_without(bench: Bench, contexts: Contexts) -> None:
    ends = Ends(bench, None, contexts[1])

    def refuse() -> None:
        ends.server.link.session.out += b"HTTP/1.1 400 Bad Request\r\n\r\n"
        ends.server.link.finish(bench.engine.time() + 5)

    ends.server.on["receive_opening"] = refuse
    bench.wait_until(lambda: ends.client.link.is_closed() and ends.server.link.is_closed())
    assert ends.client.heard == [("ended", "SSLError")]


def test_no_tls_to_a_server_with(bench: Bench, contexts: Contexts) -> None:
    ends = Ends(bench, contexts[0], None)

    def ask() -> None:
        ends.client.link.session.out += b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

    ends.client.on["ready"] = ask
    bench.wait_until(lambda: ends.client.link.is_closed() and ends.server.link.is_closed())
    assert ends.server.heard == [("ended", "SSLError")]
    assert ends.client.heard[0] == "ready"


def test_a_certificate_that_is_not_trusted(bench: Bench, contexts: Contexts) -> None:
    ends = Ends(bench, contexts[0], ssl.create_default_context())
    bench.wait_until(lambda: ends.client.link.is_closed() and ends.server.link.is_closed())
    assert ends.client.heard == [("ended", "SSLCertVerificationError")]
    assert ends.server.heard == [("ended", "SSLError")]
    assert ends.server.link.session.state is CLOSED


# A large payload, written from where it is.


def send_large(owner: Owner, payload: bytes) -> None:
    assert owner.link.session.send_head(0x80 | BINARY, len(payload))
    owner.link.flush_with(payload)


def test_what_was_said_before_goes_first(bench: Bench) -> None:
    owner = bench.link()
    send(owner, b"1")
    send_large(owner, b"2" * 40_000)
    assert owner.read_frames() == binary(b"1", b"2" * 40_000)
    assert not owner.link.session.out


def test_what_the_kernel_does_not_take_of_it_waits(bench: Bench) -> None:
    owner = bench.link()
    send_large(owner, MEBI)
    send_large(owner, MEBI)  # while the first one waits
    send(owner, b"3")
    assert owner.link.is_blocked()
    came = b""
    for _ in bench.steps():
        came += owner.read()
        if not owner.link.buffered():
            break
    came += owner.read()
    assert list(read_frames(came)) == binary(MEBI, MEBI, b"3")


def test_a_network_that_fails_under_it(bench: Bench) -> None:
    owner = bench.link()
    no_linger(owner.peer)
    send_large(owner, b"x" * 40_000)
    assert owner.link.is_closed()
    assert owner.heard[-1][0] == "ended"
