"""Against `websockets` and `aiohttp`: their clients and our server, our client and their servers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

import fullduplex
from peers import HOST, echo, port_of, tls, url
from support import asynchronous

websockets = pytest.importorskip("websockets.asyncio")
aiohttp = pytest.importorskip("aiohttp")
web = pytest.importorskip("aiohttp.web")
from websockets.asyncio.client import connect as websockets_connect  # noqa: E402
from websockets.asyncio.server import serve as websockets_serve  # noqa: E402

SIZES = (0, 1, 125, 126, 65535, 65536)
MESSAGES: list[str | bytes] = [kind * size for size in SIZES for kind in ("x", b"\xff")] + ["häß€𐍈"]

pytestmark = pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])


def contexts(secure: bool) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    return tls() if secure else (None, None)


def uri_of(port: int, secure: bool) -> str:
    return f"{'wss://localhost' if secure else f'ws://{HOST}'}:{port}/"


async def talk(ws: Any) -> None:
    """With an echo server, by the verbs that `websockets` and we have in common."""
    for message in MESSAGES:
        await ws.send(message)
        assert await ws.recv() == message
    await ws.send(["frag", "ments", ""])
    assert await ws.recv() == "fragments"
    await ws.send([b"frag", b"", b"ments"])
    assert await ws.recv() == b"fragments"
    assert await (await ws.ping(b"payload")) > 0


# Our server.


@asynchronous
async def test_client_of_websockets(secure: bool) -> None:
    server_context, client_context = contexts(secure)
    codes: asyncio.Queue[int | None] = asyncio.Queue()

    async def handler(ws: fullduplex.ServerConnection) -> None:
        assert await (await ws.ping(b"from the server")) > 0
        try:
            await echo(ws)
        finally:
            await ws.wait_closed()
            codes.put_nowait(ws.close_code)

    async with fullduplex.serve(handler, HOST, 0, ssl=server_context, subprotocols=["b"]) as server:
        uri = uri_of(port_of(server), secure)
        for code in (1000, 1001, 4999):
            async with websockets_connect(
                uri, ssl=client_context, subprotocols=["a", "b"], proxy=None, max_size=None, family=2
            ) as ws:
                assert ws.subprotocol == "b"
                await talk(ws)
                await ws.close(code, "bye")
                assert ws.close_code == code
            assert await codes.get() == code


@asynchronous
async def test_server_closes_a_client_of_websockets(secure: bool) -> None:
    server_context, client_context = contexts(secure)

    async def handler(ws: fullduplex.ServerConnection) -> None:
        await ws.close(4000, "häß€")

    async with fullduplex.serve(handler, HOST, 0, ssl=server_context) as server:
        uri = uri_of(port_of(server), secure)
        async with websockets_connect(uri, ssl=client_context, proxy=None, family=2) as ws:
            await ws.wait_closed()
            assert (ws.close_code, ws.close_reason) == (4000, "häß€")


@asynchronous
async def test_client_of_aiohttp(secure: bool) -> None:
    server_context, client_context = contexts(secure)
    async with (
        fullduplex.serve(echo, HOST, 0, ssl=server_context) as server,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(family=2)) as session,
    ):
        uri = uri_of(port_of(server), secure)
        async with session.ws_connect(uri, ssl=client_context or True, compress=15) as ws:
            for message in MESSAGES:
                if isinstance(message, str):
                    await ws.send_str(message)
                    assert await ws.receive_str() == message
                else:
                    await ws.send_bytes(message)
                    assert await ws.receive_bytes() == message
            (peer,) = server.connections
            pong = await peer.ping()
            await ws.ping()
            await ws.send_str("after the ping")
            assert await ws.receive_str() == "after the ping"
            assert await pong > 0
            await ws.close(code=4000, message=b"bye")
            assert ws.close_code == 4000
        while peer.state is not fullduplex.State.CLOSED:
            await asyncio.sleep(0)
        assert (peer.close_code, peer.close_reason) == (4000, "bye")


# Our client.


async def their_echo(ws: Any) -> None:
    assert await (await ws.ping()) > 0
    async for message in ws:
        await ws.send(message)


@asynccontextmanager
async def websockets_server(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    async with websockets_serve(their_echo, HOST, 0, ssl=context, subprotocols=["b"], max_size=None) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def aiohttp_server(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    async def handler(request: Any) -> Any:
        ws = web.WebSocketResponse(protocols=["b"])
        await ws.prepare(request)
        await ws.ping()
        async for message in ws:
            if message.type is aiohttp.WSMsgType.TEXT:
                await ws.send_str(message.data)
            else:
                await ws.send_bytes(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("library", ["websockets", "aiohttp"])
@asynchronous
async def test_our_client(library: str, secure: bool) -> None:
    server_context, client_context = contexts(secure)
    server: AbstractAsyncContextManager[int] = (websockets_server if library == "websockets" else aiohttp_server)(
        server_context
    )
    async with server as port:
        uri = uri_of(port, secure)
        for code in (1000, 4999):
            async with fullduplex.connect(uri, ssl=client_context, subprotocols=["a", "b"], family=2) as ws:
                assert ws.subprotocol == "b"
                await talk(ws)
                await ws.close(code, "bye")
                assert ws.close_code == (1000 if library == "aiohttp" else code)  # aiohttp echoes no code
                error = ws.close_exc
                assert error is not None
                assert error.sent == fullduplex.Close(code, "bye")


@asynchronous
async def test_our_client_is_refused(secure: bool) -> None:
    server_context, client_context = contexts(secure)
    async with aiohttp_server(server_context) as port:
        with pytest.raises(fullduplex.InvalidStatus) as caught:
            await fullduplex.connect(uri_of(port, secure) + "nowhere", ssl=client_context, family=2)
        response = caught.value.response
        assert (response.status_code, response.body) == (404, b"404: Not Found")


@asynchronous
async def test_our_server_refuses(secure: bool) -> None:
    server_context, client_context = contexts(secure)
    async with fullduplex.serve(echo, HOST, 0, ssl=server_context) as server:
        uri = url(server, "https" if secure else "http").replace(HOST, "localhost")
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(family=2)) as session,
            session.get(uri, ssl=client_context or True) as response,
        ):
            assert response.status == 426
            assert response.headers["Upgrade"] == "websocket"
            assert "only speaks WebSocket" in await response.text()
