"""The lengths at which integers of C go wrong, declared in heads of frames of every kind, cut at every byte.

A session may know no more of a length than what RFC 6455 says of it, on either form: the table has Python's integers.
"""

from __future__ import annotations

import pytest

from fullduplex.wire.extensions import RSV1, Extension, widened
from fullduplex.wire.limits import MAX_MESSAGE
from fullduplex.wire.opcodes import NO_LIMIT
from wire.frames import BINARY, CLOSE, CONT, PING, PONG, TEXT
from wire.subject import Make, Spy, Subject

LENGTHS = [125, 126, 127, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]

# (opcode, FIN), and the reserved bit of what an extension has encoded.
KINDS = [
    *((opcode, fin, 0) for opcode in (TEXT, BINARY, CONT) for fin in (True, False)),
    *((opcode, True, 0) for opcode in (CLOSE, PING, PONG)),
    *((BINARY, fin, RSV1 >> 4) for fin in (True, False)),
]


def verdict(opcode: int, rsv: int, length: int, held: int, max_size: int, max_frame: int) -> tuple[int, str]:
    """The close code that such a frame deserves, and the rule; 0 if it may come."""
    if opcode >= CLOSE:
        return (1002, "a control frame is longer than 125 bytes (section 5.5)") if length > 125 else (0, "")
    if length >= 2**63:
        return 1002, "a length with its highest bit set (section 5.2)"
    if not rsv and held + length > max_size:
        return 1009, f"a message of {held + length} bytes is over the limit of {max_size}"
    if length > (widened(max_frame) if rsv else max_frame):
        return 1009, f"a frame of {length} bytes is over the limit of {max_frame}"
    return 0, ""


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("opcode", "fin", "rsv"), KINDS)
def test_declared_lengths(make: Make, opcode: int, fin: bool, rsv: int, length: int) -> None:
    """What is wrong is known when the head is there, and of a control frame after two bytes; never before."""
    held = 3 if opcode == CONT else 0
    known = 2 if opcode >= CLOSE else None
    limits = [(None, None), (MAX_MESSAGE, None), (MAX_MESSAGE, 125)]
    if length < 2**63:
        limits += [(length, None), (length - 1, None), (None, length), (None, length - 1), (length, length - 1)]
    for max_size, max_frame in limits:
        largest = NO_LIMIT if max_size is None else max_size
        code, rule = verdict(opcode, rsv, length, held, largest, min(largest, max_frame or largest))

        def begin(max_size: int | None = max_size, max_frame: int | None = max_frame) -> Subject:
            extension: Extension | None = Spy(RSV1) if rsv else None
            subject = make(max_size=max_size, max_frame=max_frame, extension=extension)
            if held:
                subject.hear(subject.frame(TEXT, b"abc", fin=False))
            return subject

        def check(subject: Subject, code: int = code, rule: str = rule) -> None:
            failure = subject.session.failure
            assert ((failure.code, failure.rule) if failure else (0, "")) == (code, rule)
            assert subject.take() == []

        begun = begin().frame(opcode, b"x" * 20, declared=length, fin=fin, rsv=rsv)
        head = begun[:-20]
        for cut in range(len(head)):
            subject = begin()
            subject.hear(head[:cut])
            if cut < (known or len(head)):
                assert subject.session.failure is None
            subject.hear(head[cut:])
            check(subject)
            subject = begin()
            subject.hear(head[:cut], begun[cut:])  # and the first bytes of the payload
            check(subject)
        subject = begin()
        subject.hear_bytewise(head)
        check(subject)


@pytest.mark.parametrize("length", [size for size in LENGTHS if size <= 65536])
def test_whole_messages(make: Make, length: int) -> None:
    """The same, where all of it comes: cut at every byte of the head, and around the end."""
    for max_size in (None, length, length - 1):
        subject = make(max_size=max_size)
        whole = subject.frame(BINARY, bytes(i & 255 for i in range(length)))
        head = len(whole) - length
        for cut in (*range(head + 2), len(whole) - 1):
            subject = make(max_size=max_size)
            subject.hear(whole[:cut], whole[cut:] + whole[:1])
            if max_size == length - 1:
                assert subject.session.failure is not None
                assert subject.take() == []
            else:
                assert subject.take() == [bytes(i & 255 for i in range(length))]
                assert subject.session.failure is None
