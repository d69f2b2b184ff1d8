"""The command as a whole."""

from __future__ import annotations

import os
import subprocess

import pytest

import fullduplex as library
from cli.command import COMMAND, ENVIRONMENT, fullduplex
from fullduplex.cli import VERBS
from support import LIMIT


def test_version_and_form() -> None:
    info = library.build_info()
    assert fullduplex("--version") == (0, f"fullduplex {info['version']} ({info['form']}, {info['python']})\n", "")


def test_help_names_the_verbs() -> None:
    code, out, err = fullduplex("--help")
    assert (code, err) == (0, "")
    for name, verb in VERBS.items():
        assert name in out
        assert verb.SUMMARY in out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb: str) -> None:
    code, out, err = fullduplex(verb, "--help")
    assert (code, err) == (0, "")
    assert VERBS[verb].DESCRIPTION.splitlines()[0] in out


@pytest.mark.parametrize(
    "args", [(), ("dance",), ("serve", "--port", "many"), ("serve", "--port", "65536"), ("connect",)]
)
def test_wrong_arguments(args: tuple[str, ...]) -> None:
    code, out, err = fullduplex(*args)
    assert (code, out) == (2, "")
    assert err.startswith("usage: ")


def test_nobody_reads_the_output() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*COMMAND, "demo"], stdout=writing, stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=LIMIT, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
