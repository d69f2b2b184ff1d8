"""`fullduplex demo`: two processes, one connection, and a check of every step."""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from .. import Close, ConnectionClosed, Headers, InvalidHandshake, build_info
from ..wire.rate import BURST
from .conversation import COUNT, GOODBYE, PARCEL, PING, RATE, ClientNotes, ServerNotes, call
from .text import BOLD, CYAN, DIM, GREEN, RED, YELLOW, Failure, Paint, harmless

SUMMARY = "show a real conversation of a server and a client, and check it"
DESCRIPTION = """\
Start a server and a client in two processes on this machine and show all they say to each other, line by line. Every
step is checked: the exit code is 0 if all was as it should be, 1 if not.
"""

SERVER: Final = (sys.executable, "-c", "from fullduplex.cli.conversation import serve_once; serve_once()")
TIME_LIMIT: Final = 8.0  # seconds for all of it, which takes about one: only what hangs meets this
END_LIMIT: Final = 1.0  # for the server's process to end when it is told to

TO_SERVER: Final = "client ────▶ server"
TO_CLIENT: Final = "client ◀──── server"
THERE_AND_BACK: Final = "client ◀───▶ server"
MARGIN: Final = " " * (9 + 1 + 9 + 3 + len(TO_SERVER) + 2)


@dataclass
class Row:
    """Something went from one side to the other: when it left, when it was there, and what it was."""

    left_at: float
    there_at: float
    way: str
    text: str
    more: Sequence[str] = ()


@dataclass
class Step:
    """A step of the conversation: what was seen, and what has to be true of it, with whether it is."""

    title: str
    rows: list[Row] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    checks: list[tuple[bool, str]] = field(default_factory=list)


def configure(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(args: argparse.Namespace) -> int:
    client, server = asyncio.run(converse(SERVER))
    info = build_info()
    print(f"fullduplex {info['version']} ({info['form']}, {info['python']})")
    print(f"client: process {client.pid}, server: process {server.pid}; times in milliseconds, one clock for both")
    steps = list(inspect(client, server))
    show(steps, client.connect_at, Paint(sys.stdout))
    wrong = [claim for step in steps for holds, claim in step.checks if not holds]
    if wrong:
        raise Failure(f"the demo is not as it should be. Not true: {'; '.join(wrong)}")
    print(Paint(sys.stdout)("All is as it should be.", GREEN, BOLD))
    return 0


async def converse(command: Sequence[str]) -> tuple[ClientNotes, ServerNotes]:
    """Start the server, call it, and give what both saw. Leaves no process behind."""
    client = ClientNotes()
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, start_new_session=True)
    try:
        async with asyncio.timeout(TIME_LIMIT):
            port = int(await _read_line(process))
            client.step = "TCP was connected"
            await call(port, client)
            server = ServerNotes.from_json(await _read_line(process))
    except TimeoutError:
        raise Failure(f"{TIME_LIMIT:g} s passed before {client.step}") from None
    except (OSError, InvalidHandshake, ConnectionClosed) as error:
        raise Failure(f"this went wrong before {client.step}: {error}") from None
    except (ValueError, TypeError, KeyError):
        raise Failure("the server's process does not say what it should") from None
    finally:
        exit_code = await _end(process)
    server.exit_code = exit_code
    return client, server


async def _read_line(process: Process) -> bytes:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise Failure(f"the server's process ended too early, with exit code {await process.wait()}")
    return line


async def _end(process: Process) -> int:
    """End the process, the hard way if need be, and give its exit code."""
    assert process.stdin is not None
    process.stdin.close()  # the sign to end
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(END_LIMIT):
                await process.communicate()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
    return await process.wait()


# What has to be true.


def inspect(client: ClientNotes, server: ServerNotes) -> Iterator[Step]:
    """Lay out the conversation, step by step."""
    yield _tcp(client)
    yield _http(client, server)
    yield _messages(client, server)
    yield _rate(client, server)
    yield _ping(client)
    yield _close(client, server)
    yield _counts(client, server)


def _tcp(client: ClientNotes) -> Step:
    taken = client.connected_at - client.connect_at
    row = Row(client.connect_at, client.connected_at, TO_SERVER, f"connected in {_ms(taken)} ms")
    return Step("TCP", [row])


def _http(client: ClientNotes, server: ServerNotes) -> Step:
    request, response = client.request, client.response
    assert request is not None
    assert response is not None
    request_lines = request.serialize().decode("latin-1").split("\r\n")
    response_lines = response.serialize().decode("latin-1").split("\r\n")
    keys = request.headers.get_all("Sec-WebSocket-Key")
    accepts = response.headers.get_all("Sec-WebSocket-Accept")
    times = [client.connected_at, server.request_at, server.response_at, client.opened_at]
    return Step(
        "Opening handshake",
        [
            Row(client.connected_at, server.request_at, TO_SERVER, request_lines[0], request_lines[1:-2]),
            Row(server.response_at, client.opened_at, TO_CLIENT, response_lines[0], response_lines[1:-2]),
        ],
        checks=[
            (response.status_code == 101, "the server switches protocols (101)"),
            ([_accept(key) for key in keys] == accepts, "Sec-WebSocket-Accept is what RFC 6455 makes of the key"),
            (times == sorted(times), "request and response follow each other"),
        ],
    )


def _accept(key: str) -> str:
    """Section 4.2.2 of RFC 6455 once more: a check that uses what it checks would prove nothing."""
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode(), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def _messages(client: ClientNotes, server: ServerNotes) -> Step:
    up = list(zip(client.sent_at, server.received_at, server.received, strict=False))
    down = list(zip(server.sent_at, client.received_at, client.received, strict=False))
    rows = [Row(left, there, TO_SERVER, text) for left, there, text in up]
    rows += [Row(left, there, TO_CLIENT, text) for left, there, text in down]
    rows.sort(key=lambda row: row.left_at)
    # Two messages cross if each leaves before the other one is there.
    crossing = sum(left < there2 and left2 < there for left, there, _ in up for left2, there2, _ in down)
    return Step(
        "Messages of both directions, crossing (each side reads after it has sent all of its own)",
        rows,
        checks=[
            (len(client.sent) == COUNT and server.received == client.sent, f"all {COUNT} of the client came, in order"),
            (len(server.sent) == COUNT and client.received == server.sent, f"all {COUNT} of the server came, in order"),
            (all(left <= there for left, there, _ in up + down), "none was there before it left"),
            (_sent_first(client), "the client had sent all of its own before it read one"),
            (_sent_first(server), "the server had sent all of its own before it read one"),
            (crossing == COUNT * COUNT, f"all {COUNT} of the client crossed all {COUNT} of the server: full duplex"),
        ],
    )


def _sent_first(side: ClientNotes | ServerNotes) -> bool:
    return not side.unsent and max(side.sent_at, default=0.0) < min(side.received_at, default=0.0)


def _rate(client: ClientNotes, server: ServerNotes) -> Step:
    request, response = client.request, client.response
    assert request is not None
    assert response is not None
    wish = f"transfer-rate; receive={RATE}"
    is_agreed = wish in _extensions(request.headers) and "transfer-rate" in _extensions(response.headers)
    # How many bytes were there after how many seconds.
    there = [(sum(map(len, client.parcel[: n + 1])), at - server.parcel_at) for n, at in enumerate(client.parcel_at)]
    size, took = there[-1]
    return Step(
        f"Transfer rate (the client has asked for it in its request: {wish})",
        [
            Row(
                server.parcel_at,
                client.parcel_at[-1],
                TO_CLIENT,
                f"one message of {size:,} bytes; there were",
                [f"{total:7,} bytes after {_ms(seconds):>7} ms" for total, seconds in there],
            ),
            Row(
                server.overtaken_at,
                server.overtaken_at + server.latency,
                THERE_AND_BACK,
                f"a ping of the server, and its pong after {_ms(server.latency)} ms",
            ),
        ],
        checks=[
            (is_agreed, f"both agreed on {RATE:,} bytes a second"),
            (b"".join(client.parcel) == PARCEL, "the large message came whole"),
            (
                all(total <= RATE * (BURST + seconds) for total, seconds in there),
                f"no more than {RATE * BURST:,.0f} bytes at once, then {RATE:,} a second: it took {_ms(took)} ms",
            ),
            (server.overtaken > 0, f"the ping went before {server.overtaken:,} bytes of it"),
        ],
    )


def _extensions(headers: Headers) -> list[str]:
    return ", ".join(headers.get_all("Sec-WebSocket-Extensions")).split(", ")


def _ping(client: ClientNotes) -> Step:
    took = client.pong_at - client.ping_at
    return Step(
        "Ping and pong",
        [
            Row(client.ping_at, client.pong_at, THERE_AND_BACK, f"ping {PING.decode()!r}, and its pong"),
        ],
        checks=[(0.0 <= client.latency <= took, f"the round trip took {_ms(client.latency)} ms")],
    )


def _close(client: ClientNotes, server: ServerNotes) -> Step:
    answer = server.close_sent
    return Step(
        "Closing handshake",
        [
            Row(client.goodbye_at, server.close_at, TO_SERVER, f"close {server.close_received}"),
            Row(server.close_at, client.close_at, TO_CLIENT, f"close {client.close_received}"),
        ],
        checks=[
            (client.close_sent == GOODBYE == server.close_received, f"the client closed with {GOODBYE}"),
            (answer == Close(GOODBYE.code) == client.close_received, f"the server answered with {Close(GOODBYE.code)}"),
        ],
    )


def _counts(client: ClientNotes, server: ServerNotes) -> Step:
    sent, received, what = client.bytes_sent, client.bytes_received, "of TCP payload, counted at the client's socket"
    counts = [len(server.received), len(client.received) + 1]  # the large one
    message_bytes = [sum(len(text.encode()) for text in side.received) for side in (server, client)]
    message_bytes[1] += sum(map(len, client.parcel))
    if not sent and not received:  # an engine that calls the kernel itself does not use the counting methods
        (sent, received), what = message_bytes, "of messages, without frames and heads"
    return Step(
        "Counts",
        lines=[
            f"{'':16} {'────▶':>7} {'◀────':>7}",
            f"{'messages':16} {counts[0]:7} {counts[1]:7}",
            f"{'bytes':16} {sent:7} {received:7}   {what}",
            f"{'TCP connections':16} {server.accepted:7} {'':7}   accepted by the server",
        ],
        checks=[
            (counts == [COUNT, COUNT + 1], f"{COUNT} messages to the server, {COUNT + 1} to the client"),
            (sent >= message_bytes[0] and received >= message_bytes[1], "no fewer bytes than the messages have"),
            (server.accepted == 1, "one TCP connection for all of it"),
            (server.exit_code == 0, "the server's process has ended, with exit code 0"),
        ],
    )


# Showing it.


def show(steps: Sequence[Step], start: float, paint: Paint) -> None:
    """Print it all, times counted from `start`."""
    print(f"\n{paint('     sent   arrived', DIM)}")
    for step in steps:
        print(f"\n{paint(step.title, BOLD)}")
        for row in step.rows:
            _show_row(row, start, paint)
        for line in step.lines:
            print(f"  {line}")
        for holds, claim in step.checks:
            mark = paint("✓", GREEN) if holds else paint("✗ not true:", RED, BOLD)
            print(f"  {mark} {harmless(claim)}")
    print()


def _show_row(row: Row, start: float, paint: Paint) -> None:
    times = f"{_ms(row.left_at - start):>9} {_ms(row.there_at - start):>9}"
    colour = CYAN if row.way is TO_SERVER else YELLOW
    print(f"{times}   {paint(row.way, colour)}  {harmless(row.text)}")
    for line in row.more:
        print(f"{MARGIN}{paint(harmless(line), DIM)}")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3f}"
