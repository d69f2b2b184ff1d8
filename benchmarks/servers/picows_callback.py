"""Echo server on picows, callbacks, on uvloop and, as it does where that is installed, aiofastnet.

Its callbacks are given frames. The load is made of whole messages, so nothing is put together here.
"""

from typing import Any

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

from .options import Options, parse


class Echo(WSListener):  # type: ignore[misc]
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


async def main(options: Options) -> None:
    def listener(request: Any) -> Echo:
        return Echo()

    server = await ws_create_server(listener, "127.0.0.1", options.port, ssl=options.ssl, max_frame_size=2**31 - 1)
    await server.serve_forever()


uvloop.run(main(parse()))
