"""Learned scalars a site: the formulas of the library against counts derived by hand, and false claims about them."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import ceil
from typing import Any

import pytest
import sympy as sp

import padp
from padp.compiler.ir.dims import show
from padp.compiler.library import library, load
from padp.dsl.parse import parse
from padp.dsl.source import Source
from tests.support.marked import judged, messages

# Written from the papers and from PEFT's tensors: what is stored and learned at one site of sizes m×n (d for a hidden
# state; H heads of e entries and G groups for an attention). s holds the sizes and hyperparameters by name.
Formula = Callable[[dict[str, int]], int]


def low_rank(s: dict[str, int]) -> int:
    """A ∈ ℝ^{r×n} and B ∈ ℝ^{m×r}."""
    return s["r"] * s["n"] + s["m"] * s["r"]


def triangle(k: int) -> int:
    """The free entries of an antisymmetric k×k matrix."""
    return sum(range(k))


def small(s: dict[str, int]) -> int:
    return min(s["m"], s["n"])


COUNTS: dict[tuple[str, str | None], Formula] = {
    ("lora", None): low_rank,
    ("pissa", "paper"): low_rank,
    ("pissa", "peft"): low_rank,
    ("dora", None): lambda s: low_rank(s) + s["m"],
    ("delora", "paper"): lambda s: low_rank(s) + 1,
    ("delora", "seed"): lambda s: low_rank(s) + s["r"],
    ("delora", "peft"): lambda s: low_rank(s) + 1,
    ("adalora", "paper"): lambda s: low_rank(s) + s["r"],
    ("adalora", "peft"): lambda s: low_rank(s) + s["r"],
    ("vera", None): lambda s: s["m"] + s["r"],
    ("randlora", "bases"): lambda s: ceil(small(s) / s["r"]) * (s["r"] + small(s)),
    ("randlora", "peft"): lambda s: ceil(small(s) / s["r"]) * (s["r"] + small(s)),
    ("ia3", "feedforward"): lambda s: s["n"],
    ("ia3", "attention"): lambda s: s["m"],
    ("road", "road_1"): lambda s: 2 * (s["m"] // 2),
    ("road", "road_2"): lambda s: 2 * s["m"],
    ("road", "road_4"): lambda s: 2 * 2 * s["m"],
    ("road", "seed"): lambda s: 2 * (s["n"] // 2),
    ("road", "peft"): lambda s: 2 * (s["m"] // 2),
    ("road", "peft_2"): lambda s: 2 * s["m"],
    ("road", "peft_4"): lambda s: 2 * 2 * s["m"],
    ("oft", "exact"): lambda s: s["n"] // s["k"] * triangle(s["k"]),
    ("oft", "peft"): lambda s: s["n"] // s["k"] * triangle(s["k"]),
    ("oft", "peft_exact"): lambda s: s["n"] // s["k"] * triangle(s["k"]),
    ("boft", "paper"): lambda s: s["F"] * (s["n"] // s["k"]) * triangle(s["k"]),
    ("boft", "peft"): lambda s: s["F"] * (s["n"] // s["k"]) * s["k"] ** 2 + s["m"],
    ("goft", "tree"): lambda s: s["n"] - 1,
    ("goft", "quasi"): lambda s: (s["n"] - 1) * 2 * 2,
    ("hra", None): lambda s: s["r"] * s["n"],
    ("svft", "plain"): small,
    ("svft", "banded"): lambda s: sum(abs(i - j) <= s["d"] for i in range(small(s)) for j in range(small(s))),
    ("svft", "random"): lambda s: s["count"],
    ("svft", "topk"): lambda s: s["count"],
    ("ssvd", "exact"): lambda s: triangle(s["k"]) + s["k"],
    ("ssvd", "paper"): lambda s: triangle(s["k"]) + s["k"],
    ("antipasto", "steer"): lambda s: triangle(s["k"]) + s["k"],
    ("antipasto", "seed"): lambda s: triangle(s["k"]),
    ("psoft", "input"): lambda s: triangle(s["r"]) + 2 * s["r"],
    ("psoft", "seed"): lambda s: triangle(s["r"]),
    ("psoft", "peft"): lambda s: triangle(s["r"]) + 2 * s["r"],
    ("fourierft", "zero"): lambda s: s["k"],
    ("fourierft", "paper"): lambda s: s["k"],
    ("clover", "joint"): lambda s: 2 * s["H"] * s["e"] ** 2,
    ("clover", "head"): lambda s: s["H"] * s["e"] ** 2 + s["G"] * s["e"] ** 2,
    ("clover", "seed"): lambda s: 2 * s["H"] * s["e"],
    ("reft", "LoReFT"): lambda s: 2 * s["r"] * s["d"] + s["r"],
    ("reft", "NoReFT"): lambda s: 2 * s["r"] * s["d"] + s["r"],
    ("reft", "ConsReFT"): lambda s: s["r"] * s["d"] + s["r"],
    ("reft", "LobiReFT"): lambda s: s["r"] * s["d"] + s["r"],
    ("reft", "DiReFT"): lambda s: 2 * s["r"] * s["d"] + s["r"],
}

SIZES: list[dict[str, int]] = [
    {"m": 12, "n": 8, "r": 2, "k": 4, "F": 2, "d": 1, "count": 7, "H": 6, "G": 2, "e": 3},
    {"m": 10, "n": 20, "r": 6, "k": 5, "F": 3, "d": 2, "count": 11, "H": 4, "G": 4, "e": 8},
    {"m": 14, "n": 14, "r": 4, "k": 7, "F": 1, "d": 0, "count": 1, "H": 8, "G": 1, "e": 16},
]


def variants(name: str) -> tuple[str | None, ...]:
    return padp.compile(name).variants or (None,)


def test_every_variant_of_the_library_has_its_formula_here() -> None:
    assert {(name, variant) for name in library() for variant in variants(name)} == set(COUNTS)
    assert len(library()) == 20


@pytest.mark.parametrize("sizes", SIZES, ids=["12x8", "10x20", "14x14"])
@pytest.mark.parametrize(("name", "variant"), COUNTS, ids=lambda x: str(x))
def test_formula(name: str, variant: str | None, sizes: dict[str, int]) -> None:
    formula = padp.compile(name).count_of(variant)
    value = formula.subs({s: sizes[str(s)] for s in formula.free_symbols})
    assert value == COUNTS[name, variant](sizes), formula


@pytest.mark.parametrize("name", sorted({n for n, _ in COUNTS} - {"clover", "reft"}))
def test_formula_is_what_is_stored(name: str) -> None:
    """The formula at the sizes of a layer is the number of scalars that train in it."""
    from torch import nn

    adapter = padp.compile(name)
    sizes = SIZES[0]
    extra = {"adalora": {"steps": 5, "target": 1}, "road": {"g": 4}}.get(name, {})
    for variant in variants(name):
        formula = adapter.count_of(variant)
        hyper = {h: sizes[h] for h in ("r", "k", "F", "d", "count") if h in adapter.hyper}
        layer = adapter(nn.Linear(sizes["n"], sizes["m"]), variant=variant, **hyper, **extra)
        stored = sum(p.numel() for p in layer.parameters() if p.requires_grad)
        assert stored == formula.subs({s: sizes[str(s)] for s in formula.free_symbols}), variant


CLAIM = re.compile(r"(?<=# params: )[^\n]+|(?<=# )[^\n#,→]+(?= params\n)|(?<=, )[^\n#,→]+(?= params\n)")


@pytest.mark.parametrize("name", library())
def test_a_claim_that_is_one_off_is_an_error_that_shows_the_one(name: str) -> None:
    text = load(name).text
    for claim in CLAIM.finditer(text):
        wrong = f"{text[: claim.start()]}{claim[0]} + 1{text[claim.end() :]}"
        found = [d for d in padp.check(wrong) if d.severity != "note"]
        assert {d.code for d in found} == {"E401"}, claim[0]
        assert all("declared − claimed = −1" in d.notes for d in found)
        assert all(wrong[d.span.start : d.span.end].count("+ 1") for d in found if d.span)


def test_most_of_the_library_claims_its_count() -> None:
    """Else the test above would say nothing."""
    assert sum(bool(CLAIM.search(load(name).text)) for name in library()) >= 18


HEAD = "adapter T(r = 4) on linear(W ∈ ℝ^{m×n})\n"
LOW = HEAD + "A ∈ ℝ^{r×n}: learned, init = kaiming\nB ∈ ℝ^{m×r}: learned, init = 0\ny ← (W + B @ A) @ x\n"
TURN = """adapter T(k = 4) on linear(W ∈ ℝ^{m×n}) where n = b·k
Q ∈ (ℝ^{k(k-1)/2})^b: learned, init = 0
y ← W @ blkdiag(cayley(skew(Q))) @ x
"""

RIGHT = [
    LOW + "# params: r(m + n)\n", LOW + "# params: r·m + n·r\n", LOW + "# r(m + n) params\n", LOW + "# param: r(n+m)\n",
    LOW + "# params: (m² - n²)·r/(m - n)\n",
    LOW + "# O(m + n) params\n", LOW + "# O(r(m + n)) params\n", LOW + "# O(m·n) params\n",
    LOW + "# O(r²·m·n) params\n",
    TURN + "# params: n(k-1)/2\n", TURN + "# params: b·k(k-1)/2\n", TURN + "# n·k/2 - n/2 params\n",
    TURN + "# O(n) params\n", TURN + "# O(b) params\n", TURN + "# O(n·k) params\n", TURN + "# O(n log n) params\n",
]  # fmt: skip


@pytest.mark.parametrize("text", RIGHT, ids=[t.splitlines()[-1] for t in RIGHT])
def test_true_claims_are_silent(text: str) -> None:
    assert judged(text) == []


WRONG = [
    LOW + "# «E401 params: r·m»\n", LOW + "# «E401 r(m + n + 1) params»\n", LOW + "# «E401 params: 4(m + n)»\n",
    LOW + "# «E401 params: 0»\n", LOW + "# a matrix, «E401 m·n params», which is many\n",
    LOW + "# «E401 O(r) params»\n", LOW + "# «E401 O(m) params»\n", LOW + "# «E401 O(n log n) params»\n",
    LOW + "# «E401 O(1) params»\n", LOW + "# «E401 O(r²) params»\n",
    TURN + "# «E401 params: n(k-1)»\n", TURN + "# «E401 params: n(n-1)/2»\n", TURN + "# «E401 O(k) params»\n",
    TURN + "# «E401 O(√n) params»\n", TURN + "# «E401 O(m) params»\n",
    # two places that contradict each other
    LOW + "# params: r(m + n)\n# «E404 «E401 params: 2·r·n»»\n",
    LOW + "# «E401 params: m·n»\n# «E404 O(m + n) params»\n",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG, ids=[t.split("@ x\n")[-1] for t in WRONG])
def test_false_claims(text: str) -> None:
    assert judged(text)


UNCLEAR = [
    LOW + "# «N402 params: q»\n", LOW + "# «N402 params: one for each row»\n",
    LOW + "# «N402 few params»\n", LOW + "# «N402 params: W»\n", LOW + "# «N402 params: sin(r)»\n",
]  # fmt: skip


@pytest.mark.parametrize("text", UNCLEAR, ids=[t.split("@ x\n")[-1] for t in UNCLEAR])
def test_what_cannot_be_understood_is_a_note(text: str) -> None:
    assert judged(text)


PROSE = [
    LOW + "# the params of this layer are few\n", LOW + "# see the paper for its params and scales\n",
    LOW + "# parameters: see below\n", LOW + "# r controls the size\n",
]  # fmt: skip


@pytest.mark.parametrize("text", PROSE)
def test_prose_is_prose(text: str) -> None:
    assert [d for d in judged(text) if d.severity != "note"] == []


def test_as_people_see_them(golden: Callable[[str, str], None]) -> None:
    golden("compiler/counts.txt", "\n\n".join(messages(text) for text in (*WRONG, *UNCLEAR)) + "\n")


def test_a_count_is_written_in_the_sizes_that_read_best() -> None:
    """b = n/k goes into a product of sizes; a sum over a size, (k⁴ + n²)/k², stays the sum that it is."""
    head = "adapter T(k = 4) on linear(W ∈ ℝ^{m×n}) where n = b·k\n"
    blocks = head + "Q ∈ (ℝ^{k×k})^b: learned, init = 0\ny ← (W + W @ blkdiag(Q)) @ x\n"
    two = head + "A ∈ ℝ^{k×k}: learned, init = 0\nC ∈ ℝ^{b×b}: learned, init = kaiming\ny ← (W + W @ (A ⊗ C)) @ x\n"
    assert show(padp.compile(blocks).count) == "k·n"
    assert show(padp.compile(two).count) == "b² + k²"


def test_a_shown_formula_can_be_written_back() -> None:
    """What a message suggests is of the language: products of names have their dots."""
    m, n, r, k, b = (sp.Symbol(x, integer=True, positive=True) for x in "mnrkb")
    formulas: list[tuple[Any, str]] = [
        (r * (m + n), "r(m + n)"), (n * (k - 1) / 2, "n(k − 1)/2"), (m * r, "m·r"),
        (b * k * (k - 1) / 2, "b·k(k − 1)/2"),
        (sp.Min(m, n) * r, "min(m, n)·r"), ((m + n) * (m - n), "(m + n)(m − n)"), (2 * m, "2m"), (n**2 * r, "n²·r"),
        (sp.ceiling(n / r) * (r + n), "ceil(n/r)(n + r)"), (2**r * m, "2^r·m"), (2**(r + 1), "2^(r + 1)"),
    ]  # fmt: skip
    for formula, text in formulas:
        assert show(formula) == text
        parse(Source.of(f"y ← {text.replace('−', '-')}\n"))
