"""Grouping sequences of similar length, so that a batch needs little padding."""

import numpy as np


def split_by_length(lengths: np.ndarray, part_cost: int) -> list[np.ndarray]:
    """Return the indices of windows in parts of minimal total cost, shortest windows first.

    A part costs the number of its windows times its longest one, plus `part_cost` subwords. The
    cheapest partition of the sorted lengths is found exactly, by dynamic programming.

    >>> [part.tolist() for part in split_by_length(np.array([90, 8, 9, 7, 88]), part_cost=32)]
    [[3, 1, 2], [4, 0]]
    """
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    cheapest = np.zeros(len(order) + 1, np.int64)  # cost of the first `end` windows
    begins = np.zeros(len(order) + 1, np.int64)  # start of the last part in that partition
    for end in range(1, len(order) + 1):
        costs = cheapest[:end] + (end - np.arange(end)) * ordered[end - 1] + part_cost
        begins[end] = costs.argmin()
        cheapest[end] = costs[begins[end]]
    parts: list[np.ndarray] = []
    end = len(order)
    while end:
        parts.append(order[begins[end] : end])
        end = int(begins[end])
    return parts[::-1]
