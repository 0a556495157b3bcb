"""From a layer's sizes to every dimension: relations are solved, and what breaks one is told with both sides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

import padp
from padp import Diagnostic, PadpError
from padp.compiler.elaborate.cases import cases
from padp.compiler.facts.requirements import unmet
from padp.compiler.names.resolve import resolve
from padp.compiler.sizes.solve import solve
from padp.dsl.parse import parse
from padp.dsl.source import Source

DIAGONAL = "Λ ∈ ℝ^m: learned, init = 1\ny ← Λ ⊙ (W @ x)\n"


def solved(where: str, known: dict[str, int], **hyper: int) -> dict[str, int]:
    header = ", ".join(f"{name} = 1" for name in hyper)
    source = Source.of(f"adapter T({header}) on linear(W ∈ ℝ^{{m×n}}) where {where}\n{DIAGONAL}")
    return solve(resolve(parse(source), source), known, hyper)


@pytest.mark.parametrize(("where", "known", "hyper", "wanted"), [
    ("n = b·k", {"m": 5, "n": 768}, {"k": 32}, {"b": 24}),
    ("b·k = n", {"m": 5, "n": 12}, {"k": 3}, {"b": 4}),
    ("n = b·k, m = c·b", {"m": 8, "n": 12}, {"k": 3}, {"b": 4, "c": 2}),
    ("q = min(m, n), N = ceil(q/r)", {"m": 10, "n": 7}, {"r": 3}, {"q": 7, "N": 3}),
    ("n = k² ", {"m": 3, "n": 49}, {}, {"k": 7}),
    ("n = 2^k", {"m": 3, "n": 64}, {}, {"k": 6}),
    ("h = n//2", {"m": 3, "n": 7}, {}, {"h": 3}),
])  # fmt: skip
def test_solved(where: str, known: dict[str, int], hyper: dict[str, int], wanted: dict[str, int]) -> None:
    found = solved(where, known, **hyper)
    assert {name: found[name] for name in wanted} == wanted


def refused(program: str, m: int, n: int, **hyper: object) -> tuple[Diagnostic, ...]:
    with pytest.raises(PadpError) as error:
        padp.compile(program)(nn.Linear(n, m), **hyper)
    return error.value.diagnostics


HEAD = "adapter T(r = 8, k = 4) on linear(W ∈ ℝ^{m×n})"
TOP = HEAD.replace(", k = 4", "") + """
U, Σ, Vᵀ ← svd(W)
c ∈ ℝ^r: learned, init = 0
y ← (W + U_{:,:r} · c · Vᵀ_{:r}) @ x
"""

# program, rows, columns, hyperparameters, code, and words of the message and its notes: both sides, with their numbers
BROKEN: list[tuple[str, int, int, dict[str, object], str, list[str]]] = [
    (f"{HEAD} where n = b·k, m = b·r\n{DIAGONAL}", 6, 8, {"r": 2}, "E501",
     ["m = b·r", "m is 6, b·r is 4", "b = 2", "r = 2"]),
    (f"{HEAD} where m ≥ n, r ≥ k\n{DIAGONAL}", 4, 8, {}, "E501", ["m ≥ n", "m is 4, n is 8"]),
    (f"{HEAD} where n = b·k, b ≠ r\n{DIAGONAL}", 4, 32, {}, "E501", ["b ≠ r", "b is 8, r is 8"]),
    (f"{HEAD} where r ≤ min(m, n), k < r\n{DIAGONAL}", 9, 7, {}, "E501", ["r ≤ min(m, n)", "r is 8, min(m, n) is 7"]),
    ("oft", 6, 100, {"k": 32}, "E501", ["n = b·k", "k = 32", "n = 100", "k = 20 or 25 or 50"]),
    ("hra", 6, 10, {"r": 3}, "E501", ["r even", "r = 3"]),
    ("pissa", 6, 5, {"r": 10}, "E501", ["r ≤ m", "r is 10, m is 6"]),
    ("road", 7, 10, {}, "E501", ["m/2", "7/2", "m = 7"]),
    ("road", 7, 11, {"variant": "seed"}, "E501", ["n/2", "11/2", "n = 11"]),
    ("lora", 6, 5, {"r": -1}, "E501", ["the dimension r is −1", "≥ 0"]),
    ("lora", 6, 5, {"r": 2.5}, "E501", ["the dimension r is 2.5"]),
    # what no relation says, and a slice or an index needs
    (TOP, 6, 5, {}, "E501", ["r ≤ min(m, n)", "r is 8, min(m, n) is 5", "m = 6, n = 5, r = 8"]),
    ("ssvd", 6, 10, {"k": 32}, "E501", ["k ≤ min(m, n)", "k is 32, min(m, n) is 6"]),
    ("psoft", 6, 10, {"r": 32}, "E501", ["r ≤ min(m, n)", "r is 32, min(m, n) is 6"]),
    ("antipasto", 6, 10, {"k": 7}, "E501", ["k ≤ min(m, n)", "k is 7, min(m, n) is 6"]),
    (TOP.replace("Vᵀ_{:r}) @ x", "Vᵀ_{:r}) @ x + x_{6} · W @ x"), 9, 6, {"r": 2}, "E501", ["6 < n", "n is 6"]),
    ("svft", 6, 10, {"variant": "random", "count": 300}, "E501",
     ["count ≤ min(m, n)²", "count is 300, min(m, n)² is 36"]),
    ("road", 6, 10, {"variant": "peft"}, "E501", ["halves(6, 64): groups of 64 do not fit 6", "divides 6"]),
    ("boft", 6, 10, {"k": 3, "F": 2}, "E501", ["n = b·k", "k = 3", "n = 10"]),
    (f"{HEAD}\nP ← perm(butterfly(n, r, 0))\n{DIAGONAL}".replace("@ x", "@ P @ x"), 6, 10, {"r": 4}, "E501",
     ["butterfly: blocks of 4 do not divide 10"]),
    ("fourierft", 6, 10, {"k": 61}, "E501", ["k ≤ m·n", "k is 61, m·n is 60"]),
]


@pytest.mark.parametrize(("program", "m", "n", "hyper", "code", "words"), BROKEN,
                         ids=[f"{p.splitlines()[0]} {m}x{n} {h}" for p, m, n, h, _, _ in BROKEN])  # fmt: skip
def test_both_sides_are_named(
    program: str, m: int, n: int, hyper: dict[str, object], code: str, words: list[str]
) -> None:
    (found,) = refused(program, m, n, **hyper)
    assert found.code == code
    said = " · ".join([found.message, *found.notes, found.suggestion or ""])
    assert [word for word in words if word not in said] == [], said


def test_sizes_that_fit_are_silent() -> None:
    for r in (1, 5):
        padp.compile(TOP)(nn.Linear(5, 6), r=r)
    padp.compile("oft")(nn.Linear(100, 6), k=25)


def test_one_broken_requirement_is_told_once() -> None:
    """Three slices end at r; one message."""
    assert len(refused(TOP, 6, 5)) == 1


def test_two_are_two() -> None:
    text = TOP.replace("r = 8", "r = 8, q = 9") + "minimise ‖U_{:q}‖_F² + ‖Vᵀ_{:,:q}‖_F²\n"
    found = refused(text, 6, 5)
    assert [d.message.split(" does")[0] for d in found] == ["r ≤ min(m, n)", "q ≤ m", "q ≤ n"]


def test_an_index_set_that_does_not_fit_is_refused_where_it_is_written() -> None:
    with pytest.raises(PadpError) as error:
        padp.attach(nn.ModuleDict({"first": nn.Linear(8, 6)}), padp.compile("road"), variant="peft")
    (found,) = error.value.diagnostics
    assert found.span is not None and found.source is not None and found.source.slice(found.span) == "halves(m, g)"
    assert "at first" in found.notes


def test_the_layer_is_named_when_a_model_is_adapted() -> None:
    model = nn.ModuleDict({"first": nn.Linear(8, 8), "second": nn.Linear(6, 8)})
    with pytest.raises(PadpError) as error:
        padp.attach(model, padp.compile("oft"), k=4)
    assert any("at second" in d.notes for d in error.value.diagnostics)
    model = nn.ModuleDict({"first": nn.Linear(8, 8), "second": nn.Linear(3, 8)})
    with pytest.raises(PadpError) as error:
        padp.attach(model, padp.compile(TOP), r=4)
    assert any("r ≤ min(m, n)" in d.message for d in error.value.diagnostics)
    assert isinstance(model["first"], nn.Linear)  # left as it was


def test_requirements_are_found_without_sizes_and_settled_with_them() -> None:
    source = Source.of(TOP)
    method = resolve(parse(source), source)
    assert unmet(method, cases(method), {"m": 8, "n": 9, "r": 8}) == []
    (found,) = unmet(method, cases(method), {"m": 7, "n": 9, "r": 8}, "block.0")
    assert found.message == "r ≤ min(m, n) does not hold at block.0: r is 8, min(m, n) is 7"
    assert found.span is not None and source.slice(found.span) == "U_{:,:r}"


def test_as_people_see_them(golden: Callable[[str, str], None]) -> None:
    drawn = [str(d) for program, m, n, hyper, _, _ in BROKEN for d in refused(program, m, n, **hyper)]
    golden("compiler/sizes.txt", "\n\n".join(drawn) + "\n")
