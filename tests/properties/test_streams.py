"""Laws of what comes in: cuts, garbage, memory, text, round trips."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullduplex.testing import Pair
from fullduplex.wire.codec import MaskKeys
from fullduplex.wire.extensions import RSV2, RSV3, ExtensionFactory, Stack
from fullduplex.wire.limits import Limits
from fullduplex.wire.opcodes import BINARY_FRAME, TEXT_FRAME, State
from fullduplex.wire.session import Session
from fullduplex.wire.transfer import TransferRate
from properties.streams import (
    BLOBS,
    CUTS,
    MAX_SIZE,
    TEXTS,
    Meaning,
    broken_streams,
    law,
    may_be_text,
    meaning,
    streams,
)
from wire.frames import CLOSE, CONT, KEY, PONG, TEXT, close_payload, pieces
from wire.subject import Doubled, Made, Subject, Wrapped

# One kind for each way to work: without reserved bits, and not before a message is complete; with a bit, and piece by
# piece; with another; only by a clock.
EXTENSIONS = [
    Made("wrapped", lambda: Wrapped("wrapped")),
    Made("doubled", Doubled),
    Made("quadrupled", lambda: Stack([Doubled(RSV2), Doubled(RSV3)])),
    TransferRate(2000),
]

ROLES = pytest.mark.parametrize("server", [True, False], ids=["server", "client"])


class OneKey(MaskKeys):
    """What leaves a client can be compared, byte by byte."""

    def next(self) -> bytes:
        return KEY


def traced(server: bool, parts: Iterator[bytes] | list[bytes]) -> tuple[list[Any], bytes, Any, Session]:
    """The messages, the bytes that left, and the end, of a stream that comes in these parts."""
    subject = Subject(server, max_size=MAX_SIZE, mask_keys=OneKey())
    session = subject.session
    messages: list[Any] = []
    for part in parts:
        subject.hear(part)
        messages += subject.take()
        session.conclude(subject.now)
    rule = None if session.failure is None else (session.failure.code, session.failure.rule)
    return messages, bytes(session.out), (rule, session.rcvd, session.sent, session.state), session


def assert_means(server: bool, stream: bytes, expected: Meaning) -> None:
    subject = Subject(server, max_size=MAX_SIZE)
    subject.hear(stream)
    assert subject.take() == expected.messages
    said = subject.said()
    assert said == [(PONG, ping) for ping in expected.pings]
    answer = subject.conclude()
    if expected.answer is None:
        assert answer == []
        assert subject.session.state is State.OPEN
        return
    [(opcode, payload)] = answer
    assert opcode == CLOSE
    assert payload[:2] == (b"" if expected.answer == 1005 else close_payload(expected.answer))
    assert (subject.session.failure is not None) == expected.failed
    assert subject.session.state is State.CLOSING
    assert subject.session.over


@ROLES
@law(150)
@given(data=st.data())
def test_a_legal_stream_means_what_it_says(server: bool, data: st.DataObject) -> None:
    stream = data.draw(streams(server))
    expected = meaning(stream, server)
    assert not expected.failed
    assert_means(server, stream, expected)


@ROLES
@law(400)
@given(data=st.data())
def test_so_does_a_broken_one(server: bool, data: st.DataObject) -> None:
    """T14: whatever comes, nothing is raised; and what it means does not depend on our way of reading it."""
    stream = data.draw(broken_streams(server))
    assert_means(server, stream, meaning(stream, server))


@ROLES
@law(200)
@given(data=st.data(), cuts=CUTS)
def test_cuts_change_nothing(server: bool, data: st.DataObject, cuts: list[int]) -> None:
    """P1: the same messages, the same bytes out, the same error, however the network cuts the stream."""
    stream = data.draw(streams(server) | broken_streams(server))
    *whole, _ = traced(server, [stream])
    *parts, _ = traced(server, pieces(stream, cuts))
    assert parts == whole


@ROLES
@law(60)
@given(data=st.data(), cuts=CUTS)
def test_memory(server: bool, data: st.DataObject, cuts: list[int]) -> None:
    """P9: a session holds a message of the largest size, and nothing of what came before it or was only declared."""
    stream = data.draw(broken_streams(server))
    keys = OneKey()
    tracemalloc.start()
    try:
        # Once to warm up what Python itself keeps, such as small strings and free lists.
        for _ in range(2):
            before = tracemalloc.get_traced_memory()[0]
            session = Session(server, max_size=MAX_SIZE, mask_keys=keys)
            session.open(0.0)
            for _ in range(20):
                for part in pieces(stream, cuts):
                    session.receive(bytearray(part), len(part), 0.0)
                    while session.inbox:
                        session.take()
                    session.out.clear()
            session.conclude(0.0)
            held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < MAX_SIZE + 4096


@ROLES
@law(150)
@given(
    messages=st.lists(
        st.tuples(TEXTS | BLOBS, st.lists(st.integers(0, 200), max_size=3), st.sampled_from([None, True, False]))
    ),
    cut=st.integers(1, 50),
    extensions=st.lists(st.sampled_from(EXTENSIONS), unique=True),
)
def test_round_trip(
    server: bool,
    messages: list[tuple[str | bytes, list[int], bool | None]],
    cut: int,
    extensions: list[ExtensionFactory],
) -> None:
    """P2: what one end sends, the other receives; whole and in fragments, with pings between these, which do not wait.

    So it is through extensions in any order, and if it may only leave slowly; then the close frame waits, too.
    """
    client, server_session = (Session(role, ping_interval=None) for role in (False, True))
    pair = Pair(client, server_session, cut=cut, extensions=extensions)
    sender, receiver = (pair.server, pair.client) if server else (pair.client, pair.server)
    session = sender.session
    for message, cuts, compress in messages:
        payload = message.encode() if isinstance(message, str) else message
        first = TEXT_FRAME if isinstance(message, str) else BINARY_FRAME
        if not cuts:
            session.send(first, payload, compress)
            continue
        for part in pieces(payload, cuts):
            session.send_fragment(first & 15, part, False, compress)
            session.ping(None, pair.now)
        session.send_fragment(first & 15, b"", True)
    pair.run()
    expected = [message for message, *_ in messages]
    assert receiver.messages == expected[: len(receiver.messages)]
    assert [trip for _, trip in sender.acknowledged] == [0.0] * sum(len(cuts) + 1 for _, cuts, _ in messages if cuts)
    session.close(1000, "", pair.now)
    pair.pass_time(60.0)
    assert receiver.messages == expected
    assert sender.closed
    assert receiver.closed


@ROLES
@law(60)
@given(
    messages=st.lists(st.tuples(TEXTS | BLOBS | st.just(bytes(3000)), st.floats(0, 1)), max_size=15),
    cut=st.sampled_from([1, 100, 65536]),
    rate=st.sampled_from([800, 5000, 20_000]),
)
def test_what_a_peer_wants_slowly(server: bool, messages: list[tuple[str | bytes, float]], cut: int, rate: int) -> None:
    """At no time has more left than the rate allows, and a burst; at the end all has, in order."""
    client, server_session = (Session(role, ping_interval=None) for role in (False, True))
    pair = Pair(client, server_session, cut=cut, extensions=[TransferRate(rate)])
    sender, receiver = (pair.server, pair.client) if server else (pair.client, pair.server)
    burst = max(512, rate / 4)
    for message, pause in messages:
        if isinstance(message, str):
            sender.session.send(TEXT_FRAME, message.encode())
        else:
            sender.session.send(BINARY_FRAME, message)
        pair.pass_time(pause)
        assert len(sender.sent) <= rate * pair.now + burst + 1
    while sender.session.waiting:
        pair.pass_time(0.1)
        assert len(sender.sent) <= rate * pair.now + burst + 1
    assert receiver.messages == [message for message, _ in messages]


@ROLES
@law(60)
@given(
    messages=st.lists(st.tuples(TEXTS | BLOBS | st.just(bytes(3000)), st.floats(0, 1)), max_size=15),
    cut=st.sampled_from([1, 100, 65536]),
    limits=st.sampled_from(
        [
            Limits(bytes_per_second=500),
            Limits(messages_per_second=2),
            Limits(bytes_per_second=3000, messages_per_second=3),
        ]
    ),
)
def test_what_comes_faster_than_it_may(
    server: bool, messages: list[tuple[str | bytes, float]], cut: int, limits: Limits
) -> None:
    """It is read as slowly as the limits say, and nothing is lost."""
    roles = {role: Session(role, ping_interval=None, limits=limits) for role in (False, True)}
    pair = Pair(roles[False], roles[True], cut=cut)
    sender, receiver = (pair.server, pair.client) if server else (pair.client, pair.server)
    meter = receiver.session.meter
    assert meter is not None
    for message, pause in [*messages, *[(b"", 1.0)] * 200]:
        if isinstance(message, str):
            sender.session.send(TEXT_FRAME, message.encode())
        elif message:
            sender.session.send(BINARY_FRAME, message)
        pair.pass_time(pause)
        come = len(sender.sent) - len(receiver.arriving)
        assert come <= (limits.bytes_per_second or 1e9) * (pair.now + 1) + meter.read_size
    assert receiver.messages == [message for message, _ in messages if message != b""]
    assert receiver.session.failure is None


BYTES = st.one_of(
    st.binary(max_size=8),
    st.text(max_size=6).map(str.encode),
    st.tuples(st.text(max_size=3).map(str.encode), st.binary(max_size=4)).map(b"".join),
    # Around every border of the table of well-formed bytes.
    st.lists(st.sampled_from(bytes.fromhex("00417f808f909fa0bfc0c1c2dfe0e1ecedeeeff0f1f3f4f5ff")), max_size=6).map(
        bytes
    ),
)


@ROLES
@law(400)
@given(data=BYTES, cuts=st.lists(st.integers(0, 8), max_size=4), fragments=st.booleans())
def test_text(server: bool, data: bytes, cuts: list[int], fragments: bool) -> None:
    """P5: the verdict is that of bytes.decode, and falls at the first byte that makes it certain."""
    try:
        expected: str | None = data.decode()
    except UnicodeDecodeError:
        expected = None
    assert may_be_text(data, True) == (expected is not None)
    subject = Subject(server)
    if fragments:
        subject.hear(subject.frame(TEXT, fin=False))
        parts = [subject.frame(CONT, part, fin=False) for part in pieces(data, cuts)]
    else:
        stream = subject.frame(TEXT, data + b"more")
        start = len(stream) - len(data) - 4
        subject.hear(stream[:start])
        parts = list(pieces(stream[start:-4], cuts))
    come = 0
    for part, piece in zip(parts, pieces(data, cuts), strict=True):
        subject.hear(part)
        come += len(piece)
        assert (subject.session.failure is None) == may_be_text(data[:come], False)
    if fragments:
        subject.hear(subject.frame(CONT))
        assert subject.take() == ([] if expected is None else [expected])
        assert (subject.session.failure is None) == (expected is not None)


def test_the_laws_can_fail() -> None:
    """The plain reading of streams knows right from wrong."""
    assert meaning(bytes.fromhex("8105 48656c6c6f 8900 8800"), False) == (["Hello"], [b""], 1005, False)
    assert meaning(bytes.fromhex("8185 37fa213d 7f9f4d5158"), True) == (["Hello"], [], None, False)
    assert meaning(bytes.fromhex("0103 48656c 8002 6c6f 8103 48"), False) == (["Hello"], [], None, False)
    assert meaning(bytes.fromhex("8101 ff"), False) == ([], [], 1007, True)
    assert meaning(bytes.fromhex("827e 012d"), False) == ([], [], 1009, True)
    assert meaning(bytes.fromhex("c100"), False) == ([], [], 1002, True)
    assert [may_be_text(b"\xed\x9f", complete) for complete in (False, True)] == [True, False]
    assert not may_be_text(b"\xed\xa0", False)
