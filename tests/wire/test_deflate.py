"""permessage-deflate, held against zlib itself, against RFC 7692 line by line, and against bad data."""

from __future__ import annotations

import itertools
import random
import sys
import tracemalloc
import zlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fullduplex.wire import deflate
from fullduplex.wire.deflate import COMPRESSORS, INFLATERS, MAX_FINAL_BLOCKS, THRESHOLD, Deflate, PerMessageDeflate
from fullduplex.wire.errors import NegotiationError, PayloadTooBig, ProtocolError
from fullduplex.wire.extensions import (
    RSV1,
    Extension,
    Parameters,
    accept_offers,
    format_extensions,
    parse_extensions,
)
from fullduplex.wire.opcodes import FIN, Opcode

TEXT = FIN | Opcode.TEXT
TAIL = b"\x00\x00\xff\xff"
NAME = "permessage-deflate"
NOTHING = [(FIN, b"\x00"), (FIN, b"\x02\x00")]  # an empty block: stored, or in the fixed code, and one stored
BOMB = zlib.compress(bytes(64 * 2**20), 9, wbits=-15)

# Nothing repeats in it: messages that are cut from it are small only by what the window still has of those before them.
NOISE = random.Random(7692).randbytes(70_000)


def installed(module: str) -> bool:
    try:
        deflate.load_backend([module])
    except ImportError:
        return False
    return True


@pytest.fixture(autouse=True, params=[name for name in COMPRESSORS if installed(name)])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test here holds for each backend that is installed."""
    name: str = request.param
    loaded = deflate.load_backend([name])
    other = loaded if name in INFLATERS else deflate.load_backend(["zlib"])
    monkeypatch.setattr(deflate, "_quickest", loaded)
    monkeypatch.setattr(deflate, "_leveled", other)
    monkeypatch.setattr(deflate, "_inflating", other)
    return name


def parameters(text: str) -> Parameters:
    [(name, found)] = parse_extensions([f"{NAME}; {text}" if text else NAME])
    assert name == NAME
    return found


def text_of(found: Parameters) -> str:
    return format_extensions([(NAME, found)]).removeprefix(NAME).removeprefix("; ")


def server(offer: str = "", **settings: Any) -> Deflate:
    """The server's side of what became of an offer."""
    accepted = PerMessageDeflate(**settings).accept(parameters(offer))
    assert accepted is not None
    return of_deflate(accepted[1])


def client(offer: str = "", answer: str = "", **settings: Any) -> Deflate:
    return of_deflate(PerMessageDeflate(**settings).agree(parameters(offer), parameters(answer)))


def of_deflate(extension: Extension) -> Deflate:
    assert isinstance(extension, Deflate)
    return extension


def sent(extension: Extension, payload: bytes, compress: bool | None = None) -> bytes:
    """The payload of a message as it leaves; it must leave compressed."""
    first, data = extension.encode(TEXT, payload, compress)
    assert first == TEXT | RSV1
    return bytes(data)


def received(extension: Extension, *pieces: bytes, limit: int = 2**20) -> bytes:
    extension.begin(RSV1)
    message = b""
    for i, piece in enumerate(pieces, 1):
        message += extension.decode(piece, i == len(pieces), limit - len(message))
    return message


class Inflater:
    """The other side: zlib with a window of its own, for all messages of a connection."""

    def __init__(self, bits: int = 15) -> None:
        self.zlib = zlib.decompressobj(-bits)

    def __call__(self, data: bytes) -> bytes:
        message = self.zlib.decompress(data + TAIL)
        assert not self.zlib.eof
        assert not self.zlib.unused_data
        return message


def compressed(*messages: bytes, bits: int = 15) -> Iterator[bytes]:
    """Messages as zlib sends them on one connection."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -bits)
    for message in messages:
        data = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert data.endswith(TAIL)
        yield data[:-4]


class TestSettings:
    @pytest.mark.parametrize("name", ["server_max_window_bits", "client_max_window_bits"])
    @pytest.mark.parametrize("bits", [-1, 0, True, 7, 16, 256])
    def test_windows(self, name: str, bits: int) -> None:
        with pytest.raises(ValueError, match=rf"^{name} is 9 to 15 \(RFC 7692, section 7\.1\.2\)"):
            PerMessageDeflate(**{name: bits})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=rf"^{name} .*RFC 7692, section 7\.1\.2.* zlib cannot"):
            PerMessageDeflate(**{name: 8})  # type: ignore[arg-type]
        PerMessageDeflate(**{name: 9})  # type: ignore[arg-type]
        PerMessageDeflate(**{name: 15})  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("name", "value"), [("level", 0), ("level", 10), ("memory_level", 0), ("memory_level", 10), ("threshold", -1)]
    )
    def test_others(self, name: str, value: int) -> None:
        with pytest.raises(ValueError, match=f"^{name} is .*{value}$"):
            PerMessageDeflate(**{name: value})  # type: ignore[arg-type]

    @pytest.mark.parametrize("bits", [9, 15])
    @pytest.mark.parametrize("level", [1, 9])
    @pytest.mark.parametrize("memory_level", [1, 9])
    def test_at_their_ends(self, bits: int, level: int, memory_level: int) -> None:
        extension = server(server_max_window_bits=bits, level=level, memory_level=memory_level)
        inflate = Inflater(bits)
        for message in (NOISE[:3000], NOISE[:1000] * 3, b"a" * 1000):
            assert inflate(sent(extension, message)) == message


class TestOffers:
    @pytest.mark.parametrize(
        ("settings", "offers"),
        [
            ({}, ["client_max_window_bits"]),  # as browsers do
            ({"client_max_window_bits": 10}, ["client_max_window_bits=10"]),
            ({"server_no_context_takeover": True}, ["server_no_context_takeover; client_max_window_bits"]),
            ({"client_no_context_takeover": True}, ["client_no_context_takeover; client_max_window_bits"]),
            # Section 7.1.3 has this very list.
            (
                {"server_max_window_bits": 10},
                ["client_max_window_bits; server_max_window_bits=10", "client_max_window_bits"],
            ),
            ({"level": 1, "memory_level": 1, "threshold": 1}, ["client_max_window_bits"]),
        ],
    )
    def test_offers(self, settings: dict[str, Any], offers: list[str]) -> None:
        factory = PerMessageDeflate(**settings)
        assert [text_of(offer) for offer in factory.offers()] == offers
        # We would accept our own.
        assert all(PerMessageDeflate().accept(offer) for offer in factory.offers())


NO_CONTEXT: dict[str, Any] = {"server_no_context_takeover": True, "client_no_context_takeover": True}


class TestServer:
    @pytest.mark.parametrize(
        ("offer", "answer"),
        [
            ("", ""),
            # Section 7.1.1.1: what is asked must be answered.
            ("server_no_context_takeover", "server_no_context_takeover"),
            ("client_no_context_takeover", "client_no_context_takeover"),
            (
                "client_no_context_takeover; server_no_context_takeover",
                "server_no_context_takeover; client_no_context_takeover",
            ),
            # Section 7.1.2.1: what is asked must be answered, with the same or less.
            ("server_max_window_bits=9", "server_max_window_bits=9"),
            ("server_max_window_bits=12", "server_max_window_bits=12"),
            ("server_max_window_bits=13", "server_max_window_bits=12"),
            ("server_max_window_bits=15", "server_max_window_bits=12"),
            # Section 7.1.2.2: with or without a value; answered with the same or less.
            ("client_max_window_bits", "client_max_window_bits=12"),
            ("client_max_window_bits=15", "client_max_window_bits=12"),
            ("client_max_window_bits=10", "client_max_window_bits=10"),
            ("client_max_window_bits=8", "client_max_window_bits=8"),
            ('client_max_window_bits="10"', "client_max_window_bits=10"),
            (
                "client_max_window_bits; server_max_window_bits=10",
                "server_max_window_bits=10; client_max_window_bits=12",
            ),
        ],
    )
    def test_answers(self, offer: str, answer: str) -> None:
        accepted = PerMessageDeflate().accept(parameters(offer))
        assert accepted is not None
        assert text_of(accepted[0]) == answer

    @pytest.mark.parametrize(
        ("settings", "offer", "answer"),
        [
            # Sections 7.1.1.1 and 7.1.1.2: the server may demand both, asked or not.
            (NO_CONTEXT, "", "server_no_context_takeover; client_no_context_takeover"),
            (NO_CONTEXT, "server_no_context_takeover", "server_no_context_takeover; client_no_context_takeover"),
            ({"server_max_window_bits": 9}, "", ""),
            ({"server_max_window_bits": 9}, "server_max_window_bits=10", "server_max_window_bits=9"),
            ({"server_max_window_bits": 15}, "server_max_window_bits=14", "server_max_window_bits=14"),
            # Section 7.1.2.2: must not be answered unless offered.
            ({"client_max_window_bits": 9}, "", ""),
            ({"client_max_window_bits": 9}, "client_max_window_bits", "client_max_window_bits=9"),
            ({"client_max_window_bits": 15}, "client_max_window_bits", "client_max_window_bits=15"),
            ({"client_max_window_bits": 15}, "client_max_window_bits=14", "client_max_window_bits=14"),
        ],
    )
    def test_settings(self, settings: dict[str, Any], offer: str, answer: str) -> None:
        accepted = PerMessageDeflate(**settings).accept(parameters(offer))
        assert accepted is not None
        assert text_of(accepted[0]) == answer

    @pytest.mark.parametrize(
        "offer",
        [
            # Section 7.1: unknown, with a value that is not defined, twice.
            "unknown",
            "unknown=1",
            "Server_No_Context_Takeover",
            "server_no_context_takeover=1",
            "server_no_context_takeover=true",
            "client_no_context_takeover=1",
            "server_no_context_takeover; server_no_context_takeover",
            "client_no_context_takeover; client_no_context_takeover",
            "client_max_window_bits; client_max_window_bits",
            "client_max_window_bits; client_max_window_bits=10",
            "server_max_window_bits=10; server_max_window_bits=10",
            # Section 7.1.2.1: the server's window has a value.
            "server_max_window_bits",
            # zlib has no such window.
            "server_max_window_bits=8",
            # Section 7.1.2: 8 to 15, without leading zeros.
            *(
                f"{side}_max_window_bits={bits}"
                for side in ("server", "client")
                for bits in ("0", "7", "16", "08", "010", "+10", "-10", "1", "100", "10.0", "1e1", "ten", "0xa")
            ),
            # One that is wrong spoils those that are not.
            "client_no_context_takeover; server_max_window_bits=16",
        ],
    )
    def test_declines(self, offer: str) -> None:
        assert PerMessageDeflate().accept(parameters(offer)) is None

    @pytest.mark.parametrize("value", ["", " 10", "10 ", "10\n", "\u0661\u0660", "\uff11\uff10"])
    def test_declines_what_no_parser_gives(self, value: str) -> None:
        assert PerMessageDeflate().accept([("client_max_window_bits", value)]) is None

    @pytest.mark.parametrize(
        ("offers", "answer"),
        [
            # Section 7.1.3.
            (f"{NAME}", f"{NAME}"),
            (
                f"{NAME}; client_max_window_bits; server_max_window_bits=10, {NAME}; client_max_window_bits",
                f"{NAME}; server_max_window_bits=10; client_max_window_bits=12",
            ),
            (
                f"{NAME}; server_max_window_bits=8, {NAME}; client_max_window_bits=9",
                f"{NAME}; client_max_window_bits=9",
            ),
            (f"{NAME}; server_max_window_bits=16, {NAME}; unknown", ""),
            (f"x-webkit-deflate-frame, {NAME}", f"{NAME}"),
        ],
    )
    def test_the_first_offer_that_fits(self, offers: str, answer: str) -> None:
        agreed, extension = accept_offers([PerMessageDeflate()], parse_extensions([offers]))
        assert format_extensions(agreed) == answer
        assert (extension is not None) is bool(answer)


class TestClient:
    @pytest.mark.parametrize(
        ("offer", "answer"),
        [
            ("", ""),
            ("server_no_context_takeover", "server_no_context_takeover"),
            # Sections 7.1.1.1, 7.1.1.2 and 7.1.2.1: the server may answer these unasked.
            ("", "server_no_context_takeover"),
            ("", "client_no_context_takeover"),
            ("", "server_max_window_bits=8"),
            ("", "server_max_window_bits=15"),
            # Section 7.1.1.2: and it may ignore that the client will not take over.
            ("client_no_context_takeover", ""),
            ("server_max_window_bits=10", "server_max_window_bits=10"),
            ("server_max_window_bits=10", "server_max_window_bits=8"),
            ("client_max_window_bits", ""),
            ("client_max_window_bits", "client_max_window_bits=15"),
            ("client_max_window_bits", "client_max_window_bits=8"),
            ("client_max_window_bits=10", "client_max_window_bits=10"),
            ("client_max_window_bits=10", "client_max_window_bits=9"),
        ],
    )
    def test_agrees(self, offer: str, answer: str) -> None:
        client(offer, answer)

    @pytest.mark.parametrize(
        ("offer", "answer", "section"),
        [
            ("", "unknown", "7.1"),
            ("", "unknown=1", "7.1"),
            ("", "server_no_context_takeover=1", "7.1"),
            ("", "client_no_context_takeover=1", "7.1"),
            ("", "server_no_context_takeover; server_no_context_takeover", "7.1"),
            ("", "server_max_window_bits=10; server_max_window_bits=10", "7.1"),
            ("", "server_max_window_bits", "7.1"),
            ("", "server_max_window_bits=16", "7.1"),
            ("", "server_max_window_bits=7", "7.1"),
            ("", "server_max_window_bits=08", "7.1"),
            ("client_max_window_bits", "client_max_window_bits", "7.1"),
            ("client_max_window_bits", "client_max_window_bits=7", "7.1"),
            ("client_max_window_bits", "client_max_window_bits=16", "7.1"),
            ("server_no_context_takeover", "", "7.1.1.1"),
            ("server_no_context_takeover", "client_no_context_takeover", "7.1.1.1"),
            ("server_max_window_bits=10", "", "7.1.2.1"),
            ("server_max_window_bits=10", "server_max_window_bits=11", "7.1.2.1"),
            ("", "client_max_window_bits=8", "7.1.2.2"),
            ("server_max_window_bits=10", "server_max_window_bits=10; client_max_window_bits=9", "7.1.2.2"),
            ("client_max_window_bits=10", "client_max_window_bits=11", "7.1.2.2"),
        ],
    )
    def test_refuses(self, offer: str, answer: str, section: str) -> None:
        with pytest.raises(NegotiationError, match=rf"^{NAME}: .* \(RFC 7692, section {section}\)$"):
            client(offer, answer)

    def test_what_a_server_sent_is_shown_harmless(self) -> None:
        with pytest.raises(NegotiationError, match=r"parameter \\x1b=\\x1b\[2J "):
            PerMessageDeflate().agree([], [("\x1b", "\x1b[2J")])


class TestWindows:
    """Each side's is what was agreed on: not larger when compressing, not smaller when inflating."""

    @pytest.mark.parametrize("bits", range(9, 16))
    def test_ours(self, bits: int) -> None:
        sides = [
            server(server_max_window_bits=bits),
            server(f"server_max_window_bits={bits}", server_max_window_bits=15),
            client(client_max_window_bits=bits),
            client("client_max_window_bits", f"client_max_window_bits={bits}", client_max_window_bits=15),
        ]
        far, near = (1 << bits) + 100, (1 << bits) - 300  # zlib leaves the last 262 bytes of its window alone
        for extension in sides:
            inflate = Inflater(bits)
            for distance, repeats in ((far, False), (near, True)):
                first = NOISE[:distance] if repeats else NOISE[-distance:]
                message = first[:100]
                assert inflate(sent(extension, first)) == first
                again = sent(extension, message)
                assert inflate(again) == message
                assert (len(again) < 50) is repeats

    def test_ours_by_default(self) -> None:
        assert server().shared == client().shared == server(server_max_window_bits=12).shared

    @pytest.mark.parametrize("bits", range(8, 16))
    def test_theirs(self, bits: int) -> None:
        sides = [
            client(answer=f"server_max_window_bits={bits}"),
            server(f"client_max_window_bits={bits}", client_max_window_bits=15),
        ]
        first = NOISE[: (1 << max(bits, 9)) - 300]
        for extension in sides:
            for data, message in zip(
                compressed(first, first[:100], bits=max(bits, 9)), (first, first[:100]), strict=True
            ):
                assert received(extension, data) == message

    def test_theirs_where_nothing_was_said(self) -> None:
        first = NOISE[:32_000]
        for extension in (client(), server(), client("client_max_window_bits"), server(client_max_window_bits=9)):
            for data, message in zip(compressed(first, first[:100]), (first, first[:100]), strict=True):
                assert received(extension, data) == message

    def test_no_window_that_zlib_has(self) -> None:
        """Section 7.1.2.2: the server limits us to 2 ** 8 bytes. Section 6: to compress is never a must."""
        extension = client("client_max_window_bits", "client_max_window_bits=8")
        message = b"a" * 1000
        assert extension.shared is None
        for compress in (None, False, True):
            assert extension.encode(TEXT, message, compress) == (TEXT, message)
            assert extension.encode(Opcode.TEXT, message, compress) == (Opcode.TEXT, message)
            assert extension.encode(FIN, message, compress) == (FIN, message)
        assert extension.encode_shared(TEXT, message) == (TEXT, message)
        assert received(extension, sent(server(), message)) == message


class TestSending:
    def test_what_is_worth_it(self) -> None:
        small, large = b"a" * (THRESHOLD - 1), b"a" * THRESHOLD
        extension = server()
        assert extension.encode(TEXT, small, None) == (TEXT, small)
        assert extension.encode(TEXT, large, False) == (TEXT, large)
        inflate = Inflater()
        assert inflate(sent(extension, large)) == large
        assert inflate(sent(extension, small, True)) == small
        assert inflate(sent(server(threshold=0), b"a")) == b"a"

    @pytest.mark.parametrize("compress", [None, False, True])
    def test_nothing_is_never_compressed(self, compress: bool | None) -> None:
        assert server(threshold=0).encode(TEXT, b"", compress) == (TEXT, b"")

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_bytes_of_any_kind(self, kind: Any) -> None:
        assert Inflater()(sent(server(), kind(b"a" * 100))) == b"a" * 100

    def test_other_bits_stay(self) -> None:
        assert server().encode(TEXT | 0x30, b"a" * 100, None)[0] == TEXT | 0x30 | RSV1

    @pytest.mark.parametrize("compress", [None, True])
    @pytest.mark.parametrize(
        "parts", [(b"Hel", b"lo"), (b"Hello", b""), (b"", b"Hello"), (b"", b""), (b"a", b"", b"b")]
    )
    def test_fragments(self, parts: tuple[bytes, ...], compress: bool | None) -> None:
        """Compressed from the first, whatever its size; and one that comes alone can be read alone."""
        extension = server()
        inflate = Inflater()
        for _ in range(3):
            for i, part in enumerate(parts):
                last = i == len(parts) - 1
                first, data = extension.encode((0 if i else Opcode.TEXT) | (FIN if last else 0), part, compress)
                assert first == (0 if i else Opcode.TEXT | RSV1) | (FIN if last else 0)
                assert inflate.zlib.decompress(data) == part
            assert inflate.zlib.decompress(TAIL) == b""
            message = b"Hello" * 20
            assert inflate(sent(extension, message)) == message

    def test_a_last_fragment_of_nothing(self) -> None:
        """Section 7.2.3.6."""
        extension = server()
        extension.encode(Opcode.TEXT, b"Hello", None)
        assert extension.encode(FIN, b"", None) in NOTHING

    def test_a_compressor_that_has_nothing_to_flush(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """zlib's writes an empty block all the same, but nobody promises that."""

        class Silent:
            def compress(self, data: bytes) -> bytes:
                return data

            def flush(self, mode: int) -> bytes:
                return b""

        monkeypatch.setattr(
            deflate, "_quickest", deflate.Backend("", SimpleNamespace(compressobj=lambda *_: Silent()), 6)
        )
        extension = server()
        assert extension.encode(Opcode.TEXT, b"block" + TAIL, None) == (Opcode.TEXT | RSV1, b"block" + TAIL)
        assert extension.encode(FIN, b"", None) in NOTHING

    def test_fragments_that_are_not_compressed(self) -> None:
        """What was decided holds for the whole message, and not for the next."""
        extension = server()
        large = b"a" * 1000
        assert extension.encode(Opcode.TEXT, large, False) == (Opcode.TEXT, large)
        assert extension.encode(Opcode.CONT, large, True) == (Opcode.CONT, large)
        assert extension.encode(FIN, large, None) == (FIN, large)
        assert Inflater()(sent(extension, large)) == large

    def test_context(self) -> None:
        message = NOISE[:500]
        with_context, without = server(), server("server_no_context_takeover")
        inflate = Inflater()
        assert [len(sent(with_context, message)) < 50 for _ in range(3)] == [False, True, True]
        for _ in range(2):
            data = sent(without, message, True)
            assert len(data) > 500
            assert inflate(data) == message
        # As a client that said so, though the server did not repeat it.
        assert len({sent(client(client_no_context_takeover=True), message, True) for _ in range(2)}) == 1

    def test_what_does_not_become_smaller(self) -> None:
        """It goes out as it is where that does not cost the window, and where nobody insists."""
        noise = NOISE[:200]
        assert server(**NO_CONTEXT).encode(TEXT, noise, None) == (TEXT, noise)
        assert server().encode_shared(TEXT, noise) == (TEXT, noise)
        assert Inflater()(sent(server(**NO_CONTEXT), noise, True)) == noise
        extension = server()
        assert len(sent(extension, noise)) > len(noise)
        assert len(sent(extension, noise)) < 50

    def test_fragments_without_context(self) -> None:
        extension = server(**NO_CONTEXT)
        for _ in range(2):
            inflate = Inflater()  # a new window for each message
            first, data = extension.encode(Opcode.TEXT, NOISE[:300], None)
            assert first == Opcode.TEXT | RSV1
            assert inflate.zlib.decompress(data) == NOISE[:300]
            first, data = extension.encode(FIN, NOISE[:300], None)
            assert first == FIN
            assert inflate(bytes(data)) == NOISE[:300]
            assert len(data) < 50

    def test_rest_drops_a_compressor_that_was_not_used(self) -> None:
        message = NOISE[:500]
        extension = server()
        inflate = Inflater()
        sizes = []
        for rests in (0, 1, 2, 0, 1, 1):
            for _ in range(rests):
                extension.rest()
            data = sent(extension, message)
            assert inflate(data) == message
            sizes.append(len(data))
        assert [size < 50 for size in sizes] == [False, True, False, True, True, True]

    def test_rest_inside_a_message(self) -> None:
        extension = server()
        inflate = Inflater()
        extension.encode(Opcode.TEXT, b"", None)
        for first, part in ((Opcode.CONT, b"Hello"), (Opcode.CONT, b"Hello"), (FIN, b"")):
            extension.rest()
            extension.rest()
            _, data = extension.encode(first, part, None)
            assert inflate.zlib.decompress(data) == part
        assert inflate.zlib.decompress(TAIL) == b""


class TestShared:
    def test_one_for_all(self) -> None:
        """What one connection encodes is read on all others, whatever was said there before, and after."""
        message, own = NOISE[:300] * 2, NOISE[300:600] * 2
        sides = [server(), server("server_no_context_takeover"), server("server_max_window_bits=12")]
        assert len({side.shared for side in sides}) == 1
        inflaters = [Inflater(12) for _ in sides]
        for _ in range(2):
            for side, inflate in zip(sides, inflaters, strict=True):
                assert inflate(sent(side, own)) == own
            first, data = sides[0].encode_shared(TEXT, message)
            assert first == TEXT | RSV1
            assert len(data) < len(message)
            for side, inflate in zip(sides, inflaters, strict=True):
                side.pass_shared(first)
                assert inflate(bytes(data)) == message

    def test_what_is_not_compressed_costs_no_window(self) -> None:
        message, small = NOISE[:500], b"a" * (THRESHOLD - 1)
        extension = server()
        sent(extension, message)
        first, data = extension.encode_shared(TEXT, small)
        assert (first, data) == (TEXT, small)
        extension.pass_shared(first)
        assert len(sent(extension, message)) < 50
        extension.pass_shared(TEXT | RSV1)
        assert len(sent(extension, message)) > 500

    def test_who_shares(self) -> None:
        usual = server()
        assert usual.shared == server(**NO_CONTEXT).shared == server("client_max_window_bits=9").shared
        assert hash(usual.shared) == hash(client().shared)
        others = [
            server(server_max_window_bits=11),
            server("server_max_window_bits=11"),
            server(level=1),
            server(memory_level=1),
            server(threshold=1),
        ]
        assert [other.shared != usual.shared for other in others] == [True] * 5
        assert others[0].shared == others[1].shared


# RFC 7692, section 7.2.3: the payloads of its frames.
HELLO = bytes.fromhex("f2 48 cd c9 c9 07 00")


class TestReceiving:
    @pytest.mark.parametrize(
        ("messages", "expected"),
        [
            pytest.param([[HELLO]], [b"Hello"], id="7.2.3.1 one frame"),
            pytest.param([[HELLO[:3], HELLO[3:]]], [b"Hello"], id="7.2.3.1 two frames"),
            pytest.param([[HELLO], ["f2 00 11 00 00"]], [b"Hello", b"Hello"], id="7.2.3.2 the window is shared"),
            pytest.param([["00 05 00 fa ff 48 65 6c 6c 6f 00"]], [b"Hello"], id="7.2.3.3 not compressed"),
            pytest.param([["f3 48 cd c9 c9 07 00 00"]], [b"Hello"], id="7.2.3.4 a final block"),
            pytest.param(
                [["f3 48 cd c9 c9 07 00 00"], ["f2 00 11 00 00"]], [b"Hello", b"Hello"], id="7.2.3.4 its window"
            ),
            pytest.param([["f2 48 05 00 00 00 ff ff ca c9 c9 07 00"]], [b"Hello"], id="7.2.3.5 two blocks"),
            pytest.param([["00"]], [b""], id="7.2.3.6 nothing"),
            pytest.param([["02 00"]], [b""], id="nothing, in another way"),
            pytest.param([["00"], [HELLO], ["00"], ["f2 00 11 00 00"]], [b"", b"Hello", b"", b"Hello"], id="in turn"),
            pytest.param([["", HELLO, ""]], [b"Hello"], id="empty fragments"),
        ],
    )
    @pytest.mark.parametrize("bytewise", [False, True])
    def test_vectors(self, messages: list[list[bytes | str]], expected: list[bytes], bytewise: bool) -> None:
        extension = client()
        for pieces, message in zip(messages, expected, strict=True):
            data = [bytes.fromhex(piece) if isinstance(piece, str) else piece for piece in pieces]
            if bytewise:
                data = [bytes([byte]) for piece in data for byte in piece]
            assert received(extension, *data) == message

    def test_what_can_be_shown_is_shown(self) -> None:
        extension = client()
        [data] = compressed(b"Hello" * 50)
        assert extension.decode(data, False, 1000) == b"Hello" * 50
        assert extension.decode(b"", True, 1000) == b""

    def test_context(self) -> None:
        message = NOISE[:500]
        first, second = compressed(message, message)
        with_context, without = client(), client(answer="server_no_context_takeover")
        assert received(with_context, first) == received(with_context, second) == message
        for pieces in ([first], [first[:50], first[50:]]):
            assert received(without, *pieces) == message
            assert received(without, *pieces) == message
        with pytest.raises(ProtocolError, match="too far back"):
            received(without, second)

    @pytest.mark.parametrize("answer", ["", "server_no_context_takeover"])
    @pytest.mark.parametrize("split", [False, True])
    def test_after_a_final_block_the_window_goes_on(self, answer: str, split: bool) -> None:
        whole = zlib.compressobj(9, zlib.DEFLATED, -15)
        data = whole.compress(NOISE[:500]) + whole.flush()
        goes_on = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=NOISE[:500])
        more = goes_on.compress(NOISE[:400]) + goes_on.flush(zlib.Z_SYNC_FLUSH)[:-4]
        assert len(more) < 50
        pieces = [data, more] if split else [data + more]
        assert received(client(answer=answer), *pieces) == NOISE[:500] + NOISE[:400]

    def test_a_final_block_after_many_pieces(self) -> None:
        """More output than is inflated at a time, in a message that nothing else remembers."""
        zeros = bytes(200_000)
        whole = zlib.compressobj(9, zlib.DEFLATED, -15)
        data = whole.compress(NOISE[:500] + zeros + NOISE[500:1000]) + whole.flush()
        goes_on = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=zeros[:32_000] + NOISE[500:1000])
        data += goes_on.compress(NOISE[500:1000]) + goes_on.flush(zlib.Z_SYNC_FLUSH)[:-4]
        message = received(client(answer="server_no_context_takeover"), data)
        assert message == NOISE[:500] + zeros + NOISE[500:1000] * 2

    @pytest.mark.parametrize("split", [False, True])
    def test_final_blocks_are_bounded(self, split: bool) -> None:
        block = b"\x03\x00"  # final, fixed codes, nothing in it
        extension = client()

        def pieces(blocks: int) -> list[bytes]:
            return [*[block] * blocks, b"\x00"] if split else [block * blocks + b"\x00"]

        for _ in range(2):  # in each message anew
            assert received(extension, *pieces(MAX_FINAL_BLOCKS)) == b""
        with pytest.raises(ProtocolError, match=f"more than {MAX_FINAL_BLOCKS} final blocks") as caught:
            received(extension, *pieces(MAX_FINAL_BLOCKS + 1))
        assert caught.value.code == 1007

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b"\xff", id="no such type of block"),
            pytest.param(b"\x00\x05\x00\x05\x00Hello\x00", id="lengths that do not fit each other"),
            pytest.param(b"\x02\x19\x00", id="before the window"),
            pytest.param(HELLO + b"\x07", id="garbage behind it"),
            pytest.param(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x07", id="garbage behind a final block"),
        ],
    )
    @pytest.mark.parametrize("bytewise", [False, True])
    def test_invalid(self, data: bytes, bytewise: bool) -> None:
        pieces = [data[i : i + 1] for i in range(len(data))] if bytewise else [data]
        with pytest.raises(ProtocolError, match=r"invalid: .* \(RFC 7692, section 7\.2\.2\)$") as caught:
            received(client(), *pieces)
        assert caught.value.code == 1007
        assert caught.value.who == "remote"
        assert not isinstance(caught.value, PayloadTooBig)

    @pytest.mark.parametrize("answer", ["", "server_no_context_takeover"])
    @pytest.mark.parametrize(
        "strategy", [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY], ids=["dynamic", "fixed", "huffman"]
    )
    def test_cut_short_anywhere(self, answer: str, strategy: int) -> None:
        """In the codes of a dynamic block, in a length, between two symbols: nowhere is it taken for a message."""
        text = " ".join(str(n * n) for n in range(300)).encode()
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 8, strategy)
        data = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
        # The last of these forgot only to take the tail away.
        for cut in (*range(len(data) - 4), *range(len(data) - 3, len(data) + 1)):
            with pytest.raises(ProtocolError) as caught:
                received(client(answer=answer), data[:cut])
            assert caught.value.code == 1007
        assert received(client(answer=answer), data[:-4]) == text

    @pytest.mark.parametrize(
        "data",
        [
            # What is missing of this block are four bytes, just as many as the tail has.
            pytest.param("00 09 00 f6 ff 48 65 6c 6c 6f", id="four bytes short"),
            pytest.param("00 0e 00 f1 ff 48 65 6c 6c 6f", id="nine bytes short"),
            pytest.param("00 ff ff 00 00 48 65 6c 6c 6f", id="many bytes short"),
            pytest.param("f3 48 cd c9 c9 07 00", id="nothing after a final block"),
            pytest.param("02", id="a block that the tail ends"),
            pytest.param("03", id="a final block that the tail ends"),
            pytest.param("", id="nothing at all"),
            pytest.param("f2 48 cd c9 c9 07 00 00 00 ff ff", id="a tail that was not taken away"),
            pytest.param("f2 48 cd c9 c9 07 00 ff", id="behind it, the begin of a block of 255 bytes"),
        ],
    )
    def test_ends_in_the_middle(self, data: str) -> None:
        with pytest.raises(ProtocolError, match=r"RFC 7692, section 7\.2\.[12]\)$") as caught:
            received(client(), bytes.fromhex(data))
        assert caught.value.code == 1007


class TestLimit:
    @pytest.mark.parametrize("size", [1, 100, 65_535, 65_536, 65_537, 131_072, 131_073, 200_000])
    def test_to_the_byte(self, size: int) -> None:
        """Pieces of 64 KiB must not show."""
        for message in (bytes(size), (NOISE * 3)[:size]):
            [data] = compressed(message)
            assert received(client(), data, limit=size) == message
            with pytest.raises(PayloadTooBig) as caught:
                received(client(), data, limit=size - 1)
            assert caught.value.code == 1009

    def test_nothing_is_allowed(self) -> None:
        assert received(client(), b"\x00", limit=0) == b""
        with pytest.raises(PayloadTooBig):
            received(client(), HELLO, limit=0)

    def test_it_is_for_one_call(self) -> None:
        extension = client()
        data = [*compressed(b"a" * 1000)]
        assert received(extension, *data, limit=1000) == b"a" * 1000
        extension = client()
        assert extension.decode(HELLO, False, 5) == b"Hello"
        with pytest.raises(PayloadTooBig):
            extension.decode(b"\x00\x00\xff\xff" + HELLO, True, 4)

    def test_over_several_final_blocks(self) -> None:
        block = b"\xf3\x48\xcd\xc9\xc9\x07\x00"  # "Hello", final
        assert received(client(), block * 3 + b"\x00", limit=15) == b"Hello" * 3
        with pytest.raises(PayloadTooBig):
            received(client(), block * 3 + b"\x00", limit=14)

    @pytest.mark.parametrize("answer", ["", "server_no_context_takeover"])
    def test_a_bomb(self, answer: str) -> None:
        """64 MiB in 64 KiB: no more than the limit is ever held, and what one piece and a window take."""
        limit = 2**20
        extension = client(answer=answer)
        tracemalloc.start()
        try:
            with pytest.raises(PayloadTooBig):
                received(extension, BOMB, limit=limit)
            assert tracemalloc.get_traced_memory()[1] < limit + 2**19
        finally:
            tracemalloc.stop()


class TestMemory:
    def test_idle(self) -> None:
        """A connection on which nothing was compressed yet, and one that rests."""
        factory = PerMessageDeflate()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            sides = [factory.agree([], []) for _ in range(1000)]
            each = (tracemalloc.get_traced_memory()[0] - before) / 1000
        finally:
            tracemalloc.stop()
        assert each < 200
        assert sys.getsizeof(sides[0]) < 150
        assert not hasattr(sides[0], "__dict__")

    @pytest.mark.parametrize(("bits", "most"), [(9, 1024), (12, 4500), (15, 34_000)])
    def test_rest(self, bits: int, most: int) -> None:
        """What stays is the window of what came."""
        extension = client(answer=f"server_max_window_bits={bits}")
        messages = [*compressed(*(NOISE[i : i + 3000] for i in range(0, 66_000, 3000)), bits=bits)]
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for data in messages:
                received(extension, data)
                sent(extension, b"a" * 1000)
            extension.rest()
            extension.rest()
            held = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert 1 << bits < held < most
        first, second = compressed(NOISE[:300], NOISE[:300])
        assert received(extension, first) == received(extension, second) == NOISE[:300]

    def test_no_window_without_context(self) -> None:
        extension = client(answer="server_no_context_takeover")
        [data] = compressed(NOISE[:40_000])
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            received(extension, data[:1000], data[1000:])
            held = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert held < 1000


class TestRest:
    def test_a_window_is_kept_small(self) -> None:
        """It is unpacked by the next message, and that refers to what came before."""
        sender, receiver = server(), client()
        text = b'{"name": "value", "other": "thing"} ' * 60
        received(receiver, sent(sender, text))
        receiver.rest()
        assert isinstance(receiver._window, bytearray)
        receiver.rest()
        assert isinstance(receiver._window, bytes)
        assert len(receiver._window) < 200
        receiver.rest()
        again = sent(sender, text)
        assert len(again) < 60
        assert received(receiver, again) == text

    def test_many_at_rest_give_memory_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        trimmed: list[bool] = []
        monkeypatch.setattr(deflate, "MANY", 4)
        monkeypatch.setattr(deflate, "_dropped", itertools.count(1))
        monkeypatch.setattr(deflate, "trim", lambda: trimmed.append(True))
        for _ in range(9):
            extension = server()
            sent(extension, NOISE[:100])
            extension.rest()
            extension.rest()
            extension.rest()
        assert trimmed == [True, True]


class TestBackend:
    def test_the_first_that_is_installed(self) -> None:
        assert deflate.load_backend(["no_such_module", "no.such", "zlib"]).zlib is zlib
        assert deflate.load_backend(["zlib"]).name == f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
        with pytest.raises(ImportError, match="without zlib"):
            deflate.load_backend(["no_such_module"])

    def test_a_zlib_ng_is_called_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Python's own zlib is one on some systems."""
        monkeypatch.setattr(zlib, "ZLIBNG_RUNTIME_VERSION", "2.2.4", raising=False)
        assert deflate.load_backend(["zlib"]).name == "zlib-ng 2.2.4"

    def test_name(self, backend: str) -> None:
        name = deflate.backend_name()
        assert name.startswith(deflate.load_backend([backend]).name)
        assert name.startswith(("zlib ", "zlib-ng ", "isal "))
        assert (" and zlib " in name) is (backend not in INFLATERS)
