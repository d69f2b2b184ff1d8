"""Echo server on fullduplex that works for each message; several may share the port."""

import asyncio
import hashlib

import fullduplex

from .options import Options, parse

# So much is to be done for each message: 150 to 300 us. An amount of work, not of time: who waits for a CPU is late.
WORK = bytes(128 * 1024)


class Busy(fullduplex.Listener):
    def on_message(self, ws: fullduplex.Connection, message: str | bytes) -> None:
        hashlib.blake2b(WORK)
        ws.send(message)


async def main(options: Options) -> None:
    async with fullduplex.serve(
        listener=Busy, host="127.0.0.1", port=options.port, compression=None, ping_interval=None, reuse_port=True
    ) as server:
        await server.serve_forever()


asyncio.run(main(parse()))
