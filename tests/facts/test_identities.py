"""Fresh adapters that are the base, however it is written: proved, and so in numbers; what looks like it is neither."""

from __future__ import annotations

import itertools

import pytest
import torch

import padp
from tests.support.agreement import linear

HEAD = "adapter Fresh(r = 2) on linear(W ∈ ℝ^{m×n}) where r ≤ m, r ≤ n\n"
BASIS = "P ∈ ℝ^{m×r}: learned, init = kaiming\nB ∈ ℝ^{r×n}: learned, init = 0\nQ, R ← qr(P)\n"
INVERSE = "P ∈ ℝ^{m×r}: learned, init = kaiming\nB ∈ ℝ^{r×n}: learned, init = 0\nS ← (Pᵀ @ P)⁻¹\n"
RIGHT = "P ∈ ℝ^{n×r}: learned, init = kaiming\nB ∈ ℝ^{m×r}: learned, init = 0\nQ, R ← qr(P)\n"
TAKEN_AWAY = [
    BASIS + "y ← ((I - Q @ Qᵀ) @ W + Q @ (Qᵀ @ W + B)) @ x",
    BASIS + "y ← (W - Q @ Qᵀ @ W + Q @ (Qᵀ @ W + B)) @ x",
    BASIS + "y ← ((I - Q @ Qᵀ) @ W + Q @ Qᵀ @ W + Q @ B) @ x",
    BASIS + "S ← Q @ Qᵀ\ny ← ((I - S) @ W + S @ W + Q @ B) @ x",
    BASIS + "y ← (I - Q @ Qᵀ) @ W @ x + Q @ (Qᵀ @ W + B) @ x",
    BASIS + "y ← (I - Q @ Qᵀ) @ (W @ x + bias) + Q @ (Qᵀ @ (W @ x + bias) + B @ x)",
    BASIS + "z ← W @ x\ny ← z - Q @ (Qᵀ @ z) + Q @ (Qᵀ @ z + B @ x)",
    BASIS + "y ← 2 · (W / 2 - Q @ Qᵀ @ W / 4) @ x + Q @ (Qᵀ @ W / 2 + B) @ x",
    INVERSE + "y ← ((I - P @ S @ Pᵀ) @ W + P @ (S @ Pᵀ @ W + B)) @ x",
    INVERSE + "y ← ((I - P @ S @ Pᵀ) @ W + P @ (solve(Pᵀ @ P, Pᵀ @ W) + B)) @ x",
    RIGHT + "y ← (W @ (I - Q @ Qᵀ) + (W @ Q + B) @ Qᵀ) @ x",
    RIGHT + "y ← W @ (x - Q @ Qᵀ @ x) + (W @ Q + B) @ (Qᵀ @ x)",
    "s ∈ ℝ^n: learned, init = normal(1)\nt ∈ ℝ^n: learned, init = s\ny ← W @ ((ones(n) - s) ⊙ x + t ⊙ x)",
    "s ∈ ℝ: learned, init = normal(1)\nt ∈ ℝ: learned, init = s\ny ← (1 - s) · W @ x + t · (W @ x)",
    "A ∈ ℝ^{n×n}: learned, init = kaiming\nC ∈ ℝ^{n×n}: learned, init = A\n"
    "y ← W @ (x + (A + I) @ (C - I) @ x - (A @ A - I) @ x)",
]
MIX = "K ∈ ℝ^{m×n}: learned, init = kaiming\n"
FAMILY = "F ∈ (ℝ^{m×n})^2: learned, init = kaiming\n"
ONE_HOTS = [
    "e ∈ ℝ^2: frozen, init = [1; 0]\n" + MIX + "y ← e_0 · W @ x + e_1 · K @ x",
    "e ∈ ℝ^2: learned, init = [1, 0]\n" + MIX + "y ← (e_0 · W + e_1 · K) @ x",
    "e ∈ ℝ^3: learned, init = [1; zeros(2)]\n" + FAMILY + "y ← W @ x + Σ_{k ∈ range(1,3)} e_k · F_{k-1} @ x",
    "e ∈ ℝ^3: learned, init = [zeros(2); 1]\n" + FAMILY + "y ← W @ x + Σ_{k ∈ range(2)} e_k · F_k @ x",
    "e ∈ ℝ^n: frozen, init = [1; zeros(n - 1)]\n" + MIX + "y ← W @ x + e_1 · K @ x",
    "e ← zeros(3); e[0] ← 1\n" + MIX + "y ← e_0 · W @ x + e_2 · K @ x",
    "e ← ones(n); e[0] ← 1\n" + MIX + "y ← W @ (e ⊙ x) + sum(K) · zeros(m)",
    "e ∈ ℝ^3: frozen, init = eye(3)_{1}\n" + MIX + "y ← e_1 · W @ x + e_2 · K @ x",
    "e ∈ ℝ^3: frozen, init = [1, 0, 0]\nu ∈ ℝ^3: learned, init = [0, 1, 1]\n" + MIX + "y ← W @ x + (eᵀ @ u) · K @ x",
    "e ∈ ℝ^n: frozen, init = [1; zeros(n - 1)]\nu ∈ ℝ^n: learned, init = [0; ones(n - 1)]\ny ← W @ (x + e ⊙ u ⊙ x)",
    "e ∈ ℝ^n: frozen, init = [1; zeros(n - 1)]\nu ∈ ℝ^n: learned, init = [0; ones(n - 1)]\ny ← W @ diag(e + u) @ x",
    "e ∈ ℝ^n: frozen, init = [1; zeros(n - 1)]\ns ∈ ℝ^n: learned, init = e\ny ← W @ (x + (s - e) ⊙ x)",
    "E ∈ ℝ^{2×2}: frozen, init = [1, 0; 0, 0]\n" + MIX + "y ← E_{0,0} · W @ x + E_{0,1} · K @ x",
]
SET = "Ω ← sample(m, n, r, 1)\n"
SCATTERED = [
    SET + "c ∈ ℝ^Ω: learned, init = 0\ny ← (W + scatter(c, Ω, shape=(m, n))) @ x",
    SET + "c ∈ ℝ^Ω: learned, init = kaiming\nd ∈ ℝ^Ω: frozen, init = c\ny ← (W + scatter(c - d, Ω, shape=(m, n))) @ x",
    SET + "c ∈ ℝ^Ω: learned, init = kaiming\nd ∈ ℝ^Ω: frozen, init = c\n"
    "y ← (W + scatter(c, Ω, shape=(m, n)) - scatter(d, Ω, shape=(m, n))) @ x",
    SET + "c ∈ ℝ^Ω: learned, init = 0\ny ← W @ x + 2 · scatter(c, Ω, shape=(m, n)) @ x",
    "Ω ← largest(|W|, r)\nc ∈ ℝ^Ω: learned, init = 0\ny ← (W + scatter(c, Ω, shape=(m, n)) ⊙ W) @ x",
    "Ω ← band(n, 1)\nc ∈ ℝ^Ω: learned, init = 0\ny ← W @ (I + scatter(c, Ω, shape=(n, n))) @ x",
    "Ω ← band(n, 1)\nc ∈ ℝ^Ω: learned, init = 0\ny ← W @ expm(scatter(c, Ω, shape=(n, n))) @ x",
]
OTHERS = [
    BASIS + "y ← ((I - Q @ Qᵀ) @ W + Q @ B) @ x",
    BASIS + "y ← ((I - Q @ Qᵀ) @ W + 2 · Q @ (Qᵀ @ W + B)) @ x",
    BASIS + "y ← ((I - Q @ Qᵀ) @ W + P @ Qᵀ @ W + Q @ B) @ x",
    INVERSE + "y ← ((I - P @ Pᵀ) @ W + P @ (S @ Pᵀ @ W + B)) @ x",
    RIGHT + "y ← (W @ (I - P @ Qᵀ) + (W @ Q + B) @ Qᵀ) @ x",
    "s ∈ ℝ^n: learned, init = normal(1)\nt ∈ ℝ^n: learned, init = normal(1)\ny ← W @ ((ones(n) - s) ⊙ x + t ⊙ x)",
    "A ∈ ℝ^{n×n}: learned, init = kaiming\nC ∈ ℝ^{n×n}: learned, init = kaiming\n"
    "y ← W @ (x + A @ C @ x - C @ A @ x)",
    "e ∈ ℝ^2: frozen, init = [1; 0]\n" + MIX + "y ← e_1 · W @ x + e_0 · K @ x",
    "e ∈ ℝ^3: learned, init = [1; zeros(2)]\n" + FAMILY + "y ← W @ x + Σ_{k ∈ range(2)} e_k · F_k @ x",
    "e ∈ ℝ^3: learned, init = [zeros(2); 1]\n" + FAMILY + "y ← W @ x + Σ_{k ∈ range(1,3)} e_k · F_{k-1} @ x",
    "e ← zeros(3); e[1] ← 1\n" + MIX + "y ← W @ x + e_1 · K @ x",
    "e ← ones(n); e[0] ← 2\n" + MIX + "y ← W @ (e ⊙ x) + sum(K) · zeros(m)",
    "e ∈ ℝ^n: frozen, init = [1; zeros(n - 1)]\nu ∈ ℝ^n: learned, init = [1; ones(n - 1)]\ny ← W @ (x + e ⊙ u ⊙ x)",
    "e ∈ ℝ^n: frozen, init = [1; zeros(n - 1)]\n" + MIX + "y ← W @ x + e_{-n} · K @ x",
    SET + "c ∈ ℝ^Ω: learned, init = 0\ny ← (W + scatter(c + ones(r), Ω, shape=(m, n))) @ x",
]
SIZES = [(4, 4), (4, 5), (3, 2), (2, 2)]


def fresh(body: str, m: int, n: int) -> float:
    """How far a fresh layer is from its base."""
    adapter = padp.compile(HEAD + body + "\n")
    base = linear(m, n)
    layer = adapter(base, dtype=torch.double)
    x = torch.randn(3, n, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        off = max(float((y - base(x)).abs().max()) for y in (layer(x), layer.eval()(x), layer.reference(x)))
    return off


@pytest.mark.parametrize("body", [*TAKEN_AWAY, *ONE_HOTS, *SCATTERED])
def test_proved_and_so(body: str) -> None:
    said = padp.compile(HEAD + body + "\n").capabilities["identity"]
    assert said, said.reason
    assert not {"N401", "W305"} & {d.code for d in padp.check(HEAD + body + "\n")}
    for m, n in SIZES:
        assert fresh(body, m, n) < 1e-12


@pytest.mark.parametrize("body", OTHERS)
def test_what_only_looks_like_it_is_not_proved(body: str) -> None:
    assert not padp.compile(HEAD + body + "\n").capabilities["identity"]
    assert fresh(body, 4, 5) > 1e-3


@pytest.mark.parametrize(("first", "second"), list(itertools.product(range(3), range(3))))
def test_an_entry_of_parts_is_that_of_the_tensor(first: int, second: int) -> None:
    """[a; b]_i for every place: 1 where the program's own number is 1, 0 where it is 0."""
    parts = ["1, 0, 0", "0, 1, 0", "0, 0, 1"][first]
    program = f"{HEAD}e ∈ ℝ^3: frozen, init = [{parts}]\n{MIX}y ← W @ x + e_{second} · K @ x\n"
    assert bool(padp.compile(program).capabilities["identity"]) == (first != second)
