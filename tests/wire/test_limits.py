"""Limits that stand in a relation to each other, or that the RFC fixes."""

from __future__ import annotations

from fullduplex.wire import limits


def test_every_limit_is_a_positive_number() -> None:
    """None, zero and infinity are not limits."""
    values = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert len(values) >= 15
    assert all(0 < value < 2**31 for value in values.values())


def test_control_frames() -> None:
    """RFC 6455, sections 5.5 and 5.5.1."""
    assert limits.MAX_CONTROL == 125
    assert limits.MAX_REASON == limits.MAX_CONTROL - 2


def test_the_sum_is_bounded_too() -> None:
    """Many lines of a legal length are an attack like one that is too long."""
    assert limits.MAX_LINE < limits.MAX_HEAD < limits.MAX_LINE * limits.MAX_HEADERS


def test_an_honest_message_in_bytes() -> None:
    """Autobahn sends 64 KiB in fragments of one byte; every message of that size must have room for them."""
    assert limits.MAX_FRAGMENTS > 65_536


def test_one_message_of_the_largest_size_fits_the_queue() -> None:
    assert limits.MAX_QUEUE_SIZE >= limits.MAX_MESSAGE
