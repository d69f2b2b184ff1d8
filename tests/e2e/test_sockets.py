"""Whole programs on real sockets: many at once, much at once, and peers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from e2e.tools import shake
from fullduplex import Close, ConnectionClosed, ConnectionClosedError, ServerConnection, connect, serve
from peers import CLOSE, HOST, REQUEST, Raw, close_frame, echo, raw_client, raw_server, tls, url
from support import LoopFactory, asynchronous, open_descriptors


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
    message = random.Random(0).randbytes(2**26)
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
        await shake(raw)
        raw.write(close_frame(1000))
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
    """Whatever each handler is at: receiving, waiting for its client to read, closing, or something else."""
    ended: set[str] = set()
    slow = asyncio.Event()

    async def handler(ws: ServerConnection) -> None:
        assert ws.request is not None
        try:
            match ws.request.path:
                case "/echo":
                    await echo(ws)
                case "/flood":
                    while True:
                        sending = ws.send(bytes(100_000), compress=False)
                        if ws.is_slow:
                            slow.set()
                        await sending
                case _:
                    await ws.wait_closed()
                    await asyncio.sleep(0)
        finally:
            ended.add(ws.id.hex)

    server = await serve(handler, HOST, 0)
    clients = [await connect(url(server) + "echo") for _ in range(50)]
    clients += [await connect(url(server) + "other") for _ in range(10)]
    unread = [await connect(url(server) + "flood", max_queue=1) for _ in range(2)]
    for ws in clients[:50]:
        await ws.send("x")
        assert await ws.recv() == "x"
    await slow.wait()
    served = {ws.id.hex for ws in server.connections}
    server.close()
    for ws in unread:
        async for _ in ws:
            pass
    await server.wait_closed()
    assert len(served) == 62
    assert ended == served
    for ws in clients + unread:
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


@asynchronous
async def test_a_task_that_sends_without_a_limit_lets_others_run(loop_factory: LoopFactory) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def script(raw: Raw) -> None:
        await shake(raw)
        await asyncio.Event().wait()  # reads nothing

    async with raw_server(script) as uri:
        ws = await connect(uri, write_limit=None)
        while not ws.session.blocked:
            await ws.send(bytes(65_536))
        task = asyncio.ensure_future(other())
        for _ in range(100):
            await ws.send(bytes(65_536))
        assert turns >= 100
        task.cancel()
        ws.link.abort("local", "enough")


def test_loops_in_several_threads(loop_factory: LoopFactory) -> None:
    """Each with a server, and a client of the next one's."""
    count = 4
    errors: list[BaseException] = []
    together = threading.Barrier(count)
    uris = [""] * count

    async def main(number: int) -> None:
        async with serve(echo, HOST, 0) as server:
            uris[number] = url(server)
            together.wait(30)
            async with connect(uris[(number + 1) % count]) as ws:
                for message in map(str, range(200)):
                    await ws.send(message)
                    assert await ws.recv() == message
            # The loop goes on meanwhile: it serves another thread.
            await asyncio.to_thread(together.wait, 30)

    def thread(number: int) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(asyncio.wait_for(main(number), 30))
        except BaseException as error:
            errors.append(error)
            together.abort()

    before = open_descriptors()
    threads = [threading.Thread(target=thread, args=(number,)) for number in range(count)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not errors
    assert open_descriptors() == before


def test_a_loop_that_is_left_with_connections(loop_factory: LoopFactory) -> None:
    """A program ends and has closed nothing: its peers are told, and no descriptor is left."""
    before = open_descriptors()
    kept: list[object] = []

    async def main(listening: socket.socket) -> None:
        server = await serve(echo, sock=listening)
        ws = await connect(url(server))
        await ws.send("x")
        assert await ws.recv() == "x"
        while len(server.connections) < 2:
            await asyncio.sleep(0)
        kept.extend((server, ws))

    listening = socket.create_server((HOST, 0))
    with socket.create_connection(listening.getsockname()) as peer:
        peer.sendall(REQUEST)
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main(listening))
        peer.settimeout(10)
        with peer.makefile("rb") as stream:
            assert stream.read().endswith(b"\r\n\r\n\x88\x02\x03\xe9")
    assert open_descriptors() == before
