"""Taking entries at an index that the sizes determine: a view where the index is a pattern, and then the right one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padp.compiler.graph.stages import run
from padp.compiler.ir.nodes import Graph, Type
from padp.compiler.operators.index_sets import pattern
from padp.compiler.plan import planners
from padp.compiler.plan.gathers import replaced, shown_by
from padp.compiler.plan.planner import Planner
from padp.compiler.plan.search import Regime
from padp.compiler.plan.steps import VIEWS, Low, order


@st.composite
def indices(draw: st.DrawFn) -> tuple[list[int], int]:
    """An index made of runs with strides, now and then with one entry wrong, and how many entries there are."""
    n = draw(st.integers(1, 60))
    numbers = np.array([draw(st.integers(0, n - 1))])
    for _ in range(draw(st.integers(0, 4))):
        divisors = [d for d in range(1, n + 1) if n % d == 0]
        stride = draw(st.sampled_from(divisors) | st.integers(-3, n))
        numbers = (np.arange(draw(st.integers(1, 5)))[:, None] * stride + numbers[None]).reshape(-1)
    if draw(st.integers(0, 9)) == 0:
        numbers[draw(st.integers(0, len(numbers) - 1))] = draw(st.integers(0, n - 1))
    return [int(k) for k in numbers[(numbers >= 0) & (numbers < n)]] or [0], n


def planner() -> Planner:
    return planners.planner(Graph(), None, Regime("train", 4, True))


def vector(p: Planner, n: int) -> Low:
    return p.make("input", ("x",), Type((n,)), ("T",), stage=2, grad=True)


def value(low: Low, x: torch.Tensor) -> Any:
    return run([low], {}, torch.zeros((), dtype=torch.double), x=x)[0]


@settings(max_examples=400, deadline=None)
@given(indices())
def test_a_view_shows_what_the_index_names(case: tuple[list[int], int]) -> None:
    numbers, n = case
    at = pattern(np.array(numbers, dtype=np.int64), n)
    p = planner()
    shown = None if at is None else shown_by(p, vector(p, n), at)
    if shown is None:
        return
    assert all(low.prim in VIEWS for low in order(shown) if low.prim != "input")
    x = torch.randn(2, 3, n, dtype=torch.double)
    assert torch.equal(value(shown, x), x[..., torch.tensor(numbers)])


@settings(max_examples=200, deadline=None)
@given(indices())
def test_replacing_is_the_inverse_of_taking(case: tuple[list[int], int]) -> None:
    numbers, n = case
    once = list(dict.fromkeys(numbers))  # an entry is replaced once
    p = planner()
    low = replaced(p, vector(p, n), np.array(once, dtype=np.int64), p.make("mul", (
        p.make("index_select", (vector(p, n), -1, p.make("i:given", tuple(once), Type((len(once),), kind="index"),
                                                         stage=0)), Type((len(once),)), ("T",)), -2.0),
        Type((len(once),)), ("T",)))
    x = torch.randn(3, n, dtype=torch.double)
    expected = x.clone()
    expected[:, torch.tensor(once)] *= -2
    assert torch.equal(value(low, x), expected)


@pytest.mark.parametrize(("numbers", "n"), [
    ([0, 2, 4, 1, 3, 5], 6), ([0, 1, 4, 5], 8), ([1, 3, 5, 7], 8), (list(range(3, 9)), 9), ([0, 3, 1, 4, 2, 5], 6),
])
def test_the_patterns_of_adapters_are_views(numbers: list[int], n: int) -> None:
    """Butterflies, halves of groups, every second, a tail, pairs far apart."""
    p = planner()
    at = pattern(np.array(numbers, dtype=np.int64), n)
    assert at is not None and shown_by(p, vector(p, n), at) is not None
