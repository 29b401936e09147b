"""Grouping sequences of similar length, so that a batch needs little padding."""

import numpy as np


def split_by_length(lengths: np.ndarray, part_cost: int) -> list[np.ndarray]:
    """Return places of windows in parts, shortest first, that cost the least together.

    A part costs its windows times its longest one, and `part_cost` sub-words for being there. The
    cheapest split of the sorted lengths is found exactly, by dynamic programming.

    >>> [part.tolist() for part in split_by_length(np.array([90, 8, 9, 7, 88]), part_cost=32)]
    [[3, 1, 2], [4, 0]]
    """
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    cheapest = np.zeros(len(order) + 1, np.int64)  # of the first so many windows
    begins = np.zeros(len(order) + 1, np.int64)  # where the last part of that split begins
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
