"""Client on aiohttp, on uvloop."""

import uvloop
from aiohttp import ClientSession, ClientWebSocketResponse

from .meter import MESSAGE, Meter, Options, parse


async def receive(ws: ClientWebSocketResponse, meter: Meter) -> None:
    async for _ in ws:
        meter.messages += 1


async def roundtrip(ws: ClientWebSocketResponse, meter: Meter) -> None:
    while True:
        meter.sends()
        await ws.send_bytes(MESSAGE)
        await ws.receive()
        meter.answered()


async def main(options: Options) -> None:
    async with ClientSession() as session, session.ws_connect(options.uri, max_msg_size=0) as ws:
        meter = Meter(options.seconds)
        await (receive if options.mode == "receive" else roundtrip)(ws, meter)


uvloop.run(main(parse()))
