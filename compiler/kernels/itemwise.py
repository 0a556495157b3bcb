"""Operators on families for the literal reading alone: item by item, written out.

    each(one, (F, 2), (M, 2)) = [one(F_1, M), one(F_2, M), …]

Plans compute with whole families (``kernels/dense.py``, ``kernels/table.py``), where torch decides by their sizes which
axes belong to an item. Here a function never sees more than one item, and none of that code is shared: what is wrong in
one of the two cannot be wrong in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from padp.compiler.kernels.dense import triangle_size
from padp.compiler.kernels.singular import solved
from padp.dsl.diagnostics import refuse


def each(one: Callable[..., Tensor], *values: tuple[Tensor, int]) -> Tensor:
    """``one`` of the items in every place of a family; a value without family axes is the same in all places.

    Each value is a tensor and the rank of its items.
    """
    lead = next((tuple(t.shape[: t.dim() - rank]) for t, rank in values if t.dim() > rank), ())
    if not lead:
        return one(*(t for t, _ in values))
    if not math.prod(lead):
        unit = one(*(_sample(t.shape[t.dim() - rank:]) for t, rank in values))
        return values[0][0].new_zeros(*lead, *unit.shape)
    items = [_items(t, rank, math.prod(lead)) for t, rank in values]
    made = [one(*parts) for parts in zip(*items, strict=True)]
    return torch.stack(made).reshape(*lead, *made[0].shape)


def _items(t: Tensor, rank: int, count: int) -> list[Tensor]:
    if t.dim() == rank:
        return [t] * count
    return list(t.reshape(count, *t.shape[t.dim() - rank:]).unbind(0))


def _sample(shape: torch.Size) -> Tensor:
    """An item that every operator takes."""
    return torch.eye(*shape) if len(shape) == 2 else torch.ones(shape)


def _wide(t: Tensor) -> Tensor:
    return t.float() if t.dtype in (torch.bfloat16, torch.float16) else t


def inverse(M: Tensor) -> Tensor:
    """M⁻¹ of one matrix: X with M X = I."""
    unit = torch.eye(M.shape[-1], dtype=_wide(M).dtype, device=M.device)
    made: Tensor = solved(torch.linalg.solve, _wide(M), unit)
    return made.to(M.dtype)


def solve(A: Tensor, B: Tensor) -> Tensor:
    """A⁻¹ B of one matrix, and one matrix or vector: column by column for all columns."""
    columns = B[:, None] if B.dim() == 1 else B
    made: Tensor = solved(torch.linalg.solve, _wide(A), _wide(columns))
    return (made[:, 0] if B.dim() == 1 else made).to(B.dtype)


def power(M: Tensor, exponent: int) -> Tensor:
    """M … M, ``exponent`` times."""
    made = torch.eye(M.shape[-1], dtype=M.dtype, device=M.device)
    for _ in range(exponent):
        made = made @ M
    return made


def expm(M: Tensor) -> Tensor:
    """The matrix exponential of one matrix."""
    made: Tensor = torch.linalg.matrix_exp(_wide(M))
    return made.to(M.dtype)


def kron(A: Tensor, B: Tensor) -> Tensor:
    """A ⊗ B of two matrices, or of two vectors: a B for every entry a of A."""
    if A.dim() == 1 and not len(A):
        return A.new_zeros(0)
    if A.dim() == 1:
        return torch.cat([a * B for a in A.unbind(0)])
    if not A.numel():
        return A.new_zeros(A.shape[0] * B.shape[0], A.shape[1] * B.shape[1])
    return torch.cat([torch.cat([a * B for a in row.unbind(0)], 1) for row in A.unbind(0)], 0)


def skew(v: Tensor) -> Tensor:
    """The numbers above the diagonal row by row, their negatives below it."""
    k, at, rows = triangle_size(v.shape[0]), 0, list[Tensor]()
    for i in range(k):
        rows.append(torch.cat([v.new_zeros(i + 1), v[at: at + k - 1 - i]]))
        at += k - 1 - i
    upper = torch.stack(rows)
    return upper - upper.mT


def diag(v: Tensor) -> Tensor:
    """v_i at (i, i)."""
    return torch.diag(v)


def circulant(v: Tensor) -> Tensor:
    """Column j is v, j places further down."""
    n = v.shape[0]
    return torch.stack([torch.cat([v[n - j:], v[: n - j]]) for j in range(n)], 1)


def scatter(c: Tensor, places: Tensor, m: int, n: int) -> Tensor:
    """The m×n matrix with c_t added at places_t."""
    i, j = places.to(c.device).unbind(1)
    return c.new_zeros(m, n).index_put((i, j), c, accumulate=True)


def softmax(v: Tensor) -> Tensor:
    """exp(v) / sum(exp(v)), the largest entry taken off first."""
    e = torch.exp(v - v.detach().max())
    return e / e.sum()


def blkdiag(parts: list[Tensor]) -> Tensor:
    """Matrices of any shapes along a diagonal, zero beside them."""
    wide, at, rows = sum(p.shape[1] for p in parts), 0, list[Tensor]()
    for p in parts:
        rows.append(torch.cat([p.new_zeros(len(p), at), p, p.new_zeros(len(p), wide - at - p.shape[1])], 1))
        at += p.shape[1]
    return torch.cat(rows, 0)


def blocks(M: Tensor, a: int, b: int) -> Tensor:
    """One matrix → the grid of its a×b blocks."""
    rows, columns = M.shape
    if a < 1 or b < 1 or rows % a or columns % b:
        raise refuse("E301", f"blocks: {rows}×{columns} cannot be cut into {a}×{b} equal blocks")
    p, q = rows // a, columns // b
    return torch.stack([torch.stack([M[i * p: (i + 1) * p, j * q: (j + 1) * q] for j in range(b)]) for i in range(a)])


def assemble(F: Tensor) -> Tensor:
    """A grid (a, b, p, q) of blocks → one matrix."""
    a, b, p, q = F.shape
    if not a * b:
        return F.new_zeros(a * p, b * q)
    return torch.cat([torch.cat(list(row.unbind(0)), 1) for row in F.unbind(0)], 0)
