"""Five times a second fullduplex tells everybody the same; who has asked for /echo plays echo."""

import asyncio

import fullduplex

from .options import Options, parse

MESSAGE = b"x" * 256
audience: set[fullduplex.Connection] = set()


class Hall(fullduplex.Listener):
    def on_open(self, ws: fullduplex.Connection) -> None:
        if ws.request is not None and ws.request.path != "/echo":
            audience.add(ws)

    def on_message(self, ws: fullduplex.Connection, message: str | bytes) -> None:
        ws.send(message)

    def on_close(self, ws: fullduplex.Connection, code: int, reason: str) -> None:
        audience.discard(ws)


async def main(options: Options) -> None:
    async with fullduplex.serve(
        listener=Hall(), host="127.0.0.1", port=options.port, compression=None, ping_interval=None
    ):
        while True:
            await asyncio.sleep(0.2)
            fullduplex.broadcast(audience, MESSAGE)


asyncio.run(main(parse()))
