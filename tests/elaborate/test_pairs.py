"""Chains and entries over pairs of neighbours where the size is odd: the last one is in no pair, in every reading.

What does not fit such a size is refused by name when it is attached, and by the literal reading too.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import padp
from padp.dsl.diagnostics import PadpError
from tests.support.agreement import agree, linear

TURN = "G[i,i] ← cos t; G[j,j] ← cos t; G[i,j] ← -sin t; G[j,i] ← sin t"
OVER_A_SET = [
    f"Ω ← pairs(n)\nθ ∈ ℝ^Ω: learned, init = 0\nR ← I\nfor (i,j) in Ω:\n    t ← θ_{{i,j}}\n    G ← I; {TURN}\n"
    "    R ← G @ R\ny ← W @ R @ x",
    f"Ω ← pairs(n)\nθ ∈ ℝ^Ω: learned, init = 0\nR ← I\nfor (i,j) in Ω:\n    t ← θ_{{i,j}}\n    G ← I; {TURN}\n"
    "    R ← R @ Gᵀ\ny ← W @ R @ x",
    "s ∈ ℝ^n: learned, init = 1\nR ← I\nfor (i,j) in pairs(n):\n    G ← I; G[i,i] ← s_i; G[j,i] ← s_j - 1\n"
    "    R ← G @ R\ny ← W @ R @ x",
    "s ∈ ℝ^n: learned, init = 1\nR ← eye(n)\nfor (i,j) in pairs(n):\n    R[i,j] ← s_i - s_j\n"
    "y ← W @ R @ x",
    "Ω ← pairs(n)\nθ ∈ ℝ^Ω: learned, init = 0\nz ← x\nfor (i,j) in Ω:\n    z ← tanh(z) + θ_{i,j} · x\ny ← W @ z",
    "Ω ← pairs(n)\nθ, s ∈ ℝ^Ω: learned, init = 0\nz ← zeros(n)\nfor (i,j) in Ω:\n    for (k,l) in Ω:\n"
    "        z ← tanh(z) + θ_{i,j} · s_{k,l} · x\ny ← W @ (x + z)",
    "Ω ← pairs(n)\nc ∈ ℝ^Ω: learned, init = 0\ny ← W @ (I + scatter(c, Ω, shape=(n, n))) @ x",
    "s ∈ ℝ^n: learned, init = 0\nz ← W @ x\nfor (i,j) in pairs(m):\n    z[i] ← z_i + sum(s) · z_j\ny ← z",
]
BY_NUMBER = [
    "θ ∈ ℝ^{n//2}: learned, init = 0\nR ← I\nfor k in range(n//2):\n    t ← θ_k\n    G ← I; "
    "G[2k,2k] ← cos t; G[2k+1,2k+1] ← cos t; G[2k,2k+1] ← -sin t; G[2k+1,2k] ← sin t\n    R ← G @ R\ny ← W @ R @ x",
    "s ∈ ℝ^{n//2}: learned, init = 1\nR ← I\nfor k in range(n//2):\n    G ← I; G[2k,2k+1] ← s_k\n    R ← G @ R\n"
    "y ← W @ R @ x",
]
SIZES = [(4, 1), (4, 3), (5, 5), (3, 7), (1, 1), (4, 4)]
HEAD = "adapter Pairs on linear(W ∈ ℝ^{m×n})\n"


@pytest.mark.parametrize(("m", "n"), SIZES)
@pytest.mark.parametrize("body", [*OVER_A_SET, *BY_NUMBER])
def test_readings_agree(body: str, m: int, n: int) -> None:
    agree(HEAD + body + "\n", m, n, by=0.2)


@pytest.mark.parametrize("body", OVER_A_SET[:2])
def test_the_last_of_an_odd_size_stays(body: str) -> None:
    layer = padp.compile(HEAD + body + "\n")(linear(4, 5), dtype=torch.double)
    with torch.no_grad():
        layer.tensors["θ"].fill_(torch.pi / 2)
    turn = torch.zeros(5, 5, dtype=torch.double)
    for i in (0, 2):
        turn[i, i + 1], turn[i + 1, i] = -1, 1
    turn[4, 4] = 1
    wanted = turn.T if "Gᵀ" in body else turn
    x = torch.randn(3, 5, dtype=torch.double)
    for y in (layer(x), layer.reference(x)):
        torch.testing.assert_close(y, x @ wanted.T @ layer.base.weight.T + layer.base.bias)


SUMS = ["Σ_{(i,j) ∈ pairs(n)} s_i · s_j", "sum(scatter(ones(n//2), pairs(n), shape=(n, n)) ⊙ (s sᵀ))"]


@pytest.mark.parametrize(("m", "n"), SIZES)
@pytest.mark.parametrize("total", SUMS)
def test_sums_agree_or_are_refused_where_there_is_no_pair(total: str, m: int, n: int) -> None:
    program = f"{HEAD}s ∈ ℝ^n: learned, init = 1\ny ← W @ x + ({total}) · (W @ x)\n"
    if n == 1 and "Σ" in total:
        with pytest.raises(PadpError, match="E501"):
            padp.compile(program)(nn.Linear(n, m))
        return
    agree(program, m, n, by=0.2)


HALVES = ["θ ∈ ℝ^{n/2}: learned, init = 0\ny ← W @ x + sum(θ) · (W @ x)", "P ← perm(butterfly(n, 2, 0))\n"
          "s ∈ ℝ^n: learned, init = 1\ny ← W @ P @ (s ⊙ Pᵀ @ x)",
          "s ∈ ℝ^n: learned, init = 1\nR ← I\nfor (i,j) in halves(n, 2):\n    G ← I; G[i,j] ← s_i\n    R ← G @ R\n"
          "y ← W @ R @ x"]


@pytest.mark.parametrize("body", HALVES)
def test_what_needs_an_even_size_is_refused_at_an_odd_one(body: str) -> None:
    """By name, before anything runs; what runs at an odd size agrees with the literal reading."""
    agree(HEAD + body + "\n", 4, 6)
    try:
        padp.compile(HEAD + body + "\n")(nn.Linear(5, 4))
    except PadpError as error:
        assert "E5" in str(error) or "E3" in str(error)
        return
    agree(HEAD + body + "\n", 4, 5)

SETS = ["band(n, 1)", "pairs(n)", "sample(n, n, 3, 1)", "halves(n, n)", "largest(|W|, 3)"]
STEPS = {"a sum": "y ← W @ x + Σ_{(i,j) ∈ Ω} PLACE · W_{:,i}", "a chain of steps":
         "z ← x\nfor (i,j) in Ω:\n    z ← tanh(z) + PLACE · x\ny ← W @ z"}
SQUARE = "adapter Pairs on linear(W ∈ ℝ^{n×n})\n"


@pytest.mark.parametrize("places", ["θ_{j,i}", "θ_{i,i}", "θ_{j,j}", "θ_{i,0}", "θ_{0,1}"])
@pytest.mark.parametrize("way", STEPS)
@pytest.mark.parametrize("index_set", SETS)
def test_other_places_than_those_of_the_element_are_refused(index_set: str, way: str, places: str) -> None:
    """c_{q,p} at (p, q) would be another element's number, or that of none."""
    program = f"{SQUARE}Ω ← {index_set}\nθ ∈ ℝ^Ω: learned, init = 0\n{STEPS[way].replace('PLACE', places)}\n"
    assert "E305" in {d.code for d in padp.check(program)}


@pytest.mark.parametrize("way", STEPS)
@pytest.mark.parametrize("index_set", SETS)
def test_the_element_of_each_step(index_set: str, way: str) -> None:
    program = f"{SQUARE}Ω ← {index_set}\nθ ∈ ℝ^Ω: learned, init = 0\n{STEPS[way].replace('PLACE', 'θ_{i,j}')}\n"
    if way == "a sum" or "largest" not in index_set:
        agree(program, 4, 4, by=0.2)
    else:  # a loop that carries a value needs places known from the sizes
        with pytest.raises(PadpError, match="E307"):
            padp.compile(program)(nn.Linear(4, 4))
