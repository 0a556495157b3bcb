"""Shapes are proved for all sizes: what fits, what does not and where, and that one error is told once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import padp
from tests.support.marked import judged, messages, plain

HEAD = "adapter T(r = 4) on linear(W ∈ ℝ^{m×n})\n"
LOW = HEAD + "A ∈ ℝ^{r×n}: learned, init = kaiming\nB ∈ ℝ^{m×r}: learned, init = 0\n"
TURN = "adapter T(k = 4) on linear(W ∈ ℝ^{m×n}) where n = b·k\nQ ∈ (ℝ^{k(k-1)/2})^b: learned, init = 0\n"
END = "y ← (W + B @ A) @ x\n"

RIGHT: list[str] = [
    LOW + END,
    LOW + "y ← W @ x + B @ (A @ x)\n",
    LOW + "y ← (W + (Aᵀ @ Bᵀ)ᵀ) @ x\n",
    LOW + "C ← A; C_{:2} += A_{:2}; C_{r-1} ← A_{0}\ny ← (W + B @ C) @ x\n",
    LOW + "for i in range(r): s_i ← ‖A_{r-1-i}‖\ny ← (W + B · s @ A) @ x\n",
    LOW + "for i in range(r): s_i ← ‖aᵢ‖ · ‖bᵢ‖\ny ← (W + B · s @ A) @ x\n",
    LOW + "for i in range(n//2): z[2i] ← x[2i]; z[2i+1] ← x[2i+1]\ny ← (W + B @ A) @ z\n",
    LOW + "C ← B; C_{:,0} ← B_{:,1}; C_{:,r-1} += B_{:,0}\ny ← (W + C @ A) @ x\n",
    LOW + "y ← (W + Σᵢ bᵢ aᵢᵀ) @ x\n",
    LOW + "y ← (W + Σ_{i ∈ range(r)} B_{:,i} A_{i,:}) @ x\n",
    TURN + "y ← W @ blkdiag(cayley(skew(Q))) @ x\n",
    TURN + "R ← cayley(skew(Q))\ny ← W @ blkdiag(R₁, ..., R_b)ᵀ @ x\n",
    HEAD.replace("(r = 4)", "") + "g ∈ ℝ^m: learned, init = ‖W‖_row\ny ← (g · (W / ‖W‖_row)) @ x\n",
    HEAD.replace("(r = 4)", "") + "g ∈ ℝ^n: learned, init = ‖W‖_col\ny ← ((W / ‖W‖_col) · g) @ x\n",
    # M_{j,:}ᵀ is a column where only that fits, and the transpose of a vector in M_{j,:}ᵀ x and u M_{j,:}ᵀ
    LOW + "y ← (W + B @ A) @ x + B @ (A @ A_{0,:}ᵀ) + B @ A @ (A_{1,:}ᵀ + x)\n",
    LOW + "c ← A_{0,:} @ A_{1,:}ᵀ + A_{0,:}ᵀ @ x\ny ← W @ x + c · B @ (A @ x)\n",
    LOW + "P ← Σ_{i ∈ range(r)} A_{i,:}ᵀ @ A_{i,:}\ny ← (W + B @ A @ P) @ x\n",
    LOW + "P ← (B @ ones(r)) @ (A_{0,:} - A_{1,:})ᵀ\ny ← (W + B @ A + P) @ x\n",
    # after backward
    LOW + END + "after backward:\n    A ← A - 0.1 · ∇A; B_{:,0} ← 0 · B_{:,1}; B ← keep(B, |B ⊙ ∇B|, 3)\n",
    "adapter T(r = 2) on hidden(h ∈ ℝ^d)\nR ∈ ℝ^{r×d}: learned, init = kaiming\n"
    "M ∈ ℝ^{r×d}: learned, init = 0\nh ← h + Rᵀ @ M @ h\n",
]


@pytest.mark.parametrize("text", RIGHT)
def test_what_fits_is_silent(text: str) -> None:
    assert judged(text) == []


WRONG: list[str] = [
    # products
    LOW + "y ← (W + «E301 A @ B») @ x\n",
    LOW + "y ← (W + B @ A) @ («E301 x ⊙ bias»)\n",
    LOW + "y ← (W + B @ A) @ x + «E302 x @ x» · bias\n",
    LOW + "y ← «E301 (W + B @ A) @ bias»\n",
    LOW + "y ← «E302 r @ W» @ x + B @ A @ x\n",
    TURN + "y ← «E301 W @ cayley(skew(Q))» @ x\n",
    LOW + "y ← (W + «E301 B · bias» @ A) @ x\n",
    LOW + "y ← (W + «E301 bias ⊙ A») @ x\n",
    # sums
    LOW + "y ← «E301 (W + B @ A) @ x + x»\n",
    LOW + "ΔW ← B @ A\ny ← («E301 W + ΔWᵀ») @ x\n",
    LOW + "y ← «E302 (W + B @ A) @ x + 1»\n",
    # quotients and norms
    LOW + "y ← («E302 W / bias») @ x + B @ A @ x\n",
    LOW + "y ← («E302 W / W») @ x + B @ A @ x\n",
    LOW + "y ← (W / «E303 ‖W‖») @ x + B @ A @ x\n",
    LOW + "y ← (W + B @ A) @ x + «E303 ‖x‖_row» · bias\n",
    LOW + "y ← (W + B @ A) @ x + «E302 1 / (r - r)» · bias\n",
    # squares
    LOW + "y ← «E304 W⁻¹» @ x + B @ A @ x\n",
    LOW + "y ← «E304 W²» @ x + B @ A @ x\n",
    LOW + "y ← (W + B @ A) @ x + «E304 trace(W)» · bias\n",
    # indices, for all sizes
    LOW + "s ← ‖«E305 A_{r}»‖\ny ← (W + s · B @ A) @ x\n",
    LOW + "s ← ‖«E305 A_{-r-1}»‖\ny ← (W + s · B @ A) @ x\n",
    LOW + "C ← A; «E305 C_{r} ← A_{0}»\ny ← (W + B @ C) @ x\n",
    LOW + "C ← A; «E305 C_{0,n} ← 1»\ny ← (W + B @ C) @ x\n",
    LOW + "for i in range(r): s_i ← ‖«E305 A_{i+1}»‖\ny ← (W + B · s @ A) @ x\n",
    LOW + "for i in range(r): s_i ← ‖«E305 A_{i-1}»‖\ny ← (W + B · s @ A) @ x\n",
    LOW + "z ← «E305 A_{0,1,2}»\ny ← (W + B @ A) @ x + z · bias\n",
    LOW + "z ← «E305 A_{0.5}»\ny ← (W + B @ A) @ x + (zᵀ @ x) · bias\n",
    LOW + "z ← «E305 A_{x}»\ny ← (W + B @ A) @ x + (zᵀ @ x) · bias\n",
    LOW + "z ← «E305 x_{3:1}»\ny ← (W + B @ A) @ x + z_{0} · bias\n",
    # writes
    LOW + "for i in range(n//2): «E305 z[2i] ← x[2i]»; z[2i+2] ← x[2i+1]\ny ← (W + B @ A) @ z\n",
    LOW + "for i in range(n): «E305 z[i] ← x[i]»; z[i] ← x[i]\ny ← (W + B @ A) @ z\n",
    LOW + "for i in range(n): «E305 z[i+1] ← x[i]»\ny ← (W + B @ A) @ z\n",
    # complex
    LOW + "«E306 y ← (W + B @ A) @ fft(x)»\n",
    LOW + "y ← («E306 W + ifft2(B @ A)») @ x\n",
    # loops
    LOW + "for i in range(«E310 A»): s_i ← 1\ny ← (W + B · s @ A) @ x\n",
    LOW + "«E307 for i in A:\n    s_i ← 1»\ny ← (W + B · s @ A) @ x\n",
    LOW + "«E209 for (i,j) in range(r):\n    s_i ← 1»\ny ← (W + B · s @ A) @ x\n",
    LOW + "y ← (W + «E209 Σ_{(i,j) ∈ range(r)} bᵢ aᵢᵀ») @ x\n",
    LOW + "«E209 for (i,j) in tree(r):\n    s_i ← 1»\ny ← (W + B · s @ A) @ x\n",
    LOW + "R ← I\n«E307 for i in range(100000): R ← R @ (I + 0 · R)»\ny ← (W + B @ A) @ R @ x\n",
    LOW + "H ← eye(1)\n«E301 for i in range(r): H ← H ⊗ [1, 1; 1, -1]»\ny ← (W + B @ A) @ x\n",
    # after backward
    LOW + END + "after backward:\n    «E301 A ← 0»\n",
    LOW + END + "after backward:\n    c ← ∇A\n    «E301 B ← c»\n",
    LOW + END + "after backward:\n    A ← «E301 A @ ∇A»\n",
    LOW + END + "after backward:\n    A ← «E301 keep(A, ‖A‖_row, 3)»\n",
    # sizes
    LOW + "Z ← «E309 I»\ny ← (W + B @ A) @ x + trace(Z) · bias\n",
    HEAD.replace("(r = 4)", "") + "«E309 A» ∈ ℝ^{r×n}: learned, init = kaiming\nB ∈ ℝ^{m×r}: learned, init = 0\n" + END,
    LOW.replace("ℝ^{m×n})", "ℝ^{m×n}) where r even, «E308 r odd»") + END,
    LOW.replace("ℝ^{m×n})", "ℝ^{m×n}) where r < n, «E308 r ≥ n»") + END,
    LOW.replace("ℝ^{m×n})", "ℝ^{m×n}) where n = 2·b, «E308 n odd»") + END,
    LOW.replace("ℝ^{m×n})", "ℝ^{m×n}) where «E308 n < n»") + END,
    # what is known at attach only
    LOW + "Ω ← «E310 largest(B @ A, 3)»\nc ∈ ℝ^Ω: learned, init = 0\n"
    "y ← (W + B @ A + scatter(c, Ω, shape=(m, n))) @ x\n",
    LOW + "c ∈ ℝ^m: learned, init = «E310 W @ x»\ny ← (W + B @ A) @ x + c\n",
    LOW.replace("init = 0", "init = «E301 W»") + END,
    # the output
    LOW + "«E301 y ← (B @ A)ᵀ @ (W @ x)»\n",
    LOW + "«E301 y ← W + B @ A»\n",
    "«E207 adapter T on linear(W ∈ ℝ^{m×n})»\nz ← W @ x\n",
    "«E207 adapter T on hidden(h ∈ ℝ^d)»\nz ← h\n",
]


@pytest.mark.parametrize("text", WRONG, ids=[t.removeprefix(LOW) for t in WRONG])
def test_what_does_not_fit_is_told_where_it_stands(text: str) -> None:
    assert judged(text)


def test_several_errors_in_one_run_and_no_consequences() -> None:
    """ΔW and C are of unknown shape after their errors, and nothing that uses them is told again."""
    found = judged(LOW + """ΔW ← «E301 A @ B»
C ← «E301 B @ B»
D ← C @ ΔW @ C
y ← (W + ΔW + D) @ («E301 x ⊙ bias») + «E201 q» · bias + «E203 frob»(W, x)
""")
    assert len(found) == 5


def test_both_places_of_a_conflict_are_shown() -> None:
    (found,) = judged(LOW + "C ← 2 · B\ny ← W @ x + «E301 C @ B» @ A @ x\n")
    shown = {found.source.slice(r.span): r.message for r in found.related if found.source}
    assert shown == {"C ← 2 · B": "C ∈ ℝ^{m×r}", "B": "B ∈ ℝ^{m×r}"}


def test_where_names_get_their_meanings() -> None:
    (found,) = judged("adapter T on linear(W ∈ ℝ^{m×n})\n«E202 m» ∈ ℝ^m: learned, init = 1\ny ← m ⊙ (W @ x)\n")
    assert found.source is not None
    assert [found.source.position(r.span.start) for r in found.related] == [(1, 28)]
    (found,) = judged(LOW.replace("W ∈ ℝ^{m×n})", "W ∈ ℝ^{m×n}) where r ≤ n, «E308 r > n»") + END)
    assert found.source is not None and [found.source.slice(r.span) for r in found.related] == ["r ≤ n"]


def test_an_error_in_a_variant_is_told_once() -> None:
    text = LOW + """variant one:
    y ← (W + B @ A) @ x
variant two:
    y ← (W + «E301 A @ B») @ x
"""
    assert len(judged(text)) == 1
    assert judged(plain(text)[0].split("variant two")[0]) == []


def test_every_case_of_a_conditional_is_proved() -> None:
    assert judged(LOW + "y ← W @ x + (B @ A @ x if m ≥ n else B @ (A @ x))\n") == []
    assert judged(LOW + "«E301 y ← W @ x + B @ A @ x if m ≥ n else x»\n")


def test_a_file_of_functions_has_no_output() -> None:
    assert judged("turn(K) ← (I - K)(I + K)⁻¹\ntwice(K) ← turn(K) @ turn(K)\n") == []
    assert judged("«E207 turn(K) ← (I - K)(I + K)⁻¹\nz ← 1\n»")


def test_as_people_see_them(golden: Callable[[str, str], None]) -> None:
    golden("compiler/shapes.txt", "\n\n".join(messages(text) for text in WRONG) + "\n")


REMEDIES: list[tuple[str, str]] = [
    ("T ∈ ℝ^{r×r}: learned, init = 0\nX ∈ (ℝ^{m×n})^r: learned, init = 0\n"
     "Z ← T @ X\ny ← (W + Σ_{i ∈ range(r)} Z_i) @ x\n",
     "Y_i ← Σ_{j ∈ range(r)} T_{i,j} · X_j"),
    ("t ∈ ℝ^r: learned, init = 0\nX ∈ (ℝ^{m×n})^r: learned, init = 0\ny ← (W + tᵀ @ X) @ x\n",
     "Σ_{j ∈ range(r)} t_j · X_j"),
    ("λ ∈ ℝ^n: learned, init = 1\ny ← (λ ⊙ W) @ x\n", "W ⊙ λ scales columns, the only reading that fits"),
    ("λ ∈ ℝ^m: learned, init = 1\ny ← (W · λ) @ x\n", "λ · W scales rows"),
    ("λ ∈ ℝ^m: learned, init = 1\nH ← [1]; H ← H ⊗ [1, 1; 1, -1]\ny ← λ ⊙ (W @ x)\n", "eye(1) for a 1×1 matrix"),
    ("λ ∈ ℝ^m: learned, init = 1\nH ← eye(1)\nfor i in range(r): H ← H ⊗ [1, 1; 1, -1]\ny ← λ ⊙ (W @ x)\n",
     "the steps one by one, H ← … for each"),
    ("A ∈ ℝ^{m×n}: learned, shared, init = 0\ny ← (W + A) @ x\n", "a small learned tensor at each site"),
]


@pytest.mark.parametrize(("text", "remedy"), REMEDIES)
def test_what_to_write_instead(text: str, remedy: str) -> None:
    """The remedy, in the program's own names; written so, it is accepted where it is a whole statement."""
    found = padp.check(HEAD + text)
    assert any(remedy in str(d.suggestion) for d in found), "\n".join(map(str, found))


def test_a_sum_over_a_family_is_accepted_as_suggested() -> None:
    assert judged(HEAD + "T ∈ ℝ^{r×r}: learned, init = kaiming\nX ∈ (ℝ^{m×n})^r: learned, init = 0\n"
                  "Y_i ← Σ_{j ∈ range(r)} T_{i,j} · X_j\ny ← (W + Σ_{i ∈ range(r)} Y_i) @ x\n") == []


def test_an_identity_without_a_size_is_called_that() -> None:
    found = padp.check(LOW + "R ← I\nZ ← [R, A]\ny ← (W + B @ A) @ x + sum(Z) · bias\n")
    assert found[0].message == "I of open size and ℝ^{r×n} cannot stand beside each other"


def test_how_long_a_loop_may_be() -> None:
    """A loop that is unrolled: its length is known, or hangs on a hyperparameter or on a size of the layer."""
    step = "R ← I\nfor i in range({}): R ← R @ (I + 0 · R)\ny ← (W + B @ A) @ R @ x\n"
    assert [d.code for d in padp.check(LOW + step.format(256)) if d.code in ("E307", "N404")] == []
    assert [d.code for d in padp.check(LOW + step.format(257)) if d.code in ("E307", "N404")] == ["E307"]
    assert [d.code for d in padp.check(LOW + step.format("r")) if d.code in ("E307", "N404")] == []
    assert [d.code for d in padp.check(LOW + step.format("n")) if d.code in ("E307", "N404")] == ["N404"]
    many = LOW.replace("r = 4", "r = 300")
    (note,) = (d for d in padp.check(many + step.format("r")) if d.code == "N404")
    assert "through r = 300 steps" in note.message
