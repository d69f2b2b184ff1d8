"""Client on fullduplex, callbacks, on asyncio's own loop or on uvloop."""

import asyncio

import uvloop

import fullduplex

from .meter import MESSAGE, Meter, Options, parse


class Client(fullduplex.Listener):
    def __init__(self, meter: Meter) -> None:
        self.meter = meter


class Receive(Client):
    def on_message(self, ws: fullduplex.Connection, message: str | bytes) -> None:
        self.meter.messages += 1


class RoundTrip(Client):
    def on_open(self, ws: fullduplex.Connection) -> None:
        self.meter.sends()
        ws.send(MESSAGE)

    def on_message(self, ws: fullduplex.Connection, message: str | bytes) -> None:
        self.meter.answered()
        self.meter.sends()
        ws.send(MESSAGE)


async def main(options: Options) -> None:
    client = (Receive if options.mode == "receive" else RoundTrip)(Meter(options.seconds))
    async with fullduplex.connect(
        options.uri, listener=client, compression=None, max_size=None, ping_interval=None
    ) as ws:
        await ws.wait_closed()


options = parse("asyncio", "uvloop")
(asyncio if options.library == "asyncio" else uvloop).run(main(options))
