from __future__ import annotations

import secrets
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from fullduplex.wire.codec import MaskKeys
from fullduplex.wire.errors import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ProtocolError,
)
from fullduplex.wire.extensions import RSV1, Extension
from fullduplex.wire.keepalive import FOREVER
from fullduplex.wire.limits import Limits
from fullduplex.wire.opcodes import BINARY_FRAME, TEXT_FRAME, Close, State
from fullduplex.wire.session import Session
from fullduplex.wire.states import TRANSITIONS, Event
from wire.frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, Frame, close_payload, frame
from wire.subject import Doubled, Make, Slow, Spy, Subject, assert_failed, peak, state_of

# States.


class TestStates:
    def test_the_table(self) -> None:
        """Whatever is not in the table cannot happen: time runs one way."""
        assert all(source < target for (source, _), target in TRANSITIONS.items())
        for state in State:
            assert ((state, Event.ENDED) in TRANSITIONS) == (state is not State.CLOSED)

    def test_a_life(self, make: Make) -> None:
        subject = make(opened=False)
        session = subject.session
        assert state_of(subject) is State.CONNECTING
        assert session.deadline() == FOREVER
        session.expire(10.0**9)
        session.open(subject.now)
        assert state_of(subject) is State.OPEN
        session.close(1000, "", subject.now)
        assert state_of(subject) is State.CLOSING
        session.end("remote", "")
        assert state_of(subject) is State.CLOSED
        assert session.deadline() == FOREVER
        session.expire(10.0**9)
        assert state_of(subject) is State.CLOSED

    def test_the_opening_handshake_failed(self, make: Make) -> None:
        subject = make(opened=False)
        session = subject.session
        session.end("network", "refused")
        assert state_of(subject) is State.CLOSED
        assert str(session.error()) == "no close frame received or sent (refused)"

    @pytest.mark.parametrize("ended", [False, True], ids=["connecting", "closed"])
    def test_nothing_is_sent_unless_open(self, make: Make, ended: bool) -> None:
        subject = make(opened=False)
        session = subject.session
        if ended:
            session.open(0.0)
            session.end("network", "gone")
        self.assert_nothing_is_sent(subject)
        session.close(1000, "", 0.0)
        assert not session.out
        assert session.sent is None
        assert not session.over

    def test_nothing_is_sent_while_closing(self, subject: Subject) -> None:
        subject.session.close(1000, "", subject.now)
        assert subject.said() == [(CLOSE, close_payload(1000))]
        self.assert_nothing_is_sent(subject)

    def assert_nothing_is_sent(self, subject: Subject) -> None:
        session = subject.session
        attempts: list[Callable[[], object]] = [
            lambda: session.send(TEXT_FRAME, b""),
            lambda: session.send_fragment(TEXT, b"", False),
            lambda: session.send_shared(TEXT_FRAME, b"", b"\x81\x00"),
            lambda: session.say_shared(TEXT_FRAME),
            lambda: session.ping(None, subject.now),
            lambda: session.pong(b""),
        ]
        for attempt in attempts:
            with pytest.raises(ConnectionClosed) as info:
                attempt()
            assert str(info.value) == str(session.error())
        assert not session.out


# Ping and pong.


class TestPong:
    @pytest.mark.parametrize("payload", [b"", b"p", b"\xff" * 125], ids=len)
    def test_answers(self, subject: Subject, payload: bytes) -> None:
        subject.hear(subject.frame(PING, payload))
        assert subject.said() == [(PONG, payload)]
        subject.hear_bytewise(subject.frame(PING, payload) + subject.frame(PING, payload))
        assert subject.said() == [(PONG, payload)] * 2

    def test_blocked(self, subject: Subject) -> None:
        """One pong waits, the newest, and goes before what was said meanwhile."""
        session = subject.session
        subject.hear(subject.frame(PING, b"1"))
        assert subject.said() == [(PONG, b"1")]
        session.blocked = True
        subject.hear(subject.frame(PING, b"2") + subject.frame(PING, b"3"))
        session.send(TEXT_FRAME, b"a")
        subject.hear(subject.frame(PING, b"4"))
        session.send(TEXT_FRAME, b"b")
        session.unblock()
        assert not session.blocked
        assert subject.said() == [(PONG, b"4"), (TEXT, b"a"), (TEXT, b"b")]
        session.blocked = True
        session.unblock()
        assert subject.said() == []

    def test_blocked_and_closed(self, subject: Subject) -> None:
        """Nothing after a close frame."""
        session = subject.session
        session.blocked = True
        subject.hear(subject.frame(PING, b"1"))
        session.close(1000, "", subject.now)
        subject.hear(subject.frame(PING, b"2"))
        session.unblock()
        assert subject.said() == [(CLOSE, close_payload(1000))]
        subject.hear(subject.frame(PING, b"3"))
        assert subject.said() == []

    def test_blocked_and_ended(self, subject: Subject) -> None:
        session = subject.session
        session.blocked = True
        subject.hear(subject.frame(PING, b"1"))
        session.end("network", "gone")
        session.unblock()
        assert subject.said() == []

    def test_inside_a_message_that_is_being_sent(self, subject: Subject) -> None:
        subject.session.send_fragment(TEXT, b"a", False)
        subject.hear(subject.frame(PING, b"p"))
        subject.session.send_fragment(TEXT, b"b", True)
        assert [(frame.opcode, frame.payload) for frame in subject.said_frames()] == [
            (TEXT, b"a"),
            (PONG, b"p"),
            (CONT, b"b"),
        ]

    def test_heartbeat(self, subject: Subject) -> None:
        """Section 5.5.3: a pong that nobody asked for."""
        for payload in (b"", b"x" * 125):
            subject.session.pong(payload)
            assert subject.said() == [(PONG, payload)]
        with pytest.raises(ValueError, match="at most 125 bytes"):
            subject.session.pong(b"x" * 126)
        assert subject.said() == []


@pytest.mark.usefixtures("traced")
class TestFloods:
    """What a peer can make us hold by control frames."""

    def test_ping_flood(self, subject: Subject) -> None:
        """T9: while the peer does not read, one pong waits, for the newest ping (section 5.5.3)."""
        subject.session.blocked = True
        flood = bytearray().join(subject.frame(PING, bytes([i]) * 125) for i in range(100))

        def floods() -> None:
            for _ in range(100):
                subject.hear(flood)

        assert peak(floods) < 4096
        assert subject.said() == []
        subject.session.unblock()
        assert subject.said() == [(PONG, bytes([99]) * 125)]

    def test_pong_flood(self, subject: Subject) -> None:
        """T9: nobody asked for them, nothing stays of them."""
        flood = bytearray().join(subject.frame(PONG, bytes([i]) * 125) for i in range(100))
        for _ in range(10):
            assert peak(lambda: subject.hear(flood)) < 4096
        assert subject.said() == []
        assert not subject.session.attention
        assert subject.session.acknowledged is None


class TestPing:
    def test_round_trip(self, subject: Subject) -> None:
        session = subject.session
        assert session.ping(b"p", 1000.0) == b"p"
        assert subject.said() == [(PING, b"p")]
        subject.now = 1000.25
        subject.hear(subject.frame(PONG, b"p"))
        assert session.acknowledged == [(b"p", 0.25)]
        assert session.keepalive is not None
        assert session.keepalive.latency == 0.25
        assert session.attention
        subject.hear(subject.frame(PONG, b"p"))  # the same again acknowledges nothing
        assert session.acknowledged == [(b"p", 0.25)]

    def test_a_payload_of_its_own(self, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
        tokens = iter([b"aaaa", b"aaaa", b"aaaa", b"bbbb"])
        monkeypatch.setattr(secrets, "token_bytes", lambda size: next(tokens) if size == 4 else bytes(size))
        assert [subject.session.ping(None, 1000.0), subject.session.ping(None, 1000.0)] == [b"aaaa", b"bbbb"]
        assert subject.said() == [(PING, b"aaaa"), (PING, b"bbbb")]

    def test_a_pong_acknowledges_the_pings_before_it(self, subject: Subject) -> None:
        session = subject.session
        for i, payload in enumerate((b"a", b"b", b"c", b"d")):
            session.ping(payload, 1000.0 + i)
        subject.now = 1010.0
        subject.hear(subject.frame(PONG, b"c"))
        assert session.acknowledged == [(b"a", 10.0), (b"b", 9.0), (b"c", 8.0)]
        assert session.keepalive is not None
        assert session.keepalive.latency == 8.0
        subject.hear(subject.frame(PONG, b"b") + subject.frame(PONG, b"d"))
        assert session.acknowledged[3:] == [(b"d", 7.0)]

    def test_a_pong_that_nobody_asked_for(self, subject: Subject) -> None:
        subject.session.ping(b"a", 1000.0)
        subject.hear(subject.frame(PONG, b"z") + subject.frame(PONG))
        assert subject.session.acknowledged is None
        assert not subject.session.attention

    def test_under_way_already(self, subject: Subject) -> None:
        session = subject.session
        session.ping(b"a", 1000.0)
        with pytest.raises(ValueError, match="waits for its pong already"):
            session.ping(b"a", 1000.0)
        assert subject.said() == [(PING, b"a")]
        subject.hear(subject.frame(PONG, b"a"))
        session.ping(b"a", 1001.0)
        assert subject.said() == [(PING, b"a")]

    def test_too_long(self, subject: Subject) -> None:
        session = subject.session
        session.ping(b"x" * 125, 1000.0)
        subject.said()
        for _ in range(2):  # the second time it is not "under way"
            with pytest.raises(ValueError, match="at most 125 bytes"):
                session.ping(b"x" * 126, 1000.0)
        assert subject.said() == []


class TestKeepalive:
    """Pings each 20 s; without a sign of life 20 s after one, the peer is gone."""

    def test_a_peer_that_answers(self, subject: Subject) -> None:
        session = subject.session
        for i in range(1, 50):
            due = 1000.0 + 20 * i
            assert session.deadline() == due
            assert subject.expire(due - 0.001) == []
            [(opcode, payload)] = subject.expire(due)
            assert opcode == PING
            subject.now = due + 0.5
            subject.hear(subject.frame(PONG, payload))
            assert session.keepalive is not None
            assert session.keepalive.latency == 0.5
            assert session.acknowledged == [(payload, 0.5)]
            session.acknowledged.clear()
        assert state_of(subject) is State.OPEN

    def test_an_answer_ends_the_wait(self, make: Make) -> None:
        """Even one that comes at the same moment, on a coarse clock."""
        subject = make(ping_timeout=5.0)
        [(_, payload)] = subject.expire(1020.0)
        subject.hear(subject.frame(PONG, payload))
        assert subject.session.deadline() == 1040.0

    def test_a_silent_peer(self, subject: Subject) -> None:
        session = subject.session
        assert [opcode for opcode, _ in subject.expire(1020.0)] == [PING]
        assert session.deadline() == 1040.0
        assert subject.expire(1039.9) == []
        assert subject.expire(1040.0) == [(CLOSE, close_payload(1011, "keepalive ping timeout"))]
        assert state_of(subject) is State.CLOSED
        error = session.error()
        assert type(error) is ConnectionClosedError
        assert error.who == "remote"
        assert (error.sent, error.rcvd, error.code) == (Close(1011, "keepalive ping timeout"), None, 1006)
        assert error.detail == "keepalive: the peer was silent for 20.0 s"
        assert session.deadline() == FOREVER

    def test_any_byte_is_a_sign_of_life(self, subject: Subject) -> None:
        """A large message on a slow line holds the pong up; the line is alive."""
        data = subject.frame(BINARY, bytes(1000))
        subject.hear(data[:5])
        for i in range(1, 50):
            assert [opcode for opcode, _ in subject.expire(1000.0 + 20 * i)] == [PING]
            subject.now += 10
            subject.hear(data[i + 4 : i + 5])
            # Due at the moment of the next ping: this one counts as lived through.
        subject.now += 1
        subject.expire(subject.session.deadline())
        assert state_of(subject) is State.OPEN
        subject.expire(subject.session.deadline())
        assert state_of(subject) is State.CLOSED
        assert subject.session.error().detail == "keepalive: the peer was silent for 20.0 s"

    def test_what_came_before_the_ping_is_no_sign(self, make: Make) -> None:
        subject = make(ping_timeout=5.0)
        subject.now = 1020.0
        subject.hear(subject.frame(TEXT))
        subject.expire(1020.0)
        assert subject.session.deadline() == 1025.0
        assert [opcode for opcode, _ in subject.expire(1025.0)] == [CLOSE]

    def test_alive_but_never_a_pong(self, subject: Subject) -> None:
        """The peer talks and does not answer pings: it lives, and the pings it owes us are not kept."""
        tracemalloc.start()
        try:
            before = 0
            for i in range(1, 2000):
                assert [opcode for opcode, _ in subject.expire(1000.0 + 20 * i)] == [PING]
                subject.now += 1
                subject.hear(subject.frame(TEXT))
                subject.take()
                if i == 100:
                    before = tracemalloc.get_traced_memory()[0]
            assert tracemalloc.get_traced_memory()[0] < before + 4096
        finally:
            tracemalloc.stop()

    def test_users_pings_are_kept(self, subject: Subject) -> None:
        """Only our own are given up: a user waits for theirs."""
        session = subject.session
        session.ping(b"", 1000.0)
        session.ping(b"mine", 1000.0)
        subject.expire(1020.0)
        subject.now = 1021.0
        subject.hear(subject.frame(TEXT))
        subject.expire(1040.0)
        subject.hear(subject.frame(PONG, b""))
        assert session.acknowledged == [(b"", 40.0)]
        subject.hear(subject.frame(PONG, b"mine"))
        assert session.acknowledged == [(b"", 40.0), (b"mine", 40.0)]

    def test_a_pong_for_a_users_ping_is_a_sign(self, subject: Subject) -> None:
        subject.expire(1020.0)
        subject.session.ping(b"mine", 1021.0)
        subject.now = 1022.0
        subject.hear(subject.frame(PONG, b"mine"))
        assert [data for data, _ in subject.session.acknowledged or ()][1:] == [b"mine"]
        assert subject.session.deadline() == 1040.0
        assert [opcode for opcode, _ in subject.expire(1040.0)][-1] == PING

    def test_while_we_do_not_read(self, subject: Subject) -> None:
        """Our own queue is full: silence says nothing. Once we read again the peer gets its time."""
        session = subject.session
        session.paused = True
        for i in range(1, 10):
            assert [opcode for opcode, _ in subject.expire(1000.0 + 20 * i)] == [PING]
        session.paused = False
        assert session.deadline() == 1200.0
        assert [opcode for opcode, _ in subject.expire(1200.0)] == [PING]
        assert subject.expire(1219.0) == []
        assert state_of(subject) is State.OPEN
        assert [opcode for opcode, _ in subject.expire(1220.0)] == [CLOSE]

    def test_paused_after_the_ping(self, subject: Subject) -> None:
        session = subject.session
        subject.expire(1020.0)
        session.paused = True
        assert subject.expire(1040.0) == []
        session.paused = False
        assert subject.expire(1059.0) == []
        assert [opcode for opcode, _ in subject.expire(1060.0)] == [CLOSE]

    def test_our_own_loop_was_blocked(self, subject: Subject) -> None:
        """The deadline passed unseen, and so may the pong have: one grace, and the text tells of it."""
        session = subject.session
        subject.expire(1020.0)
        assert subject.expire(1045.5) == []
        assert state_of(subject) is State.OPEN
        assert subject.expire(1065.0) == []
        assert [opcode for opcode, _ in subject.expire(1065.5)] == [CLOSE]
        assert session.error().detail == (
            "keepalive: the peer was silent for 45.5 s, and our own event loop was blocked for 5.5 s of them"
        )

    def test_one_grace_only(self, subject: Subject) -> None:
        subject.expire(1020.0)
        assert subject.expire(1100.0) == []
        assert [opcode for opcode, _ in subject.expire(1200.0)] == [CLOSE]

    def test_one_grace_for_each_ping(self, subject: Subject) -> None:
        subject.expire(1020.0)
        assert subject.expire(1045.0) == []
        subject.now = 1046.0
        subject.hear(subject.frame(TEXT))
        assert [opcode for opcode, _ in subject.expire(1065.0)] == [PING]
        assert subject.expire(1090.0) == []
        assert [opcode for opcode, _ in subject.expire(1110.0)] == [CLOSE]
        assert "blocked for 5.0 s" in subject.session.error().detail

    def test_a_little_late_is_in_time(self, subject: Subject) -> None:
        """Timers are never exact."""
        subject.expire(1020.0)
        assert [opcode for opcode, _ in subject.expire(1041.0)] == [CLOSE]
        assert subject.session.error().detail == "keepalive: the peer was silent for 21.0 s"

    def test_a_long_jump_sends_one_ping(self, subject: Subject) -> None:
        assert [opcode for opcode, _ in subject.expire(100_000.0)] == [PING]
        assert subject.session.deadline() == 100_020.0

    def test_time_that_runs_backwards(self, subject: Subject) -> None:
        assert subject.expire(500.0) == []
        assert subject.session.deadline() == 1020.0

    def test_without_pings(self, make: Make) -> None:
        subject = make(ping_interval=None)
        assert subject.session.deadline() == FOREVER
        assert subject.expire(10.0**9) == []

    def test_without_a_timeout(self, make: Make) -> None:
        subject = make(ping_timeout=None)
        for i in range(1, 100):
            assert [opcode for opcode, _ in subject.expire(1000.0 + 20 * i)] == [PING]
        assert state_of(subject) is State.OPEN

    def test_a_timeout_longer_than_the_interval(self, make: Make) -> None:
        """A ping waits for the verdict on the one before."""
        subject = make(ping_timeout=50.0)
        assert [opcode for opcode, _ in subject.expire(1020.0)] == [PING]
        assert subject.expire(1040.0) == subject.expire(1060.0) == []
        assert [opcode for opcode, _ in subject.expire(1070.0)] == [CLOSE]

    def test_none_while_closing(self, subject: Subject) -> None:
        subject.expire(1020.0)
        subject.session.close(1000, "", 1021.0)
        subject.said()
        assert subject.session.deadline() == 1031.0
        assert subject.expire(1030.9) == []
        assert state_of(subject) is State.CLOSING


# Closing.


CODES = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}


class TestReceivingClose:
    def test_codes(self, server: bool) -> None:
        """Section 7.4: those that a peer may send, and no others. The answer echoes the code."""
        for code in (*range(5001), 32768, 65535):
            subject = Subject(server)
            subject.hear(subject.frame(CLOSE, close_payload(code, "why")))
            if code in CODES:
                assert subject.session.failure is None, code
                assert subject.conclude() == [(CLOSE, close_payload(code))]
                assert subject.session.rcvd == Close(code, "why")
                assert subject.session.sent == Close(code)
            else:
                assert_failed(subject, 1002, f"close code {code} (section 7.4)")

    def test_no_code(self, subject: Subject) -> None:
        subject.hear(subject.frame(CLOSE))
        assert subject.conclude() == [(CLOSE, b"")]
        assert subject.session.rcvd == subject.session.sent == Close(1005)
        assert type(subject.session.error()) is ConnectionClosedOK

    def test_half_a_code(self, subject: Subject) -> None:
        subject.hear(subject.frame(CLOSE, b"\x03"))
        assert_failed(subject, 1002, "half a code")

    @pytest.mark.parametrize("reason", ["", "x" * 123, "κόσμε"], ids=len)
    def test_reasons(self, make: Make, reason: str) -> None:
        for bytewise in (False, True):
            subject = make()
            data = subject.frame(CLOSE, close_payload(1000, reason))
            (subject.hear_bytewise if bytewise else subject.hear)(data)
            assert subject.session.rcvd == Close(1000, reason)
            assert subject.conclude() == [(CLOSE, close_payload(1000))]

    @pytest.mark.parametrize("reason", [b"\xff", b"ok\xce", b"\xed\xa0\x80"], ids=bytes.hex)
    def test_a_reason_that_is_not_text(self, subject: Subject, reason: bytes) -> None:
        subject.hear(subject.frame(CLOSE, close_payload(1000) + reason))
        assert_failed(subject, 1007, "invalid UTF-8 in a close reason")

    def test_the_answer_waits_for_the_messages_before(self, subject: Subject) -> None:
        """They are delivered, and what is said to them goes before the close frame."""
        session = subject.session
        subject.hear(subject.frame(TEXT, b"last words") + subject.frame(CLOSE, close_payload(1001)))
        assert session.attention
        assert state_of(subject) is State.OPEN
        assert not session.over
        assert subject.said() == []
        assert subject.take() == ["last words"]
        session.send(TEXT_FRAME, b"an answer")
        session.ping(b"p", subject.now)
        assert subject.conclude() == [(TEXT, b"an answer"), (PING, b"p"), (CLOSE, close_payload(1001))]
        assert state_of(subject) is State.CLOSING
        assert session.over
        assert subject.conclude() == []

    @pytest.mark.parametrize("cut", [0, 1, 2, 5, 7])
    def test_what_comes_after_is_not_heard(self, subject: Subject, cut: int) -> None:
        """Section 5.5.1, wherever a read begins."""
        close = subject.frame(CLOSE, close_payload(1000))
        later = subject.frame(TEXT, b"later") + subject.frame(PING) + subject.frame(3) + subject.frame(CLOSE)
        subject.hear(close[:cut], close[cut:] + later, later)
        assert subject.take() == []
        assert subject.session.failure is None
        assert subject.conclude() == [(CLOSE, close_payload(1000))]
        subject.hear(later)
        assert subject.take() == []
        assert subject.conclude() == []
        assert subject.session.failure is None

    def test_our_own_comes_first(self, subject: Subject) -> None:
        """Ours crossed theirs, or a handler closed before the verdict was carried out."""
        session = subject.session
        subject.hear(subject.frame(CLOSE, close_payload(4000, "theirs")))
        session.close(4001, "ours", subject.now)
        assert subject.conclude() == [(CLOSE, close_payload(4001, "ours"))]
        error = session.error()
        assert (error.rcvd, error.sent) == (Close(4000, "theirs"), Close(4001, "ours"))
        assert (error.rcvd_then_sent, error.who) == (True, "remote")
        assert session.over

    def test_ended_before_the_verdict(self, subject: Subject) -> None:
        """A handler may end TCP: there is nobody to tell then."""
        for data in (subject.frame(CLOSE, close_payload(1000)), subject.frame(3)):
            subject = Subject(subject.session.server)
            subject.hear(data)
            subject.session.end("local", "aborted")
            assert subject.conclude() == []
            assert state_of(subject) is State.CLOSED
            assert subject.session.sent is None


class TestHold:
    """Messages before the verdict are there, and their reader is slow: it may answer them, for some time."""

    @pytest.mark.parametrize("close", [True, False], ids=["close", "failure"])
    def test_it_ends(self, subject: Subject, close: bool) -> None:
        session = subject.session
        subject.hear(subject.frame(TEXT, b"first") + subject.frame(CLOSE if close else 3, close_payload(1000)))
        session.hold(1000.5)
        assert session.deadline() == 1002.5
        session.hold(1001.0)  # what was said first holds
        assert session.deadline() == 1002.5
        assert subject.expire(1002.4) == []
        session.send(TEXT_FRAME, b"answer")
        [answer, (opcode, _)] = subject.expire(1002.5)
        assert (answer, opcode) == ((TEXT, b"answer"), CLOSE)
        assert state_of(subject) is State.CLOSING
        assert session.deadline() == 1012.5
        assert subject.take() == ["first"]

    def test_it_is_concluded_before(self, subject: Subject) -> None:
        subject.hear(subject.frame(TEXT, b"first") + subject.frame(CLOSE, close_payload(1000)))
        subject.session.hold(1000.0)
        assert subject.conclude() == [(CLOSE, close_payload(1000))]
        assert subject.session.deadline() == 1010.0

    def test_close_timeout_bounds_it(self, make: Make) -> None:
        subject = make(close_timeout=0.5)
        subject.hear(subject.frame(CLOSE))
        subject.session.hold(1000.0)
        assert subject.session.deadline() == 1000.5

    def test_tcp_ends_meanwhile(self, subject: Subject) -> None:
        subject.hear(subject.frame(CLOSE, close_payload(1000)))
        subject.session.hold(1000.0)
        subject.session.end("network", "gone")
        assert subject.expire(1010.0) == []
        assert state_of(subject) is State.CLOSED

    def test_no_pings_meanwhile(self, subject: Subject) -> None:
        """The peer hears nothing any more but its close frame."""
        subject.expire(1020.0)
        subject.hear(subject.frame(CLOSE, close_payload(1000)))
        subject.session.hold(1039.5)
        assert subject.expire(1040.0) == []
        assert subject.session.deadline() == 1041.5


class TestClosing:
    def test_codes(self, server: bool) -> None:
        for code in (-1, *range(5001), 65535, 65536):
            subject = Subject(server)
            if code in CODES:
                subject.session.close(code, "", subject.now)
                assert subject.said() == [(CLOSE, close_payload(code))]
                assert subject.session.sent == Close(code)
            else:
                with pytest.raises(ValueError, match=f"close code {code} may not be sent"):
                    subject.session.close(code, "", subject.now)
                assert subject.said() == []
                assert state_of(subject) is State.OPEN

    def test_no_code(self, subject: Subject) -> None:
        with pytest.raises(ValueError, match="a close reason needs a code"):
            subject.session.close(None, "why", subject.now)
        subject.session.close(None, "", subject.now)
        assert subject.said() == [(CLOSE, b"")]
        assert subject.session.sent == Close(1005)

    @pytest.mark.parametrize("reason", ["", "x" * 123, "é" * 61 + "x"], ids=len)
    def test_reasons(self, subject: Subject, reason: str) -> None:
        subject.session.close(1000, reason, subject.now)
        assert subject.said() == [(CLOSE, close_payload(1000, reason))]
        assert subject.session.sent == Close(1000, reason)

    @pytest.mark.parametrize("reason", ["x" * 124, "é" * 62, "\ud800"], ids=["long", "in bytes", "no text"])
    def test_bad_reasons(self, subject: Subject, reason: str) -> None:
        with pytest.raises(ValueError):
            subject.session.close(1000, reason, subject.now)
        assert subject.said() == []
        assert state_of(subject) is State.OPEN

    def test_once(self, subject: Subject) -> None:
        session = subject.session
        session.close(1000, "first", subject.now)
        assert session.attention
        session.close(4000, "second", subject.now + 5)
        assert subject.said() == [(CLOSE, close_payload(1000, "first"))]
        assert session.sent == Close(1000, "first")
        assert session.deadline() == subject.now + 10

    def test_what_comes_meanwhile_is_delivered(self, subject: Subject) -> None:
        """Section 5.5.1: only the peer's close frame ends what it says."""
        session = subject.session
        session.close(1000, "", subject.now)
        subject.said()
        subject.hear(subject.frame(TEXT, b"late"), subject.frame(PING))
        assert subject.take() == ["late"]
        assert subject.said() == []
        assert not session.over
        subject.hear(subject.frame(CLOSE, close_payload(1000)))
        assert subject.conclude() == []
        assert session.over

    def test_a_failure_meanwhile(self, subject: Subject) -> None:
        session = subject.session
        session.close(1000, "", subject.now)
        subject.said()
        subject.hear(subject.frame(3))
        assert subject.conclude() == []
        assert session.over
        error = session.error()
        assert (error.sent, error.rcvd, error.who) == (Close(1000), None, "remote")
        assert isinstance(error.__cause__, ProtocolError)
        assert type(error) is ConnectionClosedError

    def test_the_peer_does_not_answer(self, make: Make) -> None:
        subject = make(close_timeout=2.5)
        session = subject.session
        session.close(1000, "", 1000.0)
        subject.said()
        subject.now = 1002.0
        subject.hear(subject.frame(PONG))  # no sign of life holds it up
        assert session.deadline() == 1002.5
        assert subject.expire(1002.4) == []
        assert state_of(subject) is State.CLOSING
        assert subject.expire(1002.5) == []
        assert state_of(subject) is State.CLOSED
        error = session.error()
        assert error.detail == "the peer did not end the closing handshake within 2.5 s"
        assert (error.who, error.code) == ("remote", 1006)

    def test_the_peer_does_not_end_tcp(self, subject: Subject) -> None:
        """Both close frames are known, so that is what happened; the wait for TCP's end is bounded all the same."""
        session = subject.session
        session.close(1000, "", 1000.0)
        subject.hear(subject.frame(CLOSE, close_payload(1000)))
        subject.expire(1010.0)
        assert state_of(subject) is State.CLOSED
        error = session.error()
        assert type(error) is ConnectionClosedOK
        assert (error.who, error.detail) == ("local", "")

    def test_for_ever(self, make: Make) -> None:
        subject = make(close_timeout=None)
        subject.session.close(1000, "", subject.now)
        assert subject.session.deadline() == FOREVER
        subject.expire(10.0**9)
        assert state_of(subject) is State.CLOSING


class TestEnd:
    """What is told when it is over: who ended it, in which order, and what was seen."""

    def end(self, subject: Subject, *steps: str) -> ConnectionClosed:
        session = subject.session
        for step in steps:
            match step:
                case "theirs":
                    subject.hear(subject.frame(CLOSE, close_payload(1000)))
                case "their error":
                    subject.hear(subject.frame(CLOSE, close_payload(1008)))
                case "ours":
                    session.close(1001, "", subject.now)
                case "our error":
                    session.close(4000, "", subject.now)
                case "conclude":
                    session.conclude(subject.now)
                case "garbage":
                    subject.hear(subject.frame(7))
        session.end("network", "cable cut")
        assert state_of(subject) is State.CLOSED
        assert session.deaf
        assert session.attention
        error = session.error()
        session.end("local", "never mind")  # the first word holds
        assert str(session.error()) == str(error)
        assert session.error().who == error.who
        subject.hear(subject.frame(TEXT, b"late"))
        assert subject.take() == []
        return error

    @pytest.mark.parametrize(
        ("steps", "kind", "who", "order", "text"),
        [
            ([], ConnectionClosedError, "network", None, "no close frame received or sent (cable cut)"),
            (
                ["theirs"],
                ConnectionClosedError,
                "network",
                None,
                "received 1000 (normal closure); no close frame sent (cable cut)",
            ),
            (
                ["ours"],
                ConnectionClosedError,
                "network",
                None,
                "sent 1001 (going away); no close frame received (cable cut)",
            ),
            (
                ["theirs", "conclude"],
                ConnectionClosedOK,
                "remote",
                True,
                "received 1000 (normal closure); then sent 1000 (normal closure)",
            ),
            (
                ["theirs", "ours"],
                ConnectionClosedOK,
                "remote",
                True,
                "received 1000 (normal closure); then sent 1001 (going away)",
            ),
            (
                ["ours", "theirs"],
                ConnectionClosedOK,
                "local",
                False,
                "sent 1001 (going away); then received 1000 (normal closure)",
            ),
            (
                ["ours", "their error", "conclude"],
                ConnectionClosedError,
                "local",
                False,
                "sent 1001 (going away); then received 1008 (policy violation)",
            ),
            (
                ["our error", "theirs"],
                ConnectionClosedError,
                "local",
                False,
                "sent 4000 (private use); then received 1000 (normal closure)",
            ),
            (
                ["their error", "conclude"],
                ConnectionClosedError,
                "remote",
                True,
                "received 1008 (policy violation); then sent 1008 (policy violation)",
            ),
            (
                ["garbage"],
                ConnectionClosedError,
                "remote",
                None,
                "no close frame received or sent (reserved opcode 7 (section 5.2))",
            ),
            (
                ["garbage", "conclude"],
                ConnectionClosedError,
                "remote",
                None,
                "sent 1002 (protocol error) reserved opcode 7 (section 5.2); no close frame received",
            ),
            (
                ["garbage", "ours", "conclude"],
                ConnectionClosedError,
                "remote",
                None,
                "sent 1001 (going away); no close frame received (reserved opcode 7 (section 5.2))",
            ),
        ],
        ids=lambda value: "-".join(value) or "nothing" if isinstance(value, list) else "",
    )
    def test_orders(
        self, subject: Subject, steps: list[str], kind: type[Exception], who: str, order: bool | None, text: str
    ) -> None:
        error = self.end(subject, *steps)
        assert type(error) is kind
        assert (error.who, error.rcvd_then_sent, str(error)) == (who, order, text)
        assert (error.__cause__ is not None) == ("garbage" in steps)

    @pytest.mark.parametrize("code", [1000, 1001, None, 1002, 1011, 3000])
    def test_ok(self, subject: Subject, code: int | None) -> None:
        subject.hear(subject.frame(CLOSE, b"" if code is None else close_payload(code)))
        subject.conclude()
        kind = ConnectionClosedOK if code in (1000, 1001, None) else ConnectionClosedError
        assert type(subject.session.error()) is kind

    def test_reasons_of_failures_fit_a_close_frame(self, make: Make) -> None:
        subject = make(max_size=2**63 - 2, max_frame=2**63 - 3)
        subject.hear(subject.frame(BINARY, declared=2**63 - 1))
        assert_failed(subject, 1009, f"a message of {2**63 - 1} bytes is over the limit of {2**63 - 2}")


# Sending.


class TestSending:
    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    @pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
    def test_messages(self, subject: Subject, kind: Any, size: int) -> None:
        payload = bytes(i * 3 & 255 for i in range(size))
        subject.session.send(BINARY_FRAME, kind(payload))
        subject.session.send(TEXT_FRAME, kind(b"text"))
        assert subject.said() == [(BINARY, payload), (TEXT, b"text")]

    def test_fragments(self, subject: Subject) -> None:
        session = subject.session
        session.send_fragment(TEXT, b"a", False)
        assert session.sending == TEXT
        session.ping(b"p", subject.now)
        session.pong(b"q")
        session.send_fragment(TEXT, b"", False)
        session.send_fragment(TEXT, b"c", True)
        assert session.sending == 0
        session.send_fragment(BINARY, b"d", True)
        assert [frame._replace(masked=False) for frame in subject.said_frames()] == [
            Frame(TEXT, b"a", False),
            Frame(PING, b"p"),
            Frame(PONG, b"q"),
            Frame(CONT, b"", False),
            Frame(CONT, b"c"),
            Frame(BINARY, b"d"),
        ]

    def test_no_message_inside_another(self, subject: Subject) -> None:
        """Section 5.4."""
        session = subject.session
        session.send_fragment(TEXT, b"a", False)
        with pytest.raises(ConcurrencyError, match=r"section 5\.4"):
            session.send(TEXT_FRAME, b"b")
        with pytest.raises(ConcurrencyError, match=r"section 5\.4"):
            session.send_shared(TEXT_FRAME, b"", b"\x81\x00")
        with pytest.raises(ConcurrencyError, match=r"section 5\.4"):
            session.say_shared(TEXT_FRAME)
        session.send_fragment(TEXT, b"c", True)
        session.send(TEXT_FRAME, b"d")
        assert [frame.payload for frame in subject.said_frames()] == [b"a", b"c", b"d"]

    def test_closing_inside_a_message(self, subject: Subject) -> None:
        session = subject.session
        session.send_fragment(TEXT, b"a", False)
        session.close(1011, "", subject.now)
        with pytest.raises(ConnectionClosed):
            session.send_fragment(TEXT, b"b", True)
        with pytest.raises(ConnectionClosed):
            session.send(TEXT_FRAME, b"b")
        assert [frame.opcode for frame in subject.said_frames()] == [TEXT, CLOSE]

    def test_a_frame_for_many(self) -> None:
        made = frame(TEXT, b"to all")
        subjects = [Subject(True), Subject(True)]
        for subject in subjects:
            subject.session.send_shared(TEXT_FRAME, b"to all", made)
            assert subject.said() == [(TEXT, b"to all")]

    def test_a_frame_for_many_that_the_driver_writes(self, subject: Subject) -> None:
        """Before all that is said later, so not where something was said already; a client's has a mask of its own."""
        session = subject.session
        assert session.say_shared(TEXT_FRAME) is session.server
        assert session.active is session.server
        assert not session.out
        session.send(TEXT_FRAME, b"a")
        assert not session.say_shared(TEXT_FRAME)
        assert subject.said() == [(TEXT, b"a")]

    def test_keys_of_a_client(self) -> None:
        """Section 5.3: each frame has its own; a supply may be shared."""

        class Counted(MaskKeys):
            def __init__(self) -> None:
                super().__init__()
                self.given: list[bytes] = []

            def next(self) -> bytes:
                self.given.append(super().next())
                return self.given[-1]

        keys = Counted()
        for _ in range(2):
            session = Session(False, mask_keys=keys)
            session.open(0.0)
            session.send(TEXT_FRAME, b"")
            session.send_fragment(TEXT, b"", False)
            session.ping(b"", 0.0)
            session.pong(b"")
            session.close(None, "", 0.0)
            assert bytes(session.out) == b"".join(
                bytes([first, 0x80]) + key
                for first, key in zip((0x81, 0x01, 0x89, 0x8A, 0x88), keys.given[-5:], strict=True)
            )
        assert len(set(keys.given)) == 10


class TestLongReasons:
    """What an extension says is broken may be longer than a close frame, and in any words."""

    @pytest.mark.parametrize(
        ("rule", "told"),
        [("x" * 124, "x" * 123), ("é" * 62, "é" * 61), ("x" + "𝄞" * 31, "x" + "𝄞" * 30), ("\udc80", "?")],
        ids=["long", "two bytes", "four bytes", "no text"],
    )
    def test_they_are_cut(self, make: Make, rule: str, told: str) -> None:
        class Refusing(Extension):
            def decode(self, data: bytes, complete: bool, limit: int) -> bytes:
                raise ProtocolError(1003, rule)

        subject = make(extension=Refusing())
        subject.hear(subject.frame(TEXT, b"x"))
        assert subject.conclude() == [(CLOSE, close_payload(1003, told))]
        assert subject.session.sent == Close(1003, told)
        assert subject.session.failure is not None
        assert subject.session.failure.rule == subject.session.detail == rule


# Extensions.


class TestExtension:
    def test_it_is_given_messages(self, make: Make) -> None:
        """And fragments, with the word of who sends them; not control frames."""
        spy = Spy()
        subject = make(extension=spy)
        session = subject.session
        session.send(TEXT_FRAME, b"a")
        session.send(BINARY_FRAME, b"b", True)
        session.send_fragment(TEXT, b"c", False, False)
        session.ping(b"p", subject.now)
        session.pong(b"q")
        session.send_fragment(TEXT, b"d", False, False)
        session.send_fragment(TEXT, b"e", True)
        session.close(1000, "", subject.now)
        assert spy.noted() == [
            ("encode", 0x81, b"a", None),
            ("encode", 0x82, b"b", True),
            ("encode", 0x01, b"c", False),
            ("encode", 0x00, b"d", False),
            ("encode", 0x80, b"e", None),
        ]
        assert [(frame.opcode, frame.payload) for frame in subject.said_frames()] == [
            (TEXT, b"a"),
            (BINARY, b"b"),
            (TEXT, b"c"),
            (PING, b"p"),
            (PONG, b"q"),
            (CONT, b"d"),
            (CONT, b"e"),
            (CLOSE, close_payload(1000)),
        ]

    def test_what_it_makes_is_sent(self, make: Make) -> None:
        subject = make(extension=Doubled())
        session = subject.session
        session.send(TEXT_FRAME, b"ab")
        session.send(TEXT_FRAME, b"ab", False)
        session.send_fragment(BINARY, b"a", False)
        session.send_fragment(BINARY, b"b", True)
        assert [frame._replace(masked=False) for frame in subject.said_frames()] == [
            Frame(TEXT, b"aabb", rsv=4),
            Frame(TEXT, b"ab"),
            Frame(BINARY, b"aa", False, rsv=4),
            Frame(CONT, b"bb"),
        ]

    def test_what_is_shared_is_made_already(self, make: Make, server: bool) -> None:
        spy = Spy(RSV1)
        subject = make(extension=spy)
        subject.session.send_shared(TEXT_FRAME | RSV1, b"to all", frame(TEXT, b"to all", rsv=4))
        assert spy.noted() == [("pass_shared", TEXT_FRAME | RSV1)]
        assert subject.said_frames() == [Frame(TEXT, b"to all", masked=not server, rsv=4)]

    def test_nothing_reaches_it_that_is_not_sent(self, make: Make) -> None:
        """What it keeps of messages must be what the peer sees."""
        spy = Spy()
        subject = make(extension=spy)
        session = subject.session
        session.send_fragment(TEXT, b"a", False)
        spy.noted()
        with pytest.raises(ConcurrencyError):
            session.send(TEXT_FRAME, b"")
        with pytest.raises(ConcurrencyError):
            session.send_shared(TEXT_FRAME, b"", b"")
        session.close(1000, "", subject.now)
        with pytest.raises(ConnectionClosed):
            session.send_fragment(TEXT, b"b", True)
        assert spy.noted() == []

    def test_it_rests_now_and_then(self, make: Make) -> None:
        spy = Spy()
        subject = make(extension=spy, ping_interval=None)
        for due in (1020.0, 1040.0, 1061.0):
            assert subject.session.deadline() == min(due, 1060.0)
            subject.expire(due - 1.5)
            assert spy.noted() == []
            subject.expire(due)
            assert spy.noted() == [("rest",)]
        assert subject.session.deadline() == 1081.0

    def test_none_rests_without_one(self, make: Make) -> None:
        assert make(ping_interval=None).session.deadline() == FOREVER


class TestPaced:
    """The peer wants 1000 bytes a second: 512 may leave at once, in frames of at most 256."""

    @pytest.fixture
    def subject(self, make: Make) -> Subject:
        return make(extension=Slow(1000.0), ping_interval=None)

    def test_a_message_waits_for_its_turn(self, subject: Subject) -> None:
        session = subject.session
        assert session.waiting == 0
        session.send(BINARY_FRAME, bytes(493))
        assert session.waiting == 503
        assert not session.out
        assert [len(frame.payload) for frame in subject.said_frames()] == [256]
        assert session.waiting == 247
        assert session.deadline() == pytest.approx(1000.002)  # of 512 bytes 246 are left: one too few, and rounding
        subject.now = session.deadline()
        session.expire(subject.now)
        assert subject.said_frames()[0].payload == bytes(237)
        assert session.waiting == 0
        assert session.deadline() == 1020.0  # the extension's rest

    def test_control_frames_find_a_gap(self, subject: Subject) -> None:
        """Section 5.4. And their own length is nobody's business."""
        session = subject.session
        session.send(TEXT_FRAME, b"a" * 700)
        session.send(TEXT_FRAME, b"b")
        seen = subject.said_frames()
        for data in (b"1", b"2", b"3"):
            session.ping(data, subject.now)
            subject.hear(subject.frame(PING, data))
            subject.now = session.deadline()
            session.expire(subject.now)
            seen += subject.said_frames()
        text = [frame for frame in seen if frame.opcode in (TEXT, CONT)]
        assert b"".join(frame.payload for frame in text) == b"a" * 700 + b"b"
        assert [(frame.opcode, frame.fin) for frame in seen] == [
            (TEXT, False),
            (PING, True),
            (PONG, True),
            (CONT, False),
            (PING, True),
            (PONG, True),
            (CONT, True),
            (PING, True),
            (PONG, True),
            (TEXT, True),
        ]

    def test_bits_stand_where_the_message_begins(self, make: Make) -> None:
        doubled = Doubled()
        doubled.send_rate = 1000.0
        subject = make(extension=doubled)
        subject.session.send(BINARY_FRAME, bytes(300))
        seen = subject.said_frames()
        subject.now += 10
        seen += subject.said_frames()
        assert [(frame.opcode, frame.fin, frame.rsv) for frame in seen] == [
            (BINARY, False, 4),
            (CONT, False, 0),
            (CONT, True, 0),
        ]

    def test_fragments_stay_fragments(self, subject: Subject) -> None:
        session = subject.session
        session.send_fragment(TEXT, b"a" * 300, False)
        session.send_fragment(TEXT, b"b", True)
        seen = subject.said_frames()
        subject.now += 10
        seen += subject.said_frames()
        assert [(frame.opcode, frame.fin, frame.payload) for frame in seen] == [
            (TEXT, False, b"a" * 256),
            (CONT, False, b"a" * 44),
            (CONT, True, b"b"),
        ]

    def test_what_is_shared_waits_too(self, subject: Subject) -> None:
        session = subject.session
        session.send(BINARY_FRAME, bytes(480))
        session.send_shared(TEXT_FRAME, b"to all", b"\x81\x06to all")
        subject.said_frames()
        subject.now += 10
        assert [frame.payload for frame in subject.said_frames()][-1] == b"to all"

    def test_the_close_frame_goes_behind_it(self, subject: Subject) -> None:
        """It is given the time that this takes, on top of what the peer has for its answer."""
        session = subject.session
        session.send(BINARY_FRAME, bytes(2000))
        subject.said_frames()
        waiting = session.waiting
        session.close(1000, "bye", subject.now)
        assert state_of(subject) is State.CLOSING
        assert subject.said_frames() == []
        assert session.waiting == waiting + 5 + 10
        seen: list[Frame] = []
        while session.waiting:
            subject.now = session.deadline()
            assert subject.now < 1003
            session.expire(subject.now)
            seen += subject.said_frames()
        assert (seen[-1].opcode, seen[-1].payload) == (CLOSE, close_payload(1000, "bye"))
        assert session.deadline() == pytest.approx(1010.0 + waiting / 1000)
        assert state_of(subject) is State.CLOSING

    def test_not_for_ever(self, subject: Subject) -> None:
        """A peer that wants a byte now and then is not waited for as long as it likes."""
        session = subject.session
        session.send(BINARY_FRAME, bytes(1_000_000))
        subject.said_frames()
        session.close(1000, "", 1000.0)
        session.expire(1069.9)
        assert state_of(subject) is State.CLOSING
        session.expire(1070.0)
        assert state_of(subject) is State.CLOSED
        assert session.deadline() == FOREVER

    def test_a_failure_drops_what_waits(self, subject: Subject) -> None:
        """The peer that broke a rule need not have the rest, and is told which rule at once."""
        session = subject.session
        session.send(BINARY_FRAME, bytes(1000))
        assert len(subject.said_frames()) == 1
        subject.hear(subject.frame(3))
        session.conclude(subject.now)
        subject.now = 1000.1
        assert [frame.opcode for frame in subject.said_frames()] == [CLOSE]
        assert session.waiting == 0
        assert session.deadline() == 1010.0

    def test_a_rate_that_is_none(self, make: Make) -> None:
        subject = make(extension=Slow(FOREVER))
        subject.session.send(BINARY_FRAME, bytes(100_000))
        assert subject.session.waiting == 0
        assert subject.said() == [(BINARY, bytes(100_000))]


# Limits.


def test_a_million_honest_messages_trip_no_limit(make: Make) -> None:
    """With the defaults of a server: 20,000 a second, pings and pongs among them, some in fragments."""
    subject = make(limits=Limits())
    session = subject.session
    some = subject.frame(TEXT, b"x") * 900 + subject.frame(PING) + subject.frame(PONG)
    some += (subject.frame(BINARY, b"y", fin=False) + subject.frame(PONG) + subject.frame(CONT, b"z")) * 2
    some += subject.frame(BINARY, bytes(126)) * 98
    for _ in range(1000):
        subject.now += 0.05
        session.receive(bytearray(some), len(some), subject.now)
        assert session.queued() == 1000
        session.drop(0)
        session.out.clear()
    assert session.failure is None
    assert not session.attention
    assert session.limit == ""


class TestControlFrames:
    """100 a second, counted over ten seconds."""

    @pytest.mark.parametrize("opcode", [PING, PONG])
    def test_a_flood(self, make: Make, opcode: int) -> None:
        subject = make(limits=Limits())
        subject.hear(subject.frame(opcode) * 1000)
        assert subject.session.failure is None
        assert len(subject.said()) == (1000 if opcode == PING else 0)
        subject.hear(subject.frame(opcode) + subject.frame(TEXT, b"later"))
        assert_failed(subject, 1008, "more than 100 control frames a second")
        assert subject.session.limit == "control_frames_per_second"

    def test_each_ten_seconds_anew(self, make: Make) -> None:
        subject = make(limits=Limits())
        for now, count in ((1000.0, 600), (1009.9, 400), (1010.0, 1000), (1050.0, 999)):
            subject.now = now
            subject.hear(subject.frame(PONG) * count)
            assert subject.session.failure is None
        subject.hear(subject.frame(PONG) * 2)
        assert_failed(subject, 1008, "more than 100 control frames a second")

    def test_the_close_frame_does_not_count(self, make: Make) -> None:
        subject = make(limits=Limits(control_frames_per_second=0.5))
        subject.hear(subject.frame(PONG) * 5 + subject.frame(CLOSE))
        assert subject.session.failure is None
        assert subject.session.rcvd is not None

    def test_what_was_asked_for_does_not_count(self, make: Make) -> None:
        subject = make(limits=Limits(control_frames_per_second=0.5))
        for _ in range(20):
            subject.hear(subject.frame(PONG, subject.session.ping(None, subject.now)))
        assert subject.session.failure is None

    def test_messages_do_not(self, make: Make) -> None:
        subject = make(limits=Limits(control_frames_per_second=0.1))
        subject.hear((subject.frame(TEXT) + subject.frame(TEXT, fin=False) + subject.frame(CONT)) * 50)
        assert subject.session.failure is None

    def test_no_limit(self, make: Make) -> None:
        subject = make()
        subject.hear(subject.frame(PONG) * 20_000)
        assert subject.session.failure is None


class TestRates:
    @pytest.mark.parametrize("name", ["bytes_per_second", "messages_per_second"])
    def test_close(self, make: Make, server: bool, name: str) -> None:
        """A second's worth may come at once, and not one more."""
        data = make().frame(BINARY, bytes(10))
        rate = 20 * len(data) if name == "bytes_per_second" else 20
        for extra in (0, 1):
            subject = make(limits=Limits(**{name: rate - extra}, over_rate="close"))
            subject.hear(data * 20)
            assert len(subject.take()) == 20  # what came before the verdict is delivered
            if extra:
                assert_failed(subject, 1008, f"more than {rate - 1} {name[:-11]} a second")
                assert subject.session.limit == name
            else:
                assert subject.session.failure is None
                subject.now += 0.5
                subject.hear(data * 10)
                assert subject.session.failure is None
                subject.hear(data)
                assert subject.session.failure is not None

    @pytest.mark.parametrize(
        ("limits", "limit", "rule"),
        [
            ({"bytes_per_second": 1_000_000, "messages_per_second": 1}, "messages_per_second", "1 messages"),
            ({"bytes_per_second": 10, "messages_per_second": 100}, "bytes_per_second", "10 bytes"),
            ({"bytes_per_second": 10, "messages_per_second": 1}, "bytes_per_second", "10 bytes"),
            ({"bytes_per_second": 10_000, "messages_per_second": 0.5}, "messages_per_second", "0.5 messages"),
        ],
    )
    def test_the_one_that_is_broken_most(self, make: Make, limits: dict[str, float], limit: str, rule: str) -> None:
        subject = make(limits=Limits(**limits, over_rate="close"))  # type: ignore[arg-type]
        subject.hear(subject.frame(BINARY, bytes(1000)) * 3)
        subject.take()
        assert_failed(subject, 1008, f"more than {rule} a second")
        assert subject.session.limit == limit

    def test_pause(self, make: Make) -> None:
        """Nothing fails and nothing is lost: the driver is told when to read on."""
        subject = make(limits=Limits(messages_per_second=10))
        session = subject.session
        subject.hear(subject.frame(TEXT) * 10)
        assert (session.resume_at, session.attention) == (0.0, False)
        subject.hear(subject.frame(TEXT) * 5)
        assert (session.resume_at, session.attention) == (1000.5, True)
        assert len(subject.take()) == 15
        assert session.failure is None
        assert session.limit == ""
        session.attention = False
        subject.now = session.resume_at
        subject.hear(b"")
        assert not session.attention
        subject.hear(subject.frame(TEXT))
        assert session.attention
        assert session.resume_at == pytest.approx(1000.6)

    def test_a_second_verdict_says_nothing(self, make: Make) -> None:
        """The peer broke a rule in the read that was too much: that rule is what it is told."""
        for over_rate in ("pause", "close"):
            subject = make(limits=Limits(bytes_per_second=1, over_rate=over_rate))
            subject.hear(subject.frame(3))
            assert subject.session.resume_at == 0.0
            assert_failed(subject, 1002, "reserved opcode 3")
            assert subject.session.limit == ""


class TestIdle:
    """No message in either direction for `idle_timeout`; noticed a quarter of it later at most."""

    def ends_at(self, subject: Subject) -> float:
        """Let time pass until the connection is closed."""
        for _ in range(5):
            if state_of(subject) is not State.OPEN:
                break
            subject.now = subject.session.deadline()
            subject.session.expire(subject.now)
        assert subject.said() == [(CLOSE, close_payload(1001, subject.session.detail))]
        return subject.now

    @pytest.mark.parametrize("timeout", [0.3, 1.0, 59.9, 3600.0])
    def test_when(self, make: Make, timeout: float) -> None:
        actions: list[Callable[[Subject], object]] = [
            lambda subject: subject.hear(subject.frame(TEXT)),
            lambda subject: subject.session.send(TEXT_FRAME, b""),
            lambda subject: subject.session.send_fragment(TEXT, b"", True),
            lambda subject: subject.session.send_shared(TEXT_FRAME, b"", b"\x81\x00"),
        ]
        for i, action in enumerate(actions * 8):
            subject = make(limits=Limits(idle_timeout=timeout), ping_interval=None, now=1000.1 + i / 7)
            active_at = subject.now + timeout * i / 16
            while subject.session.deadline() < active_at:
                subject.expire(subject.session.deadline())
                subject.hear(subject.frame(TEXT))
            assert state_of(subject) is State.OPEN
            subject.now = active_at
            action(subject)
            subject.said()
            idle = (self.ends_at(subject) - active_at) / timeout
            assert 1.0 <= idle + 1e-9 <= 1.25 + 2e-9

    def test_from_the_beginning(self, make: Make) -> None:
        subject = make(limits=Limits(idle_timeout=60), ping_interval=None)
        assert self.ends_at(subject) == 1060.0
        session = subject.session
        assert session.sent == Close(1001, "no message for 60 s")
        assert (session.limit, session.who, session.detail) == ("idle_timeout", "local", "no message for 60 s")
        subject.hear(subject.frame(CLOSE, close_payload(1001)))
        assert type(session.error()) is ConnectionClosedOK

    def test_control_frames_are_no_activity(self, make: Make) -> None:
        """Keepalive must not keep a connection that nobody uses."""
        subject = make(limits=Limits(idle_timeout=60))
        for now in (1015.0, 1030.0, 1045.0):
            subject.expire(now)
            subject.hear(subject.frame(PING) + subject.frame(PONG))
            subject.session.ping(None, now)
            subject.session.pong(b"")
            subject.said()
        assert state_of(subject) is State.OPEN
        assert [opcode for opcode, _ in subject.expire(1060.0)][-1] == CLOSE

    def test_a_loop_that_was_blocked(self, make: Make) -> None:
        """Messages may wait to be read: one look that is late does not count for many."""
        subject = make(limits=Limits(idle_timeout=60), ping_interval=None)
        assert subject.expire(5000.0) == []
        assert state_of(subject) is State.OPEN
        assert self.ends_at(subject) == 5045.0

    def test_what_waits_for_its_turn_is_on_its_way(self, make: Make) -> None:
        """The peer wants a long message slowly: that takes as long as it takes."""
        subject = make(extension=Slow(1000.0), limits=Limits(idle_timeout=1.0), ping_interval=None)
        session = subject.session
        session.send(BINARY_FRAME, bytes(10_000))
        while session.waiting:
            assert state_of(subject) is State.OPEN
            subject.said_frames()
            subject.now = session.deadline()
            session.expire(subject.now)
        sent_at = subject.now
        assert sent_at > 1009
        subject.said_frames()
        assert 1.0 <= self.ends_at(subject) - sent_at <= 1.25

    def test_not_while_a_verdict_waits(self, make: Make) -> None:
        subject = make(limits=Limits(idle_timeout=1.0), ping_interval=None)
        subject.hear(subject.frame(TEXT) + subject.frame(CLOSE, close_payload(1000)))
        subject.session.hold(1000.0)
        assert subject.session.deadline() == 1002.0
        assert subject.expire(1001.9) == []
        assert subject.expire(1002.0) == [(CLOSE, close_payload(1000))]


# A message whose payload the driver writes itself.


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_the_head_of_a_message(size: int) -> None:
    subject = Subject(True)
    assert subject.session.send_head(BINARY_FRAME, size)
    subject.session.out += bytes(size)
    assert subject.said() == [(BINARY, bytes(size))]


def test_no_head_where_the_payload_is_changed_or_waits() -> None:
    for subject in (Subject(False), Subject(True, extension=Doubled()), Subject(True, extension=Slow(1000.0))):
        assert not subject.session.send_head(BINARY_FRAME, 5)
        assert subject.said() == []


def test_no_head_where_nothing_may_be_sent() -> None:
    subject = Subject(True)
    subject.session.send_fragment(BINARY, b"", False)
    with pytest.raises(ConcurrencyError):
        subject.session.send_head(BINARY_FRAME, 5)
    subject.session.send_fragment(BINARY, b"", True)
    subject.session.close(1000, "", subject.now)
    with pytest.raises(ConnectionClosed):
        subject.session.send_head(BINARY_FRAME, 5)
