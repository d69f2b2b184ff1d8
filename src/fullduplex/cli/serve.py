"""`fullduplex serve`: an echo server."""

from __future__ import annotations

import argparse
import asyncio
import http
import signal
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from .. import (
    SAME_ORIGIN,
    Close,
    CloseCode,
    ConnectionClosed,
    ConnectionClosedOK,
    Request,
    Response,
    ServerConnection,
)
from .. import serve as start_server
from ..wire.handshake import Origins
from ..wire.limits import MAX_MESSAGE
from .text import CYAN, GREEN, RED, YELLOW, Failure, Paint, address, excerpt, harmless

SUMMARY = "run an echo server"
DESCRIPTION = """\
Run a server that sends every message back to whom it came from, and tell of each connection when it opens and when
it closes. Ctrl-C closes them with code 1001.

Web pages may connect from the server's own origin; --origin allows others. Programs that are not browsers, and send
no Origin header, always may.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; '' for all interfaces (%(default)s)")
    parser.add_argument("--port", type=port, default=8765, help="0 takes a free one (%(default)s)")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="serve wss://, with these PEM files")
    parser.add_argument(
        "--origin", action="append", dest="origins", help="allow web pages of this origin; '*' all (may be repeated)"
    )
    parser.add_argument(
        "--max-size", type=size, default=MAX_MESSAGE, metavar="BYTES", help="the largest message (%(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing of single connections")


def run(args: argparse.Namespace) -> int:
    context = _tls_context(*args.tls) if args.tls else None
    asyncio.run(_serve(args, context))
    return 0


def port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise argparse.ArgumentTypeError(f"a port is a number up to 65535, not {text}")
    return port


def size(text: str) -> int:
    size = int(text)
    if size < 0:
        raise argparse.ArgumentTypeError(f"a size is a number of bytes, not {text}")
    return size


def _tls_context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # without the name of the file
        raise Failure(f"cannot use --tls {certificate} {key}: {error.strerror or error}") from None
    return context


async def _serve(args: argparse.Namespace, context: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()

    def end(error: Exception | None = None) -> None:
        # Who is impatient and presses Ctrl-C again does not wait for the closing handshakes.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        if not stop.done():
            if error is None:
                stop.set_result(None)
            else:
                stop.set_exception(error)

    log = Log(end, args.quiet)
    server = start_server(
        log.echo,
        args.host,
        args.port,
        ssl=context,
        origins=_origins(args.origins),
        max_size=args.max_size,
        process_response=log.answered,
    )
    try:
        await server
    except OSError as error:
        raise Failure(error.strerror or str(error)) from None
    async with server:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)
        scheme = "ws" if context is None else "wss"
        urls = ", ".join(f"{scheme}://{address(sock.getsockname())}" for sock in server.sockets)
        log.say(f"listening on {urls} (Ctrl-C ends it)")
        await stop


class Log:
    """An echo server's connections, a line for each event. `end` is called with the error if nobody reads the lines."""

    def __init__(self, end: Callable[[Exception], None], quiet: bool) -> None:
        self._end = end
        self._quiet = quiet
        self._paint = Paint(sys.stdout)

    def say(self, line: str) -> None:
        try:
            print(line, flush=True)
        except BrokenPipeError as error:
            self._end(error)

    def tell(self, peer: str, what: str, style: str, more: str) -> None:
        if not self._quiet:
            self.say(f"{self._paint(f'{peer:21}', CYAN)}  {self._paint(what, style)}  {harmless(more, keep='')}")

    def answered(self, ws: ServerConnection, request: Request, response: Response) -> None:
        """Tell of a refusal."""
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            why = excerpt(response.body.decode("utf-8", "replace"))
            origin = ", ".join(request.headers.get_all("Origin"))
            if response.status_code == http.HTTPStatus.FORBIDDEN and origin:
                why = f"Origin {origin}: --origin {origin} allows it"
            self.tell(address(ws.remote_address), "refused", YELLOW, f"{response.status_code} {why}")

    async def echo(self, ws: ServerConnection) -> None:
        # Not a Listener: to a peer that does not read, it would have to hold all the answers.
        peer = address(ws.remote_address)
        assert ws.request is not None
        self.tell(peer, "opened ", GREEN, ws.request.path)
        began = time.monotonic()
        count = 0
        with suppress(ConnectionClosed):
            async for message in ws:
                count += 1
                await ws.send(message)
        await ws.wait_closed()
        closed = ws.close_exc
        assert closed is not None
        self.tell(
            peer,
            "closed ",
            GREEN if isinstance(closed, ConnectionClosedOK) else RED,
            f"{_verdict(closed)}, {count} {'message' if count == 1 else 'messages'}, {time.monotonic() - began:.1f} s",
        )


def _verdict(closed: ConnectionClosed) -> str:
    """The code and the reason that say why, whoever said so first."""
    if closed.rcvd is None or closed.sent is None:
        return f"{Close(CloseCode.ABNORMAL_CLOSURE)}: {closed}"
    return str(closed.rcvd if closed.rcvd_then_sent else closed.sent)


def _origins(given: list[str] | None) -> Origins:
    if given is None:
        return SAME_ORIGIN
    return None if "*" in given else [*given, None]
