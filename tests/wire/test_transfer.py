from __future__ import annotations

import pytest

from fullduplex.wire.errors import NegotiationError
from fullduplex.wire.extensions import Parameters, accept_offers, check_answer, check_factories
from fullduplex.wire.keepalive import FOREVER
from fullduplex.wire.opcodes import Opcode
from fullduplex.wire.transfer import Paced, TransferRate

# What is no number of bytes a second, or no parameter that we know.
WRONG: list[Parameters] = [
    [("receive", None)],
    [("receive", "0")],
    [("receive", "-1")],
    [("receive", "+1")],
    [("receive", "01")],
    [("receive", "1.5")],
    [("receive", "1e3")],
    [("receive", "1_000")],
    [("receive", "\u0661")],  # a digit, but none of ours
    [("receive", "1\n")],
    [("receive", "1" * 19)],
    [("receive", "fast")],
    [("Receive", "1")],
    [("send", "1")],
    [("send", None)],
    [("receive", "1"), ("receive", "1")],
    [("receive", "1"), ("burst", "1")],
]


@pytest.mark.parametrize(
    ("ours", "theirs"), [(None, None), (1, None), (None, 100_000), (500_000, 100_000), (10**15, 1)]
)
def test_each_side_keeps_the_rate_of_the_other(ours: int | None, theirs: int | None) -> None:
    server, client = TransferRate(ours), TransferRate(theirs)
    [offer] = client.offers()
    assert offer == ([] if theirs is None else [("receive", str(theirs))])
    answer, here = accept_offers([server], [(client.name, offer)])
    assert answer == [("transfer-rate", [] if ours is None else [("receive", str(ours))])]
    there = check_answer([client], answer)
    assert here is not None
    assert there is not None
    assert here.send_rate == (FOREVER if theirs is None else theirs)
    assert there.send_rate == (FOREVER if ours is None else ours)


@pytest.mark.parametrize("parameters", WRONG, ids=repr)
def test_what_it_does_not_know(parameters: Parameters) -> None:
    """A server declines it; a client, whose server speaks of something else, does not connect."""
    factory = TransferRate()
    assert factory.accept(parameters) is None
    with pytest.raises(NegotiationError, match="transfer-rate knows one parameter, receive"):
        factory.agree([], parameters)


def test_an_offer_that_is_declined_may_be_followed_by_a_better_one() -> None:
    offers: list[tuple[str, Parameters]] = [
        ("transfer-rate", [("receive", "0")]),
        ("transfer-rate", [("receive", "5")]),
    ]
    answer, extension = accept_offers([TransferRate(7)], offers)
    assert answer == [("transfer-rate", [("receive", "7")])]
    assert extension is not None
    assert extension.send_rate == 5


@pytest.mark.parametrize("receive", [0, -1, 1.5, "fast", 10**18, FOREVER, True])
def test_a_rate_is_a_whole_number(receive: int) -> None:
    with pytest.raises(ValueError, match="receive is a whole number of bytes a second above 0"):
        TransferRate(receive)


def test_nothing_is_changed() -> None:
    """Messages pass as they are, in both directions, and are shared with all others of the kind."""
    paced = Paced(1000.0)
    assert (paced.rsv, paced.sees_all) == (0, False)
    assert paced.encode(0x80 | Opcode.TEXT, b"x", None) == (0x80 | Opcode.TEXT, b"x")
    assert paced.encode_shared(0x80 | Opcode.TEXT, b"x") == (0x80 | Opcode.TEXT, b"x")
    assert paced.shared == Paced(5.0).shared


def test_one_serves_all() -> None:
    factory = TransferRate(1)
    assert check_factories([factory]) == (factory,)
    assert factory.receive == 1
