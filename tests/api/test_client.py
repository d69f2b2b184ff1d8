"""`connect`: its arguments, its three uses, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import itertools
import socket
import ssl
from collections.abc import Generator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fullduplex
from fullduplex import (
    Headers,
    InvalidHeader,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    Response,
    ServerConnection,
    backoff,
    connect,
    process_exception,
    serve,
    unix_connect,
    unix_serve,
)
from fullduplex.api import client
from fullduplex.api.client import retry_after
from peers import HOST, Awaited, Raw, answer, cancel_everywhere, echo, encode, port_of, raw_server, tls, url
from support import LoopFactory, asynchronous


def refused(status: int, **headers: str) -> InvalidStatus:
    return InvalidStatus(Response(status, "", Headers(headers)))


def quick() -> Generator[float, None, None]:
    """Delays for tests."""
    return itertools.repeat(0.0)  # type: ignore[return-value]


def test_names_and_defaults_are_those_of_websockets() -> None:
    websockets = pytest.importorskip("websockets.asyncio.client")
    theirs = inspect.signature(websockets.connect.__init__).parameters
    ours = inspect.signature(connect).parameters
    not_yet = {"extensions", "compression", "proxy", "kwargs", "self"}
    different = {"user_agent_header", "process_exception", "logger", "reconnect_delays"}
    for name, parameter in theirs.items():
        if name not in not_yet:
            assert name in ours, name
            if name not in different:
                assert ours[name].default == parameter.default, name


def test_arguments() -> None:
    with pytest.raises(InvalidURI):
        connect("http://localhost/")
    with pytest.raises(ValueError, match="wss"):
        connect("ws://localhost/", ssl=ssl.create_default_context())
    with pytest.raises(ValueError):
        connect("ws://localhost/", additional_headers={"Upgrade": "x"})


# Three uses.


@asynchronous
async def test_await_and_async_with(loop_factory: LoopFactory) -> None:
    async with serve(echo, HOST, 0) as server:
        ws = await connect(url(server))
        await ws.send("x")
        assert await ws.recv() == "x"
        await ws.close()
        async with connect(url(server)) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
        assert ws.close_code == 1000


@asynchronous
async def test_async_for_connects_again(loop_factory: LoopFactory) -> None:
    async def once(ws: ServerConnection) -> None:
        await ws.send(await ws.recv())

    async with serve(once, HOST, 0) as server:
        seen = 0
        connections = aiter(connect(url(server), reconnect_delays=quick))
        async for ws in connections:
            await ws.send(str(seen))
            async for message in ws:
                assert message == str(seen)
            seen += 1
            if seen == 3:
                break
        left = server.connections
        await connections.aclose()  # type: ignore[attr-defined]
        for peer in left:
            await peer.wait_closed()
            assert peer.close_code == 1000


@asynchronous
async def test_async_for_retries_what_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([429, 500, 502, 503, 504, None, 101])
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(delay: float) -> None:
        slept.append(delay)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)

    async def script(raw: Raw) -> None:
        request = await raw.head()
        status = next(answers)
        if status == 101:
            raw.write(answer(request))
            await raw.frame()
        elif status is not None:
            raw.write(b"HTTP/1.1 %d No\r\nRetry-After: 70\r\nContent-Length: 0\r\n\r\n" % status)

    async with raw_server(script) as uri:
        connections = aiter(connect(uri, reconnect_delays=lambda: iter([80.0, 1, 1, 1, 1, 5])))  # type: ignore[arg-type, return-value]
        await anext(connections)
        await connections.aclose()  # type: ignore[attr-defined]
    assert [delay for delay in slept if delay] == [80, 70, 70, 70, 70, 5]


@asynchronous
async def test_async_for_raises_what_does_not_pass() -> None:
    async def script(raw: Raw) -> None:
        await raw.head()
        raw.write(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")

    other = KeyError()
    async with raw_server(script) as uri:
        with pytest.raises(InvalidStatus):
            await anext(aiter(connect(uri)))
        with pytest.raises(KeyError) as caught:
            await anext(aiter(connect(uri, process_exception=lambda error: other)))
        assert isinstance(caught.value.__cause__, InvalidStatus)


@asynchronous
async def test_delays_begin_anew_after_a_stable_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    def delays() -> Generator[float, None, None]:
        nonlocal made
        made += 1
        return quick()

    monkeypatch.setattr(client, "STABLE", 0.0)
    async with serve(echo, HOST, 0) as server:
        connections = aiter(connect(url(server), reconnect_delays=delays))
        for _ in range(3):
            await anext(connections)
        await connections.aclose()  # type: ignore[attr-defined]
    assert made == 3


def test_backoff() -> None:
    bounds = [1, 2, 4, 8, 16, 30, 30]
    delays = [list(itertools.islice(backoff(), len(bounds))) for _ in range(200)]
    for bound, column in zip(bounds, zip(*delays, strict=True), strict=True):
        assert 0 <= min(column) < bound / 4
        assert bound * 3 / 4 < max(column) <= bound


def test_process_exception() -> None:
    passes = [OSError(), TimeoutError(), refused(503), ConnectionResetError()]
    for error in passes:
        assert process_exception(error) is None
    for error in (refused(403), ssl.SSLCertVerificationError(), InvalidMessage("x"), ValueError()):
        assert process_exception(error) is error
    ended = InvalidMessage("x")
    ended.__cause__ = EOFError()
    assert process_exception(ended) is None


def test_retry_after() -> None:
    header = "Retry-After"
    assert retry_after(OSError()) == retry_after(refused(503)) == 0
    assert retry_after(refused(503, **{header: "120"})) == 120
    for wrong in ("", "-1", "soon", "٣", "9" * 30, "Mon, 01 Jan 0001 00:00:00 -0000", "Fri, 31 Dec 9999 99:00:00 GMT"):
        value = retry_after(InvalidStatus(Response(503, "", _unchecked(wrong))))
        assert value == 0
    past, future = formatdate(0, usegmt=True), formatdate(2**32, usegmt=True)
    assert retry_after(refused(503, **{header: past})) == 0
    assert retry_after(refused(503, **{header: future})) == 3600


def _unchecked(value: str) -> Headers:
    headers = Headers()
    headers.append_checked("Retry-After", value)
    return headers


@given(st.text(max_size=40) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,6} [\d:]{0,9} [-+A-Z0-9]{0,6}"))
def test_retry_after_never_raises(value: str) -> None:
    assert retry_after(InvalidStatus(Response(503, "", _unchecked(value)))) >= 0


# Connecting.


@asynchronous
async def test_nobody_listens() -> None:
    with socket.create_server((HOST, 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        await connect(f"ws://{HOST}:{port}/")
    with pytest.raises(OSError):
        await connect("ws://host.invalid/")


@asynchronous
async def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(echo, HOST, 0) as server:
        port = port_of(server)
        good = (socket.AF_INET, socket.SOCK_STREAM, 0, "", (HOST, port))
        bad = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.2", port))
        wrong_family = (socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", port, 0, 0))
        no_family = (12345, socket.SOCK_STREAM, 0, "", (HOST, port))
        found: list[Any] = []

        async def find_addresses(host: str, port: int, *, family: int) -> list[Any]:
            return found

        monkeypatch.setattr(client, "find_addresses", find_addresses)
        found[:] = [no_family, wrong_family, bad, good]
        async with connect(url(server), local_addr=(HOST, 0)) as ws:
            await (await ws.ping())
        found[:] = [no_family, bad]
        with pytest.raises(OSError, match="cannot connect to any address: "):
            await connect(url(server))


@asynchronous
async def test_a_server_that_refuses_is_not_asked_at_its_next_address() -> None:
    asked = 0

    async def script(raw: Raw) -> None:
        nonlocal asked
        asked += 1
        raw.reset()

    async with raw_server(script) as uri:
        with pytest.raises((OSError, InvalidMessage)):
            await connect(uri)
    assert asked == 1


@asynchronous
async def test_where_to_connect(tmp_path: Path) -> None:
    async with serve(echo, HOST, 0) as server:
        port = port_of(server)
        async with connect("ws://example.com/", host=HOST, port=port) as ws:
            assert ws.request is not None
            assert ws.request.headers["Host"] == "example.com"
        sock = socket.create_connection((HOST, port))
        async with connect("ws://example.com/", sock=sock) as ws:
            await (await ws.ping())
        async with connect(f"ws://localhost:{port}/", family=socket.AF_INET) as ws:
            await (await ws.ping())
    with pytest.raises(FileNotFoundError):
        await unix_connect(tmp_path / "nothing")
    with pytest.raises(OSError, match="too long"):
        await unix_connect("x" * 200)


@asynchronous
async def test_a_connection_that_cannot_be_made() -> None:
    class Wrong(fullduplex.ClientConnection):
        def __init__(self, *args: Any) -> None:
            raise ValueError("a mistake")

    async with serve(echo, HOST, 0) as server:
        with pytest.raises(ValueError, match="a mistake"):
            await connect(url(server), create_connection=Wrong)


@pytest.mark.parametrize("secure", [False, True])
@asynchronous
async def test_connecting_is_cancelled_anywhere(secure: bool, loop_factory: LoopFactory) -> None:
    server_context, client_context = tls() if secure else (None, None)

    async def later(ws: ServerConnection, request: object) -> None:
        await asyncio.sleep(0)

    async with serve(echo, HOST, 0, ssl=server_context, process_request=later) as server:

        async def once() -> None:
            uri = f"{'wss' if secure else 'ws'}://{HOST}:{port_of(server)}/"
            async with connect(uri, ssl=client_context, server_hostname="localhost") as ws:
                await ws.send("x")
                assert await ws.recv() == "x"

        assert await cancel_everywhere(once) >= 3
        while server.connections or server._opening:
            await asyncio.sleep(0)


@asynchronous
async def test_a_refusal_is_given_whole() -> None:
    async def script(raw: Raw) -> None:
        await raw.head()
        raw.write(b"HTTP/1.1 402 Pay\r\nX-Price: 5\r\nTransfer-Encoding: chunked\r\n\r\n")
        raw.write(b"3\r\nbod\r\n1\r\ny\r\n0\r\n\r\n")

    async with raw_server(script) as uri:
        with pytest.raises(InvalidStatus, match="402") as caught:
            await connect(uri)
    response = caught.value.response
    assert (response.reason_phrase, response.headers["X-Price"], response.body) == ("Pay", "5", b"body")


@asynchronous
async def test_a_refusal_that_ends_with_tcp() -> None:
    async def script(raw: Raw) -> None:
        await raw.head()
        raw.write(b"HTTP/1.1 402 Pay\r\n\r\nbo")
        raw.write(b"dy")
        raw.writer.write_eof()
        await raw.reader.read()

    async with raw_server(script) as uri:
        with pytest.raises(InvalidStatus) as caught:
            await connect(uri)
    assert caught.value.response.body == b"body"


@asynchronous
async def test_a_refusal_that_does_not_end() -> None:
    async def script(raw: Raw) -> None:
        await raw.head()
        raw.write(b"HTTP/1.1 402 Pay\r\n\r\nbody")
        await raw.reader.read()

    async with raw_server(script) as uri:
        with pytest.raises(InvalidStatus) as caught:
            await connect(uri, open_timeout=0.1)
    assert caught.value.response.body == b"body"


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 101 Sw"])
@asynchronous
async def test_a_server_that_says_too_little(said: bytes) -> None:
    async def silent(raw: Raw) -> None:
        await raw.head()
        raw.write(said)
        await raw.reader.read()

    async def leaves(raw: Raw) -> None:
        await raw.head()
        raw.write(said)
        raw.writer.write_eof()
        await raw.reader.read()

    async with raw_server(silent) as uri:
        with pytest.raises(TimeoutError, match="the opening handshake took more"):
            await connect(uri, open_timeout=0.05)
    async with raw_server(leaves) as uri:
        with pytest.raises(InvalidMessage, match="connection ended"):
            await connect(uri, open_timeout=None)


@asynchronous
async def test_a_timeout_of_tcp_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        raise TimeoutError(errno.ETIMEDOUT, "TCP's own")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    for timeout in (None, 10):
        with pytest.raises(TimeoutError, match="TCP's own"):
            await connect("ws://localhost/", open_timeout=timeout)


@asynchronous
async def test_a_server_that_answers_wrong() -> None:
    async def script(raw: Raw) -> None:
        raw.write(answer(await raw.head()).replace(b"Accept: ", b"Accept: x"))
        await raw.reader.read()

    async def nonsense(raw: Raw) -> None:
        raw.write(b"220 smtp\r\n")
        await raw.reader.read()

    async with raw_server(script) as uri:
        with pytest.raises(InvalidHeader):
            await connect(uri)
    async with raw_server(nonsense) as uri:
        with pytest.raises(InvalidMessage):
            await connect(uri)


@asynchronous
async def test_the_last_word_and_cancelling_come_at_once() -> None:
    """Whatever the answer is, nobody is left with a connection, nor an exception, that he does not know of."""

    async def opens(raw: Raw) -> None:
        raw.write(answer(await raw.head()) + encode(1, b"glued"))
        await raw.reader.read()

    async def refuses(raw: Raw) -> None:
        await raw.head()
        raw.write(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        await raw.reader.read()

    for script in (opens, refuses):
        async with raw_server(script) as uri:
            cancelled = 0
            for cancel_at in (1, 2, 3):
                connector = connect(uri)
                attempt = Awaited(connector._open(), cancel_at, late=True)
                with contextlib.suppress(asyncio.CancelledError, InvalidStatus):
                    await asyncio.ensure_future(asyncio.wait_for(attempt, None))
                connection = connector._connection
                if attempt.count >= cancel_at:
                    cancelled += 1
                    assert connection is None or connection.link.is_closed()
                elif connection is not None:
                    connection.link.abort("local", "")
            assert cancelled


# TLS.


@asynchronous
async def test_tls_verifies_by_default(monkeypatch: pytest.MonkeyPatch, loop_factory: LoopFactory) -> None:
    server_context, client_context = tls()
    async with serve(echo, HOST, 0, ssl=server_context) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
            await connect(url(server, "wss"))
        with pytest.raises(ssl.SSLCertVerificationError, match="127"):
            await connect(f"wss://{HOST}:{port_of(server)}/", ssl=client_context)
        async with connect(f"wss://{HOST}:{port_of(server)}/", ssl=client_context, server_hostname="localhost") as ws:
            await ws.send("x" * 100_000)
            assert await ws.recv() == "x" * 100_000
        monkeypatch.setattr(ssl, "create_default_context", lambda: client_context)
        async with connect(url(server, "wss")) as ws:
            await (await ws.ping())


@asynchronous
async def test_tls_and_plain_ports_taken_for_each_other() -> None:
    server_context, client_context = tls()
    async with serve(echo, HOST, 0) as server:
        with pytest.raises(ssl.SSLError):
            await connect(url(server, "wss"), ssl=client_context)
    async with serve(echo, HOST, 0, ssl=server_context) as server:
        with pytest.raises((InvalidMessage, ConnectionResetError)) as caught:
            await connect(url(server))
        if isinstance(caught.value, InvalidMessage) and caught.value.__cause__ is None:
            assert caught.value.__notes__ == ["the server speaks TLS: use wss://"]

    async def alert(raw: Raw) -> None:
        raw.write(b"\x15\x03\x01\x00\x02\x02\x46")
        await raw.reader.read()

    async with raw_server(alert) as uri:
        with pytest.raises(InvalidMessage) as noted:
            await connect(uri)
        assert noted.value.__notes__ == ["the server speaks TLS: use wss://"]


@asynchronous
async def test_tls_takes_too_long() -> None:
    _, client_context = tls()

    async def silent(raw: Raw) -> None:
        await raw.reader.read()

    async with raw_server(silent) as uri:
        with pytest.raises(TimeoutError, match="opening handshake"):
            await connect(uri.replace("ws", "wss"), ssl=client_context, open_timeout=0.05)


@asynchronous
async def test_unix_with_tls(tmp_path: Path) -> None:
    server_context, client_context = tls()
    path = tmp_path / "socket"
    connector = unix_connect(path, "wss://localhost/", ssl=client_context)
    async with unix_serve(echo, path, ssl=server_context), connector as ws:
        await (await ws.ping())


@asynchronous
async def test_expiry_is_the_connectors() -> None:
    with contextlib.suppress(OSError):
        connector = connect("ws://localhost:1/")
        async with connector:
            pass
    assert connector._connection is not None
    connector._connection.opening_expired()
