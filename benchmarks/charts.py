"""Bars, in SVG: one picture for each group of measurements, legible on light and on dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from .report import number

WIDTH, NAMES, FIGURES = 760, 230, 110  # of the picture, and of what stands left and right of the bars
BAR, GAP, HEAD = 16, 6, 44

# Greys that stand out from white and from black; where the page is dark they are lighter still.
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #57606a; }
  .head { font-weight: 600; fill: #24292f; }
  .ours { fill: #0969da; } .peer { fill: #8c959f; } .base { fill: #bf8700; }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1; } .head { fill: #e6edf3; }
    .ours { fill: #4493f8; } .peer { fill: #6e7681; } .base { fill: #d29922; }
  }
"""


def chart(group: Mapping[str, Any]) -> str:
    """A group's cases below each other, their bars to one scale in each."""
    lines: list[str] = []
    y = 8
    for case in group["cases"]:
        y = _case(lines, case, y)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img">\n'
        f"<title>{escape(group['title'])}</title>\n<style>{STYLE}</style>\n" + "\n".join(lines) + "\n</svg>\n"
    )


def _case(lines: list[str], case: Mapping[str, Any], y: int) -> int:
    """Draw a case below `y`; return where it ends."""
    lines.append(_text(0, y + 18, f"{case['title']}: {case['about']}", 'class="head"'))
    lines.append(_text(0, y + 35, f"{case['unit']} (ratio to {case['base']})"))
    y += HEAD
    most = max(row["value"] for row in case["rows"]) or 1
    for row in case["rows"]:
        lines += _bar(row, y, (WIDTH - NAMES - FIGURES) * row["value"] / most, row["name"] == case["base"])
        y += BAR + GAP
    return y + GAP


def _bar(row: Mapping[str, Any], y: int, length: float, is_base: bool) -> Iterator[str]:
    kind = "base" if is_base else "ours" if row["name"].startswith("fullduplex") else "peer"
    yield _text(NAMES - 8, y + 12, row["name"], 'text-anchor="end"')
    yield f'<rect class="{kind}" x="{NAMES}" y="{y}" width="{max(length, 1):.1f}" height="{BAR}" rx="2"/>'
    yield _text(round(NAMES + length) + 6, y + 12, f"{number(row['value'])} ({row['ratio']:.2f})")


def _text(x: int, y: int, text: str, attributes: str = "") -> str:
    return f'<text x="{x}" y="{y}" {attributes}>{escape(text)}</text>'.replace(" >", ">")
