"""Rounds of rotations: a list of pairs (i, j) in order, cut into rounds in which no coordinate occurs twice.

A pair goes into the first round after the last one that touched i or j, so the product of the rounds is the product of
the rotations: n − 1 rotations of a binary tree take ⌈log₂ n⌉ rounds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any


@lru_cache(maxsize=64)
def schedule(op: str, attrs: tuple[Any, ...], first: int, second: int, n: int) -> tuple[tuple[int, ...], ...]:
    """For each round the positions in the index set of the pairs that it holds."""
    from padp.compiler.kernels import index_rows

    last = [-1] * n
    rounds: list[list[int]] = []
    for position, row in enumerate(index_rows(op, attrs)):
        i, j = row[first], row[second]
        level = 1 + max(last[i], last[j])
        if level == len(rounds):
            rounds.append([])
        rounds[level].append(position)
        last[i] = last[j] = level
    return tuple(tuple(r) for r in rounds)
