"""Client with coroutines, for the libraries that share one API.

The peers are on uvloop, fullduplex is on asyncio's own loop or, as "fullduplex-uvloop", there, too.
"""

import asyncio
from importlib import import_module
from typing import Any

import uvloop

from .meter import MESSAGE, Meter, Options, parse

CLIENTS = {
    "fullduplex": "fullduplex",
    "fullduplex-uvloop": "fullduplex",
    "picows": "picows.websockets.asyncio.client",
    "websockets": "websockets.asyncio.client",
}


async def receive(ws: Any, meter: Meter) -> None:
    async for _ in ws:
        meter.messages += 1


async def roundtrip(ws: Any, meter: Meter) -> None:
    while True:
        meter.sends()
        await ws.send(MESSAGE)
        await ws.recv()
        meter.answered()


async def main(options: Options) -> None:
    connect = import_module(CLIENTS[options.library]).connect
    async with connect(options.uri, compression=None, max_size=None, ping_interval=None) as ws:
        meter = Meter(options.seconds)
        await (receive if options.mode == "receive" else roundtrip)(ws, meter)


options = parse(*CLIENTS)
(asyncio.run if options.library == "fullduplex" else uvloop.run)(main(options))
