"""Matrices made of blocks on vectors, without being built: Kronecker products and assembled grids.

    (A ⊗ B) vec(V) = vec(A V Bᵀ)            from the right or from the left first
    assemble(B_ij A_ij) v                    all A_ij of a column on its piece of v, then all B_ij of a row side by side
    assemble(circulant(c)) v                 by Fourier transforms of the pieces
"""

from __future__ import annotations

from padp.compiler.ir import build as b
from padp.compiler.ir.nodes import Node, Type
from padp.compiler.plan.planner import Planner, low_rank
from padp.compiler.plan.steps import Low


def apply_kron(p: Planner, m: Node, v: Low) -> Low | None:
    """(A ⊗ B) vec(V) = vec(A V Bᵀ), row-major: B on the rows of V and A on its columns, in either order, or built.

    Of a factor through a thin middle, B = L R, also R first and L last, the other factor between them.
    """
    a, c = m.args
    if m.type.batch or v.type.batch:
        return None
    rows, columns = (False, c), (True, a)
    ways: list[tuple[str, tuple[tuple[bool, Node], ...]]] = [
        ("the right factor first", (rows, columns)), ("the left factor first", (columns, rows))]
    for label, inner, (side, factor) in (("right", columns, rows), ("left", rows, columns)):
        parts = low_rank(p.g, factor)
        if parts is not None:
            ways.append((f"the {label} factor's thin side first, its other side last",
                         ((side, parts[1]), inner, (side, parts[0]))))
    made = [(label, _on_grid(p, steps, a.type.item[1], c.type.item[1], v)) for label, steps in ways]
    made.append(("the product built, then applied", p.apply_dense(m, v)))
    return p.either("a Kronecker product on vectors", made, v)


def _on_grid(p: Planner, steps: tuple[tuple[bool, Node], ...], rows: int, columns: int, v: Low) -> Low:
    """v as a grid of numbers, each matrix on its rows or (True) on its columns, and flat again."""
    grid = p.make("reshape_tail", (v, 1, (rows, columns)), Type((columns,), (rows,)), v.lead)
    for on_columns, matrix in steps:
        if on_columns:
            grid = _flipped(p, grid)
        grid = p.apply(matrix, grid)
        if on_columns:
            grid = _flipped(p, grid)
    size = grid.type.family[0] * grid.type.item[0]
    return p.make("reshape_tail", (grid, 2, (size,)), Type((size,)), grid.lead)


def _flipped(p: Planner, grid: Low) -> Low:
    return p.view("mT", grid, (), Type(grid.type.family, grid.type.item))


def apply_assemble(p: Planner, m: Node, v: Low) -> Low | None:
    """assemble(F) v block by block, where the blocks have a structure."""
    f = m.args[0]
    if m.type.batch or f.type.loops or v.type.batch or len(f.type.family) != 2 or f.type.kind == "complex" \
            or p.of_tokens(f):
        return None
    if f.op == "circulant":
        label, made = "transforms of the pieces", _circulants(p, f, v)
    elif f.op == "prod":
        label, made = "factor after factor, block by block", _products(p, f, v)
    else:
        return None
    if made is None:
        return None
    return p.either("a grid of blocks on vectors", [
        (label, made), ("the matrix built, then applied", p.apply_dense(m, v))], v)


def _circulants(p: Planner, f: Node, v: Low) -> Low | None:
    c = f.args[0]
    if not b.fits(c.type.family, f.type.family):
        return None
    size = f.type.family[0] * f.type.item[0]
    return p.make("circulant_grid", (p.value(c), v), Type((size,)), v.lead)


def _products(p: Planner, f: Node, v: Low) -> Low | None:
    """y_i = Σ_j B_ij (A_ij v_j) = [B_i1 … B_ib] [A_i1 v_1; …; A_ib v_b]: two batches of products."""
    inner = [x.type.item[1] for x in f.args[:-1]]
    cut = min(range(len(inner)), key=lambda k: inner[k]) + 1
    left, right = b.prod(p.g, *f.args[:cut]), b.prod(p.g, *f.args[cut:])
    (rows, columns), (k, q), r = f.type.family, f.type.item, inner[cut - 1]
    if not (b.fits(left.type.family, f.type.family) and b.fits(right.type.family, f.type.family)):
        return None
    turned = p.view("permute_tail", p.value(right), ((1, 0, 2, 3),), Type((r, q), (columns, rows)))
    down = p.make("reshape_tail", (turned, 4, (columns, rows * r, q)), Type((rows * r, q), (columns,)))
    pieces = p.make("reshape_tail", (v, 1, (columns, q)), Type((q,), (columns,)), v.lead)
    thin = p.times_vectors(down, pieces)
    split = p.make("reshape_tail", (thin, 2, (columns, rows, r)), Type((r,), (columns, rows)), thin.lead)
    by_row = p.view("permute_tail", split, ((1, 0, 2),), Type((r,), (rows, columns)))
    beside = p.make("reshape_tail", (by_row, 3, (rows, columns * r)), Type((columns * r,), (rows,)), thin.lead)
    wide = p.view("permute_tail", p.value(left), ((0, 2, 1, 3),), Type((columns, r), (rows, k)))
    across = p.make("reshape_tail", (wide, 4, (rows, k, columns * r)), Type((k, columns * r), (rows,)))
    out = p.times_vectors(across, beside)
    return p.make("reshape_tail", (out, 2, (rows * k,)), Type((rows * k,)), out.lead)
