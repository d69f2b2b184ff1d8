"""What all connections of one server, or of one `connect`, have in common."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Literal

from ..engine.engine import Engine
from ..wire.codec import MaskKeys
from ..wire.deflate import PerMessageDeflate
from ..wire.extensions import ExtensionFactory
from ..wire.limits import MAX_QUEUE_SIZE, UNLIMITED, Limits
from ..wire.opcodes import NO_LIMIT
from ..wire.session import Session
from .slow import Policy, check_policy

Logger = logging.Logger | logging.LoggerAdapter[Any]
# A limit, and for pairs (high, low) or (message, frame) a second one; None for no limit.
Limit = int | None | tuple[int | None, int | None]
# "deflate", None, or how to compress.
Compression = Literal["deflate"] | ExtensionFactory | None


def make_extensions(compression: Compression, extensions: Sequence[ExtensionFactory]) -> tuple[ExtensionFactory, ...]:
    """What to agree on, in order of preference. Raises ValueError for a compression that is none."""
    if isinstance(extensions, ExtensionFactory):
        raise TypeError("extensions is a list of them, not one")
    if compression is None:
        return tuple(extensions)
    if compression == "deflate":
        compression = PerMessageDeflate()
    if not isinstance(compression, ExtensionFactory):
        raise ValueError(f'compression is "deflate", None or an instance of PerMessageDeflate, not {compression!r}')
    return (compression, *extensions)


class Settings:
    """Names and defaults are those of `connect` and `serve`, which explain them."""

    __slots__ = (
        "close_timeout",
        "engine",
        "limits",
        "logger",
        "loop",
        "mask_keys",
        "max_frame",
        "max_size",
        "open_timeout",
        "ping_interval",
        "ping_timeout",
        "policy",
        "queue_high",
        "queue_low",
        "queue_size",
        "server",
        "write_high",
        "write_low",
    )

    def __init__(
        self,
        server: bool,
        *,
        open_timeout: float | None,
        ping_interval: float | None,
        ping_timeout: float | None,
        close_timeout: float | None,
        max_size: Limit,
        max_queue: Limit,
        write_limit: Limit,
        limits: Limits = UNLIMITED,
        policy: Policy = Policy.WAIT,
        logger: Logger | None,
    ) -> None:
        for name, seconds in (
            ("open_timeout", open_timeout),
            ("ping_interval", ping_interval),
            ("ping_timeout", ping_timeout),
            ("close_timeout", close_timeout),
        ):
            if seconds is not None and not seconds > 0:
                raise ValueError(f"{name} is a number of seconds above 0, or None for no limit; not {seconds!r}")
        self.engine: Engine
        self.loop: asyncio.AbstractEventLoop
        self.server = server
        self.open_timeout = open_timeout
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        self.close_timeout = close_timeout
        self.max_size, self.max_frame = max_size if isinstance(max_size, tuple) else (max_size, None)
        high, low = max_queue if isinstance(max_queue, tuple) else (max_queue, None)
        self.queue_high = NO_LIMIT if high is None else high
        self.queue_low = self.queue_high // 4 if low is None else low
        self.queue_size = NO_LIMIT if high is None else max(MAX_QUEUE_SIZE, self.max_size or 0)
        high, low = write_limit if isinstance(write_limit, tuple) else (write_limit, None)
        self.write_high = NO_LIMIT if high is None else high
        self.write_low = self.write_high // 4 if low is None else low
        if not isinstance(limits, Limits):
            raise TypeError(f"limits is a Limits, not {limits!r}")
        self.limits = limits
        self.policy = check_policy(policy)
        self.logger = logger or logging.getLogger("fullduplex.server" if server else "fullduplex.client")
        self.mask_keys = None if server else MaskKeys()

    def make_session(self) -> Session:
        return Session(
            self.server,
            max_size=self.max_size,
            max_frame=self.max_frame,
            ping_interval=self.ping_interval,
            ping_timeout=self.ping_timeout,
            close_timeout=self.close_timeout,
            limits=self.limits,
            mask_keys=self.mask_keys,
        )
