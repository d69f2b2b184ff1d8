"""From samples to results, and from results to Markdown. What is printed and what docs/benchmarks.md shows is one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

BEGIN, END = "<!-- results: made by make bench -->", "<!-- end of results -->"

Samples = Mapping[str, Sequence[Mapping[str, float]]]  # by program: its figures in each round
Results = Mapping[str, Any]  # what is in results.json


@dataclass(frozen=True)
class Target:
    """What a program's figure shall be: at most `limit` (or at least), or so many times that of another one."""

    who: str
    limit: float
    of: str | None = None
    key: str = ""  # which figure, if not that of the case
    at_least: bool = False


@dataclass(frozen=True)
class Column:
    """One more figure of each program."""

    key: str
    title: str


def make_case(
    title: str,
    about: str,
    samples: Samples,
    *,
    key: str,
    unit: str,
    base: str,
    columns: Sequence[Column] = (),
    targets: Sequence[Target] = (),
) -> dict[str, Any]:
    """One table: medians over the rounds. A ratio is that of two figures of one round, then the median of those."""
    if not samples.get(base):  # it did not run here
        base = next(iter(samples))
    rows = []
    for name, rounds in samples.items():
        if not rounds:
            continue
        ratios = _ratios(samples, name, base, key)
        row = {"name": name, "value": median(figures[key] for figures in rounds)}
        row |= {"ratio": median(ratios), "low": min(ratios), "high": max(ratios)}
        row |= {column.key: median(figures[column.key] for figures in rounds) for column in columns}
        rows.append(row)
    return {
        "title": title,
        "about": about,
        "unit": unit,
        "base": base,
        "columns": [asdict(column) for column in columns],
        "rows": rows,
        "targets": [_judge(target, samples, key) for target in targets if samples.get(target.who)],
    }


def _ratios(samples: Samples, name: str, base: str, key: str) -> list[float]:
    return [mine[key] / its[key] for mine, its in zip(samples[name], samples[base], strict=True)]


def _judge(target: Target, samples: Samples, key: str) -> dict[str, Any]:
    """The target, and what became of it: no value if whom it compares with did not run."""
    key = target.key or key
    value = None
    if target.of is None:
        value = median(figures[key] for figures in samples[target.who])
    elif samples.get(target.of):
        value = median(_ratios(samples, target.who, target.of, key))
    met = None if value is None else value >= target.limit if target.at_least else value <= target.limit
    return {**asdict(target), "key": target.key, "value": value, "met": met}


# Markdown.


def number(value: float) -> str:
    """Three digits are what such measurements are good for."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def aim(case: Mapping[str, Any], target: Mapping[str, Any]) -> str:
    """What is aimed at, in words."""
    limit = f"{'≥' if target['at_least'] else '≤'} {number(target['limit'])}"
    if target["of"] is not None:
        return f"{limit} times {target['of']}"
    titles = {column["key"]: column["title"] for column in case["columns"]}
    return f"{titles.get(target['key'], case['unit'])} {limit}"


def verdict(target: Mapping[str, Any]) -> str:
    if target["met"] is None:
        return "not measured"
    return f"{number(target['value'])}, {'met' if target['met'] else 'missed'}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """In Markdown that a terminal shows well. So many columns are texts, the others numbers, set to the right."""
    lines = [head, ["-" if at < texts else ":" for at in range(len(head))], *rows]
    columns = []
    for at, column in enumerate(zip(*lines, strict=True)):
        width, fill = max(map(len, column)), " -"
        columns.append(
            [
                cell.ljust(width, fill[row == 1]) if at < texts else cell.rjust(width, fill[row == 1])
                for row, cell in enumerate(column)
            ]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in zip(*columns, strict=True))


def case_table(case: Mapping[str, Any]) -> str:
    """A case's figures."""
    columns = case["columns"]
    head = ["", case["unit"], f"ratio to {case['base']}", "in the rounds", *(column["title"] for column in columns)]
    rows = [
        [
            row["name"],
            number(row["value"]),
            f"{row['ratio']:.2f}",
            f"{row['low']:.2f}-{row['high']:.2f}",
            *(number(row[column["key"]]) for column in columns),
        ]
        for row in case["rows"]
    ]
    text = f"{case['title']}: {case['about']}\n\n{table(head, rows)}"
    for target in case["targets"]:
        text += f"\n- {target['who']}: {aim(case, target)}: {verdict(target)}"
    return text + ("\n" if case["targets"] else "")


def targets_table(results: Results) -> str:
    """Each target of the run, and what became of it."""
    rows = [
        [f"{group['title']}, {case['title']}", target["who"], aim(case, target), verdict(target)]
        for group in results["groups"].values()
        for case in group["cases"]
        for target in case["targets"]
    ]
    return table(["", "who", "target", "figure"], rows, texts=4)


def facts(results: Results) -> Iterator[str]:
    """On what, with what, how long."""
    yield from (f"- {what}: {fact}" for what, fact in results["facts"].items())


def group_text(group: Mapping[str, Any]) -> Iterator[str]:
    yield f"{group['about']}\n"
    yield from map(case_table, group["cases"])
    yield from (f"{name} did not take part: {why}\n" for name, why in group["failed"].items())
    if group["others"] > 5:
        yield f"Beware: meanwhile others had {group['others']:.0f} % of a CPU.\n"


def markdown(results: Results) -> str:
    """All of it, as docs/benchmarks.md has it between its two marks."""
    parts = ["\n".join(facts(results)) + "\n", "### Targets\n", targets_table(results)]
    for name, group in results["groups"].items():
        parts += [f"### {group['title']}\n", f"![{group['title']}](charts/{name}.svg)\n", *group_text(group)]
    return "\n".join(parts)


def fill(page: str, results: Results) -> str:
    """The page with these results in it."""
    marked = re.compile(f"{re.escape(BEGIN)}\n.*{re.escape(END)}", re.DOTALL)
    text, times = marked.subn(lambda _: f"{BEGIN}\n\n{markdown(results)}\n{END}", page)
    if times != 1:
        raise ValueError("the page has no place for results")
    return text
