"""A worker, in this process: what it has of its parent, and how it closes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from e2e.tools import until
from fullduplex import Server, serve
from fullduplex.cli import post
from fullduplex.cli.post import Patient, Post
from fullduplex.cli.serve import Log
from peers import CLOSE, HOST, REQUEST, Frame, Raw, close_frame, raw_client
from support import asynchronous


def inherited() -> tuple[Post, socket.socket, int]:
    """A post, the parent's end of its channel, and the port of its socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    listening = socket.create_server((HOST, 0))
    port = listening.getsockname()[1]
    return Post(f"{theirs.detach()},{listening.detach()}"), ours, port


@asynchronous
async def test_sockets_and_channel_of_the_parent() -> None:
    post, channel, port = inherited()
    (sock,) = await post.bind()
    with post, channel, sock:
        assert sock.getsockname() == (HOST, port)
        orphaned = asyncio.Event()
        with pytest.raises(BlockingIOError):
            channel.recv(1)
        post.serving(orphaned.set)
        assert len(channel.recv(2)) == 1
        channel.close()
        await orphaned.wait()


@asynchronous
async def test_the_parent_has_ended_already() -> None:
    post, channel, _ = inherited()
    (sock,) = await post.bind()
    channel.close()
    with post, sock:
        orphaned = asyncio.Event()
        post.serving(orphaned.set)
        await orphaned.wait()


@asynchronous
async def test_the_worker_ends_first() -> None:
    post, channel, _ = inherited()
    (sock,) = await post.bind()
    with channel, sock:
        with post:
            post.serving(lambda: pytest.fail("the parent lives"))
        assert channel.recv(2)
        assert channel.recv(2) == b""


@pytest.mark.parametrize("descriptors", ["", "x", "999999"])
def test_no_descriptors(descriptors: str) -> None:
    with pytest.raises((ValueError, OSError)):
        Post(descriptors)


# Closing while somebody knocks.


@asynccontextmanager
async def knocking(request: bytes) -> AsyncIterator[tuple[Server, Raw]]:
    """A server that is closed while a client's opening handshake, of which it has sent this, is under way."""
    log = Log(lambda error: None, quiet=True)
    async with serve(log.echo, HOST, 0, create_connection=Patient) as server, raw_client(server, request) as raw:
        await until(lambda: server._opening)
        yield server, raw


@asynchronous
async def test_who_knocks_is_let_in_and_told_to_come_again() -> None:
    async with knocking(REQUEST[:20]) as (server, raw):
        server.close()
        raw.write(REQUEST[20:])
        assert (await raw.head()).startswith(b"HTTP/1.1 101 ")
        assert await raw.frame() == Frame(CLOSE, (1001).to_bytes(2))
        raw.write(close_frame(1001, mask=True))
        await server.wait_closed()


@asynchronous
async def test_who_knocks_and_says_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "OPENING_GRACE", 0.01)
    async with knocking(REQUEST[:20]) as (server, raw):
        server.close()
        assert (await raw.head()).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("stays", [True, False])
@asynchronous
async def test_patience_is_lost_with_who_still_knocks_only(stays: bool) -> None:
    async with knocking(REQUEST[:20]) as (server, raw):
        (ws,) = server._opening
        assert isinstance(ws, Patient)
        server.close()
        if stays:
            raw.write(REQUEST[20:])
            await raw.head()
            ws._lose_patience()
            assert await raw.frame() == Frame(CLOSE, (1001).to_bytes(2))
            raw.write(close_frame(1001, mask=True))
        else:
            raw.reset()
        await server.wait_closed()
        ws._lose_patience()


@asynchronous
async def test_who_was_refused_is_not_waited_for() -> None:
    async with knocking(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as (server, raw):
        assert (await raw.head()).startswith(b"HTTP/1.1 426 ")
        server.close()
        await server.wait_closed()
