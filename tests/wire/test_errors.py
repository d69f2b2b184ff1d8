from __future__ import annotations

import pytest

from fullduplex.wire import errors
from fullduplex.wire.errors import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidHandshake,
    InvalidHeader,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    PayloadTooBig,
    ProtocolError,
    WebSocketException,
    excerpt,
)
from fullduplex.wire.headers import Headers, Response
from fullduplex.wire.opcodes import Close


def tree(kind: type[Exception], depth: int = 0) -> list[tuple[int, str]]:
    below = [
        line for sub in kind.__subclasses__() if sub.__module__ == errors.__name__ for line in tree(sub, depth + 1)
    ]
    return [(depth, kind.__name__), *below]


def test_the_tree_is_as_drawn() -> None:
    """The picture at the top of the module shows every class where it is."""
    drawn = []
    for line in (errors.__doc__ or "").splitlines():
        body = line.lstrip(" │├└─")
        name = body.split(" ")[0]
        if line.startswith("    ") and name.isidentifier():
            indent = len(line) - len(body)
            drawn.append(((indent - 4 + 3) // 4 if "─" in line else 0, name))
    assert drawn[0] == (0, "WebSocketException")
    assert drawn == tree(WebSocketException)


@pytest.mark.parametrize(
    ("error", "text", "code", "reason"),
    [
        (ConnectionClosed(None, None), "no close frame received or sent", 1006, ""),
        (
            ConnectionClosed(None, None, detail="network: reset", who="network"),
            "no close frame received or sent (network: reset)",
            1006,
            "",
        ),
        (
            ConnectionClosed(None, Close(1000, "bye"), who="local"),
            "sent 1000 (normal closure) bye; no close frame received",
            1006,
            "",
        ),
        (
            ConnectionClosed(Close(1001), None, who="remote"),
            "received 1001 (going away); no close frame sent",
            1001,
            "",
        ),
        (
            ConnectionClosed(Close(4000, "why"), Close(4000), True, who="remote"),
            "received 4000 (private use) why; then sent 4000 (private use)",
            4000,
            "why",
        ),
        (
            ConnectionClosed(Close(1000), Close(1000), False, who="local"),
            "sent 1000 (normal closure); then received 1000 (normal closure)",
            1000,
            "",
        ),
    ],
)
def test_connection_closed(error: ConnectionClosed, text: str, code: int, reason: str) -> None:
    assert str(error) == text
    assert (error.code, error.reason) == (code, reason)


def test_two_ways_to_be_closed() -> None:
    assert issubclass(ConnectionClosedOK, ConnectionClosed)
    assert issubclass(ConnectionClosedError, ConnectionClosed)
    assert not issubclass(ConnectionClosedOK, ConnectionClosedError)


def test_protocol_error() -> None:
    error = PayloadTooBig(1009, "a rule", "local")
    assert isinstance(error, ProtocolError)
    assert (error.code, error.rule, error.who, str(error)) == (1009, "a rule", "local", "a rule")
    assert ProtocolError(1002, "a rule").who == "remote"


def test_invalid_uri() -> None:
    error = InvalidURI("http://x", "no such scheme")
    assert (error.uri, error.rule) == ("http://x", "no such scheme")
    assert str(error) == "http://x isn't a valid URI: no such scheme"


@pytest.mark.parametrize(
    ("error", "text", "status"),
    [
        (InvalidHandshake("a rule"), "a rule", 400),
        (InvalidHandshake("a rule", who="local", status=503), "a rule", 503),
        (InvalidMethod("PO\x1b[1mST"), "unsupported HTTP method: PO\\x1b[1mST", 405),
        (InvalidProtocol("HTTP/3"), "unsupported HTTP version: HTTP/3", 505),
        (InvalidHeader("Sec-WebSocket-Key"), "missing Sec-WebSocket-Key header", 400),
        (InvalidHeader("Sec-WebSocket-Key", ""), "empty Sec-WebSocket-Key header", 400),
        (InvalidHeader("Sec-WebSocket-Version", "9", status=426), "invalid Sec-WebSocket-Version header: 9", 426),
        (InvalidUpgrade("Upgrade", "h2c"), "invalid Upgrade header: h2c", 400),
        (InvalidOrigin(None), "missing Origin header", 403),
        (InvalidOrigin("http://evil.example"), "invalid Origin header: http://evil.example", 403),
    ],
)
def test_invalid_handshake(error: InvalidHandshake, text: str, status: int) -> None:
    assert (str(error), error.rule, error.status) == (text, text, status)


def test_fields_of_invalid_handshakes() -> None:
    assert (InvalidHandshake("a rule").who, InvalidHandshake("a rule", who="local").who) == ("remote", "local")
    assert InvalidMethod("POST").method == "POST"
    assert InvalidProtocol("HTTP/1.0").protocol == "HTTP/1.0"
    header = InvalidHeader("Host", "a b")
    assert (header.name, header.value) == ("Host", "a b")


def test_invalid_status() -> None:
    response = Response(503, "Service Unavailable", Headers(), b"later")
    error = InvalidStatus(response)
    assert error.response is response
    assert str(error) == "server rejected WebSocket connection: HTTP 503"


def test_what_a_peer_sent_is_cut_and_escaped() -> None:
    assert excerpt("plain") == "plain"
    assert excerpt("a" * 1000) == "a" * 100
    assert excerpt("\x1b]0;x\x07\r\n\x9b") == "\\x1b]0;x\\x07\\r\\n\\x9b"
    assert excerpt("é\u202e") == "\\xe9\\u202e"
    assert excerpt("it's \\") in ("it's \\\\", "it\\'s \\\\")
