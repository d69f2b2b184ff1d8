from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullduplex.wire.keepalive import FOREVER
from fullduplex.wire.limits import Limits
from fullduplex.wire.rate import BURST, HEAD, PIECE, SMALLEST_PIECE, Bucket, Meter, Pacer, make_meter
from wire.frames import BINARY, CONT, TEXT

RATES = st.floats(0.01, 1e9) | st.sampled_from([0.5, 1.0, 1024.0, 1e9])
PARTS = st.integers(0, 1500).map(lambda size: bytes(i % 251 for i in range(size)))
PAUSES = st.lists(st.floats(0, 10) | st.just(0.0), max_size=30)
ABOUT = 1e-6  # of rounded numbers


class TestBucket:
    def test_it_begins_full(self) -> None:
        bucket = Bucket(10.0, 25.0, 1000.0)
        assert bucket.take(20, 1000.0)
        assert not bucket.take(6, 1000.0)
        assert bucket.take(5, 1000.0)
        assert not bucket.take(1, 1000.0)

    def test_a_second_fits_unless_told_otherwise(self) -> None:
        bucket = Bucket(10.0)
        assert not bucket.take(11, 0.0)
        assert bucket.take(10, 0.0)
        assert not bucket.take(11, 100.0)
        assert bucket.take(10, 100.0)

    def test_what_is_spent_is_missing_later(self) -> None:
        bucket = Bucket(10.0)
        bucket.spend(30, 0.0)
        assert bucket.wait(0.0) == 2.0
        assert bucket.wait(0.0, 5) == 2.5
        assert not bucket.take(1, 2.0)
        assert bucket.take(1, 2.1)
        assert bucket.wait(5.0) == 0.0

    @given(RATES, st.lists(st.tuples(st.floats(0, 5), st.floats(0, 3)), max_size=50))
    def test_never_more_than_the_rate(self, rate: float, wishes: list[tuple[float, float]]) -> None:
        """Of any wishes, given in bursts and after pauses, no more is granted than came in; and all that can be is."""
        bucket = Bucket(rate)
        now = granted = 0.0
        for pause, wish in wishes:
            now += pause
            amount = wish * rate
            if bucket.take(amount, now):
                granted += amount
            else:
                wait = bucket.wait(now, amount)
                assert wait > 0
                if wish < 1:
                    now += wait + ABOUT
                    assert bucket.take(amount, now)
                    granted += amount
            assert granted <= rate * (now + 1) * (1 + ABOUT)

    @given(RATES, st.lists(st.tuples(st.floats(0, 5), st.floats(0, 3)), max_size=50))
    def test_debts_are_paid(self, rate: float, debts: list[tuple[float, float]]) -> None:
        """Whoever waits as long as told has spent the rate, and no more."""
        bucket = Bucket(rate)
        now = spent = 0.0
        for pause, debt in debts:
            now += pause
            bucket.spend(debt * rate, now)
            spent += debt * rate
            now += bucket.wait(now)
            assert bucket.wait(now) <= ABOUT
            assert spent <= rate * (now + 1) * (1 + ABOUT)


class Out:
    """What a pacer lets go."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, bytes]] = []
        self.size = 0

    def append(self, first: int, payload: memoryview) -> None:
        self.frames.append((first, bytes(payload)))
        self.size += len(payload) + HEAD

    def count(self, first: int, payload: memoryview) -> None:
        """What is not looked at need not be copied."""
        self.size += len(payload) + HEAD


def burst_of(rate: float) -> float:
    return max(2 * SMALLEST_PIECE, rate * BURST)


def piece_of(rate: float) -> float:
    return max(SMALLEST_PIECE, rate * PIECE)


class TestPacer:
    @pytest.mark.parametrize("late", [0.0, 0.05], ids=["in time", "late"])
    @pytest.mark.parametrize("rate", [*(10.0**i for i in range(10)), 300.0, 2047.0, 2561.0, 5000.0])
    def test_the_rate(self, rate: float, late: float) -> None:
        """Exact over a long time, though the driver comes up to 50 ms late each time; at no time more than a burst."""
        chance = random.Random(int(rate))
        pacer = Pacer(rate, 1000.0)
        out = Out()
        payload = bytes(int(piece_of(rate) * 2.5))
        now = 1000.0
        for _ in range(400):
            if pacer.waiting < len(payload):
                pacer.add(0x80 | BINARY, payload)
                pacer.add(0x80 | TEXT, b"short")
            pacer.release(now, out.count)
            allowed = rate * (now - 1000.0) + burst_of(rate)
            assert allowed * (1 - ABOUT) - piece_of(rate) - HEAD <= out.size <= allowed * (1 + ABOUT)
            assert pacer.deadline() > now
            now = pacer.deadline() + chance.uniform(0, late)
        assert out.size > 10 * burst_of(rate)

    def test_a_pause_earns_a_burst(self) -> None:
        """However long it was."""
        pacer = Pacer(10_000.0, 0.0)
        for i in range(3):
            now = 1000.0 * i
            pacer.add(0x82, bytes(1_000_000))
            out = Out()
            pacer.release(now, out.append)
            assert len(out.frames) == 2
            assert out.size == 2 * (1000 + HEAD)
            pacer.clear()

    @pytest.mark.parametrize("start", [0.0, 1e6, 1.7e9, 1e12])
    @pytest.mark.parametrize("rate", [10.0**i for i in range(10)])
    def test_each_deadline_lets_something_go(self, rate: float, start: float) -> None:
        """Numbers are rounded, the more the longer a clock runs; a driver that obeys them must not turn on the spot."""
        pacer = Pacer(rate, start)
        payload = bytes(int(piece_of(rate) / 3))
        for _ in range(300):
            pacer.add(0x82, payload)
        out = Out()
        pacer.release(start, out.count)
        while pacer.waiting:
            before = out.size
            pacer.release(pacer.deadline(), out.count)
            assert out.size > before
        assert pacer.deadline() == FOREVER

    @given(
        st.lists(st.tuples(st.sampled_from([TEXT | 0x40, BINARY, TEXT]), st.lists(PARTS, min_size=1, max_size=5))),
        st.lists(st.floats(0, 0.5), min_size=1, max_size=10),
    )
    def test_order(self, messages: list[tuple[int, list[bytes]]], pauses: list[float]) -> None:
        """Messages in one frame or in fragments: each comes out whole, none inside another."""
        pacer = Pacer(5000.0, 0.0)
        out = Out()
        now = 0.0
        for i, (first, parts) in enumerate(messages):
            for j, part in enumerate(parts):
                fin = 0x80 if j == len(parts) - 1 else 0
                pacer.add(fin | (CONT if j else first), part)
            now += pauses[i % len(pauses)]
            pacer.release(now, out.append)
        while pacer.waiting:
            pacer.release(pacer.deadline(), out.append)
        assert pacer.waiting == 0
        assert pacer.deadline() == FOREVER
        assert all(len(payload) <= 500 for _, payload in out.frames)
        ends = [-1, *(i for i, (first, _) in enumerate(out.frames) if first & 0x80)]
        seen = [out.frames[start + 1 : end + 1] for start, end in pairwise(ends)]
        assert [(frames[0][0] & 0x7F, b"".join(data for _, data in frames)) for frames in seen] == [
            (first, b"".join(parts)) for first, parts in messages
        ]
        assert all(first in (CONT, 0x80 | CONT) for frames in seen for first, _ in frames[1:])

    def test_what_waits(self) -> None:
        """It is counted with heads, and tells how long it takes."""
        pacer = Pacer(1000.0, 0.0)
        assert (pacer.waiting, pacer.seconds(), pacer.deadline()) == (0, 0.0, FOREVER)
        pacer.add(0x82, bytearray(990))
        pacer.add(0x81, memoryview(b""))
        assert pacer.waiting == 990 + HEAD + HEAD
        assert pacer.seconds() == 1.01
        out = Out()
        pacer.release(0.0, out.append)
        assert [(first, len(payload)) for first, payload in out.frames] == [(BINARY, 256)]
        assert pacer.waiting == 990 - 256 + HEAD + HEAD

    def test_a_payload_is_kept_as_it_was(self) -> None:
        """Who sends may use its buffer again."""
        pacer = Pacer(1000.0, 0.0)
        buffer = bytearray(b"before")
        pacer.add(0x82, buffer)
        buffer[:] = b"after!"
        out = Out()
        pacer.release(0.0, out.append)
        assert out.frames == [(0x82, b"before")]

    def test_clear(self) -> None:
        pacer = Pacer(1000.0, 0.0)
        pacer.add(0x82, bytes(5000))
        out = Out()
        pacer.release(0.0, out.append)
        assert pacer.deadline() < FOREVER
        pacer.clear()
        assert (pacer.waiting, pacer.deadline()) == (0, FOREVER)
        out = Out()
        pacer.release(100.0, out.append)
        assert out.frames == []


class TestMeter:
    def test_none_where_nothing_is_limited(self) -> None:
        assert make_meter(Limits(), 0.0) is None
        assert make_meter(Limits(bytes_per_second=1), 0.0) is not None
        assert make_meter(Limits(messages_per_second=1), 0.0) is not None

    @pytest.mark.parametrize(
        ("bytes_per_second", "messages_per_second", "size"),
        [
            (1, None, 128),
            (1024, None, 1024),
            (100_000, None, 100_000),
            (10**9, None, 262_144),
            (None, 0.5, 128),
            (None, 1000, 16_000),
            (None, 10**6, 262_144),
            (5000, 1000, 5000),
            (50_000, 1000, 16_000),
        ],
    )
    def test_how_much_to_read_at_once(
        self, bytes_per_second: float | None, messages_per_second: float | None, size: int
    ) -> None:
        """About a second's worth: of messages the smallest count, yet not a system call for each."""
        limits = Limits(bytes_per_second=bytes_per_second, messages_per_second=messages_per_second)
        assert Meter(limits, 0.0).read_size == size

    def test_in_the_rate(self) -> None:
        meter = Meter(Limits(bytes_per_second=100, messages_per_second=10), 0.0)
        for i in range(100):
            assert meter.spend(100, 10, float(i)) == 0.0
        assert (meter.limit, meter.rule) == ("", "")

    def test_over_one_or_both(self) -> None:
        limits = Limits(bytes_per_second=100, messages_per_second=10)
        for size, messages, wait, limit in (
            (150, 0, 0.5, "bytes_per_second"),
            (100, 15, 0.5, "messages_per_second"),
            (150, 20, 1.0, "messages_per_second"),
            (200, 15, 1.0, "bytes_per_second"),
        ):
            meter = Meter(limits, 0.0)
            assert meter.spend(size, messages, 0.0) == wait
            assert meter.limit == limit
            assert meter.rule == f"more than {100 if limit[0] == 'b' else 10} {limit.partition('_')[0]} a second"

    def test_one_limit_alone(self) -> None:
        assert Meter(Limits(bytes_per_second=100), 0.0).spend(150, 10**6, 0.0) == 0.5
        assert Meter(Limits(messages_per_second=10), 0.0).spend(10**6, 15, 0.0) == 0.5

    @pytest.mark.parametrize(("rate", "text"), [(0.5, "0.5"), (1_000_000, "1000000"), (2.0, "2")])
    def test_the_rule_says_the_number(self, rate: float, text: str) -> None:
        meter = Meter(Limits(bytes_per_second=rate, messages_per_second=rate), 0.0)
        meter.spend(10_000_000, 0, 0.0)
        assert meter.rule == f"more than {text} bytes a second"
        meter.spend(0, 100_000_000, 0.0)
        assert meter.rule == f"more than {text} messages a second"

    @pytest.mark.parametrize("over_rate", ["pause", "close"])
    def test_what_it_leads_to(self, over_rate: str) -> None:
        limits = Limits(bytes_per_second=1, over_rate=over_rate)  # type: ignore[arg-type]
        assert Meter(limits, 0.0).closes == (over_rate == "close")

    @given(st.integers(1, 10**6), st.integers(1, 10**5), st.lists(st.floats(0, 1), min_size=1, max_size=20), PAUSES)
    def test_who_waits_as_told_keeps_the_rates(
        self, size: int, count: int, reads: list[float], pauses: list[float]
    ) -> None:
        """A flood, read at once and then not for as long as the meter says: both rates hold over any time."""
        meter = Meter(Limits(bytes_per_second=size, messages_per_second=count), 0.0)
        now = 0.0
        bytes_read = messages_read = 0
        for i, part in enumerate(reads * 5):
            now += pauses[i % len(pauses)] if pauses else 0.0
            come = 1 + int(part * (meter.read_size - 1))
            bytes_read += come
            messages_read += come // 16
            now += meter.spend(come, come // 16, now)
            assert bytes_read <= size * (now + 1) * (1 + ABOUT)
            assert messages_read <= count * (now + 1) * (1 + ABOUT)

    @pytest.mark.parametrize("rate", [10.0, 1000.0, 1e6])
    def test_nothing_is_lost_by_pauses(self, rate: float) -> None:
        """A reader that always resumes in time reads at the rate, no slower."""
        meter = Meter(Limits(bytes_per_second=rate), 0.0)
        now, come = 0.0, 0
        for _ in range(1000):
            come += meter.read_size
            now += meter.spend(meter.read_size, 0, now)
        assert come == pytest.approx(rate * (now + 1))
