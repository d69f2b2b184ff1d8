"""Every example of the documentation runs, every link leads somewhere, every `make` has its target."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

import fullduplex
from fullduplex import Limits, Statistics, cli, serve
from fullduplex.wire import limits

ROOT = Path(__file__).resolve().parent.parent
FORM = Path(fullduplex.__file__).parents[1]  # the one that is tested
PAGES = [*sorted(ROOT.glob("*.md"))] + [
    page
    for folder in ("docs", "conformance", "benchmarks", "examples")
    for page in sorted((ROOT / folder).rglob("*.md"))
]
TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


EXAMPLES = [
    pytest.param(match[1], id=f"{name_of(page)}:{text.count(chr(10), 0, match.start()) + 1}")
    for page in PAGES
    for text in [page.read_text()]
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 2


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", example]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(FORM)},
    )
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr


COMMANDS = [
    pytest.param(shlex.split(match[1], comments=True), id=f"{name_of(page)}:{match[1]}")
    for page in PAGES
    for match in re.finditer(r"^ {4}fullduplex (.+)$", page.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_command(arguments: list[str]) -> None:
    """Its arguments are those of the command; tests/cli runs it."""
    assert cli._parser().parse_args(arguments).verb


def anchors(page: Path) -> set[str]:
    """Those of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ +(.*?) *$", without_blocks(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in found}


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def broken_links(text: str, page: Path) -> Iterator[str]:
    """Links to files that are not there, and to headings that are not in them."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(text)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target


def unknown_targets(text: str) -> Iterator[str]:
    """What `make` is called with, in code: a line of a block, or a span."""
    for said in re.findall(r"(?:^(?: {4}|\$ )|`)make ((?:[^\s#`]+ ?)+)", text, re.MULTILINE):
        yield from (word for word in said.split() if "=" not in word and word not in TARGETS)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links(page: Path) -> None:
    assert list(broken_links(page.read_text(), page)) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets(page: Path) -> None:
    assert list(unknown_targets(page.read_text())) == []


def test_what_is_wrong_is_seen() -> None:
    readme = ROOT / "README.md"
    wrong = "[a](nowhere.md) [b](#no-such-heading) [c](README.md#neither)"
    right = "[d](README.md) [e](#fullduplex) [f](https://example.com/x)"
    assert list(broken_links(f"{wrong}\n{right}\n", readme)) == ["nowhere.md", "#no-such-heading", "README.md#neither"]
    called = "    make test  said of it\n    make demo tset # no\n`make chekc` to make `make PYTHON=x check`"
    assert list(unknown_targets(called)) == ["tset", "chekc"]


# The tables of limits.md.


def table(mark: str) -> dict[str, str]:
    """The table behind the comment `<!-- mark -->`: the third column by the first, without its backquotes."""
    text = (ROOT / "docs" / "limits.md").read_text()
    found = re.search(rf"^<!-- {mark} -->\n\|.*\n\|[- |]*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert found is not None, f"limits.md has no table <!-- {mark} -->"
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in found[1].splitlines()]
    return {row[0].strip("`"): row[2] for row in rows}


def said(default: Any) -> str:
    """How the tables write a default."""
    if isinstance(default, str):
        return f'"{default}"'
    return "off" if default is None else f"{default:g}" if isinstance(default, float) else f"{default:,}"


def test_limits() -> None:
    """All fields, in their order, with their defaults. One default is no number, but reckoned."""
    reckoned = {"connections": "90 % of `ulimit -n`, less 100"}
    expected = {
        field.name: reckoned[field.name] if field.default is MISSING else said(field.default)
        for field in fields(Limits)
    }
    assert list(table("limits").items()) == list(expected.items())


def test_parameters_of_serve() -> None:
    found, parameters = table("parameters"), inspect.signature(serve).parameters
    assert found == {name: said(parameters[name].default) for name in found}


def test_constants() -> None:
    found = table("constants")
    assert found == {name: said(getattr(limits, name)) for name in found}


def test_statistics() -> None:
    text = (ROOT / "docs" / "limits.md").read_text()
    section = text.partition("## Statistics\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == {field.name for field in fields(Statistics)}
