"""The callback face."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
import tracemalloc
from typing import Any

import pytest

from fullduplex import Connection, ConnectionClosed, ConnectionClosedError, Listener, connect, serve
from peers import BINARY, CLOSE, HOST, REQUEST, TEXT, Frame, close_frame, echo, encode, raw_client, url
from support import SPARES, LoopFactory, asynchronous, empty_spares


class Recorder(Listener):
    """Answers, and keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.closed = asyncio.Event()

    def on_open(self, ws: Connection) -> None:
        self.told.append(("open",))
        ws.send("hello")

    def on_message(self, ws: Connection, message: Any) -> None:
        self.told.append(("message", message))
        ws.send(message)

    def on_close(self, ws: Connection, code: int, reason: str) -> None:
        self.told.append(("close", code, reason))
        self.closed.set()


@asynchronous
async def test_server(loop_factory: LoopFactory) -> None:
    recorder = Recorder()
    async with serve(listener=recorder, host=HOST, port=0) as server:
        async with connect(url(server)) as ws:
            assert await ws.recv() == "hello"
            for message in ("text", b"bytes", ""):
                await ws.send(message)
                assert await ws.recv() == message
            await ws.close(4000, "bye")
        await recorder.closed.wait()
    messages = [("message", "text"), ("message", b"bytes"), ("message", "")]
    assert recorder.told == [("open",), *messages, ("close", 4000, "bye")]


@asynchronous
async def test_client_and_one_listener_for_each_connection(loop_factory: LoopFactory) -> None:
    made: list[Recorder] = []

    def make() -> Recorder:
        made.append(Recorder())
        return made[-1]

    async def handler(ws: Connection) -> None:
        assert await ws.recv() == "hello"
        await ws.send("1")
        assert await ws.recv() == "1"

    async with serve(handler, HOST, 0) as server:
        for _ in range(2):
            ws = await connect(url(server), listener=make)
            await ws.wait_closed()
    assert [recorder.told for recorder in made] == [[("open",), ("message", "1"), ("close", 1000, "")]] * 2

    made.clear()
    async with serve(listener=make, host=HOST, port=0) as server, connect(url(server)), connect(url(server)):
        pass
    assert len(made) == 2


@asynchronous
async def test_the_base_class_listens_to_nothing() -> None:
    async with serve(listener=Listener, host=HOST, port=0) as server, connect(url(server), listener=Listener()) as ws:
        await ws.send("x")
        await (await ws.ping())


@asynchronous
async def test_nothing_is_heard_after_close() -> None:
    heard: list[str] = []

    class Once(Listener):
        def on_message(self, ws: Connection, message: Any) -> None:
            heard.append(message)
            ws.close(4000)

    async with serve(listener=Once, host=HOST, port=0) as server, raw_client(server) as raw:
        await raw.head()
        raw.write(encode(TEXT, b"1", mask=True) + encode(TEXT, b"2", mask=True))
        assert await raw.frame() == Frame(CLOSE, b"\x0f\xa0")
        raw.write(encode(TEXT, b"3", mask=True))
        raw.write(encode(TEXT, b"4", mask=True) + close_frame(4000, mask=True))
        assert await raw.frame() is None
    assert heard == ["1"]


@asynchronous
async def test_what_is_glued_to_the_request_is_heard_after_on_open() -> None:
    recorder = Recorder()
    glued = REQUEST + encode(TEXT, b"1", mask=True) + encode(3, mask=True)
    async with serve(listener=recorder, host=HOST, port=0) as server, raw_client(server, glued) as raw:
        await raw.head()
        assert [await raw.frame(), await raw.frame()] == [Frame(TEXT, b"hello"), Frame(TEXT, b"1")]
        frame = await raw.frame()
        assert frame is not None
        assert frame.payload[:2] == b"\x03\xea"
        assert await raw.frame() is None
    assert recorder.told[:2] == [("open",), ("message", "1")]


@asynchronous
async def test_memory_of_what_it_has_not_kept_is_used_again() -> None:
    """Of all messages of a read, also of the last one."""

    class Acknowledges(Listener):
        def on_message(self, ws: Connection, message: bytes) -> None:
            ws.send(message[:1])

    size = 20_000
    empty_spares()
    tracemalloc.start()
    try:
        async with serve(listener=Acknowledges, host=HOST, port=0) as server, raw_client(server) as raw:
            await raw.head()
            for i in range(3):
                first, second = bytes([i]), bytes([255 - i])
                raw.write(encode(BINARY, first * size, mask=True) + encode(BINARY, second * size, mask=True))
                assert [await raw.frame(), await raw.frame()] == [Frame(BINARY, first), Frame(BINARY, second)]
            traces = tracemalloc.take_snapshot().traces
    finally:
        tracemalloc.stop()
    assert [trace.size for trace in traces].count(sys.getsizeof(bytes(size))) == (2 if SPARES else 0)


@pytest.mark.parametrize("method", ["on_open", "on_message"])
@asynchronous
async def test_one_that_raises_closes_its_connection(method: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*args: object) -> None:
        raise ValueError("a mistake")

    recorder = Recorder()
    async with serve(listener=lambda: recorder, host=HOST, port=0) as server:
        setattr(recorder, method, fail)
        async with connect(url(server)) as ws:
            await ws.send("x")
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await ws.recv()
            assert ws.close_code == 1011
        await recorder.closed.wait()
        assert recorder.told[-1][0] == "close"
        (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert record.exc_info is not None
        assert "a mistake" in str(record.exc_info[1])
        setattr(recorder, method, lambda *args: None)
        async with connect(url(server)) as ws:
            await (await ws.ping())


@asynchronous
async def test_one_that_raises_in_the_midst_hears_no_more() -> None:
    heard: list[str] = []
    left: list[object] = []

    class Fails(Listener):
        def on_message(self, ws: Connection, message: str) -> None:
            heard.append(message)
            if message == "2":
                raise ValueError("a mistake")

        def on_close(self, ws: Connection, code: int, reason: str) -> None:
            left.extend((ws.session.inbox, ws.session.inbox_size))

    data = REQUEST + b"".join(encode(TEXT, text, mask=True) for text in (b"1", b"2", b"3"))
    async with serve(listener=Fails, host=HOST, port=0) as server, raw_client(server, data) as raw:
        await raw.head()
        frame = await raw.frame()
        assert frame is not None
        assert (frame.opcode, frame.payload[:2]) == (CLOSE, b"\x03\xf3")
        raw.write(close_frame(1011, mask=True))
        assert await raw.frame() is None
    assert heard == ["1", "2"]
    assert left == [None, 0]


@asynchronous
async def test_on_close_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(Listener):
        def on_close(self, ws: Connection, code: int, reason: str) -> None:
            raise ValueError

    async with serve(listener=Wrong, host=HOST, port=0) as server:
        async with connect(url(server)):
            pass
        await server.connections.pop().wait_closed() if server.connections else None
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == ["listener failed"]


@asynchronous
async def test_a_factory_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Listener:
        raise ValueError("no listener")

    async with serve(listener=fail, host=HOST, port=0) as server, connect(url(server)) as ws:
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert caught.value.code == 1011
    assert "cannot make a listener" in caplog.text
    async with serve(echo, HOST, 0) as server:
        with pytest.raises(ValueError, match="no listener"):
            await connect(url(server), listener=fail)


@asynchronous
async def test_a_handshake_that_fails_is_not_heard_of() -> None:
    recorder = Recorder()
    async with serve(listener=recorder, host=HOST, port=0, origins=[]) as server:
        with pytest.raises(Exception, match="403"):
            await connect(url(server), origin="http://example.com", listener=recorder)
    assert recorder.told == []


def test_callbacks_are_plain_functions() -> None:
    class Wrong(Listener):
        async def on_message(self, ws: Connection, message: Any) -> None:  # type: ignore[override]
            pass

    for listener in (Wrong, Wrong()):
        with pytest.raises(TypeError, match="plain function"):
            serve(listener=listener)
        with pytest.raises(TypeError, match="plain function"):
            connect("ws://localhost/", listener=listener)


@asynchronous
async def test_a_slow_peer_is_seen(loop_factory: LoopFactory) -> None:
    slow = asyncio.Event()

    class Flood(Listener):
        def on_open(self, ws: Connection) -> None:
            while not ws.is_slow:
                ws.send(bytes(100_000))
            assert ws.buffered_amount > 32_768
            slow.set()

    async with serve(listener=Flood, host=HOST, port=0) as server, raw_client(server):
        await slow.wait()


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


@asynchronous
async def test_each_connection_has_a_context_of_its_own(loop_factory: LoopFactory) -> None:
    seen: list[str] = []

    class Sets(Listener):
        def on_open(self, ws: Connection) -> None:
            seen.append(variable.get())
            ws.send("")

        def on_message(self, ws: Connection, message: str) -> None:
            seen.append(variable.get())
            variable.set(message)
            ws.send("")

        def on_close(self, ws: Connection, code: int, reason: str) -> None:
            seen.append(variable.get())

    variable.set("serve")
    server = serve(listener=Sets, host=HOST, port=0)
    variable.set("other")
    async with server:
        for name in ("a", "b"):
            async with connect(url(server)) as ws:
                await ws.recv()
                await ws.send(name)
                await ws.recv()
                await ws.send(name)
                await ws.recv()
            while server.connections:
                await asyncio.sleep(0)
    assert seen == ["serve", "serve", "a", "a", "serve", "serve", "b", "b"]
    assert variable.get() == "other"


@asynchronous
async def test_a_callback_that_ends_the_connection_leads_to_another_one() -> None:
    seen: list[str] = []

    class Nested(Listener):
        def on_message(self, ws: Connection, message: str) -> None:
            variable.set("inside")
            ws.link.abort("local", "enough")
            seen.append("message")

        def on_close(self, ws: Connection, code: int, reason: str) -> None:
            seen.append(variable.get())

    async with serve(listener=Nested, host=HOST, port=0) as server, connect(url(server)) as ws:
        await ws.send("x")
        with pytest.raises(ConnectionClosedError):
            await ws.recv()
    assert seen == ["inside", "message"]
