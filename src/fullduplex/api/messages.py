"""What a message may be: str, bytes-like, or the fragments of one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

Data = str | bytes
BytesLike = bytes | bytearray | memoryview


def encode(message: Data | BytesLike) -> tuple[BytesLike, bool]:
    """The bytes of a message or of a part of it, and whether it is text."""
    if isinstance(message, str):
        return message.encode(), True
    if isinstance(message, bytes | bytearray):
        return message, False
    if isinstance(message, memoryview):
        return message.tobytes(), False  # of any shape and format
    raise TypeError(f"a message is str or bytes-like, not {type(message).__name__}")


def convert(message: Data, decode: bool) -> Data:
    """A message as `str` if `decode`, else as `bytes`. Raises UnicodeDecodeError."""
    if decode:
        return message if isinstance(message, str) else message.decode()
    return message.encode() if isinstance(message, str) else message


class Asynchronous:
    """An iterable as an asynchronous one; a generator would have to be closed if it is left early."""

    __slots__ = ("_iterator",)

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterator = iter(iterable)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        for item in self._iterator:
            return item
        raise StopAsyncIteration
