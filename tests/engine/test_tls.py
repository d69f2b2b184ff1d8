"""OpenSSL between a socket and those who read and write: two ends on a bench, with the kernel between them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from itertools import combinations_with_replacement, pairwise

import pytest

from engine.bench import Bench, Plain, Shaken
from fullduplex.engine.shares import PORTION
from fullduplex.engine.tls import TLS

MOST = 262_144
TURNS = 10_000
OVERHEAD = 22  # of a record: its head, the true type inside, the tag of the cipher. RFC 8446, section 5.2
LARGEST = 16_384  # bytes of one record


class Ends:
    """Both ends of a connection: the server's is the one that is looked at."""

    def __init__(self, bench: Bench, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        self.engine = bench.engine
        self.sock, self.peer = socket.socketpair()
        for sock in (self.sock, self.peer):
            sock.setblocking(False)
        self.server = TLS(self.sock, self.sock.fileno(), server, True, None)
        self.client = TLS(self.peer, self.peer.fileno(), client, False, "localhost")

    def shake(self) -> None:
        client, server = (end.shake() for end in (self.client, self.server))
        while not (client and server):
            client, server = client or self.client.shake(), server or self.server.shake()
        assert self.read(self.client) == b""  # session tickets

    def read(self, end: TLS, most: int = MOST) -> bytes:
        """What is there now, in one read."""
        return bytes(self.engine.view[: max(0, end.read(self.engine, most))])

    def close(self) -> None:
        self.sock.close()
        self.peer.close()


@pytest.fixture
def ends(bench: Bench, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[Ends]:
    ends = Ends(bench, *contexts)
    yield ends
    ends.close()


@pytest.fixture
def shaken(ends: Ends) -> Ends:
    ends.shake()
    return ends


def test_bytes_come_and_go(shaken: Ends) -> None:
    server, client = shaken.server, shaken.client
    assert client.ssl_object.getpeercert()
    assert server.ssl_object.cipher() is not None
    assert server.read(shaken.engine, MOST) == -1
    assert client.write(bytearray(b"hello")) == 5
    assert shaken.read(server) == b"hello"
    assert server.read(shaken.engine, MOST) == -1
    assert server.write(bytearray(b"hi")) == 2
    assert shaken.read(client) == b"hi"


def test_many_records_come_in_one_read(shaken: Ends) -> None:
    for number in range(100):
        assert shaken.client.write(bytearray(b"%03d" % number)) == 3
    assert shaken.read(shaken.server) == b"".join(b"%03d" % number for number in range(100))


def test_no_more_is_read_than_is_wanted(shaken: Ends) -> None:
    """Of one record, and of several; the kernel is not asked for the rest."""
    server = shaken.server
    shaken.client.write(bytearray(b"abcdef"))
    shaken.client.write(bytearray(b"ghi"))
    assert [shaken.read(server, 3) for _ in range(2)] == [b"abc", b"def"]
    assert server.more
    assert shaken.read(server, 9) == b"ghi"
    assert not server.more


def test_a_record_in_pieces(shaken: Ends) -> None:
    sealed = seal(shaken.client, b"payload")
    shaken.peer.send(sealed[:9])
    assert shaken.server.read(shaken.engine, MOST) == -1
    assert not shaken.server.more
    shaken.peer.send(sealed[9:])
    assert shaken.read(shaken.server) == b"payload"


def test_any_cut_of_records(shaken: Ends) -> None:
    """Whatever comes together, all of it is read, and nothing is waited for that is not there."""
    records = [b"one", b"and two", b"3"]
    size = len(b"".join(records)) + len(records) * OVERHEAD
    for first, second in combinations_with_replacement(range(size + 1), 2):
        sealed = b"".join(seal(shaken.client, record) for record in records)
        assert len(sealed) == size
        came = b""
        for start, stop in pairwise((0, first, second, size)):
            shaken.peer.send(sealed[start:stop])
            came += shaken.read(shaken.server)
            assert not shaken.server.more
        assert came == b"".join(records)


def test_of_a_record_alone_no_more_is_read_than_is_wanted(shaken: Ends) -> None:
    server = shaken.server
    for _ in range(2):
        shaken.client.write(bytearray(b"abcdef"))
        assert [shaken.read(server, 3), server.more] == [b"abc", True]
        assert [shaken.read(server, 9), server.more] == [b"def", False]


def test_a_record_alone_behind_a_full_portion(shaken: Ends) -> None:
    """Not all of it is wanted: the rest is not forgotten."""
    shaken.client.write(bytearray(b"one"))
    assert shaken.read(shaken.server) == b"one"
    one = seal(shaken.client, bytes(LARGEST))
    filling = bytes(PORTION - len(one) - OVERHEAD)
    two = seal(shaken.client, filling)
    assert len(one + two) == PORTION
    shaken.peer.send(one + two + seal(shaken.client, b"abcdef"))
    most = LARGEST + len(filling) + 3
    assert shaken.read(shaken.server, most) == bytes(most - 3) + b"abc"
    assert shaken.server.more
    assert shaken.read(shaken.server) == b"def"


def test_bytes_that_look_like_a_record(shaken: Ends) -> None:
    """The rest of a record, with others behind it, begins as a record of that length would: nothing is left unread."""
    shaken.client.write(bytearray(b"one"))
    assert shaken.read(shaken.server) == b"one"
    records = [bytes([number]) * 1_000 for number in range(40)]
    sealed = [seal(shaken.client, record) for record in records]
    stream, first = b"".join(sealed), len(sealed[0])
    cut, stop = next(
        (cut, stop)
        for cut in range(6, first)
        if 2 * first < (stop := cut + 5 + int.from_bytes(stream[cut + 3 : cut + 5])) < min(len(stream), PORTION)
    )
    shaken.peer.send(stream[:cut])
    assert shaken.server.read(shaken.engine, MOST) == -1
    shaken.peer.send(stream[cut:stop])
    assert shaken.read(shaken.server) == b"".join(records)[: stop // first * 1_000]
    assert not shaken.server.more


def seal(end: TLS, data: bytes) -> bytes:
    """The records of `data`, sent by nobody."""
    end.ssl_object.write(data)
    return end.outgoing.read()


def test_more_than_the_kernel_takes(shaken: Ends) -> None:
    """Nothing is told to be written that waits here; little waits, and little is held in OpenSSL's memory."""
    data = bytearray(range(256)) * 16_384
    rest, came = bytearray(data), bytearray()
    blocked = False
    for _ in range(TURNS):
        sent = shaken.client.write(rest)
        del rest[:sent]
        assert bool(rest) is bool(shaken.client.sealed)
        assert len(shaken.client.sealed) < PORTION + 100
        blocked = blocked or bool(rest)
        came += shaken.read(shaken.server)
        assert shaken.server.incoming.pending <= PORTION
        if len(came) == len(data):
            break
    assert blocked
    assert came == data


def test_the_end(shaken: Ends) -> None:
    """With the last bytes; it does not pass by. Nothing is read after ours but the end of TCP."""
    shaken.client.write(bytearray(b"bye"))
    shaken.client.end()
    assert shaken.read(shaken.server) == b"bye"
    assert shaken.server.more
    assert [shaken.server.read(shaken.engine, MOST) for _ in range(2)] == [0, 0]
    shaken.server.write(bytearray(b"too late"))
    shaken.server.end()
    shaken.server.end()
    assert shaken.client.read(shaken.engine, MOST) > 8  # in the raw
    shaken.sock.close()
    assert shaken.client.read(shaken.engine, MOST) == 0
    shaken.client.outgoing.write(b"somebody there?")
    shaken.client.end()


def test_the_end_alone(shaken: Ends) -> None:
    shaken.client.write(bytearray(b"bye"))
    assert shaken.read(shaken.server) == b"bye"
    shaken.client.end()
    for _ in range(2):
        assert [shaken.server.read(shaken.engine, MOST), shaken.server.more] == [0, True]


def test_the_end_of_tcp(shaken: Ends) -> None:
    shaken.client.write(bytearray(b"bye"))
    shaken.peer.close()
    assert shaken.read(shaken.server) == b"bye"
    assert [shaken.server.read(shaken.engine, MOST) for _ in range(2)] == [0, 0]


def test_a_full_portion_before_the_end_of_tcp(shaken: Ends) -> None:
    """The kernel may have more then: it has the end."""
    data = bytearray(2 * PORTION)
    shaken.client.write(data)
    shaken.peer.close()
    came = b"".join(shaken.read(shaken.server) for _ in range(5))
    assert came == data
    assert shaken.server.read(shaken.engine, MOST) == 0


def test_bytes_that_were_tampered_with(shaken: Ends) -> None:
    """What came before them is read first; then it is an error, each time, of which the peer is told."""
    shaken.peer.send(seal(shaken.client, b"good") + bytes(100))
    assert shaken.read(shaken.server) == b"good"
    assert shaken.server.more
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            shaken.server.read(shaken.engine, MOST)
    with pytest.raises(ssl.SSLError, match="alert"):
        shaken.client.read(shaken.engine, MOST)


def test_nothing_but_rubbish(shaken: Ends) -> None:
    shaken.peer.send(bytes(100))
    with pytest.raises(ssl.SSLError):
        shaken.server.read(shaken.engine, MOST)


def test_the_peer_leaves_in_the_handshake(ends: Ends) -> None:
    assert not ends.client.shake()
    ends.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(ssl.SSLEOFError):
        ends.client.shake()


# OpenSSL by script.


class Scripted:
    def __init__(self, bench: Bench) -> None:
        self.openssl = Shaken()
        self.sock, self.peer = bench.pair(Plain)
        self.tls = TLS(self.sock, -1, self.openssl, True, None)  # type: ignore[arg-type]
        self.tls.flush()
        self.peer.send(b"hello")
        assert self.tls.shake()
        assert self.peer.recv(100) == b"hello"


@pytest.fixture
def scripted(bench: Bench) -> Iterator[Scripted]:
    scripted = Scripted(bench)
    yield scripted
    scripted.sock.close()


def test_a_handshake_that_cannot_write(bench: Bench) -> None:
    sock, peer = bench.pair(Plain)
    with sock:
        tls = TLS(sock, -1, Shaken(), True, None)  # type: ignore[arg-type]
        sock.script["send"] = [2, BlockingIOError()]
        peer.send(b"hello")
        assert not tls.shake()
        assert (tls.wants_write, bytes(tls.sealed)) == (True, b"llo")
        assert not tls.shake()
        assert tls.shake()
        assert not tls.wants_write


def test_what_reading_has_to_say_leaves_first(bench: Bench, scripted: Scripted) -> None:
    tls = scripted.tls
    scripted.openssl.outgoing.write(b"keys")
    scripted.sock.script["send"] = [BlockingIOError()]
    scripted.peer.send(b"x")
    assert tls.read(bench.engine, MOST) == 1
    assert tls.wants_write
    scripted.peer.send(b"y")
    assert tls.read(bench.engine, MOST) == -1
    assert tls.flush()
    tls.wants_write = False
    assert tls.read(bench.engine, MOST) == 1
    assert scripted.peer.recv(100) == b"keys"


def test_writing_that_has_to_read(scripted: Scripted) -> None:
    """What OpenSSL has to say itself leaves nevertheless."""
    tls, openssl = scripted.tls, scripted.openssl
    openssl.script["write"] = [ssl.SSLWantReadError()]
    openssl.outgoing.write(b"keys")
    assert tls.write(bytearray(b"abc")) == 0
    assert tls.wants_read
    assert scripted.peer.recv(100) == b"keys"
    assert tls.write(bytearray(b"abc")) == 3
    assert not tls.wants_read
    assert scripted.peer.recv(100) == b"abc"


def test_what_is_sealed_is_not_sealed_again(scripted: Scripted) -> None:
    """Bytes that the kernel has not taken are not told to be written; given again, they are not written twice."""
    data = bytearray(b"abcdef")
    scripted.sock.script["send"] = [BlockingIOError(), BlockingIOError()]
    for _ in range(2):
        assert scripted.tls.write(data) == 0
    data += b"ghi"
    assert scripted.tls.write(data) == 9
    assert scripted.peer.recv(100) == b"abcdefghi"
