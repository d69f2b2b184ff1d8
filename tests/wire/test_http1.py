from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullduplex.wire import http1
from fullduplex.wire.errors import InvalidHandshake, InvalidMessage, InvalidProtocol, SecurityError
from fullduplex.wire.headers import TEXT, TOKEN, Headers, Request, Response
from fullduplex.wire.http1 import HeadReader, ResponseReader
from fullduplex.wire.limits import MAX_BODY, MAX_HEAD, MAX_HEADERS, MAX_INTERIM, MAX_LINE

REQUEST = b"GET / HTTP/1.1\r\n"


def read_request(data: bytes) -> Request | None:
    return HeadReader(Request).feed(data)


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """Cut data at these places."""
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return (data[start:end] for start, end in pairwise(bounds))


def verdict(reader: HeadReader[Any] | ResponseReader, parts: Iterator[bytes]) -> Any:
    """What a reader makes of it: its result and how many bytes it took in all, or its error."""
    taken = 0
    try:
        for part in parts:
            result = reader.feed(part)
            taken += reader.taken
            if result is not None:
                return result, taken
            assert reader.taken == len(part)
    except InvalidHandshake as exc:
        return type(exc), str(exc), exc.status
    return "more", taken


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    return (data[i : i + 1] for i in range(len(data)))


class TestHead:
    def test_request(self) -> None:
        data = REQUEST + b"Host: h\r\nA:1\r\nB: \t 2 3 \t\r\nC:\r\n\r\n"
        reader = HeadReader(Request)
        request = reader.feed(data + b"\x81\x80")
        assert request == Request("/", Headers([("Host", "h"), ("A", "1"), ("B", "2 3"), ("C", "")]))
        assert reader.taken == len(data)

    def test_response(self) -> None:
        response = HeadReader(Response).feed(b"HTTP/1.1 404 Not \xe9\r\nA: 1\r\n\r\n")
        assert response == Response(404, "Not \xe9", Headers(A="1"))

    def test_no_headers(self) -> None:
        assert read_request(REQUEST + b"\r\n") == Request("/")
        assert HeadReader(Response).feed(b"HTTP/1.1 200 \r\n\r\n") == Response(200, "")

    def test_in_parts(self) -> None:
        reader = HeadReader(Request)
        for part in (b"GET / HT", b"TP/1.1\r\nHost: h", b"\r", b"\n\r"):
            assert reader.feed(part) is None
            assert reader.taken == len(part)
        assert reader.feed(b"\nrest") == Request("/", Headers(Host="h"))
        assert reader.taken == 1

    def test_an_empty_line_before_a_request(self) -> None:
        assert read_request(b"\r\n" + REQUEST + b"\r\n") == Request("/")
        with pytest.raises(InvalidMessage):
            read_request(b"\r\n\r\n" + REQUEST + b"\r\n")
        with pytest.raises(InvalidMessage):
            HeadReader(Response).feed(b"\r\nHTTP/1.1 200 OK\r\n\r\n")

    def test_known_names_are_shared(self) -> None:
        one, two = (read_request(REQUEST + b"Sec-WebSocket-Key: a\r\n\r\n") for _ in range(2))
        assert one is not None
        assert two is not None
        assert next(one.headers.raw_items())[0] is next(two.headers.raw_items())[0]

    @pytest.mark.parametrize(
        "line",
        [
            b"",
            b"GET",
            b"GET /",
            b"GET  / HTTP/1.1",
            b"GET /  HTTP/1.1",
            b" GET / HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b"GET\t/\tHTTP/1.1",
            b"G@T / HTTP/1.1",
            b"GET /\xc3\xa9 HTTP/1.1",
            b"GET / http/1.1",
            b"GET / HTTP/11",
            b"GET / HTTP/1.10",
            b"GET / HTTP/1.\xb2",
            b"GET / a b HTTP/1.1",
        ],
    )
    def test_invalid_request_line(self, line: bytes) -> None:
        with pytest.raises(InvalidMessage, match="invalid request line") as caught:
            HeadReader(Request).feed(b"\r\n" + line + b"\r\n")
        assert caught.value.status == 400

    @pytest.mark.parametrize(
        "line",
        [
            b"HTTP/1.1",
            b"HTTP/1.1 200",
            b"HTTP/1.1  200 OK",
            b"HTTP/1.1 20 OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 099 OK",
            b"HTTP/1.1 +20 OK",
            b"HTTP/1.1 2\xb20 OK",
            b"ICY 200 OK",
            b"GET / HTTP/1.1",
        ],
    )
    def test_invalid_status_line(self, line: bytes) -> None:
        with pytest.raises(InvalidMessage, match="invalid status line"):
            HeadReader(Response).feed(line + b"\r\n")

    @pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/0.9"])
    def test_only_http11(self, version: bytes) -> None:
        with pytest.raises(InvalidProtocol) as caught:
            read_request(b"GET / " + version + b"\r\n")
        assert caught.value.status == 505
        with pytest.raises(InvalidProtocol):
            HeadReader(Response).feed(version + b" 200 OK\r\n")

    @pytest.mark.parametrize("line", [b"A", b"A : 1", b"A\t: 1", b": 1", b"A@: 1", b"caf\xe9: 1", b"A B: 1"])
    def test_invalid_header_line(self, line: bytes) -> None:
        with pytest.raises(InvalidMessage, match="invalid header line") as caught:
            read_request(REQUEST + line + b"\r\n")
        assert caught.value.status == 400

    @pytest.mark.parametrize("line", [b" A: 1", b"\tA: 1", b" "])
    def test_folded_lines(self, line: bytes) -> None:
        for before in (b"", b"B: 2\r\n"):
            with pytest.raises(InvalidMessage, match="folded"):
                read_request(REQUEST + before + line + b"\r\n")

    @pytest.mark.parametrize(
        ("end", "what"),
        [
            (b"\n", "bare LF"),
            (b"\ra", "bare CR"),
            (b"\r\r", "bare CR"),
            (b"\0", "control character 0x00"),
            (b"\x1b", "control character 0x1b"),
            (b"\x7f", "control character 0x7f"),
        ],
    )
    def test_control_characters_fail_at_once(self, end: bytes, what: str) -> None:
        for before, where in [(b"GET ", "request line"), (b"GET / HTTP/1.1\r\nA", "header line")]:
            reader = HeadReader(Request)
            assert reader.feed(before + end[:-1]) is None
            with pytest.raises(InvalidMessage, match=f"{what} in a {where}"):
                reader.feed(end[-1:])
        with pytest.raises(InvalidMessage, match="status line"):
            HeadReader(Response).feed(b"HTTP" + end)

    def test_every_byte_in_a_value(self) -> None:
        """A byte is refused or carried."""
        for byte in range(256):
            data = REQUEST + b"A: x" + bytes([byte]) + b"x\r\n\r\n"
            if (byte < 0x20 and byte != 0x09) or byte == 0x7F:
                with pytest.raises(InvalidMessage):
                    read_request(data)
            else:
                request = read_request(data)
                assert request is not None
                assert request.headers["A"].encode("latin-1") == b"x" + bytes([byte]) + b"x"

    def test_eof(self) -> None:
        reader = HeadReader(Request)
        reader.feed(REQUEST + b"Host")
        with pytest.raises(InvalidMessage, match="20 bytes of a request") as caught:
            reader.eof()
        assert isinstance(caught.value.__cause__, EOFError)

    def test_errors_hold_little_of_the_peer(self) -> None:
        for data in (b"\x80" * 8000 + b"\r\n", REQUEST + b"\xff" * 8000 + b"\r\n"):
            with pytest.raises(InvalidMessage) as caught:
                read_request(data)
            assert str(caught.value).isascii()
            assert str(caught.value).count("\\x") == 100


class TestLimits:
    """The largest is taken; one byte more fails, without waiting for the line to end."""

    def refused(self, reader: HeadReader[Any], byte: bytes = b"a") -> SecurityError:
        with pytest.raises(SecurityError) as caught:
            reader.feed(byte)
        return caught.value

    def test_request_line(self) -> None:
        line = b"GET /" + b"a" * (MAX_LINE - 14) + b" HTTP/1.1"
        assert len(line) == MAX_LINE
        assert read_request(line + b"\r\n\r\n") is not None
        reader = HeadReader(Request)
        assert reader.feed(line) is None
        assert self.refused(reader).status == 414
        with pytest.raises(SecurityError, match="request line over 8192 bytes"):
            read_request(line + b"a\r\n\r\n")

    def test_status_line(self) -> None:
        reader = HeadReader(Response)
        assert reader.feed(b"HTTP/1.1 200 ".ljust(MAX_LINE)) is None
        assert "status line" in str(self.refused(reader))

    def test_header_line(self) -> None:
        line = b"A:".ljust(MAX_LINE, b"a")
        assert read_request(REQUEST + line + b"\r\n\r\n") is not None
        reader = HeadReader(Request)
        assert reader.feed(REQUEST + line) is None
        assert self.refused(reader).status == 431
        with pytest.raises(SecurityError, match="header line over 8192 bytes"):
            read_request(REQUEST + line + b"a\r\n\r\n")

    def test_count(self) -> None:
        most = REQUEST + b"A: 1\r\n" * MAX_HEADERS
        request = read_request(most + b"\r\n")
        assert request is not None
        assert len(request.headers.get_all("A")) == MAX_HEADERS
        reader = HeadReader(Request)
        assert reader.feed(most) is None
        exc = self.refused(reader)
        assert exc.status == 431
        assert "128 headers" in str(exc)
        with pytest.raises(SecurityError, match="128 headers"):
            read_request(most + b"A: 1\r\n\r\n")

    def test_total(self) -> None:
        lines = b"A:".ljust(MAX_LINE - 2, b"a") + b"\r\n"
        most = REQUEST + lines * 7
        most += b"A:".ljust(MAX_HEAD - len(most), b"a")
        assert len(most) == MAX_HEAD
        assert read_request(most + b"\r\n\r\n") is not None
        reader = HeadReader(Request)
        assert reader.feed(most) is None
        exc = self.refused(reader)
        assert exc.status == 431
        assert "65536" in str(exc)
        reader = HeadReader(Request)
        assert reader.feed(most + b"\r\n") is None
        assert "65536" in str(self.refused(reader))

    @pytest.mark.parametrize("piece", [1, 7, 4096, 1 << 20])
    def test_linear_time(self, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Count what is searched: each byte of the largest head takes part three times at most, whatever the cut."""
        looked_at = 0

        def counted(pattern: str) -> Any:
            compiled = re.compile(pattern)

            def search(line: str, start: int = 0, end: int = 1 << 30) -> Any:
                nonlocal looked_at
                looked_at += min(len(line), end) - start
                return compiled.search(line, start, end)

            return search

        monkeypatch.setattr(http1, "_find_control", counted(r"[^\t\x20-\x7e\x80-\xff]"))
        monkeypatch.setattr(http1, "_field_line", counted(f"^({TOKEN}):({TEXT})$"))
        data = REQUEST + (b"A:" + b"a" * 8000 + b"\r\n") * 8 + b"\r\n"
        reader = HeadReader(Request)
        for start in range(0, len(data), piece):
            head = reader.feed(data[start : start + piece])
        assert head is not None
        assert len(data) * 0.9 < looked_at < 3 * len(data)

    def test_what_is_held_is_one_line(self) -> None:
        reader = HeadReader(Request)
        reader.feed(REQUEST + b"A: 1\r\n" * 100 + b"B")
        assert reader._partial == b"B"


# Heads that are nearly right, for limits that are soon reached.
FRAGMENTS = st.sampled_from(
    b"GET / HTTP/1.1\r\n|HTTP/1.1 200 OK\r\n|GET / HTTP/1.0\r\n|A: 1\r\n|B:2\r\n|Host: h\r\n|A : 1\r\n|\r\n|\r\n\r\n"
    b"|\r\r\n|\r|\n| |\0|\xff|:|aaaaaaaaa".split(b"|")
)
MESSAGES = st.lists(FRAGMENTS | st.binary(max_size=3), max_size=12).map(b"".join)
HEADS = st.builds(bytes.__add__, st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n"]), MESSAGES)
BODIES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 400 \r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 100 \r\n\r\n",
        b"HTTP/1.1 101 \r\n\r\n",
        b"HTTP/1.1 204 \r\n\r\n",
    ]
)
CHUNKS = st.sampled_from(
    [b"1\r\na\r\n", b"A;b=c\r\n0123456789\r\n", b"0\r\n\r\n", b"\r\n", b"\n", b"2\r\n", b"abc", b"g"]
)
RESPONSES = st.lists(BODIES, max_size=3).flatmap(lambda a: st.lists(CHUNKS).map(lambda b: b"".join(a + b)))
CUTS = st.lists(st.integers(0, 200), max_size=10)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MAX_LINE": 20, "MAX_HEADERS": 3, "MAX_HEAD": 60, "MAX_BODY": 12, "MAX_INTERIM": 2}.items():
        monkeypatch.setattr(http1, name, value)


@pytest.mark.usefixtures("small")
class TestProperties:
    @given(HEADS, CUTS, st.sampled_from([Request, Response]))
    def test_no_cut_changes_the_verdict(self, data: bytes, cuts: list[int], kind: type[Any]) -> None:
        """... and no input raises anything else than the errors that are documented."""
        whole = verdict(HeadReader(kind), iter([data]))
        assert verdict(HeadReader(kind), pieces(data, cuts)) == whole
        assert verdict(HeadReader(kind), byte_by_byte(data)) == whole

    @given(RESPONSES | HEADS, CUTS)
    def test_no_cut_changes_a_response(self, data: bytes, cuts: list[int]) -> None:
        whole = verdict(ResponseReader(), iter([data]))
        assert verdict(ResponseReader(), pieces(data, cuts)) == whole
        assert verdict(ResponseReader(), byte_by_byte(data)) == whole


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    for reader in (HeadReader(Request), HeadReader(Response), ResponseReader()):
        verdict(reader, iter([data]))


class TestResponse:
    def test_101_ends_with_its_head(self) -> None:
        head = b"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 9\r\nUpgrade: websocket\r\n\r\n"
        reader = ResponseReader()
        response = reader.feed(head + b"\x81\x00")
        assert response is not None
        assert response.status_code == 101
        assert response.body == b""
        assert reader.taken == len(head)

    def test_interim_responses(self) -> None:
        reader = ResponseReader()
        assert reader.feed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHT") is None
        response = reader.feed(b"TP/1.1 101 \r\n\r\nframes")
        assert response == Response(101, "")
        assert reader.taken == len(b"TP/1.1 101 \r\n\r\n")

    def test_interim_responses_end(self) -> None:
        interim = b"HTTP/1.1 100 \r\n\r\n"
        assert ResponseReader().feed(interim * MAX_INTERIM + b"HTTP/1.1 101 \r\n\r\n") is not None
        with pytest.raises(SecurityError, match="interim"):
            ResponseReader().feed(interim * (MAX_INTERIM + 1))

    @pytest.mark.parametrize("status", [b"204", b"304"])
    def test_no_body(self, status: bytes) -> None:
        response = ResponseReader().feed(b"HTTP/1.1 " + status + b" \r\nContent-Length: 5\r\n\r\n")
        assert response is not None
        assert response.body == b""

    def test_content_length(self) -> None:
        reader = ResponseReader()
        assert reader.feed(b"HTTP/1.1 400 \r\nContent-Length: 4\r\n\r\nab") is None
        response = reader.feed(b"cdef")
        assert response is not None
        assert response.body == b"abcd"
        assert reader.taken == 2

    def test_content_length_0(self) -> None:
        response = ResponseReader().feed(b"HTTP/1.1 302 \r\nContent-Length: 0\r\nLocation: /\r\n\r\n")
        assert response is not None
        assert response.body == b""

    @pytest.mark.parametrize(
        "length", [b"", b"-1", b"+1", b"1, 1", b"0x1", b"1_0", b"\xb2", b"9" * 19, b"1\r\nContent-Length: 1"]
    )
    def test_invalid_content_length(self, length: bytes) -> None:
        with pytest.raises(InvalidMessage, match="Content-Length"):
            ResponseReader().feed(b"HTTP/1.1 400 \r\nContent-Length: " + length + b"\r\n\r\n")

    def test_until_the_end(self) -> None:
        reader = ResponseReader()
        assert reader.feed(b"HTTP/1.1 400 \r\n\r\nab") is None
        assert reader.feed(b"") is None
        assert reader.feed(b"cd") is None
        assert reader.eof().body == b"abcd"

    def test_an_early_end(self) -> None:
        """What came of a body is better than nothing."""
        for header in (b"Content-Length: 9", b"Transfer-Encoding: chunked"):
            reader = ResponseReader()
            assert reader.feed(b"HTTP/1.1 400 \r\n" + header + b"\r\n\r\n3\r\nabc") is None
            assert reader.eof().body.endswith(b"abc")

    @pytest.mark.parametrize("data", [b"", b"HTTP/1.1 400 \r\n", b"HTTP/1.1 100 \r\n\r\n"])
    def test_no_head(self, data: bytes) -> None:
        reader = ResponseReader()
        assert reader.feed(data) is None
        with pytest.raises(InvalidMessage) as caught:
            reader.eof()
        assert isinstance(caught.value.__cause__, EOFError)

    def test_chunks(self) -> None:
        head = b"HTTP/1.1 400 \r\nTransfer-Encoding: Chunked\r\n\r\n"
        data = head + b"3\r\nabc\r\n00a ;name=value\r\n0123456789\r\n0\r\n"
        reader = ResponseReader()
        response = reader.feed(data + b"Trailer: 1\r\n\r\n")
        assert response is not None
        assert response.body == b"abc0123456789"
        reader = ResponseReader()
        *_, response = [reader.feed(part) for part in byte_by_byte(data)]
        assert response is not None
        assert response.body == b"abc0123456789"

    @pytest.mark.parametrize(
        ("chunks", "rule"),
        [
            (b"\r\n", "chunk size"),
            (b"3\n", "chunk size"),
            (b"-3\r\n", "chunk size"),
            (b"0x3\r\n", "chunk size"),
            (b"g\r\n", "chunk size"),
            (b" 3\r\n", "chunk size"),
            (b"3 a\r\n", "chunk size"),
            (b"3;\0\r\n", "chunk size"),
            (b"3;\r\r\n", "chunk size"),
            (b"\xb3\r\n", "chunk size"),
            (b"1" * 16 + b"\r\n", "chunk size"),
            (b"3\r\nabcd\r\n", "longer"),
            (b"3\r\nabc\n", "longer"),
            (b"3;".ljust(MAX_LINE + 1), "over"),
        ],
    )
    def test_invalid_chunks(self, chunks: bytes, rule: str) -> None:
        with pytest.raises(InvalidMessage, match=rule):
            ResponseReader().feed(b"HTTP/1.1 400 \r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)

    @pytest.mark.parametrize("coding", [b"gzip", b"gzip, chunked", b"chunked, chunked", b"", b"identity", b"xchunked"])
    def test_unsupported_coding(self, coding: bytes) -> None:
        with pytest.raises(InvalidMessage, match="Transfer-Encoding"):
            ResponseReader().feed(b"HTTP/1.1 400 \r\nTransfer-Encoding: " + coding + b"\r\n\r\n")

    def test_two_lengths(self) -> None:
        with pytest.raises(InvalidMessage, match="both"):
            ResponseReader().feed(b"HTTP/1.1 400 \r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n")

    @pytest.mark.parametrize(
        ("header", "data"),
        [
            (b"A: b", b"a" * (MAX_BODY + 1)),
            (b"Content-Length: 999999999999999999", b"a" * (MAX_BODY + 1)),
            (b"Transfer-Encoding: chunked", b"8000\r\n" + (b"a" * 0x8000 + b"\r\n8000\r\n") * 33),
            (b"Transfer-Encoding: chunked", b"fffffffffffffff\r\n" + b"a" * (MAX_BODY + 1)),
        ],
    )
    def test_a_large_body_is_cut(self, header: bytes, data: bytes) -> None:
        reader = ResponseReader()
        response = reader.feed(b"HTTP/1.1 400 \r\n" + header + b"\r\n\r\n" + data)
        assert response is not None
        assert response.body == b"a" * MAX_BODY
