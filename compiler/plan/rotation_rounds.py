"""Rounds of rotations: a list of pairs (i, j) in order, cut into rounds in which no coordinate occurs twice.

A pair goes into the first round after the last one that touched i or j, so the product of the rounds is the product of
the rotations: n − 1 rotations of a binary tree take ⌈log₂ n⌉ rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from padp.compiler.operators.index_rows import index_rows

Key: TypeAlias = tuple[str, tuple[Any, ...], tuple[int, int], int]
"""An index set by its function and numbers, its two columns, and how many coordinates there are."""


@lru_cache(maxsize=64)
def schedule(op: str, attrs: tuple[Any, ...], first: int, second: int, n: int) -> tuple[tuple[int, ...], ...]:
    """For each round the positions in the index set of the pairs that it holds."""
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


@lru_cache(maxsize=8)
def _pairs(key: Key) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All i's and all j's."""
    op, attrs, (first, second), _ = key
    rows = np.array(index_rows(op, attrs), dtype=np.int64)
    return rows[:, first], rows[:, second]


def partners(key: Key, k: int) -> NDArray[np.int64]:
    """For each coordinate the one it is rotated with in round k (itself when none)."""
    op, attrs, columns, n = key
    members = list(schedule(op, attrs, *columns, n)[k])
    i, j = (side[members] for side in _pairs(key))
    out = np.arange(n)
    out[i], out[j] = j, i
    return out


def places(key: Key) -> NDArray[np.int64]:
    """round·n + i for every rotation, then round·n + j."""
    op, attrs, columns, n = key
    i, j = _pairs(key)
    level = np.empty(len(i), dtype=np.int64)
    for k, members in enumerate(schedule(op, attrs, *columns, n)):
        level[list(members)] = k
    return np.concatenate([level * n + i, level * n + j])


@dataclass(frozen=True, slots=True)
class Group:
    """Rounds ``first`` to ``last`` − 1, and the coordinates of each block that they mix; () where not composed."""

    first: int
    last: int
    blocks: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=256)
def grouped(key: Key, size: int) -> tuple[Group, ...]:
    """Consecutive rounds together while what they mix stays in equal blocks of at most ``size`` coordinates."""
    op, attrs, (first, second), n = key
    rows = index_rows(op, attrs)
    rounds = [[(rows[t][first], rows[t][second]) for t in members] for members in schedule(op, attrs, first, second, n)]
    groups: list[Group] = []
    at = 0
    while at < len(rounds):
        parent = list(range(n))
        weight = [1] * n
        end = at
        while end < len(rounds):
            trial, heavy = parent[:], weight[:]
            for i, j in rounds[end]:
                x, y = _root(trial, i), _root(trial, j)
                if x != y:
                    trial[y] = x
                    heavy[x] += heavy[y]
            if max(heavy[_root(trial, i)] for i, _ in rounds[end]) > size:
                break
            parent, weight, end = trial, heavy, end + 1
        blocks: dict[int, list[int]] = {}
        for i in range(n):
            if weight[_root(parent, i)] > 1:
                blocks.setdefault(_root(parent, i), []).append(i)
        equal = len({len(x) for x in blocks.values()}) == 1
        if end - at > 1 and equal:
            groups.append(Group(at, end, tuple(tuple(x) for x in blocks.values())))
        else:
            end = max(end, at + 1)
            groups += [Group(k, k + 1, ()) for k in range(at, end)]
        at = end
    return tuple(groups)


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        i = parent[i]
    return i
