"""The verbs of a connection, ours to ours and against a raw peer."""

from __future__ import annotations

import asyncio
import gc
import uuid
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from fullduplex import (
    Close,
    ConcurrencyError,
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidMessage,
    Limits,
    ServerConnection,
    State,
    broadcast,
    connect,
    serve,
)
from fullduplex.extensions import Extension, ExtensionFactory, Parameters
from fullduplex.wire.limits import GATHER
from peers import (
    BINARY,
    CLOSE,
    HOST,
    PING,
    PONG,
    REQUEST,
    TEXT,
    Frame,
    Raw,
    answer,
    cancel_everywhere,
    close_frame,
    echo,
    encode,
    pair,
    raw_client,
    raw_server,
    url,
)
from support import LoopFactory, asynchronous


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something is so; the limit of the test bounds it."""
    while not condition():
        await asyncio.sleep(0)


def accepting(script: Callable[[Raw], Awaitable[None]]) -> Callable[[Raw], Awaitable[None]]:
    async def whole(raw: Raw) -> None:
        raw.write(answer(await raw.head()))
        await script(raw)

    return whole


# What is known of it.


@asynchronous
async def test_what_is_known(loop_factory: LoopFactory) -> None:
    async with pair({"subprotocols": ["b", "a"]}, subprotocols=["a"]) as (ws, peer):
        assert isinstance(ws.id, uuid.UUID)
        assert ws.id is ws.id
        assert ws.id != peer.id
        assert ws.logger.name == "fullduplex.client"
        assert peer.logger.name == "fullduplex.server"
        assert ws.state is State.OPEN
        assert ws.local_address == peer.remote_address
        assert ws.remote_address == peer.local_address
        assert ws.remote_address[0] == HOST
        assert ws.subprotocol == peer.subprotocol == "a"
        assert ws.request is not None
        assert ws.response is not None
        assert ws.request.path == "/"
        assert ws.response.status_code == 101
        assert peer.request is not None
        assert peer.response is not None
        assert peer.request.headers["Sec-WebSocket-Key"] == ws.request.headers["Sec-WebSocket-Key"]
        assert ws.latency == 0
        assert ws.buffered_amount == 0
        assert not ws.is_slow
        assert [ws.close_code, ws.close_reason, ws.close_exc] == [None, None, None]
        assert repr(ws) == f"<ClientConnection OPEN {ws.remote_address}>"
        await ws.close(4000, "bye")
        assert (ws.close_code, ws.close_reason) == (4000, "")
        await peer.wait_closed()
        assert (peer.close_code, peer.close_reason) == (4000, "bye")
        assert ws.state is peer.state is State.CLOSED
        assert ws.local_address is None
        assert ws.remote_address[0] == HOST


@asynchronous
async def test_who_ended_it_and_both_codes_are_known() -> None:
    async with pair() as (ws, peer):
        await peer.close(4001, "go")
        await ws.wait_closed()
        mine, theirs = ws.close_exc, peer.close_exc
        assert mine is not None
        assert theirs is not None
        assert (mine.rcvd, mine.sent, mine.rcvd_then_sent, mine.who) == (Close(4001, "go"), Close(4001), True, "remote")
        assert (theirs.rcvd, theirs.sent, theirs.rcvd_then_sent) == (Close(4001), Close(4001, "go"), False)
        assert theirs.who == "local"
        assert isinstance(mine, ConnectionClosedError)


# Receiving.


@asynchronous
async def test_decode() -> None:
    async with pair() as (ws, peer):
        for message in ("text", "text", b"bytes", b"bytes", b"\xff"):
            await peer.send(message)
        assert await ws.recv(decode=True) == "text"
        assert await ws.recv(decode=False) == b"text"
        assert await ws.recv(decode=True) == "bytes"
        assert await ws.recv(decode=False) == b"bytes"
        with pytest.raises(UnicodeDecodeError):
            await ws.recv(decode=True)


@asynchronous
async def test_iterating_ends_with_a_normal_closure(loop_factory: LoopFactory) -> None:
    async with pair() as (ws, peer):
        await peer.send("1")
        await peer.send("2")
        closing = asyncio.ensure_future(peer.close(1001))
        assert [message async for message in ws] == ["1", "2"]
        assert [message async for message in ws] == []
        with pytest.raises(ConnectionClosedOK):
            await ws.recv()
        await closing


@asynchronous
async def test_iterating_raises_for_an_abnormal_closure() -> None:
    async with pair() as (ws, peer):
        await peer.send("1")
        peer.close(1011, "sorry")
        assert await anext(ws) == "1"
        with pytest.raises(ConnectionClosedError, match="sorry"):
            await anext(ws)


@asynchronous
async def test_one_task_receives() -> None:
    async with pair() as (ws, peer):
        first = asyncio.ensure_future(ws.recv())
        await asyncio.sleep(0)
        with pytest.raises(ConcurrencyError):
            await ws.recv()
        with pytest.raises(ConcurrencyError):
            await anext(ws)
        with pytest.raises(ConcurrencyError):
            await anext(ws.recv_streaming())
        await peer.send(["still ", "whole"])
        assert await first == "still whole"


@asynchronous
async def test_a_message_under_way_is_not_lost_to_a_stream_that_may_not_begin() -> None:
    async with serve(echo, HOST, 0) as server, raw_client(server) as raw:
        await raw.head()
        (ws,) = server.connections
        raw.write(encode(TEXT, b"a", False, mask=True))
        await until(lambda: ws.session._message)
        with pytest.raises(ConcurrencyError):
            await anext(ws.recv_streaming())
        raw.write(encode(0, b"b", mask=True))
        assert await raw.frame() == Frame(TEXT, b"ab")


# Receiving in parts.


@asynchronous
async def test_streaming() -> None:
    async with pair() as (ws, peer):
        sending = asyncio.ensure_future(peer.send(["€", "uro"]))
        assert [part async for part in ws.recv_streaming()] == ["€", "uro"]
        await sending
        await peer.send("whole")
        await peer.send(b"whole")
        await until(lambda: ws.session.queued() == 2)
        assert [part async for part in ws.recv_streaming()] == ["whole"]
        assert [part async for part in ws.recv_streaming(decode=True)] == ["whole"]
        sending = asyncio.ensure_future(peer.send([b"a", b"b"]))
        assert [part async for part in ws.recv_streaming(decode=True)] == ["a", "b"]
        await sending


@asynchronous
async def test_a_stream_that_is_left_drops_the_rest_of_its_message_only() -> None:
    async def script(raw: Raw) -> None:
        assert await raw.frame() == Frame(PING, b"begin")
        raw.write(encode(TEXT, b"a", False) + encode(0, b"b", False) + encode(0, b"c") + encode(TEXT, b"next"))
        raw.write(encode(TEXT, b"d", False) + encode(0, b"e", False))
        assert await raw.frame() == Frame(PING, b"continue")
        raw.write(encode(0, b"f") + encode(TEXT, b"last"))
        await raw.frame()

    async with raw_server(accepting(script)) as uri:
        ws = await connect(uri)
        await ws.ping("begin")
        async for part in ws.recv_streaming():
            assert part == "a"
            break
        assert await ws.recv() == "next"
        stream = ws.recv_streaming()
        assert await anext(stream) == "de"
        await ws.ping("continue")
        assert await anext(ws) == "last"
        with pytest.raises(ConcurrencyError):
            await anext(stream)
        ws.link.abort("local", "")


@asynchronous
async def test_a_stream_that_is_cancelled_leaves_the_connection_usable() -> None:
    async with pair() as (ws, peer):

        async def once() -> None:
            going_on = asyncio.Event()

            async def parts() -> AsyncIterator[str]:
                yield "a"
                await going_on.wait()
                yield "b"

            sending = asyncio.ensure_future(peer.send(parts()))
            try:
                async for _ in ws.recv_streaming():
                    going_on.set()
            finally:
                going_on.set()
                await sending
                await peer.send("end")
                while await ws.recv() != "end":
                    pass

        assert await cancel_everywhere(once) >= 2


@asynchronous
async def test_a_stream_ends_with_the_connection() -> None:
    async def script(raw: Raw) -> None:
        raw.write(encode(TEXT, b"a", False))

    async with raw_server(accepting(script)) as uri, connect(uri) as ws:
        stream = ws.recv_streaming()
        assert await anext(stream) == "a"
        with pytest.raises(ConnectionClosedError):
            await anext(stream)


# Sending.

KINDS: list[tuple[Any, bool | None, Any]] = [
    ("text", None, "text"),
    ("text", True, "text"),
    ("text", False, b"text"),
    (b"bytes", None, b"bytes"),
    (b"bytes", True, "bytes"),
    (bytearray(b"bytes"), None, b"bytes"),
    (memoryview(b"bytes"), None, b"bytes"),
    (memoryview(b"b-y-t-e-s")[::2], None, b"bytes"),
    (memoryview(bytes(8)).cast("I"), True, "\0" * 8),
    ("", None, ""),
    (b"", None, b""),
    (["a", "b"], None, "ab"),
    (["a", "b"], False, b"ab"),
    ([b"a", bytearray(b"b"), memoryview(b"c-d")[::2]], None, b"abcd"[:2] + b"cd"),
    (iter(["a"]), None, "a"),
    ((part for part in (b"a", b"")), True, "a"),
]


@asynchronous
async def test_what_can_be_sent(loop_factory: LoopFactory) -> None:
    async with serve(echo, HOST, 0) as server, connect(url(server)) as ws:
        for message, text, expected in KINDS:
            # Iterators serve once: this runs on two loops.
            again = list(message) if hasattr(message, "__next__") else message
            if hasattr(message, "__next__") and not again:
                continue
            await ws.send(again, text)
            assert await ws.recv() == expected

        async def parts() -> AsyncIterator[str]:
            yield "a"
            await asyncio.sleep(0)
            yield "b"

        await ws.send(parts())
        assert await ws.recv() == "ab"
        await ws.send([])
        await ws.send("after nothing")
        assert await ws.recv() == "after nothing"


@asynchronous
async def test_what_cannot_be_sent() -> None:
    async with pair() as (ws, peer):
        wrong: list[Any] = [5, None, {"a": 1}, object()]
        for message in wrong:
            with pytest.raises(TypeError):
                ws.send(message)
        with pytest.raises(UnicodeEncodeError):
            ws.send("\ud800")
        fragments: list[Any] = [[5], [None, "a"]]
        for parts in fragments:
            with pytest.raises(TypeError):
                await ws.send(parts)
        await ws.send("fine")
        assert await peer.recv() == "fine"


@pytest.mark.parametrize("parts", [["a", b"b"], ["a", 5], [b"a", "b"]])
@asynchronous
async def test_a_message_that_cannot_be_completed_closes_the_connection(parts: Any) -> None:
    async with pair() as (ws, peer):
        with pytest.raises(TypeError):
            await ws.send(parts)
        with pytest.raises(ConnectionClosedError, match="error in a fragmented message") as caught:
            await peer.recv()
        assert caught.value.code == 1011
        with pytest.raises(ConnectionClosed):
            await ws.send("more")


@asynchronous
async def test_an_error_of_another_connection_inside_a_message_closes_this_one_too() -> None:
    async with pair() as (ws, peer), pair() as (source, _):

        async def parts() -> AsyncIterator[str]:
            yield "a"
            source.close()
            await source.send("")
            yield "b"

        with pytest.raises(ConnectionClosedOK):
            await ws.send(parts())
        with pytest.raises(ConnectionClosedError, match="fragmented"):
            await peer.recv()


@asynchronous
async def test_no_message_stands_inside_another_one() -> None:
    async with serve(echo, HOST, 0) as server, connect(url(server)) as ws:
        going_on = asyncio.Event()
        begun = asyncio.Event()

        async def parts() -> AsyncIterator[str]:
            yield "a"
            begun.set()
            await going_on.wait()
            yield "b"

        first = asyncio.ensure_future(ws.send(parts()))
        await begun.wait()
        others = [asyncio.ensure_future(ws.send(message)) for message in ("1", b"2", ["3", "4"], "5")]
        cancelled = asyncio.ensure_future(ws.send("never"))
        await asyncio.sleep(0)
        cancelled.cancel()
        broadcast([ws], "passed over")
        with pytest.raises(ExceptionGroup):
            broadcast([ws], "passed over", raise_exceptions=True)
        await (await ws.ping())
        going_on.set()
        await asyncio.gather(first, *others)
        assert await ws.recv() == "ab"
        assert sorted([await ws.recv(decode=True) for _ in others]) == ["1", "2", "34", "5"]
        await asyncio.wait([cancelled])


@asynchronous
async def test_two_messages_in_fragments_that_are_slow_to_begin() -> None:
    async with serve(echo, HOST, 0) as server, connect(url(server)) as ws:
        barrier = asyncio.Barrier(2)

        async def parts(*texts: str) -> AsyncIterator[str]:
            await barrier.wait()
            for text in texts:
                yield text
                await asyncio.sleep(0)

        async def wrong() -> AsyncIterator[Any]:
            await barrier.wait()
            yield 5

        await asyncio.gather(ws.send(parts("a", "b", "c")), ws.send(parts("1", "2", "3")))
        assert {await ws.recv(), await ws.recv()} == {"abc", "123"}
        both = asyncio.gather(ws.send(parts("a", "b", "c")), ws.send(wrong()), return_exceptions=True)
        assert await ws.recv() == "abc"
        assert isinstance((await both)[1], TypeError)


@asynchronous
async def test_fragments_nobody_awaits_are_told_of() -> None:
    async with pair() as (ws, _):
        with pytest.warns(RuntimeWarning, match="never awaited"):
            ws.send(["lost"])


@asynchronous
async def test_waiting_for_a_turn_ends_with_the_connection() -> None:
    async with pair() as (ws, _):
        begun = asyncio.Event()

        async def parts() -> AsyncIterator[str]:
            yield "a"
            begun.set()
            await ws.wait_closed()
            yield "b"

        first = asyncio.ensure_future(ws.send(parts()))
        await begun.wait()
        second = asyncio.ensure_future(ws.send("second"))
        await asyncio.sleep(0)
        ws.close()
        for sending in (first, second):
            with pytest.raises(ConnectionClosedOK):
                await sending


@asynchronous
async def test_after_close_sending_says_how_the_connection_ended() -> None:
    async with pair() as (ws, peer):
        closing = asyncio.ensure_future(ws.close())
        await asyncio.sleep(0)
        verbs: list[Callable[[], Awaitable[Any]]] = [
            lambda: ws.send("x"),
            lambda: ws.send(["x"]),
            ws.ping,
            ws.pong,
        ]
        for verb in verbs:
            with pytest.raises(ConnectionClosedOK):
                await verb()
        await closing
        await peer.wait_closed()
        for verb in verbs:
            with pytest.raises(ConnectionClosedOK):
                await verb()


# A peer that does not read.


@asynchronous
async def test_send_waits_for_a_slow_peer(loop_factory: LoopFactory) -> None:
    async with pair(max_queue=1) as (ws, peer):
        chunk = bytes(100_000)
        sent = 0
        while not ws.is_slow:
            ws.send(chunk)
            sent += 1
        assert ws.buffered_amount > 32768
        waiting = asyncio.ensure_future(ws.send(b"last"))
        also = asyncio.ensure_future(ws.send(b"cancelled wait, not a cancelled message"))
        await asyncio.sleep(0)
        also.cancel()
        for _ in range(sent):
            assert await peer.recv() == chunk
        await waiting
        assert await peer.recv() == b"last"
        assert await peer.recv() == b"cancelled wait, not a cancelled message"
        assert not ws.is_slow
        assert not ws._drain_waiters


@asynchronous
async def test_sending_is_cancelled_anywhere() -> None:
    async with pair(max_queue=1) as (ws, peer):
        received = 0

        async def take() -> None:
            nonlocal received
            async for _ in peer:
                received += 1

        taking = asyncio.ensure_future(take())
        sent = 0

        async def once() -> None:
            nonlocal sent
            for _ in range(60):
                sent += 1
                await ws.send(bytes(GATHER * 3))

        assert await cancel_everywhere(once) > 1
        await ws.close()
        await taking
        assert received == sent


@asynchronous
async def test_waiting_to_send_ends_with_the_connection() -> None:
    async with pair(max_queue=1, close_timeout=0.1) as (ws, peer):
        while not ws.is_slow:
            ws.send(bytes(100_000))
        waiting = asyncio.ensure_future(ws.send(b"last"))
        await asyncio.sleep(0)
        peer.link.abort("local", "enough")
        with pytest.raises(ConnectionClosedError):
            await waiting


@asynchronous
async def test_fragments_wait_for_a_slow_peer_too() -> None:
    async with pair(max_queue=1, max_size=None) as (ws, peer):
        for _ in range(3):
            ws.send(bytes(1_000_000))
        sending = asyncio.ensure_future(ws.send([bytes(1_000_000)] * 20))
        await until(lambda: ws._drain_waiters)
        assert ws.is_slow
        for _ in range(3):
            assert len(await peer.recv()) == 1_000_000
        assert len(await peer.recv()) == 20_000_000
        await sending


@asynchronous
async def test_a_cancelled_message_in_fragments_closes_the_connection() -> None:
    for begun in (False, True):
        async with pair() as (ws, peer):
            waits = asyncio.Event()

            async def parts(
                ws: Connection = ws, begun: bool = begun, waits: asyncio.Event = waits
            ) -> AsyncIterator[str]:
                if begun:
                    yield "a"
                waits.set()
                await ws.wait_closed()

            task = asyncio.ensure_future(ws.send(parts()))
            await waits.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            if begun:
                with pytest.raises(ConnectionClosedError, match="fragmented"):
                    await peer.recv()
            else:
                await ws.send("fine")
                assert await peer.recv() == "fine"


# A user that does not receive.


@asynchronous
async def test_reading_stops_at_messages_and_at_bytes(loop_factory: LoopFactory) -> None:
    for message, options in ((b"x", {}), (bytes(300_000), {"max_queue": None}), (bytes(700_000), {"max_queue": 100})):
        async with pair(options, max_queue=4) as (ws, peer):
            count = 0
            while not ws.session.paused and count < 40:
                peer.send(message)
                count += 1
                await (await peer.ping()) if not peer.is_slow and not ws.session.paused else await asyncio.sleep(0)
            assert ws.session.paused == (options.get("max_queue", 1) is not None)
            for _ in range(count):
                assert await ws.recv() == message
            assert not ws.session.paused
            await peer.send("end")
            assert await ws.recv() == "end"


@asynchronous
async def test_closing_does_not_wait_behind_a_full_queue(loop_factory: LoopFactory) -> None:
    async with pair() as (ws, peer):
        while not ws.session.paused or not peer.is_slow:
            peer.send(bytes(50_000))
            await asyncio.sleep(0)
        await ws.close()
        assert ws.close_code == 1000
        assert ws.session.rcvd is not None


@asynchronous
async def test_the_end_does_not_wait_behind_a_full_queue() -> None:
    async def script(raw: Raw) -> None:
        raw.write(encode(TEXT, b"x") * 40 + close_frame(1000))
        assert (await raw.frame()) == Frame(CLOSE, b"\x03\xe8")

    async with raw_server(accepting(script)) as uri, connect(uri, close_timeout=None) as ws:
        await ws.wait_closed()
        assert [message async for message in ws] == ["x"] * 40


@asynchronous
async def test_pings_are_answered_and_their_pongs_noticed_while_nobody_receives() -> None:
    async with pair() as (ws, peer):
        for _ in range(10):
            peer.send("unread")
        await (await peer.ping())
        await (await ws.ping())


@asynchronous
async def test_a_flood_of_pings_whose_pongs_are_not_read_costs_no_memory() -> None:
    limits = Limits(control_frames_per_second=None)
    async with serve(echo, HOST, 0, limits=limits) as server, raw_client(server) as raw:
        await raw.head()
        (ws,) = server.connections
        flood = encode(PING, bytes(125), mask=True) * 500
        most = 0
        while not ws.session.blocked:
            raw.write(flood)
            await asyncio.sleep(0)
        for _ in range(100):
            raw.write(flood)
            await raw.writer.drain()
            most = max(most, ws.buffered_amount)
        assert most <= 2 * 262_144
        raw.write(encode(PING, b"the newest", mask=True))
        while (await raw.frame()) != Frame(PONG, b"the newest"):
            pass


# Ping, pong, close.


@asynchronous
async def test_ping(loop_factory: LoopFactory) -> None:
    async with pair() as (ws, _):
        first, second = await ws.ping(), await ws.ping("data")
        latency = await second
        assert await first >= latency > 0
        assert ws.latency == latency
        with pytest.raises(ValueError):
            ws.ping(bytes(126))
        assert await (await ws.ping(memoryview(b"a-b")[::2])) > 0
        forgotten = asyncio.ensure_future(await ws.ping(b"same"))
        with pytest.raises(ValueError):
            ws.ping(b"same")
        forgotten.cancel()
        await (await ws.ping())
        await ws.pong()
        await ws.pong("heartbeat")
        with pytest.raises(ValueError):
            ws.pong(bytes(126))
        with pytest.raises(TypeError):
            ws.ping(5)  # type: ignore[arg-type]


@asynchronous
async def test_a_pong_that_never_comes() -> None:
    async def script(raw: Raw) -> None:
        while frame := await raw.frame():
            if frame.opcode == CLOSE:
                raw.write(encode(CLOSE, frame.payload))
                return

    async with raw_server(accepting(script)) as uri:
        async with connect(uri) as ws:
            pong = await ws.ping()
            unseen = await ws.ping()  # its exception is nobody's business
            cancelled = asyncio.ensure_future(await ws.ping())
            cancelled.cancel()
            await asyncio.wait([cancelled])
        with pytest.raises(ConnectionClosedOK):
            await pong
        del unseen


@asynchronous
async def test_close() -> None:
    async with pair() as (ws, peer):
        wrong: list[tuple[int | None, str]] = [(999, ""), (1006, ""), (1000, "x" * 124), (None, "reason")]
        for code, reason in wrong:
            with pytest.raises(ValueError):
                ws.close(code, reason)
        assert ws.state is State.OPEN
        await asyncio.gather(ws.close(None), ws.close(1011))  # the first counts
        await ws.close()
        await peer.wait_closed()
        assert peer.close_code == 1005


@asynchronous
async def test_close_is_cancelled_anywhere(loop_factory: LoopFactory) -> None:
    async def once() -> None:
        async with pair() as (ws, peer):
            closing = asyncio.ensure_future(peer.wait_closed())
            try:
                await ws.close()
            finally:
                await asyncio.wait([closing])

    assert await cancel_everywhere(once) > 2


@asynchronous
async def test_who_stops_waiting_is_forgotten() -> None:
    async with pair() as (ws, _):
        tasks = [asyncio.ensure_future(ws.wait_closed()) for _ in range(10)]
        await asyncio.sleep(0)
        for task in tasks[:9]:
            task.cancel()
        await asyncio.wait(tasks[:9])
        assert len(ws._closed_waiters or ()) == 1
    await tasks[9]


@asynchronous
async def test_leaving_async_with() -> None:
    cases: list[tuple[type[BaseException], int]] = [
        (ValueError, 1011),
        (asyncio.CancelledError, 1001),
        (GeneratorExit, 1000),
    ]
    for kind, code in cases:
        async with pair() as (ws, peer):
            with pytest.raises(kind):
                async with ws:
                    raise kind
            await peer.wait_closed()
            assert peer.close_code == code


# The end.


class Dropped:
    """A server, and weak references to the connections that it has had."""

    def __init__(self) -> None:
        self.seen: list[weakref.ref[Connection]] = []

    async def handler(self, ws: ServerConnection) -> None:
        self.seen.append(weakref.ref(ws))
        async for message in ws:
            await ws.send(message)
        await ws.wait_closed()


@asynchronous
async def test_a_connection_that_is_over_is_freed_at_once(loop_factory: LoopFactory) -> None:
    dropped = Dropped()
    gc.disable()
    try:
        async with serve(dropped.handler, HOST, 0) as server:
            async with connect(url(server)) as ws:
                await ws.send("x")
                assert await ws.recv() == "x"
                await ws.send(["y"])
                async for message in ws:
                    assert message == "y"
                    break
                await (await ws.ping())
            dropped.seen.append(weakref.ref(ws))
            del ws
            await until(lambda: not server.connections and not server._handlers)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [reference() for reference in dropped.seen] == [None, None]
    finally:
        gc.enable()


@asynchronous
async def test_sending_before_the_connection_is_open() -> None:
    refused: list[object] = []

    def process_request(ws: ServerConnection, request: object) -> None:
        with pytest.raises(ConnectionClosed):
            ws.send("too early").__await__().send(None)
        refused.append(ws.close_code)
        ws.close()

    async with serve(echo, HOST, 0, process_request=process_request) as server:
        with pytest.raises(InvalidMessage, match="connection ended"):
            await connect(url(server))
    assert refused == [None]


# Glued.


@asynchronous
async def test_what_a_client_sends_right_behind_its_request(loop_factory: LoopFactory) -> None:
    bad = encode(3, mask=True)
    glued = REQUEST + encode(TEXT, b"good", mask=True) + bad
    async with serve(echo, HOST, 0) as server, raw_client(server, glued) as raw:
        await raw.head()
        assert await raw.frame() == Frame(TEXT, b"good")
        frame = await raw.frame()
        assert frame is not None
        assert (frame.opcode, frame.payload[:2]) == (CLOSE, b"\x03\xea")
        assert await raw.frame() is None


@asynchronous
async def test_what_a_server_sends_right_behind_its_answer(loop_factory: LoopFactory) -> None:
    heard: list[Frame | None] = []

    async def script(raw: Raw) -> None:
        raw.write(answer(await raw.head()) + encode(BINARY, b"good") + encode(3))
        heard.extend([await raw.frame(), await raw.frame(), await raw.frame()])

    async with raw_server(script) as uri:
        ws = await connect(uri)
        assert await ws.recv() == b"good"
        await ws.send("answer")
        with pytest.raises(ConnectionClosedError, match="reserved opcode") as caught:
            await ws.recv()
        assert caught.value.sent is not None
        assert caught.value.sent.code == 1002
        await ws.wait_closed()
    assert heard[0] == Frame(TEXT, b"answer")
    assert heard[1] is not None
    assert heard[1].payload[:2] == b"\x03\xea"
    assert heard[2] is None


@asynchronous
async def test_closing_before_what_was_glued_is_received() -> None:
    async def script(raw: Raw) -> None:
        raw.write(answer(await raw.head()) + encode(TEXT, b"glued"))
        frame = await raw.frame()
        assert frame is not None
        raw.write(encode(CLOSE, frame.payload))

    async with raw_server(script) as uri:
        ws = await connect(uri)
        await ws.close()
        assert await ws.recv() == "glued"
        assert ws.close_code == 1000


@asynchronous
async def test_what_was_glued_to_the_handshake_of_a_connection_that_has_ended() -> None:
    async def script(raw: Raw) -> None:
        raw.write(answer(await raw.head()) + encode(TEXT, b"glued"))
        assert await raw.frame() is None

    async with raw_server(script) as uri:
        ws = await connect(uri)
        ws.link.abort("local", "at once")
        with pytest.raises(ConnectionClosedError, match="at once"):
            await ws.recv()


# Keepalive.


@asynchronous
async def test_a_silent_peer_is_given_up_and_why_is_said() -> None:
    async def script(raw: Raw) -> None:
        while await raw.frame():
            pass

    async with raw_server(accepting(script)) as uri, connect(uri, ping_interval=0.05, ping_timeout=0.05) as ws:
        with pytest.raises(ConnectionClosedError, match="keepalive: the peer was silent for") as caught:
            await ws.recv()
        assert caught.value.who == "remote"
        assert caught.value.code == 1006
        assert caught.value.sent is not None
        assert (caught.value.sent.code, caught.value.sent.reason) == (1011, "keepalive ping timeout")


@asynchronous
async def test_keepalive_does_not_kill_while_reading_is_paused() -> None:
    pinged = asyncio.Event()

    async def script(raw: Raw) -> None:
        raw.write(encode(TEXT, b"unread") * 20)
        for _ in range(3):  # none is answered: each could have been the last
            frame = await raw.frame()
            assert frame is not None
            assert frame.opcode == PING
        pinged.set()
        await raw.frame()

    async with raw_server(accepting(script)) as uri:
        ws = await connect(uri, ping_interval=0.05, ping_timeout=0.05)
        await pinged.wait()
        assert ws.state is State.OPEN
        assert await ws.recv() == "unread"
        ws.link.abort("local", "")


@asynchronous
async def test_a_peer_that_never_answers_close() -> None:
    async def script(raw: Raw) -> None:
        while await raw.frame():
            pass

    async with raw_server(accepting(script)) as uri:
        ws = await connect(uri, close_timeout=0.05)
        await ws.close()
        error = ws.close_exc
        assert error is not None
        assert "did not end the closing handshake within 0.05 s" in str(error)
        assert (error.code, error.sent) == (1006, Close(1000))


@asynchronous
async def test_leaving_messages_behind_after_a_goodbye(loop_factory: LoopFactory) -> None:
    """Nobody is going to take them: our answer need not wait for that."""

    async def handler(ws: ServerConnection) -> None:
        for text in ("one", "two", "three"):
            await ws.send(text)

    async with serve(handler, HOST, 0, close_timeout=None) as server:
        async with connect(url(server), close_timeout=None) as ws:
            async for message in ws:
                assert message == "one"
                break
            await until(lambda: ws.session.rcvd)
        assert ws.close_code == 1000


@asynchronous
async def test_closing_reads_on_though_a_rate_says_to_wait(loop_factory: LoopFactory) -> None:
    limits = Limits(bytes_per_second=100)
    async with pair(limits=limits, close_timeout=None) as (ws, peer):
        await ws.send(bytes(3000))
        await until(lambda: peer.session.paused)
        await peer.close()
        assert peer.close_code == 1000


@asynchronous
async def test_an_extension_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Extension):
        def decode(self, data: bytes, complete: bool, limit: int) -> bytes:
            raise ZeroDivisionError("a mistake")

    class Factory(ExtensionFactory):
        name = "failing"

        def accept(self, offer: Parameters) -> tuple[Parameters, Extension]:
            return (), Failing()

        def agree(self, offer: Parameters, answer: Parameters) -> Extension:
            return Extension()

    async with pair({"extensions": [Factory()]}, extensions=[Factory()]) as (ws, peer):
        await ws.send("x")
        with pytest.raises(ConnectionClosedError, match=r"1011.*an extension failed"):
            await ws.recv()
        await peer.wait_closed()
    assert "ZeroDivisionError: a mistake" in caplog.text
