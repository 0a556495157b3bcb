"""What the cost table says that autograd keeps of one operation, against what torch keeps of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from padp.compiler.graph.stages import run
from padp.compiler.ir.nodes import Type
from padp.compiler.kernels.dense import POINTWISE
from padp.compiler.plan.costs import saved
from padp.compiler.plan.steps import LEAVES, Low, Table, order

TOKENS, N = 2000, 24
Case: TypeAlias = "Callable[[Ops], Low]"


class Ops:
    """Makes one operation on vectors of N numbers for each token."""

    def __init__(self) -> None:
        self.table = Table()
        self.x, self.y = self.of_tokens("x", N), self.of_tokens("y", N)
        self.v, self.M = self.leaf("v", N), self.leaf("M", N, N)

    def leaf(self, name: str, *item: int, lead: tuple[Any, ...] = ()) -> Low:
        return self.table.make("param", (name,), Type(item), lead, stage=1, grad=True)

    def of_tokens(self, name: str, *item: int) -> Low:
        return self.leaf(name, *item, lead=("T",))

    def index(self, *numbers: int) -> Low:
        return self.table.make("i:given", numbers, Type((len(numbers),), kind="index"), stage=0)

    def one(self, number: int) -> Low:
        return self.table.make("select", (self.index(number), -1, 0), Type(kind="index"), stage=0)

    def __call__(self, prim: str, *args: Any, item: tuple[int, ...] = (N,), lead: tuple[Any, ...] = ("T",)) -> Low:
        return self.table.make(prim, args, Type(item), lead)


CASES: dict[str, Case] = {
    "mul": lambda o: o("mul", o.x, o.y), "mul by a vector": lambda o: o("mul", o.x, o.v),
    "mul by a number": lambda o: o("mul", o.x, 3.0), "add": lambda o: o("add", o.x, o.y),
    "div": lambda o: o("div", o.x, o.y), "rdiv": lambda o: o("rdiv", 2, o.x),
    "reciprocal": lambda o: o("reciprocal", o.x), "inverse_norm": lambda o: o("inverse_norm", o.x),
    "pow": lambda o: o("pow", o.x, 3),
    "addcmul": lambda o: o("addcmul", o.x, o.y, o.v), "root": lambda o: o("root", o.x),
    "maximum": lambda o: o("k:maximum", o.x, o.y), "minimum": lambda o: o("k:minimum", o.x, o.v),
    "clamp": lambda o: o("k:clamp", o.x, -1, 1), "softmax": lambda o: o("k:softmax", o.x),
    "linear": lambda o: o("linear", o.x, o.M), "add_linear": lambda o: o("add_linear", o.x, o.y, o.M, 2),
    "matvec": lambda o: o("matvec", o.of_tokens("B", 3, N), o.x, item=(3,)),
    "dot": lambda o: o("dot", o.x, o.y, item=()), "solve_vectors": lambda o: o("solve_vectors", o.M, o.x, 0),
    "sum": lambda o: o("sum", o.x, (-1,), item=()), "mean": lambda o: o("mean", o.x, (-1,), item=()),
    "sumsq": lambda o: o("sumsq", o.x, "all", 1, item=()), "norm": lambda o: o("norm", o.x, "all", 1, item=()),
    "amax": lambda o: o("amax", o.x, (-1,), item=()), "amin": lambda o: o("amin", o.x, (-1,), item=()),
    "interleave": lambda o: o("interleave", (o.x, o.y), 1, item=(2 * N,)),
    "cat": lambda o: o("cat", (o.x, o.y), -1, item=(2 * N,)),
    "index_select": lambda o: o("index_select", o.x, -1, o.index(3, 1, 0, 2), item=(4,)),
    "replace_entries": lambda o: o("replace_entries", o.x, o.of_tokens("new", 12), o.index(*range(12))),
    "replace_slice": lambda o: o("replace_slice", o.x, o.of_tokens("new", 12), 0, 2),
    "put": lambda o: o("put", (o.x, o.of_tokens("value"), o.one(3)), 1),
    "circulant_apply": lambda o: o("circulant_apply", o.v, o.x, True), "topk": lambda o: o("k:topk", o.x, 3),
    **{f: lambda o, f=f: o(f"f:{f}", o.x) for f in POINTWISE},  # type: ignore[misc]
}


@pytest.mark.parametrize("name", CASES)
def test_kept_bytes(name: str) -> None:
    """To a twentieth of one value for all tokens: masks, indices and factors of matrices are left out."""
    low = CASES[name](Ops())
    known: dict[int, Any] = {}
    for leaf in order(low):
        if leaf.prim in LEAVES:
            shape = [TOKENS if d == "T" else int(d) for d in leaf.dims]
            known[id(leaf)] = torch.rand(shape, dtype=torch.double).add_(0.5).requires_grad_()
    found: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        if t.is_floating_point() or t.is_complex():
            found[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        alive.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        run([low], {}, torch.zeros((), dtype=torch.double), known=known)
    kept = {id(x): x for step in order(low) for x in saved(step)}
    foreseen = sum(8 * torch.Size([TOKENS if d == "T" else int(d) for d in x.dims]).numel() for x in kept.values())
    assert abs(foreseen - sum(found.values())) <= TOKENS * N * 8 / 20
