"""Our echo server against the table, on sockets."""

from __future__ import annotations

import pytest

import fullduplex
from conformance import peer
from conformance.cases import CASES, Case
from support import asynchronous


async def echo(ws: fullduplex.ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@asynchronous
async def test_server(case: Case) -> None:
    async with (
        fullduplex.serve(echo, "127.0.0.1", 0, max_size=2**26, ping_interval=None) as server,
        peer.client(server.sockets[0].getsockname()[1], case.deflate) as client,
    ):
        await client.play(case.steps)
