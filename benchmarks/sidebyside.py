#!/usr/bin/env python3
"""Servers side by side in one run: each on CPU 0, the load generator on CPU 1, in turn, round after round.

    sidebyside.py [--seconds 1] [--rounds 3] [--scenario 'NAME: wsload arguments' ...] [--json FILE]
        [--server 'NAME=COMMAND with {port}' ...] [--base NAME]

Prints, for every scenario, each server's CPU microseconds per message (median over the rounds), its ratio to the base
(the first server, if not named), the rate and p99. CPU time per message is the figure to compare: on a shared machine
wall-clock rates drift. Without --server it runs the standard set: plain TCP in C, ours, and the peers in servers/.

A server named raw is driven with --raw (plain TCP). {rawecho} and {python} in a command stand for the program and for
this interpreter. Builds wsload and rawecho where they are missing or older than their source (needs cc, libssl-dev and
zlib1g-dev) in $WSLOAD_DIR (default: ./.bench).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TOOLS = Path(os.environ.get("WSLOAD_DIR", ".bench")).resolve()

SCENARIOS = [
    "small: --conns 512 --size 256",
    "pipelined: --conns 512 --size 64 --depth 8",
    "large: --conns 16 --size 65536",
]
SERVERS = ["ours_callback", "ours_async", "picows_callback", "picows_async", "websockets_async"]
STANDARD = ["raw={rawecho} {port}", *(f"{name}={{python}} {HERE}/servers/{name}.py {{port}}" for name in SERVERS)]

Running = tuple[subprocess.Popen[bytes], int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append")
    parser.add_argument("--scenario", action="append")
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    load = build("wsload", "-lssl", "-lcrypto", "-lz")
    commands = dict(server.split("=", 1) for server in options.server or STANDARD)
    if any("{rawecho}" in command for command in commands.values()):
        raw = build("rawecho")
        commands = {name: command.replace("{rawecho}", raw) for name, command in commands.items()}
    base = options.base or next(iter(commands))
    result: dict[str, dict[str, dict[str, float]]] = {}
    servers: dict[str, Running] = {}
    try:
        for name, command in commands.items():
            servers[name] = start(command)
        for scenario in options.scenario or SCENARIOS:
            title, _, arguments = scenario.partition(":")
            rows: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
            for _ in range(options.rounds):
                for name, server in servers.items():
                    rows[name].append(measure(load, name, server, options.seconds, shlex.split(arguments)))
            print(f"{title}:{arguments}")
            result[title] = report(rows, base)
    finally:
        for process, _ in servers.values():
            process.terminate()
        for process, _ in servers.values():
            process.wait()
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


def measure(load: str, name: str, server: Running, seconds: float, arguments: list[str]) -> dict[str, Any]:
    """Drive one server for a while."""
    process, port = server
    command = ["taskset", "-c", "1", load, "--port", str(port), "--pid", str(process.pid), "--seconds", str(seconds)]
    command += ["--raw"] if name == "raw" else []
    try:
        run = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=60 + 4 * seconds, check=False
        )
        figures: dict[str, Any] = json.loads(run.stdout)
    except subprocess.TimeoutExpired:
        sys.exit(f"{name}: no answer in time")
    except ValueError:
        sys.exit(f"{name}: {run.stderr.strip() or run.returncode}")
    figures["cpu_us"] = 1e6 * figures["server_cpu"] / max(figures["rate"], 1e-9)
    return figures


def report(rows: dict[str, list[dict[str, Any]]], base: str) -> dict[str, dict[str, float]]:
    """Print a line for each server; return its figures."""

    def median(name: str, key: str) -> float:
        return float(statistics.median(figures[key] for figures in rows[name]))

    result = {}
    for name, rounds in rows.items():
        cpu, rate, p99 = (median(name, key) for key in ("cpu_us", "rate", "p99_us"))
        ratio = cpu / median(base, "cpu_us")
        errors = sum(figures["errors"] for figures in rounds)
        result[name] = {"cpu_us": cpu, "ratio": ratio, "rate": rate, "p99_us": p99, "errors": errors}
        print(
            f"  {name:24s} {cpu:8.2f} us CPU/message  x{ratio:5.2f}  {rate:>9.0f}/s  p99 {p99:>7.0f} us"
            f"{f'  ERRORS {errors}' if errors else ''}",
            flush=True,
        )
    return result


def start(command: str) -> Running:
    """Start a server on CPU 0 and wait until it listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    arguments = shlex.split(command.replace("{port}", str(port)).replace("{python}", shlex.quote(sys.executable)))
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(["taskset", "-c", "0", *arguments], stdout=subprocess.DEVNULL, stderr=log)
        for _ in range(150):
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                return process, port
            except OSError:
                if process.poll() is not None:
                    break
                time.sleep(0.1)
        process.kill()
        process.wait()
        log.seek(0)
        sys.exit(f"server did not start: {command}\n{log.read()[-2000:].decode(errors='replace')}")


def build(name: str, *libraries: str) -> str:
    """Compile a program, unless it is newer than its source."""
    program, source = TOOLS / name, HERE / f"{name}.c"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        TOOLS.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-O3", "-o", program, source, *libraries], check=True)
    return str(program)


if __name__ == "__main__":
    main()
