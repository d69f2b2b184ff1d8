"""WebSocket URIs: RFC 6455, section 3, in the syntax of RFC 3986.

The law here: what comes out can be put into a request line, a Host header and a resolver as it is. Host names are
ASCII (IDNA), paths and queries are percent-encoded, and a URI that would need guessing is refused.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from .errors import InvalidURI

# RFC 3986, appendix B, for a URI with an authority. The fragment is refused below.
_split = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(?:([^/?#@]*)@)?([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?").fullmatch
# Of RFC 3986's characters for names, DNS uses few; sub-delims and percent-encoding only ever serve to deceive.
_split_host = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~-]+)(?::([0-9]{0,5}))?").fullmatch


@dataclass(frozen=True, slots=True)
class WebSocketURI:
    """A WebSocket URI, taken apart. `host` has no brackets; `path` and `query` are percent-encoded."""

    secure: bool
    host: str
    port: int
    path: str
    query: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def resource_name(self) -> str:
        """What the request line names. RFC 6455, section 3."""
        return (self.path or "/") + (f"?{self.query}" if self.query else "")

    @property
    def host_header(self) -> str:
        """The value of Host: without the port if it is the default one. RFC 6455, section 4.1."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _default_port(self.secure) else f"{host}:{self.port}"

    @property
    def user_info(self) -> tuple[str, str] | None:
        """The user and the password for Basic authorization, if the URI has them."""
        return None if self.username is None else (self.username, self.password or "")


def parse_uri(uri: str) -> WebSocketURI:
    """Take a ws: or wss: URI apart. InvalidURI says what is wrong with it."""
    if re.search(r"[\x00-\x20\x7f-\xa0]|\s", uri):
        raise InvalidURI(uri, "whitespace or a control character")
    match = _split(uri)
    if match is None:
        raise InvalidURI(uri, "not ws://host[:port]/path or wss://host[:port]/path")
    scheme, user_info, authority, path, query, fragment = match.groups()
    if scheme.lower() not in {"ws", "wss"}:
        raise InvalidURI(uri, "scheme isn't ws or wss")
    if fragment is not None:
        raise InvalidURI(uri, "fragment identifier is meaningless")  # "#" in a path is written %23
    secure = scheme.lower() == "wss"
    host, port = _parse_authority(uri, authority)
    username, password = _parse_user_info(uri, user_info) if user_info else (None, None)
    try:
        path, query = _percent_encode(path), _percent_encode(query or "")
    except UnicodeEncodeError:
        raise InvalidURI(uri, "not Unicode text") from None
    return WebSocketURI(secure, host, _default_port(secure) if port is None else port, path, query, username, password)


def split_host(text: str) -> tuple[str, int | None] | None:
    """Split `host[:port]`, as in a URI or a Host header, into a host in lower case and a port; None if it isn't that.

    An IPv6 address keeps its brackets. An empty port is no port (RFC 3986, section 3.2.3).
    """
    match = _split_host(text)
    if match is None:
        return None
    host, digits = match.groups()
    port = int(digits) if digits else None
    return None if port is not None and port > 65_535 else (host.lower(), port)


def _default_port(secure: bool) -> int:
    return 443 if secure else 80


def _parse_authority(uri: str, authority: str) -> tuple[str, int | None]:
    if not authority.isascii():
        name, colon, port = authority.partition(":")
        try:
            # Normalisation may bring up any character, even a slash: what comes out is checked like the rest.
            authority = name.encode("idna").decode() + colon + port
        except UnicodeError:
            raise InvalidURI(uri, "host isn't a valid international domain name") from None
    parts = split_host(authority)
    if parts is None:
        raise InvalidURI(uri, "host or port is missing or invalid")
    host, number = parts
    if host.startswith("["):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise InvalidURI(uri, "invalid IPv6 address") from None
    return host, number


def _parse_user_info(uri: str, user_info: str) -> tuple[str, str]:
    try:
        username, password = (_percent_decode(part) for part in user_info.partition(":")[::2])
    except UnicodeError:
        raise InvalidURI(uri, "user information isn't UTF-8") from None
    # RFC 7617, section 2: the first colon ends the user's name, and neither has control characters.
    if ":" in username or re.search(r"[\x00-\x1f\x7f]", username + password):
        raise InvalidURI(uri, "colon in a user's name, or control character in user information")
    return username, password


def _percent_encode(text: str) -> str:
    return re.sub(r"[^\x21-\x7e]", lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), text)


def _percent_decode(text: str) -> str:
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes.fromhex(match[1].decode()), text.encode()).decode()
