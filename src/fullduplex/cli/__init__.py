"""The command `fullduplex`: one module for each verb, with what `Verb` asks for, and an entry in VERBS."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Final, Protocol

from .. import build_info
from . import connect, demo, serve
from .text import Failure, harmless


class Verb(Protocol):
    """What a module of a verb has."""

    SUMMARY: str
    DESCRIPTION: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it and return the exit code. Raises Failure."""


VERBS: Final[dict[str, Verb]] = {"demo": demo, "serve": serve, "connect": connect}

INTERRUPTED: Final = 128 + 2  # what shells make of a SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 for an error, 2 for wrong arguments, 130 for Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(argv)
    args.argv = argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    verb: Verb = args.verb
    try:
        code = verb.run(args)
        sys.stdout.flush()
        return code
    except Failure as failure:
        print(f"fullduplex: {harmless(str(failure), keep='')}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. What is left in the buffer must not fail at exit again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fullduplex", description="WebSockets on the command line.")
    info = build_info()
    parser.add_argument(
        "--version", action="version", version=f"fullduplex {info['version']} ({info['form']}, {info['python']})"
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        subparser = verbs.add_parser(
            name,
            help=verb.SUMMARY,
            description=verb.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subparser.set_defaults(verb=verb)
        verb.configure(subparser)
    return parser
