"""`serve`: its arguments, its hooks, its handlers, its end."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fullduplex
from clocks import use_clock
from e2e.tools import raw_peer, until
from fullduplex import (
    ConnectionClosed,
    ConnectionClosedError,
    InvalidStatus,
    Request,
    Response,
    Server,
    ServerConnection,
    State,
    connect,
    serve,
    unix_connect,
    unix_serve,
)
from fullduplex.api.host import get_engine
from fullduplex.engine.poller import Poller
from fullduplex.wire.http1 import HeadReader
from fullduplex.wire.limits import Limits
from peers import HOST, REQUEST, TEXT, Frame, cancel_everywhere, echo, encode, port_of, raw_client, tls, url
from support import LoopFactory, asynchronous

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


async def refusal(server: Server, **options: Any) -> Response:
    """What the server answers instead of 101."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(url(server), **options)
    return caught.value.response


def test_names_and_defaults_are_those_of_websockets() -> None:
    websockets = pytest.importorskip("websockets.asyncio.server")
    theirs = inspect.signature(websockets.serve.__init__).parameters
    ours = inspect.signature(serve).parameters
    different = {"origins", "server_header", "logger"}
    not_yet = {"extensions", "compression", "args", "kwargs", "self"}
    for name, parameter in theirs.items():
        if name in not_yet:
            continue
        assert name in ours, name
        if name not in different and name != "handler":
            assert ours[name].default == parameter.default, name
    for name in ("sock", "ssl", "family", "backlog", "reuse_address", "reuse_port", "start_serving"):
        assert name in ours


# Start and end.


@asynchronous
async def test_the_ways_to_start(loop_factory: LoopFactory) -> None:
    server = serve(echo, HOST, 0)
    assert not server.is_serving()
    await server.wait_closed()  # there is nothing to wait for
    assert await server is server
    assert await server is server
    assert server.is_serving()
    assert server.get_loop() is asyncio.get_running_loop()
    (sock,) = server.sockets
    assert sock.getsockname()[0] == HOST
    async with connect(url(server)) as ws:
        await ws.send("x")
        assert await ws.recv() == "x"
        assert [peer.state for peer in server.connections] == [State.OPEN]
        server.close()
        server.close()
        assert server.sockets == ()
        assert not server.is_serving()
        await server.wait_closed()
        assert ws.close_code == 1001
    assert server.connections == set()
    await server.start_serving()
    assert not server.is_serving()


@asynchronous
async def test_serving_begins_later() -> None:
    async with serve(echo, HOST, 0, start_serving=False) as server:
        assert not server.is_serving()
        connecting = asyncio.ensure_future(connect(url(server))._open())
        serving = asyncio.ensure_future(server.serve_forever())
        ws = await connecting
        assert server.is_serving()
        serving.cancel()
        await asyncio.wait([serving])
        assert serving.cancelled()
        assert ws.close_code == 1001
    async with serve(echo, HOST, 0, start_serving=False) as server:
        pass


@asynchronous
async def test_serve_forever_ends_with_the_server() -> None:
    server = await serve(echo, HOST, 0)
    serving = asyncio.ensure_future(server.serve_forever())
    await asyncio.sleep(0)
    server.close()
    await serving


@asynchronous
async def test_close_says_why() -> None:
    async with serve(echo, HOST, 0) as server, connect(url(server)) as ws:
        for code, reason in ((1005, ""), (4000, "x" * 124)):
            with pytest.raises(ValueError):
                server.close(True, code, reason)
        assert server.is_serving()
        server.close(code=1012, reason="restart")
        await server.wait_closed()
        assert (ws.close_code, ws.close_reason) == (1012, "restart")


@asynchronous
async def test_close_may_leave_connections() -> None:
    server = await serve(echo, HOST, 0)
    async with connect(url(server)) as ws:
        waiting = asyncio.ensure_future(server.wait_closed())
        server.close(close_connections=False)
        await ws.send("still")
        assert await ws.recv() == "still"
        with pytest.raises(OSError):
            await connect(url_of(ws))
        assert not waiting.done()
    await waiting


def url_of(ws: fullduplex.Connection) -> str:
    return f"ws://{HOST}:{ws.remote_address[1]}/"


@asynchronous
async def test_close_waits_for_handlers() -> None:
    going_on = asyncio.Event()
    ended = []

    async def handler(ws: ServerConnection) -> None:
        await ws.wait_closed()
        await going_on.wait()
        ended.append(ws)

    server = await serve(handler, HOST, 0)
    ws = await connect(url(server))
    server.close()
    await ws.wait_closed()
    waiting = asyncio.ensure_future(server.wait_closed())
    await asyncio.sleep(0)
    assert not waiting.done()
    going_on.set()
    await waiting
    assert len(ended) == 1


@asynchronous
async def test_close_during_the_opening_handshake() -> None:
    async def never(ws: ServerConnection, request: Request) -> None:
        await asyncio.Event().wait()

    async with (
        serve(echo, HOST, 0, process_request=never) as server,
        raw_client(server, b"GET / HTTP") as half,
        raw_client(server) as waits,
    ):
        while len(server._opening) < 2 or not any(ws._opening for ws in server._opening):
            await asyncio.sleep(0)
        server.close()
        for raw in (half, waits):
            head = await raw.head()
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 1\r\n" in head
            raw.writer.write_eof()


@asynchronous
async def test_close_while_a_refusal_is_under_way_and_before_tls() -> None:
    server_context, _ = tls()
    for options in ({"ssl": server_context}, {"process_request": lambda ws, request: ws.respond(404, "")}):
        async with serve(echo, HOST, 0, **options) as server, raw_client(server) as raw:
            while not server._opening:
                await asyncio.sleep(0)
            if "ssl" not in options:
                await raw.head()
            server.close()


@asynchronous
async def test_starting_is_cancelled_anywhere(loop_factory: LoopFactory) -> None:
    async def once() -> None:
        async with serve(echo, "localhost", 0):
            pass

    assert await cancel_everywhere(once) >= 1


@asynchronous
async def test_a_server_that_could_not_start_can_be_started_again() -> None:
    async with serve(echo, HOST, 0) as other:
        server = serve(echo, HOST, port_of(other))
        with pytest.raises(OSError, match="cannot listen"):
            await server
        with pytest.raises(OSError, match="cannot listen"):
            await server
    await server
    server.close()
    await server.wait_closed()


# Where to listen.


@asynchronous
async def test_a_given_socket_and_unix(tmp_path: Path) -> None:
    sock = socket.create_server((HOST, 0))
    async with serve(echo, sock=sock) as server, connect(url(server)) as ws:
        await (await ws.ping())
    with pytest.raises(ValueError, match="not both"):
        await serve(echo, HOST, sock=sock)
    path = tmp_path / "socket"
    async with unix_serve(echo, path, subprotocols=["a"]), unix_connect(path, subprotocols=["a"]) as ws:
        assert ws.subprotocol == "a"
        assert ws.remote_address == str(path)
        await ws.send("x")
        assert await ws.recv() == "x"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "given"))
    async with unix_serve(echo, sock=sock), unix_connect(tmp_path / "given") as ws:
        assert ws.request is not None
        assert ws.request.headers["Host"] == "localhost"
    with pytest.raises(TypeError):
        unix_serve(None, path)  # and no socket is left open
    unix_serve(echo, path)  # nor here


@asynchronous
async def test_several_hosts() -> None:
    async with serve(echo, [HOST, "127.0.0.2"], 0) as server:
        assert len(server.sockets) == 2
        for host in (HOST, "127.0.0.2"):
            async with connect(f"ws://{host}:{port_of(server)}") as ws:
                assert ws.remote_address[0] == host


def test_arguments() -> None:
    with pytest.raises(TypeError, match="handler or a listener"):
        serve()
    with pytest.raises(TypeError, match="handler or a listener"):
        serve(echo, listener=fullduplex.Listener)
    with pytest.raises(TypeError):
        serve(echo, origins="http://example.com")


# Handlers.


@asynchronous
async def test_a_handler_that_raises(loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(ws: ServerConnection) -> None:
        if await ws.recv() == "fail":
            raise ValueError("a mistake")
        await ws.send("fine")

    caplog.clear()
    async with serve(handler, HOST, 0) as server:
        async with connect(url(server)) as ws:
            await ws.send("fail")
            with pytest.raises(ConnectionClosedError) as caught:
                await ws.recv()
            assert caught.value.code == 1011
        async with connect(url(server)) as ws:
            await ws.send("go on")
            assert await ws.recv() == "fine"
            await ws.wait_closed()
            assert ws.close_code == 1000
    (record,) = errors(caplog)
    assert record.exc_info is not None
    assert "a mistake" in str(record.exc_info[1])
    assert record.name == "fullduplex.server"


@asynchronous
async def test_a_handler_that_is_none(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(lambda ws: None, HOST, 0) as server, connect(url(server)) as ws:  # type: ignore[arg-type, return-value]
        await ws.wait_closed()
        assert ws.close_code == 1011
    assert len(errors(caplog)) == 1


@asynchronous
async def test_a_handler_whose_connection_closes_has_not_failed(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(ws: ServerConnection) -> None:
        await ws.recv()

    async with serve(handler, HOST, 0) as server, connect(url(server)) as ws:
        await ws.close(4000)
    assert not errors(caplog)


@asynchronous
async def test_a_handler_that_fails_with_another_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(echo, HOST, 0) as server:
        other = await connect(url(server))
        await other.close()

        async def handler(ws: ServerConnection) -> None:
            await other.send("x")

        async with serve(handler, HOST, 0) as proxy, connect(url(proxy)) as ws:
            await ws.wait_closed()
            assert ws.close_code == 1011
    (record,) = errors(caplog)
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ConnectionClosed)


@asynchronous
async def test_a_handler_that_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(ws: ServerConnection) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await ws.recv()

    async with serve(handler, HOST, 0) as server, connect(url(server)) as ws:
        await ws.wait_closed()
        assert ws.close_code == 1001
    assert not errors(caplog)


@asynchronous
async def test_handlers_see_what_serve_and_the_hooks_have_set(loop_factory: LoopFactory) -> None:
    seen = []

    async def handler(ws: ServerConnection) -> None:
        seen.append(variable.get())
        variable.set("handler")

    def plain(ws: ServerConnection, request: Request) -> None:
        seen.append(variable.get())
        if request.path == "/set":
            variable.set("request")

    async def later(ws: ServerConnection, request: Request, response: Response) -> None:
        seen.append(variable.get())
        await asyncio.sleep(0)
        variable.set(variable.get() + "+response")

    def select(ws: ServerConnection, offered: Any) -> str | None:
        variable.set(variable.get() + "+select")
        return None

    variable.set("serve")
    server = serve(handler, HOST, 0, process_request=plain, process_response=later, select_subprotocol=select)
    variable.set("other")
    async with server:
        for path in ("", "set", ""):
            async with connect(url(server) + path):
                pass
    plainly = ["serve", "serve+select", "serve+select+response"]
    assert seen == [*plainly, "serve", "request+select", "request+select+response", *plainly]


@asynchronous
async def test_eager_tasks() -> None:
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("needs Python 3.12")
    asyncio.get_running_loop().set_task_factory(factory)

    async def greet(ws: ServerConnection) -> None:
        await ws.send("hello")

    async def hook(ws: ServerConnection, request: Request) -> None:
        pass

    for options in ({}, {"process_request": hook}):
        async with serve(greet, HOST, 0, **options) as server, connect(url(server)) as ws:  # type: ignore[arg-type]
            assert await ws.recv() == "hello"


# Hooks.


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    async def hook(*args: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args)

    return hook


KINDS = pytest.mark.parametrize("kind", [plain, coroutine])


@KINDS
@asynchronous
async def test_process_request(kind: Callable[..., Any], loop_factory: LoopFactory) -> None:
    def process(ws: ServerConnection, request: Request) -> Response | None:
        if request.path == "/teapot":
            return ws.respond(418, "short and stout")
        if request.path == "/odd":
            return Response(599, "Odd", fullduplex.Headers({"X-Odd": "1"}), b"body")
        if request.path == "/own":
            return ws.respond(499, "own")
        assert request.headers["Authorization"]
        return None

    async with serve(echo, HOST, 0, process_request=kind(process)) as server:
        for path, status, body in (("teapot", 418, b"short and stout"), ("odd", 599, b"body"), ("own", 499, b"own")):
            with pytest.raises(InvalidStatus) as caught:
                await connect(url(server) + path)
            response = caught.value.response
            assert (response.status_code, response.body) == (status, body)
            assert response.headers["Connection"] == "close"
            assert response.headers["Content-Length"] == str(len(body))
            assert "Date" in response.headers
        async with connect(url(server), additional_headers={"Authorization": "x"}) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"


@KINDS
@asynchronous
async def test_process_response(kind: Callable[..., Any]) -> None:
    def process(ws: ServerConnection, request: Request, response: Response) -> Response | None:
        if request.path == "/replace":
            return ws.respond(410, "gone")
        response.headers["X-Added"] = "1"
        return None

    async with serve(echo, HOST, 0, process_response=kind(process)) as server:
        async with connect(url(server)) as ws:
            assert ws.response is not None
            assert ws.response.headers["X-Added"] == "1"
        with pytest.raises(InvalidStatus, match="410"):
            await connect(url(server) + "replace")
        response = await refusal(server, origin="http://example.com")
        assert (response.status_code, response.headers["X-Added"]) == (403, "1")


@pytest.mark.parametrize("hook", [None, lambda ws, request: None])
@pytest.mark.parametrize("at", [1000, 20])
@pytest.mark.parametrize("compression", ["deflate", None])
@asynchronous
async def test_request_and_response_are_what_went_over_the_wire(hook: Any, at: int, compression: Any) -> None:
    """However they are kept meanwhile."""
    request = REQUEST[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\nX-Y: \xe9\r\n\r\n"
    options: dict[str, Any] = {"process_request": hook, "compression": compression, "subprotocols": ["a"]}
    async with serve(echo, HOST, 0, **options) as server, raw_client(server, request[:at]) as raw:
        await until(lambda: server.statistics().accepted == 1)
        raw.writer.write(request[at:])
        head = await raw.head()
        (ws,) = server.connections
        assert ws.response is not None
        assert ws.response.serialize() == head
        assert ws.response is ws.response
        assert ws.request == HeadReader(Request).feed(request)
        assert ws.request is ws.request


@KINDS
@pytest.mark.parametrize("name", ["process_request", "process_response"])
@pytest.mark.parametrize("mistake", ["raises", "returns"])
@asynchronous
async def test_a_hook_that_fails(
    kind: Callable[..., Any], name: str, mistake: str, caplog: pytest.LogCaptureFixture
) -> None:
    def process(ws: ServerConnection, *args: Any) -> Any:
        if ws.request is not None and ws.request.path == "/":
            if mistake == "raises":
                raise ValueError("a mistake")
            return (200, [], b"")
        return None

    options: dict[str, Any] = {name: kind(process)}
    async with serve(echo, HOST, 0, **options) as server:
        response = await refusal(server)
        assert response.status_code == 500
        assert b"mistake" not in response.body
        (record,) = errors(caplog)
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ValueError if mistake == "raises" else TypeError)
        async with connect(url(server) + "fine") as ws:
            await (await ws.ping())


@KINDS
@asynchronous
async def test_a_response_that_cannot_be_sent(kind: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    def process(ws: ServerConnection, request: Request, response: Response) -> None:
        response.reason_phrase = "a\r\nb"

    async with serve(echo, HOST, 0, process_response=kind(process)) as server:
        assert (await refusal(server)).status_code == 500
    assert "cannot be sent" in caplog.text


@KINDS
@asynchronous
async def test_frames_right_behind_the_request_are_not_lost(
    kind: Callable[..., Any], loop_factory: LoopFactory
) -> None:
    hooks: dict[str, Any] = {"process_request": kind(lambda *_: None), "process_response": kind(lambda *_: None)}
    glued = REQUEST + encode(TEXT, b"1", mask=True) + encode(TEXT, b"2", mask=True) + encode(3, mask=True)
    async with serve(echo, HOST, 0, **hooks) as server, raw_client(server, glued) as raw:
        await raw.head()
        assert [await raw.frame(), await raw.frame()] == [Frame(TEXT, b"1"), Frame(TEXT, b"2")]
        frame = await raw.frame()
        assert frame is not None
        assert frame.payload[:2] == b"\x03\xea"
        assert await raw.frame() is None


@asynchronous
async def test_frames_that_come_while_a_hook_waits() -> None:
    going_on = asyncio.Event()

    async def hook(ws: ServerConnection, request: Request) -> None:
        await going_on.wait()

    async with serve(echo, HOST, 0, process_request=hook) as server, raw_client(server) as raw:
        while not any(ws._opening for ws in server._opening):
            await asyncio.sleep(0)
        raw.write(encode(TEXT, b"1", mask=True))
        await asyncio.sleep(0)
        going_on.set()
        await raw.head()
        assert await raw.frame() == Frame(TEXT, b"1")


@asynchronous
async def test_a_hook_whose_client_leaves(caplog: pytest.LogCaptureFixture) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hook(ws: ServerConnection, request: Request) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with serve(echo, HOST, 0, process_request=hook) as server, raw_client(server):
        await begun.wait()
        (ws,) = server._opening
        ws.link.abort("network", "as the engine does")
        await cancelled.wait()


@pytest.mark.parametrize("stubborn", [False, True])
@asynchronous
async def test_a_hook_that_takes_too_long(stubborn: bool) -> None:
    async def hook(ws: ServerConnection, request: Request) -> Response | None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not stubborn:
                raise
        return ws.respond(404, "too late")

    async with serve(echo, HOST, 0, process_request=hook, open_timeout=0.05) as server, raw_client(server) as raw:
        assert (await raw.head()).startswith(b"HTTP/1.1 408 ")
        raw.writer.write_eof()
        assert b"HTTP" not in await raw.reader.read()


@asynchronous
async def test_a_request_that_takes_too_long() -> None:
    server_context, _ = tls()
    async with serve(echo, HOST, 0, open_timeout=0.05) as server, raw_client(server, b"GET /") as raw:
        assert (await raw.head()).startswith(b"HTTP/1.1 408 ")
    async with (
        serve(echo, HOST, 0, open_timeout=0.05, ssl=server_context) as server,
        raw_client(server, b"") as raw,
    ):
        assert await raw.reader.read() == b""
    async with serve(echo, HOST, 0, open_timeout=None) as server, connect(url(server)) as ws:
        await (await ws.ping())


@pytest.mark.parametrize("secure", [False, True])
@asynchronous
async def test_a_byte_now_and_then_wins_no_time(secure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    heard = b""

    class Hears(ServerConnection):
        def receive_opening(self, data: bytes) -> None:
            nonlocal heard
            heard += data
            super().receive_opening(data)

    use_clock(monkeypatch, lambda: now)
    server_context, client_context = tls() if secure else (None, None)
    async with (
        serve(echo, HOST, 0, open_timeout=10, ssl=server_context, create_connection=Hears) as server,
        raw_peer(server, client_context, b"") as raw,
    ):
        for count in range(1, 4):
            raw.write(REQUEST[count - 1 : count])
            await until(lambda count=count: heard == REQUEST[:count])  # type: ignore[misc]
            now += 3
            get_engine().tick()
        assert server.statistics().handshakes == 1
        now += 2
        get_engine().tick()
        assert (await raw.head()).startswith(b"HTTP/1.1 408 ")
        assert server.statistics().timed_out == 1
        raw.writer.transport.abort()
        await until(lambda: not server.statistics().handshakes)
        assert server.statistics().rejected == {408: 1}


@asynchronous
async def test_a_request_that_is_not_one() -> None:
    async with serve(echo, HOST, 0) as server:
        for request, status in ((b"hello\r\n\r\n", 400), (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", 405)):
            async with raw_client(server, request) as raw:
                assert (await raw.head()).split()[1] == str(status).encode()
        async with raw_client(server, b"GET / HTTP/1.1\r\n") as raw:
            raw.reset()


@asynchronous
async def test_origins() -> None:
    async with serve(echo, HOST, 0) as server:
        async with connect(url(server), origin=f"http://{HOST}:{port_of(server)}"), connect(url(server)):
            pass
        assert (await refusal(server, origin="http://example.com")).status_code == 403
    async with serve(echo, HOST, 0, origins=["https://example.com"]) as server:
        async with connect(url(server), origin="https://example.com"):
            pass
        assert (await refusal(server)).status_code == 403
    async with serve(echo, HOST, 0, origins=None) as server, connect(url(server), origin="https://example.com"):
        pass


@asynchronous
async def test_subprotocols() -> None:
    def select(ws: ServerConnection, offered: Any) -> str | None:
        assert ws.request is not None
        if ws.request.path == "/fail":
            raise ValueError
        return "wrong" if ws.request.path == "/wrong" else offered[-1] if offered else None

    async with serve(echo, HOST, 0, select_subprotocol=select) as server:
        async with connect(url(server), subprotocols=["a", "b"]) as ws:
            assert ws.subprotocol == "b"
        async with connect(url(server)) as ws:
            assert ws.subprotocol is None
        for path in ("fail", "wrong"):
            with pytest.raises(InvalidStatus, match="500"):
                await connect(url(server) + path, subprotocols=["a"])


# Accepting, and what goes wrong then.


@asynchronous
async def test_limits_of_the_server_as_a_whole() -> None:
    async with serve(echo, HOST, 0, limits=Limits(connections=1)) as server:
        async with connect(url(server)):
            assert (await refusal(server)).status_code == 503
        await until(lambda: not server.connections)
        async with connect(url(server)):
            assert (server.statistics().accepted, server.statistics().opened) == (3, 2)


@asynchronous
async def test_a_connection_that_cannot_be_made(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(ServerConnection):
        def __init__(self, *args: Any) -> None:
            raise ValueError("a mistake")

    async with serve(echo, HOST, 0, create_connection=Wrong) as server, raw_client(server) as raw:
        assert await raw.reader.read() == b""
    assert "cannot serve a connection" in caplog.text


@asynchronous
async def test_a_connection_that_cannot_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel bounds what a poller may hold."""
    limits = Limits(connections=1, connections_per_address=1)
    async with serve(echo, HOST, 0, limits=limits) as server:
        with monkeypatch.context() as patch:
            patch.setattr(get_engine(), "poller", Full(get_engine().poller))
            async with raw_client(server) as raw:
                assert await raw.reader.read() == b""
        assert server.statistics().abandoned == 1
        async with connect(url(server)) as ws:
            await (await ws.ping())


class Full:
    """A poller that takes no more."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller

    def register(self, fd: int, events: int) -> None:
        raise OSError("no space left")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)


def fail(*args: Any) -> None:
    raise OSError("no space left")


@asynchronous
async def test_a_connection_that_has_ended_already(monkeypatch: pytest.MonkeyPatch) -> None:
    server_context, _ = tls()

    def fail(*args: Any, **kwargs: Any) -> ssl.SSLObject:
        raise OSError("it has gone")

    monkeypatch.setattr(server_context, "wrap_bio", fail, raising=False)
    async with serve(echo, HOST, 0, ssl=server_context) as server, raw_client(server) as raw:
        assert await raw.reader.read() == b""


@asynchronous
async def test_a_hook_may_close_the_connection() -> None:
    for kind in (plain, coroutine):
        hook = kind(lambda ws, request: ws.link.abort("local", "go away"))
        async with serve(echo, HOST, 0, process_request=hook) as server, raw_client(server) as raw:
            assert await raw.reader.read() == b""
