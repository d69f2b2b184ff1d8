"""Running in a context, without a call more than that takes: written twice, here and in C in `contexts.pxd`."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import Any

from .base import BaseConnection


def run(context: Context, callback: Callable[[Any], object], argument: object) -> None:
    """Call `callback(argument)` in `context`. Raises what it raises; RuntimeError inside `context` itself."""
    context.run(callback, argument)


def hear(context: Context, connection: BaseConnection) -> None:
    """Likewise `connection.hear()`."""
    context.run(connection.hear)
