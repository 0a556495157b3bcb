"""Comments that claim: shapes, ranks, properties. What is proved is silent, what is false an error, the rest a note."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import padp
from padp.compiler.library import library
from tests.support.marked import judged, messages, plain

HEAD = "adapter T(r = 4) on linear(W ∈ ℝ^{m×n})\n"
LOW = HEAD + "A ∈ ℝ^{r×n}: learned, init = kaiming\nB ∈ ℝ^{m×r}: learned, init = 0\n"
END = "y ← (W + B @ A) @ x\n"
TURN = "adapter T(k = 4) on linear(W ∈ ℝ^{m×n}) where n = b·k\nQ ∈ (ℝ^{k(k-1)/2})^b: learned, init = 0\n"
MIRROR = """adapter T(r = 4) on linear(W ∈ ℝ^{m×n}) where r even
v ∈ ℝ^{r×n}: learned, init = pairs(kaiming)
"""
GIVENS = """adapter T on linear(W ∈ ℝ^{m×n})
θ ∈ ℝ^{n-1}: learned, init = 0
R ← I
for (i,j,t) in tree(n):
    G ← I; G[i,i] ← cos θ_t; G[i,j] ← -sin θ_t; G[j,i] ← sin θ_t; G[j,j] ← cos θ_t
    R ← G @ R"""


def turned(right: str, comment: str, use: str = "blkdiag(R)") -> str:
    return f"{TURN}R ← {right}    # {comment}\ny ← W @ {use} @ x\n"


def reflected(comment: str, factor: str = "2") -> str:
    return f"""{MIRROR}R ← I
for i in range(r):
    H_i ← I - {factor} · v_i v_iᵀ / ‖v_i‖²    # {comment}
    R ← H_i @ R
y ← (W @ Rᵀ) @ x
"""


PROVED: list[str] = [
    # shapes
    LOW + "ΔW ← B @ A    # ΔW ∈ ℝ^{m×n}\ny ← (W + ΔW) @ x\n",
    LOW + "# A ∈ ℝ^{r×n}, B ∈ ℝ^{m×r}: learned; x ∈ ℝ^n, W ∈ ℝ^{m×n}\n" + END,
    LOW + "y ← (W + B @ A) @ x    # y ∈ ℝ^m\n",
    TURN + "K ← skew(Q)    # K ∈ ℝ^{b×k×k}, K ∈ (ℝ^{k×k})^b, K ∈ ℝ^{k×k}, antisymmetric\n"
    "y ← W @ blkdiag(cayley(K)) @ x\n",
    TURN + "# Q₁ ∈ ℝ^{k(k-1)/2}\ny ← W @ blkdiag(cayley(skew(Q))) @ x\n",
    reflected("v_i ∈ ℝ^n, H_i ∈ ℝ^{n×n}"),
    HEAD.replace("(r = 4)", "") + "U, Σ, Vᵀ ← svd(W)    # U ∈ ℝ^{m×min(m,n)}, Σ ∈ ℝ^{min(m,n)}, Vᵀ ∈ ℝ^{min(m,n)×n}\n"
    "c ∈ ℝ^{min(m,n)}: learned, init = 0\ny ← U · (Σ + c) · Vᵀ @ x\n",
    # ranks
    LOW + "ΔW ← B @ A    # rank r\ny ← (W + ΔW) @ x\n",
    LOW + "ΔW ← B @ A + B @ A    # rank 2r\ny ← (W + ΔW) @ x\n",
    LOW + "ΔW ← (B @ A)ᵀ    # rank r\ny ← (W + ΔWᵀ) @ x\n",
    LOW + "ΔW ← Σᵢ bᵢ aᵢᵀ    # rank r\ny ← (W + ΔW) @ x\n",
    LOW + "C ∈ ℝ^{r×n}: learned, init = kaiming\nD ∈ ℝ^{m×r}: learned, init = kaiming\n"
    "ΔW ← (B @ A) ⊙ (D @ C)    # rank r², rank min(m, n)\ny ← (W + ΔW) @ x\n",
    LOW + "ΔW ← B @ A    # rank min(m, n), rank min(r, m), rank min(m, r, n)\ny ← (W + ΔW) @ x\n",
    # orthogonality
    turned("cayley(skew(Q))", "R ∈ O(k), R ∈ SO(k), orthogonal"),
    turned("(I + skew(Q))(I - skew(Q))⁻¹", "R ∈ SO(k)"),
    turned("(2·I - skew(Q))(2·I + skew(Q))⁻¹", "orthogonal"),
    turned("expm(skew(Q))", "R ∈ SO(k)"),
    turned("cayley(skew(Q)) @ cayley(skew(Q))ᵀ", "R ∈ SO(k), identity"),
    turned("blkdiag(cayley(skew(Q)))", "R ∈ O(n), R ∈ SO(n)", "R"),
    reflected("orthogonal, H_i ∈ O(n)"),
    reflected("H_i ∈ O(n)").replace("R ← H_i @ R", "R ← H_i @ R    # R ∈ O(n), R ∈ SO(n)"),  # r is even
    GIVENS + "    # R ∈ O(n), R ∈ SO(n)\ny ← W @ R @ x\n",
    HEAD.replace("(r = 4)", "") + "C ∈ O(m): learned, init = I\nR ← C    # orthogonal\ny ← R @ W @ x    # identity\n",
    # antisymmetry
    turned("skew(Q) - skew(Q)ᵀ", "antisymmetric", "blkdiag(cayley(R))"),
    turned("2 · skew(Q)", "antisymmetric", "blkdiag(cayley(R))"),
    turned("tanh(skew(Q))", "antisymmetric", "blkdiag(cayley(R))"),
    HEAD.replace("(r = 4)", "") + "D ∈ ℝ^{n×n}: learned, init = 0\nK ← (D - Dᵀ)/2    # antisymmetric\n"
    "y ← W @ cayley(K) @ x\n",
    # the start
    LOW + "y ← (W + B @ A) @ x    # identity\n",
    LOW + "y ← W @ x + B @ (A @ x)    # B = 0 → identity\n",
]


@pytest.mark.parametrize("text", PROVED)
def test_what_is_proved_is_silent(text: str) -> None:
    assert judged(text) == []


FALSE: list[str] = [
    LOW + "ΔW ← B @ A    # «E402 ΔW ∈ ℝ^{n×m}»\ny ← (W + ΔW) @ x\n",
    LOW + "ΔW ← B @ A    # «E402 ΔW ∈ ℝ^m», rank r\ny ← (W + ΔW) @ x\n",
    LOW + "# A ∈ ℝ^{r×n}, «E402 B ∈ ℝ^{n×r}: learned», as in the paper\n" + END,
    LOW + "# «E402 W ∈ ℝ^{n×m}»\n" + END,
    LOW + "y ← (W + B @ A) @ x    # «E402 y ∈ ℝ^n»\n",
    TURN + "K ← skew(Q)    # «E402 K ∈ ℝ^{k×k×k}»\ny ← W @ blkdiag(cayley(K)) @ x\n",
    turned("blkdiag(cayley(skew(Q)))", "«E402 R ∈ O(m)»", "R"),
    reflected("«E402 v_i ∈ ℝ^m», «E402 H_i ∈ O(m)»"),
    LOW + "ΔW ← B @ A    # «E403 rank r - 1»\ny ← (W + ΔW) @ x\n",
    LOW + "ΔW ← B @ A    # «E403 rank 3»\ny ← (W + ΔW) @ x\n",
    HEAD.replace("(r = 4)", "") + "C ∈ ℝ^{m×n}: learned, init = 0\nΔW ← 2 · C    # «E403 rank 1»\ny ← (W + ΔW) @ x\n",
    LOW + "ΔW ← B @ A    # «E403 orthogonal»\ny ← (W + ΔW) @ x\n",
    LOW + "ΔW ← B @ A    # «E403 identity»\ny ← (W + ΔW) @ x\n",
    turned("skew(Q)", "«E403 orthogonal», antisymmetric", "blkdiag(cayley(R))"),
    turned("cayley(skew(Q))", "«E403 antisymmetric»"),
    reflected("«E403 H_i ∈ SO(n)»"),  # its determinant is −1
    LOW.replace("init = 0", "init = kaiming") + "y ← (W + B @ A) @ x    # «E403 identity»\n",
    # two claims against each other
    LOW + "# A ∈ ℝ^{r×n}, «E404 «E402 A ∈ ℝ^{r×m}»»\n" + END,
]


@pytest.mark.parametrize("text", FALSE, ids=[t.removeprefix(LOW).removeprefix(TURN) for t in FALSE])
def test_what_is_false_is_an_error(text: str) -> None:
    assert judged(text)


OPEN: list[str] = [
    LOW + "ΔW ← B @ A + B @ A    # «N401 rank min(r, m)»\ny ← (W + ΔW) @ x\n",
    turned("I + blkdiag(skew(Q))", "«N401 orthogonal»", "R"),
    reflected("«N401 orthogonal»", "3").replace("y ← (W", "«N401 y ← (W").replace(") @ x\n", ") @ x»\n"),
    LOW + "ΔW ← tanh(B @ A)    # «N401 rank r»\ny ← (W + ΔW) @ x\n",
    "adapter T on linear(W ∈ ℝ^{m×n})\nC ∈ ℝ^{n×n}: learned, init = 0\n"
    "R ← expm(C - Cᵀ) @ expm(Cᵀ - C)    # «N401 identity»\ny ← W @ R @ x\n",
]


@pytest.mark.parametrize("text", OPEN)
def test_what_no_rule_settles_is_a_note(text: str) -> None:
    assert judged(text)


def test_numerics_settle_what_is_open() -> None:
    """At small sizes in float64: the claim that holds is dropped, the one that does not becomes an error."""
    for held in (OPEN[0], OPEN[-1]):
        assert padp.check(plain(held)[0], numerics=True) == []
    fails = plain(OPEN[1])[0]
    assert [d.code for d in padp.check(fails, numerics=True)] == ["E405"]


UNCLEAR: list[str] = [
    LOW + "# «N402 A ∈ ℝ^{q×n}»\n" + END,
    LOW + "# «N402 Z ∈ ℝ^{r×n}»\n" + END,
    LOW + "ΔW ← B @ A    # «N402 rank three»\ny ← (W + ΔW) @ x\n",
    LOW + "y ← (W + B @ A) @ x    # «N402 rank r»\n",
]  # fmt: skip


@pytest.mark.parametrize("text", UNCLEAR)
def test_what_looks_like_a_claim_and_is_none_is_a_note(text: str) -> None:
    assert judged(text)


PROSE: list[str] = [
    "# A ∈ the rows of W", "# orthogonal", "# R is orthogonal", "# the rank of ΔW is at most r",
    "# antisymmetric matrices",
    "# identity at the start", "# x → y; y is an output", "# see (Hu, 2021), section 3",
]  # fmt: skip


@pytest.mark.parametrize("comment", PROSE)
def test_all_else_is_prose(comment: str) -> None:
    """Also a property on a line of its own: it says of nothing what it is."""
    assert judged(f"{LOW}{comment}\n{END}") == []


def test_a_comment_never_changes_what_a_program_means() -> None:
    """v is declared: a comment on v_i speaks of its rows, and declares nothing."""
    assert judged(reflected("v_i ∈ ℝ^n")) == []
    assert judged(LOW + "# B_0 ∈ ℝ^r\n" + END) == []


def test_claims_belong_to_their_variant() -> None:
    text = LOW + """variant one:
    ΔW ← B @ A    # ΔW ∈ ℝ^{m×n}
variant two:
    ΔW ← (B @ A)ᵀ    # ΔW ∈ ℝ^{n×m}
    ΔW ← ΔWᵀ
common:
    y ← (W + ΔW) @ x
"""
    assert judged(text) == []


@pytest.mark.parametrize("name", library())
def test_the_library_has_nothing_to_say(name: str) -> None:
    """Not even a note: all of its claims are proved."""
    assert [f"{d.code} {d.message}" for d in padp.check(name)] == []


def test_as_people_see_them(golden: Callable[[str, str], None]) -> None:
    golden("compiler/claims.txt", "\n\n".join(messages(text) for text in (*FALSE, *OPEN, *UNCLEAR)) + "\n")


def test_a_step_that_fails_takes_back_what_was_supposed_for_it() -> None:
    """S is what the loop carries before its last step: orthogonal only if R is, and R is not."""
    program = f"""{HEAD}M ∈ ℝ^{{r×n×n}}: learned, init = normal(1)
R ← eye(n)
for i in range(r):
    S ← R
    R ← R @ M_i @ R
# R ∈ O(n)
# S ∈ O(n)
y ← W @ R @ x
"""
    open_ = [d.message for d in padp.check(program) if d.code == "N401"]
    assert open_[:2] == ["no rule proves that R is orthogonal", "no rule proves that S is orthogonal"]
