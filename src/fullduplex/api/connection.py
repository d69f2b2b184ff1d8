"""A connection as programs see it, on asyncio: the verbs of `websockets`, and what the callback face needs.

Verbs act when they are called and wait when they are awaited (see `awaitables`). All protocol state is the session's,
all of the socket's the link's; what is here is who waits for what.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Literal, Self, overload

from ..engine.link import Link
from ..wire.codec import append_frame
from ..wire.errors import ConcurrencyError, ConnectionClosed, WebSocketException
from ..wire.headers import Request, Response
from ..wire.opcodes import CloseCode, Opcode, State
from ..wire.session import BINARY_FRAME, OPEN, TEXT_FRAME, Fragment, Session
from .awaitables import DONE, Failed, Later, Ready, Receive, Waiter
from .listener import Listener
from .settings import Settings

CLOSED = State.CLOSED

Data = str | bytes
BytesLike = bytes | bytearray | memoryview

# Output gathers up to here before it is written out of turn, and a task that sends more than this without ever
# waiting lets others run.
GATHER: Final = 32_768


class Connection:
    """One WebSocket connection; `connect` and `serve` make them.

    Use it as `async with`, to close it at the end, and as `async for`, to receive until it closes.
    """

    __slots__ = (
        "__weakref__",
        "_closed_waiters",
        "_drain_waiters",
        "_id",
        "_iterate",
        "_pongs",
        "_receive",
        "_turn_waiters",
        "_waiter",
        "finished",
        "link",
        "listener",
        "loop",
        "request",
        "response",
        "session",
        "settings",
        "subprotocol",
    )

    def __init__(self, settings: Settings, session: Session, sock: socket.socket, open_deadline: float) -> None:
        engine = settings.engine
        self.settings = settings
        self.session = session
        self.link = Link(engine, sock, session, self, open_deadline)
        self.loop = settings.loop
        self.listener: Listener | None = None
        self.request: Request | None = None
        self.response: Response | None = None
        self.subprotocol: str | None = None
        self.finished = False  # no more messages will come
        self._id: uuid.UUID | None = None
        self._receive: Receive | None = None
        self._iterate: Receive | None = None
        self._waiter: Waiter | None = None  # who waits for a message
        self._pongs: dict[bytes, asyncio.Future[float]] | None = None
        self._drain_waiters: list[asyncio.Future[None]] | None = None
        self._turn_waiters: list[asyncio.Future[None]] | None = None
        self._closed_waiters: list[asyncio.Future[None]] | None = None

    # What is known of it.

    @property
    def id(self) -> uuid.UUID:
        """A unique identifier, for logs."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @property
    def logger(self) -> logging.Logger | logging.LoggerAdapter[Any]:
        """The logger of the server, or the client, that made it."""
        return self.settings.logger

    @property
    def state(self) -> State:
        """CONNECTING, OPEN, CLOSING or CLOSED."""
        return self.session.state

    @property
    def close_code(self) -> int | None:
        """The close code received, 1006 if TCP ended without one, None before the end. RFC 6455, section 7.1.5."""
        return self.session.error().code if self.session.state is CLOSED else None

    @property
    def close_reason(self) -> str | None:
        """The close reason received, None before the end. RFC 6455, section 7.1.6."""
        return self.session.error().reason if self.session.state is CLOSED else None

    @property
    def close_exc(self) -> ConnectionClosed | None:
        """Both close frames, who ended the connection, and what was seen, as an exception; None before the end."""
        return self.session.error() if self.session.state is CLOSED else None

    @property
    def latency(self) -> float:
        """The last measured round trip of a ping and its pong in seconds; 0 before the first."""
        return self.session.latency

    @property
    def buffered_amount(self) -> int:
        """Bytes that wait to be sent."""
        return self.link.buffered

    @property
    def is_slow(self) -> bool:
        """The peer takes bytes slower than they are sent: over `write_limit` of them wait."""
        return self.link.unsent is not None and self.link.buffered > self.settings.write_high

    @property
    def local_address(self) -> Any:
        """The socket's own address: (host, port) for IPv4, (host, port, flow, scope) for IPv6, a path for Unix."""
        return self._address(self.link.sock.getsockname)

    @property
    def remote_address(self) -> Any:
        """The peer's address, in the same form; None once TCP has ended."""
        return self._address(self.link.sock.getpeername)

    @staticmethod
    def _address(ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except OSError:  # closed
            return None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.state.name} {self.remote_address}>"

    # Receiving.

    @overload
    def recv(self, decode: Literal[True]) -> Awaitable[str]: ...
    @overload
    def recv(self, decode: Literal[False]) -> Awaitable[bytes]: ...
    @overload
    def recv(self, decode: None = None) -> Awaitable[Data]: ...
    def recv(self, decode: bool | None = None) -> Awaitable[Data]:
        """Receive the next message: text as `str`, binary as `bytes`; `decode` True or False forces one of them.

        A cancelled `recv()` loses nothing. Raises ConnectionClosed when no message is left; ConcurrencyError if
        another task receives already; UnicodeDecodeError for `decode=True` and binary that is not UTF-8.
        """
        if decode is not None:
            return Later(self._recv_as, decode)
        receive = self._receive
        if receive is None:
            receive = self._receive = Receive(self, False)
        return receive

    async def _recv_as(self, decode: bool) -> Data:
        return _convert(await self.recv(), decode)

    def __aiter__(self) -> AsyncIterator[Data]:
        """Receive until the connection closes; an abnormal closure raises ConnectionClosedError."""
        return self

    def __anext__(self) -> Awaitable[Data]:
        iterate = self._iterate
        if iterate is None:
            iterate = self._iterate = Receive(self, True)
        return iterate

    @overload
    def recv_streaming(self, decode: Literal[True]) -> AsyncIterator[str]: ...
    @overload
    def recv_streaming(self, decode: Literal[False]) -> AsyncIterator[bytes]: ...
    @overload
    def recv_streaming(self, decode: None = None) -> AsyncIterator[Data]: ...
    async def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[Data]:
        """Receive the next message in parts, as its fragments come.

        Text arrives in whole characters. What is left of a message that is not read to its end is dropped.
        """
        session = self.session
        if session.inbox_head == len(session.inbox):
            session.stream()
        complete = False
        try:
            while not complete:
                part: Any = await self.recv()
                if isinstance(part, Fragment):
                    complete = part.fin
                    part = part.data
                    if not part:
                        continue
                else:
                    complete = True
                    session.streaming = False
                yield part if decode is None else _convert(part, decode)
        finally:
            if not complete:
                session.skip()

    def wait(self) -> Waiter:
        """Where the running task waits for a message."""
        waiter = self._waiter
        if waiter is None or waiter.cancelled():
            waiter = self._waiter = Waiter(self.loop)
        elif waiter.waiting:
            raise ConcurrencyError("another task already waits for a message of this connection")
        waiter._asyncio_future_blocking = True
        return waiter

    def resume_reading(self) -> None:
        """Read on, if enough of the queue is taken."""
        session = self.session
        if len(session.inbox) - session.inbox_head <= self.settings.queue_low:
            self.link.resume_reading()

    # Sending.

    def send(
        self, message: Data | BytesLike | Iterable[Data | BytesLike] | AsyncIterable[Data | BytesLike], text: bool | None = None
    ) -> Awaitable[None]:
        """Send a message: `str` as text, bytes as binary; `text` True or False sends either as the other.

        An iterable or an asynchronous iterable of one kind is sent as the fragments of one message. The message is
        under way when `send` returns. Awaiting it waits while more than `write_limit` bytes wait for the peer, and
        raises ConnectionClosed if it could not be sent; a cancelled wait takes nothing back. Raises TypeError.
        """
        session = self.session
        kind = type(message)
        try:
            if kind is bytes and text is None:
                session.send(BINARY_FRAME, message)  # type: ignore[arg-type]
            elif kind is str and text is None:
                session.send(TEXT_FRAME, message.encode())  # type: ignore[union-attr]
            elif isinstance(message, str | BytesLike):
                payload, is_text = _encode(message)
                session.send(TEXT_FRAME if (is_text if text is None else text) else BINARY_FRAME, payload)
            else:
                return self._send_parts(message, text)
        except ConcurrencyError:
            return Later(self._send_in_turn, message, text)
        except ConnectionClosed as error:
            return Failed(error)
        link = self.link
        if not link.corked:
            link.touch()
        if len(session.out) < GATHER and link.unsent is None:
            return DONE
        return self._press(link)

    def _press(self, link: Link) -> Awaitable[None]:
        """Much has been sent: write it, and say whether to wait."""
        link.flush()
        if self.is_slow:
            return Later(self._drain)
        return DONE if link.unsent is not None else Later(_yield)

    async def _drain(self) -> None:
        """Wait until the peer has taken enough."""
        while self.is_slow:
            self._drain_waiters, waiter = self._wait_in(self._drain_waiters)
            self.link.low_water = self.settings.write_low
            self.link.draining = True
            await waiter
        if self.link.closed:
            raise self.session.error()

    def _wait_in(
        self, waiters: list[asyncio.Future[None]] | None
    ) -> tuple[list[asyncio.Future[None]], asyncio.Future[None]]:
        waiter: asyncio.Future[None] = self.loop.create_future()
        return [*(waiters or ()), waiter], waiter

    async def _send_in_turn(self, message: Any, text: bool | None) -> None:
        """A message is being sent in fragments; no other may stand inside it. RFC 6455, section 5.4."""
        while self.session.sending and self.session.state is OPEN:
            self._turn_waiters, waiter = self._wait_in(self._turn_waiters)
            await waiter
        await self.send(message, text)

    def _send_parts(self, parts: Any, text: bool | None) -> Awaitable[None]:
        if isinstance(parts, Mapping):
            raise TypeError("a mapping is no message: send its text, or an iterable of fragments")
        if not isinstance(parts, Iterable | AsyncIterable):
            raise TypeError(f"a message is str, bytes-like, or an iterable of these; not {type(parts).__name__}")
        if self.session.sending:
            return Later(self._send_in_turn, parts, text)
        return Later(self._send_fragments, parts, text)

    async def _send_fragments(self, parts: Any, text: bool | None) -> None:
        session = self.session
        while session.sending and session.state is OPEN:
            self._turn_waiters, waiter = self._wait_in(self._turn_waiters)
            await waiter
        kind: bool | None = None
        opcode = 0
        try:
            async for part in _iterate(parts):
                payload, is_text = _encode(part)
                if kind is None:
                    kind = is_text
                    opcode = Opcode.TEXT if (is_text if text is None else text) else Opcode.BINARY
                elif kind is not is_text:
                    raise TypeError("the fragments of a message are all str or all bytes-like")
                session.send_fragment(opcode, payload, False)
                self.link.touch()
                if len(session.out) >= GATHER or self.link.unsent is not None:
                    await self._press(self.link)
            if opcode:
                session.send_fragment(opcode, b"", True)
                self.link.touch()
        except ConnectionClosed:
            raise
        except BaseException:
            # What began cannot be completed, nor taken back.
            if session.sending:
                self.close(CloseCode.INTERNAL_ERROR, "error in a fragmented message")
            raise
        finally:
            session.sending = 0
            _wake(self._turn_waiters)
            self._turn_waiters = None

    def send_frame(self, frame: bytes) -> None:
        """Send a frame that is made already, and do not wait; for `broadcast`. Raises ConnectionClosed."""
        self.session.send_frame(frame)
        self.link.touch()

    # Ping, pong, close.

    def ping(self, data: Data | BytesLike | None = None) -> Awaitable[Awaitable[float]]:
        """Send a ping. `await (await ws.ping())` waits for its pong and gives the round trip in seconds.

        `data` is up to 125 bytes, random by default. Raises ValueError if a ping with the same data is under way.
        RFC 6455, section 5.5.2.
        """
        payload = None if data is None else _encode(data)[0]
        try:
            key = self.session.ping(None if payload is None else bytes(payload), self.link.engine.time())
        except ConnectionClosed as error:
            return Failed(error)
        pong: asyncio.Future[float] = self.loop.create_future()
        if self._pongs is None:
            self._pongs = {}
        self._pongs[key] = pong
        self.link.touch()
        return Ready(pong)

    def pong(self, data: Data | BytesLike = b"") -> Awaitable[None]:
        """Send a pong that nobody asked for, as a heartbeat. RFC 6455, section 5.5.3."""
        try:
            self.session.pong(bytes(_encode(data)[0]))
        except ConnectionClosed as error:
            return Failed(error)
        self.link.touch()
        return DONE

    def close(self, code: int | None = 1000, reason: str = "") -> Awaitable[None]:
        """Begin the closing handshake, once; awaiting it waits until TCP has ended, at most `close_timeout` seconds.

        Raises ValueError for a code that may not be sent, or a reason over 123 bytes. RFC 6455, section 7.1.2.
        """
        self.session.close(code, reason, self.link.engine.time())
        self.link.resume_reading()  # the peer's close frame must not wait behind a full queue
        if self.session.attention:
            self.link.attend()
        self.link.touch()
        if self.session.state is State.CONNECTING:
            self.link.abort("local", "closed before the opening handshake was complete")
        return self.wait_closed()

    def wait_closed(self) -> Awaitable[None]:
        """Wait until TCP has ended, whoever ends it."""
        return DONE if self.link.closed else Later(self._wait_closed)

    async def _wait_closed(self) -> None:
        while not self.link.closed:
            self._closed_waiters, waiter = self._wait_in(self._closed_waiters)
            await waiter

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close(CloseCode.NORMAL_CLOSURE if kind is None else CloseCode.INTERNAL_ERROR)

    # What the link tells: Owner.

    def ready(self) -> None:
        raise AssertionError

    def receive_opening(self, data: bytes) -> None:
        raise AssertionError

    def opening_expired(self) -> None:
        raise AssertionError

    def opened(self, rest: bytes) -> None:
        """The opening handshake succeeded; `rest` came right behind it."""
        self.link.open()
        if self.listener is not None:
            self._call(self.listener.on_open, self)
            self.link.feed(rest)
        elif rest:
            # A task that is about to receive must have begun when a verdict is spoken.
            self.link.pause_reading()
            self.loop.call_soon(self._feed, rest)

    def _feed(self, rest: bytes) -> None:
        if not self.link.closed:
            self.link.resume_reading()
            self.link.feed(rest)
            self.link.touch()

    def received(self) -> None:
        session = self.session
        inbox: list[Any] = session.inbox
        listener = self.listener
        if listener is not None:
            try:
                for message in inbox:
                    listener.on_message(self, message)
                    if session.state is not OPEN:
                        break
            except Exception:
                self._listener_failed()
            inbox.clear()
            return
        if self._waiter is not None:
            self._waiter.wake()
        if inbox:
            self._check_queue()

    def _check_queue(self) -> None:
        """Stop reading while too much waits to be received."""
        session, settings = self.session, self.settings
        waiting = session.inbox[session.inbox_head :]
        if len(waiting) > settings.queue_high or sum(map(len, waiting)) > settings.queue_size:
            if session.state is OPEN:
                self.link.pause_reading()
            else:
                # We have said goodbye: what nobody takes must not keep the peer's own goodbye from us.
                session.inbox.clear()
                session.inbox_head = 0

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        try:
            callback(*args)
        except Exception:
            self._listener_failed()

    def _listener_failed(self) -> None:
        self.logger.exception("listener failed")
        self.close(CloseCode.INTERNAL_ERROR)

    def noticed(self) -> None:
        session = self.session
        if session.acknowledged:
            acknowledged, session.acknowledged = session.acknowledged, []
            for key, latency in acknowledged:
                pong = self._pongs.pop(key, None) if self._pongs is not None else None
                if pong is not None and not pong.done():
                    pong.set_result(latency)
        if session.over:
            self._finish()

    def drained(self) -> None:
        _wake(self._drain_waiters)
        self._drain_waiters = None

    def ended(self, error: OSError | None) -> None:
        self._finish()
        self.drained()
        _wake(self._turn_waiters)
        _wake(self._closed_waiters)
        self._turn_waiters = self._closed_waiters = None
        if self._pongs:
            for pong in self._pongs.values():
                if not pong.done():
                    pong.set_exception(self.session.error())
                    pong.exception()  # nobody has to look at it
            self._pongs = None
        listener, self.listener = self.listener, None
        if listener is not None and self.request is not None:
            self._call(listener.on_close, self, self.close_code, self.close_reason)

    def _finish(self) -> None:
        """No more messages will come."""
        self.finished = True
        if self._waiter is not None:
            self._waiter.schedule()


def _encode(message: Data | BytesLike) -> tuple[BytesLike, bool]:
    """The bytes of a message or of a part of it, and whether it is text."""
    if isinstance(message, str):
        return message.encode(), True
    if isinstance(message, bytes | bytearray):
        return message, False
    if isinstance(message, memoryview):
        return message.tobytes(), False  # of any shape and format
    raise TypeError(f"a message is str or bytes-like, not {type(message).__name__}")


def _convert(message: Data, decode: bool) -> Data:
    if decode:
        return message if isinstance(message, str) else message.decode()
    return message.encode() if isinstance(message, str) else message


async def _iterate(parts: Any) -> AsyncIterator[Any]:
    if isinstance(parts, AsyncIterable):
        async for part in parts:
            yield part
    else:
        for part in parts:
            yield part


async def _yield() -> None:
    """Let others run: a task that sends without end must not be the only one."""
    await asyncio.sleep(0)


def _wake(waiters: list[asyncio.Future[None]] | None) -> None:
    for waiter in waiters or ():
        if not waiter.done():
            waiter.set_result(None)


def broadcast(connections: Iterable[Connection], message: Data | BytesLike, raise_exceptions: bool = False) -> None:
    """Send a message to many connections; frame it once. Does not wait, not even for slow ones.

    Connections that are not open, or in the middle of a fragmented message, are passed over; with `raise_exceptions`
    an ExceptionGroup says which failed. Raises TypeError.
    """
    payload, is_text = _encode(message)
    first = TEXT_FRAME if is_text else BINARY_FRAME
    frame = bytearray()
    append_frame(frame, first, payload, None)
    made = bytes(frame)
    errors: list[Exception] = []
    for connection in connections:
        session = connection.session
        if session.state is not OPEN:
            continue
        try:
            if session.server:
                session.send_frame(made)
            else:
                session.send(first, payload)
        except WebSocketException as error:
            errors.append(error)
            connection.logger.warning("skipped broadcast: %s", error)
            continue
        connection.link.touch()
    if errors and raise_exceptions:
        raise ExceptionGroup("skipped broadcast", errors)
