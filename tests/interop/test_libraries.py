"""Our client and our server with those of `websockets` and `aiohttp`, plain and over TLS."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from fullduplex import ConnectionClosed, InvalidStatus, connect, serve
from interop.libraries import LIBRARIES, Data, Meeting, Wish, aiohttp, aiohttp_server
from peers import HOST, echo, port_of
from support import LoopFactory, asynchronous

SIZES = (0, 1, 125, 126, 127, 65_535, 65_536, 1_048_575, 1_048_576)
TAILS = ("", "a", "é", "€")


def text_of(size: int) -> str:
    """Text of so many bytes, in characters of as many bytes as can be."""
    return "😀" * (size // 4) + TAILS[size % 4]


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def secure(request: pytest.FixtureRequest) -> bool:
    value: bool = request.param
    return value


@pytest.fixture(params=[True, False], ids=["our_server", "our_client"])
def we_serve(request: pytest.FixtureRequest) -> bool:
    value: bool = request.param
    return value


@pytest.fixture(params=LIBRARIES)
def meeting(
    request: pytest.FixtureRequest, we_serve: bool, secure: bool, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> Meeting:
    return Meeting(request.param, we_serve, contexts if secure else None)


@pytest.mark.parametrize("compression", [False, True], ids=["uncompressed", "compressed"])
@asynchronous
async def test_messages(meeting: Meeting, compression: bool, loop_factory: LoopFactory) -> None:
    async with meeting(compression=compression) as (ours, theirs):
        assert ours.response is not None
        assert ("Sec-WebSocket-Extensions" in ours.response.headers) == compression
        for size in SIZES:
            for message in (bytes(i & 255 for i in range(251)) * (size // 251 + 1))[:size], text_of(size):
                _, got = await asyncio.gather(ours.send(message), theirs.recv())
                assert got == message
                _, got = await asyncio.gather(theirs.send(message), ours.recv())
                assert got == message


@pytest.mark.parametrize(
    "parts",
    [["a", "", "€", "😀" * 20_000, ""], [b"", b"\x00" * 125, b"\xff" * 126, bytes(70_000)], [""]],
    ids=["text", "binary", "empty"],
)
@asynchronous
async def test_fragments(meeting: Meeting, parts: list[Data]) -> None:
    whole = type(parts[0])().join(parts)  # type: ignore[arg-type]
    async with meeting() as (ours, theirs):
        _, got = await asyncio.gather(ours.send(parts), theirs.recv())
        assert got == whole
        if LIBRARIES[meeting.library].sends_fragments:
            _, got = await asyncio.gather(theirs.send_fragments(parts), ours.recv())
            assert got == whole
        await ours.send("next")
        assert await theirs.recv() == "next"


@asynchronous
async def test_our_pings(meeting: Meeting) -> None:
    async with meeting() as (ours, theirs):
        hearing = asyncio.ensure_future(theirs.recv())  # aiohttp answers while it receives
        for payload in (b"", b"\x00", bytes(range(125))):
            assert await (await ours.ping(payload)) > 0
        await ours.send("enough")
        assert await hearing == "enough"


@asynchronous
async def test_their_pings(meeting: Meeting) -> None:
    async with meeting(autoping=False) as (_, theirs):
        for payload in (b"", b"\x00", bytes(range(125))):
            await theirs.ping(payload)


CLOSES = [(1000, ""), (1001, "gone"), (1011, "é" * 61), (3000, "x" * 123), (4999, "€")]


@pytest.mark.parametrize(("code", "reason"), [*CLOSES, (None, "")])
@asynchronous
async def test_we_close(meeting: Meeting, code: int | None, reason: str) -> None:
    async with meeting() as (ours, theirs):
        ours.send("last")
        closing = asyncio.ensure_future(ours.close(code, reason))
        assert await theirs.recv() == "last"
        assert await theirs.closed() == (code or 1005, reason)
        await closing
        error = ours.close_exc
        assert error is not None
        assert error.sent is not None
        assert error.rcvd is not None
        assert (error.who, error.sent.code, error.sent.reason) == ("local", code or 1005, reason)
        assert not error.rcvd_then_sent


@pytest.mark.parametrize(("code", "reason"), CLOSES)
@asynchronous
async def test_they_close(meeting: Meeting, code: int, reason: str) -> None:
    async with meeting() as (ours, theirs):
        await theirs.send("last")
        closing = asyncio.ensure_future(theirs.close(code, reason))
        assert await ours.recv() == "last"
        with pytest.raises(ConnectionClosed) as caught:
            await ours.recv()
        assert (caught.value.code, caught.value.reason, caught.value.who) == (code, reason, "remote")
        assert caught.value.rcvd_then_sent
        await closing
        await ours.wait_closed()


@pytest.mark.parametrize(
    ("offered", "supported", "selected"),
    [(["b", "c"], ["a", "b"], "b"), (["only"], ["only"], "only"), (["a"], [], None)],
)
@asynchronous
async def test_subprotocols(meeting: Meeting, offered: list[str], supported: list[str], selected: str | None) -> None:
    ours, theirs = (supported, offered) if meeting.we_serve else (offered, supported)
    async with meeting(ours=ours, theirs=theirs) as (us, them):
        assert us.subprotocol == them.subprotocol == selected


# What is no WebSocket.


@asynchronous
async def test_our_client_is_refused(secure: bool, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server_context, client_context = contexts if secure else (None, None)
    async with aiohttp_server(lambda peer: None, Wish(server_context)) as port:
        uri = f"{'wss' if secure else 'ws'}://localhost:{port}/nowhere"
        with pytest.raises(InvalidStatus) as caught:
            await connect(uri, ssl=client_context, host=HOST)
        response = caught.value.response
        assert (response.status_code, response.body) == (404, b"404: Not Found")


@asynchronous
async def test_our_server_refuses(secure: bool, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server_context, client_context = contexts if secure else (None, None)
    async with (
        serve(echo, HOST, 0, ssl=server_context) as server,
        aiohttp.ClientSession() as session,
        session.get(
            f"{'https' if secure else 'http'}://localhost:{port_of(server)}/", ssl=client_context or True
        ) as response,
    ):
        assert response.status == 426
        assert response.headers["Upgrade"] == "websocket"
        assert "only speaks WebSocket" in await response.text()
