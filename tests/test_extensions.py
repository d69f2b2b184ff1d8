"""The names in `fullduplex.extensions`, and that an extension of one's own stands on them alone."""

from __future__ import annotations

import pytest

import fullduplex.extensions as public
from fullduplex.testing import Pair
from fullduplex.wire.opcodes import BINARY_FRAME
from fullduplex.wire.session import Session


class Reversed(public.Extension):
    """Marks what it has turned round."""

    rsv = public.RSV2

    def __init__(self) -> None:
        self._held = b""

    def encode(self, first: int, payload: public.Payload, compress: bool | None) -> tuple[int, public.Payload]:
        return first | self.rsv, bytes(payload)[::-1]

    def decode(self, data: bytes, complete: bool, limit: int) -> bytes:
        self._held += data
        if not complete:
            return b""
        message, self._held = self._held[::-1], b""
        return message


class Reverse(public.ExtensionFactory):
    name = "reverse"

    def accept(self, offer: public.Parameters) -> tuple[public.Parameters, public.Extension] | None:
        return offer, Reversed()

    def agree(self, offer: public.Parameters, answer: public.Parameters) -> public.Extension:
        return Reversed()


NAMES = [
    "Extension",
    "ExtensionFactory",
    "Parameters",
    "Payload",
    "PerMessageDeflate",
    "RSV1",
    "RSV2",
    "RSV3",
    "TransferRate",
]


def test_the_names_are_these() -> None:
    assert sorted(public.__all__) == NAMES
    assert sorted(name for name in vars(public) if name[0] != "_" and name != "annotations") == NAMES


def test_reserved_bits() -> None:
    """RFC 6455, section 5.2: the three behind FIN, in the first byte of a frame."""
    assert [public.RSV1, public.RSV2, public.RSV3] == [0b0100_0000, 0b0010_0000, 0b0001_0000]


@pytest.mark.parametrize("cut", [1, 65536])
def test_all_at_once(cut: int) -> None:
    """One of your own, beside those that come with fullduplex."""
    sessions = [Session(server, ping_interval=None) for server in (False, True)]
    extensions = [Reverse(), public.PerMessageDeflate(threshold=1), public.TransferRate(receive=10_000)]
    pair = Pair(*sessions, cut=cut, extensions=extensions)
    for end in pair.ends:
        assert end.session.extension is not None
        assert end.session.extension.rsv == public.RSV1 | public.RSV2
        end.session.send(BINARY_FRAME, b"abc" * 1000)
        end.session.send(BINARY_FRAME, b"")
    pair.pass_time(10.0)
    for end in pair.ends:
        assert end.messages == [b"abc" * 1000, b""]
        assert end.sent[0] == BINARY_FRAME | public.RSV1 | public.RSV2
