"""Frames, RFC 6455 section 5: their heads, and their masks. Functions only; nothing here keeps state but the mask keys.

 0               1               2 ... 3          4 ... 9            then 4, if masked
+-+-+-+-+-------+-+-------------+----------------+------------------+-------------+
|F|R|R|R| opcode|M|   length    | ... of 16 bits | ... of 64 bits   | masking key |
|I|S|S|S|  (4)  |A|     (7)     | if length is   | if length is 127 |             |
|N|V|V|V|       |S|             | 126            |                  |             |
| |1|2|3|       |K|             |                |                  |             |
+-+-+-+-+-------+-+-------------+----------------+------------------+-------------+
"""

from __future__ import annotations

import secrets
from typing import Final

from . import leaves
from .limits import MAX_CONTROL
from .opcodes import BINARY, CLOSE, CONT, FIN, LENGTH, MASK, OPCODE, PONG, RSV

# Mask keys come from the system's strong source, a page at a time. Section 5.3; no key is used twice.
_PAGE: Final = 4096


class MaskKeys:
    """An endless supply of unpredictable mask keys of 4 bytes. Section 5.3."""

    __slots__ = ("_at", "_page")

    def __init__(self) -> None:
        self._page = b""
        self._at = 0

    def next(self) -> bytes:
        at = self._at
        if at == len(self._page):
            self._page = secrets.token_bytes(_PAGE)
            at = 0
        self._at = at + 4
        return self._page[at : at + 4]


def head_size(second: int) -> int:
    """The size of a frame's head in bytes, told by its second byte."""
    length = second & LENGTH
    return (2 if length < 126 else 4 if length == 126 else 10) + (4 if second & MASK else 0)


def head_length(head: bytes) -> int:
    """The payload's length that a complete head declares; -1 if it is not in its shortest form. Section 5.2."""
    length = head[1] & LENGTH
    if length == 126:
        length = head[2] << 8 | head[3]
        return length if length > 125 else -1
    if length == 127:
        length = int.from_bytes(head[2:10], "big")
        return length if length > 65535 else -1
    return length


def broken_rule(first: int, second: int, server: bool, continues: bool, rsv: int = 0) -> str:
    """The rule of section 5 that the first two bytes of a frame break, or an empty string.

    `server`: who reads it. `continues`: a message in fragments is in progress. `rsv`: the reserved bits that an
    extension has given a meaning, on the frame that begins a message (RFC 7692, section 6.1).
    """
    opcode = first & OPCODE
    if first & RSV & ~rsv:
        return "a reserved bit is set, and no extension gives it a meaning (section 5.2)"
    if first & RSV and (opcode >= CLOSE or opcode == CONT):
        return "a reserved bit is set on a frame that does not begin a message (RFC 7692, section 6.1)"
    if opcode > PONG or BINARY < opcode < CLOSE:
        return f"reserved opcode {opcode} (section 5.2)"
    if server and not second & MASK:
        return "a client's frame is not masked (section 5.1)"
    if not server and second & MASK:
        return "a server's frame is masked (section 5.1)"
    if opcode >= CLOSE:
        if not first & FIN:
            return "a control frame is fragmented (section 5.5)"
        if second & ~MASK > MAX_CONTROL:
            return "a control frame is longer than 125 bytes (section 5.5)"
    elif opcode == CONT and not continues:
        return "a continuation frame without a message to continue (section 5.4)"
    elif opcode != CONT and continues:
        return "a new message inside a fragmented one (section 5.4)"
    return ""


# The leaves, in whichever form runs.


def mask(data: bytes | bytearray | memoryview, key: bytes | bytearray) -> bytes:
    """XOR `data` with the four bytes of `key`, over and over: masks and unmasks. Section 5.3."""
    return leaves.mask(data, key)


def payload(data: bytearray, start: int, stop: int, masked: bool) -> bytes:
    """The payload that stands in `data` from `start` to `stop`, its mask key, if it is `masked`, right before it."""
    return leaves.payload(data, start, stop, masked)


def extend(message: bytearray, data: bytearray, start: int, stop: int, key: bytes) -> None:
    """Append to `message` what stands in `data` from `start` to `stop`, masked with `key` unless that is empty."""
    leaves.extend(message, data, start, stop, key)


def text(data: bytearray, start: int, stop: int, masked: bool) -> str:
    """Likewise as text; `data` may have changed there then. Raises UnicodeDecodeError."""
    return leaves.text(data, start, stop, masked)


def append_frame(out: bytearray, first: int, payload: bytes | bytearray | memoryview, key: bytes | None) -> None:
    """Append a frame to `out`: `first` is its first byte, `key` the mask key of a client's frame. Section 5.2."""
    leaves.append_frame(out, first, payload, key)


def append_head(out: bytearray, first: int, size: int) -> None:
    """Append the head of a frame that is not masked, whose payload has `size` bytes, to `out`. Section 5.2."""
    leaves.append_head(out, first, size)


def long_length(data: bytearray, at: int) -> int:
    """The length of 64 bits that stands in `data` at `at`; -1 if a shorter form would do, or it is over 2^63 - 1."""
    return leaves.long_length(data, at)


def empty(out: bytearray) -> None:
    """Take everything out of `out`, its memory included."""
    leaves.empty(out)
