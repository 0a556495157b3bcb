"""Neighbours that one call does: where they fuse, where they stay, and the same values and gradients either way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from padp.compiler.graph.stages import run
from padp.compiler.ir.nodes import Type
from padp.compiler.plan.fusing import fused
from padp.compiler.plan.search import Estimate, Regime
from padp.compiler.plan.steps import LEAVES, Low, Table, order

N = 6
TOKENS = 4


class Ops:
    """Operations on vectors of N numbers for each token."""

    def __init__(self) -> None:
        self.table = Table()
        self.a, self.x, self.y = (self.leaf(name, N, lead=("T",), stage=2) for name in "axy")
        self.M, self.L = self.leaf("M", N, N), self.leaf("L", N, N)
        self.v = self.leaf("v", N)

    def leaf(self, name: str, *item: int, lead: tuple[Any, ...] = (), stage: int = 1) -> Low:
        return self.table.make("param", (name,), Type(item), lead, stage=stage, grad=True)

    def __call__(self, prim: str, *args: Any, item: tuple[int, ...] = (N,), lead: tuple[Any, ...] = ("T",)) -> Low:
        return self.table.make(prim, args, Type(item), lead)

    def once(self, prim: str, *args: Any, item: tuple[int, ...] = (N,), lead: tuple[Any, ...] = ()) -> Low:
        return self(prim, *args, item=item, lead=lead)

    def times(self, v: Low, m: Low) -> Low:
        return self("linear", v, m)

    def sparse(self, c: Low) -> Low:
        places = self.table.make("i:band", (N, 0), Type((N, 2), kind="index"), stage=0)
        return self("sparse_apply", c, places, self.x, N, False)

    def transposed_blocks(self) -> Low:
        """Three 2×2 matrices made each step, read with their axes the other way round."""
        made = self.once("f:tanh", self.leaf("F", 2, 2, lead=(3,)), item=(2, 2), lead=(3,))
        return self.table.make("permute_tail", (made, (0, 2, 1)), Type((2, 2)), (3,))

    def each(self, m: Low) -> Low:
        pieces = self("reshape_tail", self.x, 1, (3, 2), item=(2,), lead=("T", 3))
        return self("each", pieces, m, 1, item=(2,), lead=("T", 3))


Case: TypeAlias = "tuple[Callable[[Ops], Low], list[str]]"
"""A value, and the operations of it that are left when neighbours are fused."""


def shared(o: Ops) -> Low:
    p = o.times(o.x, o.M)
    return o("mul", o("add", o.a, p), p)


TRAINED: dict[str, Case] = {
    "a + v Mᵀ": (lambda o: o("add", o.a, o.times(o.x, o.M)), ["add_linear"]),
    "v Mᵀ − a stays": (lambda o: o("sub", o.times(o.x, o.M), o.a), ["linear", "sub"]),
    "a − 2 v Mᵀ": (lambda o: o("sub", o.a, o("mul", o.times(o.x, o.M), 2)), ["add_linear"]),
    "a − (−v) Mᵀ": (lambda o: o("sub", o.a, o.times(o("neg", o.x), o.M)), ["add_linear"]),
    "a + (p + q)": (lambda o: o("add", o.a, o("add", o.times(o.x, o.M), o.times(o.y, o.L))),
                    ["add_linear", "add_linear"]),
    "(−p + 3 q) + a": (lambda o: o("add", o("add", o("neg", o.times(o.x, o.M)), o("mul", o.times(o.y, o.L), 3)), o.a),
                       ["add_linear", "add_linear"]),
    "p + (q + r)": (lambda o: o("add", o.times(o.a, o.M), o("add", o.times(o.x, o.M), o.times(o.y, o.L))),
                    ["add_linear", "add_linear", "linear"]),
    "a product that others read": (shared, ["add", "linear", "mul"]),
    "a + b ⊙ c": (lambda o: o("add", o.a, o("mul", o.x, o.v)), ["addcmul"]),
    "a vector added": (lambda o: o("add", o.times(o.x, o.M), o.v), ["linear"]),
    "3 · a sparse matrix": (lambda o: o("mul", o.sparse(o.v), 3), ["mul", "sparse_apply"]),
    "a vector · a sparse matrix": (lambda o: o("mul", o.sparse(o.v), o.v), ["mul", "sparse_apply"]),
    "a norm": (lambda o: o.once("root", o.once("sumsq", o.M, "row", 2)), ["norm"]),
    "a norm of columns": (lambda o: o.once("root", o.once("sumsq", o.M, "col", 2)), ["norm"]),
    "the root of another sum": (lambda o: o.once("root", o.once("mul", o.once("sumsq", o.M, "row", 2), 2)),
                                ["mul", "root", "sumsq"]),
    "matrices in another order": (lambda o: o.each(o.transposed_blocks()), ["each", "f:tanh"]),
}
KEPT: dict[str, Case] = {
    "matrices in another order": (lambda o: o.each(o.transposed_blocks()), ["each", "f:tanh", "packed"]),
    "matrices in order": (lambda o: o.each(o.once("f:tanh", o.leaf("F", 2, 2, lead=(3,)), item=(2, 2), lead=(3,))),
                          ["each", "f:tanh"]),
    "parameters as they lie": (lambda o: o.each(o.table.make(
        "permute_tail", (o.leaf("F", 2, 2, lead=(3,)), (0, 2, 1)), Type((2, 2)), (3,))), ["each"]),
}
CASES = [(f"{name}, {kind}", case, train) for kind, cases, train in (("trained", TRAINED, True), ("kept", KEPT, False))
         for name, case in cases.items()]


def computed(root: Low, leaves: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    y = run([root], {("param", name): t for name, t in leaves.items()}, torch.zeros((), dtype=torch.double))[0]
    return y, list(torch.autograd.grad(y.square().sum(), list(leaves.values())))


@pytest.mark.parametrize(("case", "train"), [(c, t) for _, c, t in CASES], ids=[name for name, _, _ in CASES])
def test_neighbours(case: Case, train: bool) -> None:
    make, left = case
    o = Ops()
    root = make(o)
    (new,) = fused(o.table, [root], Estimate(Regime("train" if train else "eval", TOKENS, train), {}))
    assert sorted(x.prim for x in order(new) if x.prim not in (*LEAVES, "reshape_tail", "permute_tail")
                  and not x.prim.startswith("i:")) == sorted(left)
    generator = torch.Generator().manual_seed(0)
    leaves = {str(x.args[0]): torch.randn([TOKENS if d == "T" else int(d) for d in x.dims], generator=generator,
                                          dtype=torch.double).requires_grad_()
              for x in order(root) if x.prim == "param"}
    (y, slopes), (meant, wanted) = computed(new, leaves), computed(root, leaves)
    torch.testing.assert_close(y, meant)
    for a, b in zip(slopes, wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("axis", ["row", "col", "all"])
@pytest.mark.parametrize("shape", [(3, 4), (40, 2)])
def test_the_gradient_of_a_norm_is_zero_where_the_norm_is(axis: str, shape: tuple[int, int]) -> None:
    from padp.compiler.kernels.table import norm

    a = torch.zeros(shape, dtype=torch.double, requires_grad=True)
    norm(a, axis, 2).sum().backward()
    assert a.grad is not None and not a.grad.any()
    a = torch.zeros(shape, dtype=torch.double)
    a[0] = 1
    a.requires_grad_()
    (slope,) = torch.autograd.grad(norm(a, axis, 2).sum(), a, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), a)
    assert torch.isfinite(second).all()
    b = torch.randn(shape, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: norm(t, axis, 2), (b,))
    assert torch.autograd.gradgradcheck(lambda t: norm(t, axis, 2), (b,))
