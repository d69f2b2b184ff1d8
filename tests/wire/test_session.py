from __future__ import annotations

import itertools
import secrets
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fullduplex.wire.codec import MaskKeys
from fullduplex.wire.errors import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    PayloadTooBig,
    ProtocolError,
)
from fullduplex.wire.keepalive import FOREVER
from fullduplex.wire.limits import MAX_FRAGMENTS, MAX_MESSAGE
from fullduplex.wire.opcodes import Close, State
from fullduplex.wire.session import BINARY_FRAME, TEXT_FRAME, Session
from fullduplex.wire.states import TRANSITIONS, Event
from wire.frames import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT, Frame, close_payload, frame
from wire.subject import Subject, state_of

Make = Callable[..., Subject]


@pytest.fixture(params=[True, False], ids=["server", "client"])
def server(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def make(server: bool) -> Make:
    """A subject in either role."""
    return lambda **settings: Subject(server, **settings)


@pytest.fixture
def subject(make: Make) -> Subject:
    return make()


def assert_failed(subject: Subject, code: int, words: str) -> None:
    """The peer broke a rule: it is told the code, the rule is known, nothing more is heard, nothing was delivered."""
    session = subject.session
    failure = session.failure
    assert failure is not None
    assert (failure.code, failure.who) == (code, "remote")
    assert words in failure.rule
    assert session.deaf
    assert session.attention
    assert state_of(subject) is State.OPEN
    assert subject.said() == []
    assert subject.conclude() == [(CLOSE, close_payload(code, failure.rule))]
    assert state_of(subject) is State.CLOSING
    assert session.over
    assert (session.sent, session.rcvd) == (Close(code, failure.rule), None)
    subject.hear(subject.frame(TEXT, b"later"), subject.frame(PING), subject.frame(CLOSE))
    assert subject.conclude() == []
    assert subject.take() == []
    error = session.error()
    assert type(error) is ConnectionClosedError
    assert error.__cause__ is failure
    assert (error.who, error.detail) == ("remote", failure.rule)


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
            lambda: session.send_frame(b"\x81\x00"),
            lambda: session.ping(None, subject.now),
            lambda: session.pong(b""),
        ]
        for attempt in attempts:
            with pytest.raises(ConnectionClosed) as info:
                attempt()
            assert str(info.value) == str(session.error())
        assert not session.out


# Receiving messages.


class TestMessages:
    @pytest.mark.parametrize("size", [0, 1, 2, 125, 126, 127, 65535, 65536])
    def test_whole(self, subject: Subject, size: int) -> None:
        text, data = "x" * size, bytes(i * 11 & 255 for i in range(size))
        subject.hear(subject.frame(TEXT, text.encode()) + subject.frame(BINARY, data))
        messages = subject.take()
        assert messages == [text, data]
        assert list(map(type, messages)) == [str, bytes]
        assert subject.said() == []
        assert not subject.session.attention

    @pytest.mark.parametrize("size", [0, 1, 5, 125, 126, 300])
    def test_bytewise(self, subject: Subject, size: int) -> None:
        text, data = "é" * size, bytes(i * 11 & 255 for i in range(size))
        subject.hear_bytewise(subject.frame(TEXT, text.encode()) + subject.frame(BINARY, data))
        assert subject.take() == [text, data]

    def test_cut_in_two_anywhere(self, subject: Subject) -> None:
        stream = subject.frame(TEXT, b"one") + subject.frame(BINARY, bytes(range(130))) + subject.frame(TEXT, b"three")
        for cut in range(len(stream) + 1):
            subject.hear(stream[:cut], stream[cut:])
            assert subject.take() == ["one", bytes(range(130)), "three"]

    def test_only_the_first_bytes_of_a_buffer_count(self, subject: Subject) -> None:
        """A driver reads into one buffer again and again: what is delivered stays as it is."""
        buffer = bytearray(1000)
        delivered = []
        for data in (b"a" * 200, b"b" * 20, b""):
            stream = subject.frame(BINARY, data) + subject.frame(BINARY, data[:9], fin=False)
            stream += subject.frame(CONT, data[9:])
            buffer[:] = b"\xff" * 1000
            buffer[: len(stream)] = stream
            subject.session.receive(buffer, len(stream), subject.now)
            delivered += subject.take()
            assert delivered[-2:] == [data, data]
        assert delivered == [b"a" * 200] * 2 + [b"b" * 20] * 2 + [b""] * 2

    def test_a_new_key_for_each_frame(self) -> None:
        subject = Subject(True)
        for key in (KEY, b"\x01\x02\x03\x04", bytes(4)):
            stream = (
                frame(TEXT, b"whole", key=key)
                + frame(TEXT, b"frag", fin=False, key=key)
                + frame(CONT, b"ment", key=key)
            )
            subject.hear(stream)
            subject.hear_bytewise(stream)
        assert subject.take() == ["whole", "fragment"] * 6

    def test_no_limit(self, make: Make) -> None:
        subject = make(max_size=None, max_fragments=None)
        subject.hear(subject.frame(BINARY, bytes(MAX_MESSAGE + 1)))
        assert subject.take() == [bytes(MAX_MESSAGE + 1)]
        subject.hear(subject.frame(BINARY, declared=2**63 - 1))
        assert subject.session.failure is None

    def test_a_byte_order_mark_is_text(self, subject: Subject) -> None:
        subject.hear(subject.frame(TEXT, b"\xef\xbb\xbfx"), subject.frame(TEXT, b"\xef", fin=False))
        subject.hear(subject.frame(CONT, b"\xbb\xbfx"))
        assert subject.take() == ["\ufeffx", "\ufeffx"]


class TestFragments:
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_three(self, subject: Subject, opcode: int) -> None:
        parts = ["Zw\xf6lf Bo\xdf".encode()[:3], "Zw\xf6lf Bo\xdf".encode()[3:10], "Zw\xf6lf Bo\xdf".encode()[10:]]
        stream = subject.frame(opcode, parts[0], fin=False) + subject.frame(CONT, parts[1], fin=False)
        stream += subject.frame(CONT, parts[2])
        expected = b"".join(parts).decode() if opcode == TEXT else b"".join(parts)
        subject.hear(stream)
        subject.hear_bytewise(stream)
        assert subject.take() == [expected, expected]

    @pytest.mark.parametrize(("opcode", "empty"), [(TEXT, ""), (BINARY, b"")])
    def test_empty_ones(self, subject: Subject, opcode: int, empty: str | bytes) -> None:
        begin, more = subject.frame(opcode, fin=False), subject.frame(CONT, fin=False)
        subject.hear(begin + more + subject.frame(CONT))
        subject.hear(begin + subject.frame(CONT, b"x") + begin + subject.frame(CONT))
        x = "x" if opcode == TEXT else b"x"
        assert subject.take() == [empty, x, empty]

    def test_control_frames_between(self, subject: Subject) -> None:
        """Section 5.4: they may stand inside a message, and are seen at once."""
        subject.hear(subject.frame(TEXT, b"a", fin=False) + subject.frame(PING, b"1"))
        assert subject.said() == [(PONG, b"1")]
        subject.hear(subject.frame(PONG, b"?") + subject.frame(CONT, b"b", fin=False) + subject.frame(PING, b"2"))
        assert subject.said() == [(PONG, b"2")]
        assert subject.take() == []
        subject.hear(subject.frame(CONT, b"c"))
        assert subject.take() == ["abc"]

    def test_a_close_frame_inside_a_message(self, subject: Subject) -> None:
        """The message is lost, the closing handshake is not."""
        subject.hear(subject.frame(TEXT, b"a", fin=False) + subject.frame(CLOSE, close_payload(1000)))
        assert subject.take() == []
        assert subject.conclude() == [(CLOSE, close_payload(1000))]
        assert subject.session.failure is None

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_a_new_message_inside(self, subject: Subject, opcode: int) -> None:
        subject.hear(subject.frame(TEXT, b"a", fin=False) + subject.frame(opcode, b"b"))
        assert subject.take() == []
        assert_failed(subject, 1002, "section 5.4")

    def test_nothing_to_continue(self, subject: Subject) -> None:
        subject.hear(subject.frame(TEXT, b"a", fin=False) + subject.frame(CONT, b"b") + subject.frame(CONT, b"c"))
        assert subject.take() == ["ab"]
        assert_failed(subject, 1002, "section 5.4")

    def test_limit(self, make: Make) -> None:
        subject = make(max_fragments=3)
        begin, more, last = subject.frame(TEXT, b"a", fin=False), subject.frame(CONT, fin=False), subject.frame(CONT)
        for _ in range(3):  # a limit of each message, not of all
            subject.hear(begin + more + subject.frame(PING) + last)
        assert subject.take() == ["a"] * 3
        subject.said()
        subject.hear(begin + more + more)
        assert subject.session.failure is None
        subject.hear(more[:-1])  # of no fragment that is one too many is the whole head needed
        assert subject.session.failure is None
        subject.hear(more[-1:])
        assert isinstance(subject.session.failure, PayloadTooBig)
        assert_failed(subject, 1009, "more than 3 fragments in a message")

    def test_empty_ones_without_end(self, subject: Subject) -> None:
        """CVE-2026-62389: those count too."""
        subject.hear(subject.frame(BINARY, fin=False))
        more = subject.frame(CONT, fin=False)
        for _ in range(MAX_FRAGMENTS // 1024 + 1):
            subject.hear(more * 1024)
        assert_failed(subject, 1009, f"more than {MAX_FRAGMENTS} fragments")


class TestRules:
    """Section 5: T11, the whole table."""

    def test_every_first_two_bytes(self, server: bool) -> None:
        """RSV x opcode x FIN x MASK, between two messages and inside one. Both bytes suffice to know."""
        told: set[str] = set()
        for rsv, opcode, fin, masked, inside in itertools.product(range(8), range(16), (0, 1), (0, 1), (0, 1)):
            subject = Subject(server)
            if inside:
                subject.hear(subject.frame(BINARY, fin=False))
            legal = rsv == 0 and masked == server
            if opcode in (TEXT, BINARY):
                legal = legal and not inside
            elif opcode == CONT:
                legal = legal and bool(inside)
            else:
                legal = legal and opcode in (CLOSE, PING, PONG) and fin == 1
            data = bytes([fin << 7 | rsv << 4 | opcode, masked << 7 | 2]) + masked * KEY + masked * KEY[:2]
            subject.hear(data[:1])
            assert subject.session.failure is None
            subject.hear(data[1:2])
            case = (rsv, opcode, fin, masked, inside)
            failure = subject.session.failure
            assert (failure is None) == legal, case
            if failure is not None:
                assert failure.code == 1002
                told.add(failure.rule)
                assert subject.conclude() == [(CLOSE, close_payload(1002, failure.rule))], case
                at_once = Subject(server)
                if inside:
                    at_once.hear(at_once.frame(BINARY, fin=False))
                at_once.hear(data + frame(TEXT, b"later", key=KEY if server else None))
                assert at_once.session.failure is not None
                assert at_once.session.failure.rule == failure.rule, case
                assert at_once.take() == []
        assert {rule.rpartition(" ")[2] for rule in told} == {"5.1)", "5.2)", "5.4)", "5.5)"}

    @pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
    def test_every_second_byte(self, server: bool, masked: bool) -> None:
        """In whole frames: the usual ones are read in another way than others."""
        sizes = [(size, size) for size in range(126)]
        sizes += [(126, size) for size in (0, 1, 125, 126, 127, 128, 253, 254, 255, 256, 65535)]
        sizes += [(127, size) for size in (0, 125, 126, 127, 128, 65535, 65536)]
        for form, size in sizes:
            subject = Subject(server)
            payload = b"x" * size
            subject.hear(frame(TEXT, payload, form=form, key=KEY if masked else None) + subject.frame(BINARY))
            if masked is not server:
                assert_failed(subject, 1002, "masked (section 5.1)")
            elif (form == 126 and size < 126) or (form == 127 and size < 65536):
                assert_failed(subject, 1002, "shortest form")
            else:
                assert subject.take() == [payload.decode(), b""], (form, size)

    @pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
    def test_long_control_frames(self, make: Make, opcode: int) -> None:
        payload = close_payload(1000) + b"x" * 123
        subject = make()
        subject.hear(subject.frame(opcode, payload))
        assert subject.session.failure is None
        for form in (126, 127):
            for size in (126, 0):
                subject = make()
                subject.hear(subject.frame(opcode, declared=size, form=form)[:2])
                assert_failed(subject, 1002, "section 5.5")

    @pytest.mark.parametrize(("form", "length"), [(126, 0), (126, 125), (127, 0), (127, 125), (127, 126), (127, 65535)])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY, CONT])
    def test_longer_forms(self, make: Make, opcode: int, form: int, length: int) -> None:
        """T10. "The minimal number of bytes MUST be used" (section 5.2)."""
        for whole in (True, False):
            subject = make()
            if opcode == CONT:
                subject.hear(subject.frame(TEXT, fin=False))
            data = subject.frame(opcode, bytes(length), form=form)
            subject.hear(data if whole else data[:-length] if length else data)
            assert_failed(subject, 1002, "shortest form")

    @pytest.mark.parametrize("length", [2**63, 2**63 + 1, 2**64 - 1])
    @pytest.mark.parametrize("max_size", [None, MAX_MESSAGE], ids=["unlimited", "limited"])
    def test_the_top_bit(self, make: Make, length: int, max_size: int | None) -> None:
        """T10, CVE-2026-27889, CVE-2026-1528, CVE-2020-13935."""
        for bytewise in (False, True):
            subject = make(max_size=max_size)
            data = subject.frame(BINARY, declared=length)
            (subject.hear_bytewise if bytewise else subject.hear)(data)
            assert_failed(subject, 1002, "highest bit")

    def test_the_good_messages_before_are_delivered(self, subject: Subject) -> None:
        subject.hear(subject.frame(TEXT, b"good") + subject.frame(BINARY, b"too") + subject.frame(3))
        assert subject.take() == ["good", b"too"]
        subject.session.send(TEXT_FRAME, b"answer")
        assert subject.said() == [(TEXT, b"answer")]
        assert_failed(subject, 1002, "reserved opcode 3")


class TestSizes:
    """T6, CVE-2026-54274: the declared length is judged, before the first byte of payload."""

    @pytest.mark.parametrize("length", [101, 125, 126, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**63 - 1])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_a_message(self, make: Make, opcode: int, length: int) -> None:
        subject = make(max_size=100)
        subject.hear(subject.frame(opcode, b"x" * 100))
        assert len(subject.take()) == 1
        subject.hear(subject.frame(opcode, declared=length))
        assert isinstance(subject.session.failure, PayloadTooBig)
        assert_failed(subject, 1009, f"a message of {length} bytes is over the limit of 100")

    @pytest.mark.parametrize("size", [101, 200, 5000])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_a_message_that_came_whole(self, make: Make, opcode: int, size: int) -> None:
        subject = make(max_size=100)
        subject.hear(subject.frame(opcode, b"x" * 100) + subject.frame(opcode, b"x" * size))
        assert len(subject.take()) == 1
        assert_failed(subject, 1009, f"a message of {size} bytes is over the limit of 100")

    @pytest.mark.parametrize("whole", [True, False])
    def test_the_sum_of_fragments(self, make: Make, whole: bool) -> None:
        subject = make(max_size=100)
        for _ in range(3):  # of each message, not of all
            subject.hear(subject.frame(BINARY, bytes(60), fin=False), subject.frame(CONT, bytes(40)))
        assert subject.take() == [bytes(100)] * 3
        subject.hear(subject.frame(BINARY, bytes(60), fin=False) + subject.frame(PING, bytes(125)))
        subject.said()
        subject.hear(subject.frame(CONT, bytes(41) if whole else b"", declared=41))
        assert_failed(subject, 1009, "a message of 101 bytes is over the limit of 100")

    @pytest.mark.parametrize("fin", [True, False])
    def test_a_frame(self, make: Make, fin: bool) -> None:
        subject = make(max_size=100, max_frame=50)
        subject.hear(subject.frame(BINARY, bytes(50), fin=False), subject.frame(CONT, bytes(50)))
        subject.hear(subject.frame(BINARY, bytes(50)))
        assert subject.take() == [bytes(100), bytes(50)]
        subject.hear(subject.frame(BINARY, bytes(51), fin=fin))
        assert isinstance(subject.session.failure, PayloadTooBig)
        assert_failed(subject, 1009, "a frame of 51 bytes is over the limit of 50")

    def test_a_frame_is_a_part_of_a_message(self, make: Make) -> None:
        subject = make(max_size=100, max_frame=200)
        subject.hear(subject.frame(BINARY, bytes(101)))
        assert_failed(subject, 1009, "a message of 101 bytes is over the limit of 100")

    def test_a_limit_of_frames_alone(self, make: Make) -> None:
        subject = make(max_size=None, max_frame=10)
        subject.hear(subject.frame(BINARY, bytes(10), fin=False) + subject.frame(CONT, bytes(10)))
        assert subject.take() == [bytes(20)]
        subject.hear(subject.frame(BINARY, bytes(11)))
        assert_failed(subject, 1009, "a frame of 11 bytes is over the limit of 10")

    def test_bytes_count_not_characters(self, make: Make) -> None:
        subject = make(max_size=100)
        subject.hear(subject.frame(TEXT, ("é" * 50).encode()))
        assert subject.take() == ["é" * 50]
        subject.hear(subject.frame(TEXT, ("é" * 51).encode()))
        assert_failed(subject, 1009, "a message of 102 bytes")

    def test_nothing_of_a_message(self, make: Make) -> None:
        subject = make(max_size=0)
        subject.hear(
            subject.frame(TEXT) + subject.frame(BINARY, fin=False) + subject.frame(CONT) + subject.frame(PING, b"p")
        )
        assert subject.take() == ["", b""]
        assert subject.said() == [(PONG, b"p")]
        subject.hear(subject.frame(TEXT, b"x"))
        assert_failed(subject, 1009, "a message of 1 bytes is over the limit of 0")


class TestText:
    """Section 8.1: fail at once."""

    # What no byte after it can make valid, and the reason at its last byte only.
    IMPOSSIBLE = (
        b"\x80",
        b"\xbf",
        b"\xc0",
        b"\xc1",
        b"\xc2\x41",
        b"\xe0\x9f",
        b"\xe1\x80\x41",
        b"\xed\xa0",
        b"\xed\xbf",
        b"\xf0\x8f",
        b"\xf1\x80\x80\xc0",
        b"\xf4\x90",
        b"\xf5",
        b"\xff",
    )

    @pytest.mark.parametrize("wrong", IMPOSSIBLE, ids=bytes.hex)
    @pytest.mark.parametrize("before", [b"", "κ".encode(), "κό𝄞".encode()], ids=len)
    def test_in_an_unfinished_frame(self, make: Make, before: bytes, wrong: bytes) -> None:
        subject = make()
        data = subject.frame(TEXT, before + wrong + b"and more")[: -len(b"and more")]
        subject.hear_bytewise(data[:-1])
        assert subject.session.failure is None
        subject.hear(data[-1:])
        assert_failed(subject, 1007, "invalid UTF-8 in a text message")
        subject = make()
        subject.hear(data)
        assert_failed(subject, 1007, "invalid UTF-8 in a text message")

    @pytest.mark.parametrize("wrong", IMPOSSIBLE, ids=bytes.hex)
    def test_in_a_fragment(self, subject: Subject, wrong: bytes) -> None:
        subject.hear(subject.frame(TEXT, b"ok", fin=False))
        for i, byte in enumerate(wrong):
            assert subject.session.failure is None
            subject.hear(subject.frame(CONT, bytes([byte]), fin=False))
            if i < len(wrong) - 1:
                subject.hear(subject.frame(PING))
                assert subject.said() == [(PONG, b"")]
        assert_failed(subject, 1007, "invalid UTF-8 in a text message")

    @pytest.mark.parametrize(
        "wrong", [*IMPOSSIBLE, b"\xed\xa0\x80", b"\xce", b"\xe1\xbd", b"\xf0\x9d\x84"], ids=bytes.hex
    )
    def test_in_a_whole_message(self, make: Make, wrong: bytes) -> None:
        subject = make()
        subject.hear(subject.frame(TEXT, b"good") + subject.frame(TEXT, b"ok" + wrong) + subject.frame(TEXT, b"later"))
        assert subject.take() == ["good"]
        assert_failed(subject, 1007, "invalid UTF-8 in a text message")

    @pytest.mark.parametrize("wrong", [b"\xce", b"\xe1\xbd", b"\xed", b"\xed\x9f", b"\xf0\x9d\x84"], ids=bytes.hex)
    def test_an_end_inside_a_character(self, make: Make, wrong: bytes) -> None:
        subject = make()
        subject.hear(subject.frame(TEXT, wrong, fin=False))
        assert subject.session.failure is None
        subject.hear(subject.frame(CONT))
        assert_failed(subject, 1007, "invalid UTF-8 in a text message")
        subject = make()
        subject.hear_bytewise(subject.frame(TEXT, wrong))
        assert_failed(subject, 1007, "invalid UTF-8 in a text message")

    def test_binary_messages_are_not_checked(self, subject: Subject) -> None:
        subject.hear_bytewise(subject.frame(BINARY, b"\xff\xed\xa0", fin=False) + subject.frame(CONT, b"\xff"))
        assert subject.take() == [b"\xff\xed\xa0\xff"]

    def test_every_character(self, subject: Subject) -> None:
        """Each of a class: a cut may fall into any."""
        text = "".join(map(chr, (0, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFD, 0xFFFF, 0x10000, 0x10FFFF)))
        subject.hear(subject.frame(TEXT, text.encode()))
        subject.hear_bytewise(subject.frame(TEXT, text.encode()))
        assert subject.take() == [text, text]


class TestMemory:
    """What a peer can make us hold."""

    @pytest.fixture(autouse=True)
    def traced(self) -> Iterator[None]:
        tracemalloc.start()
        yield
        tracemalloc.stop()

    def peak(self, action: Callable[[], object]) -> int:
        """The most memory that was in use while it ran, beyond what was before."""
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        action()
        return tracemalloc.get_traced_memory()[1] - before

    def test_nothing_for_what_is_only_declared(self, subject: Subject) -> None:
        data = subject.frame(BINARY, declared=MAX_MESSAGE) + b"x"
        assert self.peak(lambda: subject.hear(data)) < 4096

    def test_dribble(self, subject: Subject) -> None:
        """T7, aiohttp PR 13350: 64 KiB byte by byte are 64 KiB in one buffer, not a list of reads."""
        data = subject.frame(TEXT, b"x" * 65536)
        assert self.peak(lambda: subject.hear_bytewise(data)) < 4 * 65536
        assert subject.take() == ["x" * 65536]

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_small_fragments(self, subject: Subject, opcode: int) -> None:
        """T4, CVE-2026-48779: 65,536 fragments of one byte are 64 KiB."""
        first, more = subject.frame(opcode, b"x", fin=False), subject.frame(CONT, b"x", fin=False)
        many = more * 64

        def flood() -> None:
            subject.hear(first)
            for _ in range(1024):
                subject.hear(many)

        assert self.peak(flood) < 2 * 65536
        subject.hear(subject.frame(CONT))
        assert subject.take() == ["x" * 65537 if opcode == TEXT else b"x" * 65537]

    def test_what_was_taken_is_let_go(self, subject: Subject) -> None:
        """Messages that were taken do not stay because others wait behind them."""
        for _ in range(50):
            subject.hear(subject.frame(BINARY, bytes(10_000)))
        taken = tracemalloc.get_traced_memory()[0]
        for _ in range(49):
            subject.session.take()
        assert tracemalloc.get_traced_memory()[0] < taken - 49 * 10_000

    def test_a_failure_lets_go_of_its_message(self, subject: Subject) -> None:
        subject.hear(subject.frame(BINARY, bytes(500_000), fin=False))
        held = tracemalloc.get_traced_memory()[0]
        subject.hear(subject.frame(3))
        assert tracemalloc.get_traced_memory()[0] < held - 490_000

    def test_ping_flood(self, subject: Subject) -> None:
        """T9: while the peer does not read, one pong waits, for the newest ping (section 5.5.3)."""
        subject.session.blocked = True
        flood = b"".join(subject.frame(PING, bytes([i]) * 125) for i in range(100))

        def floods() -> None:
            for _ in range(100):
                subject.hear(flood)

        assert self.peak(floods) < 4096
        assert subject.said() == []
        subject.session.unblock()
        assert subject.said() == [(PONG, bytes([99]) * 125)]

    def test_pong_flood(self, subject: Subject) -> None:
        """T9: nobody asked for them, nothing stays of them."""
        flood = b"".join(subject.frame(PONG, bytes([i]) * 125) for i in range(100))
        for _ in range(10):
            assert self.peak(lambda: subject.hear(flood)) < 4096
        assert subject.said() == []
        assert not subject.session.attention
        assert subject.session.acknowledged == []


def test_many_messages_trip_no_limit(make: Make) -> None:
    """T5, ws #2333: what is counted for a message is counted anew for the next."""
    subject = make(max_size=100, max_fragments=10)
    some = (subject.frame(TEXT, b"x") + subject.frame(BINARY, b"y", fin=False) + subject.frame(CONT, b"z")) * 50
    some += subject.frame(PONG) + subject.frame(PING)
    for _ in range(1000):
        subject.hear(some)
        assert subject.take() == ["x", b"yz"] * 50
        assert subject.said() == [(PONG, b"")]
    assert subject.session.failure is None


# The inbox.


class TestInbox:
    def test_order_and_accounts(self, subject: Subject) -> None:
        """Taken from the front while more comes at the back."""
        session = subject.session
        sent, taken = iter(range(10_000)), iter(range(10_000))
        sizes: dict[int, int] = {}
        for come, go in [(100, 30), (10, 40), (70, 63), (1, 2), (200, 64), (1, 70), (0, 113)]:
            for i in itertools.islice(sent, come):
                message = f"{i}" + "é" * (i % 7)
                sizes[i] = len(message)
                subject.hear(subject.frame(TEXT, message.encode()))
            for i in itertools.islice(taken, go):
                assert session.take() == f"{i}" + "é" * (i % 7)
                del sizes[i]
            assert session.inbox_size == sum(sizes.values())
            assert len(session.inbox) - session.inbox_head == len(sizes)
            assert session.inbox_head < 64
        assert session.inbox == []

    def test_streaming_counts_too(self, subject: Subject) -> None:
        session = subject.session
        session.stream()
        subject.hear(subject.frame(BINARY, bytes(10), fin=False), subject.frame(CONT, bytes(5), fin=False))
        assert session.inbox_size == 15
        session.take()
        assert session.inbox_size == 5


class TestStreaming:
    def test_fragments_as_they_come(self, subject: Subject) -> None:
        subject.session.stream()
        subject.hear(subject.frame(BINARY, b"ab", fin=False))
        assert subject.take() == [(b"ab", False)]
        subject.hear(subject.frame(PING) + subject.frame(CONT, b"", fin=False) + subject.frame(CONT, b"c", fin=False))
        assert subject.take() == [(b"", False), (b"c", False)]
        subject.hear(subject.frame(CONT, b"d")[:-1])
        assert subject.take() == []
        subject.hear(subject.frame(CONT, b"d")[-1:])
        assert subject.take() == [(b"d", True)]
        assert not subject.session.streaming

    def test_whole_characters(self, subject: Subject) -> None:
        subject.session.stream()
        data = "κ𝄞x".encode()
        for i in range(len(data)):
            subject.hear(subject.frame(CONT if i else TEXT, data[i : i + 1], fin=False))
        subject.hear(subject.frame(CONT))
        texts = ["", "κ", "", "", "", "𝄞", "x", ""]
        assert subject.take() == [(text, i == 7) for i, text in enumerate(texts)]

    def test_for_one_message(self, subject: Subject) -> None:
        """The next message; not those behind it, whatever comes in one read."""
        session = subject.session
        whole = subject.frame(TEXT, b"one")
        parts = subject.frame(TEXT, b"a", fin=False) + subject.frame(CONT, b"b")
        session.stream()
        subject.hear(whole + parts + whole)
        assert subject.take() == [("one", True), "ab", "one"]
        session.stream()
        subject.hear(parts + parts + whole)
        assert subject.take() == [("a", False), ("b", True), "ab", "one"]
        session.stream()
        subject.hear(whole)
        subject.hear(parts[:-1])
        assert subject.take() == [("one", True)]
        subject.hear(parts[-1:])
        assert subject.take() == ["ab"]

    def test_the_message_in_progress(self, subject: Subject) -> None:
        subject.hear(subject.frame(TEXT, "aκ".encode()[:2], fin=False))
        subject.session.stream()
        assert subject.take() == [("a", False)]
        subject.hear(subject.frame(CONT, "κ".encode()[1:]))
        assert subject.take() == [("κ", True)]

    def test_the_frame_in_progress(self, subject: Subject) -> None:
        data = subject.frame(TEXT, b"abc")
        subject.hear(data[:-1])
        subject.session.stream()
        assert subject.take() == []
        subject.hear(data[-1:])
        assert subject.take() == [("abc", True)]

    def test_bad_text(self, subject: Subject) -> None:
        subject.session.stream()
        subject.hear(subject.frame(TEXT, "aκ".encode()[:2], fin=False))
        assert subject.take() == [("a", False)]
        subject.hear(subject.frame(CONT, b"x"))
        assert_failed(subject, 1007, "invalid UTF-8")
        subject.session.stream()
        assert subject.take() == []

    def test_a_failure_between_fragments(self, subject: Subject) -> None:
        """The message will not go on: there is nothing to show of it."""
        subject.hear(subject.frame(TEXT, b"a", fin=False) + subject.frame(3))
        subject.session.stream()
        assert subject.take() == []

    def test_limits_hold(self, make: Make) -> None:
        subject = make(max_size=100)
        subject.session.stream()
        subject.hear(subject.frame(BINARY, bytes(60), fin=False))
        assert subject.take() == [(bytes(60), False)]
        subject.hear(subject.frame(CONT, bytes(41)))
        assert_failed(subject, 1009, "a message of 101 bytes")

    def test_skip_the_rest(self, subject: Subject) -> None:
        session = subject.session
        session.stream()
        subject.hear(subject.frame(TEXT, b"a", fin=False) + subject.frame(CONT, b"b", fin=False))
        session.take()
        session.skip()
        assert subject.take() == []
        subject.hear(subject.frame(CONT, b"c", fin=False) + subject.frame(PING, b"p"))
        assert subject.said() == [(PONG, b"p")]
        assert subject.take() == []
        subject.hear(subject.frame(CONT, b"d") + subject.frame(TEXT, b"next") + subject.frame(TEXT, b"n", fin=False))
        subject.hear(subject.frame(CONT, b"n"))
        assert subject.take() == ["next", "nn"]

    def test_skip_what_waits(self, subject: Subject) -> None:
        """The message came to its end already: those behind it stay."""
        session = subject.session
        session.stream()
        subject.hear(subject.frame(TEXT, b"a", fin=False) + subject.frame(CONT, b"b") + subject.frame(TEXT, b"next"))
        session.take()
        session.skip()
        assert session.inbox_size == 4
        assert subject.take() == ["next"]
        subject.hear(subject.frame(TEXT, b"more", fin=False) + subject.frame(CONT))
        assert subject.take() == ["more"]

    def test_skip_before_it_begins(self, subject: Subject) -> None:
        """Nothing came: then nothing is to be skipped, the next message is for the next who asks."""
        subject.session.stream()
        subject.session.skip()
        subject.hear(subject.frame(TEXT, b"a", fin=False) + subject.frame(CONT, b"b"))
        assert subject.take() == ["ab"]

    def test_what_is_skipped_is_checked(self, subject: Subject) -> None:
        subject.session.stream()
        subject.hear(subject.frame(TEXT, b"a", fin=False))
        subject.session.skip()
        subject.hear(subject.frame(CONT, b"\xff", fin=False))
        assert_failed(subject, 1007, "invalid UTF-8")


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


class TestPing:
    def test_round_trip(self, subject: Subject) -> None:
        session = subject.session
        assert session.ping(b"p", 1000.0) == b"p"
        assert subject.said() == [(PING, b"p")]
        subject.now = 1000.25
        subject.hear(subject.frame(PONG, b"p"))
        assert session.acknowledged == [(b"p", 0.25)]
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
        assert session.keepalive.latency == 8.0
        subject.hear(subject.frame(PONG, b"b") + subject.frame(PONG, b"d"))
        assert session.acknowledged[3:] == [(b"d", 7.0)]

    def test_a_pong_that_nobody_asked_for(self, subject: Subject) -> None:
        subject.session.ping(b"a", 1000.0)
        subject.hear(subject.frame(PONG, b"z") + subject.frame(PONG))
        assert subject.session.acknowledged == []
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
        assert [data for data, _ in subject.session.acknowledged][1:] == [b"mine"]
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
            session.send_frame(b"\x81\x00")
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
            subject.session.send_frame(made)
            assert subject.said() == [(TEXT, b"to all")]

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
