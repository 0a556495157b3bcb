"""Index sets and index vectors that the sizes alone determine, as plain numbers: what a plan unrolls or schedules.

    index_rows(name, attrs)   the rows, in the order of the loop over them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from padp.dsl.diagnostics import refuse

Rows = list[tuple[int, ...]]


def band(q: int, d: int) -> Rows:
    """(i, j) with |i − j| ≤ d in a q×q matrix, row by row."""
    return [(i, j) for i in range(q) for j in range(max(0, i - d), min(q, i + d + 1))]


def pairs(n: int) -> Rows:
    """(0, 1), (2, 3), …; of an odd n the last is left alone."""
    return [(2 * i, 2 * i + 1) for i in range(n // 2)]


def halves(n: int, g: int) -> Rows:
    """In each group of g: (p, p + g/2)."""
    if g < 2 or g % 2 or n % g:
        raise refuse("E501", f"halves: groups of {g} do not fit {n}", suggestion="an even g that divides n")
    return [(a + p, a + p + g // 2) for a in range(0, n, g) for p in range(g // 2)]


def tree(n: int) -> Rows:
    """The n − 1 rotations (i, j, t) of a binary tree towards coordinate 0, level by level, t counting from 0."""
    rows: list[tuple[int, ...]] = []
    step = 1
    while step < n:
        for i in range(0, n - step, 2 * step):
            rows.append((i, i + step, len(rows)))
        step *= 2
    return rows


def neighbours(n: int) -> Rows:
    """(k − 1, k, k − 1) for k = 1 … n − 1."""
    return [(k - 1, k, k - 1) for k in range(1, n)]


def arange(n: int) -> Rows:
    """0, 1, …, n − 1."""
    return [(k,) for k in range(n)]


def butterfly(n: int, k: int, j: int) -> Rows:
    """The order of coordinates in which factor j of a block butterfly is block-diagonal with blocks of size k.

    Each block of k is made of two half blocks, k/2 neighbours each, that lie 2^j half blocks apart (k odd: j = 0 only).
    There is a factor for every j with k·2^j | n.
    """
    if k < 1 or n % k:
        raise refuse("E501", f"butterfly: blocks of {k} do not divide {n}")
    if k % 2:
        if j:
            raise refuse("E501", f"butterfly: blocks of odd size {k} have no half blocks, so there is one factor only",
                         suggestion="an even k, or one factor")
        return [(k,) for k in range(n)]
    levels = 1
    while n % (k * 2**levels) == 0:
        levels += 1
    if not 0 <= j < levels:
        raise refuse("E501", f"butterfly: {n} coordinates in blocks of {k} have {levels} factors, and number {j} was "
                     "asked for (from 0)", suggestion=f"at most {levels} factors")
    apart, half = 2**j, k // 2
    width = 2 * apart * half
    return [(start + (side * apart + block) * half + place,) for start in range(0, n, width) for block in range(apart)
            for side in range(2) for place in range(half)]


def sample(m: int, n: int, count: int, seed: int) -> Rows:
    """``count`` different places of an m×n matrix: the first of ``torch.randperm(mn)`` from a seeded CPU generator."""
    if not 0 <= count <= m * n:
        raise refuse("E501", f"sample: {count} places were asked of a {m}×{n} matrix, which has {m * n}")
    import torch  # the one set that is drawn; a program without it never pays for this

    flat = torch.randperm(m * n, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")[:count]
    return [(at // n, at % n) for at in flat.tolist()]


INDEX_SETS: Mapping[str, Callable[..., Rows]] = {
    "band": band, "sample": sample, "pairs": pairs, "halves": halves, "tree": tree, "neighbours": neighbours,
    "arange": arange, "butterfly": butterfly,
}
WIDTHS = {"band": 2, "sample": 2, "pairs": 2, "halves": 2, "tree": 3, "neighbours": 3, "arange": 1, "butterfly": 1}
"""How many numbers a row has; an index vector has one."""


def index_rows(name: str, attrs: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The rows of an index set."""
    return tuple(INDEX_SETS[name](*attrs))
