"""The echo server, in a process of its own."""

from __future__ import annotations

import re
import select
import signal
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

import fullduplex as library
from cli.command import COMMAND, fullduplex, running, serving
from support import LIMIT, run

END = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "kill"}


async def exchange(url: str, *messages: str | bytes, code: int = 1000, reason: str = "") -> list[str | bytes]:
    """Send messages, and give the answers."""
    ws = await library.connect(url)
    answers = []
    for message in messages:
        await ws.send(message)
        answers.append(await ws.recv())
    await ws.close(code, reason)
    return answers


def test_a_line_when_a_connection_opens_and_when_it_closes() -> None:
    with serving() as (process, url):
        assert re.fullmatch(r"ws://127\.0\.0\.1:\d+", url)
        assert run(exchange(url + "/path?q=1", "text", b"\x00binary", "")) == ["text", b"\x00binary", ""]
        assert process.stdout is not None
        opened, closed = process.stdout.readline(), process.stdout.readline()
        assert re.fullmatch(r"127\.0\.0\.1:\d+ +opened +/path\?q=1\n", opened)
        assert re.fullmatch(r"127\.0\.0\.1:\d+ +closed +1000 \(normal closure\), 3 messages, \d+\.\d s\n", closed)
        assert opened.split()[0] == closed.split()[0]


def test_the_code_and_the_reason_of_a_client() -> None:
    with serving() as (process, url):
        run(exchange(url, "one", code=4001, reason="enough\x1b[31m"))
        assert process.stdout is not None
        assert process.stdout.readline()
        closed = process.stdout.readline()
        assert re.search(r"closed +4001 \(private use\) enough\\x1b\[31m, 1 message, ", closed)


def test_a_client_that_just_goes() -> None:
    with serving() as (process, url):

        async def go() -> None:
            ws = await library.connect(url)
            ws.link.abort("local", "gone")

        run(go())
        assert process.stdout is not None
        assert process.stdout.readline()
        assert "closed   1006 (abnormal closure): no close frame received or sent" in process.stdout.readline()


def test_a_message_that_is_too_big() -> None:
    with serving("--max-size", "10") as (process, url):

        async def send() -> library.ConnectionClosed:
            ws = await library.connect(url)
            await ws.send("12345678901")
            with pytest.raises(library.ConnectionClosedError) as caught:
                await ws.recv()
            await ws.close()
            return caught.value

        assert run(send()).code == 1009
        assert process.stdout is not None
        assert process.stdout.readline()
        assert "1009 (message too big)" in process.stdout.readline()


@pytest.mark.parametrize("number", END, ids=END.values())
def test_the_end(number: signal.Signals) -> None:
    with serving() as (process, url):

        async def stay() -> library.ConnectionClosed:
            async with library.connect(url) as ws:
                assert process.stdout is not None
                assert "opened" in process.stdout.readline()
                process.send_signal(number)
                with pytest.raises(library.ConnectionClosedOK) as caught:
                    await ws.recv()
                return caught.value

        assert run(stay()).code == 1001
        assert process.wait(LIMIT) == 0
        assert process.stdout is not None
        assert process.stderr is not None
        assert "closed   1001 (going away)" in process.stdout.read()
        assert process.stderr.read() == ""


def test_ctrl_c_twice_does_not_wait() -> None:
    with serving() as (process, url), socket.create_connection(address_of(url)) as sock:
        assert process.stdout is not None
        sock.sendall(request(url))
        assert "opened" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        data = b""
        while not data.endswith(b"\x88\x02\x03\xe9"):  # its close frame, which is not answered
            data += sock.recv(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130


def test_quiet() -> None:
    with serving("--quiet") as (process, url):
        assert run(exchange(url, "one")) == ["one"]
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_nobody_reads_the_lines() -> None:
    with serving() as (process, url):
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()

        async def stay() -> library.ConnectionClosed:
            async with library.connect(url) as ws:
                with pytest.raises(library.ConnectionClosed) as caught:
                    await ws.recv()
                return caught.value

        assert run(stay()).code == 1001
        assert process.wait(LIMIT) == 1
        assert process.stderr.read() == ""


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        result = fullduplex("serve", "--port", str(port))
    assert result == (1, "", f"fullduplex: cannot listen on 127.0.0.1 port {port}: Address already in use\n")


def test_no_such_host() -> None:
    code, out, err = fullduplex("serve", "--host", "nowhere.invalid", "--port", "0")
    assert (code, out) == (1, "")
    assert err.startswith("fullduplex: ")
    assert err.count("\n") == 1


# Origins: section 10.2 of RFC 6455.


@pytest.mark.parametrize(
    ("options", "origin", "allowed"),
    [
        ((), None, True),
        ((), "http://evil.example", False),
        (("--origin", "https://good.example"), None, True),
        (("--origin", "https://good.example"), "https://good.example", True),
        (("--origin", "https://good.example"), "http://evil.example", False),
        (("--origin", "*"), "http://evil.example", True),
        (("--origin", "https://good.example", "--origin", "*"), "http://evil.example", True),
    ],
)
def test_origin(options: tuple[str, ...], origin: str | None, allowed: bool) -> None:
    with serving(*options) as (process, url):

        async def attempt() -> None:
            async with library.connect(url, origin=origin):
                pass

        assert process.stdout is not None
        if allowed:
            run(attempt())
            assert "opened" in process.stdout.readline()
        else:
            with pytest.raises(library.InvalidStatus):
                run(attempt())
            line = process.stdout.readline()
            assert re.search(rf"refused +403 Origin {origin}: --origin {origin} allows it\n", line)


def test_two_origins() -> None:
    with serving() as (process, url), socket.create_connection(address_of(url)) as sock:
        sock.sendall(request(url).replace(b"\r\n\r\n", b"\r\nOrigin: http://a\r\nOrigin: http://b\r\n\r\n"))
        assert sock.recv(12) == b"HTTP/1.1 403"
        assert process.stdout is not None
        assert "403 Origin http://a, http://b:" in process.stdout.readline()


# TLS.


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    with serving("--tls", str(tmp_path / "cert"), str(tmp_path / "key")) as (_, url):
        assert url.startswith("wss://127.0.0.1:")
        context = ssl.create_default_context()
        authority.configure_trust(context)

        async def talk() -> str | bytes:
            async with library.connect(url, ssl=context) as ws:
                await ws.send("secret")
                return await ws.recv()

        assert run(talk()) == "secret"


def test_tls_without_a_certificate(tmp_path: Path) -> None:
    files = str(tmp_path / "cert"), str(tmp_path / "key")
    result = fullduplex("serve", "--port", "0", "--tls", *files)
    assert result == (1, "", f"fullduplex: cannot use --tls {files[0]} {files[1]}: No such file or directory\n")
    for file in files:
        Path(file).write_text("no certificate")
    code, out, err = fullduplex("serve", "--port", "0", "--tls", *files)
    assert (code, out, err.count("\n")) == (1, "", 1)


# A peer that sends and does not read.


def test_a_peer_that_does_not_read_has_to_wait() -> None:
    with serving("--quiet") as (_, url), socket.create_connection(address_of(url)) as sock:
        sock.sendall(request(url))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        sock.setblocking(False)
        frame = b"\x82\xff" + (65_536).to_bytes(8) + bytes(4 + 65_536)
        sent = 0
        # The kernel's buffers and the server's queues take some; then it reads no more, and we cannot send.
        while select.select([], [sock], [], 0.5)[1]:
            sent += sock.send(frame[sent % len(frame) :])
            assert sent < 2**26


def test_a_request_that_is_none() -> None:
    with running(*COMMAND, "serve", "--port", "0") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[2]
        with socket.create_connection(address_of(url)) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 426"
        assert re.search(r"refused +426 Failed to open", process.stdout.readline())


def address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def request(url: str) -> bytes:
    return (
        f"GET / HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()
