"""Threads take turns, wait for each other, and never for one that has left."""

import threading
from collections.abc import Callable, Mapping

from crosstune.sweeps.fused.rendezvous import Barrier, BarrierAborted

Results = dict[int, list[object]]


def add(values: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """Return the sum of all values and their number, to every member."""
    return dict.fromkeys(values, (sum(values.values()), len(values)))


def run_members(barrier: Barrier, bodies: Mapping[int, Callable[[], object]]) -> Results:
    """Run each body in a thread to its end; return what it returned or raised."""
    results: Results = {number: [] for number in bodies}

    def run_member(number: int) -> None:
        try:
            with barrier.member(number):
                results[number].append(bodies[number]())
        except BaseException as error:
            results[number].append(error)

    threads = [
        threading.Thread(target=run_member, args=(number,), daemon=True) for number in bodies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return results


def test_every_member_gets_the_result_of_all_values() -> None:
    barrier = Barrier(range(3), add)
    results = run_members(barrier, {n: lambda n=n: barrier.wait(n, 10**n) for n in range(3)})
    assert results == {0: [(111, 3)], 1: [(111, 3)], 2: [(111, 3)]}


def test_values_are_ordered_by_number() -> None:
    orders: list[list[int]] = []

    def note(values: Mapping[int, int]) -> dict[int, int]:
        orders.append(list(values))
        return dict(values)

    barrier = Barrier(range(5), note)
    run_members(
        barrier, {n: lambda n=n: [barrier.wait(n, 0) for _ in range(20)] for n in (3, 1, 4, 0, 2)}
    )
    assert orders == [[0, 1, 2, 3, 4]] * 20


def test_the_others_go_on_without_a_member_that_is_done() -> None:
    barrier = Barrier(range(3), add)

    def meet(number: int, times: int) -> list[int]:
        return [barrier.wait(number, 1)[1] for _ in range(times)]

    results = run_members(barrier, {n: lambda n=n: meet(n, n + 1) for n in range(3)})
    assert results == {0: [[3]], 1: [[3, 2]], 2: [[3, 2, 1]]}


def test_nobody_waits_for_a_member_that_failed() -> None:
    barrier = Barrier(range(2), add)

    def fail() -> None:
        raise ValueError("a fault of its own")

    results = run_members(barrier, {0: fail, 1: lambda: barrier.wait(1, 5)})
    assert isinstance(results[0][0], ValueError)
    assert results[1] == [(5, 1)]


def test_an_error_in_the_work_is_raised_in_every_member() -> None:
    def fail(values: Mapping[int, int]) -> dict[int, int]:
        raise ValueError("a fault of all")

    barrier = Barrier(range(3), fail)
    results = run_members(barrier, {n: lambda n=n: barrier.wait(n, 0) for n in range(3)})
    assert [type(error) for (error,) in results.values()] == [ValueError] * 3


def test_one_thread_runs_at_a_time() -> None:
    barrier = Barrier(range(4), add)
    busy, most = [0], [0]

    def work(number: int) -> None:
        for _ in range(20):
            busy[0] += 1
            most[0] = max(most[0], busy[0])
            threading.Event().wait(0.0005)
            busy[0] -= 1
            barrier.wait(number, 0)

    run_members(barrier, {n: lambda n=n: work(n) for n in range(4)})
    assert most == [1]


def test_aborting_the_barrier_ends_every_member() -> None:
    barrier = Barrier(range(3), add)
    waiting = threading.Event()

    def wait(number: int) -> None:
        waiting.set()
        barrier.wait(number, 0)

    def stop() -> None:
        waiting.wait(30)
        barrier.abort()

    threading.Thread(target=stop).start()
    results = run_members(
        barrier, {n: lambda n=n: wait(n) for n in range(2)}
    )  # the third never comes
    assert [type(error) for (error,) in results.values()] == [BarrierAborted] * 2


def test_an_abort_is_not_recorded_as_a_failure() -> None:
    assert not issubclass(BarrierAborted, Exception)
