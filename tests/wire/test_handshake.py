from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullduplex._version import __version__
from fullduplex.wire.errors import (
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
)
from fullduplex.wire.extensions import Extension, ExtensionFactory, Parameters, Stack
from fullduplex.wire.handshake import (
    SAME_ORIGIN,
    USER_AGENT,
    ClientHandshake,
    Origins,
    ServerHandshake,
    accept_key,
    basic_authorization,
)
from fullduplex.wire.headers import Headers, Request, Response
from fullduplex.wire.http1 import HeadReader
from fullduplex.wire.limits import MAX_HEADERS
from fullduplex.wire.transfer import TransferRate
from fullduplex.wire.uri import parse_uri
from wire.subject import Spy

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "handshake.json").read_text())
KEY = VECTORS["accept"][0]["key"]

GOOD = {
    "Host": "example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request(*more: tuple[str, str], path: str = "/chat", method: str = "GET", **replaced: str | None) -> Request:
    """A good request, with headers replaced, left out (None), or added."""
    fields = GOOD | {name.replace("_", "-"): value for name, value in replaced.items()}
    return Request(path, Headers([*((n, v) for n, v in fields.items() if v is not None), *more]), method)


def refusal(request: Request, **settings: Any) -> InvalidHandshake:
    server = ServerHandshake(**settings)
    with pytest.raises(InvalidHandshake) as caught:
        server.check(request)
    assert server.reject(caught.value).status_code == caught.value.status
    return caught.value


@pytest.mark.parametrize("vector", VECTORS["accept"], ids=lambda vector: vector["source"])
def test_accept_key(vector: dict[str, str]) -> None:
    assert accept_key(vector["key"]) == vector["accept"]


def test_basic_authorization() -> None:
    assert basic_authorization("Aladdin", "open sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # RFC 7617, section 2
    assert basic_authorization("test", "123\xa3") == "Basic dGVzdDoxMjPCow=="  # section 2.1


class TestCheckRequest:
    def test_good(self) -> None:
        ServerHandshake().check(request())

    @pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "get", "CONNECT"])
    def test_method(self, method: str) -> None:
        exc = refusal(request(method=method))
        assert isinstance(exc, InvalidMethod)
        assert exc.status == 405

    @pytest.mark.parametrize(
        "host", [None, "", " ", "a b", "a,b", "a, a", "a/b", "a@b", "a:b", "a:65536", ":80", "[::1", "caf\xe9", "a\t"]
    )
    def test_host(self, host: str | None) -> None:
        if host == "a\t":  # is "a": spaces around a value are no part of it
            ServerHandshake().check(request(Host=host))
            return
        exc = refusal(request(Host=host))
        assert isinstance(exc, InvalidHeader)
        assert (exc.name, exc.status) == ("Host", 400)

    def test_several_hosts(self) -> None:
        exc = refusal(request(("host", "example.com")))
        assert isinstance(exc, InvalidHeader)
        assert (exc.name, exc.value) == ("Host", "example.com, example.com")

    @pytest.mark.parametrize(
        "path",
        [
            "http://example.com/chat",
            "HTTPS://EXAMPLE.COM/",
            "ws://example.com",
            "wss://example.com?a",
            "http://example.com:/",
        ],
    )
    def test_absolute_target(self, path: str) -> None:
        ServerHandshake().check(request(path=path))

    @pytest.mark.parametrize(
        "path",
        [
            "*",
            "chat",
            "example.com:80",
            "http://other.example/",
            "http://example.com:81/",
            "ftp://example.com/",
            "http://",
        ],
    )
    def test_invalid_target(self, path: str) -> None:
        exc = refusal(request(path=path))
        assert isinstance(exc, InvalidMessage)
        assert exc.status == 400

    def test_empty_body(self) -> None:
        ServerHandshake().check(request(Content_Length="0"))

    @pytest.mark.parametrize("length", ["1", "", "00", "0, 0", "-0", "\xb2"])
    def test_body(self, length: str) -> None:
        exc = refusal(request(Content_Length=length))
        assert isinstance(exc, InvalidHeader)
        assert (exc.name, exc.status) == ("Content-Length", 400)

    def test_several_lengths(self) -> None:
        refusal(request(("Content-Length", "0"), ("Content-Length", "0")))

    @pytest.mark.parametrize("coding", ["chunked", "identity", ""])
    def test_transfer_encoding(self, coding: str) -> None:
        exc = refusal(request(Transfer_Encoding=coding))
        assert isinstance(exc, InvalidHeader)
        assert (exc.name, exc.status) == ("Transfer-Encoding", 400)

    @pytest.mark.parametrize("upgrade", ["WebSocket", "WEBSOCKET", "h2c, websocket", " ,websocket"])
    def test_upgrade(self, upgrade: str) -> None:
        ServerHandshake().check(request(Upgrade=upgrade))

    @pytest.mark.parametrize("connection", ["upgrade", "UPGRADE", "keep-alive, Upgrade", "Upgrade,keep-alive"])
    def test_connection(self, connection: str) -> None:
        ServerHandshake().check(request(Connection=connection))

    def test_lists_over_several_lines(self) -> None:
        ServerHandshake().check(request(("Upgrade", "h2c"), ("Connection", "keep-alive")))
        ServerHandshake().check(
            request(("Upgrade", "h2c"), ("Upgrade", "websocket"), ("Connection", "a"), ("Connection", "upgrade"),
                    Upgrade=None, Connection=None)
        )  # fmt: skip

    @pytest.mark.parametrize("upgrade", [None, "", "h2c", "websocket/13", "web socket", "websockets", "web\u017focket"])
    def test_no_upgrade(self, upgrade: str | None) -> None:
        if upgrade == "web\u017focket":  # LATIN SMALL LETTER LONG S is an s to casefold(), and doesn't pass Headers
            with pytest.raises(ValueError):
                request(Upgrade=upgrade)
            return
        exc = refusal(request(Upgrade=upgrade))
        assert isinstance(exc, InvalidUpgrade)
        assert (exc.name, exc.status) == ("Upgrade", 426)

    @pytest.mark.parametrize("connection", [None, "", "close", "keep-alive", "up grade", "upgraded"])
    def test_no_connection(self, connection: str | None) -> None:
        exc = refusal(request(Connection=connection))
        assert isinstance(exc, InvalidUpgrade)
        assert (exc.name, exc.status) == ("Connection", 400)

    @pytest.mark.parametrize("version", [None, "", "8", "12", "14", "013", "13, 8", "1\xb3", "+13"])
    def test_version(self, version: str | None) -> None:
        # A client of another version may have no key that we know.
        exc = refusal(request(Sec_WebSocket_Version=version, Sec_WebSocket_Key=None))
        assert isinstance(exc, InvalidHeader)
        assert (exc.name, exc.status) == ("Sec-WebSocket-Version", 426)

    def test_several_versions(self) -> None:
        assert refusal(request(("Sec-WebSocket-Version", "13"))).status == 426

    @pytest.mark.parametrize(
        "key",
        [
            None,
            "",
            "==",
            KEY[:-1],
            KEY[:-2],
            KEY + "=",
            KEY + " a",
            " ".join(KEY),
            base64.b64encode(bytes(15)).decode(),
            base64.b64encode(bytes(17)).decode(),
            "-" + KEY[1:],
            "_" + KEY[1:],
            "\xe9" + KEY[1:],
            f"{KEY}, {KEY}",
        ],
    )
    def test_key(self, key: str | None) -> None:
        exc = refusal(request(Sec_WebSocket_Key=key))
        assert isinstance(exc, InvalidHeader)
        assert (exc.name, exc.status) == ("Sec-WebSocket-Key", 400)

    def test_several_keys(self) -> None:
        assert refusal(request(("Sec-WebSocket-Key", KEY))).status == 400

    @given(st.binary(min_size=16, max_size=16))
    def test_every_key(self, key: bytes) -> None:
        ServerHandshake().check(request(Sec_WebSocket_Key=base64.b64encode(key).decode()))

    @pytest.mark.parametrize("subprotocol", ["a b", "a,b c", "caf\xe9", "a/b", "a;b", '"a"', "a,(b)"])
    def test_subprotocols_are_tokens(self, subprotocol: str) -> None:
        exc = refusal(request(("Sec-WebSocket-Protocol", "good"), ("Sec-WebSocket-Protocol", subprotocol)))
        assert isinstance(exc, InvalidHeader)
        assert (exc.name, exc.status) == ("Sec-WebSocket-Protocol", 400)


# Origin, Host, whether the first is the second's own.
ORIGINS = [
    ("http://example.com", "example.com", True),
    ("https://example.com", "example.com", True),
    ("http://example.com:80", "example.com", True),
    ("http://example.com", "example.com:80", True),
    ("https://example.com:443", "example.com", True),
    ("https://example.com", "example.com:443", True),
    ("http://example.com:8080", "example.com:8080", True),
    ("https://example.com:8443", "example.com:8443", True),
    ("http://example.com:080", "example.com", True),
    ("http://example.com:", "example.com", True),
    ("http://example.com", "example.com:", True),
    ("HTTP://EXAMPLE.com", "example.COM", True),
    ("http://example.com.", "example.com", True),
    ("http://example.com", "example.com.", True),
    ("http://example.com.:80", "EXAMPLE.com", True),
    ("http://localhost:3000", "localhost:3000", True),
    ("http://127.0.0.1:3000", "127.0.0.1:3000", True),
    ("http://[::1]", "[::1]", True),
    ("http://[::1]:8080", "[::1]:8080", True),
    ("http://[2001:DB8::1]", "[2001:db8::1]", True),
    ("http://xn--bcher-kva.example", "xn--bcher-kva.example", True),
    ("http://my_host", "my_host", True),
    # Another host.
    ("http://evil.example", "example.com", False),
    ("http://www.example.com", "example.com", False),
    ("http://example.com", "www.example.com", False),
    ("http://example.com.evil.example", "example.com", False),
    ("http://evilexample.com", "example.com", False),
    ("http://example.co", "example.com", False),
    ("http://example.comm", "example.com", False),
    ("http://example.com..", "example.com", False),
    ("http://localhost", "127.0.0.1", False),
    ("http://[::1]", "localhost", False),
    ("http://[::1]", "[::2]", False),
    ("http://[::1]", "[0:0:0:0:0:0:0:1]", False),  # browsers write it the same way in both
    ("http://b\xfccher.example", "xn--bcher-kva.example", False),
    # Another port.
    ("http://example.com:8080", "example.com", False),
    ("http://example.com", "example.com:8080", False),
    ("http://example.com:8080", "example.com:8081", False),
    ("http://example.com", "example.com:443", False),
    ("https://example.com", "example.com:80", False),
    ("https://example.com:80", "example.com", False),
    ("http://example.com:443", "example.com", False),
    ("http://localhost:3000", "localhost:8000", False),
    ("http://example.com:65616", "example.com", False),
    ("http://example.com:-80", "example.com", False),
    ("http://example.com:8\xb2", "example.com", False),
    # No origin of a page.
    ("null", "example.com", False),
    ("Null", "null", False),
    ("", "example.com", False),
    ("*", "example.com", False),
    ("example.com", "example.com", False),
    ("//example.com", "example.com", False),
    ("http:example.com", "example.com", False),
    ("http:/example.com", "example.com", False),
    ("http:///example.com", "example.com", False),
    ("http://", "example.com", False),
    ("http://:80", "example.com", False),
    ("file://", "example.com", False),
    ("file://example.com", "example.com", False),
    ("ws://example.com", "example.com", False),
    ("chrome-extension://example.com", "example.com", False),
    ("http://example.com/", "example.com", False),
    ("http://example.com/path", "example.com", False),
    ("http://example.com?", "example.com", False),
    ("http://example.com#", "example.com", False),
    ("http://evil.example#@example.com", "example.com", False),
    ("http://user@example.com", "example.com", False),
    ("http://example.com@evil.example", "example.com", False),
    ("http://example.com:80@evil.example", "example.com", False),
    ("http://evil.example\\@example.com", "example.com", False),
    ("http://example.com http://evil.example", "example.com", False),
    ("http://evil.example http://example.com", "example.com", False),
    ("http://example.com, http://example.com", "example.com", False),
    ("http://ex%61mple.com", "example.com", False),
    ("javascript:http://example.com", "example.com", False),
]


class TestOrigin:
    @pytest.mark.parametrize(("origin", "host", "own"), ORIGINS)
    def test_same_origin(self, origin: str, host: str, own: bool) -> None:
        if own:
            ServerHandshake().check(request(Origin=origin, Host=host))
        else:
            exc = refusal(request(Origin=origin, Host=host))
            assert isinstance(exc, InvalidOrigin)
            assert (exc.value, exc.status) == (origin, 403)

    def test_programs_send_none(self) -> None:
        ServerHandshake(origins=SAME_ORIGIN).check(request())
        assert repr(SAME_ORIGIN) == "SAME_ORIGIN"

    @pytest.mark.parametrize("origins", [SAME_ORIGIN, None, ["http://example.com"]])
    def test_never_two(self, origins: Origins) -> None:
        exc = refusal(request(("Origin", "http://example.com"), ("origin", "http://example.com")), origins=origins)
        assert isinstance(exc, InvalidOrigin)

    @pytest.mark.parametrize(
        ("origins", "origin", "allowed"),
        [
            (["https://a.example"], "https://a.example", True),
            (["https://a.example", "https://b.example"], "https://b.example", True),
            (["https://a.example"], "https://A.example", False),
            (["https://a.example"], "http://a.example", False),
            (["https://a.example"], "http://example.com", False),  # our own is not in the list
            (["https://a.example"], None, False),
            (["https://a.example", None], None, True),
            (["https://a.example", None], "null", False),
            (["null"], "null", True),
            (["null"], None, False),
            ([None], "", False),
            ([], None, False),
            ([], "https://a.example", False),
            ([re.compile(r"https://(.+\.)?example\.com")], "https://a.b.example.com", True),
            ([re.compile(r"https://(.+\.)?example\.com")], "https://example.com.evil.example", False),
            ([re.compile(r"example\.com")], "https://example.com", False),
            ([re.compile(r".*")], None, False),
            ([re.compile(r".*"), None], None, True),
            (None, "https://evil.example", True),
            (None, "null", True),
            (None, None, True),
        ],
    )
    def test_allow_list(self, origins: Origins, origin: str | None, allowed: bool) -> None:
        good = request(Origin=origin)
        if allowed:
            ServerHandshake(origins=origins).check(good)
        else:
            exc = refusal(good, origins=origins)
            assert isinstance(exc, InvalidOrigin)
            assert exc.value == origin

    def test_a_sequence(self) -> None:
        with pytest.raises(TypeError):
            ServerHandshake(origins="https://example.com")

    HOSTS = st.tuples(
        st.sampled_from(["a.example", "b.example", "[::1]"]),
        st.sampled_from(["", ":80", ":443", ":8080"]),
    )

    @given(st.sampled_from(["http", "https"]), HOSTS, HOSTS)
    def test_host_and_port_are_equal(self, scheme: str, origin: tuple[str, str], host: tuple[str, str]) -> None:
        default = {"http": ":80", "https": ":443"}[scheme]
        same = origin[0] == host[0] and (origin[1] or default) == (host[1] or default)
        message = request(Origin=f"{scheme}://{''.join(origin)}", Host="".join(host))
        try:
            ServerHandshake().check(message)
        except InvalidOrigin:
            assert not same
        else:
            assert same


class TestAccept:
    def test_response(self) -> None:
        response = ServerHandshake().accept(request())
        assert response.serialize() == (
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Upgrade: websocket\r\n"
            b"Connection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
            b"Server: " + USER_AGENT.encode() + b"\r\n"
            b"\r\n"
        )

    def test_server_header(self) -> None:
        assert re.fullmatch(rf"Python/3\.[0-9]+ fullduplex/{re.escape(__version__)}", USER_AGENT)
        assert ServerHandshake(server_header="x").accept(request()).headers["Server"] == "x"
        assert "Server" not in ServerHandshake(server_header=None).accept(request()).headers
        with pytest.raises(ValueError):
            ServerHandshake(server_header="a\r\nb")

    def test_responses_are_independent(self) -> None:
        server = ServerHandshake()
        server.accept(request()).headers["A"] = "1"
        assert "A" not in server.accept(request()).headers

    @pytest.mark.parametrize(
        ("ours", "offered", "selected"),
        [
            (None, [], None),
            (None, ["a"], None),
            ([], ["a"], None),
            (["a"], [], None),
            (["a"], ["b"], None),
            (["a", "b"], ["b, a"], "a"),
            (["a", "b"], ["b", "c,a"], "a"),
            (["a", "b"], ["c, b"], "b"),
            (["a"], ["A"], None),
            (["a"], ["a, a"], "a"),
            (["a"], [""], None),
        ],
    )
    def test_subprotocol(self, ours: list[str] | None, offered: list[str], selected: str | None) -> None:
        server = ServerHandshake(subprotocols=ours)
        message = request(*(("Sec-WebSocket-Protocol", value) for value in offered))
        server.check(message)
        assert server.select(message) == selected
        assert server.accept(message, selected).headers.get("Sec-WebSocket-Protocol") == selected

    def test_choice(self) -> None:
        server = ServerHandshake(subprotocols=["a"])
        message = request(Sec_WebSocket_Protocol="a, b")
        assert server.select(message, lambda offered: offered[-1]) == "b"
        assert server.select(message, lambda offered: None) is None
        with pytest.raises(NegotiationError, match="offered: c") as caught:
            server.select(message, lambda offered: "c")
        assert (caught.value.who, caught.value.status) == ("local", 500)

    @pytest.mark.parametrize("subprotocols", [[""], ["a b"], ["a", "a"], ["caf\xe9"], ["a\r\n"]])
    def test_invalid_subprotocols(self, subprotocols: list[str]) -> None:
        with pytest.raises(ValueError, match=r"section 4\.1"):
            ServerHandshake(subprotocols=subprotocols)

    def test_a_sequence_of_subprotocols(self) -> None:
        with pytest.raises(TypeError):
            ServerHandshake(subprotocols="chat")


FIELDS = [*GOOD, "Origin", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Content-Length", "Transfer-Encoding"]


class TestReject:
    @pytest.mark.parametrize(
        ("exc", "status", "text"),
        [
            (InvalidOrigin("PEER"), 403, "add it to origins=[...] of serve()"),
            (InvalidUpgrade("Upgrade", "PEER", status=426), 426, "only speaks WebSocket"),
            (InvalidUpgrade("Connection", "PEER"), 400, "Connection"),
            (InvalidHeader("Sec-WebSocket-Version", "PEER", status=426), 426, "version 13"),
            (InvalidHeader("Host"), 400, "missing Host header"),
            (InvalidHeader("Host", "PEER"), 400, "invalid Host header"),
            (InvalidMethod("PEER"), 405, "method is not GET"),
            (InvalidProtocol("PEER"), 505, "not HTTP/1.1"),
            (SecurityError("PEER", status=414), 414, "too large"),
            (SecurityError("PEER", status=431), 431, "too large"),
            (InvalidMessage("PEER", status=408), 408, "Request Timeout"),
            (InvalidMessage("PEER"), 400, "not a valid HTTP/1.1 request"),
            (NegotiationError("PEER", status=500), 500, "Internal Server Error"),
            (InvalidHandshake("PEER", status=503), 503, "Service Unavailable"),
        ],
    )
    def test_answers(self, exc: InvalidHandshake, status: int, text: str) -> None:
        response = ServerHandshake(server_header=None).reject(exc)
        body = response.body.decode()
        assert response.status_code == status
        assert body.startswith("Failed to open a WebSocket connection: ")
        assert text in body
        assert b"PEER" not in response.serialize()
        expected = Headers(
            {"Connection": "close", "Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))}
        )
        if status == 405:
            expected["Allow"] = "GET"
        if status == 426:
            del expected["Connection"]
            expected.update({"Connection": "close, Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"})
        assert response.headers == expected

    def test_head(self) -> None:
        response = ServerHandshake().reject(InvalidMethod("HEAD"))
        assert response.body == b""
        assert response.headers["Content-Length"] != "0"

    def test_any_answer(self) -> None:
        response = ServerHandshake().respond(404, "caf\xe9\n")
        assert (response.status_code, response.reason_phrase, response.body) == (404, "Not Found", b"caf\xc3\xa9\n")
        assert response.headers["Server"] == USER_AGENT
        assert ServerHandshake().respond(499, "").serialize().startswith(b"HTTP/1.1 499 \r\n")

    @pytest.mark.parametrize("name", FIELDS)
    def test_every_byte_in_every_header(self, name: str) -> None:
        """A listed status or a connection, no other exception, and nothing of it in the answer."""
        server = ServerHandshake(subprotocols=["a"])
        for byte in range(256):
            for template in (b"%b", b"%bPEER", b"PEER%bPEER", GOOD.get(name, "a").encode() + b"%b"):
                lines = [f"{n}: {v}\r\n".encode() for n, v in GOOD.items() if n != name]
                lines.append(name.encode() + b": " + template % bytes([byte]) + b"\r\n")
                answer = converse(server, b"GET / HTTP/1.1\r\n" + b"".join(lines) + b"\r\n")
                assert answer.status_code in {101, 400, 403, 426}
                assert b"PEER" not in answer.serialize()
                assert HeadReader(Response).feed(answer.serialize()) is not None

    @pytest.mark.parametrize(("count", "status"), [(0, 101), (MAX_HEADERS - 5, 101), (MAX_HEADERS - 4, 431)])
    def test_header_counts(self, count: int, status: int) -> None:
        """The headers that count may come last, or be cut off."""
        for first in (b"A: 1\r\n" * count, b""):
            last = b"A: 1\r\n" * count if not first else b""
            good = b"".join(f"{n}: {v}\r\n".encode() for n, v in GOOD.items())
            data = b"GET / HTTP/1.1\r\n" + first + good + last + b"\r\n"
            assert converse(ServerHandshake(), data).status_code == status
        assert converse(ServerHandshake(), b"GET / HTTP/1.1\r\n\r\n").status_code == 400


def converse(server: ServerHandshake, data: bytes) -> Response:
    """What a server answers to these bytes."""
    try:
        message = HeadReader(Request).feed(data)
        assert message is not None
        server.check(message)
        answer = server.accept(message, server.select(message), server.negotiate(message)[0])
    except InvalidHandshake as exc:
        text = str(exc)
        answer = server.reject(exc)
    else:
        text = ""
    assert text.isascii()
    assert text == "" or text.isprintable()
    return answer


TEXTS = st.text([chr(c) for c in range(256) if c == 9 or (c >= 32 and c != 127)], max_size=30)


@given(st.lists(st.tuples(st.sampled_from(FIELDS), TEXTS | st.sampled_from([*GOOD.values(), ","]))))
def test_any_headers(fields: list[tuple[str, str]]) -> None:
    data = Request("/", Headers([*GOOD.items(), *fields])).serialize()
    answer = converse(ServerHandshake(subprotocols=["a"]), data)
    assert answer.status_code in {101, 400, 403, 426}
    head, _, _ = answer.serialize().partition(b"\r\n\r\n")
    assert head.count(b"\r\n") == head.count(b"\r") == head.count(b"\n")


def client(uri: str = "ws://example.com/chat", **settings: Any) -> ClientHandshake:
    return ClientHandshake(parse_uri(uri), **settings)


class TestClientRequest:
    def test_request(self) -> None:
        message = client(user_agent_header=None).request()
        key = message.headers["Sec-WebSocket-Key"]
        assert message == Request("/chat", Headers(GOOD | {"Sec-WebSocket-Key": key}))
        assert len(base64.b64decode(key, validate=True)) == 16
        assert next(message.headers.raw_items())[0] == "Host"

    def test_keys_are_fresh(self) -> None:
        one, two = client(), client()
        keys = {side.request().headers["Sec-WebSocket-Key"] for side in (one, one, two)}
        assert len(keys) == 3

    @pytest.mark.parametrize(
        "uri",
        ["ws://example.com", "wss://example.com:8443/\xe9?\u20ac", "ws://[::1]:8080/", "ws://u:p@b\xfccher.example"],
    )
    def test_our_server_takes_it(self, uri: str) -> None:
        ServerHandshake().check(client(uri).request())

    def test_everything(self) -> None:
        side = client(
            "wss://user:secret@example.com:8443/a?b=c",
            origin="https://example.com",
            subprotocols=["chat", "superchat"],
            additional_headers=[("Cookie", "a"), ("X", "1"), ("X", "2")],
        )
        message = side.request()
        assert message.path == "/a?b=c"
        assert message.headers["Host"] == "example.com:8443"
        assert message.headers["Origin"] == "https://example.com"
        assert message.headers["Sec-WebSocket-Protocol"] == "chat, superchat"
        assert message.headers["Authorization"] == basic_authorization("user", "secret")
        assert message.headers["User-Agent"] == USER_AGENT
        assert message.headers["Cookie"] == "a"
        assert message.headers.get_all("X") == ["1", "2"]

    def test_what_may_be_replaced(self) -> None:
        given = {"host": "Other.example:81", "authorization": "Bearer 1", "user-agent": "me", "origin": "null"}
        headers = client("ws://user:secret@example.com", additional_headers=given).request().headers
        assert {name: headers[name] for name in given} == given

    @pytest.mark.parametrize(
        "name",
        [
            "Upgrade",
            "Connection",
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Version",
            "Sec-WebSocket-Accept",
            "Sec-WebSocket-Protocol",
            "Sec-WebSocket-Extensions",
            "Content-Length",
            "Transfer-Encoding",
        ],
    )
    def test_what_may_not(self, name: str) -> None:
        for spelling in (name, name.lower(), name.upper()):
            with pytest.raises(ValueError, match=name):
                client(additional_headers={spelling: "a"})

    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"additional_headers": [("Host", "a"), ("host", "b")]}, "several Host"),
            ({"additional_headers": [("Origin", "a"), ("Origin", "b")]}, "several Origin"),
            ({"additional_headers": [("Authorization", "a"), ("Authorization", "b")]}, "several Authorization"),
            ({"additional_headers": {"Origin": "a"}, "origin": "b"}, "Origin beside origin="),
            ({"additional_headers": {"Host": "a b"}}, "Host"),
            ({"additional_headers": {"A": "b\r\nC: d"}}, "RFC 9110"),
            ({"origin": "a\r\nb: c"}, "RFC 9110"),
            ({"user_agent_header": "a\r\nb: c"}, "RFC 9110"),
            ({"subprotocols": ["a b"]}, "token"),
            ({"subprotocols": ["a", "a"]}, "once"),
        ],
    )
    def test_invalid_settings(self, settings: dict[str, Any], match: str) -> None:
        with pytest.raises(ValueError, match=match):
            client(**settings)

    def test_a_sequence_of_subprotocols(self) -> None:
        with pytest.raises(TypeError):
            client(subprotocols="chat")


class TestCheckResponse:
    def check(
        self, *more: tuple[str, str], status: int = 101, subprotocols: list[str] | None = None, **replaced: str | None
    ) -> str | None:
        side = client(subprotocols=subprotocols)
        fields = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": accept_key(side.request().headers["Sec-WebSocket-Key"]),
        } | {name.replace("_", "-"): value for name, value in replaced.items()}
        headers = Headers([*((n, v) for n, v in fields.items() if v is not None), *more])
        subprotocol, extension = side.check(Response(status, "", headers))
        assert extension is None
        return subprotocol

    def test_good(self) -> None:
        assert self.check() is None
        assert self.check(Upgrade="WebSocket", Connection="keep-alive, UPGRADE") is None
        assert self.check(("Connection", "upgrade"), Connection="keep-alive") is None

    @pytest.mark.parametrize("status", [200, 301, 401, 426, 500])
    def test_status(self, status: int) -> None:
        with pytest.raises(InvalidStatus, match=str(status)) as caught:
            self.check(status=status)
        assert caught.value.response.status_code == status

    @pytest.mark.parametrize("upgrade", [None, "", "h2c", "websocket, h2c", "websocket,", "websocket/13"])
    def test_upgrade(self, upgrade: str | None) -> None:
        with pytest.raises(InvalidUpgrade) as caught:
            self.check(Upgrade=upgrade)
        assert (caught.value.name, caught.value.value) == ("Upgrade", upgrade)

    def test_several_upgrades(self) -> None:
        with pytest.raises(InvalidUpgrade):
            self.check(("Upgrade", "websocket"))

    @pytest.mark.parametrize("connection", [None, "", "keep-alive", "upgrade me"])
    def test_connection(self, connection: str | None) -> None:
        with pytest.raises(InvalidUpgrade) as caught:
            self.check(Connection=connection)
        assert (caught.value.name, caught.value.value) == ("Connection", connection)

    @pytest.mark.parametrize("accept", [None, "", accept_key(KEY), "caf\xe9"])
    def test_accept(self, accept: str | None) -> None:
        with pytest.raises(InvalidHeader) as caught:
            self.check(Sec_WebSocket_Accept=accept)
        assert (caught.value.name, caught.value.value) == ("Sec-WebSocket-Accept", accept)

    def test_several_accepts(self) -> None:
        with pytest.raises(InvalidHeader, match="Sec-WebSocket-Accept"):
            self.check(("Sec-WebSocket-Accept", "a"))

    def test_the_key_is_that_of_the_last_request(self) -> None:
        side = client()
        first = ServerHandshake().accept(side.request())
        last = ServerHandshake().accept(side.request())
        with pytest.raises(InvalidHeader):
            side.check(first)
        assert side.check(last) == (None, None)

    @pytest.mark.parametrize("extensions", ["permessage-deflate", "a; b=c, d", "x" * 1000])
    def test_extensions_that_were_not_offered(self, extensions: str) -> None:
        with pytest.raises(NegotiationError, match="extension that wasn't offered") as caught:
            self.check(Sec_WebSocket_Extensions=extensions)
        assert len(str(caught.value)) < 500

    @pytest.mark.parametrize("extensions", ["", ",", "a b", "\xff" * 1000])
    def test_extensions_that_are_none(self, extensions: str) -> None:
        """RFC 6455, section 9.1: an empty list is no list."""
        with pytest.raises(InvalidHeader, match="Sec-WebSocket-Extensions") as caught:
            self.check(Sec_WebSocket_Extensions=extensions)
        assert len(str(caught.value)) < 500

    def test_subprotocol(self) -> None:
        assert self.check(subprotocols=["a", "b"], Sec_WebSocket_Protocol="b") == "b"
        assert self.check(subprotocols=["a", "b"]) is None

    @pytest.mark.parametrize("selected", ["", "c", "A", "a, b", "\xff" * 1000])
    def test_subprotocol_that_was_not_offered(self, selected: str) -> None:
        for subprotocols in (None, ["a", "b"]):
            with pytest.raises(NegotiationError, match="subprotocol") as caught:
                self.check(subprotocols=subprotocols, Sec_WebSocket_Protocol=selected)
            assert len(str(caught.value)) < 500

    def test_several_subprotocols(self) -> None:
        with pytest.raises(InvalidHeader, match="Sec-WebSocket-Protocol"):
            self.check(("Sec-WebSocket-Protocol", "a"), subprotocols=["a"], Sec_WebSocket_Protocol="a")


def test_both_roles_agree() -> None:
    side = client(subprotocols=["a", "b"])
    server = ServerHandshake(subprotocols=["b", "a"])
    assert side.check(converse_with(side, server)) == ("b", None)


def converse_with(side: ClientHandshake, server: ServerHandshake) -> Response:
    """The server's response to the client's request, both over the wire."""
    response = HeadReader(Response).feed(converse(server, side.request().serialize()).serialize())
    assert response is not None
    return response


class Named(ExtensionFactory):
    """Agrees on a `Spy`, and says in which role."""

    def __init__(self, name: str, offers: Sequence[Parameters] = ([],)) -> None:
        self.name = name
        self._offers = offers
        self.server_side, self.client_side = Spy(), Spy()

    def offers(self) -> Sequence[Parameters]:
        return self._offers

    def accept(self, offer: Parameters) -> tuple[Parameters, Extension] | None:
        return [*offer, ("yes", "1")], self.server_side

    def agree(self, offer: Parameters, answer: Parameters) -> Extension:
        return self.client_side


class TestExtensions:
    """Section 9.1, in both roles. What lists look like, and who agrees on what, is tested with wire/extensions.py."""

    def test_offers(self) -> None:
        """In order of preference, in one line; none where there is nothing to offer."""
        side = client(extensions=[Named("a", [[("x", "1")], [("y", None)]]), Named("b"), Named("silent", [])])
        assert side.request().headers.get_all("Sec-WebSocket-Extensions") == ["a; x=1, a; y, b"]
        for factories in ([], [Named("silent", [])]):
            assert "Sec-WebSocket-Extensions" not in client(extensions=factories).request().headers

    @pytest.mark.parametrize(
        ("offered", "answer"),
        [
            ([], ""),
            (["b"], ""),
            (["a"], "a; yes=1"),
            (["b, a; x"], "a; x; yes=1"),
            (["b", "a", "a; x"], "a; yes=1"),
            (['a; x="1"'], "a; x=1; yes=1"),
        ],
    )
    def test_answer(self, offered: list[str], answer: str) -> None:
        factory = Named("a")
        server = ServerHandshake(extensions=[factory])
        message = request(*(("Sec-WebSocket-Extensions", value) for value in offered))
        server.check(message)
        said, extension = server.negotiate(message)
        assert said == answer
        assert extension is (factory.server_side if answer else None)
        response = server.accept(message, None, said)
        assert response.headers.get_all("Sec-WebSocket-Extensions") == ([answer] if answer else [])

    def test_whoever_knows_none_answers_nothing(self) -> None:
        assert ServerHandshake().negotiate(request(("Sec-WebSocket-Extensions", "a, b; c=d"))) == ("", None)

    @pytest.mark.parametrize("offered", ["", ",", "PEER PEER", "PEER;", 'a; x="PEER 1"', ", ".join(["PEER"] * 65)])
    def test_a_list_that_is_none(self, offered: str) -> None:
        """It is refused with 400, whether there are extensions or not."""
        for factories in ([], [Named("a")]):
            server = ServerHandshake(extensions=factories)
            message = request(("Sec-WebSocket-Extensions", offered))
            server.check(message)
            with pytest.raises(InvalidHeader, match="Sec-WebSocket-Extensions") as caught:
                server.negotiate(message)
            response = server.reject(caught.value)
            assert response.status_code == 400
            assert b"PEER" not in response.serialize()

    def test_both_roles_agree(self) -> None:
        """On an extension of each side, and on no more."""
        ours, theirs = [Named("a"), Named("b")], [Named("b"), Named("c")]
        side = client(extensions=ours, subprotocols=["s"])
        server = ServerHandshake(extensions=theirs, subprotocols=["s"])
        subprotocol, extension = side.check(converse_with(side, server))
        assert subprotocol == "s"
        assert extension is ours[1].client_side

    def test_several_are_one(self) -> None:
        side = client(extensions=[TransferRate(100), Named("a")])
        extension = side.check(converse_with(side, ServerHandshake(extensions=[Named("a"), TransferRate(200)])))[1]
        assert isinstance(extension, Stack)
        assert extension.send_rate == 200

    def test_an_answer_that_does_not_fit(self) -> None:
        side = client(extensions=[TransferRate(100)])
        response = converse_with(side, ServerHandshake(extensions=[TransferRate(200)]))
        response.headers["Sec-WebSocket-Extensions"] = "transfer-rate"  # twice, in two lines
        with pytest.raises(NegotiationError, match="twice in the answer"):
            side.check(response)

    @pytest.mark.parametrize("made", [client, ServerHandshake])
    def test_what_is_given(self, made: Callable[..., object]) -> None:
        with pytest.raises(TypeError, match="ExtensionFactory"):
            made(extensions=["permessage-deflate"])
        with pytest.raises(ValueError, match="once"):
            made(extensions=[Named("a"), Named("a")])
