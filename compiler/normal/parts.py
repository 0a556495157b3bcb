"""Products of matrices in parts: [A, B] [C; D], diagonals beside them, and nothing multiplied by zeros.

    push_diag(s, factors), cut(s, factors), zero_parts(s, factors) -> the factors then, or None
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from padp.compiler.ir import build as b
from padp.compiler.ir.dims import lower
from padp.compiler.ir.nodes import Node
from padp.compiler.normal.decompositions import decomposed
from padp.compiler.operators.rewriting import Rewriting


def push_diag(s: Rewriting, flat: list[Node]) -> list[Node] | None:
    """diag(d) [C; D] = [diag(d₁) C; diag(d₂) D];  [A, B] diag(d) = [A diag(d₁), B diag(d₂)]."""
    for k in range(len(flat) - 1):
        x, y = flat[k], flat[k + 1]
        if x.op == "diag" and y.op == "cat" and y.attrs[0] == 2 and y.type.rank == 2:
            parts = [s.prod((s.diag(d), c)) for d, c in zip(
                _cuts(s, x.args[0], 1, [p.type.item[0] for p in y.args]), y.args, strict=True)]
            return [*flat[:k], b.cat(s.g, parts, 2), *flat[k + 2:]]
        if y.op == "diag" and x.op == "cat" and x.attrs[0] == 1 and x.type.rank == 2:
            parts = [s.prod((c, s.diag(d))) for d, c in zip(
                _cuts(s, y.args[0], 1, [p.type.item[1] for p in x.args]), x.args, strict=True)]
            return [*flat[:k], b.cat(s.g, parts, 1), *flat[k + 2:]]
    return None


def cut(s: Rewriting, flat: list[Node]) -> list[Node] | None:
    """X [C; D] = X_{:,:k} C + X_{:,k:} D;  [A, B] Y = A Y_{:k} + B Y_{k:};  X diag([a; b]) Y likewise,

    where X or Y comes from a decomposition: there the pieces have rules of their own.
    """
    for k in range(len(flat) - 1):
        x, y = flat[k], flat[k + 1]
        if x.type.rank != 2 or y.type.rank != 2:
            continue
        vertical = y.op == "cat" and y.attrs[0] == 2
        horizontal = x.op == "cat" and x.attrs[0] == 1
        if (vertical and (horizontal or decomposed(x))) or (horizontal and decomposed(y)):
            sizes = [p.type.item[0] for p in y.args] if vertical else [p.type.item[1] for p in x.args]
            terms = [s.prod((p, q)) for p, q in zip(
                _cuts(s, x, 1, sizes), _cuts(s, y, 2, sizes), strict=True)]
            return [*flat[:k], s.add(terms, b.prod(s.g, x, y).type), *flat[k + 2:]]
    for k in range(1, len(flat) - 1):
        x, d, y = flat[k - 1:k + 2]
        if d.op == "diag" and d.args[0].op == "cat" and x.type.rank == 2 and y.type.rank == 2 \
                and (decomposed(x) or decomposed(y)):
            sizes = [p.type.item[0] for p in d.args[0].args]
            terms = [s.prod((p, s.diag(e), q)) for p, e, q in zip(
                _cuts(s, x, 1, sizes), d.args[0].args, _cuts(s, y, 2, sizes), strict=True)]
            return [*flat[:k - 1], s.add(terms, b.prod(s.g, x, d, y).type), *flat[k + 2:]]
    return None


def zero_parts(s: Rewriting, flat: list[Node]) -> list[Node] | None:
    """[A, 0] Y = A Y_{:k};  X [B; 0] = X_{:,:k} B;  [B; 0] Y = [B Y; 0]: nothing is multiplied by zeros."""
    for k in range(len(flat) - 1):
        x, y = flat[k], flat[k + 1]
        for padded, axis in ((x, 1), (y, 2)):
            if padded.type.rank == 2 and _has_zeros(padded, axis):
                sizes = [p.type.item[2 - axis] for p in padded.args]
                terms = [s.prod((p, q)) for p, q in zip(
                    _cuts(s, x, 1, sizes), _cuts(s, y, y.type.rank, sizes), strict=True)]
                return [*flat[:k], s.add(terms, b.prod(s.g, x, y).type), *flat[k + 2:]]
    if len(flat) > 1 and _has_zeros(flat[0], 2):
        rest = b.prod(s.g, *flat).type
        return [b.cat(s.g, [s.prod((p, *flat[1:])) for p in flat[0].args], rest.rank)]
    return None


def _cuts(s: Rewriting, node: Node, axis: int, sizes: Sequence[Any]) -> list[Node]:
    """``node`` cut along an axis (counted from the end) into pieces of these sizes."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(s.slice(node, -axis, at, lower(at + size), 1))
        at = lower(at + size)
    return pieces


def _has_zeros(node: Node, axis: int) -> bool:
    """Whether some of the blocks that stand along an axis are zero."""
    return node.op == "cat" and node.attrs[0] == axis and any(b.is_zero(p) for p in node.args)
