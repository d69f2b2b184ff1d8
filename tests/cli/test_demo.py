"""The demo shows what happened, and fails when that is not what should have happened."""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from cli.command import COMMAND, ENVIRONMENT, SOURCE, Terminal, fullduplex, running
from fullduplex import Close
from fullduplex.cli import demo
from fullduplex.cli.conversation import COUNT, ClientNotes, ServerNotes
from fullduplex.cli.text import Failure
from support import LIMIT

Notes = tuple[ClientNotes, ServerNotes]


@pytest.fixture(autouse=True)
def source(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the server's process."""
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))


def test_all_of_it_in_a_pipe() -> None:
    code, out, err = fullduplex("demo")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert "✗" not in out
    in_order = [
        "connected in",
        "GET /demo HTTP/1.1",
        "Sec-WebSocket-Key: ",
        "HTTP/1.1 101 Switching Protocols",
        "Sec-WebSocket-Accept: ",
        "✓ all 5 of the client crossed all 5 of the server",
        "transfer-rate; receive=100000",
        "one message of 60,000 bytes",
        "60,000 bytes after",
        "✓ both agreed on 100,000 bytes a second",
        "ping 'still there?', and its pong",
        "✓ the round trip took",
        "client ────▶ server  close 1000 (normal closure)",
        "client ◀──── server  close 1000 (normal closure)",
        "✓ one TCP connection for all of it",
        "All is as it should be.",
    ]
    assert re.search(".*".join(map(re.escape, in_order)), out, re.DOTALL)
    for side in ("client", "server"):
        for number in range(1, COUNT + 1):
            assert out.count(f"{side}'s message {number} of {COUNT}\n") == 1
    assert re.search(r"TCP connections +1 ", out)
    assert re.search(r"bytes +[1-9][0-9]+ +[1-9][0-9]+ +of TCP payload", out)


def test_no_process_is_left() -> None:
    found = re.search(r"server: process (\d+)", fullduplex("demo").out)
    assert found
    with pytest.raises(ProcessLookupError):
        os.kill(int(found[1]), 0)


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_colour_on_a_terminal(environment: dict[str, str]) -> None:
    with Terminal() as terminal:
        with subprocess.Popen([*COMMAND, "demo"], stdout=terminal.fd, env=ENVIRONMENT | environment) as process:
            terminal.hang_up()
            out = terminal.read_all()
        assert process.wait(LIMIT) == 0
    assert "All is as it should be." in out
    assert ("\x1b[32m✓\x1b[0m" in out) is not bool(environment)
    assert ("\x1b" in out) is not bool(environment)


# What must be noticed.


@pytest.fixture(scope="module")
def good() -> Notes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SOURCE))
        return asyncio.run(demo.converse(demo.SERVER))


def wrong(notes: Notes) -> list[str]:
    return [claim for step in demo.inspect(*notes) for holds, claim in step.checks if not holds]


def test_a_good_one(good: Notes) -> None:
    assert wrong(good) == []


def spoil(claim: str) -> Callable[[Callable[[ClientNotes, ServerNotes], None]], None]:
    """A way to go wrong, and a part of the claim that is not true then."""

    def collect(change: Callable[[ClientNotes, ServerNotes], None]) -> None:
        SPOILT[change.__name__] = (change, claim)

    return collect


SPOILT: dict[str, tuple[Callable[[ClientNotes, ServerNotes], None], str]] = {}


@spoil("(101)")
def status(client: ClientNotes, _: ServerNotes) -> None:
    assert client.response is not None
    client.response.status_code = 200


@spoil("what RFC 6455 makes of the key")
def accept(client: ClientNotes, _: ServerNotes) -> None:
    assert client.response is not None
    del client.response.headers["Sec-WebSocket-Accept"]
    client.response.headers["Sec-WebSocket-Accept"] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@spoil("follow each other")
def response_before_request(_: ClientNotes, server: ServerNotes) -> None:
    server.request_at = server.response_at + 1


@spoil("of the client came, in order")
def order(_: ClientNotes, server: ServerNotes) -> None:
    server.received.reverse()


@spoil("of the server came, in order")
def loss(client: ClientNotes, _: ServerNotes) -> None:
    client.received.pop()


@spoil("of the client came, in order")
def twice(_: ClientNotes, server: ServerNotes) -> None:
    server.received.append(server.received[-1])
    server.received_at.append(server.received_at[-1])


@spoil("there before it left")
def before_it_left(client: ClientNotes, server: ServerNotes) -> None:
    server.received_at[0] = client.sent_at[0] - 1


@spoil("the client had sent all of its own")
def half_duplex(client: ClientNotes, _: ServerNotes) -> None:
    client.sent_at = [at + 1 for at in client.received_at]


@spoil("full duplex")
def one_did_not_cross(client: ClientNotes, _: ServerNotes) -> None:
    client.sent_at[-1] = client.received_at[-1] + 1


@spoil("the server had sent all of its own")
def still_unsent(_: ClientNotes, server: ServerNotes) -> None:
    server.unsent = 1


@spoil("both agreed")
def rate_not_asked_for(client: ClientNotes, _: ServerNotes) -> None:
    assert client.request is not None
    del client.request.headers["Sec-WebSocket-Extensions"]


@spoil("both agreed")
def rate_declined(client: ClientNotes, _: ServerNotes) -> None:
    assert client.response is not None
    del client.response.headers["Sec-WebSocket-Extensions"]
    client.response.headers["Sec-WebSocket-Extensions"] = "permessage-deflate"


@spoil("came whole")
def large_message(client: ClientNotes, _: ServerNotes) -> None:
    client.parcel[1], client.parcel[0] = client.parcel[0][:-1] + b"!", client.parcel[1]


@spoil("at once, then")
def rate(client: ClientNotes, server: ServerNotes) -> None:
    client.parcel_at = [server.parcel_at + 0.3] * len(client.parcel_at)


@spoil("the ping went before")
def ping_waited(_: ClientNotes, server: ServerNotes) -> None:
    server.overtaken = 0


@spoil("the round trip")
def no_latency(client: ClientNotes, _: ServerNotes) -> None:
    client.latency = -1.0


@spoil("the client closed with")
def close_reason(_: ClientNotes, server: ServerNotes) -> None:
    server.close_received = Close(1000, "another one")


@spoil("the server answered")
def close_code(client: ClientNotes, _: ServerNotes) -> None:
    client.close_received = Close(1011)


@spoil("the server answered")
def no_close(client: ClientNotes, _: ServerNotes) -> None:
    client.close_received = None


@spoil("no fewer bytes")
def bytes_lost(client: ClientNotes, _: ServerNotes) -> None:
    client.bytes_received = 1


@spoil("one TCP connection")
def connections(_: ClientNotes, server: ServerNotes) -> None:
    server.accepted = 2


@spoil("has ended, with exit code 0")
def exit_code(_: ClientNotes, server: ServerNotes) -> None:
    server.exit_code = -9


@pytest.mark.parametrize(("change", "claim"), SPOILT.values(), ids=SPOILT)
def test_it_is_noticed(good: Notes, change: Callable[[ClientNotes, ServerNotes], None], claim: str) -> None:
    notes = copy.deepcopy(good)
    change(*notes)
    assert any(claim in untrue for untrue in wrong(notes))


def test_bytes_without_the_counting_socket(good: Notes) -> None:
    client, server = copy.deepcopy(good)
    client.bytes_sent = client.bytes_received = 0
    assert wrong((client, server)) == []
    text = "\n".join(line for step in demo.inspect(client, server) for line in step.lines)
    assert re.search(r"bytes +115 +60115 +of messages, without", text)


# Servers that do wrong.

LISTEN = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); "


def python(script: str) -> tuple[str, ...]:
    return sys.executable, "-c", script


def fails(monkeypatch: pytest.MonkeyPatch, script: str) -> str:
    monkeypatch.setattr(demo, "SERVER", python(script))
    with pytest.raises(Failure) as caught:
        demo.run(argparse.Namespace())
    return str(caught.value)


def test_a_server_that_reads_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    script = """
from fullduplex.cli import conversation
class Polite(conversation.ServerNotes):
    async def talk(self, ws, me):
        for _ in range(conversation.COUNT):
            self.note_message(await ws.recv())
        for number in range(1, conversation.COUNT + 1):
            self.sent.append(f"server's message {number} of 5")
            self.sent_at.append(conversation.time.monotonic())
            await ws.send(self.sent[-1])
conversation.ServerNotes = Polite
conversation.serve_once()
"""
    message = fails(monkeypatch, script)
    assert "the server had sent all of its own before it read one" in message
    assert "full duplex" in message
    assert "client" not in message.partition("full duplex")[0].replace("all 5 of the client crossed", "")
    assert "✗ not true: the server had sent all" in capsys.readouterr().out


def test_a_server_that_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
from fullduplex.cli import conversation
class Rude(conversation.ServerNotes):
    async def talk(self, ws, me):
        await ws.close(1008, "not today")
conversation.ServerNotes = Rude
conversation.serve_once()
"""
    message = fails(monkeypatch, script)
    assert message.startswith("this went wrong before all messages had come")
    assert "1008 (policy violation) not today" in message


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("raise SystemExit(3)", "the server's process ended too early, with exit code 3"),
        ("print('hello')", "the server's process does not say what it should"),
        (
            LISTEN
            + "c = s.accept()[0]; c.recv(9999); c.sendall(b'HTTP/1.1 404 No\\r\\nContent-Length: 0\\r\\n\\r\\n')",
            "this went wrong before the connection was open: server rejected WebSocket connection: HTTP 404",
        ),
    ],
)
def test_no_server_at_all(monkeypatch: pytest.MonkeyPatch, script: str, expected: str) -> None:
    assert fails(monkeypatch, script) == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("import time; time.sleep(60)", "0.5 s passed before the server listened"),
        (LISTEN + "time.sleep(60)", "0.5 s passed before the connection was open"),
    ],
)
def test_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch, script: str, expected: str) -> None:
    monkeypatch.setattr(demo, "TIME_LIMIT", 0.5)
    monkeypatch.setattr(demo, "END_LIMIT", 0.1)
    message = fails(monkeypatch, script)
    # On a busy machine, not even a process can be started in that time.
    assert message in (expected, "0.5 s passed before the server listened")


def test_the_command_fails() -> None:
    script = f"import sys; from fullduplex.cli import demo, main; demo.SERVER = {python('raise SystemExit(3)')}; "
    with running(*python(script + "sys.exit(main(['demo']))")) as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err == "fullduplex: the server's process ended too early, with exit code 3\n"


def test_ctrl_c_leaves_no_process() -> None:
    server = "import os, sys, time; print(os.getpid(), file=sys.stderr, flush=True); time.sleep(60)"
    script = (
        f"import sys; from fullduplex.cli import demo, main; demo.SERVER = {python(server)}; demo.END_LIMIT = 0.1; "
    )
    with running(*python(script + "sys.exit(main(['demo']))")) as process:
        assert process.stderr is not None
        pid = int(process.stderr.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130
        assert process.stderr.read() == ""
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_server_ends_with_its_parent() -> None:
    with running(*demo.SERVER) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        process.stdin.close()
        assert process.wait(LIMIT) == 0
