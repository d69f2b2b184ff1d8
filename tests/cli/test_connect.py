"""The client, in a process of its own, with servers in this one."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import ssl
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

import fullduplex as library
from cli.command import Result, Terminal, begin, end, fullduplex, fullduplex_beside, serving
from fullduplex import ServerConnection
from support import LIMIT, asynchronous

Handler = Callable[[ServerConnection], Awaitable[None]]


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


@asynccontextmanager
async def server(handler: Handler, **settings: Any) -> AsyncIterator[str]:
    async with library.serve(handler, "127.0.0.1", 0, **settings) as running:
        scheme = "wss" if settings.get("ssl") else "ws"
        yield f"{scheme}://127.0.0.1:{running.sockets[0].getsockname()[1]}/"


async def connect_to(handler: Handler, *args: str, stdin: bytes = b"", **settings: Any) -> Result:
    async with server(handler, **settings) as url:
        return await fullduplex_beside("connect", "--wait", "0.2", *args, url, stdin=stdin)


# In a pipe: lines in, lines out.


@pytest.mark.parametrize(
    ("stdin", "out"),
    [
        (b"one\ntwo\n", "one\ntwo\n"),
        (b"no end", "no end\n"),
        (b"dos\r\n\n", "dos\n\n"),
        (b"\xff\x00\n", "(binary, 2 bytes) ff 00\n"),
        ("ä語\n".encode(), "ä語\n"),
        (b"x" * 200_000 + b"\n", "x" * 200_000 + "\n"),
        (b"", ""),
    ],
    ids=["lines", "no end", "crlf", "binary", "utf-8", "long", "nothing"],
)
@asynchronous
async def test_pipe(stdin: bytes, out: str) -> None:
    assert await connect_to(echo, stdin=stdin) == (0, out, "")


def test_many_lines() -> None:
    lines = "".join(f"{number}\n" for number in range(100_000))
    with serving("--quiet") as (_, url):
        assert fullduplex("connect", url, stdin=lines) == (0, lines, "")


@asynchronous
async def test_answers_that_come_late() -> None:
    """They come after the end of the input, and the server does not answer once it is told goodbye."""

    async def slow(ws: ServerConnection) -> None:
        async for message in ws:
            await asyncio.sleep(0.05)
            await ws.send(f"{message!s} answered")

    expected = "".join(f"{number} answered\n" for number in range(6))
    assert await connect_to(slow, "--wait", "1", stdin=b"0\n1\n2\n3\n4\n5\n") == (0, expected, "")


@asynchronous
async def test_waiting_for_as_long_as_the_server_likes() -> None:
    async def say(ws: ServerConnection) -> None:
        await (await ws.ping())
        await asyncio.sleep(0.5)
        await ws.send("late")

    assert await connect_to(say, "--wait", "inf") == (0, "late\n", "")


@asynchronous
async def test_no_waiting() -> None:
    assert await connect_to(echo, "--wait", "0") == (0, "", "")


@asynchronous
async def test_a_server_that_never_falls_silent() -> None:
    async def flood(ws: ServerConnection) -> None:
        while True:
            await ws.send("more")
            await asyncio.sleep(0.01)

    code, out, err = await connect_to(flood, stdin=b"one\n")
    assert (code, err) == (0, "")
    assert set(out.splitlines()) == {"more"}


@asynchronous
async def test_a_server_that_answers_no_ping() -> None:
    async with await asyncio.start_server(deaf, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        assert await fullduplex_beside("connect", f"ws://127.0.0.1:{port}/", stdin=b"one\n") == (0, "hi\n", "")


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greets, and then only sees close frames."""
    from fullduplex.wire.handshake import accept_key

    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    key = next(line.partition(": ")[2] for line in head.splitlines() if line.startswith("Sec-WebSocket-Key"))
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_key(key).encode() + b"\r\n\r\n\x81\x02hi"
    )
    while (await reader.readexactly(1)) != b"\x88":
        size = (await reader.readexactly(1))[0] & 0x7F
        await reader.readexactly(4 + size)
    writer.write(b"\x88\x02\x03\xe8")
    writer.close()
    await writer.wait_closed()


@asynchronous
async def test_input_that_the_server_does_not_take_stays_where_it_is() -> None:
    async def ignore(ws: ServerConnection) -> None:
        await ws.wait_closed()

    reading, writing = os.pipe()
    async with library.serve(ignore, "127.0.0.1", 0, max_queue=1, compression=None) as listener:
        url = f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
        process = await begin("connect", url, stdin=reading)
        os.close(reading)
        os.set_blocking(writing, False)
        sent = 0
        line = b"x" * 1023 + b"\n"
        while await asyncio.to_thread(select.select, [], [writing], [], 1.0) != ([], [], []):
            sent += os.write(writing, line * 4)
            assert sent < 2**26
        os.close(writing)
        await end(process)


# What a server may send.


@asynchronous
async def test_escapes_are_harmless() -> None:
    async def attack(ws: ServerConnection) -> None:
        await ws.send("\x1b]0;title\x07 \x9b31m \u202e two\nlines\tand a tab")
        await ws.send(b"\x1b[31m")

    code, out, err = await connect_to(attack)
    assert (code, err) == (0, "")
    assert out == ("\\x1b]0;title\\x07 \\x9b31m \\u202e two\nlines\tand a tab\n(binary, 5 bytes) 1b 5b 33 31 6d\n")


@pytest.mark.parametrize("code", [1000, 1001, None])
@asynchronous
async def test_the_server_closes_first(code: int | None) -> None:
    """The input is still open then, and nobody types."""

    async def leave(ws: ServerConnection) -> None:
        await ws.send("bye")
        await ws.close(code)

    async with server(leave) as url:
        process = await begin("connect", url)
        assert process.stdout is not None
        assert process.stderr is not None
        assert await process.stdout.read() == b"bye\n"
        assert await process.wait() == 0
        assert await process.stderr.read() == b""
        await end(process)


@asynchronous
async def test_abnormal_closure() -> None:
    async def fail(ws: ServerConnection) -> None:
        await ws.close(1011, "oops\x1b[31m\n")

    expected = "received 1011 (internal error) oops\\x1b[31m\\n; then sent 1011 (internal error)"
    assert await connect_to(fail) == (1, "", f"fullduplex: connection closed abnormally: {expected}\n")


@asynchronous
async def test_the_server_just_goes() -> None:
    async def go(ws: ServerConnection) -> None:
        ws.link.abort("local", "gone")

    code, out, err = await connect_to(go)
    assert (code, out) == (1, "")
    assert err.startswith("fullduplex: connection closed abnormally: no close frame received or sent")
    assert err.count("\n") == 1


# The request.


@asynchronous
async def test_options_of_the_request() -> None:
    seen: list[Any] = []

    async def look(ws: ServerConnection) -> None:
        assert ws.request is not None
        seen.append(ws.request.headers)
        seen.append(ws.subprotocol)

    options = ["--header", "X-One: 1: 2", "--header", "X-Two:2", "--origin", "https://example.com"]
    options += ["--subprotocol", "chat", "--subprotocol", "superchat"]
    result = await connect_to(look, *options, subprotocols=["superchat"], origins=None)
    assert result == (0, "", "")
    headers, subprotocol = seen
    assert (headers["X-One"], headers["X-Two"], headers["Origin"]) == ("1: 2", "2", "https://example.com")
    assert headers["Sec-WebSocket-Protocol"] == "chat, superchat"
    assert subprotocol == "superchat"


# Errors are one line.


@asynchronous
async def test_a_refusal() -> None:
    def refuse(ws: ServerConnection, _: library.Request) -> library.Response:
        return ws.respond(404, "no such\r\n\r\npage \x1b[31m")

    result = await connect_to(echo, process_request=refuse)
    assert result == (1, "", "fullduplex: the server answered 404 Not Found: no such page \\x1b[31m\n")


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    code, out, err = fullduplex("connect", f"ws://127.0.0.1:{port}/")
    assert (code, out) == (1, "")
    assert err == f"fullduplex: cannot connect to ws://127.0.0.1:{port}/: Connection refused\n"


@pytest.mark.parametrize(
    "args",
    [
        ("http://localhost/",),
        ("ws://local host/",),
        ("ws://host.invalid/",),
        ("ws://localhost/", "--header", "Bad Name: x"),
        ("ws://localhost/", "--header", "Upgrade: x"),
        ("ws://localhost/", "--subprotocol", "not a token"),
        ("ws://localhost/", "--insecure"),
        ("ws://localhost/\x1b[31m\n",),
    ],
)
def test_one_line(args: tuple[str, ...]) -> None:
    code, out, err = fullduplex("connect", *args)
    assert (code, out) == (1, "")
    assert err.startswith("fullduplex: ")
    assert err.count("\n") == 1
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--header", "nothing", "a header is 'Name: value', not 'nothing'"),
        ("--wait", "nan", "a time is a number of seconds, not nan"),
        ("--wait", "-1", "a time is a number of seconds, not -1"),
        ("--wait", "long", "argument --wait: invalid"),
    ],
)
def test_wrong_values(option: str, value: str, expected: str) -> None:
    code, _, err = fullduplex("connect", "ws://localhost/", f"{option}={value}")
    assert code == 2
    assert expected in err


# TLS.


@pytest.fixture
def context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


@asynchronous
async def test_a_certificate_that_nobody_knows(context: ssl.SSLContext) -> None:
    code, out, err = await connect_to(echo, stdin=b"secret\n", ssl=context)
    assert (code, out) == (1, "")
    assert err.startswith("fullduplex: TLS failed: certificate verify failed: ")
    assert err.endswith(" (--insecure goes on anyway)\n")


@asynchronous
async def test_insecure(context: ssl.SSLContext) -> None:
    code, out, err = await connect_to(echo, "--insecure", stdin=b"secret\n", ssl=context)
    assert (code, out) == (0, "secret\n")
    assert err == "warning: the server's certificate is not verified; anyone may be listening\n"


@asynchronous
async def test_wss_where_there_is_no_tls() -> None:
    async with server(echo) as url:
        code, out, err = await fullduplex_beside("connect", url.replace("ws:", "wss:"))
    assert (code, out) == (1, "")
    assert err.startswith("fullduplex: TLS failed: ")
    assert err.count("\n") == 1


@asynchronous
async def test_ws_where_there_is_tls(context: ssl.SSLContext) -> None:
    async with server(echo, ssl=context) as url:
        code, out, err = await fullduplex_beside("connect", url.replace("wss:", "ws:"))
    assert (code, out) == (1, "")
    assert err.count("\n") == 1


# The end.


@asynchronous
async def test_ctrl_c() -> None:
    over: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def wait(ws: ServerConnection) -> None:
        await ws.send("ready")
        await ws.wait_closed()
        over.set_result(ws.close_code)

    async with server(wait) as url:
        process = await begin("connect", url)
        assert process.stdout is not None
        assert process.stderr is not None
        assert await process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        assert await process.stderr.read() == b""
        assert await over == 1001
        await end(process)


@asynchronous
async def test_nobody_reads_what_comes() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    async with server(echo) as url:
        process = await begin("connect", url, stdin=PIPE, stdout=writing)
        os.close(writing)
        assert (await process.communicate(b"one\ntwo\n"))[1] == b""
        assert process.returncode == 1


# On a terminal.


@asynchronous
async def test_typed_lines() -> None:
    async def shout(ws: ServerConnection) -> None:
        async for message in ws:
            assert isinstance(message, str)
            await ws.send(f"{message.upper()}!\nsecond \x1b[31m line")
            await ws.send(bytes(100))

    async with server(shout) as url:
        with Terminal() as terminal:
            process = await begin("connect", url, stdin=terminal.fd, stdout=terminal.fd)
            terminal.hang_up()
            assert process.stderr is not None
            assert b"Ctrl-D closes" in await process.stderr.readline()
            terminal.type("hello\n")
            await asyncio.to_thread(terminal.read_until, "…")
            terminal.type("\x04")
            shown = await asyncio.to_thread(terminal.read_all)
            assert await process.wait() == 0
            assert b"closed: sent 1000 (normal closure); then received 1000" in await process.stderr.read()
            await end(process)
    assert "\x1b[36m< \x1b[0mHELLO!\r\n  second \\x1b[31m line\r\n" in shown
    assert f"(binary, 100 bytes) {'00 ' * 64}…" in shown


@asynchronous
async def test_the_server_closes_while_nobody_types() -> None:
    async def leave(ws: ServerConnection) -> None:
        await ws.close(1001, "closing time")

    async with server(leave) as url:
        with Terminal() as terminal:
            process = await begin("connect", url, stdin=terminal.fd, stdout=terminal.fd)
            async with asyncio.timeout(LIMIT):
                assert await process.wait() == 0
            assert process.stderr is not None
            assert b"closed: received 1001 (going away) closing time" in await process.stderr.read()
            await end(process)
