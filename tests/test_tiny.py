"""Start here: what padp does, in five tests. A program of a few lines becomes a layer that trains and merges."""

from __future__ import annotations

import pytest
import sympy
import torch
from torch import nn

import padp

LOW_RANK = """
adapter LowRank(r = 4, α = 8) on linear(W ∈ ℝ^{m×n})

A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = 0

ΔW ← B @ A                        # ΔW ∈ ℝ^{m×n}, rank r
y ← (W + (α/r) · ΔW) @ x
# params: r(m + n)
"""


def test_check_finds_nothing_wrong() -> None:
    assert padp.check(LOW_RANK) == []


def test_count_is_a_formula() -> None:
    m, n, r = (sympy.Symbol(name, integer=True, positive=True) for name in "mnr")
    assert sympy.expand(padp.compile(LOW_RANK).count - r * (m + n)) == 0


def test_a_layer_starts_as_the_one_it_wraps_then_learns_then_merges() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 5)
    layer = padp.compile(LOW_RANK)(linear, r=2)
    x, wanted = torch.randn(7, 6), torch.randn(7, 5)

    assert torch.equal(layer(x), linear(x))
    assert layer.tensors["A"].shape == (2, 6)

    learned = [p for p in layer.parameters() if p.requires_grad]
    assert sum(p.numel() for p in learned) == 2 * (5 + 6)
    optimiser = torch.optim.SGD(learned, lr=0.1)
    losses: list[float] = []
    for _ in range(20):
        loss = (layer(x) - wanted).square().mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]

    layer.eval()
    before, weight = layer(x), linear.weight.detach().clone()
    torch.testing.assert_close(before, layer.reference(x))  # the program read literally
    layer.merge()
    torch.testing.assert_close(layer(x), before)
    assert not torch.equal(linear.weight, weight)
    layer.unmerge()
    assert torch.equal(linear.weight, weight)  # bitwise


def test_attach_puts_it_into_a_model() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
    x = torch.randn(3, 6)
    before = model(x)
    padp.attach(model, padp.compile(LOW_RANK), r=2)
    assert torch.equal(model(x), before)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2 * (6 + 8) + 2 * (8 + 5)
    padp.detach(model)
    assert isinstance(model[0], nn.Linear)


def test_a_wrong_program_is_refused_where_it_is_wrong() -> None:
    wrong = LOW_RANK.replace("B @ A ", "A @ B ")
    (first, *_) = padp.check(wrong)
    assert first.code == "E301"
    assert first.span is not None and first.source is not None
    assert "A @ B" in first.source.slice(first.span)
    with pytest.raises(padp.PadpError):
        padp.compile(wrong)(nn.Linear(6, 5))
