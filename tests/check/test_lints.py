"""What is allowed and yet probably not meant: each lint where it speaks and where it must be silent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import padp
from padp.dsl.spellings import CONFUSABLES
from tests.support.marked import judged, messages

ON = "adapter T on linear(W ∈ ℝ^{m×n})\n"
HEAD = "adapter T(r = 4) on linear(W ∈ ℝ^{m×n})\n"
LOW = HEAD + "A ∈ ℝ^{r×n}: learned, init = kaiming\nB ∈ ℝ^{m×r}: learned, init = 0\n"
END = "y ← (W + B @ A) @ x\n"
TWO = ON + "λ ∈ ℝ^m: learned, init = 1\nμ ∈ ℝ^m: learned, init = 1\n"
EDIT = """adapter T(r = 4) on hidden(h ∈ ℝ^d)
R ∈ St(r, d): learned, init = orthogonal
b ∈ ℝ^r: learned, init = 0
"""

# ---------------------------------------------------------------- one row: program, with what is to be found marked

UNUSED: list[str] = [
    LOW + "«W301 C ← B @ A»\n" + END,
    LOW + "«W301 C ← B @ A»\nC ← B @ A\ny ← (W + C) @ x\n",
    LOW + "C ← B @ A\n«W301 C' ← 2 · C»\ny ← (W + C) @ x\n",
    LOW + "«W301 U, Σ, Vᵀ ← svd(W)»\n" + END,
    LOW + "«W301 y ← W @ x»\n" + END,
    LOW + "«W301 twice(u) ← 2 · u»\n" + END,
    LOW + "for i in range(r): «W301 s_i ← ‖aᵢ‖»\n" + END,
    LOW + "for i in range(r):\n    «W301 t ← ‖aᵢ‖»\n    s_i ← ‖aᵢ‖\ny ← (W + B · s @ A) @ x\n",
    LOW + "after backward:\n    «W301 S ← ‖∇A‖_F»\n    A ← A - 0.1 · ∇A\n".replace("after", END + "after"),
    # a parameter, a hyperparameter
    ON + "«W302 A» ∈ ℝ^{m×n}: learned, init = kaiming\ny ← W @ x\n",
    LOW + "«W302 Z» ∈ ℝ^m: frozen, init = ‖W‖_row\n" + END,
    LOW.replace("r = 4", "r = 4, «W302 q = 3»") + END,
    # in every variant, or in the one that has it
    LOW + "«W301 D ← 2 · W»\nvariant one:\n    y ← (W + B @ A) @ x\nvariant two:\n    «W301 E ← 3 · W»\n"
    "    y ← W @ x + B @ A @ x\n",
]
USED: list[str] = [
    LOW + "C ← B @ A\nC ← 2 · C\ny ← (W + C) @ x\n",
    LOW + "y ← W @ x\ny ← y + B @ A @ x\n",
    LOW + "U, Σ, Vᵀ ← svd(W)\ny ← (W + Σ_{0} · B @ A) @ x\n",
    LOW + "twice(u) ← 2 · u\nfour(u) ← twice(twice(u))\ny ← (W + B @ four(A)) @ x\n",
    LOW + "R ← I\nfor i in range(r): R ← (I - aᵢ aᵢᵀ) @ R\ny ← (W + B @ A @ R) @ x\n",
    LOW + "C ← A; C_{:1} ← A_{1:2}\ny ← (W + B @ C) @ x\n",
    LOW + "Z ∈ ℝ^m: frozen, init = ‖W‖_row\nc ∈ ℝ^m: learned, init = Z - Z\ny ← (W + B @ A) @ x + c\n",
    LOW + "S ← B @ A\nminimise ‖S‖_F²\n" + END,
    LOW + END + "after backward:\n    S ← ‖∇A‖_F\n    A ← A - S · ∇A\n",
    "adapter T(seed = 1) on linear(W ∈ ℝ^{m×n})\nC ∈ ℝ^{n×n}: frozen, init = kaiming, seed = seed\n"
    "λ ∈ ℝ^m: learned, init = 0\ny ← W @ x + λ ⊙ (W @ C @ x)\n",
    LOW + "D ← B @ A\nvariant one:\n    y ← (W + D) @ x\nvariant two:\n    y ← W @ x + B @ A @ x\n",
    LOW.replace("r = 4", "r = 4, g = 2") + "variant one:\n" + f"    {END}variant two:\n    y ← (W + g · B @ A) @ x\n",
    "adapter T(positions = \"all\") on hidden(h ∈ ℝ^d)\nb ∈ ℝ^d: learned, init = 0\nh ← h + b\n",
]

NO_GRADIENT: list[str] = [
    ON + "«W303 λ» ∈ ℝ^m: learned, init = 1\ny ← detach(λ) ⊙ (W @ x)\n",
    LOW.replace("A ∈", "«W303 A» ∈").replace("B ∈", "«W303 B» ∈") + "y ← W @ x + detach(B @ A) @ x\n",
    TWO.replace("μ ∈", "«W303 μ» ∈") + "y ← λ ⊙ (W @ x) + sign(μ) - ones(m)\n",
    TWO.replace("μ ∈", "«W303 μ» ∈") + "y ← λ ⊙ (W @ x) + 0 · μ\n",
    TWO.replace("μ ∈", "«W303 μ» ∈") + "minimise ‖detach(μ)‖²\ny ← λ ⊙ (W @ x)\n",
    TWO.replace("μ ∈", "«W303 μ» ∈") + "«W301 z ← 2 · μ»\ny ← λ ⊙ (W @ x)\n",
]
GRADIENT: list[str] = [
    LOW + "V ← W + B @ A\ng ∈ ℝ^m: learned, init = ‖W‖_row\ny ← (g ⊙ (V / detach(‖V‖_row))) @ x\n",
    TWO + "y ← detach(λ) ⊙ (λ ⊙ (W @ x)) + μ - ones(m)\n",
    ON + "μ ∈ ℝ^m: learned, init = 1\nminimise ‖μ‖²\ny ← W @ x\n",
    ON + "Z ∈ ℝ^m: frozen, init = ‖W‖_row\nμ ∈ ℝ^m: learned, init = 1\ny ← μ ⊙ (detach(Z) / Z) ⊙ (W @ x)\n",
]

REDUNDANT: list[str] = [
    TWO + "y ← «W304 λ ⊙ (μ ⊙ (W @ x))»\n",
    TWO + "y ← («W304 λ ⊙ μ») ⊙ (W @ x)\n",
    TWO + "y ← «W304 diag(λ) @ diag(μ) @ W @ x»\n",
    TWO + "y ← («W304 λ + μ» - ones(m)) ⊙ (W @ x)\n",
    ON + "a ∈ ℝ: learned, init = 1\nb ∈ ℝ: learned, init = 1\ny ← «W304 a · b» · W @ x\n",
    ON + "a ∈ ℝ: learned, init = 1\nλ ∈ ℝ^m: learned, init = 1\ny ← «W304 a · λ» ⊙ (W @ x)\n",
    LOW + "C ∈ ℝ^{m×r}: learned, init = 0\ny ← (W + («W304 B + C») @ A) @ x\n",
    LOW + "λ ∈ ℝ^r: learned, init = 1\nμ ∈ ℝ^r: learned, init = 1\ny ← (W + «W304 (B · λ) @ (μ · A)») @ x\n",
]
NEEDED: list[str] = [
    ON + "λ ∈ ℝ^m: learned, init = 1\nμ ∈ ℝ^n: learned, init = 1\ny ← λ ⊙ (W @ (μ ⊙ x))\n",
    TWO + "minimise ‖μ‖²\ny ← λ ⊙ (μ ⊙ (W @ x))\n",
    TWO + "y ← λ ⊙ (W @ x) + μ - ones(m)\n",
    LOW + "λ ∈ ℝ^r: learned, init = 1\ny ← (W + B · λ · A) @ x\n",
    LOW + "C ∈ ℝ^{r×r}: learned, init = orthogonal\ny ← (W + B @ C @ A) @ x\n",
    LOW + "λ ∈ ℝ^m: frozen, init = ‖W‖_row\nμ ∈ ℝ^m: learned, init = 1\ny ← (W + λ ⊙ (μ ⊙ (B @ A))) @ x\n",
]

NOT_IDENTITY: list[str] = [
    ON + "λ ∈ ℝ^m: learned, init = 0\n«W305 y ← λ ⊙ (W @ x)»\n",
    ON + "C ∈ ℝ^{m×n}: learned, init = normal(0.1)\n«W305 y ← (W + C) @ x»\n",
    ON + "C ∈ ℝ^{n×n}: learned, init = orthogonal\n«W305 y ← W @ C @ x»\n",
    ON + "λ ∈ ℝ^m: learned, init = 1\n«W305 y ← λ ⊙ (W @ x + bias) + bias»\n",
    LOW.replace("init = 0", "init = kaiming") + "«W305 y ← (W + B @ A) @ x»\n",
    "adapter T on hidden(h ∈ ℝ^d)\nb ∈ ℝ^d: learned, init = 1\n«W305 h ← h + b»\n",
    LOW + "variant one:\n    y ← (W + B @ A) @ x\nvariant two:\n    «W305 y ← 2 · (W + B @ A) @ x»\n",
]
IDENTITY: list[str] = [
    LOW + END,
    ON + "λ ∈ ℝ^m: learned, init = 1\ny ← λ ⊙ (W @ x + bias)\n",
    ON + "λ ∈ ℝ^m: learned, init = 2\ny ← (λ / 2) ⊙ (W @ x) + bias\n",
    ON + "a ∈ ℝ: learned, init = 1\ny ← a · W @ x\n",
    ON + "C ∈ ℝ^{m×n}: learned, init = W\ny ← (2 · W - C) @ x\n",
    ON + "C ∈ ℝ^{n×n}: learned, init = I\ny ← W @ C @ x\n",
    ON + "C ∈ ℝ^{n×n}: learned, init = 0\ny ← W @ expm(C) @ x\n",
    ON + "U, Σ, Vᵀ ← svd(W)\nc ∈ ℝ^{min(m,n)}: learned, init = √Σ\ny ← U · (c ⊙ c) · Vᵀ @ x\n",
    "adapter T(knob s = 1) on hidden(h ∈ ℝ^d)\nb ∈ ℝ^d: learned, init = 0\nh ← s · h + b\n",
    EDIT + "M ∈ ℝ^{r×d}: learned, init = R\nh ← h + Rᵀ @ (M @ h + b - R @ h)\n",
    # said, so meant
    "# not the identity at init: it has to be steered\n" + ON + "λ ∈ ℝ^m: learned, init = 0\ny ← λ ⊙ (W @ x)\n",
    ON + "λ ∈ ℝ^m: learned, init = 0    # not the identity at init\ny ← λ ⊙ (W @ x)\n",
    LOW + "variant one:\n    y ← (W + B @ A) @ x\nvariant two:\n    # not the identity at init\n"
    "    y ← 2 · (W + B @ A) @ x\n",
]

SHADOWED: list[str] = [
    LOW + "«W306 x ← 2 · x / 2»\n" + END,
    LOW + "«W306 A ← 2 · A»\n" + END,
    LOW + "«W306 skew ← B @ A»\ny ← (W + skew) @ x\n",
    ON + "«W306 diag» ∈ ℝ^m: learned, init = 1\ny ← diag ⊙ (W @ x)\n",
    LOW + "«W306 f»(W) ← 2 · W\ny ← (W + B @ f(A)) @ x\n",
    LOW + "«W306 f»(A) ← 2 · A\ny ← (W + B @ f(A)) @ x\n",
    LOW + "«W306 for sum in range(r):\n    s_{sum} ← 1»\ny ← (W + B · s @ A) @ x\n",
]
NOT_SHADOWED: list[str] = [
    LOW + "W' ← 2 · W\ny ← (W' / 2 + B @ A) @ x\n",
    LOW + "f(u) ← 2 · u\ny ← (W + B @ f(A)) @ x\n",
    LOW + END + "after backward:\n    A ← A - 0.1 · ∇A\n",
    EDIT + "z ← b\nh ← h + Rᵀ @ z\n",
]

CANCELS: list[str] = [
    LOW + "C ← B @ A\ny ← («W307 W + C - C») @ x\n",
    LOW + "y ← «W307 W @ x + B @ A @ x - B @ A @ x»\n",
    LOW + "y ← («W307 W + 2 · B @ A - B @ A - B @ A») @ x\n",
    LOW + "y ← (W + B @ («W307 A - A»)) @ x\n",
    EDIT + "z ← R @ h\nz ← z + b\nh ← h + Rᵀ @ («W307 z - R @ h»)\n",
    LOW + "U, Σ, Vᵀ ← svd(W)\nD ← W - U · Σ · Vᵀ\ny ← («W307 D + U · Σ · Vᵀ + B @ A») @ x\n",
    LOW + END + "minimise ‖«W307 A - A»‖_F²\n",
]
STAYS: list[str] = [
    LOW + "y ← (W + 2 · B @ A - B @ A) @ x\n",
    EDIT + "M ∈ ℝ^{r×d}: learned, init = R\nh ← h + Rᵀ @ (M @ h + b - R @ h)\n",
    LOW + "D ← W - 2 · W\ny ← (B @ A - D) @ x\n",
]

OTHER_AXIS: list[str] = [
    ON + "g ∈ ℝ^m: learned, init = ‖W‖_row\n«N401 y ← «W308 (g ⊙ (W / ‖W‖_col)) @ x»»\n",
    ON + "g ∈ ℝ^m: learned, init = ‖W‖_row\nV ← W / ‖W‖_col\n«N401 y ← «W308 diag(g) @ V @ x»»\n",
    ON + "g ∈ ℝ^n: learned, init = ‖W‖_col\n«N401 y ← «W308 ((W / ‖W‖_row) · g) @ x»»\n",
    LOW + "V ← W + B @ A\ng ∈ ℝ^m: learned, init = ‖W‖_row\n«N401 y ← «W308 (g ⊙ (V / detach(‖V‖_col))) @ x»»\n",
]
SAME_AXIS: list[str] = [
    ON + "g ∈ ℝ^m: learned, init = ‖W‖_row\ny ← (g ⊙ (W / ‖W‖_row)) @ x\n",
    ON + "g ∈ ℝ^n: learned, init = ‖W‖_col\ny ← ((W / ‖W‖_col) · g) @ x\n",
    ON + "g ∈ ℝ^m: learned, init = 1\nk ∈ ℝ^n: learned, init = ‖W‖_col\ny ← g ⊙ (((W / ‖W‖_col) · k) @ x)\n",
    LOW.replace("init = 0", "init = kaiming") + "# not the identity at init\n"
    "s ← 1 / (‖A‖_row · ‖B‖_col)\ny ← (W + B · s · A) @ x\n",
]

FOUND = [*UNUSED, *NO_GRADIENT, *REDUNDANT, *NOT_IDENTITY, *SHADOWED, *CANCELS, *OTHER_AXIS]
SILENT = [*USED, *GRADIENT, *NEEDED, *IDENTITY, *NOT_SHADOWED, *STAYS, *SAME_AXIS]


def short(text: str) -> str:
    return text.removeprefix(LOW).removeprefix(TWO).removeprefix(ON)


@pytest.mark.parametrize("text", FOUND, ids=map(short, FOUND))
def test_found(text: str) -> None:
    assert judged(text)


@pytest.mark.parametrize("text", SILENT, ids=map(short, SILENT))
def test_silent(text: str) -> None:
    assert judged(text) == []


# ---------------------------------------------------------------- what they say


def test_a_redundant_pair_shows_both() -> None:
    (found,) = judged(REDUNDANT[0])
    assert found.source is not None
    assert [found.source.slice(r.span) for r in found.related] == ["λ", "μ"]


def test_the_changed_value_that_was_meant_is_named() -> None:
    """C' is never used, and C stands where it was probably meant."""
    (found,) = judged(UNUSED[2])
    assert found.suggestion == "`C'` in the place of `C`"
    assert found.source is not None
    assert [found.source.position(r.span.start) for r in found.related] == [(6, 10)]


def test_what_is_left_after_cancelling() -> None:
    (found,) = judged(CANCELS[4])
    assert "`R @ h` cancels" in found.message and "h = h + Rᵀ @ b" in found.message


def test_the_start_is_shown() -> None:
    (found,) = judged(NOT_IDENTITY[3])
    assert found.message.endswith("y = W @ x + 2 · bias")


@pytest.mark.parametrize("letter", sorted(glyph for glyph, usual in CONFUSABLES.items() if usual.isalpha()))
def test_look_alike_letters(letter: str) -> None:
    """Each once, where it first stands; in comments and quotes anything is allowed."""
    usual = CONFUSABLES[letter]
    text = ON + f"{letter} ∈ ℝ^m: learned, init = 1    # {letter}\ny ← {letter} ⊙ (W @ x)\n"
    found = [d for d in padp.check(text) if d.code == "W309"]
    assert [(d.span.start if d.span else 0, d.suggestion) for d in found] == [(len(ON), f"`{usual}`")]
    assert not [d for d in padp.check(f"# {letter}\n{LOW}{END}") if d.code == "W309"]


def test_lints_need_a_sound_program_for_what_they_cannot_know() -> None:
    """With a name undeclared, a tensor that seems unused may be the one that was meant: only the error is told."""
    assert judged(LOW + "y ← (W + «E201 C» @ A) @ x\n")


def test_as_people_see_them(golden: Callable[[str, str], None]) -> None:
    golden("compiler/lints.txt", "\n\n".join(messages(text) for text in FOUND) + "\n")
