"""What the connections of all faces know, and never wait for."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Any

from ..engine.link import Link, Owner
from ..wire.errors import ConnectionClosed
from ..wire.headers import Request, Response
from ..wire.opcodes import State
from ..wire.session import Session
from .addresses import pack_address, unpack_address
from .settings import Settings
from .slow import Backlog, Policy, check_policy


class BaseConnection(Owner):
    """A session, the link that it rides on, and what the opening handshake said."""

    __slots__ = (
        "_id",
        "_remote_address",
        "_request",
        "_response",
        "backlog",
        "finished",
        "link",
        "session",
        "settings",
        "subprotocol",
    )

    def __init__(self, settings: Settings, session: Session, link: Link) -> None:
        self.settings = settings
        self.session = session
        self.link = link
        self._request: Request | bytes | None = None  # bytes: the head as it came
        self._response: Response | str | None = None  # str: the Date of one that follows from the request
        self.subprotocol: str | None = None
        self.finished = False  # no more messages will come
        # None: by its policy, everything is sent
        self.backlog: Backlog | None = None if settings.policy is Policy.WAIT else Backlog(settings.policy)
        self._id: uuid.UUID | None = None
        self._remote_address: Any = None

    @property
    def id(self) -> uuid.UUID:
        """A unique identifier, for logs."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @property
    def request(self) -> Request | None:
        """The request of the opening handshake."""
        self._recall()
        assert not isinstance(self._request, bytes)
        return self._request

    @request.setter
    def request(self, request: Request | None) -> None:
        self._request = request

    @property
    def response(self) -> Response | None:
        """The response of the opening handshake."""
        self._recall()
        assert not isinstance(self._response, str)
        return self._response

    @response.setter
    def response(self, response: Response | None) -> None:
        self._response = response

    def _recall(self) -> None:
        """Make of what was kept of request and response what they were."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it runs in."""
        return self.settings.loop

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
        """The close code received, 1006 if TCP ended without one, None while messages may come. Section 7.1.5."""
        return self.session.error().code if self.finished else None

    @property
    def close_reason(self) -> str | None:
        """The close reason received, None while messages may come. RFC 6455, section 7.1.6."""
        return self.session.error().reason if self.finished else None

    @property
    def close_exc(self) -> ConnectionClosed | None:
        """Both close frames, who ended the connection, what was seen; None while messages may come."""
        return self.session.error() if self.finished else None

    @property
    def latency(self) -> float:
        """The last measured round trip of a ping and its pong in seconds; 0 before the first."""
        keepalive = self.session.keepalive
        return 0.0 if keepalive is None else keepalive.latency

    @property
    def buffered_amount(self) -> int:
        """Bytes that wait to be sent, and those that a policy holds."""
        return self.link.buffered() + (0 if self.backlog is None else self.backlog.size)

    @property
    def is_slow(self) -> bool:
        """The peer takes bytes slower than they are sent: over `write_limit` of them wait."""
        return self.lags()

    def lags(self) -> bool:
        """What `is_slow` tells, for whom a property costs too much."""
        return self.link.is_blocked() and self.link.buffered() > self.settings.write_high

    @property
    def policy(self) -> Policy:
        """What becomes of messages while the peer `is_slow`. It can be set, for messages to come. Raises TypeError."""
        return Policy.WAIT if self.backlog is None else self.backlog.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        if check_policy(policy) is not self.policy:
            self.make_backlog().policy = policy

    @property
    def dropped(self) -> int:
        """Messages that were not sent because of a policy, replaced ones included."""
        return 0 if self.backlog is None else self.backlog.dropped

    def make_backlog(self) -> Backlog:
        if self.backlog is None:
            self.backlog = Backlog(Policy.WAIT)
        return self.backlog

    def hear(self) -> None:
        """Give the listener what is in the inbox; called in its context."""

    def expect_drain(self) -> None:
        """Have `drained` called when the peer has taken enough of what waits."""
        self.link.low_water = self.settings.write_low
        self.link.draining = True

    @property
    def local_address(self) -> Any:
        """The socket's own address: (host, port) for IPv4, (host, port, flow, scope) for IPv6, a path for Unix.

        None once TCP has ended.
        """
        return _ask(self.link.sock.getsockname)

    @property
    def remote_address(self) -> Any:
        """The peer's address, in the same form; after the end of TCP, too."""
        if self._remote_address:
            return unpack_address(self._remote_address)
        return _ask(self.link.sock.getpeername)

    def note_address(self) -> None:
        """Keep the peer's address for when TCP has ended."""
        self._remote_address = pack_address(_ask(self.link.sock.getpeername))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.state.name} {self.remote_address}>"


def _ask(where: Callable[[], Any]) -> Any:
    try:
        return where()
    except OSError:  # TCP has ended
        return None
