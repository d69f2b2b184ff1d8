"""Echo server on picows' API of `websockets`, on uvloop:  python picows_async.py PORT"""

import sys
from typing import Any

import uvloop
from picows.websockets.asyncio.server import serve


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


async def main(port: int) -> None:
    async with serve(echo, "127.0.0.1", port, compression=None, max_size=None, ping_interval=None) as server:
        await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
