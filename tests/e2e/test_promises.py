"""Promises that are easily broken at the edges: who ends what, what is still said, and what a hook may do."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import pytest

from e2e.tools import shake, until
from fullduplex import (
    Close,
    ConcurrencyError,
    ConnectionClosedOK,
    InvalidMessage,
    InvalidStatus,
    Listener,
    Response,
    ServerConnection,
    connect,
    serve,
    unix_serve,
)
from peers import CLOSE, HOST, REQUEST, TEXT, Frame, Raw, close_frame, encode, pair, port_of, raw_client, tls, url
from support import asynchronous


class Echo(Listener):
    def on_message(self, ws: Any, message: Any) -> None:
        ws.send(message)


# The end of TCP, and what is still to be said.


@asynchronous
async def test_answers_leave_after_the_peer_has_ended_its_half() -> None:
    async def slow(ws: ServerConnection) -> None:
        async for message in ws:
            for _ in range(5):
                await asyncio.sleep(0)
            await ws.send(message)

    async with serve(slow, HOST, 0) as server, raw_client(server) as raw:
        await raw.head()
        raw.write(b"".join(encode(TEXT, text, mask=True) for text in (b"a", b"b")) + close_frame(1000, mask=True))
        raw.writer.write_eof()
        assert [await raw.frame() for _ in range(4)] == [
            Frame(TEXT, b"a"),
            Frame(TEXT, b"b"),
            Frame(CLOSE, b"\x03\xe8"),
            None,
        ]


@asynchronous
async def test_a_server_that_says_goodbye_and_leaves() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = Raw(reader, writer)
        await shake(raw)
        raw.write(encode(TEXT, b"m") * 5 + close_frame(1000))
        writer.write_eof()
        assert (await raw.frame()) == Frame(CLOSE, b"\x03\xe8")
        writer.close()

    server = await asyncio.start_server(script, HOST, 0)
    async with server, connect(f"ws://{HOST}:{server.sockets[0].getsockname()[1]}/") as ws:
        seen = []
        async for message in ws:
            seen.append(message)
            for _ in range(5):
                await asyncio.sleep(0)
        assert seen == ["m"] * 5
        assert isinstance(ws.close_exc, ConnectionClosedOK)


@asynchronous
async def test_who_only_waits_for_the_end_is_told_of_it() -> None:
    """Messages that nobody takes do not hold the peer's goodbye back: there is no deadline here that could."""
    async with pair({"close_timeout": None}, close_timeout=None) as (ws, peer):
        for _ in range(10):
            ws.send("nobody takes it")
        await ws.close()
        assert ws.close_code == 1000
        await peer.wait_closed()
        assert peer.close_code == 1000


@asynchronous
async def test_what_stands_behind_a_close_frame_does_not_cost_its_answer() -> None:
    async def handler(ws: ServerConnection) -> None:
        async for _ in ws:
            pass

    async with serve(handler, HOST, 0) as server, raw_client(server) as raw:
        await raw.head()
        raw.write(close_frame(1000, mask=True) + bytes(3_000_000))
        assert (await raw.frame()) == Frame(CLOSE, b"\x03\xe8")
        assert (await raw.frame()) is None


@asynchronous
async def test_a_listener_does_not_answer_who_does_not_read() -> None:
    async with serve(listener=Echo(), host=HOST, port=0, max_size=None, ping_interval=None) as server:
        with socket.create_connection((HOST, port_of(server))) as peer:
            peer.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(peer, REQUEST)
            flood = asyncio.ensure_future(loop.sock_sendall(peer, encode(TEXT, b"x" * 60_000, mask=True) * 1000))
            await until(lambda: server.connections)
            (ws,) = server.connections
            await until(lambda: not ws.link.reading)
            assert ws.is_slow
            assert ws.buffered_amount < 1_000_000
            assert not flood.done()
            received = 0
            while received < 60_000_000:
                received += len(await loop.sock_recv(peer, 1_000_000))
            await flood


@asynchronous
async def test_a_plain_client_is_told_that_the_server_speaks_tls() -> None:
    context, _ = tls()
    async with serve(listener=Echo(), host=HOST, port=0, ssl=context) as server:
        with pytest.raises(InvalidMessage) as caught:
            await connect(url(server))
    assert "use wss://" in caught.value.__notes__[0]


@asynchronous
async def test_tls_ends_with_close_notify() -> None:
    server_context, client_context = tls()
    async with serve(listener=Echo(), host=HOST, port=0, ssl=server_context) as server:

        def talk() -> bytes:
            with (
                socket.create_connection((HOST, port_of(server))) as sock,
                client_context.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False) as peer,
            ):
                peer.sendall(REQUEST + close_frame(1000, mask=True))
                seen = b""
                while part := peer.recv(65536):  # raises SSLEOFError where close_notify is missing
                    seen += part
                return seen

        assert (await asyncio.to_thread(talk)).endswith(b"\x88\x02\x03\xe8")


@asynchronous
async def test_small_messages_do_not_wait_for_nagle() -> None:
    async with pair() as (ws, peer):
        for connection in (ws, peer):
            assert connection.link.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# Hooks, handlers, listeners.


@asynchronous
async def test_a_hook_that_closes_the_server() -> None:
    opened = []

    class Watch(Listener):
        def on_open(self, ws: Any) -> None:
            opened.append(ws)

    def hook(ws: ServerConnection, _request: object) -> None:
        ws.server.close()

    async with serve(listener=Watch(), host=HOST, port=0, process_request=hook) as server:
        with pytest.raises(InvalidStatus) as caught:
            await connect(url(server))
        assert caught.value.response.status_code == 503
    assert not opened


@asynchronous
async def test_a_hook_whose_response_cannot_be_sent(caplog: pytest.LogCaptureFixture) -> None:
    headers: Any = {"X": "y"}

    async def hook(_ws: object, _request: object) -> Response:
        return Response(200, "OK", headers, b"")

    async with serve(listener=Echo(), host=HOST, port=0, process_request=hook) as server:
        with pytest.raises(InvalidStatus) as caught:
            await connect(url(server))
        assert caught.value.response.status_code == 500
    assert "cannot be sent" in caplog.text


@asynchronous
async def test_answers_of_hooks_are_http() -> None:
    def hook(ws: ServerConnection, request: Any) -> Response:
        response = ws.respond(204 if request.path == "/empty" else 200, "")
        if request.path == "/keep":
            del response.headers["Connection"]
            response.headers["Connection"] = "keep-alive"
        else:
            response.body = b"OK"
            del response.headers["Content-Length"]
        if request.path == "/empty":
            response.body = b""
        return response

    async with serve(listener=Echo(), host=HOST, port=0, process_request=hook) as server:
        for method, path, present, absent in (
            ("HEAD", "/", b"Content-Length: 2\r\n", b"OK\r\n\r\nOK"),
            ("GET", "/keep", b"Connection: close\r\n", b"nothing"),
            ("GET", "/empty", b"204 No Content", b"Content-Length"),
        ):
            request = REQUEST.replace(b"GET /", f"{method} {path}".encode(), 1)
            async with raw_client(server, request) as raw:
                answer = await raw.reader.read()
            assert present in answer
            assert absent not in answer
            assert method != "HEAD" or answer.endswith(b"\r\n\r\n")


@asynchronous
async def test_refusals_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serve(
        listener=Echo(), host=HOST, port=0, subprotocols=["a"], select_subprotocol=lambda _ws, _names: "b"
    ) as server:
        for options, level in (({"origin": "https://evil.example"}, "INFO"), ({"subprotocols": ["a"]}, "ERROR")):
            caplog.clear()
            with pytest.raises(InvalidStatus):
                await connect(url(server), **options)
            assert level in [record.levelname for record in caplog.records if "handshake failed" in record.message]


@pytest.mark.parametrize("listener", ["x", object(), object])
def test_what_is_no_listener(listener: Any) -> None:
    with pytest.raises(TypeError, match="subclass of Listener"):
        serve(listener=listener)


@asynchronous
async def test_a_factory_that_makes_no_listener(caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Any:
        return object()

    async with serve(listener=make, host=HOST, port=0) as server, connect(url(server)) as ws:
        await ws.wait_closed()
        assert ws.close_code == 1011
    assert "subclass of Listener" in caplog.text


@asynchronous
async def test_a_connection_with_a_listener_has_nothing_to_receive() -> None:
    async with (
        serve(listener=Echo(), host=HOST, port=0) as server,
        connect(url(server), listener=Listener()) as ws,
    ):
        with pytest.raises(ConcurrencyError, match="listener"):
            await ws.recv()


def test_arguments_that_cannot_work() -> None:
    anything: Any = 3
    with pytest.raises(TypeError, match="coroutine function"):
        serve(anything)
    with pytest.raises(TypeError, match="SSLContext"):
        serve(listener=Echo(), ssl=anything)
    for arguments in ({}, {"path": "/x", "sock": anything}):
        with pytest.raises(TypeError, match="path or a sock"):
            unix_serve(listener=Echo(), **arguments)


def test_a_reason_is_no_line_of_a_log() -> None:
    assert str(Close(4000, "bye\nERROR é")) == r"4000 (private use) bye\nERROR é"


@asynchronous
async def test_a_handler_that_ends_the_program() -> None:
    """Whatever a handler raises, its peer is told."""
    unseen = []

    class Strange(BaseException):
        pass

    async def handler(_ws: ServerConnection) -> None:
        raise Strange

    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    async with serve(handler, HOST, 0) as server, connect(url(server)) as ws:
        await ws.wait_closed()
        assert ws.close_code == 1011


@asynchronous
async def test_it_reconnects_at_once_after_a_normal_closure_only() -> None:
    codes = iter([1000, 1001, 1000, 1012])
    waited = []

    def delays() -> Any:
        while True:
            waited.append(len(seen))
            yield 0.0

    async def leave(ws: ServerConnection) -> None:
        await ws.close(next(codes))

    seen: list[int] = []
    async with serve(leave, HOST, 0) as server:
        async for ws in connect(url(server), reconnect_delays=delays):
            await ws.wait_closed()
            assert ws.close_code is not None
            seen.append(ws.close_code)
            if len(seen) == 4:
                break
    assert seen == [1000, 1001, 1000, 1012]
    assert waited == [2]


@asynchronous
async def test_a_connection_that_cannot_even_end(caplog: pytest.LogCaptureFixture) -> None:
    """A mistake in one connection, twice over, does not reach another one of the same tick."""

    class Broken(ServerConnection):
        def receive_opening(self, data: bytes) -> None:
            raise ValueError("first")

        def ended(self, error: OSError | None) -> None:
            super().ended(error)
            raise ValueError("second")

    async with (
        serve(listener=Echo(), host=HOST, port=0) as sound,
        serve(listener=Echo(), host=HOST, port=0, create_connection=Broken) as broken,
        connect(url(sound)) as ws,
    ):
        with pytest.raises((InvalidMessage, OSError)):
            await connect(url(broken))
        await ws.send("still there")
        assert await ws.recv() == "still there"
    assert "error while ending a connection" in caplog.text
