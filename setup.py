"""The build: the hot modules are compiled by Cython from the same .py files, with the types of their .pxd.

FULLDUPLEX_COMPILE=require makes a failure to compile an error, =skip leaves everything interpreted. By default it is
tried, and where it fails all of it stays as it is: compiled modules call each other in C, so it is all or nothing. An
editable installation stays interpreted, since what was compiled would not follow the edits.

=sanitize requires it as well, and makes the form that `make sanitize` tests: the first mistake in C ends the process.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# What is compiled; there is no other list of it.
MODULES = """
    wire.codec wire.keepalive wire.extensions wire.deflate wire.receiver wire.session wire.headers wire.http1
    wire.handshake
    engine.poller engine.timers engine.tls engine.link engine.engine
    api.awaitables api.base api.broadcast api.client api.connection api.opening api.server
""".split()

# Portable: no -march. -O3 makes vectors of the mask's loop, of the kind that every x86-64 and every aarch64 has.
FLAGS = ["-O3", "-g0"] if sys.platform != "win32" else []

DIRECTIVES = {
    "language_level": 3,
    "annotation_typing": False,  # annotations are for type checkers; the types of C stand in the .pxd
}

MODE = os.environ.get("FULLDUPLEX_COMPILE", "try")
MUST = MODE in ("require", "sanitize")

if MODE == "sanitize":
    # CPython's own flags, which come first, turn its assertions off and let integers wrap in silence.
    FLAGS = "-O1 -g -UNDEBUG -fno-wrapv -fno-omit-frame-pointer -fsanitize=address,undefined".split()
    FLAGS.append("-fno-sanitize-recover=undefined")
    DIRECTIVES["nonecheck"] = True


def say(text: str) -> None:
    print(f"fullduplex: {text}", file=sys.stderr)


class BuildOrLeave(build_ext):
    """Compile all, or leave all as it is."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or min(4, os.cpu_count() or 1)  # a quarter of a GiB each

    def run(self) -> None:
        if self.editable_mode and not MUST:
            say("an editable installation runs interpreted")
            self.extensions = []
            return
        self.force = True  # what is compiled depends on the .pxd of others, which nobody looks at
        try:
            self._translate()
            super().run()
        except Exception as error:  # whatever it is, Python can do without
            if MUST:
                raise
            say(f"not compiled, it will run interpreted: {error}")
            for path in map(Path, self.get_outputs()):
                path.unlink(missing_ok=True)
            self.extensions = []
        else:
            say(f"compiled {len(self.extensions)} modules")

    def _translate(self) -> None:
        """From Python to C."""
        from Cython.Build import cythonize

        found = cythonize(
            self.extensions,
            compiler_directives=DIRECTIVES,
            emit_linenums=MODE == "sanitize",  # reports name lines of Python
            build_dir=self.build_temp,
            quiet=True,
            force=True,
        )
        for extension, translated in zip(self.extensions, found, strict=True):
            extension.sources = translated.sources


def find_extensions() -> list[Extension]:
    if MODE == "skip" or sys.implementation.name != "cpython":
        say("not compiled, it will run interpreted")
        return []
    flags = {"extra_compile_args": FLAGS, "extra_link_args": FLAGS}
    return [
        Extension(f"fullduplex.{name}", [f"src/fullduplex/{name.replace('.', '/')}.py"], **flags) for name in MODULES
    ]


if MODE not in ("try", "skip") and not MUST:
    raise SystemExit(f"FULLDUPLEX_COMPILE is require or skip, not {MODE!r}")

setup(ext_modules=find_extensions(), cmdclass={"build_ext": BuildOrLeave})
