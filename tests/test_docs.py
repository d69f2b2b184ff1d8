"""Every example of the documentation runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
EXAMPLES = [
    pytest.param(match[1], id=f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}")
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
        command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env={"PYTHONPATH": ROOT / "src"}
    )
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr
