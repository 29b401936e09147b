"""Threads take turns, meet, and never wait for one that is gone."""

import threading
from collections.abc import Callable, Mapping

from crosstune.sweeps.fused.rendezvous import Barrier, BarrierStopped

Said = dict[int, list[object]]


def add(brought: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """Give everyone what was brought in all, and by how many."""
    return dict.fromkeys(brought, (sum(brought.values()), len(brought)))


def hold(meeting: Barrier, bodies: Mapping[int, Callable[[], object]]) -> Said:
    """Run a body a thread to its end; return what each gave or raised."""
    said: Said = {number: [] for number in bodies}

    def attend(number: int) -> None:
        try:
            with meeting.attend(number):
                said[number].append(bodies[number]())
        except BaseException as error:
            said[number].append(error)

    threads = [threading.Thread(target=attend, args=(number,), daemon=True) for number in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return said


def test_everyone_gets_what_was_made_of_all() -> None:
    meeting = Barrier(range(3), add)
    said = hold(meeting, {n: lambda n=n: meeting.meet(n, 10**n) for n in range(3)})
    assert said == {0: [(111, 3)], 1: [(111, 3)], 2: [(111, 3)]}


def test_what_was_brought_is_worked_on_in_the_order_of_the_numbers() -> None:
    orders: list[list[int]] = []

    def note(brought: Mapping[int, int]) -> dict[int, int]:
        orders.append(list(brought))
        return dict(brought)

    meeting = Barrier(range(5), note)
    hold(meeting, {n: lambda n=n: [meeting.meet(n, 0) for _ in range(20)] for n in (3, 1, 4, 0, 2)})
    assert orders == [[0, 1, 2, 3, 4]] * 20


def test_those_who_stay_go_on_without_one_who_is_done() -> None:
    meeting = Barrier(range(3), add)

    def meet(number: int, times: int) -> list[int]:
        return [meeting.meet(number, 1)[1] for _ in range(times)]

    said = hold(meeting, {n: lambda n=n: meet(n, n + 1) for n in range(3)})
    assert said == {0: [[3]], 1: [[3, 2]], 2: [[3, 2, 1]]}


def test_one_who_fails_is_waited_for_by_nobody() -> None:
    meeting = Barrier(range(2), add)

    def fail() -> None:
        raise ValueError("a fault of its own")

    said = hold(meeting, {0: fail, 1: lambda: meeting.meet(1, 5)})
    assert isinstance(said[0][0], ValueError)
    assert said[1] == [(5, 1)]


def test_a_fault_in_the_work_comes_to_all_who_wait_for_it() -> None:
    def fail(brought: Mapping[int, int]) -> dict[int, int]:
        raise ValueError("a fault of all")

    meeting = Barrier(range(3), fail)
    said = hold(meeting, {n: lambda n=n: meeting.meet(n, 0) for n in range(3)})
    assert [type(found) for (found,) in said.values()] == [ValueError] * 3


def test_one_at_a_time_has_the_turn() -> None:
    meeting = Barrier(range(4), add)
    busy, most = [0], [0]

    def work(number: int) -> None:
        for _ in range(20):
            busy[0] += 1
            most[0] = max(most[0], busy[0])
            threading.Event().wait(0.0005)
            busy[0] -= 1
            meeting.meet(number, 0)

    hold(meeting, {n: lambda n=n: work(n) for n in range(4)})
    assert most == [1]


def test_a_meeting_that_is_stopped_ends_everyone() -> None:
    meeting = Barrier(range(3), add)
    waiting = threading.Event()

    def wait(number: int) -> None:
        waiting.set()
        meeting.meet(number, 0)

    def stop() -> None:
        waiting.wait(30)
        meeting.stop()

    threading.Thread(target=stop).start()
    said = hold(meeting, {n: lambda n=n: wait(n) for n in range(2)})  # the third never comes
    assert [type(found) for (found,) in said.values()] == [BarrierStopped] * 2


def test_an_interruption_is_no_failure_of_a_run() -> None:
    assert not issubclass(BarrierStopped, Exception)
