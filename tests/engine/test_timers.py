"""The wheel: never early, at most one slot late, and nobody in it who has left."""

from __future__ import annotations

import itertools
import math
from weakref import WeakValueDictionary

from hypothesis import given
from hypothesis import strategies as st

from fullduplex.engine.timers import NEVER, NO_SLOT, RESOLUTION, Timed, Wheel

ULP = 1e-9  # what a float may be off by, at any time of a machine that has been up for a century


class Alarm:
    """Something with a deadline."""

    def __init__(self, when: float) -> None:
        self.fd = next(numbers)
        self.slot = NO_SLOT
        alarms_by_fd[self.fd] = self
        self.when = when

    def deadline(self) -> float:
        return self.when

    def expire(self, now: float) -> None:
        raise AssertionError("the wheel does not call")


numbers = itertools.count()
alarms_by_fd: WeakValueDictionary[int, Alarm] = WeakValueDictionary()


def take(wheel: Wheel, now: float) -> list[Timed]:
    return wheel.due(now, alarms_by_fd.get)


times = st.floats(0.0, 1e9)


@given(times)
def test_is_never_early_and_at_most_one_slot_late(when: float) -> None:
    wheel = Wheel()
    alarm = Alarm(when)
    wheel.add(alarm)
    due = wheel.next()
    assert when - ULP * when <= due <= when + RESOLUTION + ULP * when
    assert take(wheel, math.nextafter(due, 0.0)) == []
    assert take(wheel, due) == [alarm]
    assert alarm.slot == NO_SLOT
    assert wheel.next() == NEVER


@given(st.lists(times, max_size=20), times)
def test_what_is_due_comes_out_once_and_in_order(whens: list[float], now: float) -> None:
    wheel = Wheel()
    alarms = [Alarm(when) for when in whens]
    for alarm in alarms:
        wheel.add(alarm)
        wheel.add(alarm)
    found = take(wheel, now)
    slots = [int(alarm.when / RESOLUTION) for alarm in found if isinstance(alarm, Alarm)]
    assert slots == sorted(slots)
    assert len(set(map(id, found))) == len(found)
    assert take(wheel, now) == []
    late = [alarm for alarm in alarms if alarm not in found]
    assert all(alarm.when > now - RESOLUTION - ULP * now for alarm in late)
    assert sorted(map(id, take(wheel, 2e9))) == sorted(map(id, late))


def test_no_deadline_no_slot() -> None:
    wheel = Wheel()
    for never in (NEVER, 1e300):
        alarm = Alarm(never)
        wheel.add(alarm)
        assert alarm.slot == NO_SLOT
    assert wheel.next() == NEVER
    assert take(wheel, 2e300) == []


def test_a_deadline_that_moves_later_costs_nothing() -> None:
    """The wheel tells at the time that was asked for first; who has more time then adds itself again."""
    wheel = Wheel()
    alarm = Alarm(10.0)
    wheel.add(alarm)
    before = wheel.next()
    alarm.when = 20.0
    wheel.add(alarm)
    assert wheel.next() == before
    assert take(wheel, before) == [alarm]
    wheel.add(alarm)
    assert take(wheel, 20.0) == []
    assert take(wheel, 20.0 + RESOLUTION) == [alarm]


def test_a_deadline_that_moves_earlier_is_met() -> None:
    wheel = Wheel()
    alarm = Alarm(20.0)
    wheel.add(alarm)
    alarm.when = 10.0
    wheel.add(alarm)
    assert take(wheel, 10.0 + RESOLUTION) == [alarm]
    alarm.when = 20.0  # the very slot it stood in before, where it is found once
    wheel.add(alarm)
    assert take(wheel, 20.0 + RESOLUTION) == [alarm]


def test_who_left_is_not_kept() -> None:
    wheel = Wheel()
    left, stays, never = Alarm(10.0), Alarm(10.0), Alarm(NEVER)
    wheel.add(left)
    wheel.add(stays)
    for alarm in (left, left, never):
        wheel.remove(alarm)
        assert alarm.slot == NO_SLOT
    assert take(wheel, 11.0) == [stays]


def test_who_has_the_number_now_is_due_when_it_said() -> None:
    wheel = Wheel()
    left, newcomer = Alarm(10.0), Alarm(20.0)
    wheel.add(left)
    wheel.remove(left)
    newcomer.fd = left.fd
    alarms_by_fd[left.fd] = newcomer
    wheel.add(newcomer)
    assert take(wheel, 11.0) == []
    newcomer.when = 12.0
    wheel.add(newcomer)
    assert take(wheel, 21.0) == [newcomer]


def test_an_empty_slot_passes() -> None:
    wheel = Wheel()
    alarm = Alarm(10.0)
    wheel.add(alarm)
    wheel.remove(alarm)
    assert wheel.next() <= 10.0 + RESOLUTION
    assert take(wheel, 11.0) == []
    assert wheel.next() == NEVER


def test_time_that_jumps() -> None:
    """A machine that slept: all slots that passed come at once."""
    wheel = Wheel()
    alarms = [Alarm(float(when)) for when in range(5)]
    for alarm in reversed(alarms):
        wheel.add(alarm)
    assert take(wheel, 1e6) == alarms
