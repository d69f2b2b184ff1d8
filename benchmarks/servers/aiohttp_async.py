"""Echo server on aiohttp, on uvloop."""

import asyncio

import uvloop
from aiohttp import WSMsgType, set_zlib_backend, web

from .options import Options, parse


async def main(options: Options) -> None:
    if options.zlib_ng:
        from zlib_ng import zlib_ng

        set_zlib_backend(zlib_ng)

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=options.deflate, max_msg_size=0)
        await ws.prepare(request)
        async for message in ws:
            if message.type == WSMsgType.TEXT:
                await ws.send_str(message.data)
            elif message.type == WSMsgType.BINARY:
                await ws.send_bytes(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port, ssl_context=options.ssl).start()
    await asyncio.Event().wait()


uvloop.run(main(parse()))
