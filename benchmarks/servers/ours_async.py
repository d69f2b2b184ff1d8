"""Echo server on fullduplex, coroutines."""

import asyncio

import fullduplex
from fullduplex.extensions import PerMessageDeflate

from .options import Options, parse


async def echo(ws: fullduplex.ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def main(options: Options) -> None:
    async with fullduplex.serve(
        echo,
        "127.0.0.1",
        options.port,
        ssl=options.ssl,
        compression=PerMessageDeflate(level=options.level) if options.deflate else None,
        max_size=None,
        ping_interval=None,
    ) as server:
        await server.serve_forever()


asyncio.run(main(parse()))
