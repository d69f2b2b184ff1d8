from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullduplex.wire.errors import InvalidHeader, NegotiationError, PayloadTooBig, ProtocolError
from fullduplex.wire.extensions import (
    MAX_OFFERS,
    RSV1,
    RSV2,
    RSV3,
    Extension,
    ExtensionFactory,
    Parameters,
    Stack,
    accept_offers,
    check_answer,
    check_factories,
    format_extensions,
    parse_extensions,
    widened,
)
from fullduplex.wire.keepalive import FOREVER
from wire.subject import Doubled, Growing, Slow, Spy, Wrapped, double

TOKENS = st.text("!#$%&'*+-.^_`|~09AZaz", min_size=1, max_size=5)
LISTS = st.lists(st.tuples(TOKENS, st.lists(st.tuples(TOKENS, st.none() | TOKENS), max_size=3)), min_size=1, max_size=5)


class TestHeader:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            # RFC 6455, section 9.1, and RFC 7692, section 7.1: their own examples.
            ("deflate-stream", [("deflate-stream", [])]),
            (
                "mux; max-channels=4; flow-control, deflate-stream",
                [("mux", [("max-channels", "4"), ("flow-control", None)]), ("deflate-stream", [])],
            ),
            ("private-extension", [("private-extension", [])]),
            (
                "permessage-deflate; client_max_window_bits; server_max_window_bits=10",
                [("permessage-deflate", [("client_max_window_bits", None), ("server_max_window_bits", "10")])],
            ),
            # Quoted, and the quotes are not part of it.
            ('a; x="1"', [("a", [("x", "1")])]),
            (r'a; x="\1\2"', [("a", [("x", "12")])]),
            (r'a; x="a\bc"', [("a", [("x", "abc")])]),
            # Spaces and empty elements, as in all lists: RFC 9110, sections 5.6.1.2 and 5.6.6.
            (" a ;\tx = 1\t;y , b ", [("a", [("x", "1"), ("y", None)]), ("b", [])]),
            (",, a,\t, b,", [("a", []), ("b", [])]),
            # The same again, which is for others to judge; and names differ by case.
            ("a; x; x=1, a, A", [("a", [("x", None), ("x", "1")]), ("a", []), ("A", [])]),
        ],
    )
    def test_good(self, text: str, expected: list[tuple[str, Parameters]]) -> None:
        assert parse_extensions([text]) == expected

    def test_several_lines(self) -> None:
        """They are one list: section 9.1."""
        assert parse_extensions(["a; x", "", "b, c"]) == [("a", [("x", None)]), ("b", []), ("c", [])]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            ",",
            ", ,",
            ";",
            "=",
            "a b",
            "a;",
            "a; ;x",
            "a; x=",
            "a; =1",
            "a; x==1",
            "a; x=1 2",
            "a; x y",
            "a=1",
            "a/b",
            "(a)",
            '"a"',
            'a; "x"=1',
            'a; x="',
            'a; x="1',
            'a; x=""',
            'a; x="1 2"',
            'a; x="1,2"',
            'a; x="1;2"',
            'a; x="1"2',
            'a; x=1"2"',
            r'a; x="1\"',
            r'a; x="\ "',
            "a; x=\xe9",
            "\xe9",
            "a, b; x=, c",
            "a\n",
        ],
    )
    def test_bad(self, text: str) -> None:
        """Section 9.1: whoever receives a list that is none fails the connection."""
        with pytest.raises(InvalidHeader) as caught:
            parse_extensions([text])
        assert (caught.value.name, caught.value.value, caught.value.status) == ("Sec-WebSocket-Extensions", text, 400)

    def test_no_more_than_anybody_needs(self) -> None:
        assert len(parse_extensions([", ".join(["a"] * MAX_OFFERS)])) == MAX_OFFERS
        with pytest.raises(InvalidHeader):
            parse_extensions([", ".join(["a"] * (MAX_OFFERS + 1))])

    @given(LISTS)
    def test_round_trip(self, extensions: list[tuple[str, Parameters]]) -> None:
        assert parse_extensions([format_extensions(extensions)]) == extensions

    @given(st.text('ab;=," \t\\', max_size=40))
    def test_any_text(self, text: str) -> None:
        """It is a list, and says the same when it is said again; or it is none, and InvalidHeader says so."""
        try:
            extensions = parse_extensions([text])
        except InvalidHeader:
            return
        assert extensions
        assert parse_extensions([format_extensions(extensions)]) == extensions

    @pytest.mark.parametrize(
        "text", ["a" + "; x" * 20_000 + "=", "a" + " " * 60_000 + "b", ", " * 30_000 + '"', 'a; x="' + "\\a" * 30_000]
    )
    def test_the_longest_head(self, text: str) -> None:
        """Each character is looked at a bounded number of times: no end would be seen of this otherwise."""
        with pytest.raises(InvalidHeader):
            parse_extensions([text])


class Factory(ExtensionFactory):
    """Agrees on an extension, under any name; its server wants to have "good" said, its client hear it."""

    def __init__(self, name: str, extension: Extension | None = None, offers: Sequence[Parameters] = ([],)) -> None:
        self.name = name
        self.extension = Spy() if extension is None else extension
        self._offers = offers
        self.heard: list[tuple[Parameters, ...]] = []

    def offers(self) -> Sequence[Parameters]:
        return self._offers

    def accept(self, offer: Parameters) -> tuple[Parameters, Extension] | None:
        self.heard.append((offer,))
        return None if ("bad", None) in offer else ([*offer, ("good", None)], self.extension)

    def agree(self, offer: Parameters, answer: Parameters) -> Extension:
        self.heard.append((offer, answer))
        if list(answer) != [*offer, ("good", None)]:
            raise NegotiationError(f"{self.name}: {answer} does not fit {offer}")
        return self.extension


GOOD: Parameters = [("good", None)]


class TestFactories:
    @pytest.mark.parametrize("factory", ["permessage-deflate", Factory, None, Spy()])
    def test_no_factory(self, factory: Any) -> None:
        with pytest.raises(TypeError, match="an extension is given as an instance of an ExtensionFactory"):
            check_factories([Factory("a"), factory])

    @pytest.mark.parametrize("name", ["", "a b", "a;b", "\xe9", '"a"'])
    def test_a_name_is_a_token(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"a token \(RFC 6455, section 9\.1\)"):
            check_factories([Factory(name)])

    def test_each_once(self) -> None:
        with pytest.raises(ValueError, match="each extension is given once"):
            check_factories([Factory("a"), Factory("b"), Factory("a")])

    def test_good_ones(self) -> None:
        one, two = Factory("a"), Factory("b")
        assert check_factories(iter([one, two])) == (one, two)
        assert check_factories([]) == ()

    def test_one_that_is_told_nothing_agrees_on_nothing(self) -> None:
        class Empty(ExtensionFactory):
            name = "empty"

        factory = Empty()
        assert list(factory.offers()) == [()]
        assert factory.accept([]) is None
        with pytest.raises(NegotiationError, match="unexpected answer to empty"):
            factory.agree([], [])


class TestServer:
    def test_nothing_in_common(self) -> None:
        assert accept_offers([], [("a", [])]) == ([], None)
        assert accept_offers([Factory("a")], []) == ([], None)
        assert accept_offers([Factory("a")], [("A", []), ("b", [])]) == ([], None)

    def test_one(self) -> None:
        factory = Factory("a")
        answer, extension = accept_offers([factory], [("b", []), ("a", [("x", "1")])])
        assert answer == [("a", [("x", "1"), ("good", None)])]
        assert extension is factory.extension

    def test_the_first_offer_that_fits(self) -> None:
        """The client's order is its preference."""
        factory = Factory("a")
        offers: list[tuple[str, Parameters]] = [("a", [("bad", None)]), ("a", [("x", "1")]), ("a", [("x", "2")])]
        answer, extension = accept_offers([factory], offers)
        assert answer == [("a", [("x", "1"), ("good", None)])]
        assert extension is factory.extension
        assert factory.heard == [([("bad", None)],), ([("x", "1")],)]

    def test_several_in_the_order_of_the_offers(self) -> None:
        factories = [Factory("a", Wrapped("a")), Factory("b", Wrapped("b"))]
        answer, extension = accept_offers(factories, [("b", []), ("c", []), ("a", [])])
        assert answer == [("b", GOOD), ("a", GOOD)]
        assert isinstance(extension, Stack)
        assert extension.encode(0x81, b"x", None) == (0x81, b"a(b(x))")

    def test_a_bit_has_one_owner(self) -> None:
        """An extension that wants one which is taken is declined; one that comes later may have another."""
        factories = [Factory("a", Spy(RSV1)), Factory("b", Spy(RSV1 | RSV2)), Factory("c", Spy(RSV2)), Factory("d")]
        answer, extension = accept_offers(factories, [(name, []) for name in "abcd"])
        assert answer == [("a", GOOD), ("c", GOOD), ("d", GOOD)]
        assert extension is not None
        assert extension.rsv == RSV1 | RSV2


class TestClient:
    def test_no_answer(self) -> None:
        assert check_answer([Factory("a")], []) is None

    def test_one(self) -> None:
        factories = [Factory("a"), Factory("b")]
        assert check_answer(factories, [("b", GOOD)]) is factories[1].extension
        assert factories[0].heard == []

    def test_the_order_is_that_of_the_answer(self) -> None:
        factories = [Factory("a", Wrapped("a")), Factory("b", Wrapped("b"))]
        extension = check_answer(factories, [("b", GOOD), ("a", GOOD)])
        assert isinstance(extension, Stack)
        assert extension.encode(0x81, b"x", None) == (0x81, b"a(b(x))")

    @pytest.mark.parametrize("answer", [["b"], ["a", "b"], ["a", "a"], ["A"], ["x" * 1000]])
    def test_what_was_not_offered(self, answer: list[str]) -> None:
        """Section 9.1: the client must fail the connection. Nor may an answer come twice."""
        with pytest.raises(NegotiationError, match="extension that wasn't offered, or twice in the answer") as caught:
            check_answer([Factory("a")], [(name, GOOD) for name in answer])
        assert len(str(caught.value)) < 500

    def test_any_of_our_offers_may_be_answered(self) -> None:
        factory = Factory("a", offers=[[("x", "1")], [("x", "2")], []])
        assert check_answer([factory], [("a", [("x", "2"), ("good", None)])]) is factory.extension
        assert len(factory.heard) == 2

    def test_an_answer_that_fits_none(self) -> None:
        factory = Factory("a", offers=[[("x", "1")], []])
        with pytest.raises(NegotiationError, match=r"a: .* does not fit \[\]$"):
            check_answer([factory], [("a", [("y", None)])])

    def test_nothing_was_offered(self) -> None:
        with pytest.raises(NegotiationError, match="extension that wasn't offered: a"):
            check_answer([Factory("a", offers=[])], [("a", GOOD)])

    def test_a_bit_has_one_owner(self) -> None:
        factories = [Factory("a", Spy(RSV1)), Factory("b", Spy(RSV1 | RSV3))]
        with pytest.raises(NegotiationError, match="b uses the same reserved bit as an extension before it"):
            check_answer(factories, [("a", GOOD), ("b", GOOD)])


class TestExtension:
    """One that is told nothing changes nothing."""

    def test_defaults(self) -> None:
        extension = Extension()
        assert (extension.rsv, extension.sees_all) == (0, True)
        assert (extension.shared, extension.send_rate) == (None, FOREVER)
        assert extension.encode(0x81, b"x", True) == (0x81, b"x")
        assert extension.encode_shared(0x81, b"x") == (0x81, b"x")
        assert extension.decode(b"x", True, 1) == b"x"
        extension.begin(0)
        extension.pass_shared(0x81)
        extension.rest()

    def test_what_is_shared_is_encoded_as_by_itself(self) -> None:
        assert Doubled().encode_shared(0x81, b"x") == (0x81 | RSV1, b"xx")

    def test_reserved_bits_mark_its_messages(self) -> None:
        assert not Spy(RSV3).sees_all


def decode_in_pieces(extension: Extension, rsv: int, data: bytes, cuts: list[int], limit: int = 10**6) -> bytes:
    extension.begin(rsv)
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    made = b""
    for i, (start, end) in enumerate(pairwise(bounds)):
        made += extension.decode(data[start:end], i == len(bounds) - 2, limit - len(made))
    return made


class TestStack:
    def test_order(self) -> None:
        """Section 9.1: with the answer "foo, bar" the data on the wire are bar(foo(data))."""
        stack = Stack([Wrapped("foo"), Wrapped("bar")])
        assert stack.encode(0x82, b"data", None) == (0x82, b"bar(foo(data))")
        assert stack.encode_shared(0x82, b"data") == (0x82, b"bar(foo(data))")
        assert decode_in_pieces(stack, 0, b"bar(foo(data))", []) == b"data"
        with pytest.raises(ProtocolError, match=r"bar\(\)"):
            decode_in_pieces(stack, 0, b"foo(bar(data))", [])

    def test_fragments(self) -> None:
        """Bits stand on the first; each extension sees each."""
        stack = Stack([Doubled(RSV2), Wrapped("foo"), Doubled(RSV1)])
        made = [
            stack.encode(0x01, b"a", None),
            stack.encode(0x00, b"", None),
            stack.encode(0x00, b"b", None),
            stack.encode(0x80, b"c", None),
        ]
        assert made == [
            (0x01 | RSV1 | RSV2, b"ffoooo((aaaa"),
            (0x00, b""),
            (0x00, b"bbbb"),
            (0x80, b"cccc))"),
        ]
        data = b"".join(bytes(payload) for _, payload in made)
        assert decode_in_pieces(stack, RSV1 | RSV2, data, [3, 5, 12, 13]) == b"abc"

    @given(st.binary(max_size=30), st.lists(st.integers(0, 150), max_size=8), st.permutations(range(4)))
    def test_round_trip(self, data: bytes, cuts: list[int], order: list[int]) -> None:
        """In any order, cut anywhere."""
        there, here = (
            Stack([[Doubled(RSV1), Wrapped("a"), Doubled(RSV2), Wrapped("b")][i] for i in order]) for _ in range(2)
        )
        for compress in (None, False):
            first, payload = there.encode(0x82, data, compress)
            assert decode_in_pieces(here, first & 0x70, bytes(payload), cuts) == data

    def test_who_has_a_part_in_a_message(self) -> None:
        """Those whose bit is set, and those without bits; the last in the answer first."""
        log: list[str] = []

        class Logged(Extension):
            def __init__(self, rsv: int) -> None:
                self.rsv = rsv

            def decode(self, data: bytes, complete: bool, limit: int) -> bytes:
                log.append(hex(self.rsv))
                return data

        stack = Stack([Logged(RSV1), Logged(0), Logged(RSV2)])
        assert stack.sees_all
        for rsv, seen in ((0, "0x0"), (RSV1, "0x0 0x40"), (RSV2, "0x20 0x0"), (RSV1 | RSV2, "0x20 0x0 0x40")):
            stack.begin(rsv)
            stack.decode(b"x", True, 100)
            assert " ".join(log) == seen
            log.clear()

    def test_what_all_are_told(self) -> None:
        one, two = Spy(RSV1), Spy(RSV2)
        stack = Stack([one, two])
        assert not stack.sees_all
        stack.encode(0x81, b"x", True)
        stack.pass_shared(0x81 | RSV1)
        stack.rest()
        stack.begin(RSV2)
        stack.decode(b"y", True, 10)
        assert one.noted() == [("encode", 0x81, b"x", True), ("pass_shared", 0x81 | RSV1), ("rest",)]
        assert two.noted() == [
            ("encode", 0x81, b"x", True),
            ("pass_shared", 0x81 | RSV1),
            ("rest",),
            ("begin", RSV2),
            ("decode", b"y", True, 10),
        ]

    def test_the_limit_is_of_the_message(self) -> None:
        """What one extension hands to the next may be a little larger; what comes out at the end may not."""
        inner, outer = Spy(), Spy()
        stack = Stack([inner, outer])
        stack.begin(0)
        stack.decode(b"x", True, 100)
        assert inner.noted()[-1] == ("decode", b"x", True, 100)
        assert outer.noted()[-1] == ("decode", b"x", True, widened(100))
        stack = Stack([Doubled(RSV2), Doubled(RSV1)])
        data = double(double(bytes(100)))
        assert decode_in_pieces(stack, RSV1 | RSV2, data, [], 100) == bytes(100)
        with pytest.raises(PayloadTooBig):
            decode_in_pieces(stack, RSV1 | RSV2, data, [], 99)

    def test_none_makes_more_than_the_next_may_take(self) -> None:
        growing = Growing()
        stack = Stack([Doubled(RSV2), growing])
        with pytest.raises(PayloadTooBig):
            decode_in_pieces(stack, RSV1 | RSV2, bytes(10_000), [], 100)
        assert growing.made == 0

    def test_bits_and_rates(self) -> None:
        stack = Stack([Slow(500.0), Spy(RSV3), Slow(100.0), Spy(RSV1)])
        assert (stack.rsv, stack.send_rate) == (RSV3 | RSV1, 100.0)
        assert Stack([Spy(), Spy()]).send_rate == FOREVER

    @pytest.mark.parametrize(
        ("kinds", "shared"), [(["a", "b"], ("a", "b")), (["a", None], None), ([None, None], None), ([1, 0], (1, 0))]
    )
    def test_sharing_takes_all_of_them(self, kinds: list[Any], shared: Hashable) -> None:
        assert Stack([Spy(0, kind) for kind in kinds]).shared == shared


def test_widened() -> None:
    """Encoding may cost a byte or more for each, and something at all."""
    assert widened(0) >= 1024
    assert widened(2**63 - 1) >= 2**63 - 1
    assert all(widened(size) >= 2 * size for size in (1, 1000, 2**20))
