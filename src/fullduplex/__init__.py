"""WebSockets for Python, client and server: strict to the letter of RFC 6455, and fast.

The names below are all of the public interface. They are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ._version import __version__

if TYPE_CHECKING:
    from . import extensions
    from .api.admission import Statistics
    from .api.broadcast import broadcast
    from .api.client import ClientConnection, backoff, connect, process_exception, unix_connect
    from .api.connection import Connection
    from .api.listener import Listener
    from .api.server import Server, ServerConnection, serve, unix_serve
    from .api.slow import Policy
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
    from .wire.limits import Limits
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
    "Limits",
    "Listener",
    "NegotiationError",
    "PayloadTooBig",
    "Policy",
    "ProtocolError",
    "Request",
    "Response",
    "SecurityError",
    "Server",
    "ServerConnection",
    "State",
    "Statistics",
    "WebSocketException",
    "__version__",
    "backoff",
    "broadcast",
    "build_info",
    "connect",
    "extensions",
    "process_exception",
    "serve",
    "unix_connect",
    "unix_serve",
]


# Where the names are looked for, the cheapest first.
_MODULES: Final = (
    ".wire.opcodes",
    ".wire.errors",
    ".wire.headers",
    ".wire.handshake",
    ".wire.limits",
    ".api.listener",
    ".api.slow",
    ".api.admission",
    ".api.connection",
    ".api.broadcast",
    ".api.client",
    ".api.server",
)


def __getattr__(name: str) -> Any:
    if name == "extensions":
        return import_module(".extensions", __name__)
    if name in __all__:
        for module in _MODULES:
            value = vars(import_module(module, __name__)).get(name)
            if value is not None:
                globals()[name] = value
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def build_info() -> dict[str, str]:
    """Which form runs: "interpreted", or "compiled" by Cython from the same files; on what; and what compresses."""
    import platform

    from .wire import session
    from .wire.deflate import backend_name

    return {
        "version": __version__,
        "form": "interpreted" if session.__file__.endswith(".py") else "compiled",
        "deflate": backend_name(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
