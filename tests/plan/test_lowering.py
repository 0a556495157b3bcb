"""Every value that a plan knows to make and every matrix that it knows to apply, against the dense meaning in float64.

``VALUES`` and ``APPLIED`` are the planner's two tables. A value is compared with ``literal``, gradients included; a
matrix is applied to a vector, to tokens, to the rows of a matrix and to a family of vectors, also transposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from padp.compiler.graph.stages import run
from padp.compiler.ir import build as b
from padp.compiler.ir.nodes import Node, Type
from padp.compiler.kernels.table import PRIMS
from padp.compiler.plan import planners
from padp.compiler.plan.applied import APPLIED
from padp.compiler.plan.planner import Planner
from padp.compiler.plan.search import Regime
from padp.compiler.plan.steps import Low, order
from padp.compiler.plan.values import VALUES
from tests.support.graphs import B, K, M, N, R, Site
from tests.support.literal import literal
from tests.support.ways import built_with

TOKENS = 5


def leaves(s: Site) -> dict[tuple[str, str], Tensor]:
    return {(kind, name): t for name, t in s.values.items() for kind in ("param", "weight", "bias", "knob")}


def base_of(s: Site) -> nn.Linear:
    """W as the layer that a plan calls."""
    base = nn.Linear(N, M, bias=False).double()
    with torch.no_grad():
        base.weight.copy_(s.values["W"])
    return base


def computed(s: Site, low: Low, x: Tensor | None = None) -> Tensor:
    """What a plan makes of a value."""
    made: Tensor = run([low], leaves(s), torch.zeros((), dtype=torch.double), base_of(s), x)[0]
    return made


def slopes_agree(fast: Tensor, slow: Tensor, wanted: list[Tensor]) -> None:
    """Equal values, equal gradients."""
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)
    if not slow.requires_grad:
        return
    g = torch.randn(slow.shape, generator=torch.Generator().manual_seed(5), dtype=torch.double)
    g = g if not slow.is_complex() else g.to(slow.dtype)
    pair = [torch.autograd.grad((side * g).sum().real, wanted, allow_unused=True, materialize_grads=True)
            if side.requires_grad else [torch.zeros_like(w) for w in wanted] for side in (fast, slow)]
    for a, c in zip(*pair, strict=True):
        torch.testing.assert_close(a, c, rtol=1e-8, atol=1e-8)


# ---------------------------------------------------------------- values


def node(s: Site, op: str, args: tuple[Node, ...], item: tuple[int, ...], attrs: tuple[Any, ...] = (),
         **more: Any) -> Node:
    """An operator's node, batched over what its arguments are batched over."""
    family, loops = b.united(*(a.type for a in args)) if args else ((), ())
    return s.g.node(op, args, attrs, Type(item, more.get("family", family), more.get("loops", loops),
                                          kind=more.get("kind", "real")))


def svd_part(s: Site, k: int) -> Node:
    return s.svd()[k]


def thin_svd(s: Site, k: int, rank: int, count: int = 0) -> Node:
    """An output of svd(A B, rank) through an inner dimension of 2, of frozen A and B: nobody differentiates it."""
    family = (count,) if count else ()
    A, C = (s.tensor(name, *item, family=family, op="weight") for name, item in (("E", (M, R)), ("F", (R, N))))
    product = s.times(3, s.prod(A, C))
    whole = s.g.node("svd", (product,), (rank,), Type((rank,), family))
    return s.g.node("out", (whole,), (k,), Type(((M, rank), (rank,), (rank, N))[k], family))


def butterflies(s: Site, *factors: int) -> Node:
    """Pᵀ blkdiag(F) P for each of these factors of a butterfly of 8 coordinates in blocks of 2."""
    parts: list[Node] = []
    for j in factors:
        order = s.g.node("butterfly", (), (8, 2, j), Type((8,), kind="index"))
        parts += [s.perm(s.inverse_order(order)), b.blkdiag(s.g, s.tensor(f"F{j}", 2, 2, family=(4,))), s.perm(order)]
    return s.prod(*parts)


def turned_around(s: Site) -> Node:
    """A permutation that is no butterfly's: 1, 3, 5, 7, 0, 2, 4, 6."""
    pairs = s.g.node("pairs", (), (8,), Type((4, 2), kind="index"))
    columns = [b.take(s.g, pairs, s.num(k), 1) for k in (1, 0)]
    return s.perm(s.g.node("cat", tuple(columns), (1,), Type((8,), kind="index")))


def grid(s: Site, blocks: Node) -> Node:
    """A grid of blocks as one matrix."""
    (a, c), (k, q) = blocks.type.family, blocks.type.item
    return s.g.node("assemble", (blocks,), (), Type((a * k, c * q)))


def rank_one(s: Site, left: str, right: str) -> Node:
    """A product through one number, as a product of matrices."""
    return s.prod(s.tensor(left, M, 1), s.tensor(right, 1, N))


def rank_two(s: Site, left: str, right: str) -> Node:
    """A 12×10 matrix through two numbers."""
    return s.prod(s.tensor(left, 12, R), s.tensor(right, R, 10))


def qr_part(s: Site, k: int) -> Node:
    whole = s.g.node("qr", (s.A(),), (), Type((N,)))
    return s.g.node("out", (whole,), (k,), Type(((M, N), (N, N))[k]))


Made = Callable[[Site], Node]

VALUE_CASES: Mapping[str, list[Made]] = {
    "param": [lambda s: s.A(), lambda s: s.many("F", R, K), lambda s: s.each("f", N)],
    "weight": [lambda s: s.W],
    "bias": [lambda s: s.tensor("bias", M, op="bias")],
    "knob": [lambda s: s.tensor("a", op="knob")],
    "input": [lambda s: s.mul(s.x(), s.v())],
    "const": [lambda s: s.num(3), lambda s: s.times(s.num(3), s.A())],
    "full": [lambda s: b.full(s.g, 2, Type((M, N))), lambda s: b.full(s.g, 2, Type((N,), (B,)))],
    "eye": [lambda s: s.eye(), lambda s: s.add(s.eye(), s.S())],
    "add": [lambda s: s.add(s.A(), s.C()), lambda s: s.add(s.v(), s.times(-1, s.many("F", N))),
            lambda s: s.add(s.each("f", N), s.many("F", N), s.v()), lambda s: s.add(s.s(), s.num(2))],
    "scale": [lambda s: s.times(s.s(), s.A()), lambda s: s.times(s.many("c"), s.A()),
              lambda s: s.times(s.each("c"), s.many("F", N)), lambda s: s.times(3, s.prod(s.A(), s.S(), s.v())),
              lambda s: s.times(s.s(), s.prod(s.A(), s.tensor("P", N, R), s.tensor("Q", R, N), s.v())),
              lambda s: s.times(0.5, s.prod(s.tensor("P", M, 1), s.tensor("Q", 1, N)))],
    "prod": [lambda s: s.prod(s.A(), s.S()), lambda s: s.prod(s.A(), s.S(), s.v()),
             lambda s: s.prod(s.many("F", M, N), s.v()), lambda s: s.prod(s.A(), s.many("f", N)),
             lambda s: s.prod(s.many("F", M, N), s.many("f", N)), lambda s: s.prod(s.each("H", M, N), s.many("f", N)),
             lambda s: s.prod(s.each("H", M, N), s.each("h", N)), lambda s: s.prod(s.many("F", M, N), s.S()),
             lambda s: s.prod(s.A(), s.diag(s.v())), lambda s: s.prod(s.diag(s.u()), s.A(), s.diag(s.v())),
             lambda s: s.prod(s.inv(s.S()), s.t(s.A())), lambda s: s.prod(s.A(), s.inv(s.S())),
             lambda s: s.prod(s.A(), s.perm(s.order("i"))), lambda s: s.prod(s.perm(s.order("i")), s.t(s.A())),
             lambda s: s.prod(s.A(), s.t(node(s, "circulant", (s.v(),), (N, N)))),
             lambda s: s.prod(s.A(), outer_each(s), s.each("H", N, K))],
    "t": [lambda s: s.t(s.A()), lambda s: s.t(s.v()), lambda s: s.t(s.many("F", R, K))],
    "mul": [lambda s: s.mul(rank_one(s, "P", "Q"), s.times(s.s(), rank_one(s, "E", "F"))),
            lambda s: s.mul(s.A(), s.C()), lambda s: s.mul(s.each("f", N), s.many("F", N))],
    "div": [lambda s: s.div(s.A(), s.C()), lambda s: s.div(s.num(1), s.v()), lambda s: s.div(s.num(2), s.A()),
            lambda s: s.div(s.A(), s.num(3)), lambda s: s.div(s.each("f", N), s.v()),
            lambda s: s.over(s.A(), s.C()), lambda s: s.over(s.num(1), s.v()), lambda s: s.over(s.num(2), s.A()),
            lambda s: s.over(s.each("f", N), s.v())],
    "point": [lambda s: s.point("tanh", s.A()), lambda s: s.point("abs", s.many("F", N)),
              lambda s: s.point("sqrt", b.sumsq(s.g, s.A(), "row")),
              lambda s: s.point("sqrt", s.times(4, b.sumsq(s.g, s.v(), "all")))],
    "pow": [lambda s: b.pow_(s.g, s.v(), 3), lambda s: b.pow_(s.g, s.point("abs", s.A()), 0.5)],
    "outer": [lambda s: b.outer(s.g, s.u(), s.v()), lambda s: b.outer(s.g, s.each("f", M), s.many("F", N))],
    "dot": [lambda s: b.dot(s.g, s.v(), s.u(N)), lambda s: b.dot(s.g, s.v(), s.many("F", N)),
            lambda s: b.dot(s.g, s.each("f", N), s.many("F", N))],
    "inv": [lambda s: s.inv(s.S()), lambda s: s.inv(s.many("F", K, K))],
    "sumsq": [*(lambda s, a=axis: b.sumsq(s.g, s.A(), a) for axis in ("row", "col", "all")),
              *(lambda s, a=axis: b.sumsq(s.g, s.add(s.W, s.prod(s.tensor("P", M, 1), s.tensor("Q", 1, N))), a)
                for axis in ("row", "col", "all")),
              *(lambda s, a=axis: b.sumsq(s.g, s.prod(s.tensor("P", M, 1), s.tensor("Q", 1, N)), a)
                for axis in ("row", "col", "all")),
              *(lambda s, a=axis: b.sumsq(s.g, s.add(s.W, s.mul(rank_one(s, "P", "Q"), rank_one(s, "E", "F"))), a)
                for axis in ("row", "col", "all")),
              lambda s: b.sumsq(s.g, s.many("F", M, N), "row"), lambda s: b.sumsq(s.g, s.t(s.v()), "all")],
    "reduce": [lambda s, f=f, a=a: b.reduce_(s.g, f, s.A(), a)  # type: ignore[misc]
               for f in ("sum", "mean", "max", "min") for a in ("row", "col", "all")],
    "slice": [lambda s: s.cut(s.A(), -2, 1, 3), lambda s: s.cut(s.many("F", M, N), -1, 1, 3),
              lambda s: b.slice_(s.g, s.A(), -1, 0, 3, 2), lambda s: b.slice_(s.g, s.many("F", N), -2, 1, 2)],
    "take": [lambda s: b.take(s.g, s.A(), s.num(1), 2), lambda s: b.take(s.g, s.A(), s.num(1), 1),
             lambda s: b.take(s.g, s.many("F", N), s.num(1), 2), lambda s: b.take(s.g, s.v(), s.order("i"), 1),
             lambda s: b.take(s.g, s.A(), s.order("i", M), 2), lambda s: b.take(s.g, s.A(), s.index(), 2),
             lambda s: b.take(s.g, s.A(), s.index(), 1), lambda s: b.take(s.g, s.A(), s.index(1, 2), 2),
             lambda s: b.take(s.g, s.A(), s.index(2, 1), 2), lambda s: b.take(s.g, s.A(), s.places(M, N)[1], 2),
             lambda s: b.take(s.g, s.A(), s.places(M, N)[2], 1),
             lambda s: b.take(s.g, s.tensor("G", N, family=(K,)), s.index(), 2),
             lambda s: b.take(s.g, b.take(s.g, s.A(), s.index(), 2), s.index(), 1),
             lambda s: b.take(s.g, b.take(s.g, s.A(), s.index(1, 2), 2), s.index(), 1),
             lambda s: b.take(s.g, b.take(s.g, s.A(), s.places(M, N)[1], 2), s.places(M, N)[2], 1),
             lambda s: b.take(s.g, b.take(s.g, s.many("G", M, N), s.index(), 2), s.index(1, 1), 1),
             lambda s: b.take(s.g, s.each("G", N), s.other(), 1),
             lambda s: b.take(s.g, s.mul(s.each("G", N), b.take(s.g, s.A(), s.other(), 2)), s.other(1), 1)],
    "cat": [lambda s: s.above(s.A(), s.C()), lambda s: s.beside(s.A(), s.C()), lambda s: s.beside(s.v(), s.u()),
            lambda s: s.above(s.many("F", K, N), s.A()), lambda s: s.beside(s.each("f", N), s.v())],
    "interleave": [lambda s: node(s, "interleave", (s.v(), s.u(N)), (2 * N,), (1,)),
                   lambda s: node(s, "interleave", (s.A(), s.C()), (2 * M, N), (2,)),
                   lambda s: node(s, "interleave", (s.many("F", N), s.v()), (2 * N,), (1,))],
    "stack": [lambda s: s.loop(s.each("c"), "item"), lambda s: s.loop(s.each("f", N), "item"),
              lambda s: s.loop(s.each("f", N), "columns"), lambda s: s.loop(s.each("F", M, N), "family"),
              lambda s: s.loop(s.add(s.each("f", N), s.many("F", N)), "family")],
    "spread": [lambda s: b.spread(s.g, s.v(), s.i), lambda s: b.spread(s.g, s.many("F", N), s.i)],
    "expand": [lambda s: s.g.node("expand", (s.A(),), (), Type((M, N), (B,)))],
    "sumloop": [lambda s: s.total(s.each("f", N)), lambda s: s.total(s.add(s.each("f", N), s.many("F", N))),
                lambda s: s.total(s.prod(s.each("P", M, R), s.each("Q", R, N))),
                lambda s: s.total(s.times(s.each("c"), s.prod(s.each("P", M, R), s.each("Q", R, N)))),
                lambda s: s.total(s.prod(s.A(), s.each("Q", N, R))),
                lambda s: s.total(s.prod(s.each("P", M, R), s.tensor("Q", R, N)))],
    "blkdiag": [lambda s: b.blkdiag(s.g, s.many("F", R, K)),
                lambda s: b.blkdiag(s.g, s.tensor("F", R, K, family=(B, K)))],
    "reshape": [lambda s: b.reshape(s.g, s.A(), [N, M]), lambda s: b.reshape(s.g, s.many("F", R, K), [B * R * K]),
                lambda s: b.reshape(s.g, s.s(), [1])],
    "view": [lambda s: s.g.node("view", (s.A(),), (), Type((N,), (M,))),
             lambda s: s.g.node("view", (s.many("F", N),), (), Type((B, N)))],
    "column_of": [lambda s: node(s, "column_of", (s.v(),), (N, 1))],
    "entry": [lambda s: node(s, "entry", (s.s(),), (1, 1))],
    "svd": [lambda s: svd_part(s, 0), lambda s: svd_part(s, 2),
            *(lambda s, k=k, r=r, c=c: thin_svd(s, k, r, c) for k in range(3) for r in (1, R) for c in (0, B))],
    "qr": [lambda s: qr_part(s, 0), lambda s: qr_part(s, 1)],
    "out": [lambda s: svd_part(s, 1)],
    "iota": [lambda s: b.take(s.g, s.v(), s.index(), 1)],
    "column": [lambda s: b.take(s.g, s.u(), s.places(M, N)[1], 1)],
    "fold": [lambda s: b.fold(s.g, reflection(s, 0.5), s.eye(), s.i, "left"),
             lambda s: b.fold(s.g, reflection(s, 0.5), s.S(), s.i, "right"),
             lambda s: b.fold(s.g, reflection(s, s.each("c")), s.S(), s.i, "left"),
             lambda s: b.fold(s.g, reflection(s, s.s()), s.eye(), s.i, "right"),
             lambda s: b.fold(s.g, rotation(s), s.S(), s.i, "left"),
             lambda s: b.fold(s.g, rotation(s), s.S(), s.i, "right")],
    "detach": [lambda s: node(s, "detach", (s.A(),), (M, N))],
    "drop": [lambda s: node(s, "drop", (s.A(),), (M, N), (0.5,))],
    "put": [lambda s: b.put(s.g, s.v(), s.s(), s.num(1), None), lambda s: b.put(s.g, s.A(), s.s(), s.num(1), s.num(2)),
            lambda s: b.put(s.g, s.S(), s.each("c"), s.index(), s.index(1, 1)),
            lambda s: b.put(s.g, s.v(), s.each("c"), s.index(), None)],
    "maximum": [lambda s: node(s, "maximum", (s.A(), s.C()), (M, N)),
                lambda s: node(s, "maximum", (s.A(), s.s()), (M, N))],
    "minimum": [lambda s: node(s, "minimum", (s.A(), s.C()), (M, N)),
                lambda s: node(s, "minimum", (s.s(), s.A()), (M, N))],
    "join": [lambda s: s.total(s.prod(s.each("P", M, R), s.each("Q", R, N), s.v()))],
    "tree": [lambda s: index_set(s, "tree", (N,), 3)],
    "neighbours": [lambda s: index_set(s, "neighbours", (N,), 3)],
    "pairs": [lambda s: index_set(s, "pairs", (N,), 2)],
    "halves": [lambda s: index_set(s, "halves", (N, 2), 2)],
    "band": [lambda s: index_set(s, "band", (N, 1), 2)],
    "sample": [lambda s: index_set(s, "sample", (N, N, K, 1), 2)],
    "arange": [lambda s: b.take(s.g, s.v(), s.g.node("arange", (), (N,), Type((N,), kind="index")), 1)],
    "butterfly": [lambda s: b.take(s.g, s.v(), s.g.node("butterfly", (), (N, 2, 1), Type((N,), kind="index")), 1)],
    "largest": [lambda s: index_set(s, "largest", (K,), 2, (s.W,))],
    "argtop": [lambda s: b.take(s.g, s.v(), s.g.node("argtop", (s.tensor("q", N, op="weight"),), (K,),
                                                     Type((K,), kind="index")), 1)],
    "inverse_index": [lambda s: b.take(s.g, s.v(), s.inverse_order(s.order("i")), 1)],
}


def one_place(s: Site) -> Node:
    return s.g.node("sample", (), (M, N, 1, 2), Type((1, 2), kind="index"))


def outer_each(s: Site) -> Node:
    return b.outer(s.g, s.each("f", N), s.each("h", N))


def reflection(s: Site, c: Any) -> Node:
    """I + c u wᵀ in each step of the loop."""
    return s.add(s.eye(), s.times(c, b.outer(s.g, s.each("f", N), s.each("h", N))))


def rotation(s: Site) -> Node:
    """I with four entries at the coordinates of a binary tree."""
    tree = s.g.node("tree", (), (N,), Type((N - 1, 3), kind="index"))
    i, j = (s.g.node("column", (tree,), (s.i, k), Type((), (), (s.i,), kind="index")) for k in (0, 1))
    G = s.eye()
    for value, row, col in ((s.each("c"), i, i), (s.each("d"), i, j), (s.num(2), j, i)):
        G = b.put(s.g, G, value, row, col)
    return G


def index_set(s: Site, op: str, attrs: tuple[int, ...], arity: int, args: tuple[Node, ...] = ()) -> Node:
    """A matrix with numbers at the places of an index set."""
    from padp.compiler.kernels.dense import INDEX_SETS

    rows = attrs[0] if op == "largest" else len(INDEX_SETS[op](*attrs))
    places = s.g.node(op, args, attrs, Type((rows, arity), kind="index"))
    first_two = b.slice_(s.g, places, -1, 0, 2) if arity > 2 else places
    return node(s, "scatter", (s.tensor("c", rows), first_two), (M, N), (M, N))


def test_every_value_has_a_case() -> None:
    assert set(VALUE_CASES) == set(VALUES)


REGIME = Regime("train", TOKENS, True)


def planned(s: Site, root: Node, **more: Any) -> tuple[Planner, Low]:
    p = planners.planner(s.g, s.W, REGIME, has_bias=False, **more)
    return p, p.value(root)


def every_way(p: Planner, low: Low) -> Iterator[Low]:
    """A value in all the ways that its choices have, one choice changed at a time: each has to be right."""
    yield p.settle(low)[0][0]
    for choice in [c for c in order(low) if c.prim == "choice"]:
        for k in range(len(choice.args[0])):
            yield built_with(p.table, {**p.estimate.picks, id(choice): k}, low)


@pytest.mark.parametrize(("op", "number"), [(op, k) for op, made in VALUE_CASES.items() for k in range(len(made))])
def test_value_is_its_dense_meaning(op: str, number: int) -> None:
    s = Site()
    root = VALUE_CASES[op][number](s)
    x = s.values["x"] if "x" in s.values else None
    for low in every_way(*planned(s, root)):
        fast, slow = computed(s, low, x), literal(root, s.values)
        assert tuple(fast.shape[len(fast.shape) - len(low.type.shape):]) == tuple(low.type.shape), "the type lies"
        slopes_agree(fast.expand(slow.shape), slow, [v for v in s.values.values() if v.requires_grad])


KERNELS: Mapping[str, Made] = {
    "skew": lambda s: node(s, "skew", (s.many("o", 3),), (3, 3)), "diag": lambda s: s.diag(s.many("F", N)),
    "diagonal": lambda s: node(s, "diagonal", (s.many("F", M, N),), (N,)),
    "blkdiag_of": lambda s: node(s, "blkdiag_of", (s.A(), s.tensor("P", R, K)), (M + R, N + K)),
    "kron": lambda s: node(s, "kron", (s.tensor("P", R, K), s.many("F", R, K)), (R * R, K * K)),
    "kron_vectors": lambda s: node(s, "kron_vectors", (s.v(), s.many("F", N)), (N * N,)),
    "circulant": lambda s: node(s, "circulant", (s.many("F", N),), (N, N)),
    "scatter": lambda s: node(s, "scatter", (s.many("c", K), s.places(M, N)[0]), (M, N), (M, N), kind="real"),
    "tril": lambda s: node(s, "tril", (s.many("F", M, N),), (M, N)),
    "triu": lambda s: node(s, "triu", (s.A(),), (M, N)),
    "stril": lambda s: node(s, "stril", (s.A(),), (M, N)), "striu": lambda s: node(s, "striu", (s.A(),), (M, N)),
    "vec": lambda s: node(s, "vec", (s.many("F", M, N),), (M * N,)),
    "blocks": lambda s: node(s, "blocks", (s.A(),), (3, 2), (2, 2), family=(2, 2)),
    "assemble": lambda s: node(s, "assemble", (s.tensor("F", R, K, family=(2, 3)),), (2 * R, 3 * K), family=()),
    "tile": lambda s: node(s, "tile", (s.many("F", M, N),), (3 * M, N), (3, 2)),
    "repeat": lambda s: node(s, "repeat", (s.many("F", N),), (N,), (3, 1), family=(3 * B,)),
    "grouped": lambda s: node(s, "grouped", (s.many("F", N),), (N,), (4, 1), family=(4,)),
    "expm": lambda s: node(s, "expm", (s.many("F", K, K),), (K, K)),
    "trace": lambda s: node(s, "trace", (s.many("F", K, K),), ()),
    "fft": lambda s: node(s, "fft", (s.many("F", N),), (N,), kind="complex"),
    "ifft": lambda s: node(s, "Re", (node(s, "ifft", (s.v(),), (N,), kind="complex"),), (N,)),
    "fft2": lambda s: node(s, "Im", (node(s, "fft2", (s.A(),), (M, N), kind="complex"),), (M, N)),
    "ifft2": lambda s: node(s, "ifft2", (s.A(),), (M, N), kind="complex"),
    "Re": lambda s: node(s, "Re", (s.A(),), (M, N)), "Im": lambda s: node(s, "Im", (s.v(),), (N,)),
    "softmax": lambda s: node(s, "softmax", (s.many("F", N),), (N,)),
    "topk": lambda s: node(s, "topk", (s.many("F", N),), (N,), (2,)),
    "clamp": lambda s: node(s, "clamp", (s.A(), s.num(-1), s.s()), (M, N)),
    "perm": lambda s: s.prod(s.add(s.perm(s.order("i")), s.S()), s.v()),
    "orthonormal": lambda s: s.orthonormal(),
    "special_orthogonal": lambda s: node(s, "special_orthogonal", (s.S(),), (N, N)),
    "kron in loops": lambda s: node(s, "kron", (s.each("P", R, K), s.many("F", R, K)), (R * R, K * K)),
    "kron_vectors in loops": lambda s: node(s, "kron_vectors", (s.each("f", N), s.many("F", R)), (N * R,)),
    "blkdiag_of in loops": lambda s: node(s, "blkdiag_of", (s.each("P", R, K), s.many("F", K, R)), (R + K, K + R)),
    "clamp in loops": lambda s: node(s, "clamp", (s.many("F", N), s.each("c"), s.num(2)), (N,)),
    "clamp by family": lambda s: node(s, "clamp", (s.A(), s.num(-1), s.many("c")), (M, N)),
    "conj": lambda s: node(s, "Im", (s.t(node(s, "fft2", (s.A(),), (M, N), kind="complex")),), (N, M)),
}
"""What has no entry in ``VALUES``: a plan takes the dense meaning itself."""


def test_every_kernel_has_a_case() -> None:
    built = {name.removeprefix("k:") for name in PRIMS if name.startswith("k:")}
    known = {"svd", "qr", "inverse", "blkdiag", "maximum", "minimum"}  # called by entries of VALUES
    assert built - known == {name for name in KERNELS if name != "conj" and " " not in name}


@pytest.mark.parametrize("op", KERNELS)
def test_kernel_in_a_plan(op: str) -> None:
    s = Site()
    root = KERNELS[op](s)
    low = next(every_way(*planned(s, root)))
    slow = literal(root, s.values)
    assert tuple(slow.shape) == tuple(low.type.shape)
    slopes_agree(computed(s, low).expand(slow.shape), slow, [v for v in s.values.values() if v.requires_grad])


# ---------------------------------------------------------------- matrices applied

def spectrum(s: Site, places: Node, count: int) -> Node:
    """Re(iFFT₂(S)) of a sparse S."""
    S = node(s, "scatter", (s.tensor("c", count), places), (M, N), (M, N))
    return node(s, "Re", (node(s, "ifft2", (S,), (M, N), kind="complex"),), (M, N), kind="real")


MATRICES: Mapping[str, list[Made]] = {
    "weight": [lambda s: s.W],
    "eye": [lambda s: s.eye()],
    "scale": [lambda s: s.times(s.s(), s.A()), lambda s: s.times(3, s.t(s.A())),
              lambda s: s.times(s.s(), s.prod(s.A(), s.tensor("P", N, 1), s.tensor("Q", 1, N)))],
    "add": [lambda s: s.add(s.eye(), s.S()),
            lambda s: s.add(s.W, s.times(-1, s.prod(s.tensor("P", M, 1), s.tensor("Q", 1, N)))),
            lambda s: s.add(s.diag(s.v()), s.perm(s.order("i")))],
    "prod": [lambda s: s.prod(s.A(), s.S(), s.diag(s.v())), lambda s: s.prod(s.tensor("P", M, 1), s.tensor("Q", 1, N)),
             lambda s: butterflies(s, 0, 1), lambda s: butterflies(s, 0, 1, 2), lambda s: butterflies(s, 2, 0),
             lambda s: s.prod(butterflies(s, 2), turned_around(s), butterflies(s, 1))],
    "diag": [lambda s: s.diag(s.v())],
    "blkdiag": [lambda s: b.blkdiag(s.g, s.many("F", R, K)),
                lambda s: b.blkdiag(s.g, s.tensor("F", R, K, family=(2, 2))),
                lambda s: b.blkdiag(s.g, s.prod(s.many("F", R, K), s.many("G", K, R)))],
    "perm": [lambda s: s.perm(s.order("i"))],
    "Re": [lambda s: spectrum(s, s.places(M, N)[0], K), lambda s: node(s, "Re", (s.A(),), (M, N))],
    "t": [lambda s: s.t(spectrum(s, s.places(M, N)[0], K)), lambda s: s.t(s.A()),
          lambda s: s.t(node(s, "circulant", (s.v(),), (N, N))), lambda s: s.t(s.v()),
          lambda s: s.t(node(s, "scatter", (s.tensor("c", K), s.places(M, N)[0]), (M, N), (M, N)))],
    "outer": [lambda s: b.outer(s.g, s.u(), s.v())],
    "mul": [lambda s: s.mul(rank_one(s, "P", "Q"), s.times(s.s(), rank_one(s, "E", "F"))),
            lambda s: s.mul(rank_two(s, "P12", "Q12"), rank_two(s, "G12", "H12")), lambda s: s.mul(s.A(), s.C())],
    "inv": [lambda s: s.inv(s.S()), lambda s: s.inv(s.add(s.eye(), s.S()))],
    "cat": [lambda s: s.above(s.A(), s.tensor("P", K, N)), lambda s: s.beside(s.A(), s.tensor("P", M, K)),
            lambda s: s.above(s.eye(), s.S())],
    "kron": [lambda s: node(s, "kron", (s.tensor("P", R, K), s.A()), (R * M, K * N)),
             lambda s: node(s, "kron", (s.eye(R), s.tensor("P", R, K)), (R * R, R * K)),
             lambda s: node(s, "kron", (s.A(), s.prod(s.tensor("P", K, 1), s.tensor("Q", 1, R))), (M * K, N * R)),
             lambda s: node(s, "kron", (s.diag(s.v(K)), s.perm(s.order("i"))), (K * N, K * N))],
    "assemble": [lambda s, k=k: grid(s, node(s, "circulant", (s.tensor("c", k, family=(2, 3)),), (k, k)))
                 for k in (1, 4, 5)] + [
                 lambda s: grid(s, s.prod(s.tensor("P", 4, R, family=(2, 3)), s.tensor("Q", R, K, family=(2, 3)))),
                 lambda s: grid(s, s.prod(s.S("H", K), s.tensor("Q", K, K, family=(2, 3)))),
                 lambda s: grid(s, s.tensor("Q", R, K, family=(2, 3)))],
    "circulant": [lambda s: node(s, "circulant", (s.v(),), (N, N)), lambda s: node(s, "circulant", (s.v(5),), (5, 5))],
    "scatter": [lambda s: node(s, "scatter", (s.tensor("c", K), s.places(M, N)[0]), (M, N), (M, N)),
                lambda s: node(s, "scatter", (s.tensor("c", 1), one_place(s)),
                               (M, N), (M, N))],
    "sumloop": [lambda s: s.total(s.each("F", M, N)), lambda s: s.total(s.prod(s.each("P", M, R), s.each("Q", R, N))),
                lambda s: s.total(s.times(s.each("c"), s.prod(s.each("P", M, R), s.each("Q", R, N)))),
                lambda s: s.total(s.prod(s.diag(s.each("f", M)), s.A(), s.diag(s.each("h", N))))],
    "fold": [lambda s: b.fold(s.g, reflection(s, 0.5), s.S(), s.i, "left"),
             lambda s: b.fold(s.g, reflection(s, s.each("c")), s.eye(), s.i, "right"),
             lambda s: b.fold(s.g, rotation(s), s.eye(), s.i, "left"),
             lambda s: b.fold(s.g, rotation(s), s.S(), s.i, "right")],
    "skew": [lambda s: node(s, "skew", (s.tensor("o", 6),), (4, 4))],
}
"""Matrices by the operator on top; the last has no entry in ``APPLIED``, and is built."""


def test_every_application_has_a_case() -> None:
    assert set(APPLIED) == set(MATRICES) - {"skew"}


def vectors(s: Site, kind: str, n: int) -> tuple[Node, Tensor | None]:
    """What a matrix is applied to, as a node, and x where it depends on tokens."""
    match kind:
        case "vector":
            return s.v(n), None
        case "family":
            return s.many(f"F{n}", n), None
        case "loop":
            return s.each(f"f{n}", n), None
        case _:
            x = torch.randn(TOKENS, 3, n, generator=torch.Generator().manual_seed(9), dtype=torch.double)
            return s.g.node("input", (), ("x",), Type((n,))), x.requires_grad_(True)


@pytest.mark.parametrize("kind", ["vector", "tokens", "family", "loop"])
@pytest.mark.parametrize(("op", "number", "turned"), [
    (op, k, turned) for op, made in MATRICES.items() for k in range(len(made)) for turned in (False, True)
    if not (turned and MATRICES[op][k](Site()).type.row)])  # the transpose of a row is a vector
def test_applied_is_the_product(op: str, number: int, turned: bool, kind: str) -> None:
    s = Site()
    m = MATRICES[op][number](s)
    p = planners.planner(s.g, s.W, REGIME, has_bias=False)
    plain = m
    if turned:
        m = p.rules.t(m)
    if kind == "loop" and op in ("sumloop", "fold"):
        kind = "family"  # a vector that depends on the loop's own index has no meaning outside of it
    v, x = vectors(s, kind, int(m.type.item[1]))
    for low in every_way(p, p.apply(m, p.value(v))):
        dense = literal(plain, s.values)
        slow = (x if x is not None else s.values[str(v.attrs[0])]) @ (dense if turned else dense.mT)
        slopes_agree(computed(s, low, x), slow,
                     [t for t in s.values.values() if t.requires_grad] + ([] if x is None else [x]))


@pytest.mark.parametrize(("op", "number"), [(op, k) for op, made in MATRICES.items() for k in range(len(made))])
def test_a_family_of_matrices_or_a_product_with_a_matrix(op: str, number: int) -> None:
    """(M A) and (A M) for a dense A: a structured factor is applied to its rows or columns."""
    s = Site()
    m = MATRICES[op][number](s)
    rows, columns = (int(d) for d in m.type.item)
    for factors in ((m, s.tensor("right", columns, 3)), (s.tensor("left", 3, rows), m)):
        for low in every_way(*planned(s, s.prod(*factors))):
            slow = literal(factors[0], s.values) @ literal(factors[1], s.values)
            slopes_agree(computed(s, low), slow, [t for t in s.values.values() if t.requires_grad])
