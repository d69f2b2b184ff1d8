"""The server that the Autobahn suite tests:  python echo_server.py PORT"""

import asyncio
import sys

import fullduplex


async def echo(ws: fullduplex.ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def main(port: int) -> None:
    # The largest messages of the suite are 16 MiB. A ping of ours would be an event that no case foresees.
    async with fullduplex.serve(echo, "127.0.0.1", port, max_size=2**24 + 1, ping_interval=None) as server:
        await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
