"""What a process holds does not grow with what it has served.

    python -m e2e.soak [--messages 1000000] [--connections 100000] [--steps 10]

All that a connection can meet, over and over, client and server in one process and one loop. After each of several
equal steps nothing is open but a few connections that stay, and everything is counted. The exit status is 1 if anything
was higher at each count of the second half than at any of the first.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final

import fullduplex
from e2e.census import grown
from e2e.tools import raw_peer, reset, until
from fullduplex import (
    Connection,
    ConnectionClosed,
    InvalidHandshake,
    Listener,
    Request,
    Response,
    Server,
    ServerConnection,
    broadcast,
    connect,
    serve,
)
from fullduplex.api.host import get_engine
from fullduplex.wire.limits import UNLIMITED
from peers import BINARY, CLOSE, HOST, PING, REQUEST, TEXT, Raw, close_frame, echo, encode, tls, url

TOGETHER: Final = 8  # things that happen at the same time
BATCH: Final = 10  # messages at a time
THREADS: Final = 4
SILENT = logging.getLogger("soak")
SILENT.disabled = True
# No deadline but those of handshakes: keepalive would wake the loop at times of its own.
OPTIONS: dict[str, Any] = {"ping_interval": None, "logger": SILENT}

MESSAGES: list[str | bytes] = ["", "text", b"binary", "é" * 100, b"x" * 300]
LARGE: list[str | bytes] = ["\U0001f600" * 5000, bytes(70_000)]

BAD = [
    encode(3, mask=True),
    encode(TEXT, b"no mask"),
    encode(TEXT, b"\xff", mask=True),
    encode(TEXT, b"\xce", fin=False, mask=True) + encode(0, b"\x41", mask=True),
    encode(0, mask=True),
    encode(PING, bytes(126), mask=True),
    encode(TEXT, b"part", fin=False, mask=True) + encode(BINARY, mask=True),
    encode(BINARY | 0x40, mask=True),
    encode(CLOSE, b"\x03", mask=True),
    close_frame(1005, mask=True),
    b"\x82\xfe\x00\x01" + bytes(5),
    b"\x82\xff" + b"\xff" * 12,
    b"\x82\xff" + bytes(3) + b"\x7f" * 9,
]


class World:
    """Servers of each kind, and connections that stay."""

    def __init__(self) -> None:
        self.listening: Server
        self.handling: Server
        self.secure: Server
        self.context: ssl.SSLContext  # of a client
        self.nowhere: str  # nobody listens there
        self.talkers: list[Connection] = []
        self.listeners: list[Connection] = []

    def url(self, i: int) -> str:
        return url((self.listening, self.handling)[i % 2])

    async def quiet(self) -> None:
        """Wait until nothing is open but what stays."""
        staying = len(self.talkers) + len(self.listeners)
        servers = (self.listening, self.handling, self.secure)
        await until(lambda: sum(len(server.connections) + len(server._opening) for server in servers) == staying)
        await until(lambda: len(asyncio.all_tasks()) == 1 + len(self.handling._handlers) + len(self.secure._handlers))
        # A deadline that was not needed leaves an empty slot until its time comes.
        engine = get_engine()
        for timed in engine.wheel.due(float("inf"), engine._find):
            engine.wheel.add(timed)
        # asyncio forgets cancelled timers once there are many of them.
        for _ in range(200):
            asyncio.get_running_loop().call_later(60, print).cancel()
        await asyncio.sleep(0)


@asynccontextmanager
async def make_world() -> AsyncIterator[World]:
    new = World()
    context, new.context = tls()

    async def handler(ws: ServerConnection) -> None:
        if ws.request and ws.request.path == "/raise":
            raise ValueError
        await echo(ws)

    def refuse(ws: ServerConnection, request: Request) -> Response | None:
        return ws.respond(404, "not here") if request.path == "/404" else None

    class Echo(Listener):
        def on_message(self, ws: Any, message: Any) -> None:
            ws.send(message)

    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        deaf = stack.enter_context(socket.socket())
        deaf.bind((HOST, 0))
        new.nowhere = f"ws://{HOST}:{deaf.getsockname()[1]}/"
        options = {**OPTIONS, "process_request": refuse, "limits": UNLIMITED}  # some ping more than people do
        new.listening = await enter(serve(listener=Echo, host=HOST, port=0, **options))
        new.handling = await enter(serve(handler, HOST, 0, **options))
        new.secure = await enter(serve(handler, HOST, 0, ssl=context, **options))
        for i in range(TOGETHER):
            compression: Any = "deflate" if i % 4 > 1 else None
            new.talkers.append(await enter(connect(new.url(i), compression=compression, **OPTIONS)))
            new.listeners.append(await enter(connect(new.url(i), compression=compression, **OPTIONS)))
        yield new


# What happens with the connections that stay. No two of TOGETHER use the same one.


async def talk(world: World, i: int) -> None:
    ws = world.talkers[i % TOGETHER]
    for at in range(BATCH):
        await ws.send(LARGE[i // 512 % 2] if at == i // TOGETHER % 64 else MESSAGES[at % 5])
    for _ in range(BATCH):
        await ws.recv()


async def fragments(world: World, i: int) -> None:
    ws = world.talkers[i % TOGETHER]
    for _ in range(BATCH // 2):
        await ws.send(["two ", "and ", "three"])
        await ws.send(iter([b"1", b"", b"x" * 500]))
    for _ in range(BATCH // 2):
        assert [part async for part in ws.recv_streaming()]
        assert await ws.recv()


async def pings(world: World, i: int) -> None:
    ws = world.talkers[i % TOGETHER]
    for _ in range(BATCH // 2):
        await (await ws.ping())
        await ws.pong(b"unasked")


async def cancelled_receive(world: World, i: int) -> None:
    """Half of them at a moment when the message is there."""
    ws = world.talkers[i % TOGETHER]
    for at in range(BATCH):
        task = asyncio.ensure_future(_receive(ws))
        await asyncio.sleep(0)
        if at % 2:
            await ws.send("it comes")
            await (await ws.ping())
        task.cancel()
        await asyncio.wait([task])
        if at % 2 and task.cancelled():
            await ws.recv()


async def _receive(ws: Connection) -> Any:
    return await ws.recv()


async def to_all(world: World, i: int) -> None:
    """Clients are as good as servers here."""
    if i % TOGETHER:
        return
    for at in range(BATCH):
        broadcast(world.listeners, MESSAGES[at % 5])
    for ws in world.listeners:
        for _ in range(BATCH):
            await ws.recv()


# What happens with others.


async def visit(world: World, i: int) -> None:
    async with connect(world.url(i), compression="deflate" if i % 4 > 1 else None, **OPTIONS) as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"
        if i % 3 == 0:
            await ws.close(4000 + i % 7, "a reason")


async def leave_unread(world: World, i: int) -> None:
    async with connect(world.url(i), **OPTIONS) as ws:
        for message in MESSAGES + LARGE:
            ws.send(message)
        if i % 2:
            await (await ws.ping())


async def wait_for_the_end(world: World, i: int) -> None:
    """With a receive that waits, and a ping whose pong does not come."""
    async with connect(world.url(i), **OPTIONS) as ws:
        task = asyncio.ensure_future(_receive(ws))
        await asyncio.sleep(0)
        await ws.ping()
        await ws.close()
        try:
            await task
        except ConnectionClosed:
            return
        raise AssertionError("it was closed")


async def see_it_fail(world: World, i: int) -> None:
    """The handler raises."""
    async with connect(url(world.handling) + "raise", **OPTIONS) as ws:
        await ws.wait_closed()
        assert ws.close_code == 1011


async def break_a_rule(world: World, i: int) -> None:
    async with raw(world, i) as peer:
        await peer.head()
        peer.write(encode(TEXT, b"good", mask=True) + BAD[i % len(BAD)])
        assert await peer.frame() == (TEXT, b"good", True)
        assert (frame := await peer.frame()) is not None
        assert frame.opcode == CLOSE


async def abort(world: World, i: int) -> None:
    """In the opening handshake, in a frame, in a message."""
    async with raw(world, i, REQUEST[: i % 2 * 20 or None]) as peer:
        if i % 2 == 0:
            await peer.head()
            peer.write(encode(TEXT, b"x" * 200, mask=True)[: 100 * (i % 3)] + encode(TEXT, b"x", i % 4 == 0, mask=True))
        if i % 3:
            reset(peer)


async def be_refused(world: World, i: int) -> None:
    requests = [
        b"nonsense\r\n\r\n",
        REQUEST.replace(b": 13", b": 12"),
        REQUEST.replace(b"GET / ", b"GET /404 "),
        REQUEST.replace(b"Host: localhost", b"Host: localhost\r\nOrigin: http://elsewhere"),
        bytes(20_000),
    ]
    async with raw(world, i, requests[i % len(requests)]) as peer:
        await read_all(peer)


async def fail_to_connect(world: World, i: int) -> None:
    """Refused by HTTP, refused by TCP, not TLS at all."""
    target = (world.url(i) + "404", world.nowhere, url(world.handling, "wss"))[i % 3]
    try:
        await connect(target, ssl=world.context if i % 3 == 2 else None, **OPTIONS)
    except (InvalidHandshake, OSError):
        return
    raise AssertionError("it was refused")


async def change_ones_mind(world: World, i: int) -> None:
    """Cancelled at any time."""
    task = asyncio.ensure_future(_enter(world, i))
    for _ in range(i % 12):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def _enter(world: World, i: int) -> None:
    async with connect(world.url(i), **OPTIONS) as ws:
        await ws.send("in time")
        await ws.recv()


async def visit_over_tls(world: World, i: int) -> None:
    async with connect(url(world.secure, "wss"), ssl=world.context, host=HOST, **OPTIONS) as ws:
        for message in MESSAGES + LARGE:
            await ws.send(message)
            assert await ws.recv() == message


async def break_tls(world: World, i: int) -> None:
    async with raw_peer(world.secure, None) as peer:
        if i % 2:
            reset(peer)
        else:
            await read_all(peer)


def raw(world: World, i: int, request: bytes = REQUEST) -> AbstractAsyncContextManager[Raw]:
    return raw_peer((world.listening, world.handling)[i % 2], None, request)


async def read_all(peer: Raw) -> None:
    try:
        await peer.reader.read()
    except ConnectionError:
        pass  # not all of what it sent was read


Thing = Callable[[World, int], Awaitable[None]]
# The things, and how many of a hundred are such ones.
WITH_MESSAGES: dict[Thing, int] = {talk: 70, fragments: 10, pings: 5, cancelled_receive: 5, to_all: 10}
WITH_CONNECTIONS: dict[Thing, int] = {
    visit: 36,
    leave_unread: 8,
    wait_for_the_end: 8,
    see_it_fail: 4,
    break_a_rule: 16,
    abort: 12,
    be_refused: 6,
    fail_to_connect: 4,
    change_ones_mind: 4,
    visit_over_tls: 1,
    break_tls: 1,
}


async def do(world: World, things: dict[Thing, int], count: int) -> None:
    """Do so many of them, each kind in its turn."""
    for thing, share in things.items():
        for start in range(0, count * share // 100, TOGETHER):
            await asyncio.gather(*(thing(world, i) for i in range(start, start + TOGETHER)))


async def fill_executor() -> None:
    """Have all the threads that the loop will ever have: each is a few objects, and begins when it is needed."""
    everybody = threading.Barrier(THREADS)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS))
    await asyncio.gather(*(asyncio.to_thread(everybody.wait, 30) for _ in range(THREADS)))


async def soak(
    messages: int, connections: int, steps: int, say: Callable[[Counter[str]], object] = len
) -> dict[str, int]:
    """Do everything so often; return what has grown."""
    await fill_executor()
    async with make_world() as world:

        async def step() -> None:
            await do(world, WITH_MESSAGES, messages // BATCH // steps)
            await do(world, WITH_CONNECTIONS, connections // steps)
            await world.quiet()

        return await grown(step, steps, say)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    began = time.monotonic()

    def say(now: Counter[str]) -> None:
        sums = Counter({what: now[what] for what in ("blocks", "descriptors", "KiB resident")})
        for what, count in now.items():
            sums[what.partition(":")[0]] += 0 if what in sums else count
        print(f"{time.monotonic() - began:6.1f} s", *(f"{sums[what]:8} {what}" for what in sorted(sums)), flush=True)

    print(f"{fullduplex.build_info()['form']}, CPython {sys.version.split()[0]}")
    found = asyncio.run(soak(options.messages, options.connections, options.steps, say))
    for what, count in found.items():
        print(f"grown by {count}: {what}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
