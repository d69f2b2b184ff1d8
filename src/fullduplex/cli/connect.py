"""`fullduplex connect`: lines of standard input go to a server, what it sends is shown."""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from .. import (
    ClientConnection,
    CloseCode,
    ConnectionClosed,
    ConnectionClosedError,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
)
from .. import connect as open_connection
from .text import CYAN, Failure, Paint, excerpt, harmless, note

SUMMARY = "send lines to a server and show what it sends"
DESCRIPTION = """\
Connect to a WebSocket server. Each line that is typed, or piped in, is sent as a text message (as a binary one if it
is not UTF-8); messages that come are shown, control characters in them as escapes, binary ones in hexadecimal.

At the end of the input (Ctrl-D) the connection is closed, once the answers have come: when nothing arrives for --wait
seconds, or four times as long has passed. `--wait inf` stays until the server closes.
"""
EPILOG = """\
exit codes: 0 the connection was closed normally (1000, 1001 or no code), 1 an error, 130 Ctrl-C

examples:
  fullduplex connect ws://localhost:8765
  printf 'one\\ntwo\\n' | fullduplex connect --header 'Authorization: Bearer ...' wss://example.com/chat
"""

CHUNK: Final = 65_536  # of standard input, held at a time
# After the end of the input. A server may answer a close frame before it has answered the messages that came with it
# (RFC 6455, section 5.5.1, even wants it so), so the answers must come first. They have come when a ping is answered,
# which shows that all is read, and then nothing comes for a while.
WAIT: Final = 0.5  # seconds; the while
MOST: Final = 4  # times as long for either, since some servers answer no ping, and others never fall silent
FAREWELL: Final = 1.0  # for the closing handshake after Ctrl-C

SHOWN: Final = 64  # bytes of a binary message on a terminal


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("url", metavar="URL", help="ws://host[:port]/path or wss://...")
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        type=_header,
        dest="headers",
        metavar="'NAME: VALUE'",
        help="add a header to the request (may be repeated)",
    )
    parser.add_argument(
        "--subprotocol",
        action="append",
        dest="subprotocols",
        metavar="NAME",
        help="offer a subprotocol (may be repeated)",
    )
    parser.add_argument("--origin", help="send this Origin, as a browser would")
    parser.add_argument("--insecure", action="store_true", help="do not verify the server's certificate")
    parser.add_argument(
        "--wait",
        type=seconds,
        default=WAIT,
        metavar="SECONDS",
        help="for answers, after the end of input (%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    asyncio.run(_connect(args))
    return 0


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"a header is 'Name: value', not {text!r}")
    return name.strip(), value.strip()


def seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"a time is a number of seconds, not {text}")
    return seconds


async def _connect(args: argparse.Namespace) -> None:
    ws = await _open(args)
    typed = sys.stdin is not None and sys.stdin.isatty()
    if typed:
        chosen = f", subprotocol {ws.subprotocol}" if ws.subprotocol else ""
        note(f"connected to {args.url}{chosen}; a line sends it, Ctrl-D closes")
    await Talk(ws, args.wait).run()
    if typed:
        note(f"closed: {ws.close_exc}")


async def _open(args: argparse.Namespace) -> ClientConnection:
    """Connect, and make one line of whatever goes wrong."""
    context = None
    if args.insecure:
        if not args.url.lower().startswith("wss:"):
            raise Failure("--insecure is for wss:// URLs")
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        note("warning: the server's certificate is not verified; anyone may be listening")
    try:
        return await open_connection(
            args.url,
            origin=args.origin,
            subprotocols=args.subprotocols,
            additional_headers=args.headers,
            ssl=context,
        )
    except ssl.SSLCertVerificationError as error:  # a ValueError, too
        why = error.verify_message.rstrip(".")
        raise Failure(f"TLS failed: certificate verify failed: {why} (--insecure goes on anyway)") from None
    except ssl.SSLError as error:
        why = (error.reason or str(error)).replace("_", " ").lower()
        raise Failure(f"TLS failed: {why}; does the server speak it? Without TLS, the URL begins with ws://") from None
    except (InvalidURI, ValueError) as error:
        raise Failure(str(error)) from None
    except InvalidStatus as error:
        response = error.response
        body = excerpt(response.body.decode("utf-8", "replace"))
        answer = f"{response.status_code} {response.reason_phrase}".rstrip()
        raise Failure(f"the server answered {answer}" + (f": {body}" if body else "")) from None
    except InvalidHandshake as error:
        notes = "; ".join(getattr(error, "__notes__", ()))
        raise Failure(f"the opening handshake failed: {error}" + (f" ({notes})" if notes else "")) from None
    except (OSError, EOFError) as error:
        why = (getattr(error, "strerror", None) or str(error)).removeprefix("cannot connect: ")
        raise Failure(f"cannot connect to {args.url}: {why}") from None


class Talk:
    """Both directions of one connection, until it is closed."""

    def __init__(self, ws: ClientConnection, wait: float) -> None:
        self._ws = ws
        self._wait = wait
        self._news = asyncio.Event()  # a message has come, or the pong that is waited for
        self._terminal = sys.stdout.isatty()
        self._paint = Paint(sys.stdout)

    async def run(self) -> None:
        ws = self._ws
        sending = asyncio.create_task(self._send_lines())
        try:
            # Shown without waiting. If who reads our output is slow, so are we, and the server has to wait for us.
            async for message in ws:
                self._show(message)
                self._news.set()
            await ws.wait_closed()
        except ConnectionClosedError as error:
            raise Failure(f"connection closed abnormally: {error}") from None
        except asyncio.CancelledError:
            ws.close(CloseCode.GOING_AWAY)
            with suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL):
                    await ws.wait_closed()
            raise
        finally:
            sending.cancel()
            await asyncio.wait([sending])

    def _show(self, message: str | bytes) -> None:
        if isinstance(message, str):
            text = harmless(message)
        else:
            shown = message[:SHOWN] if self._terminal else message
            text = f"(binary, {len(message)} bytes) {shown.hex(' ')}{' …' if len(shown) < len(message) else ''}"
        if self._terminal:
            text = self._paint("< ", CYAN) + text.replace("\n", "\n  ")  # no line can pass for another message
        print(text, flush=True)

    async def _send_lines(self) -> None:
        """Send what there is to send, then close. If the connection closes first, who receives knows why."""
        ws = self._ws
        with suppress(ConnectionClosed):
            async for line in lines(Input(0)):
                try:
                    await ws.send(line.decode())
                except UnicodeDecodeError:
                    await ws.send(line)
            await self._wait_for_answers()
        await ws.close()

    async def _wait_for_answers(self) -> None:
        pong = asyncio.ensure_future(await self._ws.ping())
        pong.add_done_callback(lambda _: self._news.set())
        with suppress(TimeoutError):
            while not pong.done():
                await self._wait_for_news(MOST * self._wait)
            async with asyncio.timeout(MOST * self._wait):
                while True:
                    await self._wait_for_news(self._wait)

    async def _wait_for_news(self, patience: float) -> None:
        self._news.clear()
        async with asyncio.timeout(patience):
            await self._news.wait()


class Input:
    """A file descriptor to read from, of whatever kind.

    Loops watch neither files nor all devices, and the threads of an executor are joined at exit, even if all they do
    is wait for a key: so a thread of its own, which nothing waits for. It reads when it is asked to, so that what is
    not sent yet stays where it is.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._chunk: asyncio.Future[bytes] | None = None
        self._wanted = threading.Semaphore(0)
        threading.Thread(target=self._work, name="input", daemon=True).start()

    async def read(self) -> bytes:
        """Wait for what comes next; nothing at the end."""
        self._chunk = self._loop.create_future()
        self._wanted.release()
        return await self._chunk

    def _work(self) -> None:
        data = b"..."
        while data:
            self._wanted.acquire()
            try:
                data = os.read(self._fd, CHUNK)
            except OSError:  # it was never open, or the terminal is gone
                data = b""
            try:
                self._loop.call_soon_threadsafe(self._deliver, data)
            except RuntimeError:  # the loop is closed
                return

    def _deliver(self, data: bytes) -> None:
        if self._chunk is not None and not self._chunk.done():
            self._chunk.set_result(data)


async def lines(source: Input) -> AsyncIterator[bytes]:
    """The lines, without their ends, and what stands after the last of them."""
    rest = bytearray()
    while chunk := await source.read():
        *complete, last = chunk.split(b"\n")
        for line in complete:
            rest += line
            yield bytes(rest).removesuffix(b"\r")
            rest.clear()
        rest += last
    if rest:
        yield bytes(rest)
