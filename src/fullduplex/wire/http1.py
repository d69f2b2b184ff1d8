"""Reading HTTP/1.1: the head of a request or of a response, and the body of a response that refuses us. RFC 9112.

The law here: a verdict depends on the bytes alone, never on how they were cut. Bytes are judged in their order, and
the first one that no valid message could have at its place decides: a line that is too long fails without its end,
a bare LF fails at once. Each byte is looked at a fixed number of times, and what is held is one unfinished line and
the fields before it, bounded by `limits`.

Strict where others have been tricked: lines end with CRLF only, lines are not folded, nothing stands between a name
and its colon, no byte is a control character, digits are ASCII. Two parsers that disagree on where a message ends
are how requests are smuggled (RFC 9112, section 11.2).
"""

from __future__ import annotations

import re
from typing import Any, Generic, NoReturn, TypeVar, cast

from .errors import InvalidMessage, InvalidProtocol, SecurityError, excerpt
from .headers import TEXT, TOKEN, Headers, Request, Response, split_list
from .limits import MAX_BODY, MAX_HEAD, MAX_HEADERS, MAX_INTERIM, MAX_LINE

Head = TypeVar("Head", bound=Request | Response)

# RFC 9112, section 3: request-line. Section 4: status-line. Section 5: field-line.
# Repetitions are possessive (++): a match takes linear time whatever the peer sends.
_request_line = re.compile(rf"({TOKEN}) ([\x21-\x7e]++) (HTTP/[0-9]\.[0-9])").fullmatch
_status_line = re.compile(rf"(HTTP/[0-9]\.[0-9]) ([1-9][0-9][0-9]) ({TEXT})").fullmatch
_field_line = re.compile(rf"({TOKEN}):({TEXT})").fullmatch
_find_control = re.compile(r"[^\t\x20-\x7e\x80-\xff]").search
_is_length = re.compile(r"[0-9]{1,18}").fullmatch
# The same in one, for a head that came whole.
_fields = rf"((?:{TOKEN}:{TEXT}\r\n)*+)\r\n"
_request_head = re.compile(rf"({TOKEN}) ([\x21-\x7e]++) HTTP/1\.1\r\n{_fields}").fullmatch
_response_head = re.compile(rf"HTTP/1\.1 ([1-9][0-9][0-9]) ({TEXT})\r\n{_fields}").fullmatch
_find_fields = re.compile(rf"({TOKEN}):({TEXT})\r\n").findall
_chunk_line = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*+(?:;[\t\x20-\x7e\x80-\xff]*+)?\r\n").fullmatch  # section 7.1.1

# Names that nearly every handshake has: one string for all connections instead of one for each.
_SHARED = {
    name: name
    for name in (
        "Host Connection Upgrade User-Agent Origin Cookie Authorization Accept Accept-Encoding Accept-Language "
        "Cache-Control Pragma Sec-WebSocket-Version Sec-WebSocket-Key Sec-WebSocket-Extensions "
        "Sec-WebSocket-Protocol Sec-WebSocket-Accept Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Server Date "
        "X-Forwarded-For X-Forwarded-Host X-Forwarded-Port X-Forwarded-Proto X-Real-IP"
    ).split()
}


class HeadReader(Generic[Head]):
    """Reads one head from bytes that are cut anywhere: `HeadReader(Request)` or `HeadReader(Response)`.

    After `feed` has given the head, data[reader.taken:] of that last feed is what follows it.
    """

    __slots__ = ("_checked", "_head", "_kind", "_lines", "_partial", "_size", "taken")

    def __init__(self, kind: type[Head]) -> None:
        self.taken = 0
        self._kind = kind
        self._head: Head | None = None  # from the first line on
        self._size = 0  # of the lines that are complete
        self._lines = 0
        self._partial = bytearray()  # the line that is not
        self._checked = 0  # of the partial line

    def feed(self, data: bytes | bytearray) -> Head | None:
        """Take the next bytes and give the head, once it is complete.

        InvalidProtocol (505), SecurityError (414, 431) or InvalidMessage (400) say why it can't become one; the
        reader is of no use then.
        """
        if not self._size and not self._partial:
            head = self._read_whole(data)
            if head is not None:
                return head
        if b"\n" not in data:
            self._partial += data
            self._check_partial()
            self.taken = len(data)
            return None
        held = len(self._partial)
        text = (self._partial + data).decode("latin-1")
        start = 0
        while (end := text.find("\r\n", start)) >= 0:
            line = text[start:end]
            start = end + 2
            if self._head is None:
                self._read_first(line)
            elif line:
                self._read_field(line, self._head.headers)
            else:
                self.taken = start - held
                return self._head
            self._size += len(line) + 2
        self._partial = bytearray(text[start:], "latin-1")
        self._checked = 0
        self._check_partial()
        self.taken = len(data)
        return None

    def _read_whole(self, data: bytes | bytearray) -> Head | None:
        """The usual case, quickly: a head that came at once and is right. None for any other, which is read by lines."""
        end = data.find(b"\r\n\r\n", 0, MAX_LINE) + 4  # within the limit of one line, so no limit of size is broken
        if end < 4:
            return None
        text = data[:end].decode("latin-1")
        match = _request_head(text) if self._kind is Request else _response_head(text)
        if match is None:
            return None
        first, second, lines = match.groups()
        fields = _find_fields(lines)
        if len(fields) > MAX_HEADERS:
            return None
        headers = Headers()
        for name, value in fields:
            headers.append_checked(_SHARED.get(name, name), value)
        self.taken = end
        head: Any = Request(second, headers, first) if self._kind is Request else Response(int(first), second, headers)
        return cast(Head, head)

    def eof(self) -> NoReturn:
        """The peer ended the connection before its head was complete."""
        what = f"{self._size + len(self._partial)} bytes of a {self._kind.__name__.lower()}"
        raise InvalidMessage(f"connection ended after {what}") from EOFError("unexpected end of the connection")

    def _read_first(self, line: str) -> None:
        if not line and self._kind is Request and not self._size:
            return  # RFC 9112, section 2.2: a server ignores an empty line before a request. One is enough.
        self._check(line)
        head = _parse_request_line(line) if self._kind is Request else _parse_status_line(line)
        if not isinstance(head, self._kind):
            raise InvalidMessage(f"invalid {self._first_line()}: {excerpt(line)}")
        self._head = head

    def _read_field(self, line: str, headers: Headers) -> None:
        match = _field_line(line)
        if match is None or len(line) > self._room():
            self._check(line)
            if line[0] in " \t":
                raise InvalidMessage(f"folded header line: {excerpt(line)}")  # RFC 9112, section 5.2
            raise InvalidMessage(f"invalid header line: {excerpt(line)}")  # section 5.1, for the space before the colon
        name, value = match.groups()
        headers.append_checked(_SHARED.get(name, name), value)
        self._lines += 1

    def _check_partial(self) -> None:
        fresh = self._partial[self._checked :].decode("latin-1").removesuffix("\r")  # whose LF may come
        self._check(fresh, self._checked)
        self._checked += len(fresh)

    def _check(self, line: str, offset: int = 0) -> None:
        """Raise for what is wrong with a line, from `offset` on, whatever comes next."""
        room = self._room()
        if control := _find_control(line, 0, room - offset):
            what = {"\n": "bare LF", "\r": "bare CR"}.get(control[0], f"control character {ord(control[0]):#04x}")
            raise InvalidMessage(f"{what} in a {self._first_line() if self._head is None else 'header line'}")
        if offset + len(line) > room:
            if self._head is None:
                raise SecurityError(f"{self._first_line()} over {MAX_LINE} bytes", status=414)
            if self._lines == MAX_HEADERS:
                raise SecurityError(f"more than {MAX_HEADERS} headers", status=431)
            if room < MAX_LINE:
                raise SecurityError(f"head over {MAX_HEAD} bytes", status=431)
            raise SecurityError(f"header line over {MAX_LINE} bytes", status=431)

    def _room(self) -> int:
        """How long the line that is being read may become."""
        return min(MAX_LINE, max(MAX_HEAD - self._size, 0)) if self._lines < MAX_HEADERS else 0

    def _first_line(self) -> str:
        return "request line" if self._kind is Request else "status line"


def _parse_request_line(line: str) -> Request | None:
    match = _request_line(line)
    if match is None:
        return None
    method, path, version = match.groups()
    if version != "HTTP/1.1":
        raise InvalidProtocol(version)
    return Request(path, Headers(), method)


def _parse_status_line(line: str) -> Response | None:
    match = _status_line(line)
    if match is None:
        return None
    version, status, reason = match.groups()
    if version != "HTTP/1.1":
        raise InvalidProtocol(version)
    return Response(int(status), reason, Headers())


class ResponseReader:
    """Reads the answer to a handshake: past interim responses, and with the body of one that refuses.

    After a 101, data[reader.taken:] of the last feed are WebSocket frames.
    """

    def __init__(self) -> None:
        self.taken = 0
        self._head = HeadReader(Response)
        self._interim = 0
        # The body.
        self._response: Response | None = None  # from its head on
        self._body = bytearray()
        self._left: int | None = 0  # bytes until the end of the body, or of a chunk; None: the connection's end
        self._chunked = False
        self._in_chunk = False  # until the line end behind its data
        self._line = bytearray()  # between chunks

    def feed(self, data: bytes | bytearray) -> Response | None:
        """Take the next bytes and give the response, once it is complete. Errors are those of `HeadReader.feed`."""
        self.taken = 0
        while self._response is None:
            head = self._head.feed(data[self.taken :])
            self.taken += self._head.taken
            if head is None:
                return None
            self._begin(head)
        complete = self._read_chunks(data) if self._chunked else self._read_body(data)
        return self._end() if complete else None

    def eof(self) -> Response:
        """The peer ended the connection: give what came of the body. InvalidMessage if the head is incomplete."""
        if self._response is None:
            self._head.eof()
        return self._end()

    def _begin(self, head: Response) -> None:
        # RFC 9110, section 15.2: a client passes over interim responses, even unexpected ones.
        if head.status_code < 200 and head.status_code != 101:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise SecurityError(f"more than {MAX_INTERIM} interim responses")
            self._head = HeadReader(Response)
            return
        self._left = self._body_length(head)
        self._response = head

    def _body_length(self, head: Response) -> int | None:
        """RFC 9112, section 6.3, by the numbers there."""
        if head.status_code in {101, 204, 304}:  # 1.
            return 0
        codings = head.headers.get_all("Transfer-Encoding")
        lengths = head.headers.get_all("Content-Length")
        if codings:  # 3. and 4.
            if lengths:
                raise InvalidMessage("both Transfer-Encoding and Content-Length")
            if [coding.lower() for coding in split_list(codings)] != ["chunked"]:
                raise InvalidMessage(f"unsupported Transfer-Encoding: {excerpt(', '.join(codings))}")
            self._chunked = True
            return 0
        if lengths:  # 5. and 6.
            if len(lengths) > 1 or not _is_length(lengths[0]):
                raise InvalidMessage(f"invalid Content-Length: {excerpt(', '.join(lengths))}")
            return int(lengths[0])
        return None  # 8.

    def _read_body(self, data: bytes | bytearray) -> bool:
        """Take what there is until `_left` is 0. A body that is too large ends early: who reads so long an excuse?"""
        room = MAX_BODY - len(self._body)
        part = data[self.taken : self.taken + (room if self._left is None else min(room, self._left))]
        self._body += part
        self.taken += len(part)
        if self._left is not None:
            self._left -= len(part)
        return self._left == 0 or len(self._body) == MAX_BODY

    def _read_chunks(self, data: bytes | bytearray) -> bool:
        """RFC 9112, section 7.1."""
        while self.taken < len(data):
            if self._left:
                self._read_body(data)
                if len(self._body) == MAX_BODY:
                    return True
                continue
            end = data.find(b"\n", self.taken) + 1
            part = data[self.taken : end or len(data)]
            self._line += part
            self.taken += len(part)
            if len(self._line) > MAX_LINE:
                raise SecurityError(f"chunk line over {MAX_LINE} bytes")
            if not end:
                return False
            line, self._line = self._line, bytearray()
            if self._in_chunk:
                if line != b"\r\n":
                    raise InvalidMessage("chunk longer than its size")
                self._in_chunk = False
            elif match := _chunk_line(line):
                self._left = int(match[1], 16)
                self._in_chunk = True
                if not self._left:
                    return True  # section 7.1.2: trailers may be dropped, and nothing else is read from here
            else:
                raise InvalidMessage(f"invalid chunk size: {excerpt(line.decode('latin-1'))}")
        return False

    def _end(self) -> Response:
        assert self._response is not None
        self._response.body = bytes(self._body)
        return self._response
