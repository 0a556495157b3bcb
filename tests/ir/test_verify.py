"""The verifier that looks between phases: what it must see, and that the library's graphs and plans pass it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import padp
from padp.compiler.ir import verify
from padp.compiler.ir.dims import symbol
from padp.compiler.ir.nodes import OPEN, UNKNOWN, Graph, Node, Type
from padp.compiler.plan.steps import Low, Table
from padp.compiler.plan.verify import verify as verify_plan
from padp.dsl.source import Span

M, N = symbol("m"), symbol("n")


def matrix(g: Graph, name: str, *item: object) -> Node:
    return g.node("param", (), (name, "learned"), Type(item))


UNSOUND: dict[str, Callable[[Graph], Node]] = {
    "inner dimensions": lambda g: g.node("prod", (matrix(g, "A", M, N), matrix(g, "B", M, N)), (), Type((M, N))),
    "other shapes": lambda g: g.node("add", (matrix(g, "A", M, N), matrix(g, "B", N, M)), (), Type((M, N))),
    "not swapped": lambda g: g.node("t", (matrix(g, "A", M, N),), (), Type((M, N))),
    "no number": lambda g: g.node("scale", (matrix(g, "A", M), matrix(g, "B", M)), (), Type((M,))),
    "unknown": lambda g: g.node("misfit", (), (), UNKNOWN),
    "open": lambda g: g.node("eye", (), (), Type((symbol(f"{OPEN}1"), symbol(f"{OPEN}1")))),
    "twice": lambda g: g.node("add", (matrix(g, "A", M), matrix(Graph(), "A", M)), (), Type((M,))),
    "written into": lambda g: g.node("put", (matrix(g, "A", M), g.const(1), g.const(0)), (), Type((N,))),
}


@pytest.mark.parametrize("what", UNSOUND)
def test_what_does_not_fit_is_seen(what: str) -> None:
    with pytest.raises(verify.Unsound, match=what):
        verify.verify("a test", UNSOUND[what](Graph()))


def wrong_stage() -> Low:
    table = Table()
    x = table.make("input", ("x",), Type((3,)), ("T",), stage=2)
    return table.make("add", (x, x), Type((3,)), ("T",), stage=1)


def open_choice() -> Low:
    table = Table()
    ways = [table.make("param", (name,), Type((3,)), stage=1) for name in "ab"]
    return table.choice(ways, ["one", "other"], "which")


UNSOUND_PLANS: dict[str, Callable[[], Low]] = {
    "stage": wrong_stage, "choice": open_choice,
    "no cost": lambda: Low("nobody knows", (), Type((3,)), (), 0, False, Span(0, 0), 0, ()),
    "no number": lambda: Low("param", ("A",), Type((M,)), (), 1, True, Span(0, 0), 0, ()),
}


@pytest.mark.parametrize("what", UNSOUND_PLANS)
def test_a_plan_that_cannot_run_is_seen(what: str) -> None:
    with pytest.raises(verify.Unsound, match=what):
        verify_plan(UNSOUND_PLANS[what]())


def test_it_looks_between_the_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify.WANTED, "PADP_VERIFY is not set"
    seen: list[str] = []
    monkeypatch.setattr(verify, "verify", lambda phase, *roots, **_: seen.append(phase))
    variant = padp.compile("adapter T on linear(W ∈ ℝ^{m×n})\ns ∈ ℝ^m: learned, init = 1  # for the verifier\n"
                           "y ← diag(s) @ W @ x\n").of()
    assert variant.normal
    assert seen == ["elaborate", "check", "normal"]


def test_before_the_check_what_is_not_known_is_left_out() -> None:
    for what in ("unknown", "open"):
        verify.verify("a test", UNSOUND[what](Graph()), checked=False)
    with pytest.raises(verify.Unsound, match="inner dimensions"):
        verify.verify("a test", UNSOUND["inner dimensions"](Graph()), checked=False)
