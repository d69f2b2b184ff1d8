"""How a connection goes from one state to the next: RFC 6455, section 7.1, as a table. ARCHITECTURE.md draws it."""

from __future__ import annotations

import enum
from typing import Final

from .opcodes import State


class Event(enum.Enum):
    """What moves a connection."""

    OPENED = "the opening handshake succeeded"
    CLOSE_SENT = "a close frame was sent"
    ENDED = "TCP ended"


TRANSITIONS: Final = {
    (State.CONNECTING, Event.OPENED): State.OPEN,
    (State.CONNECTING, Event.ENDED): State.CLOSED,
    (State.OPEN, Event.CLOSE_SENT): State.CLOSING,
    (State.OPEN, Event.ENDED): State.CLOSED,
    (State.CLOSING, Event.ENDED): State.CLOSED,
}
