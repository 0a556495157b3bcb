"""Rewrite rules of grids of blocks: what is written block by block is products and sums of whole matrices.

    assemble(A_i F_ij B_j) = blkdiag(A) assemble(F) blkdiag(B)        assemble(A_i B_j) = [A₁; A₂; …] [B₁, B₂, …]
    assemble(F_ij + B_j) = assemble(F) + 1 ⊗ [B₁, B₂, …]              assemble(blocks(M)) = M
"""

from __future__ import annotations

from padp.compiler.ir import build as b
from padp.compiler.ir.dims import lower
from padp.compiler.ir.nodes import Axis, Node, Type
from padp.compiler.operators.rewriting import Rewriting


def assembled(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    """assemble(0) = 0;  assemble(blocks(M)) = M;  blocks that a loop makes: see ``whole_matrices``."""
    (f,) = args
    if b.is_zero(f):
        return b.zeros(s.g, node.type)
    if f.op == "blocks" and f.args[0].type == node.type:
        return f.args[0]
    if f.op == "stack" and f.attrs[1] == "family" and not node.type.batch:
        inner = _unspread(f.args[0])
        if inner.op == "stack" and inner.attrs[1] == "family":
            found = whole_matrices(s, _unspread(inner.args[0]), f.attrs[0], inner.attrs[0])
            if found is not None:
                return found
    return s.g.node("assemble", (f,), (), node.type)


def _unspread(body: Node) -> Node:
    return body.args[0] if body.op == "spread" else body


def whole_matrices(s: Rewriting, body: Node, i: Axis, j: Axis) -> Node | None:
    """assemble(F_ij + G_ij) = assemble(F) + assemble(G),  assemble(c F_ij) = c assemble(F), where one of them goes on;

    assemble(A_i F_ij B_j) = blkdiag(A) assemble(F) blkdiag(B);  assemble(A_i B_j) = [A₁; A₂; …] [B₁, B₂, …];
    assemble(B_j) = 1 ⊗ [B₁, B₂, …];  assemble(A_i) = 1ᵀ ⊗ [A₁; A₂; …].  None where nothing of this is there.
    """
    if body.type.rank != 2 or body.type.family or body.type.kind == "complex" or not {*body.type.loops} <= {i, j}:
        return None
    if not {i, j} <= {*body.type.loops}:
        return _constant(s, body, i, j)
    match body.op:
        case "add":
            parts = [whole_matrices(s, t, i, j) for t in body.args]
            if all(p is None for p in parts):
                return None
            wholes = [_whole(s, t, i, j) if p is None else p for t, p in zip(body.args, parts, strict=True)]
            return s.add(wholes, wholes[0].type)
        case "scale" if not body.args[0].type.batch:
            inner = whole_matrices(s, body.args[1], i, j)
            return None if inner is None else s.scale(body.args[0], inner)
        case "prod":
            return _split(s, body.args, i, j)
        case _:
            return None


def _split(s: Rewriting, factors: tuple[Node, ...], i: Axis, j: Axis) -> Node | None:
    """assemble(A_i F_ij B_j) = blkdiag(A) assemble(F) blkdiag(B);  assemble(A_i B_j) = [A₁; A₂; …] [B₁, B₂, …]."""
    first, last = 0, len(factors)
    while first < last and j not in factors[first].type.loops:
        first += 1
    while last > first and i not in factors[last - 1].type.loops:
        last -= 1
    if first == last:
        return s.prod((_beneath(s, s.prod(factors[:first]), i), _beside(s, s.prod(factors[last:]), j)))
    if last - first == len(factors):
        return None
    middle = _whole(s, s.prod(factors[first:last]), i, j)
    left = (b.blkdiag(s.g, _family(s, s.prod(factors[:first]), i)),) if first else ()
    right = (b.blkdiag(s.g, _family(s, s.prod(factors[last:]), j)),) if last < len(factors) else ()
    return s.prod((*left, middle, *right))


def _constant(s: Rewriting, body: Node, i: Axis, j: Axis) -> Node:
    """assemble(B_j) = 1 ⊗ [B₁, B₂, …];  assemble(A_i) = 1ᵀ ⊗ [A₁; A₂; …];  assemble(C) = 1 1ᵀ ⊗ C."""
    repeated, rows, columns = body, i.size, j.size
    if j in body.type.loops:
        repeated, columns = _beside(s, body, j), 1
    elif i in body.type.loops:
        repeated, rows = _beneath(s, body, i), 1
    k, q = repeated.type.item
    ones = b.full(s.g, 1, Type((rows, columns)))
    return s.make(s.g.node("kron", (ones, repeated), (), Type((lower(rows * k), lower(columns * q)))), (ones, repeated))


def _family(s: Rewriting, body: Node, axis: Axis) -> Node:
    """The matrices of all steps as a family."""
    return s.make(b.stack(s.g, body, axis, "family"), (body,))


def _beneath(s: Rewriting, body: Node, axis: Axis) -> Node:
    """[A₁; A₂; …]."""
    return _rows(s, _family(s, body, axis))


def _beside(s: Rewriting, body: Node, axis: Axis) -> Node:
    """[B₁, B₂, …]."""
    return s.t(_rows(s, s.t(_family(s, body, axis))))


def _rows(s: Rewriting, family: Node) -> Node:
    """The matrices of a family beneath each other."""
    k, q = family.type.item
    return s.make(b.reshape(s.g, family, [lower(family.type.family[0] * k), q]), (family,))


def _whole(s: Rewriting, body: Node, i: Axis, j: Axis) -> Node:
    """assemble(F) of the blocks of all steps."""
    grid = _all_of(body, i, j) or _family(s, _family(s, body, j), i)
    k, q = body.type.item
    type_ = Type((lower(i.size * k), lower(j.size * q)))
    return s.make(s.g.node("assemble", (grid,), (), type_), (grid,))


def _all_of(body: Node, i: Axis, j: Axis) -> Node | None:
    """F where the blocks are all F_ij, whichever index was taken first."""
    if body.op != "take" or body.args[0].op != "take":
        return None
    inner = body.args[0]
    grid, axes = inner.args[0], [(x.attrs[0], x.args[1]) for x in (inner, body)]
    if any(index.op != "iota" or index.attrs[1:] != (1, 0) for _, index in axes) or grid.type.rank != 2:
        return None
    taken = [(position, index.attrs[0]) for position, index in axes]
    if taken not in ([(3, j), (3, i)], [(4, i), (3, j)]) or not b.fits(grid.type.family, (i.size, j.size)):
        return None
    return None if grid.type.loops else grid
