"""WebSockets for Python, client and server: strict to the letter of RFC 6455, and fast."""

from __future__ import annotations

from ._version import __version__
from .api.client import ClientConnection, backoff, connect, process_exception, unix_connect
from .api.connection import Connection, broadcast
from .api.listener import Listener
from .api.server import Server, ServerConnection, serve, unix_serve
from .wire.errors import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
    SecurityError,
    WebSocketException,
)
from .wire.handshake import SAME_ORIGIN
from .wire.headers import Headers, Request, Response
from .wire.opcodes import Close, CloseCode, State

__all__ = [
    "SAME_ORIGIN",
    "ClientConnection",
    "Close",
    "CloseCode",
    "ConcurrencyError",
    "Connection",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "Headers",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidMessage",
    "InvalidMethod",
    "InvalidOrigin",
    "InvalidProtocol",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "Listener",
    "NegotiationError",
    "PayloadTooBig",
    "ProtocolError",
    "Request",
    "Response",
    "SecurityError",
    "Server",
    "ServerConnection",
    "State",
    "WebSocketException",
    "__version__",
    "backoff",
    "broadcast",
    "build_info",
    "connect",
    "process_exception",
    "serve",
    "unix_connect",
    "unix_serve",
]


def build_info() -> dict[str, str]:
    """Which form runs: "interpreted", or "compiled" by Cython from the same files; and on what."""
    import platform

    return {
        "version": __version__,
        "form": "interpreted",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
