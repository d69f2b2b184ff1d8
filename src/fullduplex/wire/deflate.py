"""permessage-deflate, RFC 7692: messages compressed with DEFLATE (RFC 1951), each side with a window of its own.

`PerMessageDeflate` has a program's settings and negotiates; a `Deflate` is what became of it on one connection.

    our compressor   message -> blocks, 00 | 00 00 ff ff          the peer's inflater
                                           '---------' the flush's last four bytes are not sent

A compressor is kept between messages, since its window is what makes small messages small; but it may be dropped at any
moment, as nothing says that a sender must refer to what it sent before. An inflater lives as long as one message. Only
the last bytes that came are kept, as many as the window has, and the next inflater begins with them. This costs half a
microsecond a message (one, with the largest window) and buys two things: an idle connection holds a window and no more,
and a message can be ended with a final block, which shows whether it had ended in the middle of one.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Hashable, Iterable, Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

from .errors import NegotiationError, PayloadTooBig, ProtocolError, excerpt
from .extensions import RSV1, Extension, ExtensionFactory, Parameters, Payload
from .memory import trim
from .opcodes import FIN, NO_LIMIT, OPCODE, CloseCode

# What we compress with, and as a server ask of clients. JSON of 512 bytes and of 16 KiB becomes 3 to 4 % larger than
# with zlib's default, 15 bits and memory level 8; a compressor holds 40 KiB instead of 200, and what is kept of what
# came is 4 KiB instead of 32.
WINDOW_BITS: Final = 12
MEMORY_LEVEL: Final = 5
# Bytes. What is smaller fits one packet either way, and costs both sides more time than its bytes do.
THRESHOLD: Final = 64

# In one message. Blocks that say they are the last may stand anywhere in it (section 7.2.3.4): platforms that cannot
# flush make one for each flush. To us each is as much work as a small message, for two of the peer's bytes.
MAX_FINAL_BLOCKS: Final = 256

# Compressors that were dropped at rest, after which libc is to give their memory back, some 40 MiB; else it keeps what
# is freed between what is not.
MANY: Final = 1024

SERVER_NO_CONTEXT: Final = "server_no_context_takeover"
CLIENT_NO_CONTEXT: Final = "client_no_context_takeover"
SERVER_BITS: Final = "server_max_window_bits"
CLIENT_BITS: Final = "client_max_window_bits"

_BITS: Final = re.compile(r"[89]|1[0-5]")  # section 7.1.2: 8 to 15, without leading zeros

_SYNC_FLUSH: Final = 2  # the same number in all of them
_TAIL: Final = b"\x00\x00\xff\xff"  # section 7.2.1
_END: Final = _TAIL + b"\x01\x00\x00\xff\xff"  # ... and a final block with nothing in it
_NOTHING: Final = b"\x00"  # section 7.2.3.6: a block with nothing in it, without its tail

# Inflated in pieces of so many bytes: a message that is over its limit has taken at most one more when it is noticed.
_PIECE: Final = 65_536


class Backend(NamedTuple):
    """A library with the interface of `zlib`."""

    name: str
    zlib: Any
    level: int


# The order is by figures, which docs/compression.md has. isal compresses with a half to a fifth of zlib's time, into
# messages up to a quarter larger; its inflater is the slowest of all on small ones, and is not used. zlib-ng inflates
# the quickest. Its compressors hold 165 KiB each, until they rest, where zlib's hold 40.
COMPRESSORS: Final = ("isal.isal_zlib", "zlib_ng.zlib_ng", "zlib")
INFLATERS: Final = ("zlib_ng.zlib_ng", "zlib")


def load_backend(modules: Iterable[str]) -> Backend:
    """The first of these modules that is installed."""
    for name in modules:
        try:
            module = import_module(name)
        except ImportError:
            continue
        if name.startswith("isal"):
            # Its levels are others: 0 does not shrink small messages, 2 and 3 gain little and hold more.
            return Backend(f"isal {import_module('isal').ISAL_VERSION}", module, 1)
        version = getattr(module, "ZLIBNG_RUNTIME_VERSION", None)  # Python's own may be a zlib-ng in zlib's clothes
        return Backend(f"zlib-ng {version}" if version else f"zlib {module.ZLIB_RUNTIME_VERSION}", module, 6)
    raise ImportError("Python was built without zlib")


_dropped = itertools.count(1)
_quickest = load_backend(COMPRESSORS)  # ... to compress
_leveled = load_backend(INFLATERS)  # to compress, with zlib's levels
_inflating = _leveled


def backend_name() -> str:
    """What compresses and what inflates, with their versions: "zlib 1.2.13"."""
    return " and ".join(dict.fromkeys((_quickest.name, _inflating.name)))


class Plan(NamedTuple):
    """What was agreed on, seen from one side. One object serves all connections with the same."""

    send_bits: int  # 8: nothing is ever compressed, since zlib cannot (though it can inflate)
    send_context: bool  # the window of a message goes on from those before it
    receive_bits: int
    receive_context: bool
    level: int | None
    memory_level: int
    threshold: int
    shared: Hashable


class PerMessageDeflate(ExtensionFactory):
    """How to compress: `serve(compression=PerMessageDeflate(...))`, and the same for `connect`.

    Each side compresses what it sends. A setting named after our own side says what we do, one named after the other
    side what we ask of it.

        server_max_window_bits, client_max_window_bits: the server, the client compresses with a window of at most
            2 ** bits bytes, 9 to 15. A larger one makes messages a little smaller, and takes memory on both sides.
            Default: we compress with 12; a server asks clients for 12, a client asks the server for nothing. Clients
            that do not let themselves be asked use 15 (section 7.1.2.2), and so may servers that cannot do what they
            are asked for.
        server_no_context_takeover, client_no_context_takeover: the server, the client begins each message with an empty
            window. Small messages stay larger, but neither side holds anything between two of them.
        level: how hard to try, 1 to 9, as zlib has it. Default: the quickest library that is installed, at the level
            that suits it: zlib's 6, or isal's 1.
        memory_level: the compressor's memory beside its window, 1 to 9; each level doubles it.
        threshold: messages under so many bytes are sent as they are.

    Raises ValueError for what RFC 7692 does not allow, or zlib cannot do.
    """

    name = "permessage-deflate"

    def __init__(
        self,
        *,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | None = None,
        level: int | None = None,
        memory_level: int = MEMORY_LEVEL,
        threshold: int = THRESHOLD,
    ) -> None:
        for name, bits in ((SERVER_BITS, server_max_window_bits), (CLIENT_BITS, client_max_window_bits)):
            if bits == 8:
                raise ValueError(f"{name} may be 8 (RFC 7692, section 7.1.2), but zlib cannot compress with it")
            if bits is not None and not 9 <= bits <= 15:
                raise ValueError(f"{name} is 9 to 15 (RFC 7692, section 7.1.2), or None; not {bits!r}")
        if level is not None and not 1 <= level <= 9:
            raise ValueError(f"level is 1 to 9, or None; not {level!r}")
        if not 1 <= memory_level <= 9:
            raise ValueError(f"memory_level is 1 to 9, not {memory_level!r}")
        if threshold < 0:
            raise ValueError(f"threshold is a number of bytes, not {threshold!r}")
        self.server_no_context_takeover = server_no_context_takeover
        self.client_no_context_takeover = client_no_context_takeover
        self.server_max_window_bits = server_max_window_bits
        self.client_max_window_bits = client_max_window_bits
        self.level = level
        self.memory_level = memory_level
        self.threshold = threshold
        self._plans: dict[Plan, Plan] = {}  # at most one for each window and context on both sides

    def offers(self) -> Sequence[Parameters]:
        offer: list[tuple[str, str | None]] = []
        if self.server_no_context_takeover:
            offer.append((SERVER_NO_CONTEXT, None))
        if self.client_no_context_takeover:
            offer.append((CLIENT_NO_CONTEXT, None))
        # Always offered: a server may ask for a smaller window only where it is. Section 7.1.2.2.
        bits = self.client_max_window_bits
        offer.append((CLIENT_BITS, None if bits is None else str(bits)))
        if self.server_max_window_bits is None:
            return [offer]
        # Not every server can choose its window; one that declines this may take it without. Section 7.1.3.
        return [[*offer, (SERVER_BITS, str(self.server_max_window_bits))], offer]

    def accept(self, offer: Parameters) -> tuple[Parameters, Extension] | None:
        try:
            asked = _read(offer, is_offer=True)
        except NegotiationError:
            return None  # section 7.1: such an offer is declined, and the next one may be better
        answer: list[tuple[str, str | None]] = []
        # Sections 7.1.1.1 and 7.1.1.2: what was asked is answered, and the server may demand both of its own accord.
        server_context = not (self.server_no_context_takeover or SERVER_NO_CONTEXT in asked)
        if not server_context:
            answer.append((SERVER_NO_CONTEXT, None))
        client_context = not (self.client_no_context_takeover or CLIENT_NO_CONTEXT in asked)
        if not client_context:
            answer.append((CLIENT_NO_CONTEXT, None))
        # Section 7.1.2.1. Not answered unless asked: clients that do not know it can inflate a smaller window, too.
        server_bits = min(self.server_max_window_bits or WINDOW_BITS, asked.get(SERVER_BITS, 15))
        if server_bits < 9:
            return None
        if SERVER_BITS in asked:
            answer.append((SERVER_BITS, str(server_bits)))
        # Section 7.1.2.2: must not be answered unless offered.
        client_bits = 15
        if CLIENT_BITS in asked:
            client_bits = min(self.client_max_window_bits or WINDOW_BITS, asked[CLIENT_BITS])
            answer.append((CLIENT_BITS, str(client_bits)))
        return answer, self._agreed(server_bits, server_context, client_bits, client_context)

    def agree(self, offer: Parameters, answer: Parameters) -> Extension:
        offered = _read(offer, is_offer=True)
        answered = _read(answer, is_offer=False)
        if SERVER_NO_CONTEXT in offered and SERVER_NO_CONTEXT not in answered:
            raise NegotiationError(f"{self.name}: {SERVER_NO_CONTEXT} was not accepted (RFC 7692, section 7.1.1.1)")
        if SERVER_BITS in offered and answered.get(SERVER_BITS, 16) > offered[SERVER_BITS]:
            raise NegotiationError(f"{self.name}: {SERVER_BITS} was not accepted (RFC 7692, section 7.1.2.1)")
        if answered.get(CLIENT_BITS, 0) > offered.get(CLIENT_BITS, 0):
            raise NegotiationError(f"{self.name}: {CLIENT_BITS} over what was offered (RFC 7692, section 7.1.2.2)")
        return self._agreed(
            min(self.client_max_window_bits or WINDOW_BITS, answered.get(CLIENT_BITS, 15)),
            not (self.client_no_context_takeover or CLIENT_NO_CONTEXT in answered),
            answered.get(SERVER_BITS, 15),
            SERVER_NO_CONTEXT not in answered,
        )

    def _agreed(self, send_bits: int, send_context: bool, receive_bits: int, receive_context: bool) -> Extension:
        how = self.level, self.memory_level, self.threshold
        shared = None if send_bits == 8 else (send_bits, *how)
        plan = Plan(send_bits, send_context, receive_bits, receive_context, *how, shared)
        return Deflate(self._plans.setdefault(plan, plan))


def _read(parameters: Parameters, *, is_offer: bool) -> dict[str, int]:
    """The parameters by name; 1 for those without a value. Raises NegotiationError for all others. Section 7.1."""
    found: dict[str, int] = {}
    for name, value in parameters:
        if name in (SERVER_NO_CONTEXT, CLIENT_NO_CONTEXT):
            bits = 1 if value is None else 0
        elif name not in (SERVER_BITS, CLIENT_BITS):
            bits = 0
        elif value is None:
            bits = 15 if name == CLIENT_BITS and is_offer else 0  # section 7.1.2.2: as large as it gets
        else:
            bits = int(value) if _BITS.fullmatch(value) else 0
        if not bits or name in found:
            text = name if value is None else f"{name}={value}"
            raise NegotiationError(f"permessage-deflate: invalid parameter {excerpt(text)} (RFC 7692, section 7.1)")
        found[name] = bits
    return found


class Deflate(Extension):
    """permessage-deflate on one connection."""

    __slots__ = (
        "_compressing",
        "_compressor",
        "_final_blocks",
        "_heard",
        "_inflater",
        "_plan",
        "_used",
        "_window",
        "shared",
    )

    rsv = RSV1

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.shared = plan.shared
        # Write state.
        self._compressor: Any = None
        self._used = False  # the compressor, since the last rest
        self._compressing = False  # a message that is being sent in fragments
        # Read state.
        self._inflater: Any = None  # while a message comes in
        self._final_blocks = 0  # of that message
        self._heard = False  # a message, since the last rest
        # The last of what came: grows to twice its size before it is cut. At rest it is compressed, and bytes.
        self._window: bytearray | bytes | None = None

    # Sending, section 7.2.1.

    def encode(self, first: int, payload: Payload, compress: bool | None) -> tuple[int, Payload]:
        """Change a message, or a fragment of one, that is to be sent.

        A message in fragments is compressed unless `compress` is False, since nobody knows its size yet. One that is
        larger when compressed goes out all the same: to take it back would cost the window, and it is the window that
        makes the next one small.
        """
        plan = self._plan
        if not first & OPCODE:
            compress = self._compressing
        else:
            if first & FIN:
                if compress is None and not plan.send_context:
                    return self.encode_shared(first, payload)
                compress = self._is_worth(payload, compress)
            else:
                compress = self._compressing = compress is not False and plan.send_bits != 8
            if compress:
                first |= RSV1
        if not compress:
            return first, payload
        if self._compressor is None:
            self._compressor = self._new_compressor()
        self._used = True
        data = _flushed(self._compressor, payload)
        if first & FIN:
            data = _without_tail(data)
            if not plan.send_context:
                self._compressor = None
        return first, data

    def encode_shared(self, first: int, payload: Payload) -> tuple[int, Payload]:
        """As `encode`, for a whole message and for all connections with the same `shared`.

        It refers to nothing before it, and nothing after it refers to it: every window of that size will do.
        """
        if self._is_worth(payload, None):
            data = _without_tail(_flushed(self._new_compressor(), payload))
            if len(data) < len(payload):
                return first | RSV1, data
        return first, payload

    def pass_shared(self, first: int) -> None:
        # The peer's window has now what our compressor's has not. Messages without RSV1 don't enter it.
        if first & RSV1:
            self._compressor = None

    def _is_worth(self, payload: Payload, compress: bool | None) -> bool:
        """Whether to compress a whole message."""
        plan = self._plan
        if compress is None:
            compress = len(payload) >= plan.threshold
        return compress and len(payload) > 0 and plan.send_bits != 8

    def _new_compressor(self) -> Any:
        plan = self._plan
        backend = _quickest if plan.level is None else _leveled
        return backend.zlib.compressobj(plan.level or backend.level, zlib.DEFLATED, -plan.send_bits, plan.memory_level)

    # Receiving, section 7.2.2.

    def decode(self, data: bytes, complete: bool, limit: int) -> bytes:
        if self._inflater is None:
            self._inflater = self._new_inflater()
        try:
            message = self._inflate(data, complete, min(limit, NO_LIMIT))
            if complete:
                self._end_message()
        except _inflating.zlib.error as error:
            raise ProtocolError(
                CloseCode.INVALID_DATA, f"compressed data that is invalid: {error} (RFC 7692, section 7.2.2)"
            ) from error
        return message

    def _inflate(self, data: bytes, complete: bool, limit: int) -> bytes:
        parts = []
        while True:
            inflater = self._inflater
            most = min(limit, _PIECE) + 1  # one more than allowed: less came, so nothing is held back
            part = inflater.decompress(data, most)
            limit -= len(part)
            if limit < 0:
                raise PayloadTooBig(CloseCode.MESSAGE_TOO_BIG, "a compressed message is over the limit once inflated")
            parts.append(part)
            more = inflater.eof or len(part) == most
            if more or not complete or self._plan.receive_context:
                self._remember(part)
            if inflater.eof:
                data = inflater.unused_data
                self._pass_final_block()
            elif more:
                data = inflater.unconsumed_tail
            else:
                return part if len(parts) == 1 else b"".join(parts)

    def _pass_final_block(self) -> None:
        """What comes after it may refer to what came before it, as always. Section 7.2.3.4."""
        self._final_blocks += 1
        if self._final_blocks > MAX_FINAL_BLOCKS:
            # Not 1002: no rule of framing is broken. What is wrong with compressed data is always told with one code.
            rule = f"a compressed message with more than {MAX_FINAL_BLOCKS} final blocks"
            raise ProtocolError(CloseCode.INVALID_DATA, rule)
        self._inflater = self._new_inflater()

    def _end_message(self) -> None:
        """Append the tail, and a final block: the inflater sees the end of it only if it stands between two blocks.

        In the middle of one it would take the tail for data, or wait for more. zlib tells neither in another way.
        """
        inflater = self._inflater
        if inflater.decompress(_END, 1) or not inflater.eof or inflater.unused_data:
            rule = "a compressed message that ends in the middle of a block (RFC 7692, section 7.2.1)"
            raise ProtocolError(CloseCode.INVALID_DATA, rule)
        self._inflater = None
        self._final_blocks = 0
        if not self._plan.receive_context:
            self._window = None

    def _remember(self, part: bytes) -> None:
        size = 1 << self._plan.receive_bits
        window = self._unpacked_window()
        window += part[-size:]
        if len(window) > 2 * size:
            del window[:-size]

    def _unpacked_window(self) -> bytearray:
        window = self._window
        if not isinstance(window, bytearray):
            window = self._window = bytearray() if window is None else bytearray(zlib.decompress(window))
        return window

    def _new_inflater(self) -> Any:
        self._heard = True
        if self._window is None:
            return _inflating.zlib.decompressobj(-self._plan.receive_bits)
        # It takes what it needs of a window that is longer than its own.
        return _inflating.zlib.decompressobj(-self._plan.receive_bits, zdict=self._unpacked_window())

    def rest(self) -> None:
        if not self._used and self._compressor is not None:
            self._compressor = None
            if next(_dropped) % MANY == 0:
                trim()
        if not self._heard and self._inflater is None and isinstance(self._window, bytearray):
            # A window of text is some four times as large as this, which takes 20 microseconds each way.
            self._window = zlib.compress(self._window[-(1 << self._plan.receive_bits) :], 1)
        self._used = self._heard = False


def _flushed(compressor: Any, payload: Payload) -> bytes:
    data: bytes = compressor.compress(payload) + compressor.flush(_SYNC_FLUSH)
    return data


def _without_tail(data: bytes) -> bytes:
    # A compressor may write nothing when nothing has come since it was flushed.
    return data[: -len(_TAIL)] or _NOTHING
