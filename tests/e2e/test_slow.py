"""Peers that stop reading, and what each policy makes of it: from a handler, from a callback, through `broadcast`."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from e2e.tools import until
from fullduplex import (
    ClientConnection,
    ConnectionClosed,
    Listener,
    Policy,
    Server,
    ServerConnection,
    State,
    broadcast,
    connect,
    serve,
)
from fullduplex.api.messages import Data
from fullduplex.api.slow import OVERHEAD
from peers import CLOSE, HOST, REQUEST, TEXT, Raw, encode, port_of, url
from support import LoopFactory, asynchronous

KEYS = 7
COUNT = 60 * KEYS
SIZE = 4096
LIMIT = 32_768
BUFFER = 65_536  # of the sockets; the rest of the flood waits in the program, or goes its policy's way
FLOOD = [f"{n % KEYS} {n} ".ljust(SIZE, "x") for n in range(COUNT)]


def key_of(message: str) -> str:
    return message[0]


def shrink(ws: ServerConnection) -> None:
    ws.link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)


class Face:
    """Floods who asks for it; echoes what else is said."""

    def __init__(self) -> None:
        self.most = 0  # bytes that waited at a time
        self.flooded: ServerConnection | None = None
        self.heard = False

    def note(self, ws: ServerConnection) -> None:
        self.most = max(self.most, ws.buffered_amount)

    async def handler(self, ws: ServerConnection) -> None:
        shrink(ws)
        async for message in ws:
            if message != "flood":
                await ws.send(message)
                continue
            self.flooded = ws
            for each in FLOOD:
                sending = ws.send(each, key=key_of(each))
                self.note(ws)
                await sending
            await ws.wait_closed()  # nothing more is to be received

    @property
    def listener(self) -> Listener:
        face = self

        class Flooding(Listener):
            def on_open(self, ws: Any) -> None:
                shrink(ws)

            def on_message(self, ws: Any, message: str) -> None:
                if message != "flood":
                    face.heard = message == "go on"
                    ws.send(message)
                    return
                face.flooded = ws
                for each in FLOOD:
                    ws.send(each, key=key_of(each))
                    face.note(ws)

        return Flooding()


class Slow:
    """A raw client that does not read."""

    def __init__(self, server: Server) -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.sock.connect((HOST, port_of(server)))
        self.sock.sendall(REQUEST)
        self.sock.setblocking(False)
        self.raw: Raw | None = None

    def say(self, text: bytes) -> None:
        assert self.sock.send(encode(TEXT, text, mask=True))

    async def read(self) -> tuple[list[str], bytes]:
        """Everything, up to the goodbye, and that."""
        self.raw = Raw(*await asyncio.open_connection(sock=self.sock))
        await self.raw.head()
        messages = []
        while (frame := await self.raw.frame()) is not None and frame.opcode == TEXT:
            messages.append(frame.payload.decode())
        assert frame is not None
        assert frame.opcode == CLOSE
        self.raw.write(encode(CLOSE, frame.payload, mask=True))
        return messages, frame.payload

    def leave(self) -> None:
        if self.raw is None:
            self.sock.close()
        else:
            self.raw.writer.transport.abort()


@asynccontextmanager
async def both(**options: Any) -> AsyncIterator[tuple[Server, Slow, ClientConnection]]:
    """A server, a peer that does not read, and one that does."""
    async with serve(host=HOST, port=0, write_limit=LIMIT, **options) as server:
        slow = Slow(server)
        try:
            async with connect(url(server)) as quick:
                await until(lambda: len(server.connections) == 2)
                yield server, slow, quick
        finally:
            slow.leave()


async def check_unaffected(quick: ClientConnection) -> None:
    for n in range(20):
        await quick.send(str(n))
        assert await quick.recv() == str(n)


def check(policy: Policy, received: list[str], goodbye: bytes, dropped: int, most: int) -> None:
    """What the documentation promises."""
    numbers = [FLOOD.index(message) for message in received]
    if policy is Policy.CLOSE:
        assert goodbye == b"\x03\xf5slow consumer"
        assert numbers == list(range(len(numbers)))
        assert len(numbers) < COUNT
        assert dropped == 1
    else:
        assert goodbye[:2] == b"\x03\xe8"
        assert len(numbers) + dropped == COUNT
        if policy is Policy.LATEST:
            for key in range(KEYS):
                mine = [n for n in numbers if n % KEYS == key]
                assert mine == sorted(mine)
                assert mine[-1] == COUNT - KEYS + key
        else:
            assert numbers == sorted(numbers)
        if policy is Policy.DROP_OLDEST:
            assert numbers[-1] == COUNT - 1
    if policy is not Policy.WAIT:
        assert dropped
        held = {Policy.DROP_OLDEST: LIMIT + SIZE, Policy.LATEST: KEYS * SIZE}.get(policy, 0)
        assert most < LIMIT + 2 * (SIZE + OVERHEAD) + held


@pytest.mark.parametrize("policy", Policy)
@asynchronous
async def test_from_a_handler(policy: Policy, loop_factory: LoopFactory) -> None:
    face = Face()
    async with both(handler=face.handler, policy=policy) as (_, slow, quick):
        slow.say(b"flood")
        await until(lambda: face.flooded)
        ws = face.flooded
        assert ws is not None
        if policy is Policy.WAIT:
            await until(lambda: ws._drain_waiters)
            assert face.most < LIMIT + BUFFER
        elif policy is Policy.CLOSE:
            await until(lambda: ws.state is not State.OPEN)
        else:
            await until(lambda: ws._closed_waiters)  # all of it is sent, without waiting for anybody
        await check_unaffected(quick)
        reading = asyncio.ensure_future(slow.read())
        if policy is not Policy.CLOSE:
            await until(lambda: ws._closed_waiters)
            ws.close()
        received, goodbye = await reading
        check(policy, received, goodbye, ws.dropped, face.most)
        await ws.wait_closed()


@pytest.mark.parametrize("policy", Policy)
@asynchronous
async def test_from_a_callback(policy: Policy, loop_factory: LoopFactory) -> None:
    face = Face()
    async with both(listener=face.listener, policy=policy) as (_, slow, quick):
        slow.say(b"flood")
        await until(lambda: face.flooded)
        ws = face.flooded
        assert ws is not None
        await check_unaffected(quick)
        if policy is Policy.WAIT:
            assert ws.session.paused  # who does not read what it asked for is not asked for more
        reading = asyncio.ensure_future(slow.read())
        if policy is not Policy.CLOSE:
            await until(lambda: not ws.buffered_amount)
            slow.say(b"go on")
            await until(lambda: face.heard)
            ws.close()
        received, goodbye = await reading
        if policy is not Policy.CLOSE:
            assert received.pop() == "go on"
        check(policy, received, goodbye, ws.dropped, face.most)
        await ws.wait_closed()


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("policy", Policy)
@asynchronous
async def test_through_broadcast(policy: Policy, named: bool, loop_factory: LoopFactory) -> None:
    """The policy is the connection's own, or named for the broadcast."""
    face = Face()
    options: dict[str, Any] = {} if named else {"policy": policy}
    async with both(handler=face.handler, **options) as (server, slow, quick):
        (ws,) = (ws for ws in server.connections if ws.remote_address == slow.sock.getsockname())
        shrink(ws)
        for message in FLOOD:
            broadcast(server.connections, message, policy=policy if named else None, key=key_of(message))
            face.note(ws)
            assert await quick.recv() == message
        await check_unaffected(quick)
        assert all(other.dropped == 0 for other in server.connections if other is not ws)
        reading = asyncio.ensure_future(slow.read())
        if policy is not Policy.CLOSE:
            ws.close()  # what is held leaves before the goodbye
        received, goodbye = await reading
        check(policy, received, goodbye, ws.dropped, face.most)
        await ws.wait_closed()


@asynchronous
async def test_held_messages_are_compressed_when_they_leave(loop_factory: LoopFactory) -> None:
    """Those that were dropped must leave no trace in the compressor, whose window the peer shares."""
    numbers = random.Random(7692)
    words = [numbers.randbytes(500).hex() for _ in range(50)]

    async def handler(ws: ServerConnection) -> None:
        shrink(ws)
        await ws.wait_closed()

    async with (
        serve(handler, HOST, 0, policy=Policy.LATEST) as server,
        connect(url(server), max_queue=1) as ws,
    ):
        (peer,) = server.connections
        assert ws.session.extension is not None
        sent: dict[str, Data] = {}
        received: dict[str, Data] = {}
        count = 0
        for n in range(3000):
            key = str(n % 5)
            message = f"{key} {n} " + " ".join(numbers.sample(words, 5)) + numbers.randbytes(1000).hex()
            sent[key] = message
            if n % 3:
                peer.send(message, key=key)
            else:
                broadcast([peer], message, key=key)
            if n % 20 == 0:  # it does read, but slowly
                taken = await ws.recv(decode=True)
                received[key_of(taken)] = taken
                count += 1
        closing = asyncio.ensure_future(peer.close())
        async for each in ws:
            received[str(each)[0]] = each
            count += 1
        await closing
        assert peer.dropped
        assert received == sent
        assert count + peer.dropped == 3000


@asynchronous
async def test_a_handler_is_told_of_the_end_it_brought_about() -> None:
    ended = asyncio.get_running_loop().create_future()

    async def handler(ws: ServerConnection) -> None:
        shrink(ws)
        try:
            while True:
                await ws.send("x" * SIZE)
        except ConnectionClosed as error:
            ended.set_result(error.sent)
            raise

    async with serve(handler, HOST, 0, policy=Policy.CLOSE, close_timeout=0.1) as server:
        slow = Slow(server)
        assert await ended == (1013, "slow consumer")
        slow.leave()
