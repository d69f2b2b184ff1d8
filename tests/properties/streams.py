"""Streams of frames, good and bad, and what they mean: told by the whole stream at once, in the plainest way.

FULLDUPLEX_EXAMPLES=10000 in the environment makes the laws look further, at random; without it they look at the same
examples each time.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise
from typing import NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from wire.frames import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT, close_payload, frame, xor

EXAMPLES = int(os.environ.get("FULLDUPLEX_EXAMPLES", "0"))


def law(examples: int, steps: int = 50) -> settings:
    """The settings of a law, which looks at so many examples where nobody asks for more."""
    return settings(
        max_examples=EXAMPLES or examples,
        stateful_step_count=steps,
        derandomize=not EXAMPLES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


MAX_SIZE = 300  # of messages, here
KEYS = st.sampled_from([KEY, bytes(4), b"\xff\x00\x80\x01"])
TEXTS = st.text(max_size=20) | st.sampled_from(["", "x" * 125, "x" * 126, "é" * 150, "𝄞" * 75])
BLOBS = st.binary(max_size=20) | st.sampled_from([bytes(125), bytes(126), bytes(MAX_SIZE)])
CONTROLS = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=10) | st.just(bytes(125)))
CODES = st.sampled_from([1000, 1001, 1007, 1014, 3000, 4999])
CUTS = st.lists(st.integers(0, 600), max_size=12) | st.just(list(range(600)))


@st.composite
def streams(draw: st.DrawFn, server: bool) -> bytes:
    """What a peer may legally send to this role; it may end with a close frame."""

    def made(opcode: int, payload: bytes, fin: bool = True) -> bytes:
        return frame(opcode, payload, fin=fin, key=draw(KEYS) if server else None)

    def controls() -> bytes:
        return b"".join(made(*control) for control in draw(st.lists(CONTROLS, max_size=2)))

    stream = controls()
    for message in draw(st.lists(TEXTS | BLOBS, max_size=5)):
        opcode, payload = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
        bounds = [0, *sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3))), len(payload)]
        parts = [payload[start:end] for start, end in pairwise(bounds)]
        for i, part in enumerate(parts):
            stream += made(CONT if i else opcode, part, i == len(parts) - 1) + controls()
    if draw(st.booleans()):
        stream += made(CLOSE, draw(st.just(b"") | st.builds(close_payload, CODES, st.text(max_size=5))))
    return stream


SIZES = st.sampled_from([0, 1, 2, 125, 126, 127, MAX_SIZE, MAX_SIZE + 1])
DECLARED = st.sampled_from([125, 126, 65535, 65536, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
FAULTS = st.sampled_from([None, None, "rsv", "mask", "form", "declared"])


@st.composite
def odd_frames(draw: st.DrawFn, server: bool) -> bytes:
    """Frames of which one field may be wrong; and any frame may be where it may not."""
    fault = draw(FAULTS)
    return frame(
        draw(st.sampled_from([CONT, TEXT, BINARY, CLOSE, PING, PONG]) | st.integers(0, 15)),
        draw(st.sampled_from([b"x", b"\x03\xe8", b"\xff"])) * draw(SIZES),
        fin=draw(st.booleans()),
        rsv=draw(st.integers(1, 7)) if fault == "rsv" else 0,
        key=draw(KEYS) if server is (fault != "mask") else None,
        form=draw(st.sampled_from([126, 127])) if fault == "form" else None,
        declared=draw(DECLARED) if fault == "declared" else None,
    )


@st.composite
def broken_streams(draw: st.DrawFn, server: bool) -> bytes:
    """Legal streams with odd frames among them, or a few bytes changed, dropped or put in; or any bytes at all."""
    match draw(st.integers(0, 9)):
        case 0:
            return draw(st.binary(max_size=100))
        case 1 | 2 | 3:
            stream = bytearray(draw(streams(server)))
            for _ in range(draw(st.integers(1, 3))):
                at = draw(st.integers(0, max(len(stream) - 1, 0)))
                stream[at : at + draw(st.integers(0, 1))] = draw(st.binary(max_size=2))
            return bytes(stream)
        case _:
            return b"".join(draw(st.lists(odd_frames(server) | streams(server), min_size=1, max_size=5)))


class Meaning(NamedTuple):
    """What a stream says: messages, the payloads of pings, and how it ends: a close code to answer with, or None."""

    messages: list[str | bytes]
    pings: list[bytes]
    answer: int | None
    failed: bool


# The Unicode standard, table 3-7: well-formed UTF-8, and what may yet become so.
_CHARACTER = re.compile(
    rb"[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}"
    rb"|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
_BEGINNING = re.compile(
    rb"|[\xc2-\xf4]|\xe0[\xa0-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]|\xed[\x80-\x9f]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]?|[\xf1-\xf3][\x80-\xbf]{1,2}|\xf4[\x80-\x8f][\x80-\xbf]?"
)


def may_be_text(data: bytes, complete: bool) -> bool:
    """Tell whether these bytes are UTF-8; or, not `complete`, whether some bytes behind them could make them so."""
    at = 0
    while found := _CHARACTER.match(data, at):
        at = found.end()
    return at == len(data) if complete else _BEGINNING.fullmatch(data, at) is not None


def meaning(stream: bytes, server: bool, max_size: int = MAX_SIZE) -> Meaning:
    """RFC 6455, sections 5, 7.4 and 8.1, for a stream that is here as a whole."""
    messages: list[str | bytes] = []
    pings: list[bytes] = []
    kind, message = 0, b""

    def ends(code: int | None, failed: bool = True) -> Meaning:
        return Meaning(messages, pings, code, failed)

    at = 0
    while len(stream) - at >= 2:
        first, second = stream[at : at + 2]
        fin, opcode, length = first >= 0x80, first & 0x0F, second & 0x7F
        if first & 0x70 or (second >= 0x80) is not server or opcode not in (CONT, TEXT, BINARY, CLOSE, PING, PONG):
            return ends(1002)
        if opcode >= CLOSE:
            if not fin or length > 125:
                return ends(1002)
        elif (opcode == CONT) is not (kind != 0):
            return ends(1002)
        extended = {126: 2, 127: 8}.get(length, 0)
        start = at + 2 + extended + 4 * server
        if start > len(stream):
            break
        if extended:
            length = int.from_bytes(stream[at + 2 : at + 2 + extended], "big")
            if length <= (125 if extended == 2 else 0xFFFF) or length >= 1 << 63:
                return ends(1002)
        if opcode < CLOSE and len(message) + length > max_size:
            return ends(1009)
        payload = stream[start : start + length]
        if server:
            payload = xor(payload, stream[start - 4 : start])
        at = start + length
        complete = at <= len(stream)
        if opcode < CLOSE:
            kind, message = kind or opcode, message + payload
            if kind == TEXT and not may_be_text(message, complete and fin):
                return ends(1007)
            if complete and fin:
                messages.append(message.decode() if kind == TEXT else message)
                kind, message = 0, b""
        elif complete and opcode == PING:
            pings.append(payload)
        elif complete and opcode == CLOSE:
            if not payload:
                return ends(1005, False)
            code = int.from_bytes(payload[:2], "big")
            if len(payload) == 1 or not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
                return ends(1002)
            return ends(code, False) if may_be_text(payload[2:], True) else ends(1007)
    return ends(None, False)
