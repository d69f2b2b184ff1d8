"""`fullduplex serve`: an echo server."""

from __future__ import annotations

import argparse
import asyncio
import http
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from .. import (
    SAME_ORIGIN,
    Close,
    CloseCode,
    ConnectionClosed,
    ConnectionClosedOK,
    Request,
    Response,
    Server,
    ServerConnection,
)
from .. import serve as start_server
from ..wire.handshake import Origins
from ..wire.limits import MAX_MESSAGE
from .post import Patient, Post
from .text import CYAN, GREEN, RED, YELLOW, Failure, Paint, address, excerpt, harmless, say
from .workers import OPTION, Supervisor, bind

SUMMARY = "run an echo server"
DESCRIPTION = """\
Run a server that sends every message back to whom it came from, and tell of each connection when it opens and when
it closes. Ctrl-C closes them with code 1001.

Web pages may connect from the server's own origin; --origin allows others. Programs that are not browsers, and send
no Origin header, always may.

With several workers, processes that share the port, one that dies is replaced; SIGHUP replaces them all, one by one,
and no client is refused.
"""

# Characters that a client can put into a line: one write of a pipe (PIPE_BUF), unmixed with others.
LONGEST: Final = 500
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


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
    parser.add_argument(
        "--workers", type=count, default=1, metavar="N", help="how many processes serve the port (%(default)s)"
    )
    parser.add_argument(OPTION, dest="inherited", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    context = _tls_context(*args.tls) if args.tls else None
    if args.inherited is not None:
        asyncio.run(_work(args, context))
    elif args.workers > 1:
        asyncio.run(_supervise(args))
    else:
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


def count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"there is at least 1 worker, not {text}")
    return count


def _tls_context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # without the name of the file
        raise Failure(f"cannot use --tls {certificate} {key}: {error.strerror or error}") from None
    return context


async def _serve(args: argparse.Namespace, context: ssl.SSLContext | None) -> None:
    """In this process alone."""
    end = End()
    log = Log(end, args.quiet)
    server = _make_server(args, context, log, host=args.host, port=args.port)
    try:
        await server
    except OSError as error:
        raise Failure(error.strerror or str(error)) from None
    async with server:
        end.on_signals()
        log.say(f"listening on {_urls(args, server.sockets)} (Ctrl-C ends it)")
        await end.wanted


async def _supervise(args: argparse.Namespace) -> None:
    """In several processes, of which this is none."""
    end = End()
    try:
        places = await bind(args.host, args.port, args.workers)
    except OSError as error:
        raise Failure(error.strerror or str(error)) from None
    listening = f"listening on {_urls(args, places[0])} with {args.workers} workers (Ctrl-C ends it)"
    command = [sys.executable, "-m", "fullduplex", *args.argv]
    supervisor = Supervisor(command, places, say, end.wanted)
    has_terminal = sys.stdout.isatty()

    def hang_up() -> None:
        if has_terminal and not sys.stdout.isatty():  # that was closed, and nobody asks for new workers
            end()
        else:
            supervisor.renew()

    end.on_signals()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)
    await supervisor.run(listening)


async def _work(args: argparse.Namespace, context: ssl.SSLContext | None) -> None:
    """In one of several processes."""
    end = End()
    with Post(args.inherited) as post:
        # The second one may be the parent's, of who has sent the first to all processes.
        end.on_signals(is_patient=True)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # a terminal with `stty tostop`: this is not the parent's group
        server = _make_server(args, context, Log(end, args.quiet), create_connection=Patient)
        server._bind = post.bind  # `sock` is one, and a host may have several addresses
        async with server:
            post.serving(end)
            await end.wanted


def _make_server(args: argparse.Namespace, context: ssl.SSLContext | None, log: Log, **options: Any) -> Server:
    return start_server(
        log.echo,
        ssl=context,
        origins=_origins(args.origins),
        max_size=args.max_size,
        process_response=log.answered,
        **options,
    )


def _urls(args: argparse.Namespace, sockets: Iterable[socket.socket]) -> str:
    scheme = "wss" if args.tls else "ws"
    return ", ".join(f"{scheme}://{address(sock.getsockname())}" for sock in sockets)


class End:
    """It is wanted by a signal, or by who calls this. `await end.wanted` raises the error, if one was given."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_patient = False
        self.wanted: asyncio.Future[None] = self._loop.create_future()

    def on_signals(self, is_patient: bool = False) -> None:
        """Of Ctrl-C and SIGTERM. After the first one they have their usual effect, at once, or none if `is_patient`."""
        self._is_patient = is_patient
        for number in SIGNALS:
            self._loop.add_signal_handler(number, self)

    def __call__(self, error: Exception | None = None) -> None:
        # Who is impatient and presses Ctrl-C again does not wait for the closing handshakes.
        for number in SIGNALS:
            if self._is_patient:
                signal.signal(number, signal.SIG_IGN)
            else:
                self._loop.remove_signal_handler(number)
        if not self.wanted.done():
            if error is None:
                self.wanted.set_result(None)
            else:
                self.wanted.set_exception(error)


class Log:
    """An echo server's connections, a line for each event. `end` is called with the error if nobody reads the lines."""

    def __init__(self, end: Callable[[Exception], None], quiet: bool) -> None:
        self._end = end
        self._quiet = quiet
        self._paint = Paint(sys.stdout)

    def say(self, line: str) -> None:
        try:
            say(line)
        except BrokenPipeError as error:
            self._end(error)

    def tell(self, peer: str, what: str, style: str, more: str) -> None:
        if not self._quiet:
            more = harmless(excerpt(more, LONGEST), keep="")
            self.say(f"{self._paint(f'{peer:21}', CYAN)}  {self._paint(what, style)}  {more}")

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
        if not ws.server.is_serving():  # the client was let in late, by a Patient
            ws.close(CloseCode.GOING_AWAY)
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
