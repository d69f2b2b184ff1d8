"""Echo server on `websockets`, on uvloop."""

from typing import Any

import uvloop
from websockets.asyncio.server import serve

from .options import Options, parse


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


async def main(options: Options) -> None:
    async with serve(
        echo,
        "127.0.0.1",
        options.port,
        ssl=options.ssl,
        compression="deflate" if options.deflate else None,
        max_size=None,
        ping_interval=None,
    ) as server:
        await server.serve_forever()


uvloop.run(main(parse()))
