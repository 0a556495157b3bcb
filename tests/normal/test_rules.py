"""Every rewrite rule of the normal form: both sides agree in float64; where its condition fails it stays away.

A case is a pattern and what it becomes. ``None`` means that the rule leaves the pattern alone. A rule without a case of
either kind fails ``test_every_rule_has_its_cases``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import sympy as sp
import torch

from padp.compiler.ir import build as b
from padp.compiler.ir.nodes import Axis, Node, Type
from padp.compiler.normal import decompositions, operator_rules
from padp.compiler.normal import grids as grid_rules
from padp.compiler.normal import normal_form as rules
from padp.compiler.normal import parts as part_rules
from tests.support.graphs import B, K, M, N, R, Site
from tests.support.literal import batched, literal


@dataclass(frozen=True)
class Case:
    """``pattern`` → ``becomes``; None: left alone."""

    pattern: Callable[[Site], Node]
    becomes: Callable[[Site], Node] | None
    entry: Callable[[Site, Node], Node] = lambda site, node: rules.simplify(site.g, node)[0]


def fires(pattern: Callable[[Site], Node], becomes: Callable[[Site], Node]) -> Case:
    return Case(pattern, becomes)


def stays(pattern: Callable[[Site], Node]) -> Case:
    return Case(pattern, None)


def through(pattern: Callable[[Site], Node], becomes: Callable[[Site], Node] | None) -> Case:
    """A case of the rules that a whole decomposition of W goes through."""
    return Case(pattern, becomes, lambda site, node: decompositions.around_base(rules.Simplifier(site.g), node, site.W))


def parted(pattern: Callable[[Site], Node], becomes: Callable[[Site], Node] | None) -> Case:
    """A case of the rule that puts a whole decomposition in the place of W."""
    return Case(pattern, becomes, lambda site, node: decompositions.by_parts(rules.Simplifier(site.g), node, site.W) or
                node)


def head(s: Site, k: int) -> Node:
    U, S, V = s.svd()
    return s.prod(s.cut(U, -1, 0, k), s.diag(s.cut(S, -1, 0, k)), s.cut(V, -2, 0, k))


def tail(s: Site, k: int, stop: int = N) -> Node:
    U, S, V = s.svd()
    return s.prod(s.cut(U, -1, k, stop), s.diag(s.cut(S, -1, k, stop)), s.cut(V, -2, k, stop))


def whole_svd(s: Site, rank: int | None = None) -> Node:
    U, S, V = s.svd(rank)
    return s.prod(U, s.diag(S), V)


def scattered(s: Site, places: Node, values: Node) -> Node:
    return s.g.node("scatter", (values, places), (M, N), Type((M, N)))


PAIRS = Type((N, 2), kind="index")


def diagonal(s: Site, rows: int = N) -> Node:
    """v at the places of a band that is no wider than the diagonal."""
    return s.g.node("scatter", (s.v(), s.g.node("band", (), (N, 0), PAIRS)), (rows, N), Type((rows, N)))


def sparse_sum(s: Site, first: int, second: int, m: int = M) -> Node:
    """Σ_{(i,j) ∈ Ω} U_{:,i} V_{j,:}, or with the columns of Ω in another order."""
    _, *ij = s.places(m, N)
    U, V = s.S("U", m), s.S("V", N)
    return s.total(b.outer(s.g, b.take(s.g, U, ij[first], 1), b.take(s.g, V, ij[second], 2)))


def sparse_form(s: Site) -> Node:
    omega, *_ = s.places(M, N)
    ones = b.full(s.g, 1, Type((K,)))
    return s.prod(s.S("U", M), scattered(s, omega, ones), s.S("V", N))


def columns_form(s: Site) -> Node:
    """The same sum by gathered columns, where both sides are indexed by the first column of Ω."""
    _, i, _ = s.places(N, N)
    return s.prod(s.loop(b.take(s.g, s.S("U", N), i, 1), "columns"), s.loop(b.take(s.g, s.S("V", N), i, 2), "item"))


def put_at(s: Site, op: str, attrs: tuple[int, ...], columns: tuple[int, int], value: int) -> Node:
    """I with a number written at the places of an index set."""
    rows = {"tree": N - 1, "neighbours": N - 1, "pairs": N // 2, "sample": K}[op]
    arity = 3 if op in ("tree", "neighbours") else 2
    places = s.g.node(op, (), attrs, Type((rows, arity), kind="index"))
    axis = Axis(77, rows)
    i, j = (s.g.node("column", (places,), (axis, c), Type((), (), (axis,), kind="index")) for c in columns)
    return b.put(s.g, s.eye(), s.num(value), i, j)


def cells(s: Site, body: Node) -> Node:
    """The matrix whose block (i, j) is ``body`` in these steps of the two loops."""
    return whole(s, b.stack(s.g, b.stack(s.g, body, s.j, "family"), s.i, "family"))


def whole(s: Site, blocks: Node) -> Node:
    """A grid of blocks as one matrix."""
    (a, c), (k, q) = blocks.type.family, blocks.type.item
    return s.g.node("assemble", (blocks,), (), Type((a * k, c * q)))


def at_i(s: Site, name: str, *item: int) -> Node:
    return s.tensor(name, *item, loops=(s.i,))


def at_j(s: Site, name: str, *item: int) -> Node:
    return s.tensor(name, *item, loops=(s.j,))


def at_both(s: Site, name: str, *item: int) -> Node:
    return s.tensor(name, *item, loops=(s.i, s.j))


def beneath(s: Site, a: Node, axis: Axis) -> Node:
    """[A₁; A₂; …]."""
    return b.reshape(s.g, b.stack(s.g, a, axis, "family"), [axis.size * a.type.item[0], a.type.item[1]])


def beside(s: Site, a: Node, axis: Axis) -> Node:
    """[B₁, B₂, …]."""
    family = s.t(b.stack(s.g, a, axis, "family"))
    return s.t(b.reshape(s.g, family, [axis.size * a.type.item[1], a.type.item[0]]))


def block(s: Site, whole: Node) -> Node:
    """F_ij of a grid."""
    return b.take(s.g, b.take(s.g, whole, s.index(), 4), s.other(), 3)


def ones_times(s: Site, rows: int, columns: int, a: Node) -> Node:
    item = (rows * a.type.item[0], columns * a.type.item[1])
    return s.g.node("kron", (s.ones(rows, columns), a), (), Type(item))


CASES: dict[str, list[Case]] = {
    "add": [
        fires(lambda s: s.add(s.A(), s.zero(M, N)), lambda s: s.A()),
        fires(lambda s: s.add(s.times(2, s.A()), s.times(3, s.A())), lambda s: s.times(5, s.A())),
        fires(lambda s: s.add(s.A(), s.times(-1, s.A())), lambda s: s.zero(M, N)),
        fires(lambda s: s.add(s.add(s.A(), s.C()), s.A()), lambda s: s.add(s.times(2, s.A()), s.C())),
        fires(lambda s: s.add(s.num(2), s.num(3)), lambda s: s.num(5)),
        stays(lambda s: s.add(s.A(), s.C())),
    ],
    "_factor": [
        fires(lambda s: s.add(s.prod(s.A(), s.S(), s.v()), s.prod(s.A(), s.S("T"), s.v())),
              lambda s: s.prod(s.A(), s.add(s.S(), s.S("T")), s.v())),
        fires(lambda s: s.add(s.times(2, s.prod(s.A(), s.S(), s.v())), s.times(-1, s.prod(s.A(), s.S("T"), s.v()))),
              lambda s: s.prod(s.A(), s.add(s.times(2, s.S()), s.times(-1, s.S("T"))), s.v())),
        fires(lambda s: s.add(s.prod(s.A(), s.S("B")), s.prod(s.A(), s.S(), s.S("B"))),
              lambda s: s.prod(s.A(), s.add(s.eye(), s.S()), s.S("B"))),
        fires(lambda s: s.add(s.prod(s.W, s.u(N)), s.prod(s.W, s.v())), lambda s: s.prod(s.W, s.add(s.u(N), s.v()))),
        fires(lambda s: s.add(s.prod(s.W, s.S()), s.prod(s.W, s.S("T"))),
              lambda s: s.prod(s.W, s.add(s.S(), s.S("T")))),
        stays(lambda s: s.add(s.prod(s.A(), s.u(N)), s.prod(s.A(), s.v()))),
        stays(lambda s: s.add(s.prod(s.A(), s.S(), s.v()), s.prod(s.C(), s.S("T"), s.v()))),
    ],
    "scale": [
        fires(lambda s: s.times(1, s.A()), lambda s: s.A()),
        fires(lambda s: s.times(0, s.A()), lambda s: s.zero(M, N)),
        fires(lambda s: s.times(s.s(), s.zero(M, N)), lambda s: s.zero(M, N)),
        fires(lambda s: s.times(2, s.times(3, s.A())), lambda s: s.times(6, s.A())),
        fires(lambda s: s.times(2, s.num(3)), lambda s: s.num(6)),
        fires(lambda s: s.times(2, s.ones(N)), lambda s: b.full(s.g, 2, Type((N,)))),
        fires(lambda s: s.times(2, s.add(s.A(), s.C())), lambda s: s.add(s.times(2, s.A()), s.times(2, s.C()))),
        fires(lambda s: s.times(s.s(), s.times(3, s.A())), lambda s: s.times(3, s.times(s.s(), s.A()))),
        fires(lambda s: s.times(s.times(3, s.s()), s.A()), lambda s: s.times(3, s.times(s.s(), s.A()))),
        fires(lambda s: s.times(s.div(s.num(3), s.s()), s.A()),
              lambda s: s.times(3, s.times(s.div(s.num(1), s.s()), s.A()))),
        fires(lambda s: s.times(s.s(), s.num(1)), lambda s: s.s()),
        stays(lambda s: s.times(s.s(), s.A())),
        stays(lambda s: s.times(s.s(), s.add(s.A(), s.C()))),
    ],
    "prod": [
        fires(lambda s: s.prod(s.A(), s.eye()), lambda s: s.A()),
        fires(lambda s: s.prod(s.eye(M), s.A(), s.v()), lambda s: s.prod(s.A(), s.v())),
        fires(lambda s: s.prod(s.A(), s.zero(N, N)), lambda s: s.zero(M, N)),
        fires(lambda s: s.prod(s.A(), s.zero(N)), lambda s: s.zero(M)),
        fires(lambda s: s.prod(s.A(), s.times(s.s(), s.S())), lambda s: s.times(s.s(), s.prod(s.A(), s.S()))),
        fires(lambda s: s.prod(s.times(2, s.A()), s.times(3, s.v())), lambda s: s.times(6, s.prod(s.A(), s.v()))),
        fires(lambda s: s.prod(s.A(), s.diag(s.u(N)), s.diag(s.v())),
              lambda s: s.prod(s.A(), s.diag(s.mul(s.u(N), s.v())))),
        fires(lambda s: s.prod(s.diag(s.u(N)), s.v()), lambda s: s.mul(s.u(N), s.v())),
        fires(lambda s: s.prod(s.A(), s.inv(s.S()), s.S()), lambda s: s.A()),
        stays(lambda s: s.prod(s.A(), s.S())),
        stays(lambda s: s.prod(s.diag(s.u()), s.A())),
    ],
    "_pair": [
        fires(lambda s: s.prod(s.diag(s.u(N)), s.diag(s.v())), lambda s: s.diag(s.mul(s.u(N), s.v()))),
        fires(lambda s: s.prod(s.inv(s.S()), s.S()), lambda s: s.eye()),
        fires(lambda s: s.prod(s.S(), s.inv(s.S())), lambda s: s.eye()),
        fires(lambda s: s.prod(s.perm(s.order("i")), s.perm(s.order("j"))),
              lambda s: s.perm(b.take(s.g, s.order("j"), s.order("i"), 1))),
        fires(lambda s: s.prod(s.perm(s.order("i")), s.perm(s.inverse_order(s.order("i")))), lambda s: s.eye()),
        fires(lambda s: s.prod(b.blkdiag(s.g, s.many("F", R, K)), b.blkdiag(s.g, s.many("G", K, R))),
              lambda s: b.blkdiag(s.g, s.prod(s.many("F", R, K), s.many("G", K, R)))),
        fires(lambda s: s.prod(s.orthonormal(), s.t(s.orthonormal())), lambda s: s.eye(R)),
        stays(lambda s: s.prod(s.t(s.orthonormal()), s.orthonormal())),
        stays(lambda s: s.prod(s.S(), s.t(s.S()))),
        stays(lambda s: s.prod(s.S(), s.inv(s.S("T")))),
        stays(lambda s: s.prod(b.blkdiag(s.g, s.many("F", R, K)),
                               b.blkdiag(s.g, s.tensor("G", R, K, family=(K,))))),
    ],
    "inverse_perm": [
        fires(lambda s: s.t(s.perm(s.order("i"))), lambda s: s.perm(s.inverse_order(s.order("i")))),
        fires(lambda s: s.inv(s.perm(s.order("i"))), lambda s: s.perm(s.inverse_order(s.order("i")))),
        fires(lambda s: s.t(s.perm(s.inverse_order(s.order("i")))), lambda s: s.perm(s.order("i"))),
    ],
    "mul": [
        fires(lambda s: s.mul(s.ones(M, N), s.A()), lambda s: s.A()),
        fires(lambda s: s.mul(s.A(), s.ones(M, N)), lambda s: s.A()),
        fires(lambda s: s.mul(s.zero(M, N), s.A()), lambda s: s.zero(M, N)),
        fires(lambda s: s.mul(s.times(2, s.A()), s.C()), lambda s: s.times(2, s.mul(s.A(), s.C()))),
        fires(lambda s: s.mul(s.A(), s.times(2, s.C())), lambda s: s.times(2, s.mul(s.A(), s.C()))),
        fires(lambda s: s.mul(s.div(s.num(1), s.v()), s.v()), lambda s: s.ones(N)),
        stays(lambda s: s.mul(s.A(), s.C())),
        stays(lambda s: s.mul(s.eye(), s.S())),
        stays(lambda s: s.mul(s.div(s.num(2), s.v()), s.v())),
        stays(lambda s: s.mul(s.over(s.num(1), s.v()), s.v())),
    ],
    "_outer_scales": [
        fires(lambda s: s.mul(b.outer(s.g, s.u(), s.v()), s.A()),
              lambda s: s.prod(s.diag(s.u()), s.A(), s.diag(s.v()))),
        fires(lambda s: s.mul(s.A(), s.times(s.s(), b.outer(s.g, s.u(), s.v()))),
              lambda s: s.times(s.s(), s.prod(s.diag(s.u()), s.A(), s.diag(s.v())))),
        fires(lambda s: s.mul(s.add(b.outer(s.g, s.u(), s.v()),
                                    s.times(3, b.outer(s.g, s.u(), s.tensor("w", N)))), s.W),
              lambda s: s.add(s.prod(s.diag(s.u()), s.W, s.diag(s.v())),
                              s.times(3, s.prod(s.diag(s.u()), s.W, s.diag(s.tensor("w", N)))))),
        fires(lambda s: s.mul(s.add(s.ones(M, N), b.outer(s.g, s.u(), s.v())), s.W),
              lambda s: s.add(s.W, s.prod(s.diag(s.u()), s.W, s.diag(s.v())))),
        fires(lambda s: s.mul(b.outer(s.g, s.u(), s.v()), b.outer(s.g, s.tensor("p", M), s.tensor("q", N))),
              lambda s: b.outer(s.g, s.mul(s.u(), s.tensor("p", M)), s.mul(s.v(), s.tensor("q", N)))),
        fires(lambda s: s.mul(b.outer(s.g, s.u(), s.v()), s.many("F", M, N)),
              lambda s: s.prod(s.diag(s.u()), s.many("F", M, N), s.diag(s.v()))),
        fires(lambda s: s.mul(b.full(s.g, 3, Type((M, N))), s.A()), lambda s: s.times(3, s.A())),
        stays(lambda s: s.mul(s.add(s.C(), b.outer(s.g, s.u(), s.v())), s.A())),
        stays(lambda s: s.mul(b.outer(s.g, s.each("f", M), s.v()), s.A())),
    ],
    "diag": [
        fires(lambda s: s.diag(s.ones(N)), lambda s: s.eye()),
        fires(lambda s: s.diag(s.zero(N)), lambda s: s.zero(N, N)),
        stays(lambda s: s.diag(s.v())),
        stays(lambda s: s.diag(b.full(s.g, 2, Type((N,))))),
    ],
    "_whole_svd": [
        fires(whole_svd, lambda s: s.W),
        fires(lambda s: s.prod(whole_svd(s), s.v()), lambda s: s.prod(s.W, s.v())),
        fires(lambda s: tail(s, 1), lambda s: s.add(s.W, s.times(-1, head(s, 1)))),
        stays(lambda s: head(s, 2)),
        stays(lambda s: tail(s, 1, 3)),
        stays(lambda s: whole_svd(s, 2)),
        stays(lambda s: s.prod(s.svd()[0], s.diag(s.v()), s.svd()[2])),
    ],
    "push_diag": [
        fires(lambda s: s.prod(s.diag(s.v()), s.above(s.tensor("P", 1, K), s.tensor("Q", K, K))),
              lambda s: s.above(s.prod(s.diag(s.cut(s.v(), -1, 0, 1)), s.tensor("P", 1, K)),
                                s.prod(s.diag(s.cut(s.v(), -1, 1, N)), s.tensor("Q", K, K)))),
        fires(lambda s: s.prod(s.beside(s.tensor("P", K, 1), s.tensor("Q", K, K)), s.diag(s.v())),
              lambda s: s.beside(s.prod(s.tensor("P", K, 1), s.diag(s.cut(s.v(), -1, 0, 1))),
                                 s.prod(s.tensor("Q", K, K), s.diag(s.cut(s.v(), -1, 1, N))))),
        stays(lambda s: s.prod(s.diag(s.v()), s.beside(s.tensor("P", N, 1), s.tensor("Q", N, K)))),
    ],
    "cut": [
        fires(lambda s: s.prod(s.beside(s.tensor("P", K, 1), s.tensor("Q", K, K)),
                               s.above(s.tensor("E", 1, R), s.tensor("F", K, R))),
              lambda s: s.add(s.prod(s.tensor("P", K, 1), s.tensor("E", 1, R)),
                              s.prod(s.tensor("Q", K, K), s.tensor("F", K, R)))),
        fires(lambda s: s.prod(s.svd()[0], s.above(s.tensor("E", 1, R), s.tensor("F", K, R))),
              lambda s: s.add(s.prod(s.cut(s.svd()[0], -1, 0, 1), s.tensor("E", 1, R)),
                              s.prod(s.cut(s.svd()[0], -1, 1, N), s.tensor("F", K, R)))),
        fires(lambda s: s.prod(s.tensor("P", R, N), s.diag(s.beside(s.u(1), s.u(K))), s.svd()[2]),
              lambda s: s.add(s.prod(s.cut(s.tensor("P", R, N), -1, 0, 1), s.diag(s.u(1)),
                                     s.cut(s.svd()[2], -2, 0, 1)),
                              s.prod(s.cut(s.tensor("P", R, N), -1, 1, N), s.diag(s.u(K)),
                                     s.cut(s.svd()[2], -2, 1, N)))),
        stays(lambda s: s.prod(s.S(), s.above(s.tensor("E", 1, R), s.tensor("F", K, R)))),
        stays(lambda s: s.prod(s.S(), s.diag(s.beside(s.u(1), s.u(K))), s.S("T"))),
    ],
    "zero_parts": [
        fires(lambda s: s.prod(s.above(s.tensor("B", 2, N), s.zero(M - 2, N)), s.S(), s.v()),
              lambda s: s.beside(s.prod(s.tensor("B", 2, N), s.S(), s.v()), s.zero(M - 2))),
        fires(lambda s: s.prod(s.above(s.tensor("B", 2, N), s.zero(M - 2, N)), s.S()),
              lambda s: s.above(s.prod(s.tensor("B", 2, N), s.S()), s.zero(M - 2, N))),
        fires(lambda s: s.prod(s.beside(s.zero(M, 1), s.tensor("E", M, 2), s.zero(M, 1)), s.v()),
              lambda s: s.prod(s.tensor("E", M, 2), s.cut(s.v(), -1, 1, 3))),
        fires(lambda s: s.prod(s.W, s.above(s.zero(1, N), s.tensor("F", N - 1, N)), s.v()),
              lambda s: s.prod(s.cut(s.W, -1, 1, N), s.tensor("F", N - 1, N), s.v())),
        stays(lambda s: s.prod(s.above(s.tensor("B", 2, N), s.tensor("D", M - 2, N)), s.v())),
    ],
    "slice": [
        fires(lambda s: s.cut(s.above(s.tensor("P", 1, N), s.tensor("Q", K, N)), -2, 0, 1),
              lambda s: s.tensor("P", 1, N)),
        fires(lambda s: s.cut(s.above(s.tensor("P", 1, N), s.tensor("Q", K, N), s.tensor("E", 2, N)), -2, 1, 6),
              lambda s: s.above(s.tensor("Q", K, N), s.tensor("E", 2, N))),
        fires(lambda s: s.cut(s.cut(s.A(), -2, 1, 5), -2, 1, 3), lambda s: s.cut(s.A(), -2, 2, 4)),
        fires(lambda s: s.cut(s.prod(s.A(), s.S()), -2, 1, 3), lambda s: s.prod(s.cut(s.A(), -2, 1, 3), s.S())),
        fires(lambda s: s.cut(s.prod(s.A(), s.S()), -1, 1, 3), lambda s: s.prod(s.A(), s.cut(s.S(), -1, 1, 3))),
        fires(lambda s: s.cut(s.ones(M, N), -1, 1, 3), lambda s: s.ones(M, 2)),
        stays(lambda s: s.cut(s.above(s.tensor("P", 1, N), s.tensor("Q", K, N)), -2, 0, 2)),
        stays(lambda s: s.cut(s.above(s.tensor("P", 1, N), s.tensor("Q", K, N)), -1, 0, 2)),
        stays(lambda s: s.cut(s.cut(s.A(), -2, 1, 5), -1, 1, 3)),
        stays(lambda s: b.slice_(s.g, s.prod(s.A(), s.S()), -2, 0, M, 2)),
    ],
    "t": [
        fires(lambda s: s.t(s.diag(s.v())), lambda s: s.diag(s.v())),
        fires(lambda s: s.t(s.eye()), lambda s: s.eye()),
        fires(lambda s: s.t(s.t(s.A())), lambda s: s.A()),
        fires(lambda s: s.t(s.ones(M, N)), lambda s: s.ones(N, M)),
        fires(lambda s: s.t(s.prod(s.A(), s.S())), lambda s: s.prod(s.t(s.S()), s.t(s.A()))),
        fires(lambda s: s.t(s.add(s.A(), s.C())), lambda s: s.add(s.t(s.A()), s.t(s.C()))),
        fires(lambda s: s.t(s.times(s.s(), s.A())), lambda s: s.times(s.s(), s.t(s.A()))),
        fires(lambda s: s.t(s.mul(s.A(), s.C())), lambda s: s.mul(s.t(s.A()), s.t(s.C()))),
        fires(lambda s: s.t(s.g.node("skew", (s.v(K),), (), Type((K, K)))),
              lambda s: s.times(-1, s.g.node("skew", (s.v(K),), (), Type((K, K))))),
        fires(lambda s: s.t(s.inv(s.S())), lambda s: s.inv(s.t(s.S()))),
        fires(lambda s: s.t(b.blkdiag(s.g, s.many("F", R, K))), lambda s: b.blkdiag(s.g, s.t(s.many("F", R, K)))),
        fires(lambda s: s.t(b.outer(s.g, s.u(), s.v())), lambda s: b.outer(s.g, s.v(), s.u())),
        fires(lambda s: s.t(s.above(s.A(), s.tensor("P", 1, N))),
              lambda s: s.beside(s.t(s.A()), s.t(s.tensor("P", 1, N)))),
        fires(lambda s: s.t(s.cut(s.A(), -2, 1, 3)), lambda s: s.cut(s.t(s.A()), -1, 1, 3)),
        fires(lambda s: s.t(b.slice_(s.g, s.A(), -1, 0, N, 2)), lambda s: b.slice_(s.g, s.t(s.A()), -2, 0, N, 2)),
        fires(lambda s: s.t(b.fold(s.g, s.each("H", N, N), s.S(), s.i, "left")),
              lambda s: b.fold(s.g, s.t(s.each("H", N, N)), s.t(s.S()), s.i, "right")),
        fires(lambda s: s.t(b.put(s.g, s.S(), s.s(), s.num(1), s.num(2))),
              lambda s: b.put(s.g, s.t(s.S()), s.s(), s.num(2), s.num(1))),
        fires(lambda s: s.t(s.total(s.mul(s.each("F", M, N), s.each("G", M, N)))),
              lambda s: s.total(s.mul(s.t(s.each("F", M, N)), s.t(s.each("G", M, N))))),
        fires(lambda s: s.t(s.g.node("kron", (s.tensor("E", R, K), s.A()), (), Type((R * M, K * N)))),
              lambda s: s.g.node("kron", (s.t(s.tensor("E", R, K)), s.t(s.A())), (), Type((K * N, R * M)))),
        fires(lambda s: s.t(s.g.node("detach", (s.A(),), (), s.A().type)),
              lambda s: s.t(s.g.node("detach", (s.A(),), (), s.A().type))),
        stays(lambda s: s.t(s.A())),
        stays(lambda s: s.t(s.v())),
        stays(lambda s: s.t(s.g.node("circulant", (s.v(),), (), Type((N, N))))),
    ],
    "inv": [
        fires(lambda s: s.inv(s.eye()), lambda s: s.eye()),
        fires(lambda s: s.inv(s.inv(s.S())), lambda s: s.S()),
        fires(lambda s: s.inv(s.diag(s.v())), lambda s: s.diag(s.div(s.num(1), s.v()))),
        fires(lambda s: s.inv(b.blkdiag(s.g, s.many("F", K, K))), lambda s: b.blkdiag(s.g, s.inv(s.many("F", K, K)))),
        fires(lambda s: s.inv(s.times(4, s.S())), lambda s: s.times(sp.Rational(1, 4), s.inv(s.S()))),
        stays(lambda s: s.inv(s.S())),
        stays(lambda s: s.inv(s.times(s.s(), s.S()))),
    ],
    "detach": [
        fires(lambda s: s.g.node("detach", (s.prod(s.A(), s.v()),), (), Type((M,))),
              lambda s: s.prod(s.g.node("detach", (s.A(),), (), s.A().type),
                               s.g.node("detach", (s.v(),), (), s.v().type))),
        fires(lambda s: s.g.node("detach", (s.prod(s.W, s.v()),), (), Type((M,))),
              lambda s: s.prod(s.W, s.g.node("detach", (s.v(),), (), s.v().type))),
        fires(lambda s: s.g.node("detach", (s.W,), (), s.W.type), lambda s: s.W),
        stays(lambda s: s.g.node("detach", (s.A(),), (), s.A().type)),
    ],
    "sumloop": [
        fires(lambda s: s.total(s.times(s.s(), s.each("F", M, N))),
              lambda s: s.times(s.s(), s.total(s.each("F", M, N)))),
        fires(lambda s: s.total(s.add(s.each("F", M, N), s.each("G", M, N))),
              lambda s: s.add(s.total(s.each("F", M, N)), s.total(s.each("G", M, N)))),
        fires(lambda s: s.total(s.add(s.each("F", M, N), s.A())),
              lambda s: s.add(s.total(s.each("F", M, N)), s.times(K, s.A()))),
        fires(lambda s: s.total(b.outer(s.g, s.each("f", M), s.each("h", N))),
              lambda s: s.prod(s.loop(s.each("f", M), "columns"), s.loop(s.each("h", N), "item"))),
        fires(lambda s: s.total(s.times(s.each("c"), b.outer(s.g, s.each("f", M), s.each("h", N)))),
              lambda s: s.prod(s.loop(s.each("f", M), "columns"), s.diag(s.loop(s.each("c"), "item")),
                               s.loop(s.each("h", N), "item"))),
        stays(lambda s: s.total(s.each("F", M, N))),
        stays(lambda s: s.total(s.times(s.each("c"), s.each("F", M, N)))),
        stays(lambda s: s.total(s.prod(s.each("F", M, N), s.each("H", N, N)))),
    ],
    "_sparse": [
        fires(lambda s: sparse_sum(s, 0, 1), sparse_form),
        fires(lambda s: sparse_sum(s, 0, 0, N), columns_form),
        stays(lambda s: s.total(s.mul(s.each("F", M, N), s.each("G", M, N)))),
    ],
    "_div": [
        fires(lambda s: s.div(s.A(), s.num(1)), lambda s: s.A()),
        fires(lambda s: s.div(s.zero(N), s.num(3)), lambda s: s.zero(N)),
        fires(lambda s: s.div(s.num(3), s.num(4)), lambda s: s.num(sp.Rational(3, 4))),
        fires(lambda s: s.div(s.num(3), b.full(s.g, 4, Type((N,)))),
              lambda s: b.full(s.g, sp.Rational(3, 4), Type((N,)))),
        fires(lambda s: s.over(s.v(), s.zero(N)), lambda s: s.zero(N)),
        stays(lambda s: s.div(s.v(), s.zero(N))),
        stays(lambda s: s.over(b.sumsq(s.g, s.A(), "row"), b.sumsq(s.g, s.A(), "row"))),
        stays(lambda s: s.div(s.v(), s.v())),
        stays(lambda s: s.div(s.zero(N), s.v())),
        stays(lambda s: s.div(s.num(1), s.v())),
    ],
    "_pow": [
        fires(lambda s: b.pow_(s.g, s.point("sqrt", b.sumsq(s.g, s.A(), "row")), 2),
              lambda s: b.sumsq(s.g, s.A(), "row")),
        fires(lambda s: b.pow_(s.g, s.num(3), 2), lambda s: s.num(9)),
        fires(lambda s: b.pow_(s.g, b.full(s.g, 3, Type((N,))), 2), lambda s: b.full(s.g, 9, Type((N,)))),
        stays(lambda s: b.pow_(s.g, s.v(), 2)),
        stays(lambda s: b.pow_(s.g, s.point("sqrt", b.sumsq(s.g, s.A(), "row")), 3)),
    ],
    "_point": [
        fires(lambda s: s.point("cos", s.zero(N)), lambda s: s.ones(N)),
        fires(lambda s: s.point("exp", s.num(0)), lambda s: s.num(1)),
        fires(lambda s: s.point("sqrt", b.pow_(s.g, s.v(), 2)), lambda s: s.point("abs", s.v())),
        stays(lambda s: s.point("cos", s.v())),
        stays(lambda s: s.point("cos", s.ones(N))),
    ],
    "_skew": [
        fires(lambda s: s.g.node("skew", (s.zero(3),), (), Type((3, 3))), lambda s: s.zero(3, 3)),
        stays(lambda s: s.g.node("skew", (s.v(3),), (), Type((3, 3)))),
    ],
    "_blkdiag": [
        fires(lambda s: b.blkdiag(s.g, b.zeros(s.g, Type((R, K), (B,)))), lambda s: s.zero(B * R, B * K)),
        fires(lambda s: b.blkdiag(s.g, s.add(s.eye(K), b.zeros(s.g, Type((K, K), (B,))))), lambda s: s.eye(B * K)),
        fires(lambda s: b.blkdiag(s.g, s.add(s.S(n=K), b.zeros(s.g, Type((K, K), (B,))))),
              lambda s: b.blkdiag(s.g, s.g.node("expand", (s.S(n=K),), (), Type((K, K), (B,))))),
        stays(lambda s: b.blkdiag(s.g, s.many("F", R, K))),
    ],
    "_put": [
        fires(lambda s: b.put(s.g, s.eye(), s.num(1), s.index(), s.index()), lambda s: s.eye()),
        fires(lambda s: put_at(s, "tree", (N,), (0, 1), 0), lambda s: s.eye()),
        fires(lambda s: put_at(s, "pairs", (N,), (1, 0), 0), lambda s: s.eye()),
        stays(lambda s: put_at(s, "tree", (N,), (0, 2), 0)),
        stays(lambda s: put_at(s, "sample", (N, N, K, 1), (0, 1), 0)),
        fires(lambda s: b.put(s.g, s.eye(), s.num(1), s.num(2), s.num(2)), lambda s: s.eye()),
        stays(lambda s: b.put(s.g, s.eye(), s.s(), s.num(2), s.num(2))),
        stays(lambda s: b.put(s.g, s.eye(), s.num(1), s.num(1), s.num(2))),
        stays(lambda s: b.put(s.g, s.eye(), s.num(0), s.num(2), s.num(2))),
        stays(lambda s: b.put(s.g, s.S(), s.num(1), s.num(2), s.num(2))),
    ],
    "_fold": [
        fires(lambda s: b.fold(s.g, s.eye(), s.S(), s.i, "left"), lambda s: s.S()),
        stays(lambda s: b.fold(s.g, s.each("H", N, N), s.S(), s.i, "left")),
    ],
    "_with_rows": [
        fires(lambda s: s.above(s.tensor("B", 0, N), s.A()), lambda s: s.A()),
        stays(lambda s: s.above(s.tensor("B", 1, N), s.A())),
    ],
    "_cat": [
        fires(lambda s: s.above(s.zero(2, N), s.zero(M - 2, N)), lambda s: s.zero(M, N)),
        fires(lambda s: s.above(s.cut(s.A(), -2, 0, 2), s.cut(s.A(), -2, 2, M)), lambda s: s.A()),
        stays(lambda s: s.above(s.cut(s.A(), -2, 2, M), s.cut(s.A(), -2, 0, 2))),
        stays(lambda s: s.above(s.cut(s.A(), -2, 0, 2), s.cut(s.A(), -2, 3, M))),
        stays(lambda s: s.above(s.cut(s.A(), -2, 0, 2), s.cut(s.C(), -2, 2, M))),
    ],
    "_around_rows": [
        fires(lambda s: s.above(s.add(s.cut(s.W, -2, 0, 2), s.tensor("B", 2, N)), s.cut(s.W, -2, 2, M)),
              lambda s: s.add(s.W, s.above(s.tensor("B", 2, N), s.zero(M - 2, N)))),
        fires(lambda s: s.above(s.cut(s.W, -2, 0, 1), s.add(s.tensor("B", 2, N), s.cut(s.W, -2, 1, 3)),
                                s.cut(s.W, -2, 3, M)),
              lambda s: s.add(s.W, s.above(s.zero(1, N), s.tensor("B", 2, N), s.zero(M - 3, N)))),
        fires(lambda s: s.beside(s.cut(s.W, -1, 0, 1), s.add(s.cut(s.W, -1, 1, N), s.tensor("E", M, N - 1))),
              lambda s: s.add(s.W, s.beside(s.zero(M, 1), s.tensor("E", M, N - 1)))),
        stays(lambda s: s.above(s.add(s.cut(s.W, -2, 2, 4), s.tensor("B", 2, N)), s.cut(s.W, -2, 2, M))),
        stays(lambda s: s.above(s.add(s.cut(s.W, -2, 0, 2), s.tensor("B", 2, N)), s.cut(s.A(), -2, 2, M))),
        stays(lambda s: s.above(s.tensor("B", 2, N), s.cut(s.W, -2, 2, M))),
        stays(lambda s: s.above(s.add(s.cut(s.svd()[2], -2, 0, 2), s.tensor("B", 2, N)), s.cut(s.svd()[2], -2, 2, N))),
    ],
    "_take": [
        fires(lambda s: b.take(s.g, s.ones(M, N), s.num(1), 2), lambda s: s.ones(N)),
        stays(lambda s: b.take(s.g, s.A(), s.num(1), 2)),
    ],
    "_stack": [
        fires(lambda s: s.loop(b.take(s.g, s.tensor("P", K, N), s.index(), 2), "item"), lambda s: s.tensor("P", K, N)),
        fires(lambda s: s.loop(b.take(s.g, s.tensor("P", N, K), s.index(), 1), "columns"),
              lambda s: s.tensor("P", N, K)),
        fires(lambda s: s.loop(b.full(s.g, 2, Type((N,), (), (s.i,))), "item"), lambda s: b.full(s.g, 2, Type((K, N)))),
        stays(lambda s: s.loop(b.take(s.g, s.tensor("P", N, K), s.index(), 1), "item")),
        stays(lambda s: s.loop(b.take(s.g, s.tensor("P", K + 1, N), s.index(1, 1), 2), "item")),
        stays(lambda s: s.loop(s.each("f", N), "item")),
    ],
    "_view": [
        fires(lambda s: s.g.node("view", (s.g.node("view", (s.A(),), (), Type((N,), (M,))),), (), Type((M, N))),
              lambda s: s.A()),
        fires(lambda s: s.g.node("view", (s.ones(M, N),), (), Type((N,), (M,))),
              lambda s: b.full(s.g, 1, Type((N,), (M,)))),
        stays(lambda s: s.g.node("view", (s.A(),), (), Type((N,), (M,)))),
    ],
    "for_each": [
        fires(lambda s: s.g.node("view", (s.add(s.v(), b.zeros(s.g, Type((N,), (B,)))),), (), Type((B, N))),
              lambda s: s.g.node("view", (s.g.node("expand", (s.v(),), (), Type((N,), (B,))),), (), Type((B, N)))),
        stays(lambda s: s.g.node("view", (s.many("F", N),), (), Type((B, N)))),
    ],
    "_sumsq": [
        fires(lambda s: b.sumsq(s.g, s.zero(M, N), "row"), lambda s: s.zero(M)),
        fires(lambda s: b.sumsq(s.g, s.times(3, s.A()), "col"), lambda s: s.times(9, b.sumsq(s.g, s.A(), "col"))),
        stays(lambda s: b.sumsq(s.g, s.times(s.s(), s.A()), "all")),
    ],
    "_zero_in_zero_out": [
        fires(lambda s: b.outer(s.g, s.zero(M), s.v()), lambda s: s.zero(M, N)),
        fires(lambda s: b.reduce_(s.g, "max", s.zero(M, N), "row"), lambda s: s.zero(M)),
        fires(lambda s: s.g.node("circulant", (s.zero(N),), (), Type((N, N))), lambda s: s.zero(N, N)),
        fires(lambda s: s.g.node("vec", (s.zero(M, N),), (), Type((M * N,))), lambda s: s.zero(M * N)),
        fires(lambda s: s.g.node("tile", (s.zero(N),), (2, 1), Type((2 * N,))), lambda s: s.zero(2 * N)),
        stays(lambda s: b.outer(s.g, s.u(), s.zero(N))),
        stays(lambda s: b.reduce_(s.g, "max", s.A(), "row")),
    ],
    "_scatter": [
        fires(diagonal, lambda s: s.diag(s.v())),
        fires(lambda s: s.g.node("scatter", (s.zero(N), s.g.node("band", (), (N, 0), PAIRS)), (N, N), Type((N, N))),
              lambda s: s.zero(N, N)),
        stays(lambda s: diagonal(s, N + 1)),
    ],
    "_kron": [
        fires(lambda s: s.g.node("kron", (s.eye(R), s.eye(K)), (), Type((R * K, R * K))), lambda s: s.eye(R * K)),
        fires(lambda s: s.g.node("kron", (s.A(), s.zero(R, K)), (), Type((M * R, N * K))),
              lambda s: s.zero(M * R, N * K)),
        stays(lambda s: s.g.node("kron", (s.eye(R), s.A()), (), Type((R * M, R * N)))),
    ],
    "assembled": [
        fires(lambda s: whole(s, s.g.node("blocks", (s.A(),), (2, 2), Type((3, 2), (2, 2)))), lambda s: s.A()),
        fires(lambda s: whole(s, b.zeros(s.g, Type((3, 2), (2, 2)))), lambda s: s.zero(M, N)),
        stays(lambda s: whole(s, s.tensor("F", 3, 2, family=(2, 2)))),
        stays(lambda s: cells(s, at_both(s, "F", R, K))),
    ],
    "whole_matrices": [
        fires(lambda s: cells(s, s.add(at_both(s, "F", R, K), at_j(s, "B", R, K))),
              lambda s: s.add(cells(s, at_both(s, "F", R, K)),
                              ones_times(s, K, 1, beside(s, at_j(s, "B", R, K), s.j)))),
        fires(lambda s: cells(s, s.times(s.s(), s.prod(at_both(s, "F", R, K), at_j(s, "B", K, K)))),
              lambda s: s.times(s.s(), s.prod(cells(s, at_both(s, "F", R, K)),
                                              b.blkdiag(s.g, b.stack(s.g, at_j(s, "B", K, K), s.j, "family"))))),
        stays(lambda s: cells(s, s.add(at_both(s, "F", R, K), at_both(s, "G", R, K)))),
        stays(lambda s: cells(s, s.times(at_both(s, "c"), at_both(s, "G", R, K)))),
    ],
    "_split": [
        fires(lambda s: cells(s, s.prod(at_i(s, "E", R, R), at_both(s, "F", R, K), at_j(s, "B", K, K))),
              lambda s: s.prod(b.blkdiag(s.g, b.stack(s.g, at_i(s, "E", R, R), s.i, "family")),
                               cells(s, at_both(s, "F", R, K)),
                               b.blkdiag(s.g, b.stack(s.g, at_j(s, "B", K, K), s.j, "family")))),
        fires(lambda s: cells(s, s.prod(at_i(s, "E", R, 1), at_j(s, "B", 1, K))),
              lambda s: s.prod(beneath(s, at_i(s, "E", R, 1), s.i), beside(s, at_j(s, "B", 1, K), s.j))),
        fires(lambda s: cells(s, s.prod(block(s, s.tensor("Z", R, R, family=(K, 2))), at_j(s, "B", R, R))),
              lambda s: s.prod(whole(s, s.tensor("Z", R, R, family=(K, 2))),
                               b.blkdiag(s.g, b.stack(s.g, at_j(s, "B", R, R), s.j, "family")))),
        stays(lambda s: cells(s, s.prod(at_both(s, "E", R, 1), at_both(s, "B", 1, K)))),
    ],
    "_constant": [
        fires(lambda s: cells(s, at_i(s, "E", R, K)),
              lambda s: ones_times(s, 1, 2, beneath(s, at_i(s, "E", R, K), s.i))),
        fires(lambda s: cells(s, at_j(s, "B", R, K)),
              lambda s: ones_times(s, K, 1, beside(s, at_j(s, "B", R, K), s.j))),
        fires(lambda s: cells(s, s.A()), lambda s: ones_times(s, K, 2, s.A())),
        stays(lambda s: cells(s, at_both(s, "F", R, K))),
    ],
    "around_base": [
        through(lambda s: s.prod(s.svd()[0], s.S(), s.svd()[2], s.x()),
                lambda s: s.prod(s.add(s.W, s.prod(
                    s.svd()[0], s.add(s.S(), s.times(-1, s.diag(s.svd()[1]))), s.svd()[2])), s.x())),
        through(lambda s: s.add(s.prod(s.svd()[0], s.S(), s.svd()[2], s.x()), s.prod(s.W, s.x())), None),
    ],
    "by_parts": [
        parted(lambda s: s.prod(s.add(s.W, s.prod(s.svd()[0], s.S(), s.svd()[2])), s.x()),
               lambda s: s.prod(s.svd()[0], s.add(s.diag(s.svd()[1]), s.S()), s.svd()[2], s.x())),
        parted(lambda s: s.prod(s.add(s.W, s.prod(s.svd(2)[0], s.S(n=2), s.svd(2)[2])), s.x()), None),
        parted(lambda s: s.prod(s.add(s.W, s.A()), s.x()), None),
    ],
    "_through_svd": [
        through(lambda s: s.prod(s.t(s.A()), s.svd()[0], s.S(), s.svd()[2]),
                lambda s: s.prod(s.t(s.A()), s.add(s.W, s.prod(
                    s.svd()[0], s.add(s.S(), s.times(-1, s.diag(s.svd()[1]))), s.svd()[2])))),
        through(lambda s: s.prod(s.svd(2)[0], s.S(n=2), s.svd(2)[2], s.x()), None),
        through(lambda s: s.prod(s.svd()[0], s.S(), s.S("V"), s.x()), None),
    ],
}

FILES = (rules, operator_rules, grid_rules, part_rules, decompositions)
PLUMBING = {
    "__init__", "__call__", "make", "simplify", "_spread", "_middle", "_scaled", "_neighbours", "_opposite", "_cuts",
    "decomposed", "_has_zeros", "svd_part", "whole_of", "_detach", "_transposed",
    "_family", "_whole", "_all_of", "_rows", "_unspread", "_beneath", "_beside",
}
"""What rewrites nothing by itself: traversal, taking apart, putting together."""


def written() -> set[str]:
    """The functions of the files of rules, and of the simplifier."""
    found = [name for file in FILES for name, f in inspect.getmembers(file, inspect.isfunction)
             if f.__module__ == file.__name__]
    found += [name for name, _ in inspect.getmembers(rules.Simplifier, inspect.isfunction)]
    assert len(found) == len(set(found)), "two rules of one name"
    return set(found)


def test_every_rule_has_its_cases() -> None:
    found = {name for name in written() if name != "<lambda>"} - PLUMBING
    assert found == set(CASES)
    for name in found:
        own = next(getattr(place, name) for place in (*FILES, rules.Simplifier) if hasattr(place, name))
        assert own.__doc__, f"{name} states no equation"
    unconditional = {"inverse_perm"}
    for name, cases in CASES.items():
        assert any(c.becomes is not None for c in cases), f"{name}: nothing shows it firing"
        assert name in unconditional or any(c.becomes is None for c in cases), f"{name}: nothing shows its condition"


@pytest.mark.parametrize(("rule", "number"), [(name, k) for name, cases in CASES.items() for k in range(len(cases))])
def test_both_sides_agree(rule: str, number: int) -> None:
    case, site = CASES[rule][number], Site()
    pattern = case.pattern(site)
    got = case.entry(site, pattern)
    wanted = pattern if case.becomes is None else case.becomes(site)
    assert got is wanted, f"{rule}: {pattern!r}\n  became {got!r}\n  not    {wanted!r}"
    left, right = literal(pattern, site.values), literal(got, site.values)
    right = batched(right, got.type, pattern.type).expand(left.shape)  # a missing axis means the same for each
    torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)
    learned = [v for v in site.values.values() if v.requires_grad]
    if left.requires_grad or right.requires_grad:
        slopes = torch.randn(left.shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)
        grads = [torch.autograd.grad((side * slopes).sum(), learned, allow_unused=True, materialize_grads=True)
                 if side.requires_grad else [torch.zeros_like(v) for v in learned] for side in (left, right)]
        for a, c in zip(*grads, strict=True):
            torch.testing.assert_close(a, c, rtol=1e-9, atol=1e-9)
