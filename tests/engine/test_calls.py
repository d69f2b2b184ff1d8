from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from fullduplex.engine import calls

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        yield one, other


def test_read(pair: Pair) -> None:
    one, other = pair
    buffer = bytearray(4)
    assert calls.read(one, one.fileno(), buffer) == -1
    other.sendall(b"abcdef")
    assert calls.read(one, one.fileno(), buffer) == 4
    assert buffer == b"abcd"
    other.close()
    assert calls.read(one, one.fileno(), buffer) == 2
    assert calls.read(one, one.fileno(), buffer) == 0


@pytest.mark.parametrize(("write", "kind"), [(calls.write, bytearray), (calls.write_shared, bytes)])
def test_write(pair: Pair, write: Any, kind: Any) -> None:
    one, other = pair
    assert write(one, one.fileno(), kind(b"abc")) == 3
    assert other.recv(9) == b"abc"
    while write(one, one.fileno(), kind(65_536)):
        pass
    other.close()
    with pytest.raises(OSError):
        write(one, one.fileno(), kind(b"x"))
