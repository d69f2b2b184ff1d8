"""A tap on a connection: what each side says, and what it means by RFC 6455 and RFC 7692, read without the library."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from peers import CLOSE, HOST, PING, PONG, TEXT

CLIENT, SERVER = "client", "server"
EXTENSIONS = b"sec-websocket-extensions:"
TAIL = b"\x00\x00\xff\xff"  # RFC 7692, section 7.2.1

Parameters = dict[str, str | None]


class Message(NamedTuple):
    data: str | bytes
    packed: bool
    size: int  # of its payload on the wire
    fragments: int
    controls: int  # frames between its fragments


class Tap:
    """Stands between a client and a server, and keeps what each says. `port` is the one to connect to."""

    def __init__(self) -> None:
        self.port = 0
        self.said = {CLIENT: bytearray(), SERVER: bytearray()}

    def extensions(self, side: str) -> Parameters | None:
        """What this side's head says of permessage-deflate, None for nothing."""
        head = self.said[side].partition(b"\r\n\r\n")[0]
        lines = [line for line in head.split(b"\r\n") if line.lower().startswith(EXTENSIONS)]
        if not lines:
            return None
        (line,) = lines
        offer = line.partition(b":")[2].decode().split(",")[0]
        name, *parameters = (part.strip() for part in offer.split(";"))
        assert name == "permessage-deflate"
        return {key: value or None for key, _, value in (part.partition("=") for part in parameters)}

    def messages(self, side: str, *, bits: int = 15, takeover: bool = True) -> list[Message]:
        """The messages of a side that compresses with this window. What does not keep to the RFCs is an error."""
        found: list[Message] = []
        inflater = zlib.decompressobj(-bits)
        opcode, packed, fragments, controls = 0, False, 0, 0
        payload = bytearray()
        for first, data in frames(self.said[side].partition(b"\r\n\r\n")[2], masked=side == CLIENT):
            fin, rsv, kind = bool(first & 0x80), first & 0x70, first & 15
            if kind >= CLOSE:
                assert kind in (CLOSE, PING, PONG)
                assert fin
                assert not rsv
                controls += bool(opcode)
                continue
            assert bool(kind) == (not opcode)  # the first frame of a message has an opcode, the others have not
            if kind:
                assert rsv in (0, 0x40)
                opcode, packed, fragments, controls = kind, rsv == 0x40, 0, 0
                payload.clear()
            else:
                assert not rsv  # RFC 7692, section 6.1
            fragments += 1
            payload += data
            if fin:
                plain = bytes(payload)
                if packed:
                    if not takeover:
                        inflater = zlib.decompressobj(-bits)
                    plain = inflater.decompress(plain + TAIL)
                    assert not inflater.eof
                text = plain.decode() if opcode == TEXT else plain
                found.append(Message(text, packed, len(payload), fragments, controls))
                opcode = 0
        assert not opcode
        return found


def frames(stream: bytearray, *, masked: bool) -> list[tuple[int, bytes]]:
    """The first byte and the payload of each frame."""
    found = []
    at = 0
    while at < len(stream):
        first, second = stream[at : at + 2]
        assert bool(second & 0x80) == masked
        size, at = second & 0x7F, at + 2
        if size > 125:
            width = 2 if size == 126 else 8
            size, at = int.from_bytes(stream[at : at + width], "big"), at + width
        key, at = (bytes(stream[at : at + 4]), at + 4) if masked else (b"", at)
        payload = bytes(stream[at : at + size])
        assert len(payload) == size
        if masked:
            mask = int.from_bytes((key * (size // 4 + 1))[:size], "big")
            payload = (int.from_bytes(payload, "big") ^ mask).to_bytes(size, "big")
        found.append((first, payload))
        at += size
    return found


@asynccontextmanager
async def tapped(port: int) -> AsyncIterator[Tap]:
    """A tap on the way to a port, for one connection. Its end is when both sides have ended TCP."""
    tap = Tap()
    over = asyncio.Event()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, side: str) -> None:
        try:
            while data := await reader.read(65_536):
                tap.said[side] += data
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except ConnectionError:
            writer.transport.abort()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.close()
        there_reader, there_writer = await asyncio.open_connection(HOST, port)
        try:
            await asyncio.gather(carry(reader, there_writer, CLIENT), carry(there_reader, writer, SERVER))
        finally:
            there_writer.transport.abort()
            writer.transport.abort()
            over.set()

    server = await asyncio.start_server(accept, HOST, 0)
    tap.port = server.sockets[0].getsockname()[1]
    try:
        yield tap
        await over.wait()
    finally:
        server.close()
