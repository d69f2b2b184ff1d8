"""Five times a second picows tells everybody the same, in a loop; who has asked for /echo plays echo."""

import asyncio
from typing import Any

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

from .options import Options, parse

MESSAGE = b"x" * 256
audience: set[WSTransport] = set()


class Hall(WSListener):  # type: ignore[misc]
    def on_ws_connected(self, transport: WSTransport) -> None:
        if transport.request.path != b"/echo":
            audience.add(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.send(frame.msg_type, frame.get_payload_as_memoryview())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        audience.discard(transport)


async def main(options: Options) -> None:
    def listener(request: Any) -> Hall:
        return Hall()

    await ws_create_server(listener, "127.0.0.1", options.port)
    while True:
        await asyncio.sleep(0.2)
        for transport in audience:
            transport.send(WSMsgType.BINARY, MESSAGE)


uvloop.run(main(parse()))
