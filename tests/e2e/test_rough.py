"""Peers that reset, stop reading, stay silent, or say much at once; and tasks that are cancelled."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from e2e.tools import check_alive, raw_peer, reset, shake, until
from fullduplex import (
    Close,
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    InvalidMessage,
    Listener,
    ServerConnection,
    State,
    connect,
    serve,
)
from peers import (
    BINARY,
    CLOSE,
    HOST,
    PING,
    REQUEST,
    TEXT,
    Awaited,
    Frame,
    Raw,
    cancel_everywhere,
    close_frame,
    echo,
    encode,
    port_of,
    raw_client,
    raw_server,
    tls,
    url,
)
from support import LoopFactory, asynchronous


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def secure(request: pytest.FixtureRequest) -> bool:
    value: bool = request.param
    return value


# Peers that reset.


def check_reset(error: ConnectionClosed | None, secure: bool) -> None:
    assert error is not None
    assert error.code == 1006
    if secure and error.who == "remote":  # the ssl module of CPython takes a reset for the end of TCP
        assert "ended TCP without a close frame" in str(error)
    else:
        assert error.who == "network"
        assert "reset" in str(error)


@pytest.mark.parametrize("phase", ["accepted", "request", "open", "message", "closing", "closed"])
@asynchronous
async def test_a_client_resets(
    phase: str, secure: bool, loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    server_context, client_context = tls() if secure else (None, None)
    errors: asyncio.Queue[ConnectionClosed | None] = asyncio.Queue()

    async def handler(ws: ServerConnection) -> None:
        assert ws.request is not None
        if phase == "closing" and ws.request.path == "/":
            ws.close(4000)
        try:
            await echo(ws)
        except ConnectionClosedError:
            pass
        await ws.wait_closed()
        errors.put_nowait(ws.close_exc)

    async with serve(handler, HOST, 0, ssl=server_context) as server:
        request = {"accepted": b"", "request": REQUEST[:50]}.get(phase, REQUEST)
        async with raw_peer(server, client_context, request) as raw:
            if phase in ("accepted", "request"):
                await until(lambda: server._opening)
            else:
                await raw.head()
            if phase == "message":
                raw.write(encode(TEXT, b"x" * 100, mask=True)[:50])
            if phase == "closing":
                assert await raw.frame() == Frame(CLOSE, b"\x0f\xa0")
            if phase == "closed":
                raw.write(close_frame(1000, mask=True))
                await raw.frame()
            reset(raw)
        if phase not in ("accepted", "request"):
            error = await errors.get()
            assert error is not None
            if phase == "closed":
                assert (error.code, error.who) == (1000, "remote")
            else:
                check_reset(error, secure)
        await check_alive(server, client_context)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("phase", ["accepted", "response", "open", "message", "closing"])
@asynchronous
async def test_a_server_resets(phase: str, secure: bool, loop_factory: LoopFactory) -> None:
    server_context, client_context = tls() if secure else (None, None)

    async def script(raw: Raw) -> None:
        if phase == "response":
            await raw.head()
            raw.write(b"HTTP/1.1 101 Switching")
        elif phase != "accepted":
            await shake(raw)
            assert await raw.frame() is not None
        if phase == "message":
            raw.write(encode(TEXT, b"x" * 100)[:50])
        if phase == "closing":
            while (await raw.frame()) != Frame(CLOSE, b"\x03\xe8"):
                pass
        reset(raw)

    async with raw_server(script, server_context) as uri:
        connecting = connect(uri, ssl=client_context, server_hostname="localhost")
        if phase in ("accepted", "response"):
            with pytest.raises((ConnectionResetError, InvalidMessage) if secure else ConnectionResetError):
                await connecting
            return
        async with connecting as ws:
            ws.send("come on")
            if phase == "closing":
                await ws.close()
            else:
                with pytest.raises(ConnectionClosedError):
                    await ws.recv()
            check_reset(ws.close_exc, secure)


# A peer that stops reading.


@asynchronous
async def test_a_peer_that_stops_reading(secure: bool, loop_factory: LoopFactory) -> None:
    """Sending to it waits, and holds little; nobody else notices; it gets everything once it reads on."""
    server_context, client_context = tls() if secure else (None, None)
    count, size = 300, 65_536  # more than kernels take
    sent = most = 0

    async def handler(ws: ServerConnection) -> None:
        nonlocal sent, most
        assert ws.request is not None
        if ws.request.path != "/":
            await echo(ws)
            return
        for number in range(count):
            sending = ws.send(number.to_bytes(8, "big") + bytes(size - 8))
            sent += 1
            most = max(most, ws.buffered_amount)
            await sending

    async with serve(handler, HOST, 0, ssl=server_context, write_limit=40_000) as server:
        async with raw_peer(server, client_context) as raw:
            await raw.head()
            (slow,) = server.connections
            await until(lambda: slow.is_slow)
            scheme = "wss" if secure else "ws"
            other = f"{scheme}://localhost:{port_of(server)}/other"
            async with connect(other, ssl=client_context, host=HOST) as ws:
                before = 0
                while before != sent:  # some is still on its way when it stops reading
                    before = sent
                    for number in range(50):
                        await ws.send(str(number))
                        assert await ws.recv() == str(number)
                for number in range(200):
                    await ws.send(str(number))
                    assert await ws.recv() == str(number)
            assert (sent, slow.is_slow) == (before, True)
            assert sent < count
            for number in range(count):
                frame = await raw.reader.readexactly(10 + size)
                assert frame[:18] == encode(BINARY, bytes(size))[:10] + number.to_bytes(8, "big")
            assert await raw.frame() == Frame(CLOSE, b"\x03\xe8")
            raw.write(close_frame(1000, mask=True))
            await slow.wait_closed()
            assert slow.close_code == 1000
        assert most <= 40_000 + size + 10
        await check_alive(server, client_context)


# A peer that says much at once, and goodbye right behind it: all of it is answered first.


class Echo(Listener):
    def on_message(self, ws: Connection, message: bytes) -> None:
        ws.send(message)


async def slow_echo(ws: ServerConnection) -> None:
    async for message in ws:
        await asyncio.sleep(0)
        await ws.send(message)


BURSTS = {"2000 x 64 B": (2000, 64), "20 x 20 kB": (20, 20_000), "3 x 300 kB": (3, 300_000)}


@pytest.mark.parametrize("handler", [echo, slow_echo, Echo()], ids=["echo", "slow_echo", "listener"])
@pytest.mark.parametrize(("count", "size"), BURSTS.values(), ids=BURSTS)
@pytest.mark.parametrize(
    ("end", "code"), [(close_frame(4321, mask=True), 4321), (b"\xff\x80" + bytes(4), 1002)], ids=["close", "error"]
)
@asynchronous
async def test_a_burst_with_an_end_is_answered(
    handler: object, count: int, size: int, end: bytes, code: int, loop_factory: LoopFactory
) -> None:
    face = {"listener": handler} if isinstance(handler, Listener) else {"handler": handler}
    async with serve(**face, host=HOST, port=0) as server, raw_client(server, b"") as raw:
        message = encode(BINARY, bytes(size), mask=True)
        raw.write(REQUEST + message * count + end)
        await raw.head()
        reply = encode(BINARY, bytes(size))
        for _ in range(count):
            assert await raw.reader.readexactly(len(reply)) == reply
        frame = await raw.frame()
        assert frame is not None
        assert (frame.opcode, frame.payload[:2]) == (CLOSE, code.to_bytes(2, "big"))


@pytest.mark.parametrize(("count", "size"), BURSTS.values(), ids=BURSTS)
@asynchronous
async def test_a_client_receives_a_burst_with_an_end(count: int, size: int, loop_factory: LoopFactory) -> None:
    async def script(raw: Raw) -> None:
        await shake(raw)
        raw.write(encode(BINARY, bytes(size)) * count + close_frame(1001, "bye"))
        answers = 0
        while (frame := await raw.frame()) != Frame(CLOSE, b"\x03\xe9"):
            assert frame == Frame(TEXT, b"got it")
            answers += 1
        assert answers == count
        raw.writer.write_eof()

    async with raw_server(script) as uri, connect(uri) as ws:
        received = 0
        async for message in ws:
            assert message == bytes(size)
            received += 1
            await ws.send("got it")
        assert (received, ws.close_code, ws.close_reason) == (count, 1001, "bye")


# Cancelling.


async def converse(ws: Connection) -> None:
    """Every verb that waits, with an echoing peer."""

    async def parts() -> AsyncIterator[str]:
        yield "in "
        await asyncio.sleep(0)
        yield "parts"

    await ws.send("text")
    assert await ws.recv() == "text"
    await (await ws.ping())
    await ws.send(parts())
    assert await ws.recv(decode=False) == b"in parts"
    for _ in range(4):
        await ws.send(bytes(200_000), compress=False)
    for _ in range(4):
        assert await anext(ws) == bytes(200_000)
    await ws.send("streamed")
    assert [part async for part in ws.recv_streaming()] == ["streamed"]
    await ws.close()
    await ws.wait_closed()


@asynchronous
async def test_a_client_is_cancelled_anywhere(secure: bool, loop_factory: LoopFactory) -> None:
    server_context, client_context = tls() if secure else (None, None)
    async with serve(echo, HOST, 0, ssl=server_context) as server:

        async def once() -> None:
            uri = f"{'wss' if secure else 'ws'}://localhost:{port_of(server)}/"
            async with connect(uri, ssl=client_context, host=HOST) as ws:
                await converse(ws)

        assert await cancel_everywhere(once) >= 8
        await check_alive(server, client_context)


@asynchronous
async def test_a_handler_is_cancelled_anywhere(
    secure: bool, loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    server_context, client_context = tls() if secure else (None, None)
    attempts: list[Awaited] = []
    late: list[bool] = []

    async def handler(ws: ServerConnection) -> None:
        attempts.append(Awaited(converse(ws), len(attempts), late[-1]))
        await attempts[-1]

    async with serve(handler, HOST, 0, ssl=server_context) as server:
        for when in (False, True):
            late.append(when)
            attempts.clear()
            while not attempts or len(attempts) <= attempts[0].count:
                uri = f"{'wss' if secure else 'ws'}://localhost:{port_of(server)}/"
                async with connect(uri, ssl=client_context, host=HOST) as ws:
                    try:
                        async for message in ws:
                            await ws.send(message)
                    except ConnectionClosed:
                        pass
                    assert ws.close_code in (1000, 1001, 1011)  # the last one: in the middle of a message
            assert attempts[0].count >= 7
        await until(lambda: not server.connections and not server._handlers)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# Keepalive says what was seen.


def watch() -> tuple[asyncio.Queue[ConnectionClosed], Callable[[ServerConnection], Coroutine[Any, Any, None]]]:
    """A handler that receives once, and where it puts the error that this ends with."""
    errors: asyncio.Queue[ConnectionClosed] = asyncio.Queue()

    async def handler(ws: ServerConnection) -> None:
        try:
            await ws.recv()
        except ConnectionClosed as error:
            errors.put_nowait(error)

    return errors, handler


@asynchronous
async def test_a_silent_client(loop_factory: LoopFactory) -> None:
    errors, handler = watch()

    async with (
        serve(handler, HOST, 0, ping_interval=0.05, ping_timeout=0.05) as server,
        raw_client(server) as raw,
    ):
        await raw.head()
        error = await errors.get()
        assert (error.code, error.who) == (1006, "remote")
        assert error.sent == Close(1011, "keepalive ping timeout")
        assert re.search(r"keepalive: the peer was silent for \d\.\d s", str(error))
        frame = await raw.frame()
        assert frame is not None
        assert frame.opcode == PING
        assert await raw.frame() == Frame(CLOSE, b"\x03\xf3keepalive ping timeout")


@asynchronous
async def test_a_loop_that_was_blocked(loop_factory: LoopFactory) -> None:
    """It does not cost a peer that answers its connection; of one that does not, the error says both."""
    errors, handler = watch()

    async with (
        serve(handler, HOST, 0, ping_interval=0.1, ping_timeout=0.5) as server,
        raw_client(server) as silent,
        connect(url(server), ping_interval=None) as living,
    ):
        await silent.head()
        frame = await silent.frame()
        assert frame is not None
        assert frame.opcode == PING
        time.sleep(1.7)  # a second more than the timeout
        error = await errors.get()
        assert re.search(
            r"the peer was silent for \d\.\d s, and our own event loop was blocked for \d\.\d s of them", str(error)
        )
        await (await living.ping())
        assert living.state is State.OPEN
        assert errors.empty()
