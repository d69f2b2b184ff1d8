"""The leaves, in both forms: as `leaves.py` has them, and as compiled code calls them, through `codec`."""

from __future__ import annotations

import itertools
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullduplex.wire import codec, leaves

SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 125, 126, 127, 1023, 1024, 1025, 65_535, 65_536, 65_537]
KEY = b"\x80\x01\xfe\x37"


def plainly(data: bytes, key: bytes) -> bytes:
    """RFC 6455, section 5.3, byte by byte."""
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(data))


def some(size: int) -> bytes:
    return bytes(i * 131 % 251 for i in range(size))


@pytest.fixture(params=[leaves, codec], ids=["python", "as called"])
def leaf(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


class TestMask:
    @pytest.mark.parametrize("size", SIZES)
    def test_sizes(self, leaf: ModuleType, size: int) -> None:
        data = some(size)
        masked = leaf.mask(data, KEY)
        assert masked == plainly(data, KEY)
        assert type(masked) is bytes
        assert leaf.mask(masked, KEY) == data

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_kinds(self, leaf: ModuleType, kind: type) -> None:
        data = kind(some(1000))
        assert leaf.mask(data, KEY) == leaf.mask(data, bytearray(KEY)) == plainly(some(1000), KEY)
        assert bytes(data) == some(1000)

    @given(st.binary(max_size=3000), st.binary(min_size=4, max_size=4))
    def test_both_agree(self, data: bytes, key: bytes) -> None:
        assert leaves.mask(data, key) == codec.mask(data, key)


class TestPayload:
    @pytest.mark.parametrize(("size", "offset"), [*itertools.product(SIZES, range(9))])
    def test_anywhere(self, leaf: ModuleType, size: int, offset: int) -> None:
        """At any alignment, and nothing but what was asked for."""
        data = some(size)
        buffer = bytearray(b"\xff" * offset + KEY + plainly(data, KEY) + b"\xff" * 8)
        start = offset + 4
        found = leaf.payload(buffer, start, start + size, True)
        assert found == data
        assert type(found) is bytes
        assert leaf.payload(buffer, start, start + size, False) == plainly(data, KEY)
        assert buffer == b"\xff" * offset + KEY + plainly(data, KEY) + b"\xff" * 8

    def test_it_is_a_copy(self, leaf: ModuleType) -> None:
        buffer = bytearray(KEY + plainly(b"abc", KEY))
        found = leaf.payload(buffer, 4, 7, True)
        buffer[:] = bytes(7)
        assert found == b"abc"


class TestExtend:
    @pytest.mark.parametrize("key", [b"", KEY])
    @pytest.mark.parametrize(("size", "offset"), [*itertools.product(SIZES, (0, 1, 7))])
    def test_anywhere(self, leaf: ModuleType, size: int, offset: int, key: bytes) -> None:
        message = bytearray(b"before")
        leaf.extend(message, bytearray(b"\xff" * offset + some(size) + b"\xff"), offset, offset + size, key)
        assert message == b"before" + (plainly(some(size), key) if key else some(size))


class TestText:
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("text", ["", "a", "é", "日本語", "\U0001f600", "\ufeffx", "\0", "x" * 5000, "é" * 5000])
    def test_good(self, leaf: ModuleType, text: str, masked: bool) -> None:
        data = text.encode()
        buffer = bytearray(KEY + (plainly(data, KEY) if masked else data))
        assert leaf.text(buffer, 4, 4 + len(data), masked) == text

    @pytest.mark.parametrize("data", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"])
    def test_bad(self, leaf: ModuleType, data: bytes) -> None:
        with pytest.raises(UnicodeDecodeError) as caught:
            leaf.text(bytearray(KEY + plainly(data, KEY)), 4, 4 + len(data), True)
        with pytest.raises(UnicodeDecodeError) as expected:
            str(data, "utf-8")
        assert caught.value.reason == expected.value.reason


class TestAppendFrame:
    @pytest.mark.parametrize("key", [None, KEY])
    @pytest.mark.parametrize("size", SIZES)
    def test_lengths(self, leaf: ModuleType, size: int, key: bytes | None) -> None:
        """Section 5.2: the shortest form."""
        out = bytearray(b"before")
        leaf.append_frame(out, 0x82, some(size), key)
        bit = 0 if key is None else 0x80
        if size < 126:
            head = bytes([0x82, bit | size])
        elif size < 65_536:
            head = bytes([0x82, bit | 126]) + size.to_bytes(2)
        else:
            head = bytes([0x82, bit | 127]) + size.to_bytes(8)
        rest = some(size) if key is None else key + plainly(some(size), key)
        assert out == b"before" + head + rest

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_kinds(self, leaf: ModuleType, kind: type) -> None:
        out = bytearray()
        leaf.append_frame(out, 0xFF, kind(b"abc"), None)
        assert out == b"\xff\x03abc"

    @pytest.mark.parametrize("first", [-1, 256])
    def test_a_first_byte_that_is_none(self, leaf: ModuleType, first: int) -> None:
        with pytest.raises(ValueError):
            leaf.append_frame(bytearray(), first, b"", None)

    def test_it_grows(self, leaf: ModuleType) -> None:
        """Whatever room there is already, at its end or where something was taken from its beginning."""
        out, expected = bytearray(), b""
        for size in (0, 900, 100, 2000, 1, 70_000, 5):
            leaf.append_frame(out, 0x82, some(size), None)
            whole = bytearray()
            leaves.append_frame(whole, 0x82, some(size), None)
            expected += whole
            assert out == expected
            del out[:50]
            expected = expected[50:]

    def test_not_while_it_is_looked_into(self, leaf: ModuleType) -> None:
        out = bytearray(b"abc")
        with memoryview(out):
            with pytest.raises(BufferError):
                leaf.append_frame(out, 0x82, b"x" * 2000, None)
            with pytest.raises(BufferError):
                leaf.empty(out)
        assert out == b"abc"


class TestAppendHead:
    @pytest.mark.parametrize("size", SIZES)
    def test_it_is_what_stands_before_the_payload(self, leaf: ModuleType, size: int) -> None:
        head, frame = bytearray(b"before"), bytearray(b"before")
        leaf.append_head(head, 0x81, size)
        leaf.append_frame(frame, 0x81, some(size), None)
        assert head + some(size) == frame

    @pytest.mark.parametrize("first", [-1, 256])
    def test_a_first_byte_that_is_none(self, leaf: ModuleType, first: int) -> None:
        with pytest.raises(ValueError):
            leaf.append_head(bytearray(), first, 0)


class TestLongLength:
    @pytest.mark.parametrize("length", [65_536, 2**31 - 1, 2**31, 2**32, 2**63 - 1])
    def test_good(self, leaf: ModuleType, length: int) -> None:
        assert leaf.long_length(bytearray(b"\xff" + length.to_bytes(8) + b"\xff"), 1) == length

    @pytest.mark.parametrize("length", [0, 125, 126, 65_535, 2**63, 2**64 - 1])
    def test_bad(self, leaf: ModuleType, length: int) -> None:
        assert leaf.long_length(bytearray(length.to_bytes(8)), 0) == -1


class TestEmpty:
    @pytest.mark.parametrize("size", SIZES)
    def test_it_can_be_filled_again(self, leaf: ModuleType, size: int) -> None:
        out = bytearray(some(size))
        for _ in range(2):
            leaf.empty(out)
            assert out == b""
            out += some(size)
            leaf.append_head(out, 0x81, 0)
            assert out == some(size) + b"\x81\0"
