"""What HTTP/1.1 messages are made of: header fields, a request, a response.

The law here: nothing that our own caller puts in can end a line on the wire. Names, values, methods, targets and
reasons are checked (RFC 9110, section 5; RFC 9112, sections 3 and 4), and a ValueError names the rule. What a peer
sent has been checked by `http1` and is not checked again.

An idle connection keeps its request, so `Headers` is one flat list, [name, value, name, value, ...]: a tuple per
field and a dict beside it would cost more than the fields themselves. A search is linear, over 128 fields at most;
who needs many of them asks `by_name()` once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from typing import TypeAlias

# RFC 9110, section 5.6.2: token. No \w and no \d here or elsewhere, since they match far more than ASCII.
TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# RFC 9110, section 5.5: field-value, and RFC 9112, section 4: reason-phrase. Bytes above 0x7F are carried as
# ISO 8859-1, which has a character for each of them.
TEXT = r"[\t\x20-\x7e\x80-\xff]*+"

is_token = re.compile(TOKEN).fullmatch
_is_text = re.compile(TEXT).fullmatch
_is_target = re.compile(r"[\x21-\x7e]+").fullmatch


class MultipleValuesError(LookupError):
    """`headers[name]` does not know which: the header is there more than once. `get_all(name)` has them all."""


class Headers(MutableMapping[str, str]):
    """A mapping of header names, in any case, to values, where a name may have several.

    `headers[name] = value` adds a value; `del headers[name]` removes them all. `headers[name]` is the value if there
    is one, and raises KeyError if there is none, MultipleValuesError if there are several. `get_all` and `raw_items`
    know all values, in the order they have on the wire. Iteration gives each name once, in lower case.
    """

    __slots__ = ("_flat",)

    def __init__(self, *args: HeadersLike, **kwargs: str) -> None:
        self._flat: list[str] = []
        if args or kwargs:
            self.update(*args, **kwargs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.raw_items())!r})"

    def __str__(self) -> str:
        return "".join(f"{name}: {value}\r\n" for name, value in self.raw_items()) + "\r\n"

    def serialize(self) -> bytes:
        """The header lines, and the empty line that ends them."""
        return str(self).encode("latin-1")

    def copy(self) -> Headers:
        copy = Headers()
        copy._flat = self._flat.copy()
        return copy

    # One value of each name.

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        if len(values) > 1:
            raise MultipleValuesError(name)
        return values[0]

    def __setitem__(self, name: str, value: str) -> None:
        if not is_token(name):
            raise ValueError(f"a header name is a token (RFC 9110, section 5.1): {name!r}")
        if not _is_text(value):
            raise ValueError(f"a {name} header has no control characters, and ISO 8859-1 only (RFC 9110, section 5.5)")
        self.append_checked(name, value)

    def __delitem__(self, name: str) -> None:
        key = name.lower()
        left = [item for pair in self.raw_items() if pair[0].lower() != key for item in pair]
        if len(left) == len(self._flat):
            raise KeyError(name)
        self._flat = left

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name())

    def __len__(self) -> int:
        return len(self.by_name())

    def __eq__(self, other: object) -> bool:
        return self.by_name() == other.by_name() if isinstance(other, Headers) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def clear(self) -> None:
        self._flat.clear()

    def update(self, *args: HeadersLike, **kwargs: str) -> None:  # type: ignore[override]
        """Add all of another mapping, or of pairs, and of keywords."""
        super().update(*(arg.raw_items() if isinstance(arg, Headers) else arg for arg in args), **kwargs)

    # All values of each name.

    def get_all(self, name: str) -> list[str]:
        """All values of one name; an empty list if there are none."""
        key = name.lower()
        flat = self._flat
        return [flat[i + 1] for i in range(0, len(flat), 2) if flat[i].lower() == key]

    def raw_items(self) -> Iterator[tuple[str, str]]:
        """The fields as they stand on the wire."""
        items = iter(self._flat)
        return zip(items, items, strict=True)

    def by_name(self) -> dict[str, list[str]]:
        """All values of all names, the names in lower case."""
        found: dict[str, list[str]] = {}
        for name, value in self.raw_items():
            found.setdefault(name.lower(), []).append(value)
        return found

    def append_checked(self, name: str, value: str) -> None:
        """Add a field that is known to be a token and text. Spaces around it are no part of a value: section 5.5."""
        self._flat += (name, value.strip(" \t"))

    def extend_checked(self, headers: Headers) -> None:
        """Add all of another mapping, whose fields were checked when they came into it."""
        self._flat += headers._flat


HeadersLike: TypeAlias = Headers | Mapping[str, str] | Iterable[tuple[str, str]]


def split_list(values: Iterable[str]) -> list[str]:
    """Split the values of a header that is a list, however many lines it takes. RFC 9110, sections 5.3 and 5.6.1."""
    return [element for value in values for part in value.split(",") if (element := part.strip(" \t"))]


@lru_cache(maxsize=1)
def format_date(seconds: int) -> str:
    """The value of a Date header, by seconds since 1970. RFC 9110, section 5.6.7. Many ask within the same second."""
    return formatdate(seconds, usegmt=True)


@dataclass(slots=True)
class Request:
    """The head of a request. Ours has no body, and neither has a WebSocket client's."""

    path: str
    headers: Headers = field(default_factory=Headers)
    method: str = "GET"

    def serialize(self) -> bytes:
        """RFC 9112, section 3. ValueError if the line would not be one."""
        if not is_token(self.method):
            raise ValueError(f"a method is a token (RFC 9110, section 9.1): {self.method!r}")
        if not _is_target(self.path):
            raise ValueError(f"a path is visible ASCII without spaces (RFC 9112, section 3.2): {self.path!r}")
        return f"{self.method} {self.path} HTTP/1.1\r\n".encode() + self.headers.serialize()


@dataclass(slots=True)
class Response:
    """A response and its body."""

    status_code: int
    reason_phrase: str
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""

    def serialize(self) -> bytes:
        """RFC 9112, section 4. ValueError if the line would not be one."""
        if not 100 <= self.status_code <= 999:
            raise ValueError(f"a status code has three digits (RFC 9110, section 15): {self.status_code}")
        if not _is_text(self.reason_phrase):
            raise ValueError(f"a reason has no control characters (RFC 9112, section 4): {self.reason_phrase!r}")
        line = f"HTTP/1.1 {self.status_code:d} {self.reason_phrase}\r\n"
        return line.encode("latin-1") + self.headers.serialize() + self.body
