"""`connect`: a WebSocket client on asyncio."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import http
import os
import random
import socket
import ssl as ssl_module
import time
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Final

from ..wire import limits
from ..wire.errors import InvalidMessage, InvalidStatus
from ..wire.extensions import ExtensionFactory
from ..wire.handshake import USER_AGENT, ClientHandshake
from ..wire.headers import HeadersLike, Response
from ..wire.http1 import ResponseReader
from ..wire.opcodes import CloseCode
from ..wire.uri import parse_uri
from .addresses import find_addresses
from .connection import Connection
from .host import get_engine
from .listener import ListenerLike, check_listener
from .settings import Compression, Limit, Logger, Settings, make_extensions
from .slow import Policy

# A server that answers so may answer otherwise soon.
TRANSIENT: Final = (
    http.HTTPStatus.TOO_MANY_REQUESTS,
    http.HTTPStatus.INTERNAL_SERVER_ERROR,
    http.HTTPStatus.BAD_GATEWAY,
    http.HTTPStatus.SERVICE_UNAVAILABLE,
    http.HTTPStatus.GATEWAY_TIMEOUT,
)
# A connection that lived so long, in seconds, was a success: the next delay is the first one again.
STABLE: Final = 10.0
# The longest that a server may have us wait, in seconds.
RETRY_AFTER: Final = 3600.0


class ClientConnection(Connection):
    """The client's side of a connection. `request` and `response` are those of its opening handshake."""

    __slots__ = ("_handshake", "_is_silent", "_opened", "_reader", "when_open")

    def __init__(self, settings: Settings, handshake: ClientHandshake, sock: socket.socket) -> None:
        super().__init__(settings, settings.make_session(), sock, float("inf"))
        self.when_open: Callable[[Connection], None] | None = None
        self._handshake = copy.copy(handshake)  # each attempt has a key of its own
        self._reader: ResponseReader | None = ResponseReader()
        self._is_silent = True
        self._opened: asyncio.Future[None] = self.loop.create_future()

    async def wait_opened(self) -> None:
        """Wait for the end of the opening handshake. Raises OSError, InvalidHandshake."""
        try:
            await self._opened
        except BaseException:
            self.link.abort("local", "the opening handshake was given up")
            if not self._opened.cancelled():
                self._opened.exception()  # what nobody has seen, if both came at once, nobody has to
            raise

    # The opening handshake, RFC 6455, section 4.1.

    def ready(self) -> None:
        self.request = self._handshake.request()
        self.session.out += self.request.serialize()

    def receive_opening(self, data: bytes) -> None:
        reader = self._reader
        assert reader is not None
        self._is_silent = False
        try:
            response = reader.feed(data)
            if response is not None:
                self._answered(response, data[reader.taken :])
        except Exception as error:
            if data[:2] == b"\x15\x03" and isinstance(error, InvalidMessage):
                error.add_note("the server speaks TLS: use wss://")
            self._fail(error)

    def _answered(self, response: Response, rest: bytes) -> None:
        self._reader = None
        self.response = response
        self.subprotocol, extension = self._handshake.check(response)
        self.link.open(extension)
        if self.when_open is not None:
            self.when_open(self)
            self.when_open = None
        if not self._opened.done():
            self._opened.set_result(None)
        self.opened(rest)

    def _fail(self, error: Exception) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)
        self.link.abort("local", f"opening handshake failed: {error}")

    def opening_expired(self) -> None:
        """Never called: `connect` has the timeout, which holds for looking up the host's name too."""

    def partial_response(self) -> Response | None:
        """What came of a refusal whose body has not come to its end."""
        if self._reader is None:
            return None
        with suppress(InvalidMessage):
            return self._reader.eof()
        return None

    def ended(self, error: OSError | None) -> None:
        if not self._opened.done():
            if error is not None or self._reader is None:
                self._opened.set_exception(error or EOFError("the connection was closed"))
            else:
                try:
                    self._answered(self._reader.eof(), b"")
                except Exception as failure:
                    if self._is_silent and self.link.tls is None:
                        failure.add_note("a server that ends the connection without a word may want TLS: use wss://")
                    self._opened.set_exception(failure)
        Connection.ended(self, error)  # as in `ServerConnection`


def process_exception(error: Exception) -> Exception | None:
    """Whether `async for ws in connect(...)` may try again: None if it may, else the exception to raise.

    It may when the network or the server failed in a way that passes: OSError, TimeoutError, an answer of 429, 500,
    502, 503 or 504, or none at all. A certificate that does not hold will not hold next time.
    """
    if isinstance(error, ssl_module.SSLCertVerificationError):
        return error
    if isinstance(error, OSError | TimeoutError):
        return None
    if isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError):
        return None
    if isinstance(error, InvalidStatus) and error.response.status_code in TRANSIENT:
        return None
    return error


def backoff(first: float = 1.0, factor: float = 2.0, most: float = 30.0) -> Generator[float, None, None]:
    """Delays in seconds between attempts to connect: exponential, with full jitter, so that clients spread."""
    bound = first
    while True:
        yield random.uniform(0.0, bound)
        bound = min(most, bound * factor)


def retry_after(error: Exception) -> float:
    """The seconds that a refusal asks to wait by its Retry-After header, or 0. RFC 9110, section 10.2.3."""
    if not isinstance(error, InvalidStatus):
        return 0.0
    value = "".join(error.response.headers.get_all("Retry-After")[:1])
    if value.isascii() and value.isdigit() and len(value) < 10:
        return min(float(value), RETRY_AFTER)
    with suppress(ValueError, OverflowError):
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - time.time()), RETRY_AFTER)
    return 0.0


class connect:
    """Connect to the WebSocket server at `uri`, in one of three ways.

        ws = await connect(uri)                    # close it yourself
        async with connect(uri) as ws: ...         # it is closed at the end
        async for ws in connect(uri): ...          # connects again and again; `continue` when the connection closes

    Args:
        uri: ws:// or wss://, RFC 6455, section 3. wss verifies certificate and host name.
        listener: a `Listener`, or a class or function that makes one, to call instead of receiving in tasks.
        origin: value of the Origin header.
        subprotocols: offered, in order of preference.
        compression, extensions: offered likewise, as in `serve`.
        additional_headers: for the request of the opening handshake.
        user_agent_header: value of the User-Agent header, None for none.
        process_exception: for `async for`: whether an error is worth another attempt (see the function of this name).
        reconnect_delays: for `async for`: makes the delays, in seconds, before another attempt and after a connection
            that did not close with 1000; they begin anew after one that lived 10 s. A Retry-After header can only
            lengthen them, up to an hour.
        open_timeout: seconds for everything up to an open connection.
        ping_interval, ping_timeout, close_timeout, max_size, max_queue, write_limit, policy, logger: as in
            `serve`.
        ssl: a context for wss, instead of `ssl.create_default_context()`.
        server_hostname: the name that the certificate has to be for, instead of the uri's host.
        host, port: where to connect TCP, instead of the uri's host and port.
        sock: a connected socket to use.
        family, local_addr: as in `loop.create_connection`.
        create_connection: a subclass of `ClientConnection`.

    Raises InvalidURI and ValueError at once; when it connects, OSError if TCP or TLS fails, InvalidHandshake if the
    opening handshake does, TimeoutError.
    """

    def __init__(
        self,
        uri: str,
        *,
        listener: ListenerLike | None = None,
        # WebSocket
        origin: str | None = None,
        subprotocols: Sequence[str] | None = None,
        compression: Compression = "deflate",
        extensions: Sequence[ExtensionFactory] = (),
        # HTTP
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
        process_exception: Callable[[Exception], Exception | None] = process_exception,
        # Timeouts, in seconds
        open_timeout: float | None = limits.OPEN_TIMEOUT,
        ping_interval: float | None = limits.PING_INTERVAL,
        ping_timeout: float | None = limits.PING_TIMEOUT,
        close_timeout: float | None = limits.CLOSE_TIMEOUT,
        reconnect_delays: Callable[[], Generator[float, None, None]] = backoff,
        # Limits
        max_size: Limit = limits.MAX_MESSAGE,
        max_queue: Limit = limits.MAX_QUEUE,
        write_limit: Limit = limits.WRITE_LIMIT,
        policy: Policy = Policy.WAIT,
        # Where to connect
        ssl: ssl_module.SSLContext | None = None,
        server_hostname: str | None = None,
        host: str | None = None,
        port: int | None = None,
        sock: socket.socket | None = None,
        family: int = socket.AF_UNSPEC,
        local_addr: tuple[str, int] | None = None,
        # More
        logger: Logger | None = None,
        create_connection: type[ClientConnection] | None = None,
    ) -> None:
        self.uri = uri
        parsed = parse_uri(uri)
        if ssl is not None and not parsed.secure:
            raise ValueError("ssl needs a wss:// URI")
        check_listener(listener)
        self._listener = listener
        self._context = contextvars.copy_context()
        self._handshake = ClientHandshake(
            parsed,
            origin=origin,
            subprotocols=subprotocols,
            extensions=make_extensions(compression, extensions),
            additional_headers=additional_headers,
            user_agent_header=user_agent_header,
        )
        self._settings = Settings(
            False,
            open_timeout=open_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_size=max_size,
            max_queue=max_queue,
            write_limit=write_limit,
            policy=policy,
            logger=logger,
        )
        self._process_exception = process_exception
        self._reconnect_delays = reconnect_delays
        self._secure = parsed.secure
        self._ssl = ssl
        self._server_hostname = server_hostname or parsed.host
        self._host = host or parsed.host
        self._port = port or parsed.port
        self._sock = sock
        self._family = family
        self._local_addr = local_addr
        self._create_connection = create_connection or ClientConnection
        self._path: str | None = None
        self._connection: ClientConnection | None = None

    # The three uses.

    def __await__(self) -> Generator[Any, None, ClientConnection]:
        return self._open().__await__()

    async def __aenter__(self) -> ClientConnection:
        self._connection = await self._open()
        return await self._connection.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._connection is not None
        await self._connection.__aexit__(kind, value, traceback)

    async def __aiter__(self) -> AsyncIterator[ClientConnection]:
        delays = self._reconnect_delays()
        logger = self._settings.logger
        while True:
            try:
                connection = await self._open()
            except Exception as error:
                fatal = self._process_exception(error)
                if fatal is error:
                    raise
                if fatal is not None:
                    raise fatal from error
                delay = max(next(delays), retry_after(error))
                logger.info("connect failed; reconnecting in %.1f s: %r", delay, error)
                await asyncio.sleep(delay)
                continue
            began = time.monotonic()
            async with connection:
                yield connection
            if time.monotonic() - began >= STABLE:
                delays = self._reconnect_delays()
            end = connection.close_exc
            if end is None or end.code != CloseCode.NORMAL_CLOSURE:
                delay = next(delays)
                logger.info("connection closed; reconnecting in %.1f s: %s", delay, end)
                await asyncio.sleep(delay)

    # Connecting.

    async def _open(self) -> ClientConnection:
        settings = self._settings
        settings.loop = asyncio.get_running_loop()
        self._connection = None
        try:
            async with asyncio.timeout(settings.open_timeout) as timeout:
                return await self._connect()
        except TimeoutError:
            if not timeout.expired():
                raise  # TCP's own
            attempt = self._connection
            response = None if attempt is None else attempt.partial_response()
            if response is not None:
                raise InvalidStatus(response) from None
            raise TimeoutError(f"the opening handshake took more than {settings.open_timeout:g} s") from None

    async def _connect(self) -> ClientConnection:
        if self._sock is not None:
            return await self._attempt(self._sock, None)
        if self._path is not None:
            return await self._attempt(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), self._path)
        errors: list[OSError] = []
        for family, _, protocol, _, address in await find_addresses(self._host, self._port, family=self._family):
            self._connection = None
            try:
                return await self._attempt(socket.socket(family, socket.SOCK_STREAM, protocol), address)
            except OSError as error:
                attempt: ClientConnection | None = self._connection
                if attempt is not None and not attempt.link.connecting:
                    raise  # TCP was there: it is the server, not the address
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        raise OSError("cannot connect to any address: " + "; ".join(map(str, errors)))

    async def _attempt(self, sock: socket.socket, address: Any) -> ClientConnection:
        """Connect to one address, and shake hands. Raises OSError, InvalidHandshake; then the socket is closed."""
        settings = self._settings
        try:
            sock.setblocking(False)
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._local_addr is not None:
                    sock.bind(self._local_addr)
            settings.engine = get_engine()  # now, not before: an engine ends with the last of its links
            connection = self._create_connection(settings, self._handshake, sock)
            if self._secure:
                connection.link.secure(self._ssl or ssl_module.create_default_context(), self._server_hostname)
            connection.when_open = self._opened
            self._connection = connection
            settings.engine.connect(connection.link, address)
        except BaseException:
            sock.close()
            raise
        await connection.wait_opened()
        return connection

    def _opened(self, connection: Connection) -> None:
        connection.listen(self._listener, self._context.copy())


def unix_connect(path: str | os.PathLike[str], uri: str | None = None, **kwargs: Any) -> connect:
    """As `connect`, over the Unix socket at `path`.

    `uri` gives the Host header and the resource; by default it is ws://localhost/, or wss://localhost/ with `ssl`.
    """
    if uri is None:
        uri = "ws://localhost/" if kwargs.get("ssl") is None else "wss://localhost/"
    result = connect(uri, **kwargs)
    result._path = os.fspath(path)
    return result
