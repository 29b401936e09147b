"""Threads that take turns: one works at a time, and where all meet one of them works for all.

Nothing that is one for the whole process (torch's dice, the filters of warnings) is then ever used
by two threads in turn unawares: a thread gives its turn away only where it meets the others. Knows
nothing of training. Called by `company.py`.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class BarrierStopped(BaseException):
    """The work was interrupted from outside; no `except Exception` may take it for a failure."""


class Barrier:
    """Where threads bring what they have and get what `work` makes of all of it.

    `work` gets number -> what that thread brought, and returns number -> what it gets.
    """

    def __init__(
        self, numbers: Iterable[int], work: Callable[[Mapping[int, Any]], Mapping[int, Any]]
    ):
        self.present = set(numbers)
        self.work = work
        self.turn = threading.Condition()
        self.stopped = False
        self._brought: dict[int, Any] = {}
        self._made: dict[int, Any] = {}
        self._error: dict[int, Exception] = {}

    @contextmanager
    def attend(self, number: int) -> Iterator[None]:
        """Take a turn as soon as there is one; in the end leave, so that nobody waits in vain.

        Raises:
            Stopped: the meeting was stopped before.
        """
        with self.turn:
            try:
                if self.stopped:
                    raise BarrierStopped
                yield
            finally:
                self.present.discard(number)
                self.turn.notify_all()

    def meet(self, number: int, brought: Any) -> Any:
        """Wait until all who are present have brought something; return what is for this one.

        Raises:
            Stopped: the meeting was stopped meanwhile.
        """
        self._brought[number] = brought
        self.turn.wait_for(lambda: self.stopped or self._is_done(number) or self._are_all_here())
        if self.stopped:
            raise BarrierStopped
        if not self._is_done(number):
            self._work()
        if number in self._error:
            raise self._error.pop(number)
        return self._made.pop(number)

    def stop(self) -> None:
        """Let every thread end where it meets the others next."""
        self.stopped = True  # at once: whoever has the turn reads it before giving that away
        with self.turn:
            self.turn.notify_all()

    def _is_done(self, number: int) -> bool:
        return number in self._made or number in self._error

    def _are_all_here(self) -> bool:
        return self._brought.keys() == self.present

    def _work(self) -> None:
        brought = dict(sorted(self._brought.items()))
        self._brought.clear()
        try:
            self._made.update(self.work(brought))
        except Exception as error:  # whatever it is, all who wait for it must learn of it
            self._error.update(dict.fromkeys(brought, error))
        self.turn.notify_all()
