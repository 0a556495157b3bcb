"""What could be read in two ways: a dot between two matrices of one size, products that need parentheses, quotients by
factors side by side."""

from __future__ import annotations

import pytest
import torch

import padp
from padp.dsl.diagnostics import Diagnostic

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


# ---------------------------------------------------------------- products without parentheses

SQUARE = """adapter T(r = 2) on linear(W ∈ ℝ^{m×n})
P, R, S ∈ ℝ^{n×n}: learned, init = I
B ∈ ℝ^{n×r}: learned, init = kaiming
A ∈ ℝ^{r×n}: learned, init = kaiming
F ∈ (ℝ^{n×n})^2: learned, init = normal(1)
s, u ∈ ℝ^n: learned, init = 1
c ∈ ℝ: learned, init = 1
g ∈ ℝ^r: learned, init = 1
"""
MATRICES = [
    ("P · s @ R @ s · P", "(P · s @ R @ s) · P", "P · s @ R @ (s · P)"),
    ("P*s @ R @ s*P", "(P*s @ R @ s) * P", "P*s @ R @ (s*P)"),
    ("R @ s .* P", "(R @ s) .* P", "R @ (s .* P)"),
    ("R @ s · c · P", "(R @ s · c) · P", "R @ (s · c · P)"),
    ("R @ s / c · P", "(R @ s / c) · P", "R @ (s / c · P)"),
    ("B @ A @ s · P", "(B @ A @ s) · P", "B @ A @ (s · P)"),
    ("R @ (s + u) · (P + S)", "(R @ (s + u)) · (P + S)", "R @ ((s + u) · (P + S))"),
    ("(R + S) @ cos(s) · P", "((R + S) @ cos(s)) · P", "(R + S) @ (cos(s) · P)"),
    ("F_0 @ s · P", "(F_0 @ s) · P", "F_0 @ (s · P)"),
    ("R @ s · diag(u)", "(R @ s) · diag(u)", "R @ (s · diag(u))"),
    ("R @ S ⊙ P", "(R @ S) ⊙ P", "R @ (S ⊙ P)"),
    ("R @ S / c ⊙ P", "(R @ S / c) ⊙ P", "R @ (S / c ⊙ P)"),
    ("S ⊙ R @ P", "(S ⊙ R) @ P", "S ⊙ (R @ P)"),
    ("S ⊙ R @ B @ A", "(S ⊙ R @ B) @ A", "S ⊙ (R @ B @ A)"),
]
VECTORS = [
    ("R @ s · x", "(R @ s) · x", "R @ (s · x)"),
    ("R @ x · s", "(R @ x) · s", "R @ (x · s)"),
    ("R @ x ⊙ s", "(R @ x) ⊙ s", "R @ (x ⊙ s)"),
    ("u · R @ x · s", "(u · R @ x) · s", "u · R @ (x · s)"),
]
ALL = [(f"W @ ({e}) @ x", one, other) for e, one, other in MATRICES] + [(f"W @ ({e})", *both) for e, *both in VECTORS]


def errors(text: str) -> list[Diagnostic]:
    return [d for d in padp.check(text) if d.severity == "error"]


@pytest.mark.parametrize(("written", "one", "other"), ALL)
def test_two_groupings(written: str, one: str, other: str) -> None:
    """Refused, with both ways of writing it; either of them is read."""
    found = errors(f"{SQUARE}y ← {written}\n")
    assert [(d.code, d.suggestion) for d in found] == [("E302", f"{other}, or {one}")]
    inside = written.removeprefix("W @ (").removesuffix(" @ x").removesuffix(")")
    for chosen in (one, other):
        assert not errors(f"{SQUARE}y ← {written.replace(inside, chosen)}\n")


@pytest.mark.parametrize(("one", "other"), [both for _, *both in (MATRICES[0], MATRICES[-2], VECTORS[1])])
def test_each_grouping_is_what_it_says(one: str, other: str) -> None:
    """What is refused has two values, and both are computed as they are read."""
    made: list[torch.Tensor] = []
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    linear = torch.nn.Linear(4, 4, dtype=torch.double)
    for chosen in (one, other):
        torch.manual_seed(1)
        act = "" if "x" in chosen else " @ x"
        text = SQUARE.replace("init = I", "init = normal(1)").replace("init = 1", "init = normal(1)")
        layer = padp.compile(f"{text}y ← W @ ({chosen}){act}    # not the identity at init\n")(linear)
        assert torch.allclose(layer(x), layer.reference(x))
        made.append(layer(x).detach())
    assert not torch.allclose(made[0], made[1], rtol=1e-2)


@pytest.mark.parametrize("written", [
    "P · s @ R", "s · P @ R @ S", "B @ A ⊙ S", "R @ s · uᵀ", "I @ s · P", "diag(u) @ s · P", "c · R @ P",
    "S ⊙ R @ diag(s)", "S ⊙ R · s", "(R @ s) · P", "R s · P", "R @ diag(s) @ P", "B · g @ A", "uᵀ @ s · P"])
def test_one_grouping(written: str) -> None:
    assert not errors(f"{SQUARE}y ← W @ ({written}) @ x\n")


@pytest.mark.parametrize("written", ["B @ g · A", "Aᵀ @ g · A", "2 B @ g ⊙ A", "S @ B @ g · c · A"])
def test_the_grouping_that_fits(written: str) -> None:
    """From left to right it does not fit: the error has the parentheses with which it does."""
    (found,) = errors(f"{SQUARE}y ← W @ ({written}) @ x\n")
    assert found.code == "E301" and found.suggestion is not None
    assert not errors(f"{SQUARE}y ← W @ ({found.suggestion}) @ x\n")


def test_square_at_one_layer() -> None:
    """Sizes that happen to be equal at a layer do not make a product ambiguous there."""
    text = "adapter T on linear(W ∈ ℝ^{m×n})\nd ∈ ℝ^m: learned, init = 1\ny ← W @ x · d\n"
    assert not errors(text)
    linear, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    assert torch.allclose(padp.compile(text)(linear)(x), linear(x), atol=1e-6)


# ---------------------------------------------------------------- quotients by factors side by side


def said(line: str) -> list[str | None]:
    return [d.suggestion for d in padp.check(f"{SQUARE}{line}\n") if d.code == "W312"]


@pytest.mark.parametrize(("written", "first", "whole"), [
    ("1/2 s", "(1/2) s", "1/(2 s)"),
    ("c/r s", "(c/r) s", "c/(r s)"),
    ("1/2 c s", "(1/2) c s", "1/(2 c s)"),
    ("1/2(s)", "(1/2) (s)", "1/(2(s))"),
    ("1/(c)(s)", "(1/(c)) (s)", "1/((c)(s))"),
    ("1/2 cos s", "(1/2) cos s", "1/(2 cos s)"),
    ("1/√2 s", "(1/√2) s", "1/(√2 s)"),
    ("c/2s", "(c/2) s", "c/(2s)"),
    ("1/2 Σ_{i ∈ range(n)} s_i · u", "(1/2) Σ_{i ∈ range(n)} s_i · u", "1/(2 Σ_{i ∈ range(n)} s_i · u)"),
])
def test_quotient(written: str, first: str, whole: str) -> None:
    """Warned of once, with both readings; neither of them, as it is written there, is warned of again."""
    assert said(f"y ← W @ (x ⊙ ({written}))") == [f"{first} or {whole}, whichever is meant"]
    for chosen in (first, whole):
        assert said(f"y ← W @ (x ⊙ ({chosen}))") == []


@pytest.mark.parametrize("line", [
    "f(v) ← 1/2 v; y ← W @ f(x)", "y ← W @ x; minimise 1/2 c", "M ← c/r B @ A; y ← W @ x",
    "z ← 0 · s\nfor i in range(n):\n    z_i ← 1/2 u_i\ny ← W @ (x + z)",
    "q ∈ ℝ^{n}: learned, init = 1/2 s\ny ← W @ (q · x)"])
def test_wherever_it_stands(line: str) -> None:
    assert len(said(line)) == 1


@pytest.mark.parametrize("written", ["(1/2) s", "2 s/3", "s/2", "1/2 · s", "1/cos s", "1/(2 s)", "(c/r) s", "1/s²",
                                     "s/‖s‖"])
def test_plain_quotient(written: str) -> None:
    assert said(f"y ← W @ (x ⊙ ({written}))") == []
