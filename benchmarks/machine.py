"""What is measured on, and with: stated with every result."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import ssl
import subprocess
import sys
import sysconfig
import zlib
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic

from .measure import ROOT

PEERS = "picows aiofastnet websockets aiohttp socketify uvloop".split()
INTERPRETED = {"PYTHONPATH": str(ROOT / "src")}
SPEED = {"PYTHONPATH": str(Path(sys.prefix) / "speed")}  # what the extra installs, apart


def facts() -> dict[str, str]:
    """In words. Ends the run if ours is not in the two forms that are to be measured."""
    ours = {form: _form(environment) for form, environment in (("compiled", {}), ("interpreted", INTERPRETED))}
    for form, info in ours.items():
        if info["form"] != form:
            sys.exit(f"what is to be measured {form} is {info['form']}: `make bench` installs it as it has to be")
    info = ours["compiled"]
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)", cpuinfo, re.MULTILINE)
    flags = sysconfig.get_config_var("CONFIG_ARGS") or ""
    built = [
        f"{'with' if flag in flags else 'without'} {flag}" for flag in ("--enable-optimizations", "--with-lto")
    ] + re.findall(r"-O\w|-DNDEBUG", sysconfig.get_config_var("OPT") or "")
    return {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{model[1] if model else platform.machine()}, {os.cpu_count()} CPUs"
        + (", virtual" if " hypervisor" in cpuinfo else "")
        + f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GiB",
        "system": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}, "
        f"load before the run {os.getloadavg()[0]:.2f}",
        "Python": f"{info['python']} ({platform.python_compiler()}; {', '.join(built)}), {ssl.OPENSSL_VERSION}, "
        f"zlib {zlib.ZLIB_RUNTIME_VERSION}",
        "fullduplex": f"{info['version']}, commit {_commit()}, compiled and interpreted, deflate by {info['deflate']}; "
        f"[speed]: {_form(SPEED)['deflate']}",
        "peers": ", ".join(map(_version, PEERS)),
        "C": _said("cc", "--version").splitlines()[0],
    }


class Watch:
    """Who else is using the CPUs meanwhile."""

    def __init__(self) -> None:
        self._start = _used()

    def others(self) -> tuple[float, float]:
        """What other programs had, and what the host took, in per cent of one CPU."""
        clock, busy, ours, stolen = (now - start for now, start in zip(_used(), self._start, strict=True))
        return max(0.0, 100 * (busy - ours) / clock), 100 * stolen / clock


def _used() -> tuple[float, float, float, float]:
    """Seconds: of the clock, of all CPUs at work, of this program and those it has waited for, taken by the host."""
    user, nice, system, _, _, irq, softirq, steal = (
        int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in Path("/proc/stat").read_text().split()[1:9]
    )
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ours = sum(each.ru_utime + each.ru_stime for each in used)
    return monotonic(), user + nice + system + irq + softirq, ours, steal


def _form(environment: dict[str, str]) -> dict[str, str]:
    code = "import fullduplex, json; print(json.dumps(fullduplex.build_info()))"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    info: dict[str, str] = json.loads(said.stdout)
    return info


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"


def _commit() -> str:
    return _said("git", "-C", str(ROOT), "describe", "--always", "--dirty") or "unknown"


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
