"""The opening handshake: RFC 6455, section 4, both roles, over HTTP/1.1.

The law here: settings are checked when a handshake object is made, and a ValueError then is our own caller's; what a
peer sends is checked in `check`, and an InvalidHandshake says which rule it broke. A server's answer never repeats
what the peer sent: only the error does, for the log.

    server    HeadReader(Request) -> check(request) -> select(request) -> negotiate(request) -> accept(request, ...)
                                        error -> reject(error)
    client    request() -> ResponseReader -> check(response) -> the subprotocol and the extension
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import http
import re
import secrets
import sys
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

from .._version import __version__
from .errors import (
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
    SecurityError,
    excerpt,
)
from .extensions import (
    Extension,
    ExtensionFactory,
    accept_offers,
    check_answer,
    check_factories,
    format_extensions,
    parse_extensions,
)
from .headers import Headers, HeadersLike, Request, Response, is_token, split_list
from .uri import WebSocketURI, split_host

USER_AGENT: Final = f"Python/{sys.version_info.major}.{sys.version_info.minor} fullduplex/{__version__}"


class SameOrigin(enum.Enum):
    """The type of SAME_ORIGIN."""

    SAME_ORIGIN = enum.auto()

    def __repr__(self) -> str:
        return self.name


SAME_ORIGIN: Final = SameOrigin.SAME_ORIGIN
Origins: TypeAlias = Literal[SameOrigin.SAME_ORIGIN] | Sequence[str | re.Pattern[str] | None] | None

Fields: TypeAlias = dict[str, list[str]]  # what Headers.by_name() gives

# 16 bytes in base64: RFC 6455, section 4.1. What the last two of the 132 bits say is not our concern.
_is_key = re.compile(r"[0-9A-Za-z+/]{22}==").fullmatch
_split_origin = re.compile(r"(https?)://([^/]+)", re.IGNORECASE).fullmatch  # RFC 6454, section 6.2
_split_absolute = re.compile(r"(?:http|ws)s?://([^/?]+)(?:[/?].*)?", re.IGNORECASE).fullmatch  # RFC 9112, 3.2.2


def accept_key(key: str) -> str:
    """The value of Sec-WebSocket-Accept for a Sec-WebSocket-Key. Section 4.2.2, 5.4."""
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False).decode()


def basic_authorization(username: str, password: str) -> str:
    """The value of Authorization for a user and a password. RFC 7617, section 2."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


class ServerHandshake:
    """The server's side: settings that all connections share.

    `origins` says which web pages may connect, since a browser sends its user's cookies along with any page's request
    (section 10.2). SAME_ORIGIN: those of this host and port, and programs, which send no Origin. A sequence: exactly
    these, where a pattern has to match the whole, and None stands for no Origin. None: anyone.
    """

    def __init__(
        self,
        *,
        origins: Origins = SAME_ORIGIN,
        subprotocols: Sequence[str] | None = None,
        extensions: Sequence[ExtensionFactory] = (),
        server_header: str | None = USER_AGENT,
    ) -> None:
        if isinstance(origins, str):
            raise TypeError("origins is a sequence of origins, not one")
        self._origins = origins if origins is None or origins is SAME_ORIGIN else tuple(origins)
        self._subprotocols = _checked_subprotocols(subprotocols)
        self._extensions = check_factories(extensions)
        self._headers = Headers() if server_header is None else Headers(Server=server_header)

    def check(self, request: Request) -> None:
        """Raise the error that tells which rule of section 4.2.1 a request breaks; its `status` is our answer.

        Numbers in comments, here and below, are those of the list in that section.
        """
        fields = request.headers.by_name()
        host = _check_http(request, fields)
        _check_upgrade(fields)
        _check_websocket(fields)
        if not _is_key(key := _single(fields, "Sec-WebSocket-Key")):  # 5.
            raise InvalidHeader("Sec-WebSocket-Key", key)
        self._check_origin(fields, host)

    def select(self, request: Request, choose: Callable[[Sequence[str]], str | None] | None = None) -> str | None:
        """Select a subprotocol for a checked request: ours decide, in their order, or `choose(offered)` does."""
        offered = split_list(request.headers.get_all("Sec-WebSocket-Protocol"))
        if choose is None:
            return next((name for name in self._subprotocols if name in offered), None)
        selected = choose(offered)
        if selected is not None and selected not in offered:
            # Section 4.2.2, 5.5: the client would have to fail the connection.
            raise NegotiationError(f"selected a subprotocol that wasn't offered: {selected}", who="local", status=500)
        return selected

    def negotiate(self, request: Request) -> tuple[str, Extension | None]:
        """What to answer to the extensions that a checked request offers, and what is agreed then. Section 9.1.

        Raises InvalidHeader for a list that is none.
        """
        offered = request.headers.get_all("Sec-WebSocket-Extensions")
        if not offered:
            return "", None
        answer, extension = accept_offers(self._extensions, parse_extensions(offered))
        return format_extensions(answer), extension

    def accept(self, request: Request, subprotocol: str | None = None, extensions: str = "") -> Response:
        """The response that opens the connection, for a checked request. Section 4.2.2."""
        headers = Headers()
        headers.append_checked("Upgrade", "websocket")
        headers.append_checked("Connection", "Upgrade")
        headers.append_checked("Sec-WebSocket-Accept", accept_key(request.headers["Sec-WebSocket-Key"]))
        if subprotocol is not None:
            headers["Sec-WebSocket-Protocol"] = subprotocol
        if extensions:
            headers["Sec-WebSocket-Extensions"] = extensions
        headers.extend_checked(self._headers)
        return Response(101, "Switching Protocols", headers)

    def reject(self, exc: InvalidHandshake) -> Response:
        """The response that says what is wrong."""
        response = self.respond(exc.status, f"Failed to open a WebSocket connection: {_explain(exc)}.\n")
        if isinstance(exc, InvalidMethod):
            response.headers["Allow"] = "GET"  # RFC 9110, section 15.5.6
            if exc.method == "HEAD":
                response.body = b""  # RFC 9110, section 9.3.2
        return response

    def respond(self, status: int, text: str) -> Response:
        """A response with any status and text, which ends the connection."""
        body = text.encode()
        upgrade_required = status == http.HTTPStatus.UPGRADE_REQUIRED
        headers = Headers()
        headers["Connection"] = "close, Upgrade" if upgrade_required else "close"
        if upgrade_required:
            headers["Upgrade"] = "websocket"  # RFC 9110, sections 7.8 and 15.5.22
            headers["Sec-WebSocket-Version"] = "13"  # RFC 6455, section 4.4
        headers["Content-Type"] = "text/plain; charset=utf-8"
        headers["Content-Length"] = str(len(body))
        headers.extend_checked(self._headers)
        return Response(status, _phrase(status), headers, body)

    def _check_origin(self, fields: Fields, host: tuple[str, int | None]) -> None:
        """Section 4.2.2, 4; section 10.2."""
        values = fields.get("origin", [])
        if len(values) > 1:  # RFC 6454, section 7.3
            raise InvalidOrigin(", ".join(values))
        origin = values[0] if values else None
        if self._origins is None:
            return
        if self._origins is SAME_ORIGIN:
            allowed = origin is None or _is_same(origin, host)
        else:
            allowed = any(
                entry == origin
                if entry is None or isinstance(entry, str)
                else origin is not None and entry.fullmatch(origin) is not None
                for entry in self._origins
            )
        if not allowed:
            raise InvalidOrigin(origin)


class ClientHandshake:
    """The client's side, for one URI. `additional_headers` may bring their own Host, Authorization and User-Agent."""

    def __init__(
        self,
        uri: WebSocketURI,
        *,
        origin: str | None = None,
        subprotocols: Sequence[str] | None = None,
        extensions: Sequence[ExtensionFactory] = (),
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
    ) -> None:
        self._path = uri.resource_name
        self._subprotocols = _checked_subprotocols(subprotocols)
        self._extensions = check_factories(extensions)
        self._key = ""
        given = Headers() if additional_headers is None else Headers(additional_headers)
        for name, parameter in _NOT_GIVEN.items():
            if name in given:
                raise ValueError(f"additional_headers can't have {name}: {parameter}")
        for name in ("Host", "Origin", "Authorization"):
            if len(given.get_all(name)) > 1:
                raise ValueError(f"additional_headers can't have several {name}")
        if origin is not None and "Origin" in given:
            raise ValueError("additional_headers can't have Origin beside origin=")
        if split_host(given.setdefault("Host", uri.host_header)) is None:
            raise ValueError("additional_headers has a Host that isn't host[:port]")
        # Section 4.1, requirements 4 to 12. Host comes first: RFC 9110, section 7.2.
        self._headers = Headers(Host=given.pop("Host"))
        self._headers.update({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"})
        if origin is not None:
            self._headers["Origin"] = origin
        if self._subprotocols:
            self._headers["Sec-WebSocket-Protocol"] = ", ".join(self._subprotocols)
        offers = [(factory.name, offer) for factory in self._extensions for offer in factory.offers()]
        if offers:
            self._headers["Sec-WebSocket-Extensions"] = format_extensions(offers)
        if uri.user_info is not None and "Authorization" not in given:
            self._headers["Authorization"] = basic_authorization(*uri.user_info)
        if user_agent_header is not None and "User-Agent" not in given:
            self._headers["User-Agent"] = user_agent_header
        self._headers.update(given)

    def request(self) -> Request:
        """The request that asks for a connection, with a key of its own. Section 4.1."""
        self._key = base64.b64encode(secrets.token_bytes(16)).decode()
        headers = self._headers.copy()
        headers["Sec-WebSocket-Key"] = self._key
        return Request(self._path, headers)

    def check(self, response: Response) -> tuple[str | None, Extension | None]:
        """What was agreed, subprotocol and extension, if the response opens the connection that was asked for last.

        Raise the error that tells which rule of section 4.1 it breaks otherwise. The numbers are those of its list.
        """
        if response.status_code != 101:  # 1.
            raise InvalidStatus(response)
        fields = response.headers.by_name()
        upgrade = fields.get("upgrade", [])
        if [name.lower() for name in upgrade] != ["websocket"]:  # 2.
            raise InvalidUpgrade("Upgrade", _joined(upgrade))
        connection = fields.get("connection", [])
        if not _has(connection, "upgrade"):  # 3.
            raise InvalidUpgrade("Connection", _joined(connection))
        if (accept := _single(fields, "Sec-WebSocket-Accept")) != accept_key(self._key):  # 4.
            raise InvalidHeader("Sec-WebSocket-Accept", accept)
        extension = None
        if answer := fields.get("sec-websocket-extensions"):  # 5.
            extension = check_answer(self._extensions, parse_extensions(answer))
        if "sec-websocket-protocol" not in fields:
            return None, extension
        subprotocol = _single(fields, "Sec-WebSocket-Protocol")
        if subprotocol not in self._subprotocols:  # 6.
            raise NegotiationError(f"subprotocol that wasn't offered: {excerpt(subprotocol)}")
        return subprotocol, extension


# What the handshake itself says, and how a caller has a say in it.
_NOT_GIVEN = {
    "Upgrade": "it belongs to the handshake",
    "Connection": "it belongs to the handshake",
    "Sec-WebSocket-Key": "it belongs to the handshake",
    "Sec-WebSocket-Version": "it belongs to the handshake",
    "Sec-WebSocket-Accept": "it belongs to the server",
    "Sec-WebSocket-Protocol": "use subprotocols=",
    "Sec-WebSocket-Extensions": "use extensions= or compression=",
    "Content-Length": "the request has no body",
    "Transfer-Encoding": "the request has no body",
}


def _check_http(request: Request, fields: Fields) -> tuple[str, int | None]:
    """Check what holds for any request that opens a WebSocket over HTTP/1.1, and give host and port."""
    if request.method != "GET":  # 1.
        raise InvalidMethod(request.method)
    value = _single(fields, "Host")  # 2.; RFC 9112, section 3.2, on several
    host = split_host(value)
    if host is None:
        raise InvalidHeader("Host", value)
    if not request.path.startswith("/"):
        # RFC 9112, section 3.2.2: the target may be a whole URI, and then the client sends the same Host.
        absolute = _split_absolute(request.path)
        if absolute is None or split_host(absolute[1]) != host:
            raise InvalidMessage(f"invalid request target: {excerpt(request.path)}")
    # A body would stand where frames are expected.
    if fields.get("content-length", ["0"]) != ["0"]:
        raise InvalidHeader("Content-Length", _joined(fields["content-length"]))
    if "transfer-encoding" in fields:
        raise InvalidHeader("Transfer-Encoding", _joined(fields["transfer-encoding"]))
    return host


def _check_upgrade(fields: Fields) -> None:
    """Check what HTTP/1.1 needs for changing protocols."""
    upgrade = fields.get("upgrade", [])
    if not _has(upgrade, "websocket"):  # 3.
        raise InvalidUpgrade("Upgrade", _joined(upgrade), status=426)
    connection = fields.get("connection", [])
    if not _has(connection, "upgrade"):  # 4.
        raise InvalidUpgrade("Connection", _joined(connection))


def _check_websocket(fields: Fields) -> None:
    """Check what a WebSocket request says on any version of HTTP (RFC 8441, section 5)."""
    # Before the key: a client of another version has another one, and is to learn which version is ours (section 4.4).
    version = fields.get("sec-websocket-version", [])
    if version != ["13"]:  # 6.
        raise InvalidHeader("Sec-WebSocket-Version", _joined(version), status=426)
    subprotocols = fields.get("sec-websocket-protocol", [])
    if not all(is_token(name) for name in split_list(subprotocols)):  # 8.
        raise InvalidHeader("Sec-WebSocket-Protocol", _joined(subprotocols))


def _is_same(origin: str, host: tuple[str, int | None]) -> bool:
    """Tell whether an Origin has this host and port.

    Its scheme gives the port where one is left out. It isn't compared: behind a proxy that ends TLS it can't be.
    """
    match = _split_origin(origin)
    parts = split_host(match[2]) if match else None
    if match is None or parts is None:
        return False
    default = 443 if match[1].lower() == "https" else 80
    (name, port), (own_name, own_port) = parts, host
    # "example.com." is the same name, said in full.
    return (name.removesuffix("."), default if port is None else port) == (
        own_name.removesuffix("."),
        default if own_port is None else own_port,
    )


def _explain(exc: InvalidHandshake) -> str:
    """Say what is wrong, in words of our own."""
    match exc:
        case InvalidOrigin():
            return "this Origin is not allowed. To allow it, add it to origins=[...] of serve()"
        case InvalidUpgrade(name="Upgrade"):
            return (
                "this server only speaks WebSocket, and this is a plain HTTP request. "
                "Connect with a WebSocket client: a browser's address bar is none"
            )
        case InvalidUpgrade():
            return "the Connection header has no Upgrade. A proxy in between may need to be told to pass it on"
        case InvalidHeader(name="Sec-WebSocket-Version"):
            return "this server speaks version 13 of the protocol (RFC 6455)"
        case InvalidHeader():
            return f"{'missing' if exc.value is None else 'invalid'} {exc.name} header"
        case InvalidMethod():
            return "the method is not GET"
        case InvalidProtocol():
            return "the protocol is not HTTP/1.1"
        case SecurityError():
            return "the request is too large"
        case InvalidMessage(status=400):
            return "this is not a valid HTTP/1.1 request"
        case _:
            return _phrase(exc.status)


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""  # RFC 9112, section 4: a reason is optional


def _checked_subprotocols(subprotocols: Sequence[str] | None) -> tuple[str, ...]:
    """Section 4.1, 10: tokens, each once."""
    if isinstance(subprotocols, str):
        raise TypeError("subprotocols is a sequence of subprotocols, not one")
    names = tuple(subprotocols or ())
    for name in names:
        if not is_token(name):
            raise ValueError(f"a subprotocol is a token (RFC 6455, section 4.1): {name!r}")
    if len(set(names)) < len(names):
        raise ValueError("subprotocols are named once each (RFC 6455, section 4.1)")
    return names


def _single(fields: Fields, name: str) -> str:
    """The value of a header that has to be there once."""
    values = fields.get(name.lower(), [])
    if len(values) != 1:
        raise InvalidHeader(name, _joined(values))
    return values[0]


def _joined(values: list[str]) -> str | None:
    return ", ".join(values) if values else None


def _has(values: list[str], name: str) -> bool:
    """Tell whether a list has a name, in any case."""
    return any(element.lower() == name for element in split_list(values))
