"""What is said to stay at 0 stays there; what moves is not said to."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import nn

import padp
from padp.compiler.program import library
from padp.compiler.site import LinearSite
from tests.compiler.unseen import PROGRAMS

HEAD = "adapter Still(r = 2) on linear(W ∈ ℝ^{m×n})\n"
STUCK = {
    "both factors": ("A ∈ ℝ^{r×n}: learned, init = 0\nB ∈ ℝ^{m×r}: learned, init = 0\ny ← (W + B @ A) @ x\n", "AB"),
    "no start said": ("A ∈ ℝ^{r×n}: learned\nB ∈ ℝ^{m×r}: learned\ny ← (W + B @ A) @ x\n", "AB"),
    "a gate and a factor": ("A ∈ ℝ^{r×n}: learned, init = kaiming\nB ∈ ℝ^{m×r}: learned, init = 0\n"
                            "t ∈ ℝ: learned, init = 0\ny ← W @ x + tanh(t) · (B @ (A @ x))\n", "Bt"),
    "a square": ("B ∈ ℝ^{m×r}: learned, init = 0\nA ∈ ℝ^{r×n}: learned, init = kaiming\ng ∈ ℝ^r: learned, init = 0\n"
                 "y ← (W + B · g² @ A) @ x\nminimise ‖g‖²\n", "Bg"),
    "three": ("A ∈ ℝ^{r×n}: learned, init = 0\nB ∈ ℝ^{m×r}: learned, init = 0\ng ∈ ℝ^r: learned, init = 0\n"
              "y ← (W + B · g @ A) @ x\n", "ABg"),
}
MOVING = {
    "one factor": "A ∈ ℝ^{r×n}: learned, init = kaiming\nB ∈ ℝ^{m×r}: learned, init = 0\ny ← (W + B @ A) @ x\n",
    "one after the other": "A ∈ ℝ^{r×n}: learned, init = kaiming\nB ∈ ℝ^{m×r}: learned, init = 0\n"
                           "g ∈ ℝ^r: learned, init = 0\ny ← (W + B · (1 · ones(r) + g) @ A) @ x\n",
    "a sigmoid of 0": "g ∈ ℝ^n: learned, init = 0\nB ∈ ℝ^m: learned, init = 0\n"
                      "y ← W @ x + sigmoid(gᵀ @ x) · B\n",
    "a loss on one": "A ∈ ℝ^{r×n}: learned, init = 0\nB ∈ ℝ^{m×r}: learned, init = 0\ny ← (W + B @ A) @ x\n"
                     "minimise sum(exp(A))\n",
    "after backward": "A ∈ ℝ^{r×n}: learned, init = 0\nB ∈ ℝ^{m×r}: learned, init = 0\ny ← (W + B @ A) @ x\n"
                      "after backward:\n    A ← A + ones(r, n)\n",
}


def said(program: str) -> set[str]:
    """The tensors that W303 speaks of."""
    return {d.message.split("`")[1] for d in padp.check(program) if d.code == "W303"}


def moves(program: str) -> set[str]:
    """The tensors that training changes."""
    torch.manual_seed(0)
    model = padp.attach(nn.Sequential(nn.Linear(5, 4)), padp.compile(program))
    tensors = cast(LinearSite, model[0]).module("default").tensors
    before = {name: tensors[name].detach().clone() for name in tensors}
    optimiser = torch.optim.SGD(padp.trainable(model), lr=0.1)
    for _ in range(4):
        (model(torch.randn(6, 5)).square().sum() + padp.penalty(model)).backward()
        optimiser.step()
        padp.update(model)
        optimiser.zero_grad()
    return {name for name in tensors if not torch.equal(tensors[name], before[name])}


@pytest.mark.parametrize("name", STUCK)
def test_what_stays_at_zero_is_named(name: str) -> None:
    body, names = STUCK[name]
    assert said(HEAD + body) == set(names)
    assert moves(HEAD + body).isdisjoint(names)


@pytest.mark.parametrize("name", MOVING)
def test_what_moves_is_not_named(name: str) -> None:
    assert said(HEAD + MOVING[name]) == set()
    assert moves(HEAD + MOVING[name]) >= {"B"}


def test_no_adapter_stands_still() -> None:
    for name in library():
        assert said(name) == set(), name
    for name, (program, _) in PROGRAMS.items():
        assert said(program) == set(), name
