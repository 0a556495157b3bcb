"""What has no value, or no derivative, at what a fresh adapter starts from is said by ``check``, at its place."""

from __future__ import annotations

import pytest

import padp

HEAD = "# not the identity at init: a test\nadapter D on linear(W ∈ ℝ^{m×n})\n"
TENSORS = """s ∈ ℝ^n: learned, init = {0}
c ∈ ℝ: learned, init = {0}
S ∈ ℝ^{{n×n}}: learned, init = {0}
"""
NOWHERE = {
    "x / s": "0", "(1/s) ⊙ x": "0", "x / c": "0", "(1/c) · x": "0", "c⁻¹ · x": "0", "S⁻¹ @ x": "0", "solve(S, x)": "0",
    "log(s) ⊙ x": "0", "log(c) · x": "0", "√s ⊙ x": "-1", "√c · x": "-1", "log(s) ⊙ x + x": "-2", "s^-2 ⊙ x": "0",
    "s^0.5 ⊙ x": "-1", "(x / (s + s))": "0", "x / tanh(c)": "0",
}
STEEP = {"√s ⊙ x": "0", "√c · x": "0", "s^0.5 ⊙ x": "0", "√|s| ⊙ x": "0", "|s|^(1/3) ⊙ x": "0"}
FINE = {
    "x / s": "1", "x / (1 + c²)": "0", "exp(s) ⊙ x": "0", "√(1 + c²) · x": "0", "log(1 + c²) · x": "0",
    "x + s / ‖s‖": "0", "x + (1/‖S‖_F) · s": "0", "‖s‖ · x": "0", "√‖s‖ · x": "0", "(I + S)⁻¹ @ x": "0",
    "|s| ⊙ x": "0", "s² ⊙ x": "0",
}


def codes(expression: str, start: str) -> list[padp.Diagnostic]:
    names = [name for name in "scS" if any(name == mark for mark in expression.replace("sinh", ""))]
    lines = [line for line in TENSORS.format(start).splitlines() if line[0] in names]
    return [d for d in padp.check("\n".join([HEAD.strip(), *lines, f"y ← W @ ({expression})", ""])) if d.code == "W311"]


@pytest.mark.parametrize("expression", NOWHERE)
def test_no_value_at_the_start(expression: str) -> None:
    (found,) = codes(expression, NOWHERE[expression])
    assert "no finite value" in found.message and found.span is not None


@pytest.mark.parametrize("expression", STEEP)
def test_no_derivative_at_the_start(expression: str) -> None:
    (found,) = codes(expression, STEEP[expression])
    assert "infinite derivative" in found.message and found.span is not None


@pytest.mark.parametrize("expression", FINE)
def test_a_value_at_the_start(expression: str) -> None:
    assert codes(expression, FINE[expression]) == []
