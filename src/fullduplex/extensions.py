"""Extensions of WebSocket (RFC 6455, section 9): those that come with fullduplex, and what one of your own stands on.

    serve(..., compression=PerMessageDeflate(threshold=1024), extensions=[TransferRate(receive=1_000_000)])

`PerMessageDeflate` compresses messages (RFC 7692). `TransferRate` lets each side say how fast it wants to be sent to.
For another one subclass `ExtensionFactory`, which negotiates, and `Extension`, which changes messages.
"""

from __future__ import annotations

from .wire.deflate import PerMessageDeflate
from .wire.extensions import RSV1, RSV2, RSV3, Extension, ExtensionFactory, Parameters, Payload
from .wire.transfer import TransferRate

__all__ = [
    "RSV1",
    "RSV2",
    "RSV3",
    "Extension",
    "ExtensionFactory",
    "Parameters",
    "Payload",
    "PerMessageDeflate",
    "TransferRate",
]
