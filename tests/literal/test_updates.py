"""Updates after backward against AdaLoRA's allocation written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from padp.compiler.literal.reference import Reference
from padp.compiler.literal.updates import Outcome, Site, cubic, initial_state, outcomes
from padp.compiler.names.resolve import resolve
from padp.dsl.diagnostics import PadpError
from padp.dsl.parse import parse
from padp.dsl.source import Source

ADALORA = """adapter AdaLoRA(r = 4, target = 2, α = 8, β₁ = 0.85, β₂ = 0.7, steps = 10) on linear(W ∈ ℝ^{m×n})
P ∈ ℝ^{m×r}: learned, init = normal(0.02)
Λ ∈ ℝ^r: learned, init = 0
Q ∈ ℝ^{r×n}: learned, init = normal(0.02)
y ← (W + (α/r) · P · diag(Λ) · Q) @ x
g(w) ← |w ⊙ ∇w|; a(w) ← ema(g(w), β₁); s(w) ← a(w) ⊙ ema(|g(w) - a(w)|, β₂)
after backward:
    S ← s(Λ) + mean_col(s(P)) + mean_row(s(Q))
    Λ ← keep(Λ, S, cubic(r, target, steps), over = model)
"""


def rand(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def reference(tensors: dict[str, Tensor], text: str = ADALORA) -> Reference:
    source = Source.of(text)
    return Reference(resolve(parse(source), source), {}, {}, tensors)


def test_adalora_over_three_sites_and_four_steps() -> None:
    shapes = [(5, 6), (5, 6), (7, 3)]
    tensors = [{"W": rand(m, n, seed=k), "P": rand(m, 4, seed=10 + k), "Λ": rand(4, seed=20 + k),
                "Q": rand(4, n, seed=30 + k)} for k, (m, n) in enumerate(shapes)]
    smooth: list[dict[str, Tensor]] = [{n: torch.zeros_like(v) for n, v in t.items()} for t in tensors]
    spread = [{n: torch.zeros_like(v) for n, v in t.items()} for t in tensors]
    states: list[Outcome | None] = [None, None, None]
    for step in range(4):
        gradients = [{n: rand(*t[n].shape, seed=100 + 10 * step + k) for n in ("P", "Λ", "Q")}
                     for k, t in enumerate(tensors)]
        sites = [Site(reference(t), g, {} if s is None else s.state)
                 for t, g, s in zip(tensors, gradients, states, strict=True)]
        got = outcomes(sites, step)
        scores: list[Tensor] = []
        for k, t in enumerate(tensors):
            importance: dict[str, Tensor] = {}
            for n in ("P", "Λ", "Q"):
                now = (t[n] * gradients[k][n]).abs()
                smooth[k][n] = 0.85 * smooth[k][n] + 0.15 * now
                spread[k][n] = 0.7 * spread[k][n] + 0.3 * (now - smooth[k][n]).abs()
                importance[n] = smooth[k][n] * spread[k][n]
            scores.append(importance["Λ"] + importance["P"].mean(0) + importance["Q"].mean(1))
        budget = int(3 * (2 + 2 * (1 - step / 10) ** 3))
        kept = torch.zeros(12, dtype=torch.float64)
        kept[torch.cat(scores).argsort(descending=True)[:budget]] = 1
        for k, t in enumerate(tensors):
            torch.testing.assert_close(got[k].values["Λ"], t["Λ"] * kept[4 * k : 4 * k + 4])
            assert set(got[k].values) == {"Λ"}
            t["Λ"] = got[k].values["Λ"] + 0.01
            states[k] = got[k]
        assert len(got[0].state) == 7  # two averages for each of Λ, P, Q, and what was kept
        assert {n: s.shape for n, s in initial_state(sites[0].reference).items()} == \
            {n: s.shape for n, s in got[0].state.items()}


def test_keep_without_a_model_ranks_each_site_alone() -> None:
    text = """adapter A on linear(W ∈ ℝ^{m×n})
v ∈ ℝ^n: learned, init = 1
y ← (W · v) @ x
after backward:
    v ← keep(v, |∇v|, 2)
    v ← keep(v, |v|, 1)
"""
    v = torch.tensor([1.0, 5.0, 3.0, 4.0])
    gradient = torch.tensor([9.0, 0.0, 8.0, 1.0])
    site = Site(reference({"W": torch.zeros(2, 4), "v": v}, text), {"v": gradient}, {})
    (one, two) = outcomes([site, site], 0)
    assert one.values["v"].tolist() == two.values["v"].tolist() == [0.0, 0.0, 3.0, 0.0]


def test_averages_of_different_values_have_different_states() -> None:
    text = """adapter A on linear(W ∈ ℝ^{m×n})
v ∈ ℝ^n: learned, init = 1
y ← (W · v) @ x
after backward:
    t ← |∇v|
    a ← ema(t, 0.5)
    t ← 2 · t
    b ← ema(t, 0.5)
    v ← a + b
"""
    site = Site(reference({"W": torch.zeros(2, 2), "v": torch.ones(2)}, text), {"v": torch.tensor([1.0, -2.0])}, {})
    (first,) = outcomes([site], 0)
    assert first.values["v"].tolist() == [1.5, 3.0]
    (second,) = outcomes([Site(site.reference, site.gradients, first.state)], 1)
    assert second.values["v"].tolist() == [2.25, 4.5]


def test_cubic() -> None:
    assert cubic(12, 8, 100, 0) == 12.0
    assert cubic(12, 8, 100, 50) == pytest.approx(8 + 4 / 8)
    assert cubic(12, 8, 100, 100) == cubic(12, 8, 100, 400) == 8.0
    assert [cubic(12, 8, 100, now, 10, 50) for now in (0, 10, 50, 51, 99, 200)] == [12.0, 12.0, 8.0, 8.0, 8.0, 8.0]
    assert cubic(12, 8, 100, 30, 10, 50) == pytest.approx(8 + 4 / 8)
    assert cubic(12, 8, 10, 0, 10, 10) == 8.0  # nothing between: the end counts


def test_a_missing_gradient_is_refused() -> None:
    tensors = {"W": rand(3, 3, seed=0), "P": rand(3, 4, seed=1), "Λ": rand(4, seed=2), "Q": rand(4, 3, seed=3)}
    with pytest.raises(PadpError, match="E210"):
        outcomes([Site(reference(tensors), {}, {})], 0)
