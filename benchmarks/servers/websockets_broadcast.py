"""Five times a second `websockets` tells everybody the same; who has asked for /echo plays echo."""

import asyncio
from typing import Any

import uvloop
from websockets.asyncio.server import broadcast, serve

from .options import Options, parse

MESSAGE = b"x" * 256
audience: set[Any] = set()


async def hall(ws: Any) -> None:
    if ws.request.path != "/echo":
        audience.add(ws)
    try:
        async for message in ws:
            await ws.send(message)
    finally:
        audience.discard(ws)


async def main(options: Options) -> None:
    async with serve(hall, "127.0.0.1", options.port, compression=None, ping_interval=None):
        while True:
            await asyncio.sleep(0.2)
            broadcast(audience, MESSAGE)


uvloop.run(main(parse()))
