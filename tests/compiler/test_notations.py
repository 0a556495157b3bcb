"""What other people's notations mean here: each gets the way to write it."""

from __future__ import annotations

import pytest

import padp

HEAD = "adapter T(r = 4) on linear(W ∈ ℝ^{m×n})\nB ∈ ℝ^{m×r}: learned, init = 0\ng ∈ ℝ^r: learned, init = 1\n"

NOTATIONS: dict[str, tuple[str, str]] = {
    **{f"A ∈ ℝ^{{r×n}}: learned, init = {word}\ny ← (W + B @ A) @ x\n": ("E204", remedy) for word, remedy in (
        ("randn", "init = normal("), ("N(0, 0.02)", "init = normal(0, 0.02)"), ("he", "init = kaiming_normal"),
        ("glorot", "init = xavier"), ("rand", "init = uniform("))},
    "y ← W @ x + (Σ_e g_e) · bias\n": ("E201", "Σ_{e ∈ range(n)}"),
    "y ← W @ x + (Π_e g) · bias\n": ("E201", "for e in range(r)"),
    "y ← W @ (Π_e (I - g_e · I)) @ x\n": ("E203", "for i in range(r)"),
    "y ← W.t() @ x\n": ("E510", "Aᵀ"),
}


@pytest.mark.parametrize("text", NOTATIONS)
def test_a_notation_of_others_is_told_how_it_is_written(text: str) -> None:
    code, remedy = NOTATIONS[text]
    found = [d for d in padp.check(HEAD + text) if d.code == code]
    assert any(remedy in (d.suggestion or "") for d in found), list(map(str, found))
