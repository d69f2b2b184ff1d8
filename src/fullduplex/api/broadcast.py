"""One message to many connections."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from ..engine.link import Link
from ..wire.codec import append_frame
from ..wire.errors import WebSocketException
from ..wire.extensions import Extension, Payload
from ..wire.limits import GATHER
from ..wire.opcodes import BINARY_FRAME, OPEN, TEXT_FRAME
from .connection import Connection
from .messages import BytesLike, Data, encode
from .slow import Policy, check_policy


def broadcast(
    connections: Iterable[Connection],
    message: Data | BytesLike,
    raise_exceptions: bool = False,
    *,
    policy: Policy | None = None,
    key: Hashable = None,
) -> None:
    """Send a message to many connections; encode it once for all that can share the result. Does not wait.

    Connections that are not open, or in the middle of a fragmented message, are passed over; with `raise_exceptions`
    an ExceptionGroup says which failed.

    What becomes of it where the peer is slow is a matter of `policy`; None stands for each connection's own. Of
    messages with the same `key`, which is any hashable value, Policy.LATEST holds one. Raises TypeError.
    """
    hash(key)
    if policy is not None:
        check_policy(policy)
    payload, is_text = encode(message)
    # One payload for all that hold it.
    errors = _tell(connections, TEXT_FRAME if is_text else BINARY_FRAME, bytes(payload), policy, key)
    if errors and raise_exceptions:
        raise ExceptionGroup("skipped broadcast", errors)


def _tell(
    connections: Iterable[Connection], first: int, payload: bytes, policy: Policy | None, key: Hashable
) -> list[Exception]:
    """Send them a message, or do what the policy says; return the errors."""
    plain = _make_frame(first, payload)
    unframed = (first, payload, None)
    names_policy = policy is not None and policy is not Policy.WAIT
    encoded: dict[Hashable, tuple[int, Payload, bytes]] = {}
    full: list[Link] = []
    errors: list[Exception] = []
    for connection in connections:
        session = connection.session
        if session.state is not OPEN:
            continue
        backlog = connection.backlog
        if backlog is None and names_policy and connection.is_slow:
            backlog = connection.make_backlog()
        if backlog is not None and backlog.takes(connection, policy or backlog.policy, unframed, key):
            continue
        link = connection.link
        try:
            extension = session.extension
            if extension is None:
                link.send_shared(first, payload, plain)
            elif extension.shared is None:
                session.send(first, payload)
                link.touch()
            else:
                made = encoded.get(extension.shared)
                if made is None:
                    made = encoded[extension.shared] = _encode(extension, first, payload)
                link.send_shared(made[0], made[1], made[2])
        except WebSocketException as error:
            errors.append(error)
            connection.logger.warning("skipped broadcast: %s", error)
            continue
        if session.out and link.buffered() >= GATHER:
            full.append(link)
    # Writing shows who is slow, in a burst of broadcasts too. It may end a connection, whose `on_close` may take it
    # out of what is iterated above.
    for link in full:
        link.flush()
    return errors


def _encode(extension: Extension, first: int, payload: Payload) -> tuple[int, Payload, bytes]:
    first, payload = extension.encode_shared(first, payload)
    return first, payload, _make_frame(first, payload)


def _make_frame(first: int, payload: Payload) -> bytes:
    """A server's frame."""
    frame = bytearray()
    append_frame(frame, first, payload, None)
    return bytes(frame)
