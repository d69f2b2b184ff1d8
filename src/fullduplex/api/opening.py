"""What a server's connection needs until it is open, and no longer."""

from __future__ import annotations

import asyncio
import http
import time
from email.utils import formatdate
from functools import lru_cache

from ..wire.extensions import Extension
from ..wire.headers import Request, Response, split_list
from ..wire.http1 import HeadReader


class Opening:
    """An opening handshake that is under way."""

    __slots__ = ("agreed", "head", "reader", "rest", "task")

    def __init__(self) -> None:
        self.reader: HeadReader[Request] | None = HeadReader(Request)
        self.head = b""  # the request as it came, if it came in one piece
        self.rest = b""  # what came behind it
        self.agreed: tuple[str, Extension | None] = ("", None)  # what is said of extensions, and what is meant
        self.task: asyncio.Task[None] | None = None  # a hook's

    def find_extension(self, response: Response) -> Extension | None:
        """The extension that was agreed on; a hook may have taken it out of the response, but not changed it."""
        said = ", ".join(response.headers.get_all("Sec-WebSocket-Extensions"))
        answer, extension = self.agreed
        if said not in ("", answer):
            raise ValueError(f"Sec-WebSocket-Extensions says what was not agreed on: {said}")
        return extension if said else None


def complete(response: Response, switches: bool, is_head: bool) -> Response:
    """Add what HTTP needs, where a hook has left it out. `is_head`: the request's method is HEAD."""
    headers = response.headers
    if not switches:
        if "close" not in split_list(headers.get_all("Connection")):
            headers["Connection"] = "close"
        if "Content-Length" not in headers and response.status_code != http.HTTPStatus.NO_CONTENT:
            headers["Content-Length"] = str(len(response.body))
    if "Date" not in headers:
        headers["Date"] = date()
    if is_head:
        response.body = b""  # RFC 9110, section 9.3.2
    return response


def date() -> str:
    """The value of a Date header, now. RFC 9110, section 5.6.7."""
    return _date_at(int(time.time()))


@lru_cache(maxsize=1)  # many ask within the same second
def _date_at(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
