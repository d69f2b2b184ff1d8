"""The build: compiled where it can be, and never an installation that fails for want of a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def build(where: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "--build-base", where / "temp", "--build-lib", where / "lib"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_without_a_compiler(tmp_path: Path) -> None:
    done = build(tmp_path, CC="false", FULLDUPLEX_COMPILE="try")
    assert done.returncode == 0
    assert "fullduplex: not compiled, it will run interpreted: " in done.stderr
    assert (tmp_path / "lib/fullduplex/wire/session.py").exists()
    assert not [*(tmp_path / "lib").rglob("*.so")]


def test_a_compiler_is_required(tmp_path: Path) -> None:
    done = build(tmp_path, CC="false", FULLDUPLEX_COMPILE="require")
    assert done.returncode != 0
    assert "false" in done.stderr


def test_skipped(tmp_path: Path) -> None:
    done = build(tmp_path, FULLDUPLEX_COMPILE="skip")
    assert done.returncode == 0
    assert "fullduplex: not compiled, it will run interpreted" in done.stderr
    assert not [*(tmp_path / "lib").rglob("*.so")]


@pytest.mark.parametrize("mode", ["", "yes"])
def test_another_word(tmp_path: Path, mode: str) -> None:
    done = build(tmp_path, FULLDUPLEX_COMPILE=mode)
    assert done.returncode != 0
    assert "FULLDUPLEX_COMPILE is require or skip" in done.stderr
