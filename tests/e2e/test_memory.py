"""What connections hold that nobody uses: compressed ones hardly more than plain ones."""

from __future__ import annotations

import asyncio
import gc
import socket
import tracemalloc
import weakref
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from fullduplex import ConnectionClosed, Listener, ServerConnection, connect, serve
from fullduplex.wire.memory import trim
from peers import HOST, REQUEST, TEXT, encode, port_of, url
from support import asynchronous

COUNT = 300
RSV1 = 0x40
DEFLATE = "permessage-deflate; client_max_window_bits"
EXTRA = 512  # bytes for an extension and for the headers that agreed on it
WINDOW = 4096  # bytes that a server asks clients to keep to: 12 bits
TAIL = b"\x00\x00\xff\xff"  # RFC 7692, section 7.2.1
LARGE = b"".join(b'{"id": %d, "price": %d},' % (i, i * i % 1009) for i in range(400))[:8192]


class Echo(Listener):
    def on_message(self, ws: Any, message: Any) -> None:
        ws.send(message)


class Cost(NamedTuple):
    """Bytes for each connection of a server: never used, and a minute after it was used."""

    unused: float
    idle: float


async def measure(extension: str, messages: list[bytes]) -> Cost:
    """The cost of connections on which each of the messages is echoed. Their clients are bare sockets."""
    loop = asyncio.get_running_loop()
    header = f"Sec-WebSocket-Extensions: {extension}\r\n" if extension else ""
    request = REQUEST[:-2] + header.encode() + b"\r\n"
    compressor = zlib.compressobj(wbits=-12)
    stream = []
    for message in messages:
        if "client_no_context_takeover" in extension:
            compressor = zlib.compressobj(wbits=-12)
        packed = (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
        stream.append(encode(TEXT | RSV1, packed, mask=True) if extension else encode(TEXT, message, mask=True))

    async def enter(sock: socket.socket) -> None:
        sock.setblocking(False)
        await loop.sock_connect(sock, (HOST, port))
        await loop.sock_sendall(sock, request)
        head = await loop.sock_recv(sock, 4096)
        assert (b"permessage-deflate" in head) == bool(extension)

    async def talk(sock: socket.socket) -> None:
        for data in stream:
            await loop.sock_sendall(sock, data)
            await echoed(lambda size: loop.sock_recv(sock, size))

    def held() -> float:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / COUNT

    async with serve(listener=Echo(), host=HOST, port=0, ping_interval=None) as server:
        port = port_of(server)
        with ExitStack() as stack:
            first, *crowd = [stack.enter_context(socket.socket()) for _ in range(COUNT + 1)]
            await enter(first)  # what is made once, is made for this one
            await talk(first)
            trim()  # as an extension at rest does now and then: the first time it imports ctypes
            gc.collect()
            tracemalloc.start()
            stack.callback(tracemalloc.stop)
            for sock in crowd:
                await enter(sock)
            unused = held()
            for sock in crowd:
                await talk(sock)
            for ws in server.connections:
                for _ in range(3 if extension else 0):  # each 20 s, whatever is not used is given back
                    ws.session.expire(ws.session.deadline())
            return Cost(unused, held())


async def echoed(read: Callable[[int], Any]) -> None:
    """Read a server's frame of less than 64 KiB."""

    async def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = await read(size - len(data))
            assert part
            data += part
        return data

    size = (await exactly(2))[1]
    await exactly(int.from_bytes(await exactly(2), "big") if size == 126 else size)


@pytest.mark.parametrize("messages", [[], [LARGE[:200]] * 4, [LARGE]], ids=["unused", "small", "large"])
@asynchronous
async def test_compressed_connections(messages: list[bytes]) -> None:
    """An idle one holds the peer's window, as far as the peer has filled it, since the peer may refer to that."""
    plain = await measure("", messages)
    compressed = await measure(DEFLATE, messages)
    window = min(WINDOW, len(b"".join(messages)))
    assert compressed.unused < plain.unused + EXTRA
    assert compressed.idle < plain.idle + EXTRA + window * 1.15
    # Where the peer begins each message with an empty window there is nothing to hold.
    assert (await measure(f"{DEFLATE}; client_no_context_takeover", messages)).idle < plain.idle + EXTRA


@asynchronous
async def test_what_ended_is_gone_without_the_collector_of_cycles() -> None:
    """Else what one bomb has filled still stands there when the next one comes."""

    async def leave(ws: ServerConnection) -> None:
        await ws.close(1011)

    async def hear(uri: str) -> weakref.ref[Any]:
        async with connect(uri) as ws:
            try:
                await ws.recv()
            except ConnectionClosed:
                return weakref.ref(ws)
        raise AssertionError("a message")

    async with serve(leave, HOST, 0) as server:
        gc.disable()
        try:
            ended = await hear(url(server))
            assert ended() is None
        finally:
            gc.enable()
