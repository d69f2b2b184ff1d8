"""transfer-rate: an extension in which each side says how many bytes a second it is willing to receive.

    client    Sec-WebSocket-Extensions: transfer-rate; receive=100000
    server    Sec-WebSocket-Extensions: transfer-rate; receive=500000

Here the server sends 100,000 bytes a second at most, the client 500,000: data frames with their heads, before TLS.
Without the parameter a side takes whatever comes. Control frames are free. Nothing is changed on the wire but when it
is sent; a peer that does not know the extension declines it, and is not paced. The name is not registered with IANA.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from .errors import NegotiationError
from .extensions import Extension, ExtensionFactory, Parameters

_is_rate = re.compile(r"[1-9][0-9]{0,17}").fullmatch


class Paced(Extension):
    """What was agreed: the peer wants no more than `send_rate` bytes a second."""

    __slots__ = ("send_rate",)

    shared = "transfer-rate"  # what is sent is not changed

    def __init__(self, send_rate: float) -> None:
        self.send_rate = send_rate

    @property
    def sees_all(self) -> bool:
        return False


class TransferRate(ExtensionFactory):
    """Agree on how fast to send. `receive`: bytes a second that this side is willing to receive, None for any number.

    Raises ValueError.
    """

    name: Final = "transfer-rate"

    def __init__(self, receive: int | None = None) -> None:
        if receive is not None and not _is_rate(str(receive)):
            raise ValueError(f"receive is a whole number of bytes a second above 0, or None; not {receive!r}")
        self.receive = receive
        self._parameters: Parameters = [] if receive is None else [("receive", str(receive))]

    def offers(self) -> Sequence[Parameters]:
        return [self._parameters]

    def accept(self, offer: Parameters) -> tuple[Parameters, Extension] | None:
        rate = _read(offer)
        return None if rate is None else (self._parameters, Paced(rate))

    def agree(self, offer: Parameters, answer: Parameters) -> Extension:
        rate = _read(answer)
        if rate is None:
            raise NegotiationError(f"{self.name} knows one parameter, receive, with a number of bytes a second")
        return Paced(rate)


def _read(parameters: Parameters) -> float | None:
    """How fast to send, or None if the parameters say nothing that we know."""
    if not parameters:
        return float("inf")
    (name, value), *more = parameters
    return None if more or name != "receive" or value is None or not _is_rate(value) else float(value)
