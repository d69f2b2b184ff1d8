"""The two forms: which of them is tested."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

import pytest

import fullduplex

RECIPE = Path(__file__).resolve().parents[2] / "setup.py"
FORM = os.environ.get("FULLDUPLEX_FORM", "interpreted")
MODULES = re.findall(r"[a-z0-9.]+", re.split('"""', RECIPE.read_text())[3])


def test_the_form_is_the_one_that_was_asked_for() -> None:
    assert fullduplex.build_info()["form"] == FORM


@pytest.mark.parametrize("name", MODULES)
def test_all_modules_have_it(name: str) -> None:
    file = importlib.import_module(f"fullduplex.{name}").__file__
    assert file is not None
    assert file.endswith(".py") == (FORM == "interpreted")


@pytest.mark.parametrize("name", MODULES)
def test_each_has_its_types(name: str) -> None:
    assert (RECIPE.parent / "src/fullduplex" / (name.replace(".", "/") + ".pxd")).exists()
