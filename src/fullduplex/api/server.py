"""`serve`: a WebSocket server on asyncio."""

from __future__ import annotations

import asyncio
import contextvars
import http
import inspect
import os
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Generator, Sequence
from types import TracebackType
from typing import Any, Final, Self

from ..engine.engine import Acceptor
from ..wire.errors import ConnectionClosed, InvalidHandshake, InvalidMessage
from ..wire.extensions import ExtensionFactory
from ..wire.handshake import SAME_ORIGIN, USER_AGENT, Origins, ServerHandshake
from ..wire.headers import Request, Response
from ..wire.http1 import HeadReader
from ..wire.limits import (
    CLOSE_TIMEOUT,
    MAX_MESSAGE,
    MAX_QUEUE,
    OPEN_TIMEOUT,
    PING_INTERVAL,
    PING_TIMEOUT,
    WRITE_LIMIT,
    Limits,
)
from ..wire.opcodes import OPEN, CloseCode
from .admission import Admission, Statistics
from .connection import Connection
from .host import get_engine
from .listener import ListenerLike, check_listener
from .listening import bind_tcp, bind_unix
from .opening import Opening, complete
from .settings import Compression, Limit, Logger, Settings, make_extensions
from .slow import Policy

# Connections that the kernel holds until we accept them; it takes the smaller of this and its own somaxconn.
BACKLOG: Final = 4096

Handler = Callable[["ServerConnection"], Awaitable[None]]
ProcessRequest = Callable[["ServerConnection", Request], Awaitable[Response | None] | Response | None]
ProcessResponse = Callable[["ServerConnection", Request, Response], Awaitable[Response | None] | Response | None]
SelectSubprotocol = Callable[["ServerConnection", Sequence[str]], str | None]


class ServerConnection(Connection):
    """The server's side of a connection. `request` and `response` are those of its opening handshake."""

    __slots__ = ("_extensions", "_opening", "place", "server")

    def __init__(self, server: Server, sock: socket.socket, open_deadline: float) -> None:
        super().__init__(server.settings, server.settings.make_session(), sock, open_deadline)
        self.server = server
        self.place = b""  # given back to the server's admission at the end
        self._opening: Opening | None = Opening()
        self._extensions = ""  # what the response says of them, where it is made again

    def respond(self, status: int, text: str) -> Response:
        """Make an HTTP response with a plain text body, to return from `process_request` or `process_response`."""
        return self.server.handshake.respond(status, text)

    # The opening handshake, RFC 6455, section 4.2. A hook that is a coroutine goes on in a task.

    def ready(self) -> None:
        """Nothing to say before the client has."""

    def receive_opening(self, data: bytes) -> None:
        opening = self._opening
        assert opening is not None
        reader = opening.reader
        assert reader is not None
        is_first = not reader.taken
        try:
            request = reader.feed(data)
        except InvalidHandshake as error:
            self._reject(error)
            return
        if request is None:
            return
        if is_first:
            opening.head = data[: reader.taken]
        opening.reader = None
        opening.rest = data[reader.taken :]
        self._request = request
        hook = self.server.process_request
        self._go_on(None if hook is None else self._call_hook(hook, self, request), self._accept)

    def _call_hook(self, hook: Callable[..., Any], *args: Any) -> Any:
        try:
            return self.next_context().run(hook, *args)
        except Exception as error:
            return self._hook_failed(error)

    def next_context(self) -> contextvars.Context:
        """Hooks, handler and listener see what `serve` saw, and what those before them have set.

        A copy for each: one may be called while the one before it still runs, and no context can be entered twice.
        """
        self._context = (self._context or self.server.context).copy()
        return self._context

    def _hook_failed(self, error: Exception) -> Response:
        if isinstance(error, InvalidHandshake):
            log = self.logger.error if error.who == "local" else self.logger.info
            log("opening handshake failed: %s", error)
            return self.server.handshake.reject(error)
        self.logger.error("opening handshake failed", exc_info=error)
        return self.respond(500, "Failed to open a WebSocket connection.\nSee server log for more information.\n")

    def _go_on(self, answer: Any, then: Callable[[Any], None]) -> None:
        """Call `then` with the hook's answer; if the hook is a coroutine, when that is there."""
        if inspect.isawaitable(answer):
            opening = self._opening
            assert opening is not None
            self.link.pause_reading()
            task = self.loop.create_task(self._go_on_later(answer, then), context=self._context)
            if inspect.iscoroutine(answer):  # cancelled before it began, it would complain of not being awaited
                task.add_done_callback(lambda _: answer.close())
            if not task.done():  # an eager one may be, and all the rest with it
                opening.task = task
        elif answer is None or isinstance(answer, Response):
            then(answer)
        else:
            then(self._hook_failed(TypeError(f"a hook returns a Response or None, not {type(answer).__name__}")))

    async def _go_on_later(self, answer: Awaitable[Any], then: Callable[[Any], None]) -> None:
        try:
            response = await answer
        except Exception as error:
            response = self._hook_failed(error)
        if not self.link.is_closed() and self._response is None:  # nobody has answered meanwhile: 408, 503
            self.link.resume_reading()
            self._go_on(response, then)
            self.link.touch()

    def _accept(self, response: Response | None) -> None:
        """Check the request and answer it, unless `process_request` has."""
        server, request, opening = self.server, self._request, self._opening
        assert isinstance(request, Request)
        assert opening is not None
        if response is None:
            try:
                server.handshake.check(request)
                select = server.select_subprotocol
                self.subprotocol = server.handshake.select(request, None if select is None else self._select)
                opening.agreed = server.handshake.negotiate(request)
                response = server.handshake.accept(request, self.subprotocol, opening.agreed[0])
            except Exception as error:
                response = self._hook_failed(error)
        if server.process_response is None:
            self._respond(response)
            return
        answer = self._call_hook(server.process_response, self, request, response)
        self._go_on(answer, lambda other: self._respond(other or response))

    def _select(self, offered: Sequence[str]) -> str | None:
        assert self.server.select_subprotocol is not None
        return self.next_context().run(self.server.select_subprotocol, self, offered)

    def _reject(self, error: InvalidHandshake) -> None:
        assert self._opening is not None
        self._opening.reader = None
        self.logger.info("opening handshake failed: %s", error)
        self._respond(self.server.handshake.reject(error))

    def _respond(self, response: Response) -> None:
        """Send the response; 101 opens the session, any other ends TCP."""
        if self.link.is_closed() or self._response is not None:  # by a hook
            return
        opening = self._opening
        assert opening is not None
        switches = response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS
        try:
            extension = opening.find_extension(response) if switches else None
            is_head = isinstance(self._request, Request) and self._request.method == "HEAD"
            self.session.out += complete(response, switches, is_head).serialize()
            self._response = response
        except Exception as error:
            self.logger.error("the response of a hook cannot be sent", exc_info=error)
            self._respond(self.respond(500, "Failed to open a WebSocket connection.\n"))
            return
        self._opening = None
        if switches:
            if opening.head and not self.server.has_hooks:
                # Nobody has had a chance to change them, so they can be made again.
                self._request = opening.head
                self._response = response.headers["Date"]
                self._extensions = opening.agreed[0]
            self.link.open(extension)
            self.server.opened(self)
            self.opened(opening.rest)
        else:
            self.link.finish(self.link.engine.time() + (self.settings.close_timeout or CLOSE_TIMEOUT))

    def _recall(self) -> None:
        """Both at once: whoever asks for the one may change it, and the other follows from it."""
        if isinstance(self._request, bytes):
            request = HeadReader(Request).feed(self._request)
            assert request is not None
            response = self.server.handshake.accept(request, self.subprotocol, self._extensions)
            assert isinstance(self._response, str)
            response.headers["Date"] = self._response
            self._request, self._response = request, response

    def opening_expired(self) -> None:
        """408, once TLS is up; before, there is nobody to tell."""
        self.server.admission.timed_out += 1
        self._cancel_hook()
        if not self.link.established:
            self.link.abort("remote", "the opening handshake took too long")
        else:
            self._reject(InvalidMessage("the opening handshake took too long", status=http.HTTPStatus.REQUEST_TIMEOUT))

    def _cancel_hook(self) -> None:
        if self._opening is not None and self._opening.task is not None:
            self._opening.task.cancel()

    def refuse_for_shutdown(self) -> None:
        """The server closes before the opening handshake is complete."""
        self._cancel_hook()
        if not self.link.established or self._response is not None:
            self.link.abort("local", "the server is closing")
        else:
            response = self.respond(503, "Failed to open a WebSocket connection: the server is shutting down.\n")
            response.headers["Retry-After"] = "1"
            self._respond(response)
            self.link.flush()

    def ended(self, error: OSError | None) -> None:
        self._cancel_hook()
        if self._response is None:
            self.logger.info("connection closed during the opening handshake: %s", error or self.session.detail)
        Connection.ended(self, error)  # compiled, `super()` is not known in a method of C
        self.server.forget(self)


class Server:
    """What `serve` returns: await it, or use it as `async with`."""

    def __init__(
        self,
        handler: Handler | None,
        listener: ListenerLike | None,
        settings: Settings,
        handshake: ServerHandshake,
        *,
        select_subprotocol: SelectSubprotocol | None,
        process_request: ProcessRequest | None,
        process_response: ProcessResponse | None,
        ssl: ssl_module.SSLContext | None,
        bind: Callable[[], Awaitable[list[socket.socket]]],
        start_serving: bool,
        create_connection: type[ServerConnection] | None,
    ) -> None:
        self.handler = handler
        self.listener = listener
        self.settings = settings
        self.handshake = handshake
        self.select_subprotocol = select_subprotocol
        self.process_request = process_request
        self.process_response = process_response
        # They see requests and responses, and may change them.
        self.has_hooks = any((select_subprotocol, process_request, process_response))
        self.context = contextvars.copy_context()
        self.logger = settings.logger
        self.admission = Admission(settings, handshake, ssl)
        self._ssl = ssl
        self._bind = bind
        self._start_serving = start_serving
        self._create_connection = create_connection or ServerConnection
        self._sockets: list[socket.socket] = []
        self._acceptors: list[Acceptor] = []
        self._opening: set[ServerConnection] = set()
        self._connections: set[ServerConnection] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._closing = False
        self._closed: asyncio.Future[None] | None = None

    # Start.

    def __await__(self) -> Generator[Any, None, Self]:
        return self._start().__await__()

    async def __aenter__(self) -> Self:
        return await self._start()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        await self.wait_closed()

    async def _start(self) -> Self:
        if self._closed is None:
            self._sockets = await self._bind()
            loop = asyncio.get_running_loop()
            self._closed = loop.create_future()
            self.settings.loop = loop
            if self._start_serving:
                await self.start_serving()
        return self

    async def start_serving(self) -> None:
        """Accept connections, if `serve(..., start_serving=False)` has put it off."""
        if self._acceptors or self._closing:
            return
        engine = self.settings.engine = get_engine()
        for sock in self._sockets:
            acceptor = Acceptor(engine, sock, self._accepted)
            self._acceptors.append(acceptor)
            engine.listen(acceptor)
        for sock in self._sockets:
            self.logger.info("server listening on %s", sock.getsockname())

    async def serve_forever(self) -> None:
        """Serve until cancelled, then close."""
        assert self._closed is not None
        await self.start_serving()
        try:
            await asyncio.shield(self._closed)
        finally:
            self.close()
            await self.wait_closed()

    def is_serving(self) -> bool:
        """Connections are accepted."""
        return bool(self._acceptors) and not self._closing

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the server runs in."""
        return self.settings.loop

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets."""
        return () if self._closing else tuple(self._sockets)

    @property
    def connections(self) -> set[ServerConnection]:
        """The connections that are open, or closing: a set of its own, to iterate over or to give to `broadcast`."""
        return set(self._connections)

    def statistics(self) -> Statistics:
        """What has become of all connections so far, and how many there are."""
        return self.admission.statistics(len(self._opening), self._connections)

    # Connections come and go.

    def _accepted(self, sock: socket.socket) -> None:
        engine, admission = self.settings.engine, self.admission
        place = None
        try:
            place = admission.admit(sock, len(self._opening), len(self._connections))
            if place is None:
                return
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            timeout = self.settings.open_timeout
            connection = self._create_connection(self, sock, float("inf") if timeout is None else engine.now + timeout)
            connection.place = place
            if self._ssl is not None:
                connection.link.secure(self._ssl)
            engine.add(connection.link)
        except Exception as error:
            if isinstance(error, OSError):  # it has ended already
                self.logger.info("connection closed before the opening handshake: %s", error)
            else:
                self.logger.exception("cannot serve a connection")
            sock.close()
            admission.lose(place)
            return
        self._opening.add(connection)

    def opened(self, connection: ServerConnection) -> None:
        """The connection's opening handshake succeeded."""
        self._opening.discard(connection)
        self._connections.add(connection)
        self.admission.opened += 1
        if self.handler is not None:
            task = self.settings.loop.create_task(self._handle(connection), context=connection.next_context())
            self._handlers.add(task)
            task.add_done_callback(self._handled)
        else:
            try:
                connection.listen(self.listener, connection.next_context())
            except Exception:
                self.logger.exception("cannot make a listener")
                connection.close(CloseCode.INTERNAL_ERROR)

    async def _handle(self, connection: ServerConnection) -> None:
        assert self.handler is not None
        code = CloseCode.NORMAL_CLOSURE
        try:
            await self.handler(connection)
        except asyncio.CancelledError:
            connection.close(CloseCode.GOING_AWAY)
            raise
        except ConnectionClosed as error:
            if connection.session.state is OPEN:
                self.logger.exception("connection handler failed")
                code = CloseCode.INTERNAL_ERROR
            else:
                self.logger.debug("connection closed under its handler: %s", error)
        except Exception:
            self.logger.exception("connection handler failed")
            code = CloseCode.INTERNAL_ERROR
        except BaseException:
            connection.close(CloseCode.INTERNAL_ERROR)
            raise
        await connection.close(code)

    def _handled(self, task: asyncio.Task[None]) -> None:
        self._handlers.discard(task)
        self._check_closed()

    def forget(self, connection: ServerConnection) -> None:
        """The connection's TCP has ended."""
        self.admission.leave(connection, connection in self._connections)
        self._opening.discard(connection)
        self._connections.discard(connection)
        self._check_closed()

    # The end.

    def close(self, close_connections: bool = True, code: int = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Accept no more; close connections with `code` and `reason`, unless `close_connections` is false.

        Opening handshakes that are under way end with 503. `wait_closed` waits for it all. Raises ValueError for a
        code or a reason that may not be sent.
        """
        if self._closing:
            return
        if close_connections:
            for connection in list(self._connections):
                connection.close(code, reason)
        self._closing = True
        for acceptor in self._acceptors:
            acceptor.engine.unlisten(acceptor)
        if not self._acceptors:
            for sock in self._sockets:
                sock.close()
        for connection in list(self._opening):
            connection.refuse_for_shutdown()
        self.admission.close()
        self._check_closed()

    async def wait_closed(self) -> None:
        """Wait until the server is closed, all its connections have ended and all handlers returned."""
        if self._closed is not None:
            await asyncio.shield(self._closed)

    def _check_closed(self) -> None:
        busy = self._opening or self._connections or self._handlers
        if self._closing and not busy and self._closed is not None and not self._closed.done():
            self._closed.set_result(None)


def serve(
    handler: Handler | None = None,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    listener: ListenerLike | None = None,
    # WebSocket
    origins: Origins = SAME_ORIGIN,
    subprotocols: Sequence[str] | None = None,
    select_subprotocol: SelectSubprotocol | None = None,
    compression: Compression = "deflate",
    extensions: Sequence[ExtensionFactory] = (),
    # HTTP
    process_request: ProcessRequest | None = None,
    process_response: ProcessResponse | None = None,
    server_header: str | None = USER_AGENT,
    # Timeouts, in seconds
    open_timeout: float | None = OPEN_TIMEOUT,
    ping_interval: float | None = PING_INTERVAL,
    ping_timeout: float | None = PING_TIMEOUT,
    close_timeout: float | None = CLOSE_TIMEOUT,
    # Limits
    max_size: Limit = MAX_MESSAGE,
    max_queue: Limit = MAX_QUEUE,
    write_limit: Limit = WRITE_LIMIT,
    limits: Limits | None = None,
    policy: Policy = Policy.WAIT,
    # Where to listen
    ssl: ssl_module.SSLContext | None = None,
    sock: socket.socket | None = None,
    family: int = socket.AF_UNSPEC,
    backlog: int = BACKLOG,
    reuse_address: bool | None = None,
    reuse_port: bool = False,
    start_serving: bool = True,
    # More
    logger: Logger | None = None,
    create_connection: type[ServerConnection] | None = None,
) -> Server:
    """Serve WebSocket connections: `async with serve(handler, host, port) as server`, or `await` it.

    For each connection runs the coroutine function `handler(ws)`; when it returns, the connection is closed with 1000,
    and with 1011 if it raises. Or calls a `Listener`, without any task.

    Args:
        handler: what to do with a connection; or else give `listener`, a `Listener`, or a class or function that
            makes one for each connection.
        host, port: where to listen; None for all interfaces. Several hosts may be given; port 0 takes a free one.
        origins: which web pages may connect, by the Origin header (RFC 6455, section 10.2). By default only those of
            the host and port that the request names in Host, and programs that send no Origin. Else a list of origins:
            strings, compiled patterns that must match whole, None for no header. `origins=None` allows all.
        subprotocols: in order of preference; the first that the client offers is selected, or what
            `select_subprotocol(ws, offered)` returns.
        compression: "deflate" for permessage-deflate (RFC 7692) as `PerMessageDeflate()` has it, None for none, or a
            `fullduplex.extensions.PerMessageDeflate` with settings of its own.
        extensions: others to agree on, a `fullduplex.extensions.ExtensionFactory` for each.
        process_request: `(ws, request)`, plain or async: returns None to go on, or the `Response` to send instead.
        process_response: `(ws, request, response)`, plain or async: may change the response or return another one.
        server_header: value of the Server header, None for none.
        open_timeout: seconds from accepting TCP to the end of the opening handshake, TLS included.
        ping_interval, ping_timeout: seconds between keepalive pings, and until a peer that has sent nothing since is
            given up. None turns it off.
        close_timeout: seconds for the closing handshake and the end of TCP.
        max_size: the largest message in bytes (1009 beyond), or (message, frame).
        max_queue: messages, or (high, low), that may wait to be received before reading stops; so do 1 MiB, or
            `max_size` where that is more.
        write_limit: bytes, or (high, low), that may wait to be sent before `send` waits.
        limits: what a public server bounds besides, as `Limits`.
        policy: what becomes of messages for a peer that does not keep up, a `Policy`; each connection may name its own.
        ssl: a context for TLS.
        sock: a listening socket, instead of host and port.
        family, backlog, reuse_address, reuse_port, start_serving: as in `loop.create_server`.
        logger: default `fullduplex.server`.
        create_connection: a subclass of `ServerConnection`.

    Raises OSError if it cannot listen, ValueError and TypeError for arguments.
    """
    if (handler is None) == (listener is None):
        raise TypeError("serve needs a handler or a listener, and not both")
    if handler is not None and not callable(handler):
        raise TypeError(f"a handler is a coroutine function, not {handler!r}")
    if ssl is not None and not isinstance(ssl, ssl_module.SSLContext):
        raise TypeError(f"ssl is an SSLContext, not {ssl!r}")
    check_listener(listener)

    async def bind() -> list[socket.socket]:
        if sock is not None:
            if host is not None or port is not None:
                raise ValueError("give host and port, or sock; not both")
            sock.setblocking(False)
            sock.listen(backlog)
            return [sock]
        return await bind_tcp(host, port, family, backlog, reuse_address, reuse_port)

    return Server(
        handler,
        listener,
        Settings(
            True,
            open_timeout=open_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_size=max_size,
            max_queue=max_queue,
            write_limit=write_limit,
            limits=limits or Limits(),
            policy=policy,
            logger=logger,
        ),
        ServerHandshake(
            origins=origins,
            subprotocols=subprotocols,
            extensions=make_extensions(compression, extensions),
            server_header=server_header,
        ),
        select_subprotocol=select_subprotocol,
        process_request=process_request,
        process_response=process_response,
        ssl=ssl,
        bind=bind,
        start_serving=start_serving,
        create_connection=create_connection,
    )


def unix_serve(handler: Handler | None = None, path: str | os.PathLike[str] | None = None, **kwargs: Any) -> Server:
    """As `serve`, on the Unix socket at `path`, or on the given `sock`. TypeError without either, and with both."""
    if (path is None) == (kwargs.get("sock") is None):
        raise TypeError("unix_serve needs a path or a sock, and not both")
    server = serve(handler, **kwargs)
    if path is not None:

        async def bind() -> list[socket.socket]:
            return [bind_unix(path, kwargs.get("backlog", BACKLOG))]

        server._bind = bind
    return server
