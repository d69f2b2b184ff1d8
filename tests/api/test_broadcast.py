"""One message to many connections."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from api.stuck import CHUNK, stuck, until
from fullduplex import Policy, ServerConnection, State, broadcast, connect, serve
from fullduplex.wire import codec
from fullduplex.wire.extensions import Extension, ExtensionFactory, Parameters, Payload
from peers import HOST, echo, url
from support import asynchronous


@asynchronous
async def test_broadcast() -> None:
    async with serve(echo, HOST, 0) as server, connect(url(server)) as a, connect(url(server)) as b:
        connections: set[Any] = set(server.connections)
        broadcast(connections, "text")
        broadcast(connections, memoryview(b"b-y-t-e-s")[::2])
        for ws in (a, b):
            assert [await ws.recv(), await ws.recv()] == ["text", b"bytes"]
        broadcast([a, b], "from clients", policy=Policy.CLOSE)
        assert a.backlog is None  # for who is quick, a policy costs nothing
        assert await a.recv() == await b.recv() == "from clients"
        with pytest.raises(TypeError):
            broadcast(connections, ["x"])  # type: ignore[arg-type]
        await a.close()
        broadcast([a, b], "to who is open", raise_exceptions=True)
        assert await b.recv() == "to who is open"


@asynchronous
async def test_one_frame_for_all_that_can_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = 0
    real = codec.append_frame

    def counting(*args: Any) -> None:
        nonlocal frames
        frames += 1
        real(*args)

    monkeypatch.setattr("fullduplex.api.broadcast.append_frame", counting)
    text = "the same for everybody, " * 20
    async with serve(echo, HOST, 0) as server, AsyncExitStack() as clients:
        plain = [await clients.enter_async_context(connect(url(server), compression=None)) for _ in range(3)]
        packed = [await clients.enter_async_context(connect(url(server))) for _ in range(3)]
        assert all(ws.session.extension for ws in packed)
        broadcast(server.connections, text)
        assert frames == 2
        for ws in (*plain, *packed):
            assert await ws.recv() == text


class Reversing(Extension):
    """An extension that shares with nobody."""

    __slots__ = ()

    def encode(self, first: int, payload: Payload, compress: bool | None) -> tuple[int, Payload]:
        return first, bytes(payload)[::-1]


class ReversingFactory(ExtensionFactory):
    name = "reverse"

    def accept(self, offer: Parameters) -> tuple[Parameters, Extension]:
        return (), Reversing()

    def agree(self, offer: Parameters, answer: Parameters) -> Extension:
        return Extension()


@asynchronous
async def test_who_shares_with_nobody() -> None:
    options: dict[str, Any] = {"compression": None, "extensions": [ReversingFactory()]}
    async with serve(echo, HOST, 0, **options) as server, connect(url(server), **options) as ws:
        broadcast(server.connections, "abc")
        assert await ws.recv() == "cba"


@asynchronous
async def test_who_is_in_the_middle_of_a_message_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(echo, HOST, 0) as server, connect(url(server)) as ws:

        async def parts() -> Any:
            yield "a"
            broadcast([ws], "passed over")
            with pytest.raises(ExceptionGroup):
                broadcast([ws], "passed over", raise_exceptions=True)
            yield "b"

        await ws.send(parts())
        assert await ws.recv() == "ab"
    assert caplog.text.count("skipped broadcast") == 2


# Peers that are slow. What each policy does, and from where: tests/api/test_slow.py, tests/e2e/test_slow.py.


@asynchronous
async def test_each_connection_has_its_policy(tmp_path: Path) -> None:
    async with stuck(tmp_path, Policy.DROP_NEWEST) as (ws, peer):
        broadcast([ws], "dropped")
        broadcast([ws], "also", policy=Policy.DROP_NEWEST)
        broadcast([ws], "held", policy=Policy.DROP_OLDEST)
        broadcast([ws], "replaced", policy=Policy.LATEST, key="k")
        broadcast([ws], b"latest", policy=Policy.LATEST, key="k")
        assert ws.dropped == 3
        assert await peer.rest() == ["held", "latest"]


@asynchronous
async def test_a_policy_may_be_named_for_one_broadcast(tmp_path: Path) -> None:
    async with stuck(tmp_path) as (ws, peer):
        broadcast([ws], "sent")
        assert ws.backlog is None
        broadcast([ws], "dropped", policy=Policy.DROP_NEWEST)
        assert ws.policy is Policy.WAIT
        broadcast([ws], "sent, too")
        ws.policy = Policy.DROP_NEWEST
        broadcast([ws], "and this", policy=Policy.WAIT)
        assert await peer.rest() == ["sent", "sent, too", "and this"]
        assert ws.dropped == 1
        broadcast([ws], "it is quick again", policy=Policy.CLOSE)
        assert await peer.rest() == ["it is quick again"]


@asynchronous
async def test_who_is_let_go_is_no_error(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async with stuck(tmp_path) as (ws, _):
        broadcast([ws, ws], "too much", raise_exceptions=True, policy=Policy.CLOSE)
        assert ws.state is State.CLOSING
        assert ws.dropped == 1
        assert not caplog.records


@asynchronous
async def test_many_hold_the_same_bytes(tmp_path: Path) -> None:
    async with stuck(tmp_path, Policy.LATEST) as (a, _):
        (tmp_path / "other").mkdir()
        async with stuck(tmp_path / "other", Policy.DROP_OLDEST) as (b, _):
            broadcast([a, b], bytearray(b"for both"))
            assert a.backlog is not None
            assert b.backlog is not None
            (first,) = (a.backlog.held or {}).values()
            (second,) = (b.backlog.held or {}).values()
            assert first[1] is second[1]


@asynchronous
async def test_a_burst(tmp_path: Path) -> None:
    """Who is slow is known before the loop turns."""
    async with stuck(tmp_path) as (ws, peer):
        await peer.read()
        for n in range(1000):
            broadcast([ws], f"{n}".ljust(4096), policy=Policy.DROP_NEWEST)
        assert ws.buffered_amount < 2 * 32_768 + 4096 + 4
        received = await peer.rest()
        assert [int(message) for message in received] == list(range(1000 - ws.dropped))
        assert ws.dropped


@asynchronous
async def test_who_turns_out_to_be_gone_may_leave(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with stuck(tmp_path) as (ws, peer):
        await peer.read()
        await until(lambda: not ws.buffered_amount)
        members = {ws}
        forget = ws.server.forget

        def leave(connection: ServerConnection) -> None:
            members.discard(connection)
            forget(connection)

        monkeypatch.setattr(ws.server, "forget", leave)
        peer.sock.shutdown(socket.SHUT_RDWR)
        broadcast(members, CHUNK)
        broadcast(members, "so much waits that it is written")
        assert not members


def test_arguments_that_cannot_work() -> None:
    """Whether anybody is slow, or there at all, or not."""
    wrong: Any = "latest"
    with pytest.raises(TypeError, match="policy"):
        broadcast([], "x", policy=wrong)
    unhashable: Any = []
    with pytest.raises(TypeError, match="hash"):
        broadcast([], "x", key=unhashable)
