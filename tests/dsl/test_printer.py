"""Printing and parsing are inverse, in glyphs and in ASCII."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from padp.dsl.parse import parse
from padp.dsl.printer import show, to_text
from padp.dsl.source import Source
from padp.dsl.syntax import Assign, Declare, Expr, Name, Program
from tests.support.trees import programs, value

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@given(programs)
@settings(max_examples=50, deadline=None, suppress_health_check=SLOW)
def test_parse_of_print_is_the_tree(program: Program) -> None:
    for ascii in (False, True):
        text = to_text(program, ascii)
        again = parse(Source.of(text))
        assert again == program, text
        assert to_text(again, ascii) == text


@given(value(3))
@settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
def test_parse_of_print_is_the_expression(e: Expr) -> None:
    for ascii in (False, True):
        text = f"y ← {show(e, ascii)}"
        (statement,) = parse(Source.of(text)).body
        assert statement == Assign((Name("y"),), "←", e), text


def one(text: str) -> tuple[str, str]:
    """Both spellings of a statement."""
    tree = parse(Source.of(text))
    return to_text(tree).rstrip("\n"), to_text(tree, ascii=True).rstrip("\n")


SPELLINGS = [
    ("ΔW ← B@A", "ΔW ← B @ A", "Delta_W <- B @ A"),
    ("y <- (W + (alpha/r)*Delta_W) @ x", "y ← (W + (α/r) · ΔW) @ x", "y <- (W + (alpha/r) * Delta_W) @ x"),
    ("V_hat <- V / ||V||_col", "V̂ ← V / ‖V‖_col", "V_hat <- V / ||V||_col"),
    ("A in R^{r x n}: learned", "A ∈ ℝ^{r×n}: learned", "A in R^{r x n}: learned"),
    ("Q ∈ (ℝ^{k(k-1)/2})^{F×b}:learned", "Q ∈ (ℝ^{k(k-1)/2})^{F×b}: learned", "Q in (R^{k(k-1)/2})^{F x b}: learned"),
    ("y ← (I + K)(I - K)⁻¹", "y ← (I + K)(I - K)⁻¹", "y <- (I + K)(I - K)^-1"),
    ("D ← sum_{(i,j) in Omega} c_{i,j} * U_{:,i} V.T_{j,:}", "D ← Σ_{(i, j) ∈ Ω} c_{i,j} · U_{:,i} Vᵀ_{j,:}",
     "D <- sum_{(i, j) in Omega} c_{i,j} * U_{:,i} V.T_{j,:}"),
    ("D ← Σᵢ (b_i ⊙ Bᵢ)", "D ← Σᵢ (bᵢ ⊙ Bᵢ)", "D <- sum_{i} (b_i .* B_i)"),
    ("g ← |w ⊙ ∇w|", "g ← |w ⊙ ∇w|", "g <- |w .* grad w|"),
    ("a ← √Σ_{:r} + sqrt(b)²", "a ← √Σ_{:r} + √(b)²", "a <- sqrt Sigma_{:r} + sqrt(b)^2"),
    ("x̂[2i + 1] ← α_i · x[2 i+1]", "x̂[2i+1] ← αᵢ · x[2i+1]", "x_hat[2i+1] <- alpha_i * x[2i+1]"),
    ("a ← x²^3 + x^-1^2 + x^k + Vᵀᵀ", "a ← x²^{3} + x⁻¹^{2} + x^{k} + Vᵀ.T", "a <- x^2^3 + x^-1^2 + x^{k} + V.T.T"),
    ("a ← ‖‖u‖ · |v|‖ + | |w| |", "a ← ‖ ‖u‖ · |v| ‖ + | |w| |", "a <- || ||u|| * |v| || + | |w| |"),
    ("a ← A (x) B", "a ← A ⊗ B", "a <- A (x) B"),
    ("a ← Sigma_i u", "a ← Sigma_i u", "a <- Sigma_i u"),
    ("y ← a if m>=n else b", "y ← a if m ≥ n else b", "y <- a if m >= n else b"),
    ("minimize γ·a", "minimise γ · a", "minimise gamma * a"),
]


@pytest.mark.parametrize(("text", "glyphs", "ascii"), SPELLINGS, ids=[row[0] for row in SPELLINGS])
def test_both_spellings(text: str, glyphs: str, ascii: str) -> None:
    assert one(text) == (glyphs, ascii)
    assert one(glyphs) == one(ascii) == (glyphs, ascii)


def test_layout() -> None:
    text = (
        "# title\nadapter X(r=8,knob α=1,steps) on linear(W∈ℝ^{m×n},p=\"f7\") where n=b·k,r even # head\n"
        "a←1;b←2 # two\nvariant one:#v\n  # inside\n  for i in range(r): a←b;c←d#last\n"
        "common:\n  after backward: z←1\n# end"
    )
    assert to_text(parse(Source.of(text))) == (
        "# title\n"
        'adapter X(r = 8, knob α = 1, steps) on linear(W ∈ ℝ^{m×n}, p = "f7") where n = b·k, r even  # head\n'
        "\n"
        "a ← 1\n"
        "b ← 2  # two\n"
        "variant one:  # v\n"
        "    # inside\n"
        "    for i in range(r):\n"
        "        a ← b\n"
        "        c ← d  # last\n"
        "common:\n"
        "    after backward:\n"
        "        z ← 1\n"
        "# end\n"
    )


def test_empty() -> None:
    assert to_text(Program(None, ())) == ""


def test_show_a_space() -> None:
    (declared,) = parse(Source.of("A ∈ (ℝ^{m×n})^b: learned")).body
    assert isinstance(declared, Declare)
    assert (show(declared.space), show(declared.space, ascii=True)) == ("(ℝ^{m×n})^b", "(R^{m x n})^b")
