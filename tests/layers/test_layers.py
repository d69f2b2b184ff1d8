"""Who may import whom. The protocol does no I/O and reads no clock; no layer knows what stands on it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
PACKAGE = SOURCE / "fullduplex"
MODULES = sorted(PACKAGE.rglob("*.py"))

MANY_LINES = 600


class Law(NamedTuple):
    """What the modules of a layer may not import, not even for types: modules from outside, layers from inside."""

    modules: frozenset[str]
    layers: frozenset[str]


def law(modules: str, layers: str) -> Law:
    return Law(frozenset(modules.split()), frozenset(layers.split()))


LAWS = {
    "wire": law("asyncio socket ssl threading time select selectors", "engine carriers api hub cli testing"),
    "engine": law("asyncio", "carriers api hub cli testing"),
    "api": law("", "cli testing"),
}


def breaches(source: str, module: str) -> Iterator[str]:
    """Tell what a module with this name and text imports against the law of its layer."""
    layer = module.split(".")[1] if module.count(".") else ""
    forbidden = LAWS.get(layer, law("", ""))
    for name in imports(ast.parse(source), module):
        top, _, rest = name.partition(".")
        if top in forbidden.modules or (top == "fullduplex" and rest.partition(".")[0] in forbidden.layers):
            yield f"{module} imports {name}"


def imports(tree: ast.AST, module: str) -> Iterator[str]:
    """Yield the full names of what is imported anywhere in a module, in functions and for type checkers as well."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                # One dot is the package that the module is in; a package's own name stands for its __init__.
                above = module.split(".")[: -node.level] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                yield from (f"{base}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)  # `__init__` stays: it makes levels count alike


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_layers(path: Path) -> None:
    assert list(breaches(path.read_text(), name_of(path))) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_length(path: Path) -> None:
    """A module is one noun. One that needs more lines says why in a comment: `# Over 600 lines: ...`."""
    text = path.read_text()
    lines, excused = text.count("\n"), re.search(rf"^# Over {MANY_LINES} lines: \w", text, re.MULTILINE)
    assert lines <= MANY_LINES or excused


def test_the_wire_runs_without_io() -> None:
    """What holds for the text of wire/ holds for what it pulls in."""
    names = [name_of(path).removesuffix(".__init__") for path in MODULES if path.is_relative_to(PACKAGE / "wire")]
    # The package's own __init__ imports its faces, so a bare module stands in for it; a .pth file among the site
    # packages may import anything, so these are left out (-S).
    bare = f"import sys; root = sys.modules['fullduplex'] = type(sys)('fullduplex'); root.__path__ = [{str(PACKAGE)!r}]"
    script = f"{bare}; import {', '.join(names)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-S", "-c", script], check=True, capture_output=True, text=True).stdout
    assert not {"asyncio", "socket", "ssl", "select"} & set(loaded.split())


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fullduplex.wire.codec", "import asyncio"),
        ("fullduplex.wire.codec", "import asyncio.events as events"),
        ("fullduplex.wire.codec", "def f():\n    from time import monotonic"),
        ("fullduplex.wire.codec", "from ..engine.timers import Wheel"),
        ("fullduplex.wire.codec", "from .. import engine"),
        ("fullduplex.wire.__init__", "from ..engine import Engine"),
        ("fullduplex.wire.codec", "from fullduplex.api import serve"),
        ("fullduplex.wire.codec", "import fullduplex.cli"),
        ("fullduplex.engine.engine", "from asyncio import Future"),
        ("fullduplex.engine.engine", "from ..api.aio import serve"),
        ("fullduplex.api.aio", "from ..cli import main"),
    ],
)
def test_a_breach_is_seen(module: str, source: str) -> None:
    assert len(list(breaches(source, module))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fullduplex.wire.session", "import struct\nfrom . import codec\nfrom .engine import not_that_one"),
        ("fullduplex.engine.engine", "import socket, ssl\nfrom ..wire.session import Session"),
        ("fullduplex.api.aio", "import asyncio\nfrom ..engine.engine import Engine"),
        ("fullduplex.cli", "from .api import serve"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert list(breaches(source, module)) == []
