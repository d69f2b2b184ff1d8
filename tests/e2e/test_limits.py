"""The limits of one connection, on real sockets and with time moved by hand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from clocks import Clock
from e2e.tools import until
from fullduplex import (
    ClientConnection,
    Close,
    Connection,
    ConnectionClosed,
    Limits,
    Listener,
    Server,
    ServerConnection,
    broadcast,
    connect,
    serve,
)
from fullduplex.engine.engine import Engine
from peers import BINARY, CLOSE, HOST, PING, REQUEST, Frame, echo, encode, port_of, raw_client, tls, url
from support import LoopFactory, asynchronous

QUIET: dict[str, Any] = {"ping_interval": None, "compression": None}  # only what a test says is on the wire


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture(params=["handler", "listener"])
def face(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class Taking:
    """Takes all messages, and does with each what it is told to."""

    def __init__(self, face: str, take: Callable[[Connection, Any], object]) -> None:
        self.face = face
        self.take = take

    @property
    def options(self) -> dict[str, Any]:
        return {"handler": self._handle} if self.face == "handler" else {"listener": self._listener}

    async def _handle(self, ws: ServerConnection) -> None:
        try:
            async for message in ws:
                self.take(ws, message)
        except ConnectionClosed:
            pass  # by a limit; the test looks at it

    @property
    def _listener(self) -> Listener:
        take = self.take

        class Told(Listener):
            def on_message(self, ws: Connection, message: Any) -> None:
                take(ws, message)

        return Told()


def engine_of(ws: Connection) -> Engine:
    return ws.link.engine


# Rates.

COUNT, SIZE = 200, 500
MESSAGES = [bytes([n]) * (SIZE - 8) for n in range(COUNT)]  # so many bytes each, with their heads
SLOW: dict[str, tuple[Limits, float]] = {
    # The seconds that all of it takes. A second's worth may come at once.
    "bytes_per_second": (Limits(bytes_per_second=10_000), COUNT * SIZE / 10_000 - 1),
    "messages_per_second": (Limits(messages_per_second=25), COUNT / 25 - 1),
}


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("limit", SLOW)
@asynchronous
async def test_a_rate_pauses_reading(
    limit: str, face: str, secure: bool, clock: Clock, loop_factory: LoopFactory
) -> None:
    """Nothing is lost, all is in order, and the rate is kept; the peer notices that sending takes longer."""
    limits, least = SLOW[limit]
    server_context, client_context = tls() if secure else (None, None)
    came: list[bytes] = []
    taking = Taking(face, lambda _, message: came.append(message))
    async with (
        serve(**taking.options, host=HOST, port=0, ssl=server_context, limits=limits, **QUIET) as server,
        connect(url(server, "wss" if secure else "ws"), ssl=client_context, host=HOST, **QUIET) as ws,
    ):
        for message in MESSAGES:
            ws.send(message)
        start = clock.now

        def check() -> bool:
            # What is read at once, here a second's worth or 400 bytes, is all that may be over.
            passed = clock.now - start
            if limits.bytes_per_second is not None:
                assert len(came) * SIZE <= limits.bytes_per_second * (passed + 2)
            if limits.messages_per_second is not None:
                assert len(came) <= limits.messages_per_second * (passed + 1) + 1
            return len(came) == COUNT

        seconds = await clock.run_until(engine_of(ws), check)
        assert came == MESSAGES
        assert least - 1 <= seconds <= least + 1
        closing = asyncio.ensure_future(ws.close())
        await clock.run_until(engine_of(ws), closing.done)
        assert ws.close_code == 1000
        assert server.statistics().closed == {}


@pytest.mark.parametrize("limit", SLOW)
@asynchronous
async def test_a_rate_closes(limit: str, face: str, loop_factory: LoopFactory) -> None:
    """What came is taken first. The peer is told which limit it was."""
    limits = Limits(over_rate="close", **{limit: getattr(SLOW[limit][0], limit)})
    came: list[bytes] = []
    taking = Taking(face, lambda _, message: came.append(message))
    async with (
        serve(**taking.options, host=HOST, port=0, limits=limits, **QUIET) as server,
        connect(url(server), **QUIET) as ws,
    ):
        for message in MESSAGES:
            ws.send(message)
        await ws.wait_closed()
        said = {"bytes_per_second": "more than 10000 bytes", "messages_per_second": "more than 25 messages"}[limit]
        assert ws.close_exc is not None
        assert ws.close_exc.rcvd == Close(1008, f"{said} a second")
        assert 0 < len(came) < COUNT
        assert came == MESSAGES[: len(came)]
        await until(lambda: server.statistics().closed == {limit: 1})


@asynchronous
async def test_a_ping_is_answered_after_the_pause(clock: Clock, loop_factory: LoopFactory) -> None:
    """It lies behind what comes too fast; nobody's keepalive takes that for silence."""
    limits = Limits(bytes_per_second=10_000)
    keepalive: dict[str, Any] = {"ping_interval": 2, "ping_timeout": 2, "compression": None}
    async with (
        serve(echo, HOST, 0, limits=limits, **keepalive) as server,
        connect(url(server), **keepalive) as ws,
    ):
        flood = asyncio.ensure_future(send_all(ws, [bytes(1000)] * 300))
        (paused,) = server.connections
        await clock.run_until(engine_of(ws), lambda: paused.session.paused)
        pong = await ws.ping()
        assert isinstance(pong, asyncio.Future)
        for _ in range(300):
            receiving = asyncio.ensure_future(ws.recv())
            await clock.run_until(engine_of(ws), receiving.done)
            assert receiving.result() == bytes(1000)
        await flood
        assert pong.result() > 0
        ping = await ws.ping()
        assert isinstance(ping, asyncio.Future)
        assert await clock.run_until(engine_of(ws), ping.done) <= 1.1


async def send_all(ws: Connection, messages: list[bytes]) -> None:
    for message in messages:
        await ws.send(message)


# A peer that does not read.

UNSENT = 200_000
BUFFER = 16_384  # of the sockets; the rest waits in the program


class Stuck:
    """A raw client that does not read by itself."""

    def __init__(self, server: Server) -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.sock.connect((HOST, port_of(server)))
        self.sock.setblocking(False)
        self.sock.send(REQUEST)
        self.came = 0
        self.is_over = False

    def say(self, payload: bytes) -> None:
        assert self.sock.send(encode(BINARY, payload, mask=True))

    def take(self, size: int) -> None:
        try:
            data = self.sock.recv(size)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self.came += len(data)
        self.is_over = not data


@asynccontextmanager
async def meeting(**options: Any) -> AsyncIterator[tuple[Server, Stuck, ServerConnection, ClientConnection]]:
    """A server, one who does not read and what the server knows of that, and one who does."""

    def shrink(ws: ServerConnection, _request: Any) -> None:
        ws.link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)

    async with serve(host=HOST, port=0, process_request=shrink, compression=None, **options) as server:
        stuck = Stuck(server)
        try:
            await until(lambda: server.connections)
            (ws,) = server.connections
            async with connect(url(server), compression=None, ping_interval=None) as quick:
                yield server, stuck, ws, quick
        finally:
            stuck.sock.close()


@pytest.mark.parametrize("how", ["handler", "listener", "broadcast"])
@asynchronous
async def test_a_peer_that_does_not_read(how: str, clock: Clock, loop_factory: LoopFactory) -> None:
    """It is cut off in time, and what is held for it is bounded till then. Nobody else notices."""
    flooded: list[Connection] = []

    def take(ws: Connection, message: bytes) -> None:
        if message == b"flood":
            flooded.append(ws)
            message = bytes(2 * UNSENT)
        ws.send(message)

    taking = Taking("listener" if how == "listener" else "handler", take)
    limits = Limits(unsent=UNSENT, unsent_for=10)
    async with meeting(**taking.options, limits=limits) as (server, stuck, ws, quick):
        if how != "broadcast":
            stuck.say(b"flood")
            await until(lambda: flooded)
        waiting: dict[float, int] = {}
        for n in range(200):
            if how == "broadcast":
                broadcast(server.connections, bytes(5000))
                assert await quick.recv() == bytes(5000)
            waiting[clock.now] = ws.buffered_amount
            await quick.send(str(n))
            assert await quick.recv() == str(n)
            if ws.link.is_closed():
                break
            await clock.run_for(engine_of(quick), 0.5)
        too_much = [when for when, size in waiting.items() if size > UNSENT]
        assert 9.5 <= too_much[-1] - too_much[0] <= 10.5
        assert max(waiting.values()) <= (UNSENT + 11 * 2 * 5010 if how == "broadcast" else 2 * UNSENT + 10)
        assert ws.buffered_amount == 0
        error = ws.close_exc
        assert error is not None
        assert (error.who, error.code, error.sent) == ("remote", 1006, None)
        assert "the peer does not read" in str(error)
        assert server.statistics().closed == {"unsent": 1}
        await quick.send("and now?")
        assert await quick.recv() == "and now?"


@asynchronous
async def test_who_waits_to_send_is_told(clock: Clock, loop_factory: LoopFactory) -> None:
    errors: list[ConnectionClosed] = []

    async def handler(ws: ServerConnection) -> None:
        try:
            async for message in ws:
                await ws.send(bytes(2 * UNSENT) if message == b"flood" else message)
        except ConnectionClosed as error:
            errors.append(error)

    async with meeting(handler=handler, limits=Limits(unsent=UNSENT)) as (_, stuck, ws, quick):
        stuck.say(b"flood")
        await clock.run_until(engine_of(quick), lambda: errors)
        assert "the peer does not read" in str(errors[0])
        assert ws.link.is_closed()


@asynchronous
async def test_a_peer_that_reads_slowly(clock: Clock, loop_factory: LoopFactory) -> None:
    """By default a large message may take its time, longer than all timeouts: it is read, so the peer lives."""
    size = 5_000_000

    async def handler(ws: ServerConnection) -> None:
        async for _ in ws:
            await ws.send(bytes(size))

    async with meeting(handler=handler) as (server, stuck, _ws, quick):
        stuck.say(b"flood")

        def read() -> bool:
            stuck.take(4096)
            return stuck.came > size or stuck.is_over

        assert await clock.run_until(engine_of(quick), read) > 50
        assert stuck.came > size
        assert server.statistics().closed == {}


# Silence, and too much of what is no message.


@asynchronous
async def test_idle_connections(clock: Clock, loop_factory: LoopFactory) -> None:
    """Keepalive's pings are no messages; one of either side is enough."""
    async with (
        serve(echo, HOST, 0, limits=Limits(idle_timeout=60)) as server,
        connect(url(server)) as idle,
        connect(url(server)) as busy,
    ):
        start = clock.now
        while not idle.link.is_closed():
            await clock.run_for(engine_of(busy), 5)
            await busy.send(b"a")
            assert await busy.recv() == b"a"
            assert clock.now - start < 90
        assert clock.now - start >= 60
        assert idle.close_exc is not None
        assert idle.close_exc.rcvd == Close(1001, "no message for 60 s")
        assert idle.latency >= 0
        await clock.run_for(engine_of(busy), 55)
        await busy.send(b"b")
        assert await busy.recv() == b"b"
        assert server.statistics().closed == {"idle_timeout": 1}


@asynchronous
async def test_a_flood_of_pings(loop_factory: LoopFactory) -> None:
    async with serve(echo, HOST, 0) as server, connect(url(server)) as other:
        async with raw_client(server) as raw:
            await raw.head()
            for n in range(1001):
                raw.write(encode(PING, str(n).encode(), mask=True))
            answered = 0
            while (frame := await raw.frame()) is not None and frame.opcode != CLOSE:
                assert int(frame.payload) >= answered  # of those that could not be answered at once, the newest
                answered += 1
            reason = b"more than 100 control frames a second"
            assert frame == Frame(CLOSE, b"\x03\xf0" + reason)
        assert answered <= 1000
        await until(lambda: server.statistics().closed == {"control_frames_per_second": 1})
        await other.send("still there?")
        assert await other.recv() == "still there?"


@asynchronous
async def test_honest_clients_meet_no_limit(clock: Clock, loop_factory: LoopFactory) -> None:
    """An hour of much talk: many small messages, large ones, pings by the second, and long silence."""
    async with serve(echo, HOST, 0) as server, connect(url(server)) as ws:
        for n in range(60):
            messages: list[str | bytes] = [f"{n} {k}" for k in range(200)]
            messages.append(bytes(1 << 20))
            sending = asyncio.ensure_future(send_mixed(ws, messages))
            for message in messages:
                assert await ws.recv() == message
            await sending
            for _ in range(60):
                clock.now += 1
                await (await ws.ping())
        await clock.run_for(engine_of(ws), 100)
        assert await (await ws.ping()) == 0
        assert server.statistics().closed == {}


async def send_mixed(ws: Connection, messages: list[str | bytes]) -> None:
    for message in messages:
        await ws.send(message)
