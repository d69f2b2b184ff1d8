"""The leaves: written twice, here in Python and in C in `leaves.pxd`, which compiled modules use in place of this one.

Nothing else may differ between the two forms. Both are held against each other by tests/wire/test_leaves.py; `spare`,
which has an effect in C only, is tested through the receiver.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

MASK: Final = 0x80

# XOR with a byte, as a table for bytes.translate: _XOR[a][b] == a ^ b.
_XOR: Final = [bytes(a ^ b for b in range(256)) for a in range(256)]
# Below this size one XOR of two long integers is quicker, above it four passes of translate. The long integer of a key
# is the key times _ONES[words], which has a 1 in each word of 32 bits.
_LARGE: Final = 1024
_ONES: Final = [((1 << 32 * words) - 1) // 0xFFFFFFFF for words in range(_LARGE // 4 + 1)]
_int: Final = int.from_bytes

_head_16: Final = Struct("!BBH").pack
_head_64: Final = Struct("!BBQ").pack


def mask(data: bytes | bytearray | memoryview, key: bytes | bytearray) -> bytes:
    """XOR `data` with the four bytes of `key`, over and over: masks and unmasks. RFC 6455, section 5.3."""
    size = len(data)
    if size < _LARGE:
        rest = size & 3
        if rest:
            keys = _int(key) * _ONES[(size >> 2) + 1] >> (4 - rest) * 8
        else:
            keys = _int(key) * _ONES[size >> 2]
        return (_int(data) ^ keys).to_bytes(size)
    result = bytearray(data)
    for i in range(4):
        result[i::4] = result[i::4].translate(_XOR[key[i]])
    return bytes(result)


def long_length(data: bytearray, at: int) -> int:
    """The length of 64 bits that stands in `data` at `at`; -1 if a shorter form would do, or it is over 2^63 - 1."""
    length = _int(data[at : at + 8])
    return length if 65_535 < length < 1 << 63 else -1


def payload(data: bytearray, start: int, stop: int, masked: bool) -> bytes:
    """The payload that stands in `data` from `start` to `stop`, its mask key, if it is `masked`, right before it."""
    return mask(data[start:stop], data[start - 4 : start]) if masked else bytes(memoryview(data)[start:stop])


def spare(messages: list[Any]) -> None:
    """`messages` were delivered: in C, `payload` may write over those to which nothing else refers."""


def extend(message: bytearray, data: bytearray, start: int, stop: int, key: bytes) -> None:
    """Append to `message` what stands in `data` from `start` to `stop`, masked with `key` unless that is empty."""
    message += mask(data[start:stop], key) if key else data[start:stop]


def text(data: bytearray, start: int, stop: int, masked: bool) -> str:
    """Likewise as text; `data` may have changed there then. Raises UnicodeDecodeError."""
    return str(payload(data, start, stop, masked), "utf-8")


def empty(out: bytearray) -> None:
    """Take everything out of `out`, its memory included."""
    out.clear()


def append_head(out: bytearray, first: int, size: int) -> None:
    """Append the head of a frame that is not masked, whose payload has `size` bytes, to `out`. Section 5.2."""
    if size < 126:
        out += bytes((first, size))
    elif size < 65536:
        out += _head_16(first, 126, size)
    else:
        out += _head_64(first, 127, size)


def append_frame(out: bytearray, first: int, payload: bytes | bytearray | memoryview, key: bytes | None) -> None:
    """Append a frame to `out`: `first` is its first byte, `key` the mask key of a client's frame. Section 5.2."""
    size = len(payload)
    if size < 126:
        out.append(first)
        out.append(size if key is None else MASK | size)
    elif size < 65536:
        out += _head_16(first, 126 if key is None else MASK | 126, size)
    else:
        out += _head_64(first, 127 if key is None else MASK | 127, size)
    if key is None:
        out += payload
    else:
        out += key
        out += mask(payload, key)
