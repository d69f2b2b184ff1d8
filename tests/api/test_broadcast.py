"""One message to many connections."""

from __future__ import annotations

from typing import Any

import pytest

from fullduplex import broadcast, connect, serve
from fullduplex.wire import codec
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
        broadcast([a, b], "from clients")
        assert await a.recv() == await b.recv() == "from clients"
        with pytest.raises(TypeError):
            broadcast(connections, ["x"])  # type: ignore[arg-type]
        await a.close()
        broadcast([a, b], "to who is open", raise_exceptions=True)
        assert await b.recv() == "to who is open"


@asynchronous
async def test_broadcast_frames_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = 0
    real = codec.append_frame

    def counting(*args: Any) -> None:
        nonlocal frames
        frames += 1
        real(*args)

    monkeypatch.setattr("fullduplex.api.broadcast.append_frame", counting)
    async with serve(echo, HOST, 0) as server:
        clients = [await connect(url(server)) for _ in range(5)]
        broadcast(server.connections, "x")
        assert frames == 1
        for ws in clients:
            assert await ws.recv() == "x"
            await ws.close()


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
