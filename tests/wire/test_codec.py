from __future__ import annotations

import itertools
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fullduplex.wire.codec import MaskKeys, append_frame, broken_rule, head_length, head_size, mask
from fullduplex.wire.opcodes import MAX_FRAME_HEAD
from wire.frames import KEY, Frame, frame, read_frames, xor

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "frames.json").read_text())["frames"]

# The numbers at which lengths go wrong, and their shortest form: 7 bits, or 16 (126), or 64 (127).
BOUNDARIES = [
    (0, 0),
    (1, 1),
    (125, 125),
    (126, 126),
    (127, 126),
    (65535, 126),
    (65536, 127),
    (2**31 - 1, 127),
    (2**31, 127),
    (2**32 - 1, 127),
    (2**32, 127),
    (2**63 - 1, 127),
    (2**63, 127),
    (2**64 - 1, 127),
]


class TestHead:
    @pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])
    @pytest.mark.parametrize(("length", "form"), BOUNDARIES)
    def test_boundaries(self, length: int, form: int, key: bytes | None) -> None:
        """Only the shortest form is legal (section 5.2)."""
        for other in {form, 126, 127}:
            if length > 0xFFFF and other == 126:
                continue
            head = frame(2, declared=length, form=other, key=key)
            assert head_size(head[1]) == len(head) <= MAX_FRAME_HEAD
            assert head_length(head) == (length if other == form else -1)

    def test_size_by_the_second_byte(self) -> None:
        for second in range(256):
            assert head_size(second) == len(frame(2, form=second & 0x7F, key=KEY if second >= 0x80 else None))

    def test_longest(self) -> None:
        assert len(frame(2, form=127, key=KEY)) == MAX_FRAME_HEAD


class TestAppend:
    @pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])
    @pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 255, 256, 65535, 65536, 65537])
    def test_boundaries(self, size: int, key: bytes | None) -> None:
        payload = bytes(i * 7 & 255 for i in range(size))
        for first in (0x81, 0x02, 0x00, 0x80):
            out = bytearray(b"before")
            append_frame(out, first, payload, key)
            assert out == b"before" + frame(first & 15, payload, fin=first >= 0x80, key=key)

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    @pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])
    def test_kinds_of_bytes(self, kind: Any, key: bytes | None) -> None:
        for size in (0, 5, 2000):
            payload = secrets.token_bytes(size)
            given = kind(payload)
            out = bytearray()
            append_frame(out, 0x82, given, key)
            assert out == frame(2, payload, key=key)
            assert given == payload

    @pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["source"])
    def test_vectors(self, vector: dict[str, Any]) -> None:
        """The examples of section 5.7, built and read."""
        given = bytes.fromhex(vector["hex"])
        out = bytearray()
        for part in vector["frames"]:
            key = bytes.fromhex(part["mask"]) if part["masked"] else None
            payload = part["text"].encode() if "text" in part else bytes(part["length"])
            append_frame(out, part["fin"] << 7 | part["opcode"], payload, key)
        if vector.get("header_only"):
            assert len(out) == len(given) + len(payload)
            assert head_size(given[1]) == len(given)
            assert head_length(given) == len(payload)
            assert out[: len(given)] == given
        else:
            assert out == given
            assert list(read_frames(given)) == [
                Frame(part["opcode"], part["text"].encode(), bool(part["fin"]), bool(part["masked"]))
                for part in vector["frames"]
            ]


def sizes() -> Iterator[int]:
    """Around every word, and around the size at which the method changes."""
    yield from range(41)
    yield from range(1016, 1034)
    yield from (65535, 65536, 65537, 65538)


class TestBrokenRule:
    """Section 5, by the first two bytes; a session is held against the same table in test_receiver.py."""

    @pytest.mark.parametrize("rsv", [0, 0x40, 0x20, 0x10, 0x50, 0x70], ids=hex)
    @pytest.mark.parametrize("server", [True, False], ids=["server", "client"])
    def test_every_pair_of_bytes(self, server: bool, rsv: int) -> None:
        for first, second, continues in itertools.product(range(256), (0, 1, 125, 126, 127), (True, False)):
            fin, bits, opcode = first >= 0x80, first & 0x70, first & 0x0F
            for masked in (True, False):
                rule = broken_rule(first, masked << 7 | second, server, continues, rsv)
                if opcode in (1, 2):
                    legal = not continues and not bits & ~rsv
                elif opcode == 0:
                    legal = continues and not bits
                else:
                    legal = opcode in (8, 9, 10) and fin and not bits and second <= 125
                case = (hex(first), second, masked, continues, rule)
                assert (rule == "") == (legal and masked == server), case
                assert rule == "" or re.search(r"\((RFC 7692, )?section [56]\.[1-5]\)$", rule), case

    @pytest.mark.parametrize(
        ("first", "second", "continues", "rule"),
        [
            (0xC1, 0x80, False, "a reserved bit is set, and no extension gives it a meaning"),
            (0xA9, 0x80, False, "a reserved bit is set on a frame that does not begin a message"),
            (0xA0, 0x80, True, "a reserved bit is set on a frame that does not begin a message"),
            (0x83, 0x80, False, "reserved opcode 3"),
            (0x8B, 0x80, False, "reserved opcode 11"),
            (0x81, 0x00, False, "a client's frame is not masked"),
            (0x09, 0x80, False, "a control frame is fragmented"),
            (0x89, 0xFE, False, "a control frame is longer than 125 bytes"),
            (0x80, 0x80, False, "a continuation frame without a message to continue"),
            (0x81, 0x80, True, "a new message inside a fragmented one"),
        ],
    )
    def test_which(self, first: int, second: int, continues: bool, rule: str) -> None:
        assert broken_rule(first, second, True, continues, 0x20).rpartition(" (")[0] == rule

    def test_no_extension_unless_told(self) -> None:
        assert broken_rule(0xC1, 0x80, True, False)
        assert broken_rule(0x81, 0x80, False, False) == "a server's frame is masked (section 5.1)"


class TestMask:
    @pytest.mark.parametrize("key", [KEY, b"\x00\x00\x00\x01", b"\x80\x00\x00\x00", b"\xff\x00\xfe\x01"], ids=bytes.hex)
    def test_sizes(self, key: bytes) -> None:
        for size in sizes():
            payload = secrets.token_bytes(size)
            masked = mask(payload, key)
            assert masked == xor(payload, key)
            assert type(masked) is bytes
            assert mask(masked, key) == payload

    @pytest.mark.parametrize("size", [37, 1024 + 37])
    def test_alignments(self, size: int) -> None:
        """Wherever in a buffer the bytes begin; the buffer may be reused, the result stays."""
        for start in range(17):
            buffer = bytearray(secrets.token_bytes(start + size + 16))
            payload = bytes(buffer[start : start + size])
            given = memoryview(buffer)[start : start + size]
            masked = mask(given, memoryview(buffer)[:4].tobytes())
            key = bytes(buffer[:4])
            given.release()
            buffer[:] = bytes(len(buffer))
            assert masked == xor(payload, key)

    @pytest.mark.parametrize("size", [256, 2048])
    def test_all_bytes_of_a_key(self, size: int) -> None:
        payload = bytes(i & 255 for i in range(size))
        for byte in range(256):
            for at in range(4):
                key = bytes(byte if i == at else 0x5A for i in range(4))
                assert mask(payload, key) == xor(payload, key)

    @pytest.mark.parametrize("size", [0, 3, 2000])
    def test_kinds_of_keys(self, size: int) -> None:
        payload = secrets.token_bytes(size)
        assert mask(payload, bytearray(KEY)) == xor(payload, KEY)

    def test_zeros_at_the_front_are_kept(self) -> None:
        """What was a number for a while does not lose them."""
        assert mask(KEY * 3, KEY) == bytes(12)
        assert mask(KEY * 300, KEY) == bytes(1200)
        assert mask(bytes(5), bytes(4)) == bytes(5)


class TestMaskKeys:
    def test_no_byte_of_the_source_is_used_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Section 5.3: keys are the strong source's bytes, one after the other, over the turn of a page too."""
        source = bytearray()

        def token_bytes(size: int) -> bytes:
            # Numbers of four bytes: each key is another.
            start = len(source) // 4
            page = b"".join(i.to_bytes(4, "big") for i in range(start, start + size // 4))
            assert len(page) == size
            source.extend(page)
            return page

        monkeypatch.setattr(secrets, "token_bytes", token_bytes)
        keys = MaskKeys()
        taken = [keys.next() for _ in range(5000)]
        assert [int.from_bytes(key, "big") for key in taken] == list(range(5000))
        assert all(len(key) == 4 for key in taken)
        assert len(source) - 5000 * 4 < 4096

    def test_two_supplies_differ(self) -> None:
        one, other = MaskKeys(), MaskKeys()
        assert [one.next() for _ in range(8)] != [other.next() for _ in range(8)]
