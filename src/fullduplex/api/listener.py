"""The callback face: for latency and scale. No task waits, the engine calls as messages come."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .connection import Connection


class Listener:
    """Subclass it, and give it to `serve(listener=...)` or `connect(..., listener=...)`.

    An instance serves all connections; a class, or another function without arguments, makes one for each. Callbacks
    are plain functions and must not block. In them `ws.send` does not wait: `ws.is_slow` tells that the peer does not
    keep up. One that raises closes the connection with 1011 and is logged. Those of one connection share a context of
    their own, a copy of the one that `serve` or `connect` was called in: what they set there, no other connection sees.
    """

    def on_open(self, ws: Connection) -> None:
        """The opening handshake succeeded."""

    def on_message(self, ws: Connection, message: Any) -> None:
        """A message came: `str` or `bytes`. Not called any more once `ws.close` was."""

    def on_close(self, ws: Connection, code: int, reason: str) -> None:
        """TCP has ended; `code` is 1006 if no close frame came. `ws.close_exc` knows more."""


ListenerLike = Listener | Callable[[], Listener]


def make_listener(listener: ListenerLike) -> Listener:
    """The listener of one connection. Raises TypeError, and what a factory raises."""
    if isinstance(listener, Listener):
        return listener
    made = listener()
    if not isinstance(made, Listener):
        raise TypeError(f"a listener is an instance of a subclass of Listener, not {made!r}")
    return made


def check_listener(listener: ListenerLike | None) -> None:
    """Raises TypeError for a listener that could not work."""
    if isinstance(listener, type):
        fits = issubclass(listener, Listener)
    else:
        fits = listener is None or isinstance(listener, Listener) or callable(listener)
    if not fits:
        raise TypeError(f"a listener is a subclass of Listener, one of its instances, or a function; not {listener!r}")
    for name in ("on_open", "on_message", "on_close"):
        if inspect.iscoroutinefunction(getattr(listener, name, None)):
            raise TypeError(f"{name} of a Listener is a plain function; for coroutines use a handler")
