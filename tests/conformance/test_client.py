"""Our client in an echo loop against the table, on sockets."""

from __future__ import annotations

import asyncio
import socket

import pytest

import fullduplex
from conformance import peer
from conformance.cases import CASES, Case
from support import asynchronous


async def echo(uri: str) -> None:
    async with fullduplex.connect(uri, max_size=2**26, ping_interval=None) as ws:
        async for message in ws:
            await ws.send(message)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@asynchronous
async def test_client(case: Case) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        client = asyncio.ensure_future(echo(f"ws://127.0.0.1:{listener.getsockname()[1]}/conformance"))
        async with peer.server(listener, case.deflate) as server:
            await server.play(case.steps)
    # A rule that was broken, or a close code that is not a goodbye, ends the loop with this error; any other is a bug.
    try:
        await client
    except fullduplex.ConnectionClosedError:
        pass
