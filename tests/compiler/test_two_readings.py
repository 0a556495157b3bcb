"""A dot or a star between two matrices of one size could be @ or ⊙: refused, unless one of them is a diagonal."""

from __future__ import annotations

import pytest

import padp

HEAD = """adapter T(r = 2) on linear(W ∈ ℝ^{m×n})
S, T ∈ ℝ^{n×n}: learned, init = I
P ∈ ℝ^{n×r}: learned, init = 0
Q ∈ ℝ^{r×n}: learned, init = kaiming
d ∈ ℝ^n: learned, init = 1
"""


@pytest.mark.parametrize("factor", ["S · T", "S * T", "2 · S · T",
                                    "S · (T + I)", "(S @ T) · S", "Sᵀ · T", "cayley(S) · T"])
def test_two_square_matrices(factor: str) -> None:
    found = [d for d in padp.check(f"{HEAD}y ← W @ ({factor}) @ x\n") if d.severity == "error"]
    assert [d.code for d in found] == ["E302"]
    assert "@ or ⊙" in found[0].message and found[0].suggestion is not None and "⊙" in found[0].suggestion


@pytest.mark.parametrize("factor", ["S @ T", "S ⊙ T", "S · d", "d · S", "S · diag(d) · T", "diag(d) · S", "P · Q",
                                    "2 · S", "S · eye(n)", "P · Q @ S", "d_0 · S"])
def test_one_reading(factor: str) -> None:
    assert not [d for d in padp.check(f"{HEAD}y ← W @ ({factor}) @ x\n") if d.severity == "error"]
