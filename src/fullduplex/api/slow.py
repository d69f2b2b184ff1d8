"""What becomes of messages for a peer that reads more slowly than they are sent.

    ws.send, broadcast -> the peer is slow -> by policy   sent even so, and who awaits it waits
                                                          dropped
                                                          held in the backlog
                                                          the connection is closed
    link.drained       -> the backlog leaves, as far as the peer takes it; the rest when it has taken that

Held messages are neither framed nor compressed, so they can still be dropped, and many connections can hold the same
bytes. Nothing overtakes them: a message that may be neither held nor dropped takes those before it along.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Final

from ..wire.opcodes import BINARY_FRAME, OPEN, TEXT_FRAME, CloseCode
from ..wire.session import Session
from .messages import BytesLike, encode

if TYPE_CHECKING:
    from .connection import Connection

# What a held message costs beside its payload, about: without it, empty ones would be held without bound.
OVERHEAD: Final = 256
# Bytes of the latest values. None of them may be dropped, and who lacks more than this had better begin anew.
MAX_LATEST: Final = 1_048_576
REASON: Final = "slow consumer"


class Policy(enum.Enum):
    """What becomes of messages while `Connection.is_slow`: while over `write_limit` bytes wait for the peer.

    Only WAIT makes `await ws.send()` wait; else it lets other tasks run, and raises nothing for a message that is
    dropped. Messages in fragments always wait: whoever sends one can. `Connection.dropped` counts what is not sent.

    Held messages leave, in their order, once the peer has taken what waits, down to the low mark of `write_limit`. A
    goodbye of ours takes them along. What is held when the connection ends, or the peer says goodbye, is dropped.
    """

    WAIT = "wait"
    """Nothing is dropped. Awaiting `send` waits; in callbacks and for `broadcast`, messages gather."""

    DROP_NEWEST = "drop newest"
    """What is sent meanwhile is dropped."""

    DROP_OLDEST = "drop oldest"
    """What is sent meanwhile is held; over `write_limit` bytes of it, the oldest is dropped. A message counts 256 bytes
    more than it has, and the newest is held whatever its size."""

    LATEST = "latest"
    """What is sent meanwhile is held, for each key the latest only. It takes the place of the one before it, in the
    order too: else what changes often would always stand last. Over 1 MiB the connection is closed, as by CLOSE."""

    CLOSE = "close"
    """The first message meanwhile closes the connection with 1013 and "slow consumer". Those before it still go out,
    within `close_timeout`."""


# Where a held message stands: (key,) for LATEST, a number that counts up for DROP_OLDEST.
Place = int | tuple[Hashable]
# The first byte of its frame, its payload, and whether to compress it.
Message = tuple[int, bytes, bool | None]


def check_policy(policy: Policy) -> Policy:
    """Raises TypeError for what is no policy."""
    if not isinstance(policy, Policy):
        raise TypeError(f"a policy is a member of Policy, not {policy!r}")
    return policy


class Backlog:
    """A connection's policy, what it holds, and how many messages it has dropped.

    A connection has one from when it is given a policy other than WAIT, be it for one broadcast.
    """

    __slots__ = ("_first", "_latest", "_next", "_queued", "dropped", "held", "policy")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.dropped = 0
        self.held: OrderedDict[Place, Message] | None = None  # the oldest first; None most of the time
        # What the messages of LATEST cost, and those of DROP_OLDEST, which stand at _first and up to before _next.
        self._latest = 0
        self._queued = 0
        self._first = 0
        self._next = 0

    @property
    def size(self) -> int:
        """Bytes that are held, without what Python needs to hold them."""
        return self._latest + self._queued - OVERHEAD * len(self.held or ())

    def takes_message(
        self, connection: Connection, message: Any, text: bool | None, compress: bool | None, key: Hashable
    ) -> bool:
        """As `takes`, by the connection's own policy, for a message as `send` is given it. Raises TypeError."""
        hash(key)  # what cannot be a key is a mistake while the peer is quick, too
        if not (self.held or connection.is_slow):
            return False
        if not isinstance(message, str | BytesLike):
            return False  # fragments
        payload, is_text = encode(message)
        first = TEXT_FRAME if (is_text if text is None else text) else BINARY_FRAME
        return self.takes(connection, self.policy, (first, bytes(payload), compress), key)

    def takes(self, connection: Connection, policy: Policy, message: Message, key: Hashable) -> bool:
        """Hold or drop a message, or close the connection for it. False: it is to be sent now."""
        if connection.session.state is not OPEN or not (self.held or connection.is_slow):
            return False
        if policy is Policy.LATEST:
            self._replace(connection, (key,), message)
        elif policy is Policy.DROP_OLDEST:
            self._queue(connection, message)
        elif policy is Policy.WAIT or not connection.is_slow:
            self.send_all(connection.session)
            return False
        else:
            self.dropped += 1
            if policy is Policy.CLOSE:
                connection.close(CloseCode.TRY_AGAIN_LATER, REASON)
        return True

    def release(self, connection: Connection) -> None:
        """Send what is held, as far as the peer takes it."""
        session, link = connection.session, connection.link
        while self._may_send(session) and not connection.is_slow:
            self._send_oldest(session)
            if link.buffered() > connection.settings.write_high:
                link.flush()  # only the kernel knows whether this is too much
        if self.held:
            connection.expect_drain()
        link.touch()

    def send_all(self, session: Session) -> None:
        """Send what is held, slow or not."""
        while self._may_send(session):
            self._send_oldest(session)

    def drop_all(self) -> None:
        """The connection has ended."""
        while self.held:
            self._take(next(iter(self.held)))
            self.dropped += 1

    # What is held.

    def _hold(self, connection: Connection) -> OrderedDict[Place, Message]:
        if self.held is None:
            self.held = OrderedDict()
            connection.expect_drain()
        return self.held

    def _queue(self, connection: Connection, message: Message) -> None:
        held = self._hold(connection)
        held[self._next] = message
        self._next += 1
        self._queued += _cost(message)
        while self._queued > connection.settings.write_high and self._next - self._first > 1:
            self._take(self._first)
            self.dropped += 1

    def _replace(self, connection: Connection, place: tuple[Hashable], message: Message) -> None:
        held = self._hold(connection)
        older = held.get(place)
        others = self._latest - (0 if older is None else _cost(older))
        if others > MAX_LATEST:
            self.dropped += 1
            connection.close(CloseCode.TRY_AGAIN_LATER, REASON)
            return
        if older is not None:
            self.dropped += 1
        held[place] = message
        self._latest = others + _cost(message)

    def _may_send(self, session: Session) -> bool:
        """Something is held, and no message in fragments is under way: RFC 6455, section 5.4."""
        return self.held is not None and session.state is OPEN and not session.sending

    def _send_oldest(self, session: Session) -> None:
        assert self.held is not None
        session.send(*self._take(next(iter(self.held))))

    def _take(self, place: Place) -> Message:
        held = self.held
        assert held is not None
        message = held.pop(place)
        if isinstance(place, int):
            self._queued -= _cost(message)
            self._first += 1
        else:
            self._latest -= _cost(message)
        if not held:
            self.held = None
        return message


def _cost(message: Message) -> int:
    return len(message[1]) + OVERHEAD
