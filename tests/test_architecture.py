"""ARCHITECTURE.md is true: what it draws is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from fullduplex.wire.states import TRANSITIONS

TEXT = (Path(__file__).parents[1] / "ARCHITECTURE.md").read_text()


def block(mark: str) -> list[str]:
    """The lines of the fenced block behind the comment `<!-- mark -->`."""
    found = re.search(rf"^<!-- {re.escape(mark)} -->\n+```\w*\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, f"ARCHITECTURE.md has no block <!-- {mark} -->"
    return found[1].splitlines()


def test_states() -> None:
    drawn = [line.strip() for line in block("states") if line.strip()]
    table = {f"{source.name} --{event.value}--> {target.name}" for (source, event), target in TRANSITIONS.items()}
    assert set(drawn) == table
    assert len(drawn) == len(table)
