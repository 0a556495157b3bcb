"""Pseudocode as papers print it: blocks without a header, checked as they stand.

The blocks of the source document are read where it lies beside this repository (``../shared/seed``), and the tests of
them are skipped, visibly, where it does not. The repository's own examples of each finding come first and always run:
other programs, the same general rules.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

import padp
from padp import Diagnostic
from padp.dsl.parse import parse
from padp.dsl.printer import to_text
from padp.dsl.source import Source

DOCUMENT = Path(__file__).parents[1] / "../shared/seed/adapters_pseudocode.md"
there = pytest.mark.skipif(not DOCUMENT.is_file(), reason="the source document is not beside this clone")


def told(found: list[Diagnostic]) -> str:
    """All codes, messages, notes and remedies, one finding a line."""
    return "\n".join(" | ".join([d.code, d.message, *d.notes, d.suggestion or ""]) for d in found)


def suggestions(found: list[Diagnostic]) -> dict[str, str]:
    """The declaration that is suggested for each name that has none."""
    undeclared = [d for d in found if d.code == "E201" and d.suggestion]
    return {re.findall("`(.*?)`", d.message)[0]: d.suggestion or "" for d in undeclared}


# ---------------------------------------------------------------- own examples, several a rule

# A block, and for each finding: its code, words that are said, and the line where.
BLOCKS: list[tuple[str, list[tuple[str, str, int]]]] = [
    # the block where the whole is meant, and then never used
    ("""G_skew ← skew(P)                  # G_skew ∈ ℝ^{c×s×s}, antisymmetric
G ← (I - G_skew)(I + G_skew)⁻¹
G_all ← blkdiag(G₁, ..., G_c)
y ← (W @ G) @ x
""", [("W301", "`G_all` is never used", 3), ("E301", "G_all ∈ ℝ^{c·s×c·s} fits here when n = c·s", 4)]),
    ("""K ← skew(θ)                       # K ∈ ℝ^{b×k×k}
R ← expm(K)
R_big ← blkdiag(R)
y ← R @ (W @ x)
""", [("W301", "`R_big` is never used", 3), ("E301", "inner dimensions differ", 4)]),
    # a vector that does not fit the rows, and is redundant where it fits
    ("""# P ∈ ℝ^{m×q}, S ∈ ℝ^{q×n}: frozen random; u ∈ ℝ^q, v ∈ ℝ^q: learned
y ← (W + (u ⊙ P) @ (v ⊙ S)) @ x
""", [("E301", "u ⊙ P scales rows: u ∈ ℝ^{q}, but P has m rows", 2), ("W304", "`u` and `v` are redundant", 2)]),
    ("""# u ∈ ℝ^m, v ∈ ℝ^m: learned, init=1
y ← u ⊙ v ⊙ (W @ x)
""", [("W304", "`u` and `v` are redundant", 2)]),
    # divided along one axis, scaled along the other; one name for a size and a value
    ("""# n ∈ ℝ^{n}: learned
D ← W / ‖W‖_row
y ← (D · n) @ x
""", [("E202", "`n` is a dimension and a tensor", 1),
      ("W308", "`W` is divided by the norms of its rows and then `n` scales its columns", 3)]),
    ("""# g ∈ ℝ^m: learned; C ∈ ℝ^{m×n}: learned
D ← W + C
D̂ ← D / ‖D‖_col
y ← diag(g) @ D̂ @ x
""", [("W308", "`D` is divided by the norms of its columns and then `g` scales its rows", 4)]),
    # two counts
    ("""# reflections along n²/4 directions; n²/4 params
y ← W @ x                         # O(n) params
""", [("E404", "two comments count the learned scalars differently", 2)]),
    ("""# m(m-1)/2 planar rotations
y ← W @ x                         # params: m - 1
""", [("E404", "m − 1 here, m(m − 1)/2 there", 2)]),
    # a changed value that nothing reads, while the old one is read
    ("""U, Σ, Vᵀ ← svd(W)
Σ' ← Σ + δ
y ← U · diag(Σ) · Vᵀ @ x
""", [("W301", "`Σ'` is never used; `Σ` is used instead", 2)]),
    ("""V ← W + B @ A
V̂ ← V / ‖V‖_row
y ← V @ x
""", [("W301", "`V̂` is never used; `V` is used instead", 2)]),
    # terms that cancel
    ("""# P ∈ ℝ^{r×d}: learned; c ∈ ℝ^r: learned
z ← P @ h
z ← z - c
h ← h - Pᵀ @ (P @ h - z)
""", [("W307", "`P @ h` cancels", 4)]),
    ("""ΔW ← B @ A                        # ΔW ∈ ℝ^{m×n}, rank r
y ← (W + ΔW) @ x - ΔW @ x + c
""", []),
]  # fmt: skip


@pytest.mark.parametrize(("block", "wanted"), BLOCKS, ids=[b.splitlines()[-1] for b, _ in BLOCKS])
def test_own_examples(block: str, wanted: list[tuple[str, str, int]]) -> None:
    found = padp.check(block)
    for code, words, line in wanted:
        lines = [d.source.position(d.span.start)[0] for d in found
                 if d.code == code and words in told([d]) and d.source is not None and d.span is not None]  # fmt: skip
        assert line in lines, f"{code} {words}\n{told(found)}"


# The same blocks as they were meant: none of these rules speaks.
MEANT: list[str] = [
    """G_skew ← skew(P)                  # G_skew ∈ ℝ^{c×s×s}, antisymmetric
G ← (I - G_skew)(I + G_skew)⁻¹
G_all ← blkdiag(G₁, ..., G_c)
y ← G_all @ x
""",
    """# P ∈ ℝ^{m×q}, S ∈ ℝ^{q×n}: frozen random; u ∈ ℝ^m, v ∈ ℝ^q: learned
y ← (W + (u ⊙ P) @ (v ⊙ S)) @ x
""",
    """# g ∈ ℝ^{n}: learned
D ← W / ‖W‖_col
y ← (D · g) @ x
""",
    """# n·n/4 params
y ← W @ x                         # O(n²) params
""",
    """U, Σ, Vᵀ ← svd(W)
Σ' ← Σ + δ
y ← U · diag(Σ') · Vᵀ @ x
""",
    """# P ∈ ℝ^{r×d}, M ∈ ℝ^{r×d}: learned; c ∈ ℝ^r: learned
z ← M @ h
z ← z + c
h ← h - Pᵀ @ (P @ h - z)
""",
]


@pytest.mark.parametrize("block", MEANT, ids=[b.splitlines()[-1] for b in MEANT])
def test_the_same_blocks_as_they_were_meant(block: str) -> None:
    silent = {"W301", "W304", "W307", "W308", "E202", "E404"}
    assert [d for d in padp.check(block) if d.code in silent] == []


@pytest.mark.parametrize(("block", "code", "wanted"), [
    (BLOCKS[4][0], "E202", ["n"]),  # where the tensor is used
    (BLOCKS[2][0], "W304", ["u ∈ ℝ^q", "v ∈ ℝ^q"]),
    (BLOCKS[7][0], "E404", ["m(m-1)/2 planar rotations"]),
    (BLOCKS[8][0], "W301", ["Σ"]),
])  # fmt: skip
def test_two_places_where_two_are_in_conflict(block: str, code: str, wanted: list[str]) -> None:
    (found,) = [d for d in padp.check(block) if d.code == code]
    assert found.source is not None
    assert [found.source.slice(r.span) for r in found.related] == wanted


def test_declarations_are_suggested_from_shape_comments() -> None:
    said = suggestions(padp.check("""# A ∈ ℝ^{r×n}, B ∈ ℝ^{m×r}: frozen random, shared by all layers
# λ ∈ ℝ^m: learned, init=1
# R₁, ..., R_c ∈ ℝ^{s×s}
K ← skew(θ)                       # K ∈ ℝ^{k×k}
y ← (W + λ ⊙ (B @ A) + blkdiag(R) + q · K) @ x
"""))
    assert said["A"] == "A ∈ ℝ^{r×n}: frozen, shared, init = kaiming, seed = 0"
    assert said["λ"] == "λ ∈ ℝ^m: learned, init = 1"
    assert said["R"].startswith("R ∈ (ℝ^{s×s})^c: learned")
    assert said["θ"] == "θ ∈ ℝ^{k(k-1)/2}: learned, init = 0"
    assert "q ∈ ℝ^{…}" in said["q"]  # no comment says its shape


# ---------------------------------------------------------------- the source document


@cache
def document() -> dict[str, str]:
    """Code blocks by the names in the headings above them."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return {m[1]: m[2] for m in re.finditer(r"^## \d+\. (\S+)[^`]*?^```\n(.*?)^```$", text, re.M | re.S)}


NAMES = ("LoRA OFT VeRA DoRA DeLoRA PiSSA SVFT SSVD IA3 ROAD AntiPaSTO AdaLoRA BOFT GOFT HRA RandLoRA FourierFT CLOVER "
         "PSOFT ReFT").split()  # fmt: skip


@there
def test_all_twenty_are_read() -> None:
    assert list(document()) == NAMES


@there
@pytest.mark.parametrize("name", NAMES)
def test_every_block_parses_as_it_stands_and_prints_back(name: str) -> None:
    program = parse(Source.of(document()[name]))
    for ascii in (False, True):
        assert parse(Source.of(to_text(program, ascii))) == program


@there
@pytest.mark.parametrize("name", NAMES)
def test_every_block_is_answered_with_diagnostics(name: str) -> None:
    """No block declares anything, so each has findings; all have a place; what is suggested to write can be read."""
    found = padp.check(document()[name])
    assert found and all(d.span is not None and d.source is not None for d in found)
    assert all(d.suggestion for d in found if d.code != "E301")
    for declaration in suggestions(found).values():
        if re.fullmatch(r"\S+ ∈ [^…]+", declaration):
            assert parse(Source.of(declaration + "\n")).body


# What the shape comments of each block say of the names it does not declare.
DECLARED: dict[str, dict[str, str]] = {
    "LoRA": {"A": "A ∈ ℝ^{r×n}: learned", "B": "B ∈ ℝ^{m×r}: learned"},
    "OFT": {"Q": "Q ∈ (ℝ^{k(k-1)/2})^{b}: learned"},
    "VeRA": {"A": "A ∈ ℝ^{r×n}: frozen, shared", "B": "B ∈ ℝ^{m×r}: frozen, shared", "λ_d": "λ_d ∈ ℝ^r: learned",
             "λ_b": "λ_b ∈ ℝ^r: learned"},
    "DeLoRA": {"A": "A ∈ ℝ^{r×n}: learned", "B": "B ∈ ℝ^{m×r}: learned", "λ": "λ ∈ ℝ^r: learned"},
    "SVFT": {"c": "c ∈ ℝ^k: learned"},
    "SSVD": {"θ": "θ ∈ ℝ^{k(k-1)/2}: learned"},
    "IA3": {"λ": "λ ∈ ℝ^d: learned, init = 1"},
    "ROAD": {"θ": "θ ∈ ℝ^{d/2}: learned", "α": "α ∈ ℝ^{d/2}: learned"},
    "AntiPaSTO": {"θ": "θ ∈ ℝ^{k(k-1)/2}: learned"},
    "AdaLoRA": {"P": "P ∈ ℝ^{m×r}: learned", "Q": "Q ∈ ℝ^{r×n}: learned"},
    "BOFT": {"B": "B ∈ (ℝ^{n/b × b × b})^m: learned"},
    "HRA": {"vᵢ ← learned": "before the loop: v ∈ (ℝ^d)^r: learned"},
    "RandLoRA": {"d": "d ∈ (ℝ^r)^N: learned", "b": "b ∈ (ℝ^r)^N: learned"},
    "FourierFT": {"c": "c ∈ ℝ^k: learned"},
    "PSOFT": {"K": "K ∈ ℝ^{k×k}: learned"},
    "ReFT": {"R": "R ∈ ℝ^{r×d}: learned", "b": "b ∈ ℝ^r: learned"},
}  # fmt: skip


@there
@pytest.mark.parametrize("name", DECLARED)
def test_what_is_undeclared_comes_with_its_declaration(name: str) -> None:
    said = suggestions(padp.check(document()[name]))
    assert {n: said.get(n, "")[: len(text)] for n, text in DECLARED[name].items()} == DECLARED[name]


FINDINGS: list[tuple[str, str, str]] = [
    ("OFT", "W301", "`R_full` is never used"),
    ("OFT", "E301", "R_full ∈ ℝ^{b·k×b·k} fits here when n = b·k"),
    ("OFT", "E301", "R_fullᵀ"),
    ("VeRA", "E301", "λ_b ∈ ℝ^{r}, but B has m rows"),
    ("VeRA", "E301", "scales columns, the only reading that fits"),
    ("VeRA", "W304", "`λ_b` and `λ_d` are redundant"),
    ("DoRA", "E202", "`m` is a dimension and a tensor"),
    ("DoRA", "W308", "`V` is divided by the norms of its columns and then `m` scales its rows"),
    ("GOFT", "E404", "O(d) here, d(d − 1)/2 there"),
    ("CLOVER", "W301", "`S_qk'` is never used; `S_qk` is used instead"),
    ("ReFT", "W307", "`R @ h` cancels in this sum; what is left is h = h + Rᵀ @ b"),
    ("IA3", "W301", "this value of `y` is never used: it is assigned again"),
    ("AdaLoRA", "W301", "`ΔW` is never used"),
    ("BOFT", "E106", "a product with an ellipsis is not read"),
    ("PSOFT", "E207", "never says what `y` is"),
]


@there
@pytest.mark.parametrize(("name", "code", "words"), FINDINGS)
def test_what_is_wrong_in_the_document_is_found(name: str, code: str, words: str) -> None:
    found = padp.check(document()[name])
    assert [d for d in found if d.code == code and words in told([d])], told(found)
