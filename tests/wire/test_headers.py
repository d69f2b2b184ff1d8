from __future__ import annotations

import copy
import pickle
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullduplex.wire.headers import Headers, MultipleValuesError, Request, Response, is_token, split_list
from fullduplex.wire.http1 import HeadReader

TOKENS = st.text("!#$%&'*+-.^_`|~" + string.ascii_letters + string.digits, min_size=1, max_size=20)
LATIN_1 = "".join(map(chr, range(256)))
TEXTS = st.text([c for c in LATIN_1 if c == "\t" or (c >= " " and c != "\x7f")], max_size=40)
# What a program may put in by mistake, or be talked into.
ANYTHING = st.text(st.characters() | st.sampled_from("\r\n\0 :\t\x85\u2028"), max_size=10)


class TestHeaders:
    def test_a_value(self) -> None:
        headers = Headers({"Content-Type": "text/plain"})
        assert headers["content-TYPE"] == "text/plain"
        assert headers.get("CONTENT-type") == "text/plain"
        assert headers.get_all("content-type") == ["text/plain"]
        assert "content-type" in headers
        assert 1 not in headers  # type: ignore[comparison-overlap]
        assert len(headers) == 1

    def test_no_value(self) -> None:
        headers = Headers()
        with pytest.raises(KeyError):
            headers["Host"]
        with pytest.raises(KeyError):
            del headers["Host"]
        assert headers.get("Host") is None
        assert headers.get_all("Host") == []
        assert "Host" not in headers
        assert not headers

    def test_several_values(self) -> None:
        headers = Headers([("Cookie", "a"), ("Host", "h"), ("cookie", "b")])
        with pytest.raises(MultipleValuesError):
            headers["Cookie"]
        assert issubclass(MultipleValuesError, LookupError)
        assert not issubclass(MultipleValuesError, KeyError)
        assert headers.get_all("COOKIE") == ["a", "b"]
        assert list(headers) == ["cookie", "host"]
        assert len(headers) == 2
        assert headers.by_name() == {"cookie": ["a", "b"], "host": ["h"]}
        del headers["Cookie"]
        assert list(headers.raw_items()) == [("Host", "h")]

    def test_setting_adds(self) -> None:
        headers = Headers(Server="a")
        headers["Server"] = "b"
        assert headers.get_all("Server") == ["a", "b"]
        assert headers.setdefault("Date", "today") == "today"
        assert headers.setdefault("Date", "tomorrow") == "today"

    def test_update(self) -> None:
        headers = Headers([("A", "1"), ("A", "2")])
        more = Headers(headers)
        more.update({"B": "3"}, C="4")
        more.update([("D", "5")])
        assert list(more.raw_items()) == [("A", "1"), ("A", "2"), ("B", "3"), ("C", "4"), ("D", "5")]

    @pytest.mark.parametrize(
        "duplicate", [Headers.copy, copy.deepcopy, lambda headers: pickle.loads(pickle.dumps(headers))]
    )
    def test_copies_are_independent(self, duplicate: object) -> None:
        headers = Headers(A="1")
        assert callable(duplicate)
        other = duplicate(headers)
        assert other == headers
        other["B"] = "2"
        assert other != headers
        headers.clear()
        assert list(headers) == []
        assert other["A"] == "1"

    def test_equality(self) -> None:
        assert Headers([("A", "1"), ("B", "2")]) == Headers([("b", "2"), ("a", "1")])
        assert Headers([("A", "1"), ("A", "2")]) != Headers([("A", "2"), ("A", "1")])
        assert Headers() != {}
        with pytest.raises(TypeError):
            hash(Headers())

    def test_text(self) -> None:
        headers = Headers([("Host", "h"), ("X", "caf\xe9")])
        assert repr(headers) == "Headers([('Host', 'h'), ('X', 'caf\xe9')])"
        assert str(headers) == "Host: h\r\nX: caf\xe9\r\n\r\n"
        assert headers.serialize() == b"Host: h\r\nX: caf\xe9\r\n\r\n"

    def test_spaces_around_a_value_are_not_kept(self) -> None:
        assert Headers(A=" \t1 2\t ")["A"] == "1 2"

    @pytest.mark.parametrize("name", ["", " ", "a b", "a:", "a\r\n", "a\n", "\0", "caf\xe9", "\u0661", "a\u2028"])
    def test_a_name_is_a_token(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"RFC 9110, section 5\.1"):
            Headers({name: "value"})

    @pytest.mark.parametrize("value", ["\r", "\n", "a\r\nb", "\0", "\x1b", "\x7f", "\u0100", "\u2028", "\ud800", "a\n"])
    def test_a_value_is_text(self, value: str) -> None:
        with pytest.raises(ValueError, match=r"RFC 9110, section 5\.5"):
            Headers(A=value)

    @pytest.mark.parametrize("item", [(1, "a"), (b"a", "a"), ("a", 1), ("a", None), ("a", b"a")])
    def test_names_and_values_are_str(self, item: tuple[str, str]) -> None:
        with pytest.raises(TypeError):
            Headers([item])

    def test_no_dict(self) -> None:
        """Idle connections keep their headers."""
        assert not hasattr(Headers(), "__dict__")
        assert not hasattr(Request("/"), "__dict__")


@pytest.mark.parametrize(
    ("values", "elements"),
    [
        ([], []),
        ([""], []),
        (["Upgrade"], ["Upgrade"]),
        (["keep-alive, Upgrade"], ["keep-alive", "Upgrade"]),
        (["keep-alive", "Upgrade"], ["keep-alive", "Upgrade"]),
        ([" ,a ,\tb\t,, ", ",c"], ["a", "b", "c"]),
        (["a b"], ["a b"]),
    ],
)
def test_split_list(values: list[str], elements: list[str]) -> None:
    assert split_list(values) == elements


class TestSerialize:
    def test_request(self) -> None:
        assert Request("/?a=b", Headers(Host="h")).serialize() == b"GET /?a=b HTTP/1.1\r\nHost: h\r\n\r\n"

    def test_response(self) -> None:
        response = Response(200, "OK", Headers(A="1"), b"body\r\n")
        assert response.serialize() == b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\nbody\r\n"

    @pytest.mark.parametrize("path", ["", " ", "/ HTTP/1.1\r\nA: b", "/\n", "/a b", "/\0", "/\x7f", "/\xe9", "/\u0661"])
    def test_invalid_path(self, path: str) -> None:
        with pytest.raises(ValueError, match=r"RFC 9112, section 3\.2"):
            Request(path).serialize()

    @pytest.mark.parametrize("method", ["", "GET ", "GET\r\n", "G\0T", "G\xcbT"])
    def test_invalid_method(self, method: str) -> None:
        with pytest.raises(ValueError, match=r"RFC 9110, section 9\.1"):
            Request("/", method=method).serialize()

    @pytest.mark.parametrize("reason", ["OK\r\nA: b", "\n", "\0", "\u0100"])
    def test_invalid_reason(self, reason: str) -> None:
        with pytest.raises(ValueError, match="RFC 9112, section 4"):
            Response(200, reason).serialize()

    @pytest.mark.parametrize("status", [-1, 0, 99, 1000, 10**9])
    def test_invalid_status(self, status: int) -> None:
        with pytest.raises(ValueError, match="RFC 9110, section 15"):
            Response(status, "").serialize()


@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING)
def test_nothing_ends_a_line(method: str, path: str, name: str, value: str) -> None:
    try:
        data = Request(path, Headers({name: value}), method).serialize()
    except ValueError:
        return
    assert data.count(b"\r\n") == data.count(b"\r") == data.count(b"\n") == 3
    assert b"\0" not in data
    assert is_token(name)


@given(ANYTHING)
def test_nothing_ends_a_status_line(reason: str) -> None:
    try:
        data = Response(400, reason).serialize()
    except ValueError:
        return
    assert data.count(b"\r") == data.count(b"\n") == 2
    assert b"\0" not in data


HEADERS = st.lists(st.tuples(TOKENS, TEXTS), max_size=10).map(Headers)


@given(TOKENS, st.text(string.ascii_letters + string.punctuation, min_size=1), HEADERS)
def test_requests_round_trip(method: str, path: str, headers: Headers) -> None:
    request = Request(path, headers, method)
    data = request.serialize()
    reader = HeadReader(Request)
    assert reader.feed(data + b"rest") == request
    assert reader.taken == len(data)


@given(st.integers(100, 999), TEXTS, HEADERS)
def test_responses_round_trip(status: int, reason: str, headers: Headers) -> None:
    response = Response(status, reason, headers)
    assert HeadReader(Response).feed(response.serialize()) == response
