from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullduplex.wire.errors import InvalidURI
from fullduplex.wire.headers import Headers, Request
from fullduplex.wire.uri import WebSocketURI, parse_uri, split_host


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("ws://localhost", WebSocketURI(False, "localhost", 80, "", "")),
        ("ws://localhost/", WebSocketURI(False, "localhost", 80, "/", "")),
        ("wss://localhost/", WebSocketURI(True, "localhost", 443, "/", "")),
        ("WSS://LocalHost/Path", WebSocketURI(True, "localhost", 443, "/Path", "")),
        ("ws://localhost:8080/a/b?c=d&e", WebSocketURI(False, "localhost", 8080, "/a/b", "c=d&e")),
        ("ws://localhost?c", WebSocketURI(False, "localhost", 80, "", "c")),
        ("ws://localhost/?", WebSocketURI(False, "localhost", 80, "/", "")),
        ("ws://localhost/a?b?c", WebSocketURI(False, "localhost", 80, "/a", "b?c")),
        ("ws://localhost:/", WebSocketURI(False, "localhost", 80, "/", "")),
        ("ws://localhost:0/", WebSocketURI(False, "localhost", 0, "/", "")),
        ("ws://localhost:65535/", WebSocketURI(False, "localhost", 65535, "/", "")),
        ("ws://my_host-1.example./", WebSocketURI(False, "my_host-1.example.", 80, "/", "")),
        ("ws://127.0.0.1:9001/", WebSocketURI(False, "127.0.0.1", 9001, "/", "")),
        ("ws://[::1]/", WebSocketURI(False, "::1", 80, "/", "")),
        ("wss://[2001:DB8::1]:8443/", WebSocketURI(True, "2001:db8::1", 8443, "/", "")),
        ("ws://[::ffff:127.0.0.1]/", WebSocketURI(False, "::ffff:127.0.0.1", 80, "/", "")),
        ("ws://user:secret@localhost/", WebSocketURI(False, "localhost", 80, "/", "", "user", "secret")),
        ("ws://user@localhost/", WebSocketURI(False, "localhost", 80, "/", "", "user", "")),
        ("ws://us%65r:p%40s:s%C3%A9@localhost/", WebSocketURI(False, "localhost", 80, "/", "", "user", "p@s:s\xe9")),
        ("ws://\xfcser:\xe9@localhost/", WebSocketURI(False, "localhost", 80, "/", "", "\xfcser", "\xe9")),
        ("ws://@localhost/", WebSocketURI(False, "localhost", 80, "/", "")),
        ("ws://b\xfccher.example:81/", WebSocketURI(False, "xn--bcher-kva.example", 81, "/", "")),
        ("ws://localhost/\xe9/%C3?\u20ac=%zz", WebSocketURI(False, "localhost", 80, "/%C3%A9/%C3", "%E2%82%AC=%zz")),
        ("ws://localhost/a@b:c", WebSocketURI(False, "localhost", 80, "/a@b:c", "")),
    ],
)
def test_valid(uri: str, expected: WebSocketURI) -> None:
    assert parse_uri(uri) == expected


@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("", "not ws://"),
        ("localhost", "not ws://"),
        ("ws:/localhost", "not ws://"),
        ("ws:localhost", "not ws://"),
        ("//localhost/", "not ws://"),
        ("http://localhost/", "scheme"),
        ("https://localhost/", "scheme"),
        ("wsss://localhost/", "scheme"),
        ("ws://localhost/#", "fragment"),
        ("ws://localhost/path#fragment", "fragment"),
        ("ws://localhost#fragment", "fragment"),
        ("ws:///path", "host"),
        ("ws://", "host"),
        ("ws://:80/", "host"),
        ("ws://user@/", "host"),
        ("ws://a@b@localhost/", "host"),
        ("ws://a,b/", "host"),
        ("ws://a%41/", "host"),
        ("ws://a\\b/", "host"),
        ("ws://localhost:-1/", "port"),
        ("ws://localhost:65536/", "port"),
        ("ws://localhost:100000/", "port"),
        ("ws://localhost:80:80/", "port"),
        ("ws://localhost:http/", "port"),
        ("ws://localhost:\u0668\u0660/", "port"),  # str.isdigit() likes these
        ("ws://::1/", "port"),
        ("ws://[::1/", "host"),
        ("ws://[::1]80/", "host"),
        ("ws://[fe80::1%25eth0]/", "host"),
        ("ws://[:::]/", "IPv6"),
        ("ws://[1.2.3.4]/", "IPv6"),
        ("ws://ex..\xe9/", "domain name"),
        ("ws://\u2100.example/", "host"),  # which normalisation makes a/c
        ("ws://\uff0fexample/", "host"),  # and this a slash
        ("ws://local host/", "whitespace"),
        (" ws://localhost/", "whitespace"),
        ("ws://localhost/\n", "whitespace"),
        ("ws://localhost/a b", "whitespace"),
        ("ws://localhost/\r\nA: b", "whitespace"),
        ("ws://localhost/\x00", "control"),
        ("ws://localhost/\x7f", "control"),
        ("ws://localhost/\x85", "control"),
        ("ws://localhost/\u2028", "whitespace"),
        ("ws://localhost/\ud800", "Unicode"),
        ("ws://\ud800/", "domain name"),
        ("ws://\ud800@localhost/", "UTF-8"),
        ("ws://%FF@localhost/", "UTF-8"),
        ("ws://a%3Ab:c@localhost/", "colon"),
        ("ws://a:%0D%0A@localhost/", "control"),
    ],
)
def test_invalid(uri: str, rule: str) -> None:
    with pytest.raises(InvalidURI) as caught:
        parse_uri(uri)
    assert rule in caught.value.rule
    assert caught.value.uri == uri


@pytest.mark.parametrize(
    ("uri", "resource_name", "host_header"),
    [
        ("ws://localhost", "/", "localhost"),
        ("ws://localhost:80/a?b", "/a?b", "localhost"),
        ("ws://localhost:443?b", "/?b", "localhost:443"),
        ("wss://localhost:443/?", "/", "localhost"),
        ("wss://localhost:80/", "/", "localhost:80"),
        ("ws://[::1]", "/", "[::1]"),
        ("ws://[::1]:9001", "/", "[::1]:9001"),
    ],
)
def test_what_the_request_says(uri: str, resource_name: str, host_header: str) -> None:
    assert parse_uri(uri).resource_name == resource_name
    assert parse_uri(uri).host_header == host_header


def test_user_info() -> None:
    assert parse_uri("ws://localhost").user_info is None
    assert parse_uri("ws://user@localhost").user_info == ("user", "")
    assert parse_uri("ws://:secret@localhost").user_info == ("", "secret")
    assert WebSocketURI(False, "localhost", 80, "", "", "user").user_info == ("user", "")


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(parse_uri("ws://user:secret@localhost"))


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse_uri("ws://localhost").port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Example.COM", ("example.com", None)),
        ("example.com:", ("example.com", None)),
        ("example.com:080", ("example.com", 80)),
        ("[::1]:65535", ("[::1]", 65535)),
        ("example.com:65536", None),
        ("", None),
        (":80", None),
        ("a b", None),
        ("a,b", None),
        ("a/b", None),
        ("a@b", None),
        ("a\n", None),
        ("a:1\n", None),
        ("a:+1", None),
        ("a:\u0661", None),
        ("caf\xe9", None),
    ],
)
def test_split_host(text: str, parts: tuple[str, int | None] | None) -> None:
    assert split_host(text) == parts


@given(st.text() | st.text().map("ws://".__add__) | st.text("ws:/@[]?#%\xe9\r\n .a0").map("wss://h".__add__))
def test_what_comes_out_fits_a_request(text: str) -> None:
    try:
        uri = parse_uri(text)
    except InvalidURI:
        return
    data = Request(uri.resource_name, Headers(Host=uri.host_header)).serialize()
    assert data.isascii()
    assert data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r") == 3
    assert split_host(uri.host_header) is not None
    scheme = "wss" if uri.secure else "ws"
    assert parse_uri(f"{scheme}://{uri.host_header}{uri.resource_name}").resource_name == uri.resource_name
