"""The cost table against torch: FLOPs of products, and what autograd keeps, of every adapter's training plan."""

from __future__ import annotations

from typing import Any

import pytest
import sympy as sp
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import padp
from padp.compiler.ir.nodes import Type
from padp.compiler.kernels.table import ALIASES, PRIMS
from padp.compiler.plan.costs import cost, entry, saved
from padp.compiler.plan.recompute import held
from padp.compiler.plan.steps import LEAVES, VIEWS, Low, Table, order

TOKENS, MANY, M, N = 24, 4096, 96, 64
LINEAR = ("adalora", "antipasto", "boft", "delora", "dora", "fourierft", "goft", "hra", "ia3", "lora", "oft", "pissa",
          "psoft", "randlora", "road", "ssvd", "svft", "vera")
SMALL: dict[str, dict[str, Any]] = {"adalora": {"steps": 10}, "road": {"g": 32}, "fourierft": {"k": 50}}
EVERY = [(name, variant) for name in LINEAR for variant in (padp.compile(name).variants or (None,))]


def layer_of(name: str, variant: str | None) -> Any:
    layer = padp.compile(name)(nn.Linear(N, M).double(), variant=variant, dtype=torch.double, **SMALL.get(name, {}))
    with torch.no_grad():
        for p in layer.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).to(p))
    return layer


def run(layer: Any, x: Tensor) -> Tensor:
    """The training plan without recomputation."""
    module = layer.adapters["default"]
    stage = module.compiled.train
    return stage.graph(x, layer.base, True, *module.arguments(stage, layer.base))  # type: ignore[no-any-return]


def operations(layer: Any) -> list[Low]:
    return [low for low in order(*layer.adapters["default"].compiled.outputs) if low.stage > 0]


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_products_are_counted_as_torch_counts_them(name: str, variant: str | None) -> None:
    layer = layer_of(name, variant)
    x = torch.randn(TOKENS, N, dtype=torch.double, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        y = run(layer, x)
    with FlopCounterMode(display=False) as backward:
        y.backward(torch.ones_like(y))
    costs = [cost(low, TOKENS) for low in operations(layer)]
    assert sum(c.product for c in costs) == forward.get_total_flops()
    assert sum(c.product_back for c in costs) == backward.get_total_flops()


def kept_by_autograd(layer: Any, x: Tensor) -> int:
    """Bytes that autograd keeps beside parameters, buffers and x, as the graph runs."""
    own = {t.untyped_storage().data_ptr() for t in (*layer.parameters(), *layer.buffers(), x)}
    found: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        s = t.untyped_storage()
        if s.data_ptr() not in own and t.is_floating_point():
            found[s.data_ptr()] = s.nbytes()
            alive.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        run(layer, x)
    return sum(found.values())


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_what_is_kept_for_backward_is_foreseen(name: str, variant: str | None) -> None:
    """To a twentieth of x: scalars, masks and torch's own copies of factors, which no tokens have, are left out."""
    layer = layer_of(name, variant)
    x = torch.randn(MANY, N, dtype=torch.double, requires_grad=True)
    values = held(layer.adapters["default"].compiled.outputs).values()
    foreseen = sum(8 * numbers(low) for low in values if not free(low))
    assert abs(kept_by_autograd(layer, x) - foreseen) <= 0.05 * 8 * x.numel()


def free(low: Low) -> bool:
    """What lies there anyway: leaves, x, and what was stored at attach."""
    return low.prim in LEAVES or (low.stage == 0 and low.prim not in (*VIEWS, "full", "eye"))


def numbers(low: Low) -> int:
    total = 1
    for d in low.dims:
        total *= MANY if d == "T" else int(d)
    return total


def test_every_operation_states_its_cost() -> None:
    for prim in PRIMS:
        if prim not in VIEWS and prim not in ALIASES and prim not in ("getitem", "detach"):
            entry(prim)


def test_costs_are_formulas() -> None:
    """With symbols for sizes and tokens a cost is a formula; put in numbers, it is the cost at these numbers."""
    m, n, r, T = sp.symbols("m n r T", positive=True, integer=True)
    table = Table()

    def low_rank(rows: Any, columns: Any, rank: Any) -> list[Low]:
        x = table.make("input", ("x",), Type((columns,)), ("T",), stage=2, grad=True)
        A = table.make("param", ("A",), Type((rank, columns)), (), stage=1, grad=True)
        B = table.make("param", ("B",), Type((rows, rank)), (), stage=1, grad=True)
        z = table.make("linear", (x, A), Type((rank,)), ("T",))
        base = table.make("base", (x,), Type((rows,)), ("T",))
        return [z, base, table.make("add_linear", (base, z, B, 1), Type((rows,)), ("T",))]

    symbolic = [cost(low, T) for low in low_rank(m, n, r)]
    assert [sp.expand(c.product) for c in symbolic] == [2 * T * r * n, 2 * T * m * n, 2 * T * r * m]
    assert [sp.expand(c.product_back) for c in symbolic] == [4 * T * r * n, 2 * T * m * n, 4 * T * r * m]
    numbers_ = {m: 5, n: 7, r: 2, T: 11}
    for formula, plain in zip(symbolic, [cost(low, 11) for low in low_rank(5, 7, 2)], strict=True):
        for field in ("product", "other", "moved", "product_back", "other_back", "moved_back"):
            assert sp.sympify(getattr(formula, field)).subs(numbers_) == getattr(plain, field)


def test_a_frozen_matrix_costs_no_gradient() -> None:
    table = Table()
    x = table.make("input", ("x",), Type((7,)), ("T",), stage=2, grad=True)
    A = table.make("param", ("A",), Type((2, 7)), (), stage=0, grad=False)
    z = table.make("linear", (x, A), Type((2,)), ("T",))
    assert cost(z, 11).product_back == cost(z, 11).product
    assert saved(z) == [A]
