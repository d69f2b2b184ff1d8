"""The conversation of `fullduplex demo`: what both sides say, and what each notes of it.

Both sides `talk`: they send all their messages before they read the first of the other's. So the messages cross, all
with all, however the system schedules the two processes. Then the server has a large message for the client, which has
said how fast it wants to be sent to.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .. import Close, Connection, ConnectionClosed, Request, Response, ServerConnection, connect, serve
from ..extensions import TransferRate

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

HOST: Final = "127.0.0.1"
COUNT: Final = 5  # messages of each side
PACE: Final = 0.001  # seconds between them, so that each leaves on its own
RATE: Final = 100_000  # bytes a second that the client wants to be sent
PARCEL: Final = bytes(range(250)) * 240
PING: Final = b"still there?"
GOODBYE: Final = Close(1000, "that was it")


@dataclass
class Notes:
    """What one side saw. Times are of `time.monotonic`, which all processes of a machine share."""

    pid: int = field(default_factory=os.getpid)
    sent: list[str] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    received: list[str] = field(default_factory=list)
    received_at: list[float] = field(default_factory=list)
    unsent: int = 0  # bytes that had not left when it began to read
    close_at: float = 0.0  # the other side's close frame was seen
    close_sent: Close | None = None
    close_received: Close | None = None

    async def talk(self, ws: Connection, me: str) -> None:
        for number in range(1, COUNT + 1):
            self.sent.append(f"{me}'s message {number} of {COUNT}")
            self.sent_at.append(time.monotonic())
            await ws.send(self.sent[-1])
            await asyncio.sleep(PACE)
        self.unsent = ws.buffered_amount
        for _ in range(COUNT):
            self.note_message(await ws.recv())

    def note_message(self, message: object) -> None:
        self.received_at.append(time.monotonic())
        self.received.append(str(message))

    def note_close(self, ws: Connection) -> None:
        if ws.close_exc is not None:
            self.close_sent, self.close_received = ws.close_exc.sent, ws.close_exc.rcvd


@dataclass
class ServerNotes(Notes):
    accepted: int = 0  # TCP connections
    parcel_at: float = 0.0  # it was sent ...
    overtaken: int = 0  # ... and then a ping, which went before so many bytes of it
    overtaken_at: float = 0.0
    latency: float = 0.0  # of that ping
    request_at: float = 0.0
    response_at: float = 0.0
    exit_code: int = -1  # of its process

    async def send_parcel(self, ws: Connection) -> None:
        self.parcel_at = time.monotonic()
        sending = ws.send(PARCEL, compress=False)
        self.overtaken = ws.buffered_amount
        self.overtaken_at = time.monotonic()
        self.latency = await (await ws.ping())
        await sending

    @classmethod
    def from_json(cls, line: bytes) -> ServerNotes:
        """ValueError, TypeError if this is not what `serve_once` prints."""
        values: dict[str, Any] = json.loads(line)
        for name in ("close_sent", "close_received"):
            if values[name] is not None:
                values[name] = Close(*values[name])
        return cls(**values)


@dataclass
class ClientNotes(Notes):
    connect_at: float = 0.0
    connected_at: float = 0.0
    opened_at: float = 0.0
    request: Request | None = None
    response: Response | None = None
    parcel: list[bytes] = field(default_factory=list)  # in parts, as they came ...
    parcel_at: list[float] = field(default_factory=list)  # ... and when
    ping_at: float = 0.0
    pong_at: float = 0.0
    latency: float = 0.0
    goodbye_at: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0
    step: str = "the server listened"  # what was to come next

    async def take_parcel(self, ws: Connection) -> None:
        async for part in ws.recv_streaming(decode=False):
            self.parcel_at.append(time.monotonic())
            self.parcel.append(part)


class CountingSocket(socket.socket):
    """Counts the bytes that go through it."""

    sent = 0
    received = 0

    def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        size = super().send(data, flags)
        self.sent += size
        return size

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        size = super().recv_into(buffer, nbytes, flags)
        self.received += size
        return size


async def call(port: int, notes: ClientNotes) -> None:
    """The client's part."""
    sock = CountingSocket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    notes.connect_at = time.monotonic()
    try:
        await asyncio.get_running_loop().sock_connect(sock, (HOST, port))
    except BaseException:
        sock.close()
        raise
    notes.connected_at = time.monotonic()
    notes.step = "the connection was open"
    ws = await connect(f"ws://{HOST}:{port}/demo", sock=sock, extensions=[TransferRate(receive=RATE)])
    notes.opened_at = time.monotonic()
    notes.request, notes.response = ws.request, ws.response
    notes.step = "all messages had come"
    await notes.talk(ws, "client")
    notes.step = "the large message had come"
    await notes.take_parcel(ws)
    notes.step = "the pong had come"
    await asyncio.sleep(0)  # out of the engine's tick: in it, time is that of its begin
    notes.ping_at = time.monotonic()
    notes.latency = await (await ws.ping(PING))
    notes.pong_at = time.monotonic()
    notes.step = "the connection was closed"
    notes.goodbye_at = time.monotonic()
    await ws.close(*GOODBYE)
    notes.close_at = time.monotonic()
    notes.note_close(ws)
    notes.bytes_sent, notes.bytes_received = sock.sent, sock.received
    notes.step = "the server had told what it saw"


def serve_once() -> None:
    """The server's process: print the port, serve one conversation, print the notes; or end with standard input."""
    with suppress(asyncio.CancelledError):
        asyncio.run(_serve_once())


async def _serve_once() -> None:
    task = asyncio.current_task()
    assert task is not None
    # Whoever started this process has its other end, and takes it along even if it is killed.
    asyncio.get_running_loop().add_reader(0, task.cancel)
    notes = ServerNotes()
    over = asyncio.Event()

    class Accepted(ServerConnection):
        __slots__ = ()

        def __init__(self, *args: Any) -> None:
            notes.accepted += 1
            super().__init__(*args)

    def note_request(_ws: Connection, _request: Request) -> None:
        notes.request_at = time.monotonic()

    def note_response(_ws: Connection, _request: Request, _response: Response) -> None:
        notes.response_at = time.monotonic()

    async def answer(ws: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            await notes.talk(ws, "server")
            await notes.send_parcel(ws)
            async for message in ws:
                notes.note_message(message)
        notes.close_at = time.monotonic()
        await ws.wait_closed()
        notes.note_close(ws)
        over.set()

    async with serve(
        answer,
        HOST,
        0,
        extensions=[TransferRate()],
        process_request=note_request,
        process_response=note_response,
        create_connection=Accepted,
    ) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await over.wait()
    print(json.dumps(asdict(notes)), flush=True)
