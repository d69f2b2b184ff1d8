"""Everything that is measured beside others, in one run:  python -m benchmarks [--quick] [--json FILE] [GROUP ...]

Prints tables with ratios, then what became of each target. --write puts them, with charts, into docs/, and the figures
into results.json; it takes a run of all groups. `make bench` and `make bench-quick` install first what this needs.
"""

from __future__ import annotations

import argparse
import inspect
import json
import signal
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from . import charts, machine, report
from .groups import GROUPS
from .measure import HERE, ROOT, Bench, Failed, prepare

RESULTS = HERE / "results.json"
PAGE = ROOT / "docs" / "benchmarks.md"
CHARTS = ROOT / "docs" / "charts"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, programs and connections")
    parser.add_argument("--rounds", type=int, help="default: 7, quick 2")
    parser.add_argument("--seconds", type=float, help="for one measurement; default: 1, quick 0.4")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--write", action="store_true", help="docs/benchmarks.md, docs/charts, benchmarks/results.json")
    options = parser.parse_args()
    names = options.groups or list(GROUPS)
    if unknown := set(names) - set(GROUPS):
        parser.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    if options.write and set(names) != set(GROUPS):
        parser.error("--write takes a run of all groups")
    rounds = options.rounds or (2 if options.quick else 7)
    seconds = options.seconds or (0.4 if options.quick else 1.0)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # servers are ended then, too
    prepare()
    try:
        results = measure(names, rounds, seconds, options.quick)
    except Failed as failure:
        sys.exit(f"\n{failure}")
    if options.json:
        options.json.write_text(to_json(results))
    if options.write:
        write(results)


def measure(names: list[str], rounds: int, seconds: float, quick: bool) -> dict[str, Any]:
    """Print each group when it is done. Raises Failed."""
    facts = machine.facts()
    groups: dict[str, Any] = {}
    results = {"facts": facts, "groups": groups}
    print("\n".join(report.facts(results)), flush=True)
    begin, whole = monotonic(), machine.Watch()
    for name in names:
        title, group = GROUPS[name]
        print(f"\n### {title}\n", flush=True)
        bench, watch = Bench(rounds, seconds, quick), machine.Watch()
        groups[name] = {
            "title": title,
            "about": inspect.getdoc(group),
            "cases": group(bench),
            "failed": bench.failed,
            "others": sum(watch.others()),
        }
        print("\n".join(report.group_text(groups[name])), flush=True)
    others, stolen = whole.others()
    facts["run"] = (
        f"{'quick, ' if quick else ''}{rounds} rounds of {seconds:g} s (connections and broadcast: at most 3), "
        f"{(monotonic() - begin) / 60:.1f} minutes; of one CPU, other programs had {others:.1f} %, "
        f"the host took {stolen:.1f} %"
    )
    print(f"\n### Targets\n\n{report.targets_table(results)}\n- run: {facts['run']}", flush=True)
    return results


def to_json(results: dict[str, Any]) -> str:
    return json.dumps(results, indent=1, ensure_ascii=False) + "\n"


def write(results: dict[str, Any]) -> None:
    """What the documentation shows of a run."""
    RESULTS.write_text(to_json(results))
    PAGE.write_text(report.fill(PAGE.read_text(), results))
    CHARTS.mkdir(exist_ok=True)
    for old in CHARTS.glob("*.svg"):
        old.unlink()
    for name, group in results["groups"].items():
        (CHARTS / f"{name}.svg").write_text(charts.chart(group))


if __name__ == "__main__":
    main()
