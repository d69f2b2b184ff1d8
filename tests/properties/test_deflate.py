"""Laws of permessage-deflate: whatever was agreed on, sent, cut, forgotten or broken, held against zlib."""

from __future__ import annotations

import random
import zlib
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fullduplex.wire.deflate import CLIENT_BITS, CLIENT_NO_CONTEXT, SERVER_BITS, SERVER_NO_CONTEXT, PerMessageDeflate
from fullduplex.wire.errors import PayloadTooBig, ProtocolError
from fullduplex.wire.extensions import (
    RSV1,
    Extension,
    accept_offers,
    check_answer,
    format_extensions,
    parse_extensions,
)
from fullduplex.wire.opcodes import FIN, Opcode
from properties.streams import law

TAIL = b"\x00\x00\xff\xff"
LIMIT = 5000

# Nothing repeats in it: what was cut from it before is found again in the window only.
NOISE = random.Random(7692).randbytes(3000)
PARTS = st.builds(
    lambda start, size: NOISE[start : start + size],
    st.integers(0, 2000),
    st.sampled_from([0, 1, 10, 63, 64, 300, 1000]),
) | st.sampled_from([b"", b"a", b"a" * 300])
MESSAGES = st.lists(PARTS, min_size=1, max_size=4)

BITS = st.none() | st.integers(9, 15)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "server_no_context_takeover": st.booleans(),
        "client_no_context_takeover": st.booleans(),
        "server_max_window_bits": BITS,
        "client_max_window_bits": BITS,
        "level": st.integers(1, 9),
        "memory_level": st.integers(1, 9),
        "threshold": st.sampled_from([0, 1, 1000]),
    },
)


def joined(offer: dict[str, Any], answer: dict[str, Any]) -> tuple[Extension, Extension, dict[str, str | None]]:
    """The server's side, the client's, and what the header said that brought them together."""
    server_factory, client_factory = PerMessageDeflate(**answer), PerMessageDeflate(**offer)
    request = format_extensions((client_factory.name, each) for each in client_factory.offers())
    answered, server = accept_offers([server_factory], parse_extensions([request]))
    client = check_answer([client_factory], parse_extensions([format_extensions(answered)]))
    assert server is not None
    assert client is not None
    [(_, parameters)] = answered
    return server, client, dict(parameters)


class Inflater:
    """zlib's, which sees every reference beyond its window because it is asked for one byte at a time."""

    def __init__(self, bits: int, context: bool) -> None:
        self.bits = bits
        self.context = context
        self.zlib = zlib.decompressobj(-bits)

    def __call__(self, data: bytes) -> bytes:
        message = bytearray()
        data += TAIL
        while byte := self.zlib.decompress(data, 1):
            message += byte
            data = self.zlib.unconsumed_tail
        assert not self.zlib.eof
        if not self.context:
            self.zlib = zlib.decompressobj(-self.bits)
        return bytes(message)


class Compressor:
    """zlib's, which flushes in every way there is."""

    def __init__(self, bits: int, context: bool) -> None:
        self.bits = bits
        self.context = context
        self.window = b""
        self.zlib = zlib.compressobj(9, zlib.DEFLATED, -bits)

    def __call__(self, message: list[tuple[bytes, int]]) -> bytes:
        if not self.context:
            self.window = b""
            self.zlib = zlib.compressobj(9, zlib.DEFLATED, -self.bits)
        data = b""
        for part, flush in message:
            data += self.zlib.compress(part)
            data += self.zlib.flush(flush)
            self.window += part
            if flush == zlib.Z_FINISH:
                self.zlib = zlib.compressobj(9, zlib.DEFLATED, -self.bits, zdict=self.window[-1 << self.bits :])
        data += self.zlib.compress(b"") + self.zlib.flush(zlib.Z_SYNC_FLUSH)
        assert data.endswith(TAIL)
        return data[:-4]


def decoded(extension: Extension, first: int, *pieces: bytes) -> bytes:
    if not first & RSV1:
        return b"".join(pieces)
    extension.begin(RSV1)
    last = len(pieces) - 1
    return b"".join(extension.decode(piece, i == last, 10**6) for i, piece in enumerate(pieces))


STEPS: st.SearchStrategy[tuple[str, bool, list[bytes], bool | None]] = st.one_of(
    st.tuples(st.just("message"), st.booleans(), MESSAGES, st.sampled_from([None, False, True])),
    st.tuples(st.just("shared"), st.booleans(), MESSAGES, st.none()),
    st.tuples(st.just("rest"), st.booleans(), st.just([]), st.none()),
)


@given(SETTINGS, SETTINGS, st.lists(STEPS, max_size=12))
@law(300)
def test_whatever_is_agreed_on(
    offer: dict[str, Any], answer: dict[str, Any], steps: list[tuple[str, bool, list[bytes], bool | None]]
) -> None:
    """Messages, whole or in fragments, own or shared, with rests between them: our other side reads them, and so does a
    zlib that has no more window than the header says."""
    server, client, said = joined(offer, answer)
    of_server = Inflater(int(said.get(SERVER_BITS) or 15), SERVER_NO_CONTEXT not in said)
    of_client = Inflater(int(said.get(CLIENT_BITS) or 15), CLIENT_NO_CONTEXT not in said)
    for kind, by_server, parts, compress in steps:
        sender, receiver, inflate = (server, client, of_server) if by_server else (client, server, of_client)
        if kind == "rest":
            sender.rest()
        elif kind == "shared":
            message = b"".join(parts)
            first, payload = sender.encode_shared(FIN | Opcode.TEXT, message)
            sender.pass_shared(first)
            assert not first & RSV1 or inflate(bytes(payload)) == message
            assert decoded(receiver, first, bytes(payload)) == message
        else:
            frames = [
                sender.encode((0 if i else Opcode.TEXT) | (0 if parts[i + 1 :] else FIN), part, compress)
                for i, part in enumerate(parts)
            ]
            assert not any(first & RSV1 for first, _ in frames[1:])
            first, pieces = frames[0][0], [bytes(payload) for _, payload in frames]
            assert not first & RSV1 or inflate(b"".join(pieces)) == b"".join(parts)
            assert decoded(receiver, first, *pieces) == b"".join(parts)


FLUSHES = st.sampled_from([zlib.Z_NO_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH])


@given(
    st.sampled_from([9, 10, 12, 15]),
    st.booleans(),
    st.lists(st.lists(st.tuples(PARTS, FLUSHES), max_size=4), max_size=5),
    st.lists(st.integers(0, 1000), max_size=5) | st.just(list(range(1000))),
    st.booleans(),
)
@law(300)
def test_any_sender_any_cut(
    bits: int, context: bool, messages: list[list[tuple[bytes, int]]], cuts: list[int], rests: bool
) -> None:
    """However a message was flushed, wherever it has final blocks, and whatever comes at a time."""
    compress = Compressor(bits, context)
    answer = [(SERVER_BITS, str(bits)), *([] if context else [(SERVER_NO_CONTEXT, None)])]
    whole, cut = (PerMessageDeflate().agree([], answer) for _ in range(2))
    for message in messages:
        data = compress(message)
        bounds = [0, *sorted(at for at in cuts if at < len(data)), len(data)]
        pieces = [data[start:end] for start, end in pairwise(bounds)]
        expected = b"".join(part for part, _ in message)
        assert decoded(whole, RSV1, data) == expected
        assert decoded(cut, RSV1, *pieces) == expected
        if rests:
            cut.rest()


@st.composite
def bad_data(draw: st.DrawFn) -> bytes:
    """Anything, or a message with a few bytes changed, or without its end."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=40))
    data = bytearray(Compressor(15, True)(draw(st.lists(st.tuples(PARTS, FLUSHES), max_size=3))))
    for at, value in draw(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), max_size=3)):
        data[at % len(data)] = value
    return bytes(data[: draw(st.none() | st.integers(0, 1000))])


def outcome(*pieces: bytes) -> bytes | None:
    """The message, or None for an error, which says what it is."""
    extension = PerMessageDeflate().agree([], [])
    message = b""
    try:
        for i, piece in enumerate(pieces, 1):
            message += extension.decode(piece, i == len(pieces), LIMIT - len(message))
            assert len(message) <= LIMIT
    except ProtocolError as error:
        failure = error
    else:
        return message
    assert failure.code == (1009 if isinstance(failure, PayloadTooBig) else 1007)
    return None


@given(bad_data())
@law(500)
def test_bad_data(data: bytes) -> None:
    """It is an error or a message, however it comes; and a message is all of its data."""
    message = outcome(data)
    assert outcome(*(data[i : i + 1] for i in range(len(data))), b"") == message
    if message is not None:
        inflater = zlib.decompressobj(-15)
        start = inflater.decompress(data + TAIL)
        if inflater.eof:  # zlib stops at a final block, we do not
            assert message.startswith(start)
        else:
            assert message == start
            # What comes next is read from its first bit on.
            assert inflater.decompress(b"\xf2\x48\xcd\xc9\xc9\x07\x00") == b"Hello"
