"""Limits that stand in a relation to each other, or that the RFC fixes."""

from __future__ import annotations

import resource
import sys
from dataclasses import replace

import pytest

from fullduplex.wire import limits
from fullduplex.wire.limits import UNLIMITED, Limits


def test_every_limit_is_a_positive_number() -> None:
    """None, zero and infinity are not limits."""
    values = {name: value for name, value in vars(limits).items() if name.isupper() and name != "UNLIMITED"}
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
    fragments = limits.Limits().fragments
    assert fragments is not None
    assert fragments > 65_536


def test_one_message_of_the_largest_size_fits_the_queue() -> None:
    assert limits.MAX_QUEUE_SIZE >= limits.MAX_MESSAGE


@pytest.mark.parametrize("name", Limits.__slots__)
def test_a_limit_is_above_zero(name: str) -> None:
    """A limit of nothing is a mistake, and none that is off."""
    with pytest.raises(ValueError, match=f"{name} is "):
        replace(UNLIMITED, **{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(("soft", "most"), [(1024, 821), (20_000, 17_900), (64, 6), (resource.RLIM_INFINITY, None)])
def test_some_descriptors_are_left(soft: int, most: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, soft))
    assert Limits().connections == most


def test_a_system_without_resource_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert Limits().connections is None


def test_a_time_for_what_is_unsent() -> None:
    with pytest.raises(ValueError, match="unsent=None"):
        replace(UNLIMITED, unsent_for=None)  # type: ignore[arg-type]
