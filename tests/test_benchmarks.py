"""The benchmarks' report, and that the documentation shows what it makes of the last run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import charts, report
from benchmarks.measure import Bench, Failed, Figures, Program
from benchmarks.report import Column, Target, make_case

ROOT = Path(__file__).resolve().parent.parent
RESULTS: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results.json").read_text())
PAGE = (ROOT / "docs" / "benchmarks.md").read_text()


# The documentation.


def test_page_shows_the_results() -> None:
    assert report.fill(PAGE, RESULTS) == PAGE


def test_charts_show_the_results() -> None:
    drawn = {path.name: path.read_text() for path in (ROOT / "docs" / "charts").iterdir()}
    assert drawn == {f"{name}.svg": charts.chart(group) for name, group in RESULTS["groups"].items()}


def test_results_are_whole() -> None:
    groups = RESULTS["groups"]
    assert list(groups) == "echo tls deflate receive roundtrip connections broadcast cores".split()
    assert all(len(case["rows"]) > 1 for group in groups.values() for case in group["cases"])


def unknown_figures(text: str, page: str) -> Iterator[str]:
    """Figures of `text` that the results on the page do not have: numbers with a unit, and decimals in tables."""
    results = page.partition(report.BEGIN)[2].partition(report.END)[0]
    known = set(re.findall(r"(?<![\d.,])\d[\d,]*(?:\.\d+)?(?![\d.])", results))
    with_unit = re.findall(r"(\d[\d,]*(?:\.\d+)?) ?(?:µs|KiB[/ ](?:a )?connection|messages/s|times\b)", text)
    in_tables = [
        number
        for row in re.findall(r"^\|.*", text, re.MULTILINE)
        for number in re.findall(r"(?<![\d.])\d+\.\d+(?![\d.])", row)
    ]
    yield from (number for number in (*with_unit, *in_tables) if number not in known)


def test_readme_says_what_was_measured() -> None:
    assert list(unknown_figures((ROOT / "README.md").read_text(), PAGE)) == []


def test_other_figures_are_seen() -> None:
    page = f"7.77 {report.BEGIN} | x | 5.91 | 1.15 | 12,345 | {report.END}"
    right = "5.91 µs, 1.15 times, 12,345 messages/s, from 127.0.0.1\n| y | 5.91 | 127.0.0.1 |\n"
    wrong = "7.77 µs, 2 times, 345 messages/s, 1.5 KiB a connection\n| z | 5.9 |\n"
    assert list(unknown_figures(right + wrong, page)) == ["7.77", "2", "345", "1.5", "5.9"]


# The report.

SAMPLES = {
    "base": [{"us": 10.0, "rate": 1.0}, {"us": 20.0, "rate": 1.0}, {"us": 40.0, "rate": 4.0}],
    "ours": [{"us": 11.0, "rate": 3.0}, {"us": 24.0, "rate": 2.0}, {"us": 44.0, "rate": 5.0}],
    "gone": [],
}


def case(*targets: Target, base: str = "base") -> dict[str, Any]:
    columns = [Column("rate", "messages/s")]
    return make_case("small", "one", SAMPLES, key="us", unit="us", base=base, columns=columns, targets=targets)


def test_ratios_are_of_one_round() -> None:
    """The median of 11/10, 24/20 and 44/40, not the ratio of the medians 24 and 20."""
    base, ours = case()["rows"]
    assert base == {"name": "base", "value": 20.0, "ratio": 1.0, "low": 1.0, "high": 1.0, "rate": 1.0}
    assert ours == {"name": "ours", "value": 24.0, "ratio": 1.1, "low": 1.1, "high": 1.2, "rate": 3.0}


def test_base_that_did_not_run() -> None:
    assert case(base="gone")["base"] == "base"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Target("ours", 1.15, "base"), "≤ 1.15 times base: 1.10, met"),
        (Target("ours", 1.05, "base"), "≤ 1.05 times base: 1.10, missed"),
        (Target("ours", 24), "us ≤ 24.0: 24.0, met"),
        (Target("ours", 3, key="rate", at_least=True), "messages/s ≥ 3.00: 3.00, met"),
        (Target("ours", 3.1, key="rate", at_least=True), "messages/s ≥ 3.10: 3.00, missed"),
        (Target("ours", 1, "gone"), "≤ 1.00 times gone: not measured"),
    ],
)
def test_targets(target: Target, said: str) -> None:
    assert f"- ours: {said}" in report.case_table(case(target)).splitlines()


def test_target_of_one_who_did_not_run() -> None:
    assert case(Target("gone", 1))["targets"] == []


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.456, "0.46"), (9.99, "9.99"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346")]
)
def test_number(value: float, text: str) -> None:
    assert report.number(value) == text


def test_table() -> None:
    assert report.case_table(case()) == (
        "small: one\n\n"
        "|      |   us | ratio to base | in the rounds | messages/s |\n"
        "| ---- | ---: | ------------: | ------------: | ---------: |\n"
        "| base | 20.0 |          1.00 |     1.00-1.00 |       1.00 |\n"
        "| ours | 24.0 |          1.10 |     1.10-1.20 |       3.00 |\n"
    )


def test_group_says_what_went_wrong() -> None:
    group = {"about": "a", "cases": [], "failed": {"peer": "it does not listen"}, "others": 12.3}
    assert list(report.group_text(group)) == [
        "a\n",
        "peer did not take part: it does not listen\n",
        "Beware: meanwhile others had 12 % of a CPU.\n",
    ]


def test_page_without_a_place() -> None:
    with pytest.raises(ValueError, match="no place"):
        report.fill("a page", RESULTS)


def test_chart() -> None:
    drawing = ElementTree.fromstring(charts.chart({"title": "A & B", "cases": [case()]}))
    texts = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["small: one", "us (ratio to base)", "base", "20.0 (1.00)", "ours", "24.0 (1.10)"]


# Taking turns.


def programs(*names: str) -> list[Program]:
    return [Program(name, (), is_peer=name.startswith("peer")) for name in names]


def test_turns() -> None:
    """Case by case, and somebody else is first in each round."""
    turns = []

    def measure(program: Program) -> Figures:
        turns.append(program.name)
        return {"turn": len(turns)}

    samples = Bench(2, 0, quick=False).clients(programs("a", "b", "peer"), {"one": measure, "two": measure})
    assert turns == ["a", "b", "peer"] * 2 + ["b", "peer", "a"] * 2
    assert samples[1]["a"] == [{"turn": 4}, {"turn": 12}]


def test_peer_that_fails() -> None:
    """It is left out, with what it had before; the others go on."""
    calls = []

    def measure(program: Program) -> Figures:
        calls.append(program.name)
        if program.is_peer and len(calls) > 2:
            raise Failed("3 errors")
        return {"us": 1.0}

    bench = Bench(3, 0, quick=False)
    (samples,) = bench.clients(programs("ours", "peer"), {"one": measure})
    assert samples == {"ours": [{"us": 1.0}] * 3}
    assert bench.failed == {"peer": "3 errors"}
    assert calls.count("peer") == 2


def test_ours_that_fails() -> None:
    def measure(program: Program) -> Figures:
        raise Failed("3 errors")

    with pytest.raises(Failed, match="3 errors"):
        Bench(1, 0, quick=False).clients(programs("ours"), {"one": measure})
