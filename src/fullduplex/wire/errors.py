"""Every error that fullduplex raises.

    WebSocketException
    ├── ConnectionClosed            the connection is over: both close frames, who ended it, what was seen
    │   ├── ConnectionClosedOK        1000, 1001 or no code, on both sides
    │   └── ConnectionClosedError     anything else; its __cause__ says which rule was broken, if one was
    ├── ProtocolError               a frame broke a rule of RFC 6455
    │   └── PayloadTooBig             ... or a limit of ours
    ├── InvalidURI                  not a WebSocket URI
    ├── InvalidHandshake            the opening handshake failed
    │   ├── InvalidMessage            not HTTP/1.1 as RFC 9112 has it
    │   │   └── SecurityError           ... or larger than our limits
    │   ├── InvalidMethod             not GET
    │   ├── InvalidProtocol           not HTTP/1.1
    │   ├── InvalidStatus             the server answered with something else than 101
    │   ├── InvalidHeader             a header is missing or wrong
    │   │   ├── InvalidUpgrade          Upgrade or Connection
    │   │   └── InvalidOrigin           Origin is not allowed
    │   └── NegotiationError          a subprotocol or an extension that nobody offered
    └── ConcurrencyError            two tasks do with one connection what only one can

Names are those of `websockets`. Every handshake error knows `who` broke the rule and, on the server's side, the
HTTP `status` that the peer is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .opcodes import Close, CloseCode

if TYPE_CHECKING:
    from .headers import Response

Who = Literal["local", "remote", "network"]


def excerpt(text: str) -> str:
    """Make what a peer sent fit for an error's text: at most 100 characters of it, none that controls a terminal."""
    return ascii(text[:100])[1:-1]


class WebSocketException(Exception):
    """The base of all errors of fullduplex."""


class ConnectionClosed(WebSocketException):
    """The connection is closed, or is closing and does not take this call.

    `rcvd` and `sent` are the close frames, or None; `rcvd_then_sent` tells their order when there were both.
    `who` ended it: "local", "remote" or "network". `detail` says in words what was seen, where the frames do not.
    """

    def __init__(
        self,
        rcvd: Close | None,
        sent: Close | None,
        rcvd_then_sent: bool | None = None,
        *,
        who: Who = "network",
        detail: str = "",
    ) -> None:
        super().__init__(rcvd, sent, rcvd_then_sent)
        self.rcvd = rcvd
        self.sent = sent
        self.rcvd_then_sent = rcvd_then_sent
        self.who = who
        self.detail = detail

    def __str__(self) -> str:
        received, sent = f"received {self.rcvd}", f"sent {self.sent}"
        if self.rcvd is None and self.sent is None:
            text = "no close frame received or sent"
        elif self.rcvd is None:
            text = f"{sent}; no close frame received"
        elif self.sent is None:
            text = f"{received}; no close frame sent"
        elif self.rcvd_then_sent:
            text = f"{received}; then {sent}"
        else:
            text = f"{sent}; then {received}"
        return f"{text} ({self.detail})" if self.detail and self.detail not in text else text

    @property
    def code(self) -> int:
        """The close code that was received; 1006 when the connection ended without a close frame. Section 7.1.5."""
        return CloseCode.ABNORMAL_CLOSURE if self.rcvd is None else self.rcvd.code

    @property
    def reason(self) -> str:
        """The reason that was received with it. Section 7.1.6."""
        return "" if self.rcvd is None else self.rcvd.reason


class ConnectionClosedOK(ConnectionClosed):
    """Both sides closed with 1000 (normal closure), 1001 (going away) or without a code."""


class ConnectionClosedError(ConnectionClosed):
    """The connection closed with another code, or without a closing handshake."""


class ProtocolError(WebSocketException):
    """A frame broke a rule: `code` is the close code for it, `who` sent it."""

    def __init__(self, code: int, rule: str, who: Who = "remote") -> None:
        super().__init__(code, rule)
        self.code = code
        self.rule = rule
        self.who = who

    def __str__(self) -> str:
        return self.rule


class PayloadTooBig(ProtocolError):
    """A message is larger than `max_size`, or has too many fragments."""


class InvalidURI(WebSocketException):
    """`uri` is not a WebSocket URI of RFC 6455, section 3."""

    def __init__(self, uri: str, rule: str) -> None:
        super().__init__(uri, rule)
        self.uri = uri
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.uri} isn't a valid URI: {self.rule}"


class InvalidHandshake(WebSocketException):
    """The opening handshake failed: `rule` says why, `who` broke it, `status` is the server's answer to it."""

    status = 400

    def __init__(self, rule: str, *, who: Who = "remote", status: int | None = None) -> None:
        super().__init__(rule)
        self.rule = rule
        self.who: Who = who
        if status is not None:
            self.status = status

    def __str__(self) -> str:
        return self.rule


class InvalidMessage(InvalidHandshake):
    """The peer does not speak HTTP/1.1, or ended the connection before its head was complete."""


class SecurityError(InvalidMessage):
    """A head or a body is larger than `limits` allow (414, 431)."""


class InvalidMethod(InvalidHandshake):
    """The request's method is not GET (405)."""

    status = 405

    def __init__(self, method: str) -> None:
        super().__init__(f"unsupported HTTP method: {excerpt(method)}")
        self.method = method


class InvalidProtocol(InvalidHandshake):
    """The version is not HTTP/1.1 (505)."""

    status = 505

    def __init__(self, protocol: str) -> None:
        super().__init__(f"unsupported HTTP version: {excerpt(protocol)}")
        self.protocol = protocol


class InvalidStatus(InvalidHandshake):
    """The server did not switch protocols; `response` is its answer, with headers and body."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"server rejected WebSocket connection: HTTP {response.status_code}")
        self.response = response


class InvalidHeader(InvalidHandshake):
    """The header `name` is missing (`value` is None), empty, or wrong."""

    def __init__(self, name: str, value: str | None = None, *, status: int | None = None) -> None:
        if value is None:
            rule = f"missing {name} header"
        elif value == "":
            rule = f"empty {name} header"
        else:
            rule = f"invalid {name} header: {excerpt(value)}"
        super().__init__(rule, status=status)
        self.name = name
        self.value = value


class InvalidUpgrade(InvalidHeader):
    """Upgrade is not `websocket`, or Connection has no `Upgrade`."""


class InvalidOrigin(InvalidHeader):
    """The Origin is not allowed here (403). Section 10.2."""

    status = 403

    def __init__(self, value: str | None) -> None:
        super().__init__("Origin", value)


class NegotiationError(InvalidHandshake):
    """A subprotocol or an extension was selected that the client did not offer. Sections 4.1 and 4.2.2."""


class ConcurrencyError(WebSocketException):
    """Two receive from one connection, or a message would stand inside one that is sent in fragments (section 5.4)."""
