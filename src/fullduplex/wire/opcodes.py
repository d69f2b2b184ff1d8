"""The numbers of RFC 6455: of frames (5.2, 11.8), close codes (7.4, 11.7), a connection's states (the W3C's names)."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class Opcode(enum.IntEnum):
    """What a frame carries. RFC 6455, sections 5.2 and 11.8."""

    CONT = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


# The bits of a frame's first two bytes. Section 5.2.
FIN: Final = 0x80
RSV: Final = 0x70
OPCODE: Final = 0x0F
MASK: Final = 0x80
LENGTH: Final = 0x7F

# Bytes of the longest head of a frame: two, a length of 64 bits, a mask key. Section 5.2.
MAX_FRAME_HEAD: Final = 14
# The largest length that a frame can declare: its highest bit is 0. Section 5.2.
NO_LIMIT: Final = 2**63 - 1

# Opcodes as plain numbers, which are the quicker to compare with.
CONT: Final = int(Opcode.CONT)
TEXT: Final = int(Opcode.TEXT)
BINARY: Final = int(Opcode.BINARY)
CLOSE: Final = int(Opcode.CLOSE)
PONG: Final = int(Opcode.PONG)

# The first byte of a message in one frame.
TEXT_FRAME: Final = FIN | TEXT
BINARY_FRAME: Final = FIN | BINARY


class State(enum.IntEnum):
    """Where a connection is in its life."""

    CONNECTING, OPEN, CLOSING, CLOSED = range(4)


CONNECTING, OPEN, CLOSING, CLOSED = State


class CloseCode(enum.IntEnum):
    """Why a connection ends. RFC 6455, section 7.4.1, and IANA's registry."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    # 1004 is reserved
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


def is_sendable(code: int) -> bool:
    """Tell whether a close frame may carry `code`: 1005, 1006 and 1015 are only ever reported. Section 7.4."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


class Close(NamedTuple):
    """The code and the reason of a close frame; 1005 stands for a frame without a code (section 7.1.5)."""

    code: int
    reason: str = ""

    def __str__(self) -> str:
        if 3000 <= self.code < 4000:
            name = "registered"
        elif 4000 <= self.code < 5000:
            name = "private use"
        else:
            try:
                name = CloseCode(self.code).name.lower().replace("_", " ")
            except ValueError:
                name = "unknown"
        # A reason is the peer's: in a log it must not look like a line of ours.
        reason = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in self.reason)
        return f"{self.code} ({name})" + (f" {reason}" if reason else "")
