"""Index vectors that the sizes alone determine, and which of them are views.

    known(node) -> the numbers, or None            pattern(numbers, n) -> Pattern, or None

Pairs, halves of groups, butterflies, every k-th: taking a vector's entries at such an index is a reshape with some axes
narrowed and the others in another order. A view moves nothing, where a gather walks entry by entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from padp.compiler.ir.nodes import Node
from padp.compiler.operators.index_rows import index_rows

SETS = ("tree", "band", "pairs", "halves", "neighbours", "arange", "butterfly")
Numbers = NDArray[np.int64]


def known(node: Node) -> Numbers | None:
    """The numbers of an index vector or a set of index tuples, where the sizes determine them."""
    match node.op:
        case name if name in SETS and not node.args:
            rows = np.array(index_rows(name, node.attrs), dtype=np.int64)
            return rows[:, 0] if node.type.rank == 1 else rows
        case "column":
            rows_ = known(node.args[0])
            return None if rows_ is None else rows_ if rows_.ndim == 1 else rows_[:, node.attrs[1]]
        case "take" if node.args[1].op == "const" and node.attrs == (1,):
            rows_ = known(node.args[0])
            return None if rows_ is None or rows_.ndim != 2 else rows_[:, node.args[1].value]
        case "take" if node.attrs == (1,):
            whole, at = known(node.args[0]), known(node.args[1])
            return None if whole is None or at is None or whole.ndim != 1 or at.ndim != 1 else whole[at]
        case "cat" if node.type.rank == 1:
            parts = [known(a) for a in node.args]
            flat = [p for p in parts if p is not None and p.ndim == 1]
            return np.concatenate(flat) if len(flat) == len(parts) else None
        case "inverse_index":
            whole = known(node.args[0])
            return None if whole is None or whole.ndim != 1 else np.argsort(whole)
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Pattern:
    """index[k] = offset + Σ strideᵢ · kᵢ for k = (k₁, …, k_r) in row-major order over ``counts``."""

    counts: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    n: int

    @property
    def length(self) -> int:
        return int(np.prod(self.counts)) if self.counts else 1

    @property
    def identity(self) -> bool:
        return self.offset == 0 and self.length == self.n and self.strides in ((1,), ())

    def grid(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None:
        """(shape, starts, order): v reshaped to ``shape``, axis a narrowed from ``starts[a]``, axes in ``order``.

        ``order`` lists, for each of ``counts``, its axis; an axis that is not listed is narrowed to one entry. None
        where the strides do not nest.
        """
        by_stride = sorted(range(len(self.counts)), key=lambda i: -self.strides[i])
        shape: list[int] = []
        axis_of: dict[int, int] = {}
        above = self.n
        for i in by_stride:
            if self.strides[i] < 1 or above % self.strides[i]:
                return None
            axis_of[i] = len(shape)
            shape.append(above // self.strides[i])
            above = self.strides[i]
        if above > 1:
            shape.append(above)
        starts: list[int] = []
        rest = self.offset
        for a in range(len(shape)):
            unit = int(np.prod(shape[a + 1:])) if a + 1 < len(shape) else 1
            starts.append(rest // unit)
            rest %= unit
        for i, a in axis_of.items():
            if starts[a] + self.counts[i] > shape[a]:
                return None
        return tuple(shape), tuple(starts), tuple(axis_of[i] for i in range(len(self.counts)))


def pattern(numbers: Numbers, n: int, most: int = 5) -> Pattern | None:
    """The pattern of an index into ``n`` entries, where it has one with at most ``most`` axes."""
    if numbers.ndim != 1 or len(numbers) == 0:
        return None
    offset = int(numbers[0])
    rest = numbers - offset
    counts: list[int] = []
    strides: list[int] = []
    while len(rest) > 1:
        if len(counts) == most:
            return None
        step = int(rest[1])
        breaks = np.flatnonzero(rest != step * np.arange(len(rest), dtype=np.int64))
        run = int(breaks[0]) if len(breaks) else len(rest)
        while len(rest) % run:  # a run may go on into the next repetition by chance
            run -= 1
        if run < 2:
            return None
        table = rest.reshape(-1, run)
        if not np.array_equal(table, table[:, :1] + step * np.arange(run, dtype=np.int64)):
            return None
        counts.insert(0, run)
        strides.insert(0, step)
        rest = table[:, 0].copy()
    return Pattern(tuple(counts), tuple(strides), offset, n)


def without(p: Pattern, axis: int) -> Pattern:
    """The pattern with one of its axes taken out, inside pieces as long as that axis's stride."""
    counts = p.counts[:axis] + p.counts[axis + 1:]
    strides = p.strides[:axis] + p.strides[axis + 1:]
    return Pattern(counts, strides, p.offset, p.strides[axis])


def split_axis(p: Pattern, pieces: Sequence[int]) -> int | None:
    """The axis of a pattern that runs over whole equal pieces, or None."""
    if len(set(pieces)) != 1 or p.offset:
        return None
    for k, (count, stride) in enumerate(zip(p.counts, p.strides, strict=True)):
        if count == len(pieces) and stride == pieces[0] and all(s < stride for j, s in enumerate(p.strides) if j != k):
            return k
    return None
