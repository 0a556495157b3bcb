"""I − 2 P in the spellings of papers: what is proved orthogonal is, what is not proved is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import padp

HEAD = """adapter Mirror(r = 4) on linear(W ∈ ℝ^{m×n}) where r ≤ n
u ∈ ℝ^n: learned, init = normal(1)
V ∈ ℝ^{r×n}: learned, init = normal(1)
C ∈ ℝ^{n×r}: learned, init = normal(1)
S ∈ St(r, n): learned, init = orthogonal
"""
QR = "Q, T ← qr(C)\n"
DIRECTIONS = {
    "a direction": "û ← u/‖u‖\nR ← I - 2·û ûᵀ",
    "in place": "R ← I - 2·(u/‖u‖) (u/‖u‖)ᵀ",
    "an inverse norm": "û ← ‖u‖⁻¹ · u\nR ← I - 2·û ûᵀ",
    "detached": "û ← u/detach(‖u‖)\nR ← I - 2·û ûᵀ",
    "a longer one": "v ← √2 · u/‖u‖\nR ← I - v vᵀ",
    "one side": "û ← u/‖u‖²\nR ← I - 2·û uᵀ",
    "as a product": "û ← u/‖u‖\nR ← I - 2·outer(û, û)",
    "a square": "R ← I - (2/‖u‖²) · u uᵀ",
    "turned round": "û ← u/‖u‖\nR ← 2·û ûᵀ - I",
    "a row": "V̂ ← V/‖V‖_row\nv ← V̂_1\nR ← I - 2·v vᵀ",
    "a column": "Ĉ ← C/‖C‖_col\nc ← Ĉ_{:,1}\nR ← I - 2·c cᵀ",
    "norms of rows": "ν ← ‖V‖_row\nR ← I - 2/ν_1² · V_1 V_1ᵀ",
    "a chain of rows": "V̂ ← V/‖V‖_row\nR ← I\nfor i in range(r):\n    R ← (I - 2·V̂_i V̂_iᵀ) @ R",
    "a chain of directions": "R ← I\nfor i in range(r):\n    v ← V_i/‖V_i‖\n    R ← (I - 2·v vᵀ) @ R",
}
"""Where what they are made of is 0, the quotient is 0, and R is ±I."""
BASES = {
    "a basis": QR + "R ← I - 2·Q Qᵀ",
    "a basis, as a product": QR + "R ← I - 2·Q @ Qᵀ",
    "by its name": QR + "P ← Q Qᵀ\nR ← I - 2·P",
    "what is left": QR + "N ← I - Q Qᵀ\nR ← I - 2·N",
    "twice": QR + "R ← I - Q Qᵀ - Q Qᵀ",
    "other way round": QR + "R ← 2·Q Qᵀ - I",
    "of a stored one": "R ← I - 2·Sᵀ @ S",
    "of an svd": "U, Σ, Vᵀ ← svd(W)\nR ← I - 2·Vᵀ_{:r}ᵀ @ Vᵀ_{:r}",
    "a column of one": QR + "q ← Q_{:,1}\nR ← I - 2·q qᵀ",
    "a chain of columns": QR + "R ← I\nfor i in range(r):\n    R ← (I - 2·Q_{:,i} Q_{:,i}ᵀ) @ R",
    "a plane of one": QR + "t ← u_{:r}/‖u_{:r}‖\nR ← I - 2·Q @ (t tᵀ) @ Qᵀ",
    "least squares": "R ← I - 2·C @ (Cᵀ @ C)⁻¹ @ Cᵀ",
    "one place": "e ← zeros(n); e[1] ← -1\nR ← I - 2·e eᵀ",
}
NONE = {
    "once": "û ← u/‖u‖\nR ← I - û ûᵀ",
    "three times": "û ← u/‖u‖\nR ← I - 3·û ûᵀ",
    "the wrong sign": "û ← u/‖u‖\nR ← I + 2·û ûᵀ",
    "a square too many": "û ← u/‖u‖²\nR ← I - 2·û ûᵀ",
    "no norm": "û ← u/(‖u‖ + 1)\nR ← I - 2·û ûᵀ",
    "another's norm": "û ← u/‖V‖_F\nR ← I - 2·û ûᵀ",
    "a row of columns": "V̂ ← V/‖V‖_col\nv ← V̂_1\nR ← I - 2·v vᵀ",
    "another row's norm": "ν ← ‖V‖_row\nR ← I - 2/ν_0² · V_1 V_1ᵀ",
    "a row of a basis": QR + "B ← [Q, Q]\nR ← I - 2·B Bᵀ",
    "the basis once": QR + "R ← I - Q Qᵀ",
    "two of it": QR + "û ← u/‖u‖\nR ← I - 2·û ûᵀ - 2·Q Qᵀ",
    "no basis": "R ← I - 2·C Cᵀ",
    "another's square": "R ← I - 2·C @ (V @ Vᵀ)⁻¹ @ Cᵀ",
    "two directions": "û ← u/‖u‖; v̂ ← V_0/‖V_0‖\nR ← I - 2·û v̂ᵀ",
    "half of I": "û ← u/‖u‖\nR ← 1/2·I - 2·û ûᵀ",
    "two places": "e ← zeros(n); e[1] ← 1; e[2] ← 1\nR ← I - 2·e eᵀ",
    "two at one place": "e ← zeros(n); e[1] ← 2\nR ← I - 2·e eᵀ",
}


def program(body: str, claim: str) -> str:
    return f"# not the identity at init: on purpose\n{HEAD}{body}\nM ← R    # {claim}\ny ← W @ M @ x\n"


def codes(body: str, claim: str = "orthogonal") -> set[str]:
    return {d.code for d in padp.check(program(body, claim)) if d.code[:2] in ("N4", "E4")}


def matrix(body: str, zero: bool = False) -> Tensor:
    """Rᵀ, by the literal reading, for a W that is I."""
    torch.manual_seed(0)
    linear = nn.Linear(6, 6, bias=False).double()
    with torch.no_grad():
        linear.weight.copy_(torch.eye(6))
    layer = padp.compile(program(body, "as in the paper"))(linear, dtype=torch.double)
    with torch.no_grad():
        for name in ("u", "V", "C") if zero else ():
            layer.tensors[name].zero_()
    found: Tensor = layer.reference(torch.eye(6).double()).detach()
    return found


def is_orthogonal(r: Tensor) -> bool:
    return torch.allclose(r @ r.T, torch.eye(6).double(), atol=1e-10)


@pytest.mark.parametrize("name", [*DIRECTIONS, *BASES])
def test_a_reflection_is_proved_orthogonal(name: str) -> None:
    body = (DIRECTIONS | BASES)[name]
    assert codes(body) == set()
    assert is_orthogonal(matrix(body))


@pytest.mark.parametrize("name", DIRECTIONS)
def test_the_reflection_of_nothing_is_the_identity(name: str) -> None:
    r = matrix(DIRECTIONS[name], zero=True)
    assert torch.equal(r.abs(), torch.eye(6).double())


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_reflection_is_not_proved(name: str) -> None:
    assert codes(NONE[name]) == {"N401"}
    assert not is_orthogonal(matrix(NONE[name]))


TURNS = {
    "one direction": ("û ← u/‖u‖\nR ← I - 2·û ûᵀ", "E403"),
    "a column": (QR + "q ← Q_{:,1}\nR ← I - 2·q qᵀ", "E403"),
    "two directions": ("û ← u/‖u‖; v̂ ← V_0/‖V_0‖\nR ← (I - 2·û ûᵀ) @ (I - 2·v̂ v̂ᵀ)", ""),
    "a basis of even size": ("Q, T ← qr([C, C])\nR ← I - 2·Q Qᵀ", "N401"),  # min(n, 2r) columns: n may be odd
    "stored rows, of any number": ("R ← I - 2·Sᵀ @ S", "N401"),
    "least squares of two": ("D ← C_{:,:2}\nR ← I - 2·D @ (Dᵀ @ D)⁻¹ @ Dᵀ", ""),
    "least squares of three": ("D ← C_{:,:3}\nR ← I - 2·D @ (Dᵀ @ D)⁻¹ @ Dᵀ", "E403"),
}


@pytest.mark.parametrize("name", TURNS)
def test_the_rank_of_what_is_turned_says_whether_it_is_a_rotation(name: str) -> None:
    body, code = TURNS[name]
    assert codes(body, "M ∈ SO(n)") == ({code} if code else set())
    if code != "N401":
        assert torch.linalg.det(matrix(body)).item() == pytest.approx(-1 if code else 1)


CHAINS = {
    "directions": "    v̂ ← v_i/‖v_i‖\n    R ← (I - 2·v̂ v̂ᵀ) @ R",
    "rows": "    R ← (I - 2·V̂_i V̂_iᵀ) @ R",
    "norms": "    R ← (I - 2/ν_i² · v_i v_iᵀ) @ R",
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("paired", [True, False])
def test_equal_neighbours_cancel_in_every_spelling(name: str, paired: bool) -> None:
    init = "pairs(kaiming)" if paired else "kaiming"
    text = ("adapter Chain(r = 4) on linear(W ∈ ℝ^{m×n}) where r even\n"
            f"v ∈ ℝ^{{r×n}}: learned, init = {init}\nV̂ ← v/‖v‖_row\nν ← ‖v‖_row\nR ← I\n"
            f"for i in range(r):\n{CHAINS[name]}    # R ∈ SO(n)\ny ← (W @ Rᵀ) @ x\n")
    found = {d.code for d in padp.check(text)} - {"W301"}
    assert found == (set() if paired else {"N401"})
    torch.manual_seed(0)
    linear, x = nn.Linear(6, 5), torch.randn(3, 6)
    same = torch.allclose(padp.compile(text)(linear)(x), linear(x), atol=1e-5)
    assert same is paired
