"""A peer that says anything: it plays a case on a socket, in either role, and is strict about what it hears.

It shares no code with the library. Frames are built here as they are given, right or wrong; what comes back must be
well-formed, and exactly what the case foresees, in that order, until the end of the stream.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
DATA = {TEXT: "text", BINARY: "binary"}

DEFLATE = "permessage-deflate"
PACKED = 4  # the reserved bit of a compressed message, RFC 7692, section 6
TAIL = b"\x00\x00\xff\xff"

MASK = b"\x37\xfa\x21\x3d"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


class Frame(NamedTuple):
    """A frame as it is sent: nothing here is checked."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0

    def encode(self, mask: bytes = b"") -> bytes:
        size = len(self.payload)
        bit = 0x80 if mask else 0
        first = bytes([self.fin << 7 | self.rsv << 4 | self.opcode])
        if size < 126:
            head = first + bytes([bit | size])
        elif size < 65536:
            head = first + bytes([bit | 126]) + size.to_bytes(2)
        else:
            head = first + bytes([bit | 127]) + size.to_bytes(8)
        return head + mask + masked(self.payload, mask) if mask else head + self.payload


class Deflate(NamedTuple):
    """permessage-deflate, RFC 7692: its parameters in either role, and how the other side has to compress then."""

    offer: str  # to a server ...
    answer: str  # ... which has to answer this
    demand: str  # the answer to a client
    bits: int = 15
    takeover: bool = True


class Send(NamedTuple):
    """Frames to send: all in one write, or in pieces of `chop` bytes, or each in a write of its own (`chop` 0).

    `start` and `stop` cut the bytes, to send a frame in part.
    """

    frames: tuple[Frame, ...]
    chop: int | None = None
    start: int = 0
    stop: int | None = None

    def writes(self, mask: bytes) -> Iterable[bytes]:
        encoded = [frame.encode(mask) for frame in self.frames]
        if self.chop == 0:
            return encoded
        whole = b"".join(encoded)[self.start : self.stop]
        step = self.chop or max(len(whole), 1)
        return (whole[i : i + step] for i in range(0, len(whole), step))


class Quiet(NamedTuple):
    """Give the other side the turns it needs to say something, and check that it does not."""


class Event(NamedTuple):
    """What the other side says: "text", "binary", "ping", "pong" with a payload; "close" with a code or None."""

    kind: str
    value: bytes | int | None


Step = Send | Quiet | Event


class Peer:
    """One connection after the handshake. A `server` sends unmasked frames and ends the TCP connection."""

    def __init__(self, sock: socket.socket, deflate: Deflate | None, *, server: bool) -> None:
        self.sock = sock
        self.deflate = deflate
        self.server = server
        self.loop = asyncio.get_running_loop()
        self.received = bytearray()
        self.cut_off = False  # a write failed: the other side has closed already, and says why in what it sent
        self.message: tuple[Frame, bytearray] | None = None
        self.inflater = None if deflate is None else zlib.decompressobj(-deflate.bits)

    async def play(self, steps: Iterable[Step]) -> None:
        """Go through the steps, then hear the end of the stream."""
        for step in steps:
            match step:
                case Send():
                    await self.send(step)
                case Quiet():
                    await self.quiet()
                case Event():
                    assert brief(await self.event()) == brief(step)
        if self.server:
            self.sock.shutdown(socket.SHUT_WR)  # RFC 6455, section 7.1.1: it is the server that closes first
        assert brief(await self.event()) is None

    async def send(self, step: Send) -> None:
        for data in step.writes(b"" if self.server else MASK):
            if self.cut_off:
                return
            try:
                await self.loop.sock_sendall(self.sock, data)
            except (BrokenPipeError, ConnectionResetError):
                self.cut_off = True
            if step.chop is not None:
                await turns(2)  # one to read this piece alone, one to act on it

    async def quiet(self) -> None:
        await turns(20)
        try:
            heard = self.sock.recv(65536)
        except BlockingIOError:
            heard = None
        assert heard is None, f"expected silence, heard {heard!r}"

    async def event(self) -> Event | None:
        """Return the next event, with the fragments of a message put together; None at the end of the stream."""
        while frame := await self.frame():
            opcode, payload, fin, rsv = frame
            if opcode == CLOSE:
                assert len(payload) != 1
                payload[2:].decode()
                return Event("close", int.from_bytes(payload[:2]) if payload else None)
            if opcode in (PING, PONG):
                return Event("ping" if opcode == PING else "pong", payload)
            if opcode in DATA:
                assert self.message is None, "a new message inside a fragmented one"
                self.message = frame, bytearray()
            else:
                assert not rsv, "a reserved bit inside a message"
            assert self.message is not None, "nothing to continue"
            self.message[1].extend(payload)
            if fin:
                (begin, data), self.message = self.message, None
                return Event(DATA[begin.opcode], self.inflate(data) if begin.rsv else bytes(data))
        assert self.message is None, "the stream ends inside a message"
        return None

    def inflate(self, data: bytearray) -> bytes:
        """What was compressed with a larger window than agreed on is an error."""
        assert self.deflate is not None
        assert self.inflater is not None
        if not self.deflate.takeover:
            self.inflater = zlib.decompressobj(-self.deflate.bits)
        return self.inflater.decompress(data + TAIL)

    async def frame(self) -> Frame | None:
        """Read one frame, of which all but the payload must be by the book."""
        if not await self.fill(2):
            assert not self.received, "the stream ends inside a frame"
            return None
        first, second = self.received[:2]
        fin, rsv, opcode, size = bool(first & 0x80), first >> 4 & 7, first & 15, second & 127
        assert rsv == 0 or (rsv == PACKED and opcode < CLOSE and self.deflate is not None)
        assert opcode in (0, TEXT, BINARY, CLOSE, PING, PONG)
        assert bool(second & 0x80) == self.server, "clients mask, servers do not"
        start = 2
        if size >= 126:
            start = 4 if size == 126 else 10
            assert await self.fill(start)
            least, size = 126 if size == 126 else 65536, int.from_bytes(self.received[2:start])
            assert size >= least, "a length in a longer form than needed"
        assert opcode < CLOSE or (fin and size <= 125), "a control frame that is fragmented or too long"
        mask = b""
        if self.server:
            start += 4
            assert await self.fill(start)
            mask = bytes(self.received[start - 4 : start])
        assert await self.fill(start + size), "the stream ends inside a frame"
        payload = bytes(self.received[start : start + size])
        del self.received[: start + size]
        return Frame(opcode, masked(payload, mask) if mask else payload, fin, rsv)

    async def fill(self, size: int) -> bool:
        """Read until `size` bytes are there. A connection that was reset while we wrote has ended as well."""
        while len(self.received) < size:
            try:
                data = await self.loop.sock_recv(self.sock, 262144)
            except ConnectionResetError:
                if not self.cut_off:
                    raise
                data = b""
            if not data:
                return False
            self.received += data
        return True

    async def head(self) -> bytes:
        while b"\r\n\r\n" not in self.received:
            assert await self.fill(len(self.received) + 1), "the stream ends inside the handshake"
        head, _, rest = bytes(self.received).partition(b"\r\n\r\n")
        self.received[:] = rest
        return head


@asynccontextmanager
async def client(port: int, deflate: Deflate | None = None) -> AsyncIterator[Peer]:
    """Connect to a server and shake hands."""
    offer = "" if deflate is None else f"Sec-WebSocket-Extensions: {DEFLATE}{deflate.offer}\r\n"
    with socket.socket() as sock:
        prepare(sock)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        peer = Peer(sock, deflate, server=False)
        await peer.loop.sock_sendall(
            sock,
            b"GET /conformance HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Version: 13\r\n%b\r\n" % (port, KEY, offer.encode()),
        )
        status, headers = parsed(await peer.head())
        assert status.startswith(b"HTTP/1.1 101 ")
        assert headers[b"upgrade"].lower() == b"websocket"
        assert headers[b"connection"].lower() == b"upgrade"
        assert headers[b"sec-websocket-accept"] == ACCEPT
        answer = headers.get(b"sec-websocket-extensions")
        assert answer == (None if deflate is None else f"{DEFLATE}{deflate.answer}".encode())
        yield peer


@asynccontextmanager
async def server(listener: socket.socket, deflate: Deflate | None = None) -> AsyncIterator[Peer]:
    """Take one client of a listening, non-blocking socket and shake hands."""
    demand = "" if deflate is None else f"Sec-WebSocket-Extensions: {DEFLATE}{deflate.demand}\r\n"
    sock, _ = await asyncio.get_running_loop().sock_accept(listener)
    with sock:
        prepare(sock)
        peer = Peer(sock, deflate, server=True)
        request, headers = parsed(await peer.head())
        assert request == b"GET /conformance HTTP/1.1"
        assert not peer.received, "the client speaks before it is answered"
        assert headers[b"sec-websocket-version"] == b"13"
        assert headers[b"sec-websocket-extensions"] == f"{DEFLATE}; client_max_window_bits".encode()
        key = headers[b"sec-websocket-key"]
        assert len(base64.b64decode(key, validate=True)) == 16
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        await peer.loop.sock_sendall(
            sock,
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept, demand.encode()),
        )
        yield peer


def prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a piece is a segment


def parsed(head: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    first, *lines = head.split(b"\r\n")
    return first, {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}


def masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)


async def turns(count: int) -> None:
    """Let the loop go round: both sides live on it, and loopback delivers at once, so turns are enough."""
    for _ in range(count):
        await asyncio.sleep(0)


def brief(event: Event | None) -> Event | tuple[str, int, str] | None:
    """Make a long payload comparable without a report of megabytes."""
    if event and isinstance(event.value, bytes) and len(event.value) > 200:
        return event.kind, len(event.value), hashlib.sha256(event.value).hexdigest()
    return event
