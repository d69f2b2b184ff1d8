"""Whole programs on real sockets: many at once, much at once, and peers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from fullduplex import Close, ConnectionClosed, ConnectionClosedError, ServerConnection, connect, serve
from peers import CLOSE, HOST, Raw, answer, close_frame, echo, raw_client, raw_server, tls, url
from support import LoopFactory, asynchronous, run


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Both ends of 1,000 connections are ours."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
@asynchronous
async def test_a_thousand_connections_at_once(loop_factory: LoopFactory) -> None:
    async with serve(echo, HOST, 0) as server:
        everybody = asyncio.Barrier(1000)

        async def client(number: int) -> None:
            async with connect(url(server), open_timeout=None) as ws:
                await everybody.wait()
                for message in (str(number), bytes([number & 255]) * number):
                    await ws.send(message)
                    assert await ws.recv() == message
                await everybody.wait()

        async with asyncio.TaskGroup() as group:
            for number in range(1000):
                group.create_task(client(number))


@pytest.mark.parametrize("secure", [False, True])
@asynchronous
async def test_64_mebibytes(secure: bool) -> None:
    server_context, client_context = tls() if secure else (None, None)
    message = bytes(range(256)) * 2**18
    scheme = "wss" if secure else "ws"
    async with serve(echo, HOST, 0, max_size=2**26, ssl=server_context) as server:
        uri = f"{scheme}://{HOST}:{url(server).rsplit(':', 1)[1]}"
        async with connect(uri, ssl=client_context, server_hostname="localhost", max_size=2**26) as ws:
            sending = asyncio.ensure_future(ws.send(message))
            assert await ws.recv() == message
            await sending


@asynchronous
async def test_a_message_that_is_too_large() -> None:
    async with serve(echo, HOST, 0) as server, connect(url(server)) as ws:
        with contextlib.suppress(ConnectionClosed):
            await ws.send(bytes(2**20 + 1))
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert caught.value.code == 1009


@asynchronous
async def test_a_peer_that_stops_reading(loop_factory: LoopFactory) -> None:
    stuck: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def handler(ws: ServerConnection) -> None:
        while True:
            sending = asyncio.ensure_future(ws.send(bytes(100_000)))
            await asyncio.sleep(0)
            if ws.is_slow:
                if not stuck.done():
                    stuck.set_result(ws.buffered_amount)
                await sending

    async with serve(handler, HOST, 0, close_timeout=0.1) as server, raw_client(server) as raw:
        await raw.head()
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        assert await stuck < 10_000_000
        # The server is not held up by it: its close times out.


@asynchronous
async def test_a_peer_that_never_answers_close() -> None:
    async with serve(echo, HOST, 0, close_timeout=0.1) as server, raw_client(server) as raw:
        await raw.head()
        (ws,) = server.connections
        server.close()
        frame = await raw.frame()
        assert frame is not None
        assert (frame.opcode, frame.payload) == (CLOSE, b"\x03\xe9")
        await server.wait_closed()
        error = ws.close_exc
        assert error is not None
        assert (error.code, error.sent) == (1006, Close(1001))
        assert "did not end the closing handshake" in str(error)


@asynchronous
async def test_a_peer_that_resets(loop_factory: LoopFactory) -> None:
    errors: list[ConnectionClosed] = []

    async def handler(ws: ServerConnection) -> None:
        try:
            await ws.recv()
        except ConnectionClosed as error:
            errors.append(error)
            raise

    async with serve(handler, HOST, 0) as server, raw_client(server) as raw:
        await raw.head()
        sock = raw.writer.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.reset()
        while not errors:
            await asyncio.sleep(0)
        assert errors[0].who == "network"
        assert errors[0].code == 1006
        assert "reset" in str(errors[0])
        async with connect(url(server)) as ws:
            await (await ws.ping())


@asynchronous
async def test_the_server_ends_tcp_and_the_client_waits_for_it() -> None:
    async with serve(echo, HOST, 0) as server, raw_client(server) as raw:
        await raw.head()
        raw.write(close_frame(1000, mask=True))
        frame = await raw.frame()
        assert frame is not None
        assert frame.payload == b"\x03\xe8"
        assert await raw.frame() is None  # and we have not ended our half

    ended = asyncio.Event()

    async def script(raw: Raw) -> None:
        raw.write(answer(await raw.head()) + close_frame(1000))
        assert await raw.frame() is not None
        ending = asyncio.ensure_future(raw.frame())
        await asyncio.wait([ending], timeout=0.05)
        assert not ending.done()  # the client leaves that to us
        ended.set()
        raw.writer.write_eof()
        assert await ending is None

    async with raw_server(script) as uri:
        ws = await connect(uri)
        await ws.wait_closed()
        assert ended.is_set()


@asynchronous
async def test_stopping_with_live_clients(loop_factory: LoopFactory) -> None:
    server = await serve(echo, HOST, 0)
    clients = [await connect(url(server)) for _ in range(50)]
    for ws in clients:
        await ws.send("x")
        assert await ws.recv() == "x"
    server.close()
    await server.wait_closed()
    for ws in clients:
        await ws.wait_closed()
        assert ws.close_code == 1001


@asynchronous
async def test_a_tight_loop_does_not_starve_others(loop_factory: LoopFactory) -> None:
    stop = False

    async def handler(ws: ServerConnection) -> None:
        assert ws.request is not None
        if ws.request.path == "/flood":
            while not stop:
                await ws.send(b"x" * 100)
        else:
            await echo(ws)

    async with serve(handler, HOST, 0) as server, connect(url(server) + "flood") as flood, connect(url(server)) as ws:

        async def drink() -> None:
            async for _ in flood:
                pass

        drinking = asyncio.ensure_future(drink())
        for number in range(100):
            await ws.send(str(number))
            assert await ws.recv() == str(number)
        stop = True
        await drinking


def test_loops_in_several_threads(loop_factory: LoopFactory) -> None:
    errors: list[BaseException] = []
    together = threading.Barrier(4)

    async def main() -> None:
        async with serve(echo, HOST, 0) as server:
            together.wait(30)
            async with connect(url(server)) as ws:
                for number in range(200):
                    await ws.send(str(number))
                    assert await ws.recv() == str(number)
            together.wait(30)

    def thread() -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(main())
        except BaseException as error:
            errors.append(error)

    async def all_of_them() -> None:
        threads = [threading.Thread(target=thread) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            await asyncio.to_thread(one.join)

    run(all_of_them())
    assert not errors


def test_a_loop_that_is_left_with_connections(loop_factory: LoopFactory) -> None:
    """`asyncio.run` ends, and nobody has closed anything."""

    async def main() -> None:
        server = await serve(echo, HOST, 0)
        ws = await connect(url(server))
        await ws.send("x")
        assert await ws.recv() == "x"

    run(main_without_tasks(main), loop_factory=loop_factory)


async def main_without_tasks(main: object) -> None:
    """`run` looks for tasks left behind, and a handler is one: so the loop of a thread ends here."""

    def thread() -> None:
        asyncio.run(main())  # type: ignore[operator]

    await asyncio.to_thread(thread)
