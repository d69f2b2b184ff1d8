from __future__ import annotations

import itertools
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullduplex.wire.deflate import PerMessageDeflate
from fullduplex.wire.errors import PayloadTooBig, ProtocolError
from fullduplex.wire.extensions import RSV1, RSV2, RSV3, Extension, widened
from fullduplex.wire.limits import MAX_MESSAGE, SMALL_FRAGMENT, UNLIMITED, Limits
from fullduplex.wire.opcodes import TEXT_FRAME
from fullduplex.wire.rate import make_meter
from fullduplex.wire.receiver import Receiver
from support import SPARES, empty_spares
from wire.frames import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT, close_payload, frame, pieces
from wire.subject import Doubled, Growing, Make, Spy, Subject, Wrapped, assert_failed, double, peak

FRAGMENTS = UNLIMITED.fragments or 0


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
        subject = make(max_size=None, limits=replace(UNLIMITED, fragments=None))
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
        subject = make(limits=replace(UNLIMITED, fragments=3))
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
        assert_failed(subject, 1009, "more than 3 fragments under 256 bytes in a message")
        assert subject.session.limit == "fragments"

    def test_large_ones_are_paid_for_by_their_size(self, make: Make) -> None:
        subject = make(limits=replace(UNLIMITED, fragments=2))
        large = subject.frame(CONT, bytes(SMALL_FRAGMENT), fin=False)
        small = subject.frame(CONT, bytes(SMALL_FRAGMENT - 1), fin=False)
        subject.hear(subject.frame(BINARY, bytes(SMALL_FRAGMENT), fin=False) + large * 50 + small * 2 + large)
        assert subject.session.failure is None
        subject.hear(small)
        assert_failed(subject, 1009, "more than 2 fragments under 256 bytes in a message")

    def test_empty_ones_without_end(self, subject: Subject) -> None:
        """CVE-2026-62389: those count too."""
        subject.hear(subject.frame(BINARY, fin=False))
        more = subject.frame(CONT, fin=False)
        for _ in range(FRAGMENTS // 1024 + 1):
            subject.hear(more * 1024)
        assert_failed(subject, 1009, f"more than {FRAGMENTS} fragments")


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


# What an extension has a part in.


class TestReservedBits:
    @pytest.mark.parametrize("rsv", [RSV1, RSV2, RSV3, RSV1 | RSV3], ids=hex)
    def test_every_first_byte(self, make: Make, rsv: int) -> None:
        """Section 5.2, and RFC 7692, section 6.1: bits that were agreed on stand where a message begins."""
        told: set[str] = set()
        for bits, opcode, fin, inside in itertools.product(range(8), range(16), (True, False), (True, False)):
            subject = make(extension=Spy(rsv))
            if inside:
                subject.hear(subject.frame(BINARY, fin=False))
            legal = not bits << 4 & ~rsv
            if opcode in (TEXT, BINARY):
                legal = legal and not inside
            else:
                legal = legal and not bits and (inside if opcode == CONT else opcode in (CLOSE, PING, PONG) and fin)
            subject.hear(subject.frame(opcode, fin=fin, rsv=bits))
            failure = subject.session.failure
            assert (failure is None) == legal, (bits, opcode, fin, inside)
            if failure is not None:
                assert failure.code == 1002
                told.add(failure.rule.rpartition(" (")[2])
        assert told == {"RFC 7692, section 6.1)", "section 5.2)", "section 5.4)", "section 5.5)"}

    def test_who_is_given_what(self, make: Make) -> None:
        """An extension with bits is given the messages that have one, in the pieces in which they come."""
        spy = Spy(RSV1 | RSV2)
        subject = make(extension=spy, max_size=100)
        plain = subject.frame(TEXT, b"no") + subject.frame(BINARY, b"n", fin=False) + subject.frame(CONT, b"o")
        subject.hear(plain + subject.frame(BINARY, b"yes", rsv=4) + plain)
        assert subject.take() == ["no", b"no", b"yes", "no", b"no"]
        assert spy.noted() == [("begin", RSV1), ("decode", b"yes", True, 100)]
        begin = subject.frame(TEXT, b"abc", fin=False, rsv=6)
        subject.hear(begin[:-2], begin[-2:] + subject.frame(PING, b"p") + subject.frame(CONT, fin=False))
        subject.hear(subject.frame(CONT, b"d"))
        assert subject.take() == ["abcd"]
        assert subject.said() == [(PONG, b"p")]
        assert spy.noted() == [
            ("begin", RSV1 | RSV2),
            ("decode", b"a", False, 100),
            ("decode", b"bc", False, 99),
            ("decode", b"", False, 97),
            ("decode", b"d", True, 97),
        ]

    def test_one_without_bits_is_given_all(self, make: Make) -> None:
        spy = Spy()
        subject = make(extension=spy, max_size=100)
        subject.hear(subject.frame(TEXT, b"whole") + subject.frame(PONG) + subject.frame(BINARY, b"fr", fin=False))
        subject.hear(subject.frame(CONT, b"agment"))
        assert subject.take() == ["whole", b"fragment"]
        assert spy.noted() == [
            ("begin", 0),
            ("decode", b"whole", True, 100),
            ("begin", 0),
            ("decode", b"fr", False, 100),
            ("decode", b"agment", True, 98),
        ]
        subject.hear(subject.frame(TEXT, rsv=4))
        assert_failed(subject, 1002, "no extension gives it a meaning")


class TestDecoding:
    TEXT_MESSAGE = "κό𝄞\ud7ff x"

    @pytest.mark.parametrize("rsv", [4, 0], ids=["encoded", "plain"])
    def test_cut_anywhere(self, make: Make, rsv: int) -> None:
        """In a pair of bytes, in a character, in a head; in one frame and in two."""
        subject = make(extension=Doubled())
        text = self.TEXT_MESSAGE.encode()
        payload = double(text) if rsv else text
        for middle in (None, *range(len(payload) + 1)):
            if middle is None:
                stream = subject.frame(TEXT, payload, rsv=rsv)
            else:
                stream = subject.frame(TEXT, payload[:middle], rsv=rsv, fin=False) + subject.frame(PING)
                stream += subject.frame(CONT, payload[middle:])
            for cut in range(len(stream) + 1):
                subject.hear(stream[:cut], stream[cut:])
            assert subject.take() == [self.TEXT_MESSAGE] * (len(stream) + 1)
            subject.hear_bytewise(stream)
            assert subject.take() == [self.TEXT_MESSAGE]

    def test_streaming(self, make: Make) -> None:
        """Fragments show what is known of a message so far, in whole characters."""
        subject = make(extension=Doubled())
        subject.session.stream()
        payload = double("κ𝄞x".encode())
        parts = list(pieces(payload, [1, 3, 9, 12]))
        for i, part in enumerate(parts):
            opcode, rsv = (CONT, 0) if i else (TEXT, 4)
            subject.hear(subject.frame(opcode, part, fin=i == len(parts) - 1, rsv=rsv))
        assert subject.take() == [("", False), ("", False), ("κ", False), ("𝄞", False), ("x", True)]

    def test_one_that_waits_for_the_end(self, make: Make) -> None:
        subject = make(extension=Wrapped("name"))
        parts = [subject.frame(TEXT, b"name(", fin=False), subject.frame(CONT, b"abc", fin=False)]
        subject.session.stream()
        subject.hear(*parts, subject.frame(CONT, b")"))
        assert subject.take() == [("", False), ("", False), ("abc", True)]
        subject.hear(subject.frame(BINARY, b"name()"), subject.frame(TEXT, b"name(x)"))
        assert subject.take() == [b"", "x"]

    def test_skip(self, make: Make) -> None:
        """What nobody wants goes through the extension all the same: what comes behind it may depend on it."""
        spy = Spy(RSV1)
        subject = make(extension=spy)
        subject.session.stream()
        subject.hear(subject.frame(BINARY, b"a", rsv=4, fin=False))
        subject.session.skip()
        subject.hear(subject.frame(CONT, b"b") + subject.frame(BINARY, b"next", rsv=4))
        assert subject.take() == [b"next"]
        assert [call[1] for call in spy.noted()] == [RSV1, b"a", b"b", RSV1, b"next"]

    @pytest.mark.parametrize("wrong", [b"\xff", b"\xed\xa0", b"\xc2\x41"], ids=bytes.hex)
    def test_text_that_is_none(self, make: Make, wrong: bytes) -> None:
        """It fails at its first wrong byte, too."""
        subject = make(extension=Doubled())
        stream = subject.frame(TEXT, double("κ".encode() + wrong + b"more"), rsv=4)
        end = len(stream) - len(double(b"more"))
        subject.hear_bytewise(stream[: end - 1])
        assert subject.session.failure is None
        subject.hear(stream[end - 1 : end])
        assert_failed(subject, 1007, "invalid UTF-8 in a text message")

    def test_an_end_inside_a_character(self, make: Make) -> None:
        subject = make(extension=Doubled())
        subject.hear(subject.frame(TEXT, double(b"\xce"), rsv=4, fin=False))
        assert subject.session.failure is None
        subject.hear(subject.frame(CONT))
        assert_failed(subject, 1007, "invalid UTF-8 in a text message")

    @pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
    @pytest.mark.parametrize("fin", [True, False])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_what_may_not_be_sent(self, make: Make, opcode: int, fin: bool, streaming: bool) -> None:
        """The extension's word is the verdict, and nothing of that message, or behind it, is delivered."""
        subject = make(extension=Doubled())
        if streaming:
            subject.session.stream()
        bad = subject.frame(opcode, b"ab", rsv=4, fin=fin)
        subject.hear(bad + subject.frame(TEXT, b"later") + subject.frame(PING))
        assert type(subject.session.failure) is ProtocolError
        assert_failed(subject, 1007, "a byte that does not come twice")
        assert subject.session.limit == ""

    def test_what_came_before_it_is_delivered(self, make: Make) -> None:
        subject = make(extension=Doubled())
        subject.hear(
            subject.frame(TEXT, b"aabb", rsv=4) + subject.frame(TEXT, b"plain") + subject.frame(TEXT, b"a", rsv=4)
        )
        assert subject.take() == ["ab", "plain"]
        assert_failed(subject, 1007, "a byte that does not come twice")

    def test_an_extension_has_its_own_codes(self, make: Make) -> None:
        subject = make(extension=Wrapped("name"))
        subject.hear(subject.frame(TEXT, b"other(x)"))
        assert_failed(subject, 1008, "a message without its name()")


class TestDecodedSizes:
    """`max_size` is of what is delivered: a small frame may become a large message, and is stopped while it does."""

    def test_at_the_limit(self, make: Make) -> None:
        for extension, payload in ((Doubled(), bytes(200)), (Growing(), b"x")):
            subject = make(extension=extension, max_size=100)
            for _ in range(3):  # of each message, not of all
                subject.hear(subject.frame(BINARY, payload, rsv=4))
                half = len(payload) // 2
                subject.hear(
                    subject.frame(BINARY, payload[:half], rsv=4, fin=False) + subject.frame(CONT, payload[half:])
                )
            assert [len(message) for message in subject.take()] == [100] * 6
            assert subject.session.failure is None

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    @pytest.mark.parametrize("extension", [Doubled, Growing])
    def test_over_it(self, make: Make, extension: type[Extension], opcode: int) -> None:
        subject = make(extension=extension(), max_size=99)
        subject.hear(subject.frame(opcode, b"x" * 200 if extension is Doubled else b"x", rsv=4))
        assert type(subject.session.failure) is PayloadTooBig
        assert_failed(subject, 1009, "a message of more than 99 bytes once decoded is over the limit")
        assert subject.session.limit == "max_size"

    @pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
    def test_the_sum_of_fragments(self, make: Make, streaming: bool) -> None:
        """While they come: before the message is complete."""
        growing = Growing()
        subject = make(extension=growing, max_size=1050)
        if streaming:
            subject.session.stream()
        subject.hear(subject.frame(BINARY, b"x" * 6, rsv=4, fin=False), subject.frame(CONT, b"x" * 4, fin=False))
        assert subject.take() == ([(b"x" * 600, False), (b"x" * 400, False)] if streaming else [])
        subject.hear(subject.frame(CONT, b"x", fin=False))
        assert growing.made == 1000
        assert_failed(subject, 1009, "a message of more than 1050 bytes once decoded")

    def test_a_frame_in_progress(self, make: Make) -> None:
        growing = Growing()
        subject = make(extension=growing, max_size=1000)
        data = subject.frame(BINARY, b"x" * 1000, rsv=4)
        subject.hear_bytewise(data[:-990])
        assert growing.made == 1000
        assert subject.session.failure is None
        subject.hear(data[-990:])
        assert growing.made == 1000
        assert_failed(subject, 1009, "a message of more than 1000 bytes once decoded")

    @pytest.mark.parametrize(("max_size", "max_frame"), [(100, None), (100, 50), (100, 200), (None, 50)])
    def test_a_declared_length(self, make: Make, max_size: int | None, max_frame: int | None) -> None:
        """Encoding may make a message a little larger. What is larger still is refused by its head."""
        longest = min(100 if max_size is None else max_size, max_frame or 100)
        subject = make(extension=Spy(RSV1), max_size=max_size, max_frame=max_frame)
        subject.hear(subject.frame(BINARY, declared=widened(longest), rsv=4))
        assert subject.session.failure is None
        for fin in (True, False):
            subject = make(extension=Spy(RSV1), max_size=max_size, max_frame=max_frame)
            subject.hear(subject.frame(BINARY, declared=widened(longest) + 1, rsv=4, fin=fin))
            assert_failed(subject, 1009, f"a frame of {widened(longest) + 1} bytes is over the limit of {longest}")
            assert subject.session.limit == "max_size"

    def test_plain_messages_keep_their_own_limit(self, make: Make) -> None:
        subject = make(extension=Doubled(), max_size=100)
        subject.hear(subject.frame(BINARY, bytes(100)))
        assert subject.take() == [bytes(100)]
        subject.hear(subject.frame(BINARY, bytes(101)))
        assert_failed(subject, 1009, "a message of 101 bytes is over the limit of 100")

    def test_no_limit(self, make: Make) -> None:
        subject = make(extension=Growing(), max_size=None)
        subject.hear(subject.frame(BINARY, bytes(20_000), rsv=4))
        assert subject.take() == [bytes(2_000_000)]
        subject.hear(subject.frame(BINARY, declared=2**63 - 1, rsv=4))
        assert subject.session.failure is None

    def test_fragments_count(self, make: Make) -> None:
        subject = make(extension=Doubled(), limits=replace(UNLIMITED, fragments=3))
        subject.hear(subject.frame(BINARY, rsv=4, fin=False) + subject.frame(CONT, fin=False) * 3)
        assert_failed(subject, 1009, "more than 3 fragments")


@pytest.mark.usefixtures("traced")
class TestMemory:
    """What a peer can make us hold."""

    def test_nothing_for_what_is_only_declared(self, subject: Subject) -> None:
        data = subject.frame(BINARY, declared=MAX_MESSAGE) + b"x"
        assert peak(lambda: subject.hear(data)) < 4096

    def test_dribble(self, subject: Subject) -> None:
        """T7, aiohttp PR 13350: 64 KiB byte by byte are 64 KiB in one buffer, not a list of reads."""
        data = subject.frame(TEXT, b"x" * 65536)
        assert peak(lambda: subject.hear_bytewise(data)) < 4 * 65536
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

        assert peak(flood) < 2 * 65536
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


@pytest.mark.usefixtures("traced")
def test_what_is_encoded_is_not_held(make: Make) -> None:
    subject = make(extension=Doubled())
    part = subject.frame(CONT, bytes(4096), fin=False)
    subject.hear(subject.frame(BINARY, rsv=4, fin=False))

    def hear_much() -> None:
        for _ in range(100):
            subject.hear(part)

    assert peak(hear_much) < 300_000  # of 409,600 bytes that came, and 204,800 that they mean


def test_many_messages_trip_no_limit(make: Make) -> None:
    """T5, ws #2333: what is counted for a message is counted anew for the next."""
    subject = make(max_size=100, limits=replace(UNLIMITED, fragments=10))
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
            assert session.queued() == len(sizes)
            assert session.inbox_head < 64
        assert session.inbox is None
        assert session.queued() == 0

    def test_drop(self, subject: Subject) -> None:
        """The oldest are kept, of those that were not taken."""
        session = subject.session
        for text in (b"a", b"bb", b"ccc", b"dddd"):
            subject.hear(subject.frame(TEXT, text))
        session.take()
        session.drop(2)
        assert session.inbox_size == 5
        assert subject.take() == ["bb", "ccc"]
        subject.hear(subject.frame(TEXT, b"e"))
        session.drop(0)
        assert subject.take() == []

    def test_streaming_counts_too(self, subject: Subject) -> None:
        session = subject.session
        session.stream()
        subject.hear(subject.frame(BINARY, bytes(10), fin=False), subject.frame(CONT, bytes(5), fin=False))
        assert session.inbox_size == 15
        session.take()
        assert session.inbox_size == 5


class TestSpare:
    """A listener was given a whole inbox: what it has not kept may be written over, unseen."""

    SIZES = (0, 5, 1023, 1024, 1025, 4096, 65_536, 131_072, 131_073)
    KEPT: ClassVar[dict[str, Callable[[list[Any]], object]]] = {
        "nothing": lambda messages: None,
        "their list": lambda messages: messages,
        "the messages": lambda messages: [*messages],
        "views of them": lambda messages: [memoryview(message)[1:] for message in messages],
        "them as keys": dict.fromkeys,
    }

    def deliver(self, subject: Subject, how: str, *payloads: bytes, cut: bool = False) -> object:
        """One read, or two if it is `cut`, as a listener sees it; return what it keeps."""
        stream = b"".join(subject.frame(BINARY, data) for data in payloads)
        middle = len(stream) // 2 if cut else 0
        subject.hear(stream[:middle], stream[middle:])
        session = subject.session
        inbox, session.inbox, session.inbox_size = session.inbox, None, 0
        assert inbox is not None
        assert inbox == [*payloads]
        assert list(map(hash, inbox)) == list(map(hash, payloads))
        kept = self.KEPT[how](inbox)
        session.spare(inbox)
        return kept

    @given(
        st.lists(
            st.tuples(
                st.lists(st.sampled_from(SIZES), min_size=1, max_size=4), st.sampled_from(sorted(KEPT)), st.booleans()
            )
        )
    )
    def test_what_is_kept_stays(self, reads: list[tuple[list[int], str, bool]]) -> None:
        empty_spares()
        subject, number = Subject(True), itertools.count()
        expected, kept = [], []
        for sizes, how, cut in reads:
            payloads = [bytes([next(number) & 255]) * size for size in sizes]
            expected.append(self.KEPT[how](payloads))
            kept.append(self.deliver(subject, how, *payloads, cut=cut))
        assert kept == expected

    @pytest.mark.usefixtures("traced")
    @pytest.mark.parametrize(("how", "count"), [("nothing", 32 if SPARES else 0), ("the messages", 0)])
    def test_memory_is_used_again(self, subject: Subject, how: str, count: int) -> None:
        """At most 128 KiB of it, and nothing that was kept, even if only for a while."""
        payloads = [bytes([i]) * 4096 for i in range(64)]
        stream = bytearray(b"".join(map(partial(subject.frame, BINARY), payloads)))
        empty_spares()
        subject.hear(stream)
        inbox, subject.session.inbox = subject.session.inbox, None
        assert inbox is not None
        before = tracemalloc.get_traced_memory()[0]
        kept = self.KEPT[how](inbox)
        subject.session.spare(inbox)
        del inbox, kept
        freed = before - tracemalloc.get_traced_memory()[0]
        needed = peak(lambda: subject.hear(stream))
        expected = (64 - count) * sys.getsizeof(payloads[0])
        assert expected <= freed < expected + 1000  # and the list
        assert expected <= needed < expected + 20_000  # and one to work with


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


# What only a session knows.


def test_what_is_seen_is_told(server: bool) -> None:
    """A receiver by itself has no opinion: control frames, broken rules and amounts are somebody else's business."""
    for data, settings in (
        (frame(PING, b"p", key=KEY if server else None), {}),
        (frame(3, key=KEY if server else None), {}),
        (frame(TEXT, b"x", key=KEY if server else None), {"meter": make_meter(Limits(bytes_per_second=1), 0.0)}),
    ):
        receiver = Receiver(server, None, None, None)
        for name, value in settings.items():
            setattr(receiver, name, value)
        with pytest.raises(NotImplementedError):
            receiver.receive(bytearray(data), len(data), 0.0)


def test_a_metered_read(make: Make) -> None:
    """The meter is told of bytes, and of messages that came complete with them."""
    subject = make(limits=replace(UNLIMITED, messages_per_second=3))
    subject.hear(subject.frame(TEXT) * 2 + subject.frame(TEXT, fin=False) + subject.frame(PONG) * 5)
    subject.hear(subject.frame(CONT))
    assert not subject.session.attention
    subject.hear(subject.frame(TEXT))
    assert subject.session.attention


def test_what_counts_as_activity(make: Make) -> None:
    """Messages do, as they come, in parts, too; not what waits in the inbox, nor control frames."""
    subject = make()
    session = subject.session
    subject.hear(subject.frame(TEXT))
    assert session.active
    session.active = False
    subject.hear(subject.frame(PING) + subject.frame(PONG))
    assert not session.active
    for part in (subject.frame(BINARY, b"ab", fin=False)[:-1], b"x", subject.frame(CONT)):
        session.active = False
        subject.hear(part)
        assert session.active


class TestMuchOfLittle:
    """Messages that are small until they are decoded: not many of them are made of one read."""

    SIZE = 2**20

    def bombs(self, subject: Subject, count: int) -> bytes:
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = (compressor.compress(bytes(self.SIZE)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        return subject.frame(BINARY, bomb, rsv=RSV1 >> 4) * count

    def subject(self, server: bool) -> Subject:
        subject = Subject(server, opened=False)
        accepted = PerMessageDeflate(client_no_context_takeover=True).accept([("server_no_context_takeover", None)])
        assert accepted is not None
        subject.session.open(subject.now, accepted[1])
        return subject

    def test_one_at_a_time(self, server: bool) -> None:
        subject = self.subject(server)
        subject.hear(self.bombs(subject, 5) + subject.frame(TEXT, b"after") + subject.frame(PING, b"p"))
        session = subject.session
        for left in range(4, 0, -1):
            assert subject.take() == [bytes(self.SIZE)]
            assert session.rest
            assert subject.said() == []
            session.go_on()
            assert len(session.rest) < left * 1100 + 20
        assert subject.take() == [bytes(self.SIZE), "after"]
        session.go_on()
        assert subject.said() == [(PONG, b"p")]
        assert not session.rest

    def test_nothing_of_it_after_the_end(self, server: bool) -> None:
        subject = self.subject(server)
        subject.hear(self.bombs(subject, 3))
        subject.take()
        subject.session.end("network", "gone")
        subject.session.go_on()
        assert not subject.session.rest
        assert subject.take() == []


class TestExtensionsThatFail:
    def failing(self, make: Make, decode: Callable[[bytes, bool, int], Any]) -> Subject:
        class Failing(Extension):
            def decode(self, data: bytes, complete: bool, limit: int) -> bytes:
                made: bytes = decode(data, complete, limit)
                return made

        subject = make(opened=False)
        subject.session.open(subject.now, Failing())
        return subject

    def test_a_mistake_of_ours(self, make: Make) -> None:
        def fail(data: bytes, complete: bool, limit: int) -> bytes:
            raise ZeroDivisionError("a mistake")

        subject = self.failing(make, fail)
        subject.hear(subject.frame(TEXT, b"x"))
        failure = subject.session.failure
        assert failure is not None
        assert (failure.code, failure.who, subject.session.who) == (1011, "local", "local")
        assert isinstance(failure.__cause__, ZeroDivisionError)
        assert subject.conclude() == [(CLOSE, close_payload(1011, "an extension failed"))]

    def test_what_looks_like_bytes(self, make: Make) -> None:
        subject = self.failing(make, lambda data, complete, limit: bytearray(data))
        subject.hear(subject.frame(BINARY, b"x"))
        assert subject.take() == [b"x"]

    def test_what_is_no_bytes(self, make: Make) -> None:
        subject = self.failing(make, lambda data, complete, limit: None)
        subject.hear(subject.frame(BINARY, b"x"))
        assert subject.conclude() == [(CLOSE, close_payload(1011, "an extension failed"))]

    def test_a_code_that_may_not_be_sent(self, make: Make) -> None:
        def fail(data: bytes, complete: bool, limit: int) -> bytes:
            raise ProtocolError(1006, "a rule")

        subject = self.failing(make, fail)
        subject.hear(subject.frame(TEXT, b"x"))
        assert_failed(subject, 1002, "a rule")

    def test_more_than_the_limit(self, make: Make) -> None:
        subject = self.failing(make, lambda data, complete, limit: bytes(limit + 1))
        subject.hear(subject.frame(BINARY, b"x"))
        assert_failed(subject, 1009, "once decoded")


def test_fragments_are_no_messages(server: bool) -> None:
    """`messages_per_second` counts messages, also when they are delivered in parts."""
    subject = Subject(server, limits=Limits(messages_per_second=2, over_rate="close"))
    subject.session.stream()
    begin, more, end = (
        subject.frame(BINARY, b"x" * 300, fin=False),
        subject.frame(CONT, b"x" * 300, fin=False),
        subject.frame(CONT),
    )
    subject.hear(begin + more * 30 + end)
    assert subject.session.failure is None
    subject.hear(subject.frame(BINARY) * 2)
    subject.take()
    assert_failed(subject, 1008, "more than 2 messages a second")
