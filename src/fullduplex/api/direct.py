"""What a task is told without an exception for each answer: written twice, here and in C in `direct.pxd`."""

from __future__ import annotations

from .awaitables import Step


def answer_directly(kind: type[Step]) -> None:
    """Have the interpreter ask `kind` itself (PyAsyncMethods.am_send), and not by `__next__`, which ends by raising.

    Nothing to do here: what is not compiled is asked by `__next__`.
    """
