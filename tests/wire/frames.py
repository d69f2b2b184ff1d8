"""Frames as a peer writes and reads them, by hand: nothing here comes from the codec that is under test."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

KEY = bytes.fromhex("37fa213d")  # RFC 6455, section 5.7


class Frame(NamedTuple):
    """A frame as it was read: `masked` tells whether it was, `payload` is unmasked."""

    opcode: int
    payload: bytes
    fin: bool = True
    masked: bool = False
    rsv: int = 0


def xor(payload: bytes, key: bytes) -> bytes:
    """Section 5.3, to the letter."""
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes | None = None,
    form: int | None = None,
    declared: int | None = None,
) -> bytes:
    """A frame, legal or not. `form` is the field of 7 bits, `declared` another length than the payload's."""
    length = len(payload) if declared is None else declared
    if form is None:
        form = length if length <= 125 else 126 if length <= 0xFFFF else 127
    head = struct.pack("!BB", fin << 7 | rsv << 4 | opcode, (key is not None) << 7 | form)
    if form == 126:
        head += struct.pack("!H", length)
    elif form == 127:
        head += struct.pack("!Q", length)
    return head + payload if key is None else head + key + xor(payload, key)


def close_payload(code: int, reason: str = "") -> bytes:
    return struct.pack("!H", code) + reason.encode()


def read_frames(data: bytes) -> Iterator[Frame]:
    """Read frames that must be complete, and of the shortest form."""
    while data:
        first, second = data[:2]
        length, at = second & 0x7F, 2
        if length == 126:
            (length,) = struct.unpack_from("!H", data, at)
            at += 2
            assert length > 125
        elif length == 127:
            (length,) = struct.unpack_from("!Q", data, at)
            at += 8
            assert length > 0xFFFF
        masked = second >= 0x80
        key = bytes(4)
        if masked:
            key = data[at : at + 4]
            at += 4
        assert len(data) >= at + length
        payload, data = data[at : at + length], data[at + length :]
        yield Frame(first & 0x0F, xor(payload, key) if masked else payload, first >= 0x80, masked, first >> 4 & 0x07)


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """Cut `data` at these places."""
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(bounds):
        yield data[start:end]
