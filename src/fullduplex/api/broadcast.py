"""One message to many connections."""

from __future__ import annotations

from collections.abc import Iterable

from ..wire.codec import append_frame
from ..wire.errors import WebSocketException
from ..wire.session import BINARY_FRAME, OPEN, TEXT_FRAME
from .connection import Connection
from .messages import BytesLike, Data, encode


def broadcast(connections: Iterable[Connection], message: Data | BytesLike, raise_exceptions: bool = False) -> None:
    """Send a message to many connections; frame it once. Does not wait, not even for slow ones.

    Connections that are not open, or in the middle of a fragmented message, are passed over; with `raise_exceptions`
    an ExceptionGroup says which failed. Raises TypeError.
    """
    payload, is_text = encode(message)
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
