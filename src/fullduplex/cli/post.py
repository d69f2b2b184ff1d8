"""What a worker does for its parent: workers.py tells of both."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

from .. import ServerConnection

OPENING_GRACE: Final = 1.0  # seconds for opening handshakes that are under way when the worker ends


class Post:
    """What a worker has of its parent: sockets that listen already, and the channel, which it closes at the end."""

    def __init__(self, descriptors: str) -> None:
        self._channel, *self.sockets = (socket.socket(fileno=int(text)) for text in descriptors.split(","))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._channel)
        self._channel.close()

    async def bind(self) -> list[socket.socket]:
        return self.sockets

    def serving(self, orphaned: Callable[[], None]) -> None:
        """Tell the parent. `orphaned` is called, in this loop, when that has ended."""
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(self._channel)
            orphaned()

        loop.add_reader(self._channel, ended)  # the parent never says anything
        with suppress(ConnectionError):  # it has ended: the reader will see that
            self._channel.send(b"\n")


class Patient(ServerConnection):
    """Lets an opening handshake that is under way when the server closes come to its end.

    A client that connects while workers are replaced is not refused by the one that it happened to meet: it is let in,
    and told to come again (1001).
    """

    __slots__ = ()

    def refuse_for_shutdown(self) -> None:
        if self.response is not None:  # a refusal that nobody has read yet
            super().refuse_for_shutdown()
        else:
            self.loop.call_later(OPENING_GRACE, self._lose_patience)

    def _lose_patience(self) -> None:
        if self.response is None and not self.link.is_closed():
            super().refuse_for_shutdown()
