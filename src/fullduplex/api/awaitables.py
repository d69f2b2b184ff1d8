"""What the verbs of a connection return: objects that act like coroutines, without being one.

A verb acts when it is called; awaiting it waits. In a callback nothing awaits, and nothing complains of it; in a task
`await ws.send(...)` costs no suspension when the message could be sent, and `await ws.recv()` none when one is there.
They can be given to `asyncio.create_task`, `gather` and `wait_for` like any coroutine.

A task that has to wait for a message waits on a `Waiter`, which stands in the place of a Future: the engine wakes the
task directly, inside the tick that parsed the message, in the task's own context.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, Final

from . import contexts


class Step:
    """The protocol of a coroutine (PEP 492), on one method: `answer` gives the result, or a `Waiter` to wait for it."""

    __slots__ = ()

    def answer(self) -> Any:
        """What awaiting it comes to, or a Waiter: then it is asked again later."""
        return None

    def __await__(self) -> Step:
        return self

    def __iter__(self) -> Step:
        return self

    def __next__(self) -> Any:
        answer = self.answer()
        if type(answer) is Waiter:
            return answer
        raise StopIteration(answer)

    def send(self, value: None) -> Any:
        return self.__next__()

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """An exception, of the old or the new form, where the task waits: a cancellation."""
        if value is None:
            value = kind() if isinstance(kind, type) else kind
        raise value

    def close(self) -> None:
        """Nothing is held."""


Coroutine.register(Step)


class Ready(Step):
    """Is there already."""

    __slots__ = ("_value",)

    def __init__(self, value: Any = None) -> None:
        self._value = value

    def answer(self) -> Any:
        return self._value


class Failed(Step):
    """Raises when it is awaited."""

    __slots__ = ("_error",)

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def answer(self) -> Any:
        raise self._error


class Later(Step):
    """A coroutine function that starts when it is first awaited, or never."""

    __slots__ = ("_args", "_coroutine", "_function")

    def __init__(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        self._function = function
        self._args = args
        self._coroutine: Coroutine[Any, Any, Any] | None = None

    def __next__(self) -> Any:
        if self._coroutine is None:
            self._coroutine = self._function(*self._args)
        return self._coroutine.send(None)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        if self._coroutine is None:
            return super().throw(kind, value, traceback)
        return self._coroutine.throw(value if value is not None else kind)

    def close(self) -> None:
        if self._coroutine is not None:
            self._coroutine.close()


DONE: Final = Ready()


class Waiter:
    """Where one task waits for a connection: as much of a Future as a Task asks for."""

    __slots__ = ("_asyncio_future_blocking", "_cancelled", "_context", "_loop", "_message", "_wakeup")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asyncio_future_blocking = False
        self._loop = loop
        self._wakeup: Callable[[Any], object] | None = None
        self._context: contextvars.Context | None = None
        self._cancelled = False
        self._message: Any = None

    @property
    def waiting(self) -> bool:
        return self._wakeup is not None

    def wake(self) -> None:
        """Run the task now. Only where no task runs: in the tick."""
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is not None:
            context, self._context = self._context, None
            if context is None:
                wakeup(self)
            else:
                contexts.run(context, wakeup, self)

    def schedule(self) -> None:
        """Run the task in the loop's next iteration."""
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is not None:
            self._loop.call_soon(wakeup, self, context=self._context)

    # What a Task calls.

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: contextvars.Context | None = None
    ) -> None:
        self._wakeup = callback
        self._context = context

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        found = self._wakeup == callback
        if found:
            self._wakeup = None
        return int(found)

    def cancel(self, msg: Any = None) -> bool:
        """The task is cancelled: it wakes with CancelledError, and what came meanwhile waits for the next one."""
        if self._wakeup is None:
            return False
        self._cancelled = True
        self._message = msg
        self.schedule()
        return True

    def cancelled(self) -> bool:
        return self._cancelled

    def done(self) -> bool:
        return self._wakeup is None

    def result(self) -> None:
        if self._cancelled:
            raise asyncio.CancelledError() if self._message is None else asyncio.CancelledError(self._message)

    def exception(self) -> None:
        self.result()
