"""The public surface, name by name: it grows or shrinks on purpose only."""

from __future__ import annotations

import fullduplex

# Sorted. A name here is a promise: it is documented, and a change of it stands in CHANGELOG.md.
PUBLIC = [
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
    "SAME_ORIGIN",
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


def test_the_names_are_these() -> None:
    assert sorted(fullduplex.__all__) == PUBLIC


def test_each_name_is_there() -> None:
    """A name may be imported only when it is asked for: a slip of the pen would show here."""
    for name in fullduplex.__all__:
        assert getattr(fullduplex, name) is not None
        assert name in dir(fullduplex)
