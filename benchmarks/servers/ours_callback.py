"""Echo server on fullduplex, callbacks."""

import asyncio

import fullduplex
from fullduplex.extensions import PerMessageDeflate

from .options import Options, parse


class Echo(fullduplex.Listener):
    def on_message(self, ws: fullduplex.Connection, message: str | bytes) -> None:
        ws.send(message)


async def main(options: Options) -> None:
    async with fullduplex.serve(
        listener=Echo,
        host="127.0.0.1",
        port=options.port,
        ssl=options.ssl,
        compression=PerMessageDeflate(level=options.level) if options.deflate else None,
        max_size=None,
        ping_interval=None,
    ) as server:
        await server.serve_forever()


asyncio.run(main(parse()))
