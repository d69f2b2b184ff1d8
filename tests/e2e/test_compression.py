"""permessage-deflate on real sockets, in both roles, with a raw peer that says whatever a test wants."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fullduplex
from fullduplex import Connection, ConnectionClosedError, Policy, ServerConnection, broadcast, connect, serve
from fullduplex.extensions import PerMessageDeflate
from fullduplex.wire import deflate
from peers import BINARY, CLOSE, HOST, PING, PONG, REQUEST, TEXT, Raw, answer, echo, encode, raw_client, raw_server, url
from support import LoopFactory, asynchronous

CONT = 0
RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10
HEADER = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
TAIL = b"\x00\x00\xff\xff"  # RFC 7692, section 7.2.1
HELLO = b"\xf2\x48\xcd\xc9\xc9\x07\x00"  # section 7.2.3.1
HELLO_AGAIN = b"\xf2\x00\x11\x00\x00"  # section 7.2.3.2: refers to the one before it
HELLO_FINAL = b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"  # section 7.2.3.4: its block says it is the last
JSON = json.dumps([{"id": i, "price": i * i % 1009 / 100, "side": "buy"} for i in range(60)])


class Peer(Raw):
    """The other side, with a compressor and an inflater of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, masks: bool) -> None:
        super().__init__(reader, writer)
        self.masks = masks
        self.compressor = zlib.compressobj(wbits=-12)
        self.inflater = zlib.decompressobj(-15)

    def say(self, first: int, payload: bytes = b"", fin: bool = True) -> None:
        self.write(encode(first, payload, fin, mask=self.masks))

    def pack(self, data: str | bytes, fin: bool = True) -> bytes:
        data = data.encode() if isinstance(data, str) else data
        packed = self.compressor.compress(data) + self.compressor.flush(zlib.Z_SYNC_FLUSH)
        return packed.removesuffix(TAIL) if fin else packed

    async def hear(self) -> tuple[int, bytes]:
        """The next frame: its first byte without FIN, and its payload."""
        first, second = await self.reader.readexactly(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        key = await self.reader.readexactly(4) if second & 0x80 else bytes(4)
        payload = await self.reader.readexactly(size)
        return first & 0x7F, bytes(byte ^ key[i & 3] for i, byte in enumerate(payload))

    async def hear_packed(self) -> tuple[str, int]:
        """A text message that comes compressed, in one frame; and its size on the wire."""
        first, payload = await self.hear()
        assert first == RSV1 | TEXT
        return self.inflater.decompress(payload + TAIL).decode(), len(payload)

    async def hear_close(self) -> int:
        first, payload = await self.hear()
        assert first == CLOSE
        return int.from_bytes(payload[:2], "big")


@asynccontextmanager
async def meet(we_serve: bool, agreed: bool = True, **options: Any) -> AsyncIterator[tuple[Connection, Peer]]:
    """Our side of a connection, and the raw peer, who asks for nothing but permessage-deflate; or not even for that."""
    loop = asyncio.get_running_loop()
    options = {"ping_interval": None, "close_timeout": 0.1} | options
    if we_serve:
        accepted: asyncio.Future[ServerConnection] = loop.create_future()

        async def handler(ws: ServerConnection) -> None:
            accepted.set_result(ws)
            await ws.wait_closed()

        request = REQUEST[:-2] + HEADER if agreed else REQUEST
        async with serve(handler, HOST, 0, **options) as server, raw_client(server, request) as raw:
            assert (HEADER[:-4] in await raw.head()) == agreed
            yield await accepted, Peer(raw.reader, raw.writer, masks=True)
        return

    peer: asyncio.Future[Peer] = loop.create_future()

    async def shake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = answer(await reader.readuntil(b"\r\n\r\n"))
        writer.write(head[:-2] + HEADER if agreed else head)
        peer.set_result(Peer(reader, writer, masks=False))

    async with await asyncio.start_server(shake, HOST, 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        async with connect(f"ws://{HOST}:{port}/", **options) as ws:
            try:
                yield ws, await peer
            finally:
                (await peer).writer.transport.abort()


@pytest.fixture(params=[True, False], ids=["our_server", "our_client"])
def we_serve(request: pytest.FixtureRequest) -> bool:
    value: bool = request.param
    return value


# Messages.


@asynchronous
async def test_a_ping_between_compressed_fragments_is_answered_at_once(
    we_serve: bool, loop_factory: LoopFactory
) -> None:
    async with meet(we_serve) as (ws, peer):
        packed = peer.pack(JSON)
        middle = len(packed) // 2
        peer.say(RSV1 | TEXT, packed[:middle], fin=False)
        peer.say(PING, b"between")
        assert await peer.hear() == (PONG, b"between")
        peer.say(CONT, packed[middle:])
        assert await ws.recv() == JSON


@asynchronous
async def test_our_pings_between_fragments_are_not_compressed(we_serve: bool) -> None:
    async def parts() -> AsyncIterator[str]:
        for i, part in enumerate((JSON[:1000], "", JSON[1000:])):
            yield part
            await ws.ping(str(i))

    async with meet(we_serve) as (ws, peer):
        await ws.send(parts())
        heard = [await peer.hear() for _ in range(7)]
        assert [first for first, _ in heard] == [RSV1 | TEXT, PING, CONT, PING, CONT, PING, CONT]
        packed = b"".join(payload for first, payload in heard if first != PING)
        assert peer.inflater.decompress(packed + TAIL).decode() == JSON
        assert [payload for first, payload in heard if first == PING] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("cut", [None, *range(1, len(HELLO_FINAL))])
@asynchronous
async def test_a_final_block_loses_nothing(we_serve: bool, cut: int | None) -> None:
    async with meet(we_serve) as (ws, peer):
        peer.say(RSV1 | TEXT, HELLO_FINAL[:cut], fin=cut is None)
        if cut is not None:
            peer.say(CONT, HELLO_FINAL[cut:])
        peer.say(RSV1 | TEXT, HELLO_AGAIN)
        # In the middle of a message, which goes on with what refers to the text before that block.
        peer.say(RSV1 | TEXT, HELLO_FINAL[:-1] + HELLO_AGAIN)
        assert [await ws.recv() for _ in range(3)] == ["Hello", "Hello", "HelloHello"]


@asynchronous
async def test_cut_at_every_byte(we_serve: bool) -> None:
    """Pieces that are read apart from each other, since the loop turns in between."""
    async with meet(we_serve) as (ws, peer):
        cut = size = 0
        while cut <= size:
            cut += 1
            frames = [
                (RSV1 | TEXT, peer.pack("some text, ", fin=False), False),
                (PING, b"!", True),
                (CONT, peer.pack("some text"), True),
                (BINARY, b"plain", True),
            ]
            stream = b"".join(encode(first, payload, fin, mask=peer.masks) for first, payload, fin in frames)
            size = len(stream)
            for piece in (stream[:cut], stream[cut:]) if cut <= size else (bytes([byte]) for byte in stream):
                peer.write(piece)
                for _ in range(3):
                    await asyncio.sleep(0)
            assert [await ws.recv(), await ws.recv()] == ["some text, some text", b"plain"]
            assert await peer.hear() == (PONG, b"!")


@asynchronous
async def test_what_is_compressed() -> None:
    """By default its size decides; an empty message never is."""
    for compression, threshold in (("deflate", 64), (PerMessageDeflate(threshold=300), 300)):
        async with meet(True, compression=compression) as (ws, peer):
            for size, compress, packed in (
                (threshold - 1, None, False),
                (threshold, None, True),
                (threshold - 1, True, True),
                (1, True, True),
                (threshold, False, False),
                (threshold, True, True),
                (0, None, False),
                (0, True, False),
                (100_000, False, False),
                (100_000, None, True),
            ):
                message = "x" * size
                await ws.send(message, compress=compress)
                first, payload = await peer.hear()
                assert first == (RSV1 | TEXT if packed else TEXT)
                assert (peer.inflater.decompress(payload + TAIL) if packed else payload) == message.encode()


@asynchronous
async def test_messages_in_fragments_are_compressed_unless_forbidden(we_serve: bool) -> None:
    async with meet(we_serve) as (ws, peer):
        for compress in (None, True, False):
            await ws.send(["a", "b"], compress=compress)
            heard = [await peer.hear() for _ in range(3)]
            packed = compress is not False
            assert [first for first, _ in heard] == [RSV1 | TEXT if packed else TEXT, CONT, CONT]
            whole = b"".join(payload for _, payload in heard)
            assert (peer.inflater.decompress(whole + TAIL) if packed else whole) == b"ab"


@asynchronous
async def test_context_lives_through_an_idle_time(we_serve: bool) -> None:
    """Given back is only what can be made again: each side goes on as if nothing had happened."""
    async with meet(we_serve) as (ws, peer):
        session = ws.session
        noise = random.Random(0).randbytes(40_000)  # more than the largest window
        sizes = []
        for _ in range(3):
            peer.say(RSV1 | BINARY, peer.pack(noise))
            assert await ws.recv() == noise
            for _ in range(2):
                peer.say(RSV1 | TEXT, peer.pack(JSON))
                assert await ws.recv() == JSON
                await ws.send(JSON)
                message, size = await peer.hear_packed()
                assert message == JSON
                sizes.append(size)
            for _ in range(3):  # a minute
                session.expire(session.deadline())
        # A compressor that was given back knows nothing of what it has sent.
        assert sizes[0] == sizes[2] == sizes[4]
        assert max(sizes[1::2]) < sizes[0] / 4
        # The peer refers to what it sent before: it has not been told of any of this.
        packed = peer.pack(JSON)
        assert len(packed) < sizes[0] / 4
        peer.say(RSV1 | TEXT, packed)
        assert await ws.recv() == JSON


# What a peer must not send.


@pytest.mark.parametrize(
    ("agreed", "first", "frames"),
    [
        (False, RSV1 | TEXT, ()),
        (False, RSV1 | BINARY, ()),
        (True, RSV2 | TEXT, ()),
        (True, RSV1 | RSV3 | TEXT, ()),
        (True, RSV1 | PING, ()),
        (True, RSV1 | PONG, ()),
        (True, RSV1 | CLOSE, ()),
        (True, RSV1 | CONT, ((RSV1 | TEXT, HELLO, False),)),
        (True, RSV1 | CONT, ((TEXT, b"plain", False),)),
    ],
)
@asynchronous
async def test_reserved_bits(
    we_serve: bool, agreed: bool, first: int, frames: tuple[tuple[int, bytes, bool], ...]
) -> None:
    async with meet(we_serve, agreed) as (ws, peer):
        for frame in frames:
            peer.say(*frame)
        peer.say(first, b"")
        assert await peer.hear_close() == 1002
        with pytest.raises(ConnectionClosedError, match="reserved bit"):
            await ws.recv()


@pytest.mark.parametrize(
    "payload",
    [b"\xff", HELLO + b"\xff", HELLO_AGAIN, HELLO[:4], b"\x00\x05\x00\xfa\xffab"],
    ids=["no_block", "after_a_block", "refers_to_nothing", "half_a_block", "half_a_stored_block"],
)
@asynchronous
async def test_corrupt_data(we_serve: bool, payload: bytes) -> None:
    async with meet(we_serve) as (ws, peer):
        peer.say(TEXT, b"before it")
        peer.say(RSV1 | TEXT, payload)
        assert await ws.recv() == "before it"
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert caught.value.code == 1006
        assert caught.value.sent is not None
        assert caught.value.sent.code == await peer.hear_close() == 1007
        assert caught.value.who == "remote"


@asynchronous
async def test_compressed_text_that_is_no_text(we_serve: bool) -> None:
    async with meet(we_serve) as (ws, peer):
        peer.say(RSV1 | TEXT, peer.pack("€".encode()[:2], fin=False), fin=False)
        peer.say(CONT, peer.pack("€".encode()[2:]))
        assert await ws.recv() == "€"
        peer.say(RSV1 | TEXT, peer.pack(b"\xff"))
        assert await peer.hear_close() == 1007


# Bombs: 1 GiB of zeros in 1 MiB.


@pytest.fixture(scope="module")
def bomb() -> bytes:
    compressor = zlib.compressobj(9, wbits=-15)
    mebibyte = compressor.compress(bytes(2**20)) + compressor.flush(zlib.Z_FULL_FLUSH)  # the next one is the same
    return (mebibyte * 1024).removesuffix(TAIL)


class Process:
    """`bombed.py`, and how much it holds."""

    def __init__(self, role: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("bombed.py"), role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(fullduplex.__file__).parents[1])},
        )
        self.before = 0

    def tell(self, line: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    async def told(self) -> int:
        assert self.popen.stdout is not None
        return int(await asyncio.to_thread(self.popen.stdout.readline))

    def _status(self, name: str) -> int:
        text = Path(f"/proc/{self.popen.pid}/status").read_text()
        return 1024 * int(text.partition(f"{name}:")[2].split()[0])

    def begin(self) -> None:
        Path(f"/proc/{self.popen.pid}/clear_refs").write_text("5")  # the peak begins anew
        self.before = self._status("VmRSS")

    def growth(self) -> int:
        """Bytes at the peak more than at `begin`."""
        return self._status("VmHWM") - self.before


@asynccontextmanager
async def process(role: str) -> AsyncIterator[Process]:
    made = Process(role)
    with made.popen:
        yield made
        assert made.popen.stdin is not None
        made.popen.stdin.close()  # which ends it
        await asyncio.to_thread(made.popen.wait)


needs_proc = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak")
MOST = 8 * 2**20  # bytes of growth


def throw(peer: Peer, bomb: bytes, fragments: int) -> None:
    size = -(-len(bomb) // fragments)
    for i in range(fragments):
        peer.say(CONT if i else RSV1 | BINARY, bomb[i * size : (i + 1) * size], fin=i == fragments - 1)


@needs_proc
@asynchronous
async def test_bombs_for_our_server(bomb: bytes) -> None:
    async with process("server") as server:
        port = await server.told()

        async def victim(fragments: int) -> int:
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(REQUEST[:-2] + HEADER)
                peer = Peer(reader, writer, masks=True)
                await peer.head()
                if fragments:
                    throw(peer, bomb, fragments)
                    return await peer.hear_close()
                peer.say(RSV1 | TEXT, peer.pack(JSON))
                assert (await peer.hear_packed())[0] == JSON
                return 0
            finally:
                writer.transport.abort()

        await victim(0)
        server.begin()
        for fragments in [1, 1024] * 10:
            assert await victim(fragments) == 1009
        assert await asyncio.gather(*(victim(1) for _ in range(10))) == [1009] * 10
        assert server.growth() < MOST
        await victim(0)


@needs_proc
@asynchronous
async def test_bombs_for_our_client(bomb: bytes) -> None:
    counts: list[int] = []

    async def script(raw: Raw) -> None:
        raw.write(answer(await raw.head())[:-2] + HEADER)
        peer = Peer(raw.reader, raw.writer, masks=False)
        if counts:
            throw(peer, bomb, counts[-1])
        else:
            peer.say(BINARY, bytes(2**20 + 1))  # too large as it is, so that its program has been through all else
        await raw.reader.read()

    async with process("client") as client, raw_server(script) as uri:
        client.tell(uri)
        assert await client.told() == 1009
        client.begin()
        for fragments in [1, 1024] * 10:
            counts.append(fragments)
            client.tell(uri)
            assert await client.told() == 1009
        assert client.growth() < MOST


# Hooks.


@pytest.mark.parametrize("where", ["request", "response"])
@asynchronous
async def test_a_hook_may_take_compression_out(where: str) -> None:
    def process_request(ws: ServerConnection, request: Any) -> None:
        del request.headers["Sec-WebSocket-Extensions"]

    def process_response(ws: ServerConnection, request: Any, response: Any) -> None:
        del response.headers["Sec-WebSocket-Extensions"]

    hook: dict[str, Any] = (
        {"process_request": process_request} if where == "request" else {"process_response": process_response}
    )
    async with serve(echo, HOST, 0, **hook) as server:
        async with raw_client(server, REQUEST[:-2] + HEADER) as raw:
            assert b"permessage-deflate" not in await raw.head()
            peer = Peer(raw.reader, raw.writer, masks=True)
            peer.say(TEXT, JSON.encode())
            assert await peer.hear() == (TEXT, JSON.encode())
            peer.say(RSV1 | TEXT, HELLO)
            assert await peer.hear_close() == 1002
        async with connect(url(server)) as ws:
            await ws.send(JSON)
            assert await ws.recv() == JSON
            assert ws.session.extension is None


# Broadcast.

RECEIVERS: list[PerMessageDeflate | None] = [
    None,
    PerMessageDeflate(),
    PerMessageDeflate(),
    PerMessageDeflate(server_no_context_takeover=True),
    PerMessageDeflate(client_no_context_takeover=True, client_max_window_bits=9),
    PerMessageDeflate(server_max_window_bits=9),
    PerMessageDeflate(server_max_window_bits=9, server_no_context_takeover=True),
    PerMessageDeflate(server_max_window_bits=15),
]


@asynchronous
async def test_broadcast_compresses_once_for_each_window(
    monkeypatch: pytest.MonkeyPatch, loop_factory: LoopFactory
) -> None:
    """The windows are 12 and 9 bits. Before, between and after it each connection goes on with what it had."""
    made = []
    backend = deflate._quickest

    def counting(*settings: int) -> Any:
        made.append(settings)
        return backend.zlib.compressobj(*settings)

    async with (
        serve(echo, HOST, 0, max_size=None) as server,
        AsyncExitStack() as stack,
    ):
        clients = [await stack.enter_async_context(connect(url(server), compression=each)) for each in RECEIVERS]

        async def everybody_echoes() -> None:
            for ws in clients:
                for message in (JSON, JSON.encode()):
                    await ws.send(message)
                    assert await ws.recv() == message

        await everybody_echoes()
        with monkeypatch.context() as patch:
            patch.setattr(deflate, "_quickest", backend._replace(zlib=SimpleNamespace(compressobj=counting)))
            for message, compressors in ((JSON[::-1], 2), (JSON[::-1].encode(), 2), ("short", 0)):
                made.clear()
                broadcast(server.connections, message)
                assert len(made) == compressors
                assert [await ws.recv() for ws in clients] == [message] * len(clients)
        await everybody_echoes()


@pytest.mark.parametrize("policy", [None, Policy.LATEST, Policy.DROP_OLDEST])
@asynchronous
async def test_broadcast_to_who_does_not_read(policy: Policy | None) -> None:
    """What waits was compressed for many, what is held is compressed when it leaves: the windows stay true."""
    noise = random.Random(0)
    news: list[str] = []
    async with (
        serve(echo, HOST, 0) as server,
        connect(url(server), max_queue=200) as quick,
        connect(url(server), max_queue=200) as paused,
    ):
        for ws in (quick, paused):
            await ws.send(JSON)
            assert await ws.recv() == JSON
        paused.link.pause_reading()
        slow: list[ServerConnection] = []
        more = 10
        while more:
            news.append(json.dumps({"number": len(news), "noise": noise.randbytes(40_000).hex()}))
            broadcast(server.connections, news[-1], policy=policy)
            assert await quick.recv() == news[-1]
            slow = slow or [ws for ws in server.connections if ws.is_slow]
            more -= len(slow)
        paused.link.resume_reading()
        received = [await paused.recv()]
        while received[-1] != news[-1]:
            received.append(await paused.recv())
        assert received == [message for message in news if message in received]
        assert len(received) + slow[0].dropped == len(news)
        assert bool(slow[0].dropped) == (policy is not None)
        for ws in (quick, paused):
            await ws.send(JSON)
            assert await ws.recv() == JSON
