"""The transfer-rate extension between real sockets, with time moved by hand: each side is sent to as it wants."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from clocks import Clock
from e2e.tools import shake, until
from fullduplex import (
    Close,
    Connection,
    ConnectionClosed,
    Listener,
    Policy,
    ServerConnection,
    broadcast,
    connect,
    serve,
)
from fullduplex.extensions import TransferRate
from fullduplex.wire.rate import BURST, HEAD
from peers import HOST, TEXT, Frame, Raw, close_frame, echo, encode, pair, raw_client, raw_server, tls, url
from support import LoopFactory, asynchronous

RATE = 20_000  # bytes a second
HEADER = "Sec-WebSocket-Extensions"
QUIET: dict[str, Any] = {"ping_interval": None, "compression": None}  # only what a test says is on the wire


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def wants(receive: int | None = None, **options: Any) -> dict[str, Any]:
    """The options of a side that wants to be sent so many bytes a second."""
    return {**QUIET, "extensions": [TransferRate(receive)], **options}


def said(ws: Connection) -> tuple[str | None, str | None]:
    """What both sides said of extensions."""
    assert ws.request is not None
    assert ws.response is not None
    return ws.request.headers.get(HEADER), ws.response.headers.get(HEADER)


class Taker:
    """Takes messages as they come, and sees to it that they come no faster than they may."""

    def __init__(self, clock: Clock, ws: Connection, rate: float) -> None:
        self.clock = clock
        self.rate = rate
        self.start = clock.now
        self.messages: list[Any] = []
        self.parts = 0
        self.size = 0
        self.task = asyncio.ensure_future(self._take(ws))

    async def _take(self, ws: Connection) -> None:
        while True:
            message: Any = None
            try:
                async for part in ws.recv_streaming():
                    self.parts += 1
                    self.size += len(part)
                    message = part if message is None else message + part
            except ConnectionClosed:
                return
            self.messages.append(b"" if message is None else message)
            assert self.size <= self.rate * (self.clock.now - self.start + BURST)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@asynchronous
async def test_both_directions(secure: bool, clock: Clock, loop_factory: LoopFactory) -> None:
    """Each at its own rate, at the same time. What had to be cut comes whole, and in order."""
    numbers = random.Random(1)
    messages = [numbers.randbytes(size) for size in (0, 1, 125, 300, 5000, 100_000, 7, 65_536, 2)]
    total = sum(len(message) + HEAD for message in messages)
    server_context, client_context = tls() if secure else (None, None)
    client = wants(RATE, ssl=client_context, host=HOST)
    opened: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()

    async def handler(ws: ServerConnection) -> None:
        opened.set_result(ws)
        await ws.wait_closed()

    async with (
        serve(handler, HOST, 0, **wants(3 * RATE, ssl=server_context)) as server,
        connect(url(server, "wss" if secure else "ws"), **client) as ws,
    ):
        peer = await opened
        assert said(ws) == said(peer) == ("transfer-rate; receive=20000", "transfer-rate; receive=60000")
        down, up = Taker(clock, ws, RATE), Taker(clock, peer, 3 * RATE)
        sending = [asyncio.ensure_future(send_all(side, messages)) for side in (ws, peer)]
        seconds = await clock.run_until(ws.link.engine, lambda: len(up.messages) == len(messages))
        assert total / (3 * RATE) - BURST <= seconds <= 1.1 * total / (3 * RATE)
        seconds += await clock.run_until(ws.link.engine, lambda: len(down.messages) == len(messages))
        assert total / RATE - BURST <= seconds <= 1.1 * total / RATE
        assert up.messages == down.messages == messages
        assert up.parts > len(messages)
        assert down.parts > up.parts
        await asyncio.gather(*sending)
        closing = asyncio.ensure_future(ws.close())
        await clock.run_until(ws.link.engine, closing.done)
        await asyncio.gather(down.task, up.task)
        assert ws.close_code == peer.close_code == 1000


async def send_all(ws: Connection, messages: list[Any]) -> None:
    for message in messages:
        await ws.send(message)


@asynchronous
async def test_one_direction(clock: Clock, loop_factory: LoopFactory) -> None:
    async with pair(wants(RATE), **wants()) as (ws, peer):
        assert said(ws) == ("transfer-rate; receive=20000", "transfer-rate")
        for _ in range(10):  # without a moment passing
            await ws.send(bytes(10 * RATE))
            assert await peer.recv() == bytes(10 * RATE)
        await peer.send(bytes(RATE))
        receiving = asyncio.ensure_future(ws.recv())
        assert await clock.run_until(ws.link.engine, receiving.done) >= 1 - BURST


@asynchronous
async def test_sending_waits(clock: Clock, loop_factory: LoopFactory) -> None:
    """`await ws.send` waits as for a slow reader: at most `write_limit` bytes and one message wait in the program."""
    sent: list[int] = []
    size, count = 1000, 100

    async def handler(ws: ServerConnection) -> None:
        for n in range(count):
            await ws.send(n.to_bytes(size, "big"))
            sent.append(n)

    async with (
        serve(handler, HOST, 0, write_limit=4000, **wants()) as server,
        connect(url(server), **wants(RATE)) as ws,
    ):
        taker = Taker(clock, ws, RATE)
        (peer,) = server.connections

        def check() -> bool:
            assert len(sent) * size <= RATE * (clock.now - taker.start + BURST) + 4000 + size
            assert peer.buffered_amount <= 4000 + size + HEAD
            return len(taker.messages) == count

        await clock.run_until(ws.link.engine, check)
        await taker.task
        assert [int.from_bytes(message, "big") for message in taker.messages] == list(range(count))


@asynchronous
async def test_the_end_of_a_connection_ends_waiting(clock: Clock, loop_factory: LoopFactory) -> None:
    async with pair(wants(RATE), **wants()) as (ws, peer):
        sending = asyncio.ensure_future(send_all(peer, [bytes(10 * RATE)] * 2))
        await until(lambda: peer.is_slow)
        ws.link.abort("local", "test")
        with pytest.raises(ConnectionClosed):
            await sending
        assert peer.buffered_amount == 0


@asynchronous
async def test_pings_between_the_fragments_of_a_message(clock: Clock, loop_factory: LoopFactory) -> None:
    async with pair(wants(RATE), **wants(RATE)) as (ws, peer):
        for side in (ws, peer):
            side.send(bytes(3 * RATE))
        receiving: asyncio.Future[Any] = asyncio.gather(ws.recv(), peer.recv())
        pings = 0
        while not receiving.done():
            for side in (ws, peer):
                assert await (await side.ping()) == 0  # seconds
                pings += 1
            await clock.run_for(ws.link.engine, 0.1)
        assert pings > 20
        assert receiving.result() == [bytes(3 * RATE)] * 2


@pytest.mark.parametrize("closes", ["server", "client"])
@asynchronous
async def test_closing_sends_what_waits_first(closes: str, clock: Clock, loop_factory: LoopFactory) -> None:
    """Whoever closes: messages of both sides are on their way, and none is lost, however short `close_timeout` is."""
    options = wants(RATE, close_timeout=1.0)
    async with pair(options, **options) as (ws, peer):
        first, second = (ws, peer) if closes == "client" else (peer, ws)
        for n in range(5):
            first.send(bytes([n]) * RATE)
        taker = Taker(clock, second, RATE)
        closing = asyncio.ensure_future(first.close(1000, "bye"))
        seconds = await clock.run_until(ws.link.engine, closing.done)
        assert 5 - BURST <= seconds <= 5.5
        await taker.task
        assert taker.messages == [bytes([n]) * RATE for n in range(5)]
        for side in (ws, peer):
            assert side.close_exc is not None
            assert {side.close_exc.rcvd, side.close_exc.sent} == {Close(1000, "bye"), Close(1000)}


@asynchronous
async def test_who_says_goodbye_need_not_wait_for_the_rest(clock: Clock, loop_factory: LoopFactory) -> None:
    async with pair(wants(RATE), **wants(RATE)) as (ws, peer):
        taker = Taker(clock, ws, RATE)
        for n in range(3):
            peer.send(bytes([n]) * RATE)
        await until(lambda: taker.parts)
        closing = asyncio.ensure_future(ws.close())
        seconds = await clock.run_until(ws.link.engine, closing.done)
        assert seconds < 1
        await taker.task
        assert taker.messages == []
        assert ws.close_code == peer.close_code == 1000


@asynchronous
async def test_a_listener_that_echoes(clock: Clock, loop_factory: LoopFactory) -> None:
    """It cannot wait, so it is not asked for more than can be answered: little is held, and nothing lost."""

    class Echo(Listener):
        def on_message(self, ws: Connection, message: Any) -> None:
            ws.send(message)

    count, size = 200, 1000
    async with (
        serve(listener=Echo(), host=HOST, port=0, **wants()) as server,
        connect(url(server), **wants(RATE)) as ws,
    ):
        (peer,) = server.connections
        sending = asyncio.ensure_future(send_all(ws, [n.to_bytes(size, "big") for n in range(count)]))
        taker = Taker(clock, ws, RATE)
        most = 0

        def check() -> bool:
            nonlocal most
            most = max(most, peer.buffered_amount)
            return len(taker.messages) == count

        await clock.run_until(ws.link.engine, check)
        assert [int.from_bytes(message, "big") for message in taker.messages] == list(range(count))
        assert peer.settings.write_high < most < count * size
        await sending
        ws.close()
        await taker.task


@asynchronous
async def test_a_listener_that_tells_everybody(clock: Clock, loop_factory: LoopFactory) -> None:
    """What is said to the connection that is served just now must not wait for its next deadline."""

    class Chat(Listener):
        def on_message(self, ws: Connection, message: Any) -> None:
            assert isinstance(ws, ServerConnection)
            broadcast(ws.server.connections, message)

    async with (
        serve(listener=Chat(), host=HOST, port=0, **wants()) as server,
        connect(url(server), **wants(RATE)) as paced,
        connect(url(server), **wants()) as unpaced,
        connect(url(server), **QUIET) as plain,
    ):
        everybody = (paced, unpaced, plain)
        for ws in everybody:
            await ws.send("hello")
            for each in everybody:
                assert await each.recv() == "hello"


@asynchronous
async def test_slow_by_its_own_wish(clock: Clock, loop_factory: LoopFactory) -> None:
    """Policies hold for a peer that wants its bytes slowly as for one that takes them slowly."""
    async with pair(wants(RATE), policy=Policy.LATEST, **wants()) as (ws, peer):
        taker = Taker(clock, ws, RATE)
        for n in range(1000):
            broadcast([peer], f"{n}".ljust(1000), key="a")
            if n % 100 == 0:
                await clock.run_for(ws.link.engine, 0.1)
        assert peer.dropped > 500
        await clock.run_until(ws.link.engine, lambda: not peer.buffered_amount)
        await until(lambda: len(taker.messages) == 1000 - peer.dropped)
        assert taker.messages[-1] == "999".ljust(1000)
        ws.close()
        await taker.task


@asynchronous
async def test_with_compression(clock: Clock, loop_factory: LoopFactory) -> None:
    """The rate is that of the bytes on the wire."""
    numbers = random.Random(2)
    words = [numbers.randbytes(3).hex() for _ in range(500)]
    messages = [" ".join(numbers.choices(words, k=1000)) for _ in range(20)]
    total = sum(map(len, messages))
    options = wants(RATE) | {"compression": "deflate"}
    async with pair(options, **options) as (ws, peer):
        offer, answer = said(ws)
        assert offer is not None
        assert answer is not None
        assert [part.split(";")[0] for part in answer.split(", ")] == ["permessage-deflate", "transfer-rate"]
        sending = asyncio.ensure_future(send_all(peer, messages))
        receiving = asyncio.ensure_future(take(ws, len(messages)))
        seconds = await clock.run_until(ws.link.engine, receiving.done)
        assert receiving.result() == messages
        assert 1 < seconds < total / RATE / 2
        await sending
        broadcast([peer], messages[0])  # a compressor of its own
        await peer.send(messages[1])
        receiving = asyncio.ensure_future(take(ws, 2))
        await clock.run_until(ws.link.engine, receiving.done)
        assert receiving.result() == messages[:2]


async def take(ws: Connection, count: int) -> list[Any]:
    return [await ws.recv() for _ in range(count)]


# Peers that do not know it.


@asynchronous
async def test_a_client_that_does_not_know_it(clock: Clock, loop_factory: LoopFactory) -> None:
    websockets = pytest.importorskip("websockets")
    async with (
        serve(echo, HOST, 0, extensions=[TransferRate(RATE)]) as server,
        websockets.connect(url(server), proxy=None) as ws,
    ):
        (ours,) = server.connections
        assert "transfer-rate" not in ws.response.headers.get(HEADER, "")
        check_not_paced(ours)
        await ws.send(bytes(10 * RATE))
        assert await ws.recv() == bytes(10 * RATE)


@asynchronous
async def test_a_server_that_does_not_know_it(clock: Clock, loop_factory: LoopFactory) -> None:
    websockets = pytest.importorskip("websockets")

    async def handler(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    async with websockets.serve(handler, HOST, 0) as server:
        uri = f"ws://{HOST}:{server.sockets[0].getsockname()[1]}/"
        async with connect(uri, extensions=[TransferRate(RATE)]) as ours:
            check_not_paced(ours)
            await ours.send(bytes(10 * RATE))
            assert await ours.recv() == bytes(10 * RATE)


def check_not_paced(ours: Connection) -> None:
    _, answer = said(ours)
    assert "transfer-rate" not in (answer or "")
    assert not ours.link.is_blocked()


@asynchronous
async def test_raw_peers_that_do_not_know_it(clock: Clock, loop_factory: LoopFactory) -> None:
    text = b"x" * 50_000
    async with serve(echo, HOST, 0, **wants(RATE)) as server, raw_client(server) as raw:
        assert HEADER.encode() not in await raw.head()
        raw.write(encode(TEXT, text, mask=True))
        assert await raw.frame() == Frame(TEXT, text)
        raw.write(close_frame(1000, mask=True))
        await raw.frame()

    async def script(raw: Raw) -> None:
        await shake(raw)
        frame = await raw.frame()
        assert frame == Frame(TEXT, text)
        raw.write(encode(TEXT, text) + close_frame(1000))
        await raw.frame()

    async with raw_server(script) as uri, connect(uri, **wants(RATE)) as ws:
        await ws.send(text.decode())
        assert await ws.recv() == text.decode()
        await ws.wait_closed()
        assert ws.close_code == 1000
