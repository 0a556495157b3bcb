"""The search for the cheapest plan: shared work is paid once, kept bytes cost, regimes differ, ties are settled."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

import padp
from padp.compiler.graph.compile import Compiled, compile_method
from padp.compiler.ir.nodes import Type
from padp.compiler.plan.search import Estimate, Regime, settle
from padp.compiler.plan.steps import Low, Table, order
from tests.support.ways import built_with

TRAIN = Regime("train", 1024, True)
EVAL = Regime("eval", 1024, False)


def compiled(program: str, m: int, n: int, tokens: int = 1024, **hyper: Any) -> Compiled:
    adapter = padp.compile(program)
    chosen = adapter.settings(None, **hyper)
    values = {k: v for k, v in chosen.hyper.items() if k not in {h.name for h in adapter.method().hyper if h.knob}}
    sizes = {"m": m, "n": n, **adapter.compiled({"m": m, "n": n}, None, chosen.hyper, False)[1]}
    return compile_method(adapter.method(), sizes, values, False, tokens)


class Parts:
    """Operations made by hand."""

    def __init__(self) -> None:
        self.table = Table()

    def leaf(self, name: str, *item: int, stage: int = 1, lead: tuple[Any, ...] = ()) -> Low:
        prim = "param" if stage < 2 else "input"
        return self.table.make(prim, (name,), Type(item), lead, stage=stage, grad=stage > 0)

    def op(self, prim: str, *args: Any, item: tuple[int, ...] = (), lead: tuple[Any, ...] = ()) -> Low:
        return self.table.make(prim, args, Type(item), lead)


def test_what_two_ways_share_is_paid_once() -> None:
    """Each choice alone would take the cheap way; together the dear one, which both can use, is cheaper."""
    p = Parts()
    a = p.leaf("a", 400_000)
    shared = p.op("f:exp", p.op("f:exp", p.op("f:exp", a, item=(400_000,)), item=(400_000,)), item=(400_000,))
    choices = []
    for k in range(2):
        own: Low = p.leaf(f"own{k}", 400_000)
        for _ in range(2):
            own = p.op("f:sin", own, item=(400_000,))
        choices.append(p.table.choice((own, shared), ("own", "shared"), f"question {k}"))
    root = p.op("add", *choices, item=(400_000,))
    e = Estimate(TRAIN, {})
    totals = {}
    for picks in product(range(2), repeat=2):
        e.picks.update({id(c): k for c, k in zip(choices, picks, strict=True)})
        totals[picks] = e.total(root)
    assert totals[1, 1] < totals[0, 1] and totals[1, 1] < totals[1, 0]
    (made,), decisions = settle(p.table, {id(choices[0]): 1, id(choices[1]): 0}, (root,), TRAIN)
    assert e.total(made) == min(totals.values())
    assert not [low for low in order(made) if low.prim == "choice"]
    assert [d.taken for d in decisions] == [1, 1]


def test_no_single_change_makes_a_library_plan_cheaper() -> None:
    """Where the search ends, every other way of every decision costs more (or the same, and was found later)."""
    for name in ("vera", "dora", "randlora", "ssvd", "psoft", "boft", "delora"):
        plan = compiled(name, 512, 768)
        for decision in (*plan.decisions, *plan.many.decisions, *plan.one.decisions):
            taken = decision.ways[decision.taken]
            assert all((taken.stored, taken.seconds) <= (w.stored, w.seconds) for w in decision.ways), name


def test_the_same_plan_every_time() -> None:
    texts = set()
    for _ in range(2):
        adapter = padp.compile(padp.compile("psoft").source.text)
        chosen = adapter.settings(None)
        made = adapter.compiled({"m": 96, "n": 160}, None, chosen.hyper, True)[0]
        texts.add(str([(low.prim, low.dims) for low in order(*made.outputs)]))
    assert len(texts) == 1


def test_a_stored_byte_costs() -> None:
    """The same value, made at attach from frozen tensors, is priced by its bytes."""
    p = Parts()
    x = p.leaf("x", 64, stage=2, lead=("T",))
    costs = []
    for size in (64, 640_000):
        frozen = p.op("f:exp", p.leaf(f"w{size}", size, stage=0), item=(size,))
        total = p.op("sum", frozen, item=())
        y = p.op("mul", x, p.op("neg", total, item=()), item=(64,), lead=("T",))
        kept = p.op("mul", x, p.op("f:exp", frozen, item=(size,)), item=(64,), lead=("T",))
        costs.append((Estimate(EVAL, {}).total(y)[1], Estimate(EVAL, {}).total(kept)[1]))
    assert costs[1][1] - costs[0][1] > costs[1][0] - costs[0][0]


def test_nothing_large_is_stored_where_there_is_another_way() -> None:
    for name in ("randlora", "fourierft", "goft", "hra"):
        plan = compiled(name, 256, 256)
        limit = 256 * 256 / 2
        for low in plan.kept:
            assert Estimate(plan.regime, {}).is_large(low) is False, (name, low, limit)


def test_tokens_decide() -> None:
    """BA first costs m·r·n once, A then B costs r(m + n) a token: many tokens against few of them."""
    program = """adapter Thick(r = 200) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = 0
y ← (W + B @ A) @ x
"""
    few, many = compiled(program, 256, 256, tokens=16), compiled(program, 256, 256, tokens=100_000)

    def products(c: Compiled) -> list[tuple[str, tuple[Any, ...]]]:
        return [(low.prim, low.dims) for low in order(*c.outputs) if low.prim in ("matmul", "linear", "add_linear")]

    assert ("matmul", (256, 256)) not in products(few)
    assert ("matmul", (256, 256)) in products(many)


@pytest.mark.parametrize("name", ["lora", "vera", "randlora", "psoft", "goft"])
def test_every_way_can_be_built(name: str) -> None:
    plan = compiled(name, 96, 160)
    planner = plan.planner
    for decision in plan.decisions:
        for k in range(len(decision.ways)):
            low = built_with(planner.table, {**planner.estimate.picks, id(decision.low): k}, decision.low)
            assert low.dims == decision.low.dims and not [x for x in order(low) if x.prim == "choice"]
