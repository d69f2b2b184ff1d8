from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from fullduplex.engine import calls
from fullduplex.engine.poller import READ, Watcher, make_poller

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
    assert calls.read(one, one.fileno(), buffer, 4) == -1
    other.sendall(b"abcdef")
    assert calls.read(one, one.fileno(), buffer, 2) == 2
    assert buffer == b"ab\0\0"
    assert calls.read(one, one.fileno(), buffer, 4) == 4
    assert buffer == b"cdef"
    other.close()
    assert calls.read(one, one.fileno(), buffer, 4) == 0


def test_read_bytes(pair: Pair) -> None:
    one, other = pair
    assert calls.read_bytes(one, one.fileno(), 4) is None
    other.sendall(b"abcdef")
    other.close()
    assert calls.read_bytes(one, one.fileno(), 4) == b"abcd"
    assert calls.read_bytes(one, one.fileno(), 1 << 20) == b"ef"
    assert calls.read_bytes(one, one.fileno(), 4) == b""
    one.close()
    with pytest.raises(OSError):
        calls.read_bytes(one, -1, 4)


@pytest.mark.parametrize("kind", [bytearray, bytes])
def test_write(pair: Pair, kind: Any) -> None:
    one, other = pair
    assert calls.write(one, one.fileno(), kind(b"abc")) == 3
    assert other.recv(9) == b"abc"
    while calls.write(one, one.fileno(), kind(65_536)):
        pass
    other.close()
    with pytest.raises(OSError):
        calls.write(one, one.fileno(), kind(b"x"))


def test_write_both(pair: Pair) -> None:
    one, other = pair
    assert calls.write_both(one, one.fileno(), bytearray(b"ab"), b"cd") == 4
    assert other.recv(9) == b"abcd"
    while calls.write_both(one, one.fileno(), bytearray(b"x"), bytes(65_536)):
        pass
    other.close()
    with pytest.raises(OSError):
        calls.write_both(one, one.fileno(), bytearray(b"x"), b"y")


def test_where_there_is_no_sendmsg_the_first_part_is_written() -> None:
    class Plain:
        def send(self, data: bytearray) -> int:
            return len(data)

    plain: Any = Plain()
    assert calls.write_both(plain, -1, bytearray(b"ab"), b"cd") == 2


class Noting(Watcher):
    def __init__(self) -> None:
        self.served: list[tuple[int, int]] = []

    def serve(self, fd: int, events: int) -> None:
        self.served.append((fd, events))


def test_poll(pair: Pair) -> None:
    one, other = pair
    poller, watcher = make_poller(), Noting()
    poller.register(one.fileno(), READ)
    assert calls.poll(poller, poller.fileno(), 10, watcher) == 0
    other.sendall(b"x")
    assert calls.poll(poller, poller.fileno(), 10, watcher) == 1
    assert watcher.served == [(one.fileno(), READ)]
    poller.close()


def test_who_watches_says_how() -> None:
    with pytest.raises(NotImplementedError):
        Watcher().serve(0, READ)
