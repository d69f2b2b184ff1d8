"""Echo server on fullduplex, callbacks:  python ours_callback.py PORT"""

import asyncio
import sys

import fullduplex


class Echo(fullduplex.Listener):
    def on_message(self, ws: fullduplex.Connection, message: str | bytes) -> None:
        ws.send(message)


async def main(port: int) -> None:
    async with fullduplex.serve(
        listener=Echo, host="127.0.0.1", port=port, max_size=None, ping_interval=None
    ) as server:
        await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
