"""Client on picows, callbacks, on uvloop.

`bytes` makes bytes of each payload, as other libraries hand them over; `frames` only counts, and looks at no payload.
"""

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from .meter import MESSAGE, Meter, Options, parse


class Client(WSListener):  # type: ignore[misc]
    def __init__(self, meter: Meter) -> None:
        self.meter = meter


class ReceiveBytes(Client):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        frame.get_payload_as_bytes()
        self.meter.messages += 1


class ReceiveFrames(Client):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.meter.messages += 1


class RoundTrip(Client):
    def on_ws_connected(self, transport: WSTransport) -> None:
        self.meter.sends()
        transport.send(WSMsgType.BINARY, MESSAGE)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        frame.get_payload_as_bytes()
        self.meter.answered()
        self.meter.sends()
        transport.send(WSMsgType.BINARY, MESSAGE)


async def main(options: Options) -> None:
    meter = Meter(options.seconds)
    receive = ReceiveBytes if options.library == "bytes" else ReceiveFrames
    client = (receive if options.mode == "receive" else RoundTrip)(meter)
    transport, _ = await ws_connect(lambda: client, options.uri)
    await transport.wait_disconnected()


uvloop.run(main(parse("bytes", "frames")))
