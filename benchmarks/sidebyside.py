"""Servers of your choice side by side, for work on one of them.

    python -m benchmarks.sidebyside [--server 'NAME=COMMAND with {port}' ...] [--scenario 'NAME: wsload arguments' ...]
        [--base NAME] [--rounds 3] [--seconds 1]

Without --server it is plain TCP echo in C, ours and picows; without --scenario the three of `make bench`. In a command
{python} and {rawecho} stand for this interpreter and for the program in C; a server named raw is driven with --raw.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable

from . import report
from .groups import CPU, RATES
from .measure import TOOLS, Bench, Failed, Figures, Program, Running, load, prepare

SERVERS = ["raw={rawecho} {port}"] + [
    f"{name}={{python}} -m benchmarks.servers.{name} {{port}}"
    for name in ("ours_callback", "ours_async", "picows_callback")
]
SCENARIOS = [
    "small: --conns 512 --size 256",
    "pipelined: --conns 512 --size 64 --depth 8",
    "large: --conns 16 --size 65536",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append")
    parser.add_argument("--scenario", action="append")
    parser.add_argument("--base")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1)
    options = parser.parse_args()

    def driven(arguments: str) -> Callable[[Running], Figures]:
        raw = ["--raw"]
        return lambda server: load(
            server, options.seconds, *shlex.split(arguments), *(raw if server.name == "raw" else [])
        )

    prepare()
    programs = []
    for server in options.server or SERVERS:
        name, _, command = server.partition("=")
        words = shlex.split(command.replace("{python}", shlex.quote(sys.executable)))
        programs.append(Program(name, tuple(word.replace("{rawecho}", str(TOOLS / "rawecho")) for word in words)))
    scenarios = dict(scenario.split(":", 1) for scenario in options.scenario or SCENARIOS)
    bench = Bench(options.rounds, options.seconds, quick=False)
    try:
        samples = bench.servers(programs, {title: driven(arguments) for title, arguments in scenarios.items()})
    except Failed as failure:
        sys.exit(f"\n{failure}")
    base = options.base or programs[0].name
    for (title, arguments), case in zip(scenarios.items(), samples, strict=True):
        made = report.make_case(title, arguments.strip(), case, key="cpu_us", unit=CPU, base=base, columns=RATES)
        print(report.case_table(made), flush=True)


if __name__ == "__main__":
    main()
