"""Extensions, RFC 6455 section 9: what they are, how both sides agree on them, in which order they work.

An `ExtensionFactory` says what a program is willing to agree on; one serves all connections, in either role. What was
agreed for one connection is an `Extension`, which changes messages on their way. The session asks nothing else of it,
and knows none by name.

    client   offers() ---- Sec-WebSocket-Extensions: a; x=1, a; x=2, b ---->   accept(offer), one offer after the other
             agree(offer, answer) <---- Sec-WebSocket-Extensions: a; x=2, b ----

Messages pass through extensions in the order of the server's answer on their way out, in the opposite order on their
way in (section 9.1). Control frames pass by them.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Final, TypeAlias

from .errors import InvalidHeader, NegotiationError, excerpt
from .headers import TOKEN, is_token
from .opcodes import NO_LIMIT

RSV1: Final = 0x40
RSV2: Final = 0x20
RSV3: Final = 0x10

Parameters: TypeAlias = Sequence[tuple[str, str | None]]
Payload: TypeAlias = bytes | bytearray | memoryview

# Nobody needs so many offers in one request, and each costs time.
MAX_OFFERS: Final = 64


class Extension:
    """What was agreed on for one connection. Subclass it and say what becomes of messages.

    `rsv` has the reserved bits that mark its messages: it is given those incoming messages whose first frame has one of
    them. An extension without reserved bits is given all. `shared` says who may share what `encode_shared` makes.
    """

    __slots__ = ()

    rsv: int = 0
    # Connections whose `shared` is equal may be sent the same encoded message. None: this one shares with nobody.
    shared: Hashable = None
    # Bytes a second that the peer is willing to receive: the session sends no faster.
    send_rate: float = float("inf")

    @property
    def sees_all(self) -> bool:
        """It is given messages without any of its bits, too."""
        return not self.rsv

    def encode(self, first: int, payload: Payload, compress: bool | None) -> tuple[int, Payload]:
        """Change a message, or a fragment of one, that is to be sent.

        `first` is the first byte of its frame: FIN, an opcode (CONT for all fragments but the first) and the bits of
        extensions before this one. Return it with bits of ours, on the frame that begins a message only, and the new
        payload. `compress` is what `send` was told, None for nothing.
        """
        return first, payload

    def begin(self, rsv: int) -> None:
        """A message comes in, whose first frame has these reserved bits."""

    def decode(self, data: bytes, complete: bool, limit: int) -> bytes:
        """Change a piece of the message that comes in, as much as there is of it; `complete` marks its last piece.

        Return at most `limit` bytes. Raises PayloadTooBig over it, ProtocolError for what the peer may not send.
        """
        return data

    def encode_shared(self, first: int, payload: Payload) -> tuple[int, Payload]:
        """As `encode`, for a whole message and for all connections with the same `shared`."""
        return self.encode(first, payload, None)

    def pass_shared(self, first: int) -> None:
        """A message that `encode_shared` made was sent on this connection; `first` is its first byte."""

    def rest(self) -> None:
        """Called every 20 s or so: give back what was not used since the last time."""


class ExtensionFactory:
    """What a program is willing to agree on. Subclass it for an extension with this `name` (a token).

    Parameters are pairs of a name and a value, None where there is only a name.
    """

    name: str = ""

    def offers(self) -> Sequence[Parameters]:
        """Client: what to offer, in order of preference."""
        return [()]

    def accept(self, offer: Parameters) -> tuple[Parameters, Extension] | None:
        """Server: the parameters to answer an offer with, and our side of what was agreed; None to decline."""
        return None

    def agree(self, offer: Parameters, answer: Parameters) -> Extension:
        """Client: our side of what the server has made of one of the offers. Raises NegotiationError."""
        raise NegotiationError(f"unexpected answer to {self.name}")


class Stack(Extension):
    """Several extensions, as one. In the order of the server's answer."""

    __slots__ = ("_active", "_extensions", "rsv", "send_rate", "shared")

    def __init__(self, extensions: Sequence[Extension]) -> None:
        self._extensions = tuple(extensions)
        self._active: list[Extension] = []  # those that have a part in the message that comes in
        self.rsv = sum(extension.rsv for extension in extensions)
        self.send_rate = min(extension.send_rate for extension in extensions)
        shares = tuple(extension.shared for extension in extensions)
        self.shared = None if None in shares else shares

    @property
    def sees_all(self) -> bool:
        return any(extension.sees_all for extension in self._extensions)

    def encode(self, first: int, payload: Payload, compress: bool | None) -> tuple[int, Payload]:
        for extension in self._extensions:
            first, payload = extension.encode(first, payload, compress)
        return first, payload

    def begin(self, rsv: int) -> None:
        self._active = [each for each in reversed(self._extensions) if each.sees_all or rsv & each.rsv]
        for extension in self._active:
            extension.begin(rsv)

    def decode(self, data: bytes, complete: bool, limit: int) -> bytes:
        for extension in self._active:
            data = extension.decode(data, complete, limit if extension is self._active[-1] else widened(limit))
        return data

    def encode_shared(self, first: int, payload: Payload) -> tuple[int, Payload]:
        for extension in self._extensions:
            first, payload = extension.encode_shared(first, payload)
        return first, payload

    def pass_shared(self, first: int) -> None:
        for extension in self._extensions:
            extension.pass_shared(first)

    def rest(self) -> None:
        for extension in self._extensions:
            extension.rest()


def widened(limit: int) -> int:
    """How many bytes the encoding of `limit` bytes may have: what cannot be made smaller grows a little."""
    return min(2 * limit + 1024, NO_LIMIT)


# Negotiation, section 9.1.

_START = re.compile(r"[ \t,]*+")
_NAME = re.compile(TOKEN)
_PARAMETER = re.compile(rf'[ \t]*+;[ \t]*+({TOKEN})(?:[ \t]*+=[ \t]*+(?:({TOKEN})|"((?:[^"\\]|\\.)*+)"))?+')
_NEXT = re.compile(r"[ \t]*+(?:,[ \t,]*+|$)")
_ESCAPED = re.compile(r"\\(.)")


def parse_extensions(values: Iterable[str]) -> list[tuple[str, Parameters]]:
    """The names and parameters in a Sec-WebSocket-Extensions header, in all its lines. Raises InvalidHeader."""
    text = ", ".join(values)
    found: list[tuple[str, Parameters]] = []
    match = _START.match(text)
    while match is not None and match.end() < len(text):
        match = _NAME.match(text, match.end())
        if match is None:
            break
        name = match[0]
        parameters: list[tuple[str, str | None]] = []
        at = match.end()
        while match := _PARAMETER.match(text, at):
            value = match[2]
            if match[3] is not None:
                value = _ESCAPED.sub(r"\1", match[3])
                if not is_token(value):  # section 9.1: what is quoted is a token all the same
                    raise InvalidHeader("Sec-WebSocket-Extensions", text)
            parameters.append((match[1], value))
            at = match.end()
        found.append((name, parameters))
        match = _NEXT.match(text, at)
    if match is None or not 0 < len(found) <= MAX_OFFERS:
        raise InvalidHeader("Sec-WebSocket-Extensions", text)
    return found


def format_extensions(extensions: Iterable[tuple[str, Parameters]]) -> str:
    """The value of a Sec-WebSocket-Extensions header."""
    return ", ".join(
        "; ".join([name, *(key if value is None else f"{key}={value}" for key, value in parameters)])
        for name, parameters in extensions
    )


def check_factories(factories: Iterable[ExtensionFactory]) -> tuple[ExtensionFactory, ...]:
    """Raises TypeError and ValueError for factories that could not work."""
    checked = tuple(factories)
    for factory in checked:
        if not isinstance(factory, ExtensionFactory):
            raise TypeError(f"an extension is given as an instance of an ExtensionFactory, not {factory!r}")
        if not is_token(factory.name):
            raise ValueError(f"the name of an extension is a token (RFC 6455, section 9.1): {factory.name!r}")
    if len({factory.name for factory in checked}) < len(checked):
        names = ", ".join(factory.name for factory in checked)
        raise ValueError(f"each extension is given once, and compression= is one: {names}")
    return checked


def accept_offers(
    factories: Sequence[ExtensionFactory], offered: Iterable[tuple[str, Parameters]]
) -> tuple[list[tuple[str, Parameters]], Extension | None]:
    """Server: what to answer, and what was agreed: of each extension the first offer that fits.

    An extension that uses a reserved bit which another one has already is declined.
    """
    answer: list[tuple[str, Parameters]] = []
    agreed: list[Extension] = []
    left = {factory.name: factory for factory in factories}
    taken = 0
    for name, offer in offered:
        factory = left.get(name)
        accepted = None if factory is None else factory.accept(offer)
        if accepted is None:
            continue
        parameters, extension = accepted
        _check_extension(name, extension)
        if extension.rsv & taken:
            continue
        del left[name]
        taken |= extension.rsv
        answer.append((name, parameters))
        agreed.append(extension)
    return answer, _stacked(agreed)


def check_answer(factories: Sequence[ExtensionFactory], answer: Iterable[tuple[str, Parameters]]) -> Extension | None:
    """Client: what was agreed. Raises NegotiationError for what was not offered, or does not fit."""
    agreed: list[Extension] = []
    left = {factory.name: factory for factory in factories}
    taken = 0
    for name, parameters in answer:
        factory = left.pop(name, None)
        if factory is None:
            raise NegotiationError(f"extension that wasn't offered, or twice in the answer: {excerpt(name)}")
        extension = _agree(factory, parameters)
        _check_extension(name, extension)
        if extension.rsv & taken:
            raise NegotiationError(f"{name} uses the same reserved bit as an extension before it")
        taken |= extension.rsv
        agreed.append(extension)
    return _stacked(agreed)


def _agree(factory: ExtensionFactory, answer: Parameters) -> Extension:
    """The answer need not fit all of our offers, only one."""
    failure: NegotiationError | None = None
    for offer in factory.offers():
        try:
            return factory.agree(offer, answer)
        except NegotiationError as error:
            failure = error
    raise failure or NegotiationError(f"extension that wasn't offered: {factory.name}")


def _check_extension(name: str, extension: Extension) -> None:
    if not isinstance(extension, Extension):
        raise TypeError(f"the factory of {name} makes no Extension: {extension!r}")


def _stacked(extensions: Sequence[Extension]) -> Extension | None:
    if len(extensions) < 2:
        return extensions[0] if extensions else None
    return Stack(extensions)
