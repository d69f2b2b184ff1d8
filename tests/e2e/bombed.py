"""A program of its own, whose memory can be measured while its peers send it bombs:  python bombed.py server | client

A server prints its port, and echoes until its standard input ends. A client connects to each URI that it reads there,
and prints the code that it closed the connection with.
"""

from __future__ import annotations

import asyncio
import sys

import fullduplex


async def echo(ws: fullduplex.ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def server() -> None:
    async with fullduplex.serve(echo, "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def client() -> None:
    while uri := (await asyncio.to_thread(sys.stdin.readline)).strip():
        async with fullduplex.connect(uri) as ws:
            try:
                await ws.recv()
            except fullduplex.ConnectionClosedError as error:
                print(error.sent and error.sent.code, flush=True)


if __name__ == "__main__":
    asyncio.run({"server": server, "client": client}[sys.argv[1]]())
