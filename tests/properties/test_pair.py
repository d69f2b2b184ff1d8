"""Laws of a connection: two sessions, a network and two programs that do anything at any time."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fullduplex.testing import End, Pair
from fullduplex.wire.errors import ConcurrencyError, ConnectionClosed, ConnectionClosedOK
from fullduplex.wire.extensions import RSV1, ExtensionFactory, Stack
from fullduplex.wire.limits import Limits
from fullduplex.wire.opcodes import BINARY_FRAME, TEXT_FRAME, Close, State
from fullduplex.wire.receiver import Fragment
from fullduplex.wire.session import Session
from fullduplex.wire.transfer import TransferRate
from properties.streams import law
from wire.frames import BINARY, CLOSE, CONT, TEXT, read_frames
from wire.subject import Doubled, Made, Wrapped

SIDES = st.sampled_from([0, 1])
EXTENSIONS = [
    Made("wrapped", lambda: Wrapped("wrapped")),
    Made("doubled", Doubled),
    TransferRate(10_000),
]
MESSAGES = st.text(max_size=5) | st.binary(max_size=5) | st.sampled_from(["x" * 200, bytes(200)])
CODES = st.none() | st.sampled_from([1000, 1001, 1008, 3000, 4999])
SECONDS = st.sampled_from([0.0, 0.001, 1.0, 5.0, 9.999, 10.0, 19.0, 20.0, 40.0, 1000.0]) | st.floats(0, 100)


class Connection(RuleBasedStateMachine):
    """Whatever both sides do, the RFC is kept, no order is lost, and it ends."""

    pair: Pair

    @initialize(
        cut=st.sampled_from([1, 3, 64, 65536]),
        keepalive=st.booleans(),
        extensions=st.lists(st.sampled_from(EXTENSIONS), unique=True),
    )
    def connect(self, cut: int, keepalive: bool, extensions: list[ExtensionFactory]) -> None:
        interval = 20.0 if keepalive else None
        client, server = (Session(role, ping_interval=interval) for role in (False, True))
        self.pair = Pair(client, server, cut=cut, extensions=extensions)
        self.said: list[list[str | bytes]] = [[], []]  # the messages that each side has sent
        self.saying: list[str | bytes | None] = [None, None]  # the message that it is sending in fragments
        self.streamed = [False, False]  # one may be dropped in part
        self.reset_by_hand = False

    def end(self, side: int) -> End:
        return self.pair.ends[side]

    # What programs do.

    @rule(side=SIDES, message=MESSAGES)
    def send(self, side: int, message: str | bytes) -> None:
        session = self.end(side).session
        first, payload = (TEXT_FRAME, message.encode()) if isinstance(message, str) else (BINARY_FRAME, message)
        if session.state is not State.OPEN:
            with pytest.raises(ConnectionClosed):
                session.send(first, payload)
        elif self.saying[side] is not None:
            with pytest.raises(ConcurrencyError):
                session.send(first, payload)
        else:
            session.send(first, payload)
            self.said[side].append(message)

    @rule(side=SIDES, part=MESSAGES, fin=st.booleans())
    def send_fragment(self, side: int, part: str | bytes, fin: bool) -> None:
        session = self.end(side).session
        begun = self.saying[side]
        if begun is not None and type(begun) is not type(part):
            part = part.encode() if isinstance(part, str) else part.hex()
        opcode, payload = (TEXT, part.encode()) if isinstance(part, str) else (BINARY, part)
        if session.state is not State.OPEN:
            with pytest.raises(ConnectionClosed):
                session.send_fragment(opcode, payload, fin)
            return
        session.send_fragment(opcode, payload, fin)
        message = part if begun is None else begun + part  # type: ignore[operator]
        self.saying[side] = None if fin else message
        if fin:
            self.said[side].append(message)

    @rule(side=SIDES, data=st.none() | st.sampled_from([b"", b"a", b"b"]))
    def ping(self, side: int, data: bytes | None) -> None:
        session = self.end(side).session
        try:
            session.ping(data, self.pair.now)
        except ConnectionClosed:
            assert session.state is not State.OPEN
        except ValueError:
            assert data is not None

    @rule(side=SIDES)
    def pong(self, side: int) -> None:
        session = self.end(side).session
        if session.state is State.OPEN:
            session.pong(b"heartbeat")

    @precondition(lambda self: self.said != [[], []])
    @rule(side=SIDES, code=CODES, reason=st.sampled_from(["", "why"]))
    def close(self, side: int, code: int | None, reason: str) -> None:
        end = self.end(side)
        end.session.close(code, "" if code is None else reason, self.pair.now)
        end.attend()

    @rule(side=SIDES)
    def stream(self, side: int) -> None:
        self.end(side).session.stream()

    @rule(side=SIDES)
    def skip(self, side: int) -> None:
        self.end(side).session.skip()
        self.streamed[side] = True

    # What networks do.

    @rule(side=SIDES, size=st.sampled_from([1, 2, 5, 100]))
    def deliver(self, side: int, size: int) -> None:
        self.end(side).deliver(size)

    @rule()
    def run(self) -> None:
        self.pair.run()

    @rule(side=SIDES, blocked=st.booleans())
    def block(self, side: int, blocked: bool) -> None:
        (self.end(side).block if blocked else self.end(side).unblock)()

    @rule(side=SIDES, paused=st.booleans())
    def pause(self, side: int, paused: bool) -> None:
        (self.end(side).pause if paused else self.end(side).resume)()

    @rule(seconds=SECONDS)
    def pass_time(self, seconds: float) -> None:
        self.pair.pass_time(seconds)

    @rule(seconds=SECONDS)
    def jump(self, seconds: float) -> None:
        self.pair.jump(seconds)
        assert all(end.session.deadline() >= self.pair.now for end in self.pair.ends)

    @precondition(lambda self: len(self.said[0]) > 2)
    @rule(side=SIDES)
    def reset(self, side: int) -> None:
        self.end(side).reset()
        self.reset_by_hand = True

    @precondition(lambda self: len(self.said[0]) > 2)
    @rule()
    def cut_the_cable(self) -> None:
        self.pair.dead = True

    # What holds at any time.

    @invariant()
    def frames_are_legal(self) -> None:
        for end in self.pair.ends:
            inside = closed = False
            for frame in read_frames(bytes(end.sent)):
                assert not closed, "a frame after a close frame"
                assert frame.masked is not end.session.server
                extension = end.session.extension
                known = 0 if extension is None or frame.opcode not in (TEXT, BINARY) else extension.rsv
                assert not frame.rsv << 4 & ~known
                closed = frame.opcode == CLOSE
                if frame.opcode >= CLOSE:
                    assert frame.fin
                    assert len(frame.payload) <= 125
                else:
                    assert (frame.opcode == CONT) is inside
                    inside = not frame.fin

    @invariant()
    def messages_arrive_in_order(self) -> None:
        for side, end in enumerate(self.pair.ends):
            complete, part = whole(end.messages)
            said = self.said[1 - side]
            if self.streamed[side]:
                # A message may be missing, or its beginning: what is there is in order all the same.
                rest = iter(said)
                assert all(any(message == other for other in rest) for message in complete)
            else:
                assert complete == said[: len(complete)]
                begun = [*said, self.saying[1 - side]][len(complete) : len(complete) + 1]
                assert not part or (begun and begun[0] is not None and begun[0][: len(part)] == part)

    @invariant()
    def nobody_is_accused(self) -> None:
        for end in self.pair.ends:
            session = end.session
            assert session.failure is None
            # What was to be sent may be lost with the connection.
            assert closes(end) in ([], [session.sent])
            assert session.rcvd is None or session.rcvd == end.peer.session.sent
            error = session.error()
            ok = all(close is not None and close.code in (1000, 1001, 1005) for close in (error.rcvd, error.sent))
            assert isinstance(error, ConnectionClosedOK) is ok
            assert (error.rcvd_then_sent is None) == (error.rcvd is None or error.sent is None)
            if session.state is State.CLOSED and (error.rcvd is None or error.sent is None):
                assert error.detail

    def teardown(self) -> None:
        """In the end both are closed, by what both say or by the timers."""
        if not hasattr(self, "pair"):
            return
        pair = self.pair
        for end in pair.ends:
            end.unblock()
            end.resume()
        healthy = not pair.dead and not any(end.closed for end in pair.ends)
        pair.run()
        for end in pair.ends:
            end.session.close(1000, "", pair.now)
            end.attend()
        pair.pass_time(100.0)
        for side, end in enumerate(pair.ends):
            assert end.closed
            assert end.session.state is State.CLOSED
            if healthy:
                assert end.session.rcvd is not None
                assert end.session.sent is not None
                if not self.streamed[side]:
                    assert whole(end.messages)[0] == self.said[1 - side]
        self.messages_arrive_in_order()
        self.nobody_is_accused()
        self.frames_are_legal()


def whole(received: list[str | bytes | Fragment]) -> tuple[list[str | bytes], str | bytes]:
    """The complete messages among these, and the fragments of one that is not."""
    messages: list[str | bytes] = []
    parts: list[str | bytes] = []
    for item in received:
        if isinstance(item, Fragment):
            parts.append(item.data)
            if not item.fin:
                continue
            item = parts[0][:0].join(parts)  # type: ignore[arg-type]
            parts = []
        else:
            parts = []
        messages.append(item)
    return messages, parts[0][:0].join(parts) if parts else b""  # type: ignore[arg-type]


def closes(end: End) -> list[Close]:
    """The close frames that left, or are about to."""
    payloads = [frame.payload for frame in read_frames(bytes(end.sent + end.session.out)) if frame.opcode == CLOSE]
    return [Close(int.from_bytes(data[:2], "big"), data[2:].decode()) if data else Close(1005) for data in payloads]


def test_connection() -> None:
    run_state_machine_as_test(Connection, settings=law(100))


def test_close_of_both_at_once() -> None:
    """Close frames that cross each other: each is the answer to the other."""
    pair = Pair()
    for end, code in zip(pair.ends, (1000, 3000), strict=True):
        end.session.close(code, "", pair.now)
    pair.run()
    for end in pair.ends:
        assert end.closed
        assert end.session.error().rcvd_then_sent is False
        assert end.session.who == "local"
    assert pair.client.session.rcvd == Close(3000)


def test_a_peer_that_breaks_a_rule() -> None:
    """It is told which, and both ends close."""
    pair = Pair()
    pair.client.session.out += b"\xff\x80" + bytes(4)
    pair.run()
    assert pair.client.closed
    assert pair.server.closed
    assert pair.server.session.failure is not None
    assert pair.client.session.rcvd == pair.server.session.sent == Close(1002, pair.server.session.failure.rule)


def test_extensions_are_agreed_on() -> None:
    """By offer and answer, as over HTTP: each end has a side of its own."""
    pair = Pair(extensions=[EXTENSIONS[0], EXTENSIONS[1]])
    sides = [end.session.extension for end in pair.ends]
    assert all(isinstance(side, Stack) for side in sides)
    assert sides[0] is not sides[1]
    pair.client.session.send(TEXT_FRAME, b"x")
    pair.run()
    assert bytes(pair.client.sent)[:2] == bytes([TEXT_FRAME | RSV1, 0x80 | len("wwrraappppeedd((xx))")])
    assert pair.server.messages == ["x"]
    with pytest.raises(TypeError):
        Pair(extensions=["doubled"])  # type: ignore[list-item]
    assert Pair().client.session.extension is None


def test_reading_goes_on_when_both_allow_it() -> None:
    """The limits, and whoever has paused it."""
    pair = Pair(server=Session(True, limits=Limits(messages_per_second=1)))
    server = pair.server
    for _ in range(3):
        pair.client.session.send(TEXT_FRAME, b"x")
    pair.run()
    assert len(server.messages) == 3
    assert server.deadline() == server.session.resume_at == 2.0
    pair.client.session.send(TEXT_FRAME, b"y")
    server.resume()
    pair.pass_time(1.9)
    assert len(server.messages) == 3
    server.pause()
    pair.pass_time(0.2)
    assert len(server.messages) == 3
    server.resume()
    pair.run()
    assert len(server.messages) == 4


def test_an_end_that_rests_can_end() -> None:
    pair = Pair(server=Session(True, limits=Limits(messages_per_second=1)))
    for _ in range(3):
        pair.client.session.send(TEXT_FRAME, b"x")
    pair.run()
    pair.server.reset()
    pair.pass_time(100.0)
    assert pair.client.closed
    assert pair.server.deadline() == float("inf")


def test_a_close_frame_behind_what_waits() -> None:
    """TCP does not end before what waits has left."""
    pair = Pair(extensions=[TransferRate(1000)])
    pair.server.session.send(BINARY_FRAME, bytes(5000))
    pair.server.session.close(1000, "", pair.now)
    pair.pass_time(3.0)
    assert not pair.server.closed
    assert pair.client.messages == []
    pair.pass_time(3.0)
    assert pair.client.messages == [bytes(5000)]
    assert pair.server.closed
    assert pair.client.closed
    assert pair.client.session.rcvd == Close(1000)


def test_who_has_said_goodbye_need_not_wait_for_the_rest() -> None:
    """The server ends TCP after its close frame, which is an answer here."""
    pair = Pair(extensions=[TransferRate(1000)])
    pair.server.session.send(BINARY_FRAME, bytes(5000))
    pair.client.session.close(1000, "", pair.now)
    pair.pass_time(0.1)
    assert pair.client.messages == []
    assert pair.client.session.error().rcvd_then_sent is False
    assert pair.server.closed
    assert pair.client.closed
