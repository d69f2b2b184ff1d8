#!/usr/bin/env python3
"""Run the Autobahn test suite against our server and our client, and compare every case with what is recorded.

    autobahn.py                     both, all cases
    autobahn.py --server 1.* 7.7.2  one of them, some cases
    autobahn.py --quick             the cases that do not take long
    autobahn.py --record            write the results down as what is expected from now on

A case that differs from its record fails the run, for better or worse, and so does one that is missing or new.
Exit status: 0 all as recorded, 1 something differs, 2 the run itself did not work.

The suite is a program for Python 2.7. It is installed into .venv-autobahn (or $WSTEST_VENV) by the first run, which
looks for a Python 2.7 with ssl in $PYTHON27, among pyenv's versions, and on PATH.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
VENV = Path(os.environ.get("WSTEST_VENV", HERE.parent / ".venv-autobahn"))
REPORTS = HERE.parent / "reports" / "autobahn"
AGENT = "fullduplex"

# Groups 8 and 11 do not exist.
ALL = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.*", "13.*"]
# Of group 9, the messages that are not fragmented, and the many small ones. Of 12 and 13, messages of 256 bytes, of
# 4 KiB, and of 8 KiB in fragments.
QUICK = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.1.*", "9.2.*", "9.5.*", "9.7.*", "10.*"]
QUICK += [f"{group}.*.{size}" for group in (12, 13) for size in (3, 5, 11)]

LIMIT = 7200  # seconds for one run of all cases, which takes a quarter of an hour where nothing is slow
START = 20  # seconds for a program to listen on its port

Results = dict[str, list[str]]  # {case: [behavior, behaviorClose]}

# The suite's own server listens on every address and has no option for it: give its listen function another default.
FUZZING_SERVER = """
import sys
from autobahntestsuite import choosereactor  # first, for it installs the reactor
import autobahn.twisted.websocket as websocket
websocket.listenWS.func_defaults = (None, 50, '127.0.0.1')  # contextFactory, backlog, interface
from autobahntestsuite.wstest import run
sys.argv = ['wstest', '-m', 'fuzzingserver', '-u', '0', '-s', sys.argv[1]]
run()
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="patterns, such as '1.*' or 9.1.3 (default: all)")
    parser.add_argument("--server", action="store_true", help="test the server alone")
    parser.add_argument("--client", action="store_true", help="test the client alone")
    parser.add_argument("--quick", action="store_true", help="leave out the cases that take long")
    parser.add_argument("--record", action="store_true", help="record the results instead of comparing them")
    python = shlex.quote(sys.executable)
    for side, words in [("server", "{port}"), ("client", "{url} {agent}")]:
        default = f"{python} {shlex.quote(str(HERE / f'echo_{side}.py'))} {words}"
        parser.add_argument(f"--{side}-command", metavar="COMMAND", default=default, help=f"test this {side}: {words}")
    options = parser.parse_args()
    patterns = options.cases or (QUICK if options.quick else ALL)
    both = options.server == options.client

    install()
    differences = 0
    for side, wanted, test in [("server", options.server, run_server), ("client", options.client, run_client)]:
        if not (wanted or both):
            continue
        out = REPORTS / side
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        start = time.monotonic()
        command = options.server_command if side == "server" else options.client_command
        test(command, patterns, out)
        results = read(out)
        behaviors = collections.Counter(behavior for pair in results.values() for behavior in pair[:1])
        summary = ", ".join(f"{count} {name}" for name, count in behaviors.most_common())
        print(f"{side}: {len(results)} cases in {time.monotonic() - start:.0f} s: {summary} ({out}/index.html)")
        record = HERE / f"expected-{side}.json"
        if options.record:
            write(record, results, patterns)
        else:
            differences += compare(side, results, load(record), patterns)
    return 1 if differences else 0


def run_server(command: str, patterns: list[str], out: Path) -> None:
    """The suite is the client: it goes through the cases and ends."""
    port = free_port()
    spec = {
        "outdir": str(out),
        "servers": [{"agent": AGENT, "url": f"ws://127.0.0.1:{port}", "options": {"version": 18}}],
        "cases": whole(patterns),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    with running(shlex.split(command.format(port=port)), out / "server.log", port):
        wstest = [str(VENV / "bin" / "wstest"), "-m", "fuzzingclient", "-s", save(spec, out)]
        finish(wstest, out / "wstest.log")


def run_client(command: str, patterns: list[str], out: Path) -> None:
    """The suite is the server: our client asks for one case after the other, and for the report at the end."""
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    spec = {"url": url, "outdir": str(out), "cases": whole(patterns), "exclude-cases": [], "exclude-agent-cases": {}}
    wstest = [str(VENV / "bin" / "python"), "-c", FUZZING_SERVER, save(spec, out)]
    with running(wstest, out / "wstest.log", port):
        finish(shlex.split(command.format(url=url, agent=AGENT)), out / "client.log")


# Results.


def read(out: Path) -> Results:
    try:
        index = json.loads((out / "index.json").read_text())[AGENT]
    except (OSError, KeyError, ValueError):
        fail(f"the suite wrote no report; see the logs in {out}")
    return {case: [index[case]["behavior"], index[case]["behaviorClose"]] for case in sorted(index, key=number)}


def load(record: Path) -> Results:
    if not record.exists():
        fail(f"nothing is recorded in {record}: --record first")
    results: Results = json.loads(record.read_text())
    return results


def write(record: Path, results: Results, patterns: list[str]) -> None:
    """Replace what the patterns select, one case a line, so that a change of the record reads well."""
    kept = {} if patterns == ALL or not record.exists() else load(record)
    kept = {case: pair for case, pair in kept.items() if not selected(case, patterns)} | results
    lines = [f"{json.dumps(case)}: {json.dumps(kept[case])}" for case in sorted(kept, key=number)]
    record.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"recorded in {record}")


def compare(side: str, results: Results, recorded: Results, patterns: list[str]) -> int:
    """Print a line for each case that is not as recorded; return how many there are."""
    expected = {case: pair for case, pair in recorded.items() if selected(case, patterns)}
    different = [case for case in expected | results if expected.get(case) != results.get(case)]
    for case in sorted(different, key=number):
        was, now = (" / close ".join(pair[case]) if case in pair else "missing" for pair in (expected, results))
        print(f"{side} {case}: recorded {was}, now {now}")
    return len(different)


def selected(case: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(case, pattern) for pattern in patterns)


def whole(patterns: list[str]) -> list[str]:
    """For the suite, whose patterns match a beginning: 12.*.1 would mean 12.1.10 as well. What it makes is a regex."""
    return [f"{pattern}$" if "*" in pattern else pattern for pattern in patterns]


def number(case: str) -> list[int]:
    return [int(part) for part in case.split(".")]


# Programs.


@contextmanager
def running(command: list[str], log: Path, port: int) -> Iterator[None]:
    """Have `command` running and listening on `port`."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + START
            while not listens(port):
                if process.poll() is not None or time.monotonic() > end:
                    fail(f"{shlex.join(command[:2])} does not listen on port {port}:\n{log.read_text()[-2000:]}")
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def finish(command: list[str], log: Path) -> None:
    """Run `command` to its end."""
    with log.open("wb") as output:
        try:
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, timeout=LIMIT, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            fail(f"{shlex.join(command[:2])} did not end in {LIMIT} s; see {log}")
    if status:
        fail(f"{shlex.join(command[:2])} ended with status {status}:\n{log.read_text()[-2000:]}")


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def save(spec: Mapping[str, object], out: Path) -> str:
    path = out / "spec.json"
    path.write_text(json.dumps(spec, indent=1))
    return str(path)


# Installation.


def install() -> None:
    """Install the suite, unless it is there."""
    wstest = VENV / "bin" / "wstest"
    if wstest.exists() and works([wstest, "--autobahnversion"]):
        return
    python27 = find_python27()
    print(f"installing the Autobahn test suite into {VENV}, for {python27}", flush=True)
    with tempfile.TemporaryDirectory() as tool:
        try:
            # The last virtualenv that makes an environment for Python 2.7.
            subprocess.run([sys.executable, "-m", "venv", tool], check=True)
            subprocess.run([f"{tool}/bin/pip", "install", "-q", "virtualenv==20.21.1", "setuptools<81"], check=True)
            shutil.rmtree(VENV, ignore_errors=True)
            subprocess.run([f"{tool}/bin/virtualenv", "-q", "-p", python27, VENV], check=True)
            pip = [f"{VENV}/bin/pip", "install", "-q", "--no-python-version-warning"]
            pip += ["-c", f"{HERE}/constraints-py27.txt", "autobahntestsuite==25.10.1"]
            subprocess.run(pip, check=True)
        except subprocess.CalledProcessError as error:
            shutil.rmtree(VENV, ignore_errors=True)
            fail(f"the installation failed: {error}")


def find_python27() -> str:
    if chosen := os.environ.get("PYTHON27"):
        return chosen
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [*map(str, pyenv.glob("versions/2.7*/bin/python2.7")), shutil.which("python2.7")]
    for candidate in found:
        if candidate and works([candidate, "-c", "import ssl"]):
            return candidate
    fail("the suite needs a Python 2.7 with ssl: `pyenv install 2.7.18`, or say where one is in $PYTHON27")


def works(command: list[str | Path]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def fail(message: str) -> NoReturn:
    print(f"autobahn.py: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    sys.exit(main())
