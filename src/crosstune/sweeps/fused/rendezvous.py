"""A barrier for threads of which one runs at a time; one that finds all waiting works for all.

State of the whole process (torch's RNG, warning filters) is thus never used by two threads at once:
a thread gives up its turn only at the barrier. Knows nothing of training.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any


class BarrierAborted(BaseException):
    """The barrier was aborted; a BaseException, so that no run records it as a failure."""


class Barrier:
    """Where threads exchange a value for what `work` computes from the values of all.

    `work` gets the values of all waiting members by number, and returns a result for each.
    """

    def __init__(
        self, members: Iterable[int], work: Callable[[Mapping[int, Any]], Mapping[int, Any]]
    ):
        self.members = set(members)
        self.work = work
        self.turn = threading.Condition()
        self.aborted = False
        self._waiting: dict[int, tuple[Any, Future[Any]]] = {}

    @contextmanager
    def member(self, number: int) -> Iterator[None]:
        """Wait for a turn, and leave the barrier at the end, so that no other waits in vain.

        Raises:
            BarrierAborted: the barrier was aborted before.
        """
        with self.turn:
            try:
                if self.aborted:
                    raise BarrierAborted
                yield
            finally:
                self.members.discard(number)
                self.turn.notify_all()

    def wait(self, number: int, value: Any) -> Any:
        """Wait until all members do, and return the result of this one.

        Raises:
            BarrierAborted: the barrier was aborted meanwhile.
            Exception: what `work` raised, in every member.
        """
        result: Future[Any] = Future()
        self._waiting[number] = value, result
        self.turn.wait_for(
            lambda: self.aborted or result.done() or self._waiting.keys() == self.members
        )
        if self.aborted:
            raise BarrierAborted
        if not result.done():
            self._work()
        return result.result()

    def abort(self) -> None:
        """End every thread when it reaches the barrier next."""
        self.aborted = True  # before the lock: the thread that holds it reads this first
        with self.turn:
            self.turn.notify_all()

    def _work(self) -> None:
        waiting = dict(sorted(self._waiting.items()))
        self._waiting.clear()
        try:
            results = self.work({number: value for number, (value, _) in waiting.items()})
        except Exception as error:  # any failure is that of all members
            for _, result in waiting.values():
                result.set_exception(error)
        else:
            for number, (_, result) in waiting.items():
                result.set_result(results[number])
        self.turn.notify_all()
