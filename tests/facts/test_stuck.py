"""What is said to stay at 0 stays there; what moves is not said to."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import nn

import padp
from padp.compiler.library import library
from padp.compiler.module.site import LinearSite
from tests.support.unseen import PROGRAMS

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
A = "A ∈ ℝ^{m×n}: learned, init = 0\n"
B = "B ∈ ℝ^m: learned, init = 0\n"
LOW = "C ∈ ℝ^{m×r}: learned, init = 0\nD ∈ ℝ^{r×n}: learned, init = 0\n"
BRANCHES = {
    "another in each": (A + B + "y ← W @ x + (A @ x if m ≥ n else B)\n", "", "AB"),
    "one in one": (A + B + "y ← W @ x + B + (A @ x if m ≥ n else zeros(m))\n", "", "AB"),
    "three": (A + B + "c ∈ ℝ: learned, init = 1\n"
              "y ← (W @ x + B if m > n else W @ x + A @ x) if m ≠ n else c · (W @ x)\n", "", "ABc"),
    "in a name of its own": (A + B + "z ← A @ x if m ≥ n else B\ny ← W @ x + z\n", "", "AB"),
    "in the penalty": (A + B + "y ← W @ x + B\nminimise (sum(exp(A)) if m ≥ n else 0)\n", "", "AB"),
    "detached in one": (A + B + "y ← W @ x + B + ((detach(A) @ x) if m ≥ n else A @ x)\n", "", "AB"),
    "detached in both": (A + B + "y ← W @ x + B + ((detach(A) @ x) if m ≥ n else (2 · detach(A) @ x))\n", "A", "B"),
    "detached in one, not in the other": (A + B + "y ← W @ x + B + ((detach(A) @ x) if m ≥ n else zeros(m))\n",
                                          "A", "B"),
    "two factors of 0 in one": (A + LOW + "y ← W @ x + (C @ D @ x if m ≥ n else A @ x)\n", "CD", "A"),
}


def said(program: str) -> set[str]:
    """The tensors that W303 speaks of."""
    return {d.message.split("`")[1] for d in padp.check(program) if d.code == "W303"}


def moves(program: str, n: int = 5, m: int = 4, variant: str | None = None) -> set[str]:
    """The tensors that training changes."""
    torch.manual_seed(0)
    model = padp.attach(nn.Sequential(nn.Linear(n, m)), padp.compile(program), variant=variant)
    tensors = cast(LinearSite, model[0]).module("default").tensors
    before = {name: tensors[name].detach().clone() for name in tensors}
    optimiser = torch.optim.SGD(padp.trainable(model), lr=0.1)
    for _ in range(4):
        (model(torch.randn(6, n)).square().sum() + padp.penalty(model)).backward()
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


@pytest.mark.parametrize("name", BRANCHES)
def test_what_one_branch_does_without_is_trained_in_another(name: str) -> None:
    body, still, moving = BRANCHES[name]
    assert said(HEAD + body) == set(still)
    trained = set().union(*(moves(HEAD + body, *sizes) for sizes in ((5, 4), (4, 5), (4, 4))))
    assert trained == set(moving)


VARIANTS = """adapter Either on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^m: learned, init = 0
B ∈ ℝ^m: learned, init = 0
z ← A ⊙ (W @ x)
variant left:
    y ← W @ x + z
variant right:
    y ← W @ x + B
"""


def test_what_one_variant_does_without_is_trained_in_another() -> None:
    assert said(VARIANTS) == set()
    assert (moves(VARIANTS, variant="left"), moves(VARIANTS, variant="right")) == ({"A"}, {"B"})


def test_what_no_variant_trains_is_named() -> None:
    assert said(VARIANTS.replace("+ z", "+ detach(z)")) == {"A"}
    assert said(VARIANTS.replace("+ z", "+ B")) == {"A"}


def test_no_adapter_stands_still() -> None:
    for name in library():
        assert said(name) == set(), name
    for name, (program, _) in PROGRAMS.items():
        assert said(program) == set(), name
