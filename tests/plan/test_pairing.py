"""Parts that mix entries of one vector, put together in one pass: found where it is meant, and never another value."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import padp
from padp.compiler.graph.stages import run
from padp.compiler.plan import planners
from padp.compiler.plan.search import Regime
from padp.compiler.plan.steps import order
from tests.support.ways import built_with

HEAD = """adapter Pairs on linear(W ∈ ℝ^{m×n})
a ∈ ℝ^{n/2}: learned, init = 0
c ∈ ℝ^{n/2}: learned, init = 1
"""
SETS = {
    "neighbours": "for i in range(n//2):\n    z[2i] ← FIRST\n    z[2i+1] ← SECOND",
    "halves": "for (p,q) in halves(n, 4):\n    z[p] ← FIRST\n    z[q] ← SECOND",
}
ENTRIES = {
    "neighbours": {"P": "x[2i]", "Q": "x[2i+1]", "A": "a_i", "C": "c_i"},
    "halves": {"P": "x[p]", "Q": "x[q]", "A": "a_{p,q}", "C": "c_{p,q}"},
}
MIXED = {
    "a rotation": ("cos A · P - sin A · Q", "sin A · P + cos A · Q", True),
    "what stays second": ("A · Q + C · P", "C · P - A · Q", True),
    "numbers for coefficients": ("2 · P + 3 · Q", "P - Q", True),
    "swapped": ("Q", "A · P", True),
    "products of coefficients": ("A · (C · P - 0.5 · Q)", "-(A · C) · Q + P", True),
    "a term more in one": ("P + A · Q", "Q", False),
    "something added": ("A · P + C", "C · Q + A", False),
    "not linear": ("A · P · P", "C · Q", False),
}


def program(kind: str, first: str, second: str) -> str:
    head = HEAD if kind == "neighbours" else HEAD.replace("a ∈ ℝ^{n/2}", "a ∈ ℝ^Ω").replace("c ∈ ℝ^{n/2}", "c ∈ ℝ^Ω") \
        .replace("a ∈", "Ω ← halves(n, 4)\na ∈", 1)

    def named(text: str) -> str:
        return "".join(ENTRIES[kind].get(c, c) for c in text)

    loop = SETS[kind].replace("FIRST", named(first)).replace("SECOND", named(second))
    return f"{head}{loop}\ny ← W @ z\n"


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("name", MIXED)
def test_every_way_is_the_meaning(kind: str, name: str) -> None:
    first, second, found = MIXED[name]
    layer = padp.compile(program(kind, first, second))(nn.Linear(8, 6, bias=False).double(), dtype=torch.double)
    module: Any = layer.only()
    with torch.no_grad():
        for k, p in enumerate(p for p in module.parameters() if p.requires_grad):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(k)))
    typed = module.compiled.typed
    planner = planners.planner(typed.graph, typed.names["W"], Regime("train", 3, True), has_bias=False)
    low = planner.per_token(planner.value(planner.rules(typed.output)))
    choices = [c for c in order(low) if c.prim == "choice" and c.args[2] == "a vector from parts"]
    assert bool(choices) == found
    leaves: dict[Any, Tensor] = {("param", n): module.tensors[n] for n in module.tensors}
    x = torch.randn(3, 8, dtype=torch.double, requires_grad=True)
    wanted = module.reference(x, layer.base)
    learned = [x, *(p for p in module.parameters() if p.requires_grad)]
    ways = [built_with(planner.table, {**planner.estimate.picks, id(c): k}, low) for c in choices for k in (0, 1)]
    for way in ways or [planner.settle(low)[0][0]]:
        made = run([way], leaves, torch.zeros((), dtype=torch.double), layer.base, x)[0]
        torch.testing.assert_close(made, wanted, rtol=1e-10, atol=1e-10)
        for got, meant in zip(*(torch.autograd.grad(side.square().sum(), learned, retain_graph=True, allow_unused=True,
                                                    materialize_grads=True) for side in (made, wanted)), strict=True):
            torch.testing.assert_close(got, meant, rtol=1e-9, atol=1e-9)
