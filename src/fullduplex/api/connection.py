"""A connection as programs see it, on asyncio: the verbs of `websockets`, and what the callback face needs.

Verbs act when they are called and wait when they are awaited (see `awaitables`). All protocol state is the session's,
all of the socket's the link's; what is here is who waits for what.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Literal, Self, overload

from ..engine.link import Link, Owner
from ..wire.errors import ConcurrencyError, ConnectionClosed, ConnectionClosedOK
from ..wire.limits import FAIR, GATHER
from ..wire.opcodes import BINARY_FRAME, CLOSING, CONNECTING, OPEN, TEXT_FRAME, CloseCode, Opcode
from ..wire.receiver import Fragment
from ..wire.session import Session
from . import contexts, direct
from .awaitables import DONE, Failed, Later, Ready, Step, Waiter
from .base import BaseConnection
from .listener import Listener, ListenerLike, make_listener
from .messages import Asynchronous, BytesLike, Data, convert, encode
from .settings import Settings
from .slow import Policy

# Messages that may be left untaken when the connection is about to end; more are dropped.
LEFT: Final = 4096
BUSY: Final = "another task already waits for a message of this connection"

# Who waits, in order. Each leaves by itself, also when it is cancelled.
Waiters = dict[asyncio.Future[None], None]


class Receive(Step):
    """`recv()` and `__anext__()`: the next message. One object serves a loop all its life."""

    __slots__ = ("_connection", "_iterates")

    def __init__(self, connection: Connection, iterates: bool) -> None:
        self._connection = connection
        self._iterates = iterates

    def answer(self) -> Any:
        connection = self._connection
        session = connection.session
        if session.inbox:
            message = session.take()
            if session.paused:
                connection.resume_reading()
            return message
        if session.verdict is not None:
            connection.conclude()
        if connection.finished:
            error = session.error()
            if self._iterates and isinstance(error, ConnectionClosedOK):
                raise StopAsyncIteration
            try:
                raise error
            finally:
                del error  # its traceback has this frame, and would hold the connection until cycles are collected
        return connection.wait()


direct.answer_directly(Ready)
direct.answer_directly(Receive)


class Connection(BaseConnection):
    """One WebSocket connection; `connect` and `serve` make them.

    Use it as `async with`, to close it at the end, and as `async for`, to receive until it closes.
    """

    __slots__ = (
        "__weakref__",
        "_closed_waiters",
        "_context",
        "_drain_waiters",
        "_iterate",
        "_pongs",
        "_stream",
        "_turn_waiters",
        "_unfair",
        "_waiter",
        "listener",
    )

    def __init__(self, settings: Settings, session: Session, sock: socket.socket, open_deadline: float) -> None:
        super().__init__(settings, session, Link(settings.engine, sock, session, self, open_deadline))
        self.listener: Listener | None = None
        self._iterate: Receive | None = None
        self._stream: object | None = None  # who receives a message in parts
        self._waiter: Waiter | None = None  # who waits for a message
        self._pongs: dict[bytes, asyncio.Future[float]] | None = None
        self._drain_waiters: Waiters | None = None
        self._turn_waiters: Waiters | None = None
        self._unfair = 0  # bytes sent since a task has waited last
        self._closed_waiters: Waiters | None = None
        self._context: contextvars.Context | None = None  # of the listener

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
        if self._stream is not None:
            self._leave_stream()
        # One for each call: `gather` takes the same object twice for one.
        return Receive(self, False)

    async def _recv_as(self, decode: bool) -> Data:
        return convert(await self.recv(), decode)

    def __aiter__(self) -> AsyncIterator[Data]:
        """Receive until the connection closes; an abnormal closure raises ConnectionClosedError."""
        return self

    def __anext__(self) -> Awaitable[Data]:
        iterate = self._iterate
        if iterate is None:
            if self._stream is not None:
                self._leave_stream()
            iterate = Receive(self, True)
            if not self.finished:
                self._iterate = iterate
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
        self._leave_stream()
        self._stream = stream = object()
        self._iterate = None
        if not session.inbox:
            session.stream()
        complete = False
        try:
            while not complete:
                part: Any = await Receive(self, False)
                if isinstance(part, Fragment):
                    complete = part.fin
                    part = part.data
                    if not part:
                        continue
                else:
                    complete = True
                    session.streaming = False
                if complete:
                    self._stream = None
                yield part if decode is None else convert(part, decode)
                if self._stream is not stream and not complete:
                    raise ConcurrencyError("another message is received: the rest of this one is dropped")
        finally:
            if self._stream is stream:
                self._stream = None
                if not complete:
                    session.skip()

    def _leave_stream(self) -> None:
        """Another message is to be received. A generator that was left early may not have been told yet."""
        if self._waiter is not None and self._waiter.waiting:
            raise ConcurrencyError(BUSY)
        if self._stream is not None:
            self._stream = None
            self.session.skip()

    def wait(self) -> Waiter:
        """Where the running task waits for a message."""
        if self.listener is not None:
            raise ConcurrencyError("the messages of this connection go to its listener")
        waiter = self._waiter
        if waiter is None or waiter.cancelled():
            waiter = self._waiter = Waiter(self.settings.loop)
        elif waiter.waiting:
            raise ConcurrencyError(BUSY)
        waiter._asyncio_future_blocking = True
        self._unfair = 0
        return waiter

    def resume_reading(self) -> None:
        """Read on, if enough of the queue is taken."""
        session = self.session
        if session.queued() <= self.settings.queue_low:
            self.link.resume_reading()

    # Sending.

    def send(
        self,
        message: Data | BytesLike | Iterable[Data | BytesLike] | AsyncIterable[Data | BytesLike],
        text: bool | None = None,
        *,
        compress: bool | None = None,
        key: Hashable = None,
    ) -> Awaitable[None]:
        """Send a message: `str` as text, bytes as binary; `text` True or False sends either as the other.

        `compress` False or True is for this message, where compression was agreed on; by default its size decides.

        The message is under way when `send` returns. Awaiting it waits while more than `write_limit` bytes wait for
        the peer, and raises ConnectionClosed if it could not be sent; a cancelled wait takes nothing back.

        A `policy` other than WAIT may drop or hold it instead, which awaiting does not tell. Of messages with the same
        `key`, which is any hashable value, Policy.LATEST holds one.

        An iterable or an asynchronous iterable of one kind is sent as the fragments of one message. That, and what is
        sent meanwhile, happens when it is awaited; a message that cannot be completed closes the connection with 1011.

        Raises TypeError.
        """
        if self.backlog is not None and self.backlog.takes_message(self, message, text, compress, key):
            return Later(_yield)
        payload: BytesLike
        if type(message) is bytes:
            payload, is_text = message, False
        elif type(message) is str:
            payload, is_text = message.encode(), True
        elif isinstance(message, str | BytesLike):
            payload, is_text = encode(message)
        else:
            return self._send_parts(message, text, compress)
        session, link = self.session, self.link
        if session.state is not OPEN:
            return self._refused(session.error())
        if session.sending:
            return self._send_in_turn(message, text, compress, key)
        if text is not None:
            is_text = text
        first = TEXT_FRAME if is_text else BINARY_FRAME
        size = len(payload)
        if size >= GATHER and session.send_head(first, size):
            link.flush_with(payload)
        else:
            session.send(first, payload, compress)
            if not link.corked:
                link.touch()
            if len(session.out) < GATHER and not link.is_blocked():
                return DONE
            link.flush()
            size = FAIR  # many have gathered, which took longer than their bytes tell
        return self._press(size, self.backlog is None or self.backlog.policy is Policy.WAIT)

    def _press(self, size: int, may_wait: bool) -> Awaitable[None]:
        """Much has been sent, in `size` bytes: say whether to wait."""
        link = self.link
        if link.is_blocked():
            if may_wait and self.lags():
                return Later(self._drain)
            return DONE if link.buffered() < GATHER else Later(_yield)
        self._unfair += size
        if self._unfair < FAIR:
            return DONE
        self._unfair = 0
        return Later(_yield)

    async def _drain(self) -> None:
        """Wait until the peer has taken enough."""
        while self.lags():
            if self._drain_waiters is None:
                self._drain_waiters = {}
            self.expect_drain()
            await self._wait_in(self._drain_waiters)
        if self.link.is_closed():
            raise self.session.error()

    async def _wait_in(self, waiters: Waiters) -> None:
        waiter: asyncio.Future[None] = self.loop.create_future()
        waiters[waiter] = None
        try:
            await waiter
        finally:
            del waiters[waiter]

    def _refused(self, error: ConnectionClosed) -> Awaitable[Any]:
        """Why nothing can be sent; while the closing handshake is under way, once its end is known."""
        session = self.session
        return Failed(error) if session.state is not CLOSING or session.over else Later(self._refuse)

    async def _refuse(self) -> None:
        await self.wait_closed()
        raise self.session.error()

    # A message in fragments. What these return are plain coroutines: one that is not awaited is a mistake, and told so.

    async def _send_in_turn(self, message: Any, text: bool | None, compress: bool | None, key: Hashable) -> None:
        await self._wait_turn()
        await self.send(message, text, compress=compress, key=key)

    async def _wait_turn(self) -> None:
        """No other message may stand inside one that is sent in fragments. RFC 6455, section 5.4."""
        while self.session.sending and self.session.state is OPEN:
            if self._turn_waiters is None:
                self._turn_waiters = {}
            await self._wait_in(self._turn_waiters)

    def _send_parts(self, parts: Any, text: bool | None, compress: bool | None) -> Awaitable[None]:
        if isinstance(parts, Mapping):
            raise TypeError("a mapping is no message: send its text, or an iterable of fragments")
        if not isinstance(parts, Iterable | AsyncIterable):
            raise TypeError(f"a message is str, bytes-like, or an iterable of these; not {type(parts).__name__}")
        return self._send_fragments(parts if isinstance(parts, AsyncIterable) else Asynchronous(parts), text, compress)

    async def _send_fragments(self, parts: AsyncIterable[Any], text: bool | None, compress: bool | None) -> None:
        session = self.session
        kind: bool | None = None
        opcode = 0  # 0: it has not begun
        try:
            async for part in parts:
                payload, is_text = encode(part)
                if kind is None:
                    kind = is_text
                    await self._wait_turn()
                    if self.backlog is not None:
                        self.backlog.send_all(session)
                    opcode = Opcode.TEXT if (is_text if text is None else text) else Opcode.BINARY
                elif kind is not is_text:
                    raise TypeError("the fragments of a message are all str or all bytes-like")
                await self._send_fragment(opcode, payload, False, compress)
            if opcode:
                await self._send_fragment(opcode, b"", True, compress)
        except BaseException:
            if opcode and session.state is OPEN:
                # What began cannot be completed, nor taken back.
                self.close(CloseCode.INTERNAL_ERROR, "error in a fragmented message")
            raise
        finally:
            if opcode:
                session.sending = 0
                if self.backlog is not None:
                    self.backlog.release(self)
                _wake(self._turn_waiters)

    async def _send_fragment(self, opcode: int, payload: BytesLike, fin: bool, compress: bool | None) -> None:
        session, link = self.session, self.link
        if session.state is not OPEN:
            await self._refused(session.error())
        session.send_fragment(opcode, payload, fin, compress)
        link.touch()
        if not fin and (len(session.out) >= GATHER or link.is_blocked()):
            link.flush()
            await self._press(FAIR, True)

    # Ping, pong, close.

    def ping(self, data: Data | BytesLike | None = None) -> Awaitable[Awaitable[float]]:
        """Send a ping. `await (await ws.ping())` waits for its pong and gives the round trip in seconds.

        `data` is up to 125 bytes, random by default. Raises ValueError if a ping with the same data is under way.
        RFC 6455, section 5.5.2.
        """
        payload = None if data is None else encode(data)[0]
        try:
            key = self.session.ping(None if payload is None else bytes(payload), self.link.engine.time())
        except ConnectionClosed as error:
            return self._refused(error)
        pong: asyncio.Future[float] = self.loop.create_future()
        if self._pongs is None:
            self._pongs = {}
        self._pongs[key] = pong
        self.link.touch()
        return Ready(pong)

    def pong(self, data: Data | BytesLike = b"") -> Awaitable[None]:
        """Send a pong that nobody asked for, as a heartbeat. RFC 6455, section 5.5.3."""
        try:
            self.session.pong(bytes(encode(data)[0]))
        except ConnectionClosed as error:
            return self._refused(error)
        self.link.touch()
        return DONE

    def close(self, code: int | None = 1000, reason: str = "") -> Awaitable[None]:
        """Begin the closing handshake, once; awaiting it waits until TCP has ended, at most `close_timeout` seconds.

        Raises ValueError for a code that may not be sent, or a reason over 123 bytes. RFC 6455, section 7.1.2.
        """
        if self.backlog is not None:
            self.backlog.send_all(self.session)
        self.session.close(code, reason, self.link.engine.time())
        self.link.resume_reading()  # the peer's close frame must not wait behind a full queue
        if self.session.attention:
            self.link.attend()
        self.link.touch()
        if self.session.state is CONNECTING:
            self.link.abort("local", "closed before the opening handshake was complete")
        return self.wait_closed()

    def wait_closed(self) -> Awaitable[None]:
        """Wait until TCP has ended, whoever ends it.

        Messages are to be received meanwhile: while `max_queue` of them wait, nothing is read, nor the peer's goodbye.
        """
        return DONE if self.link.is_closed() else Later(self._wait_closed)

    async def _wait_closed(self) -> None:
        while not self.link.is_closed():
            if self._closed_waiters is None:
                self._closed_waiters = {}
            await self._wait_in(self._closed_waiters)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or kind is GeneratorExit:  # which `break` out of `async for ws in connect(...)` becomes
            code = CloseCode.NORMAL_CLOSURE
        elif issubclass(kind, Exception):
            code = CloseCode.INTERNAL_ERROR
        else:  # cancelled, interrupted
            code = CloseCode.GOING_AWAY
        await self.close(code)

    # What the link tells: Owner. The opening handshake is for each role to fill in.

    def ready(self) -> None: ...
    def receive_opening(self, data: bytes) -> None: ...
    def opening_expired(self) -> None: ...

    def opened(self, rest: bytes) -> None:
        """The session is open; `rest` came right behind the opening handshake."""
        self.note_address()
        if self.listener is not None:
            self._call(self.listener.on_open, self)
            self.link.feed(rest)
        elif rest:
            # A task that is about to receive must have begun when a verdict is spoken.
            self.link.pause_reading()
            self.loop.call_soon(self._feed, rest)

    def _feed(self, rest: bytes) -> None:
        if not self.link.is_closed():
            self.link.resume_reading()
            self.link.feed(rest)
            self.link.touch()

    def listen(self, listener: ListenerLike | None, context: contextvars.Context) -> None:
        """Have a listener called, in a context of the connection's own, instead of receiving in tasks."""
        if listener is not None:
            self._context = context
            self.listener = self._context.run(make_listener, listener)

    def received(self) -> None:
        if self.listener is not None:
            # A callback may lead to another one of the same connection; a context cannot be entered twice.
            context, self._context = self._context, None
            try:
                contexts.hear(contextvars.copy_context() if context is None else context, self)
            except Exception as error:
                self._listener_failed(error)
            finally:
                self._context = context
            if self.lags():
                # Who does not read what it asked for is not asked for more.
                self.link.pause_reading()
                self.expect_drain()
            return
        waiter = self._waiter  # held by a variable, as in `Link`
        if waiter is not None:
            waiter.wake()
        if self.session.inbox:
            self._check_queue()

    def is_behind(self) -> bool:
        # Not where somebody waits for the end, and nobody has ever asked for a message.
        takes = self._waiter is not None or self._iterate is not None or not self._closed_waiters
        return bool(self.session.inbox) and takes

    def conclude(self) -> None:
        """The messages before the verdict are taken, and whoever took them asks for more."""
        self.link.attend()
        self.link.touch()

    def hear(self) -> None:
        # Nothing any more once we have said goodbye.
        session = self.session
        inbox, session.inbox = session.inbox, None
        session.inbox_size = 0
        listener = self.listener
        assert inbox is not None and listener is not None
        if len(inbox) == 1:
            if session.state is OPEN:
                listener.on_message(self, inbox[0])
        else:
            on_message = listener.on_message  # which costs as much as a short callback
            for message in inbox:
                if session.state is not OPEN:
                    break
                on_message(self, message)
            del message  # so that only the inbox refers to it, and whoever has kept it
        session.spare(inbox)

    def _check_queue(self) -> None:
        """Stop reading while too much waits to be received."""
        session, settings = self.session, self.settings
        waiting = session.queued()
        if waiting > settings.queue_high or session.inbox_size > settings.queue_size:
            if session.state is OPEN:
                self.link.pause_reading()
            elif waiting > LEFT or session.inbox_size > settings.queue_size:
                # We have said goodbye: what nobody takes must not keep the peer's own goodbye from us.
                session.drop(min(settings.queue_high, LEFT))

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        """One of the listener's other callbacks, as in `received`."""
        context, self._context = self._context, None
        try:
            (contextvars.copy_context() if context is None else context).run(callback, *args)
        except Exception as error:
            self._listener_failed(error)
        finally:
            self._context = context

    def _listener_failed(self, error: Exception) -> None:
        self.logger.error("listener failed", exc_info=error)
        self.close(CloseCode.INTERNAL_ERROR)

    def noticed(self) -> None:
        session = self.session
        if session.acknowledged:
            acknowledged, session.acknowledged = session.acknowledged, None
            for key, latency in acknowledged:
                pong = self._pongs.pop(key, None) if self._pongs is not None else None
                if pong is not None and not pong.done():
                    pong.set_result(latency)
        if session.over:
            self._finish()
            self.link.resume_reading()  # the end of TCP must not wait behind a full queue

    def drained(self) -> None:
        if self.backlog is not None:
            self.backlog.release(self)
        _wake(self._drain_waiters)
        if self.listener is not None:
            self.link.resume_reading()

    def ended(self, error: OSError | None) -> None:
        failure = self.session.failure
        if failure is not None and failure.__cause__ is not None:
            self.logger.error("an extension failed", exc_info=failure.__cause__)
        if self.backlog is not None:
            self.backlog.drop_all()
        self._finish()
        for waiters in (self._drain_waiters, self._turn_waiters, self._closed_waiters):
            _wake(waiters)
        if self._pongs:
            for pong in self._pongs.values():
                if not pong.done():
                    pong.set_exception(self.session.error())
                    pong.exception()  # nobody has to look at it
            self._pongs = None
        listener, self.listener = self.listener, None
        if listener is not None:
            self._call(listener.on_close, self, self.close_code, self.close_reason)
        # A connection that is over goes with the last who hold it, not with the next collection of cycles.
        self._iterate = None
        self.link.owner = Owner()

    def _finish(self) -> None:
        """No more messages will come."""
        self.finished = True
        waiter = self._waiter
        if waiter is not None:
            waiter.schedule()


async def _yield() -> None:
    """Let others run: a task that sends without end must not be the only one."""
    await asyncio.sleep(0)


def _wake(waiters: Waiters | None) -> None:
    for waiter in waiters or ():
        if not waiter.done():
            waiter.set_result(None)
