"""Graphs of the typed IR with named random tensors, for tests of single rules, lowerings and applications."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from padp.compiler.elaborate.norms import MARK
from padp.compiler.ir import build as b
from padp.compiler.ir.nodes import Axis, Graph, Node, Type

M, N, R, K, B = 6, 4, 2, 3, 2


class Site:
    """A graph with named tensors: A(m, n) makes the node and its value."""

    def __init__(self) -> None:
        self.g = Graph()
        self.values: dict[str, Tensor] = {}
        self.i, self.j = self.g.axis(K), self.g.axis(2)
        self.W = self.tensor("W", M, N, op="weight")

    def tensor(self, name: str, *item: int, family: tuple[int, ...] = (), loops: tuple[Axis, ...] = (),
               op: str = "param") -> Node:
        """A learned tensor of this type with random values."""
        type_ = Type(item, family, loops)
        if name not in self.values:
            generator = torch.Generator().manual_seed(len(self.values))
            shape = tuple(int(d) for d in type_.shape)
            self.values[name] = torch.randn(shape, generator=generator, dtype=torch.double,
                                            requires_grad=op in ("param", "input"))
        return self.g.node(op, (), (name, "learned") if op == "param" else (name,), type_)

    def A(self) -> Node:
        return self.tensor("A", M, N)

    def C(self) -> Node:
        return self.tensor("C", M, N)

    def S(self, name: str = "S", n: int = N) -> Node:
        """A square matrix."""
        return self.tensor(name, n, n)

    def u(self, n: int = M) -> Node:
        return self.tensor(f"u{n}", n)

    def v(self, n: int = N) -> Node:
        return self.tensor(f"v{n}", n)

    def s(self) -> Node:
        return self.tensor("s")

    def x(self) -> Node:
        return self.tensor("x", N, op="input")

    def each(self, name: str, *item: int) -> Node:
        """A tensor for each step of the loop i."""
        return self.tensor(name, *item, loops=(self.i,))

    def many(self, name: str, *item: int) -> Node:
        """A family of B tensors."""
        return self.tensor(name, *item, family=(B,))

    def num(self, value: Any) -> Node:
        return self.g.const(value)

    def times(self, c: Any, a: Node) -> Node:
        return b.scale(self.g, self.num(c) if not isinstance(c, Node) else c, a)

    def zero(self, *item: int) -> Node:
        return b.zeros(self.g, Type(item))

    def ones(self, *item: int) -> Node:
        return b.full(self.g, 1, Type(item))

    def eye(self, n: int = N) -> Node:
        return b.eye(self.g, n)

    def add(self, *terms: Node) -> Node:
        return b.add(self.g, *terms)

    def prod(self, *factors: Node) -> Node:
        return self.g.node("prod", factors, (), b.prod(self.g, *factors).type)

    def t(self, a: Node) -> Node:
        return self.g.node("t", (a,), (), b.t(self.g, a).type)

    def diag(self, v: Node) -> Node:
        return b.diag(self.g, v)

    def mul(self, a: Node, c: Node) -> Node:
        return b.mul(self.g, a, c)

    def inv(self, a: Node) -> Node:
        return b.inv(self.g, a)

    def div(self, a: Node, c: Node) -> Node:
        return b.div(self.g, a, c)

    def over(self, a: Node, c: Node) -> Node:
        """a / c, c a norm."""
        return b.div(self.g, a, c, MARK)

    def point(self, f: str, a: Node) -> Node:
        return b.point(self.g, f, a)

    def cut(self, a: Node, axis: int, start: int, stop: int) -> Node:
        return b.slice_(self.g, a, axis, start, stop)

    def above(self, *parts: Node) -> Node:
        return b.cat(self.g, parts, 2)

    def beside(self, *parts: Node) -> Node:
        return b.cat(self.g, parts, 1)

    def order(self, name: str, n: int = N) -> Node:
        """An index vector that is a permutation."""
        self.values.setdefault(name, torch.randperm(n, generator=torch.Generator().manual_seed(len(self.values))))
        return self.g.node("param", (), (name, "frozen"), Type((n,), kind="index"))

    def perm(self, index: Node) -> Node:
        return self.g.node("perm", (index,), (), Type((index.type.item[0],) * 2))

    def inverse_order(self, index: Node) -> Node:
        return self.g.node("inverse_index", (index,), (), index.type)

    def orthonormal(self) -> Node:
        return self.g.node("orthonormal", (self.tensor("Z", R, N),), (), Type((R, N)))

    def svd(self, rank: int | None = None) -> tuple[Node, Node, Node]:
        q = min(M, N) if rank is None else rank
        whole = self.g.node("svd", (self.W,), (q,), Type((q,)))
        return tuple(self.g.node("out", (whole,), (k,), Type(item))  # type: ignore[return-value]
                     for k, item in enumerate(((M, q), (q,), (q, N))))

    def index(self, step: int = 1, first: int = 0) -> Node:
        """The index of the loop i."""
        return self.g.node("iota", (), (self.i, step, first), Type((), (), (self.i,), kind="index"))

    def other(self, first: int = 0) -> Node:
        """The index of another loop, inside of i."""
        return self.g.node("iota", (), (self.j, 1, first), Type((), (), (self.j,), kind="index"))

    def places(self, rows: int, columns: int) -> tuple[Node, Node, Node]:
        """An index set Ω, and its two columns in a loop over it."""
        omega = self.g.node("sample", (), (rows, columns, K, 1), Type((K, 2), kind="index"))
        i, j = (self.g.node("column", (omega,), (self.i, k), Type((), (), (self.i,), kind="index")) for k in (0, 1))
        return omega, i, j

    def loop(self, a: Node, place: str) -> Node:
        return b.stack(self.g, a, self.i, place)

    def total(self, a: Node) -> Node:
        return self.g.node("sumloop", (a,), (self.i,), Type(a.type.item, a.type.family, tuple(
            x for x in a.type.loops if x != self.i)))
