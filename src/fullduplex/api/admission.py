"""Who comes in: the limits of a server as a whole, and the counts that `Server.statistics` gives.

    accepted --admit--> handshake --> opened        accepted = refused + handshakes + opened + rejected + abandoned,
        |                   |                       always: each connection is counted where it has come to
        v                   v
     refused       rejected, abandoned

A refusal costs less than what it refuses: no connection object is made, no hook, handler or listener runs, and those
that hold a descriptor until the client has read them are bounded themselves.
"""

from __future__ import annotations

import http
import logging
import math
import socket
import ssl as ssl_module
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..engine.link import Link, Owner
from ..wire.handshake import ServerHandshake
from ..wire.headers import format_date
from ..wire.limits import MAX_HEAD
from ..wire.rate import Bucket
from .settings import Settings

if TYPE_CHECKING:
    from .server import ServerConnection

# A refusal that is sure to arrive waits for the client's request: bytes left unread would have the kernel reset the
# connection, and the client might lose the answer. Meanwhile it holds a descriptor, and over TLS it costs a handshake.
# So many may be under way, and so many begin in a second; who comes beyond gets what one write can do.
REFUSALS: Final = 64
# Seconds for the client to establish TLS, and again to read the answer and end TCP.
REFUSAL_TIME: Final = 5.0
# Seconds, at least, between two lines in the log about one limit: a flood of connections must not become one of lines.
LOG_INTERVAL: Final = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """What `Server.statistics` returns: numbers of connections, since the server was made or, where it says so, now."""

    accepted: int
    """TCP connections that were accepted. Each is counted once more: in `handshakes`, `opened`, `refused`, `rejected`
    or `abandoned`."""

    handshakes: int
    """In their opening handshake now, TLS included; those whose rejection is on its way, too."""

    opened: int
    """Whose opening handshake succeeded."""

    connections: int
    """Open now, or closing."""

    refused: dict[str, int]
    """Turned away before their opening handshake, by the field of `Limits` that they came over."""

    rejected: dict[int, int]
    """Whose opening handshake was answered with another HTTP status than 101, by this status."""

    abandoned: int
    """That ended before their opening handshake was answered: the client left, TLS failed, the server closed."""

    timed_out: int
    """Whose opening handshake took longer than `open_timeout`. They are counted in `rejected`, under 408, as well; in
    `abandoned`, if TLS was not established."""

    closed: dict[str, int]
    """That were open and that a limit has ended, by its field of `Limits`, or "max_size"."""

    dropped: int
    """Messages, not connections: those that slow peers did not get, by their `policy`."""


class Admission:
    """See above. The counts are plain attributes: whoever knows of an event adds one."""

    def __init__(self, settings: Settings, handshake: ServerHandshake, ssl: ssl_module.SSLContext | None) -> None:
        self._settings = settings
        self._handshake = handshake
        self._ssl = ssl
        self._limits = settings.limits
        rate = settings.limits.handshakes_per_second
        self._rate = None if rate is None else Bucket(rate, max(1.0, rate))  # one must fit in
        self._polite = Bucket(REFUSALS)
        self._places: Counter[bytes] = Counter()
        self._logged: dict[str, float] = {}
        self.refusals: set[Refusal] = set()
        self.accepted = 0
        self.opened = 0
        self.refused: Counter[str] = Counter()
        self.rejected: Counter[int] = Counter()
        self.abandoned = 0
        self.timed_out = 0
        self.closed: Counter[str] = Counter()
        self.dropped = 0

    def admit(self, sock: socket.socket, handshakes: int, connections: int) -> bytes | None:
        """Whether the TCP connection of `sock` may come in, while there are so many; if not, it is refused here.

        Returns its place, to be given back by `leave` or `lose`; None if it was refused. Raises OSError if it has
        ended already.
        """
        self.accepted += 1
        limits = self._limits
        now = self._settings.engine.now
        a_place = limits.connections_per_address
        place = b"" if a_place is None else find_place(sock)
        if limits.connections is not None and handshakes + connections >= limits.connections:
            self._refuse(sock, "connections", now)
        elif a_place is not None and self._places[place] >= a_place:
            self._refuse(sock, "connections_per_address", now)
        elif limits.handshakes is not None and handshakes >= limits.handshakes:
            self._refuse(sock, "handshakes", now)
        elif self._rate is not None and not self._rate.take(1.0, now):
            self._refuse(sock, "handshakes_per_second", now, self._rate.wait(now, 1.0))
        else:
            if place:
                self._places[place] += 1
            return place
        return None

    def lose(self, place: bytes | None) -> None:
        """A connection ended before there was an object for it."""
        self.abandoned += 1
        self._release(place)

    def leave(self, connection: ServerConnection, opened: bool) -> None:
        """A connection that was admitted has ended."""
        self._release(connection.place)
        if opened:
            self.dropped += connection.dropped
            if connection.session.limit:
                self.closed[connection.session.limit] += 1
        elif connection.response is None:
            self.abandoned += 1
        else:
            self.rejected[int(connection.response.status_code)] += 1  # and not its http.HTTPStatus

    def _release(self, place: bytes | None) -> None:
        if place:
            self._places[place] -= 1
            if not self._places[place]:
                del self._places[place]

    def statistics(self, handshakes: int, connections: Iterable[ServerConnection]) -> Statistics:
        alive = [connection.dropped for connection in connections]
        return Statistics(
            accepted=self.accepted,
            handshakes=handshakes,
            opened=self.opened,
            connections=len(alive),
            refused=dict(self.refused),
            rejected=dict(self.rejected),
            abandoned=self.abandoned,
            timed_out=self.timed_out,
            closed=dict(self.closed),
            dropped=self.dropped + sum(alive),
        )

    def close(self) -> None:
        """The server closes: refusals are not waited for."""
        for refusal in list(self.refusals):
            refusal.link.abort("local", "the server is closing")

    # Refusing.

    def _refuse(self, sock: socket.socket, limit: str, now: float, wait: float = 0.0) -> None:
        """Answer 503. With the least effort if it is for `handshakes`: those are held already."""
        self.refused[limit] += 1
        self._log(limit, now)
        answer = self._answer(wait)
        try:
            if limit != "handshakes" and len(self.refusals) < REFUSALS and self._polite.take(1.0, now):
                self.refusals.add(Refusal(self, sock, answer))
                return
            if self._ssl is None:
                sock.send(answer)
                sock.recv(MAX_HEAD)  # the request, if it is there already: see REFUSALS
        except OSError:  # it is not there yet, or the client has left: this was the least effort
            pass
        sock.close()

    def _answer(self, wait: float) -> bytes:
        response = self._handshake.respond(
            http.HTTPStatus.SERVICE_UNAVAILABLE, "Failed to open a WebSocket connection: too many connections.\n"
        )
        response.headers["Retry-After"] = str(max(1, math.ceil(wait)))  # RFC 9110, section 10.2.3: whole seconds
        response.headers["Date"] = format_date(int(time.time()))
        return response.serialize()

    def _log(self, limit: str, now: float) -> None:
        if now < self._logged.get(limit, 0.0):
            return
        self._logged[limit] = now + LOG_INTERVAL
        # One address that asks for too much is its own trouble. Of the others, everybody's clients are turned away.
        level = logging.INFO if limit == "connections_per_address" else logging.WARNING
        bound = getattr(self._limits, limit)
        self._settings.logger.log(
            level, "refused, over %s=%s: %d connections so far", limit, bound, self.refused[limit]
        )


class Refusal(Owner):
    """A connection that gets 503 and nothing else: said at once, over TLS when that is established."""

    def __init__(self, admission: Admission, sock: socket.socket, answer: bytes) -> None:
        settings = admission._settings
        engine = settings.engine
        self._refusals = admission.refusals
        self._answer = answer
        self.link = Link(engine, sock, settings.make_session(), self, engine.now + REFUSAL_TIME)
        if admission._ssl is not None:
            self.link.secure(admission._ssl)
        engine.add(self.link)
        if self.link.tls is None:
            self.ready()

    def ready(self) -> None:
        self.link.session.out += self._answer
        self.link.finish(self.link.engine.now + REFUSAL_TIME)

    def opening_expired(self) -> None:
        self.link.abort("remote", "TLS took too long")

    def ended(self, error: OSError | None) -> None:
        self._refusals.discard(self)
        self.link.owner = Owner()  # no cycle


def find_place(sock: socket.socket) -> bytes:
    """Where a client is: its IPv4 address, or its IPv6 /64, the network that one household or one machine gets.

    Empty for Unix sockets, whose clients have no address. Raises OSError if the connection has ended already.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return b""
    packed = socket.inet_pton(sock.family, sock.getpeername()[0])
    if packed.startswith(IPV4_MAPPED):  # on a socket for both families
        return packed[len(IPV4_MAPPED) :]
    return packed[:8]


# ::ffff:0:0/96, RFC 4291, section 2.5.5.2
IPV4_MAPPED: Final = bytes(10) + b"\xff\xff"
