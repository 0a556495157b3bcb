"""What the compiler says an adapter can do: against what its mathematics says, and against what its layers do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import sympy as sp
import torch
from torch import nn

import padp
from padp.compiler.adapter import Adapter
from padp.compiler.facts.abilities import Capability
from padp.compiler.library import library
from padp.compiler.plan.steps import order
from padp.dsl.diagnostics import PadpError
from tests.support.agreement import built
from tests.support.unseen import PROGRAMS


@dataclass(frozen=True)
class Line:
    """What one program can do. ``reads``: when entries of W are read ('' = never). ``rank``: of the change ('' = full,
    None = there is no W')."""

    mergeable: bool
    additive: bool
    reads: str
    rank: str | None
    identity: bool = True
    batchable: bool = True


LOW = Line(True, True, "", "min(r, m, n)")
FULL = Line(True, False, "", "")  # everything is rotated or scaled
TOP_R = Line(True, True, "when attached", "min(r, m, n)")  # U_r (…) V_rᵀ
TOP_K = Line(True, True, "when attached", "min(k, m, n)")
SPECTRUM = Line(True, True, "when attached", "")  # all of U and Vᵀ
HEADS = Line(True, False, "when attached", None)
HIDDEN = Line(False, False, "", None)

LIBRARY: dict[tuple[str, str | None], Line] = {
    ("adalora", "paper"): LOW, ("adalora", "peft"): LOW,
    ("antipasto", "steer"): replace(TOP_K, identity=False),  # random on purpose
    ("antipasto", "seed"): TOP_K,
    ("boft", "paper"): FULL, ("boft", "peft"): FULL,
    ("clover", "joint"): HEADS, ("clover", "head"): HEADS, ("clover", "seed"): HEADS,
    ("delora", "paper"): Line(True, True, "when attached", "min(2·r, m, n)"),  # two products, and the norms of W
    ("delora", "seed"): LOW, ("delora", "peft"): TOP_R,
    ("dora", None): Line(True, False, "at every step", ""),  # the norms of W + B A
    ("fourierft", "zero"): Line(True, True, "", ""), ("fourierft", "paper"): Line(True, True, "", "", identity=False),
    ("goft", "tree"): FULL, ("goft", "quasi"): FULL,
    ("hra", None): replace(LOW, additive=False),  # r reflections move r directions
    ("ia3", "feedforward"): FULL, ("ia3", "attention"): FULL,
    ("lora", None): LOW,
    ("oft", "exact"): FULL, ("oft", "peft"): FULL, ("oft", "peft_exact"): FULL,
    ("pissa", "paper"): replace(TOP_R, rank="min(2·r, m, n)"),  # A B, without what A B was
    ("pissa", "peft"): replace(TOP_R, rank="min(2·r, m, n)"),
    ("psoft", "input"): TOP_R, ("psoft", "seed"): TOP_R, ("psoft", "peft"): TOP_R,
    ("randlora", "bases"): replace(FULL, additive=True), ("randlora", "peft"): replace(FULL, additive=True),
    ("reft", "LoReFT"): HIDDEN, ("reft", "NoReFT"): HIDDEN, ("reft", "ConsReFT"): replace(HIDDEN, identity=False),
    ("reft", "LobiReFT"): HIDDEN, ("reft", "DiReFT"): HIDDEN,
    ("road", "road_1"): FULL, ("road", "road_2"): FULL, ("road", "road_4"): FULL, ("road", "seed"): FULL,
    ("road", "peft"): FULL, ("road", "peft_2"): FULL, ("road", "peft_4"): FULL,
    ("ssvd", "exact"): TOP_K, ("ssvd", "paper"): TOP_K,
    ("svft", "plain"): SPECTRUM, ("svft", "banded"): SPECTRUM,
    ("svft", "random"): replace(SPECTRUM, rank="min(count, m, n)"),
    ("svft", "topk"): replace(SPECTRUM, rank="min(count, m, n)"),
    ("vera", None): LOW,
}
UNSEEN = {
    "LoHa": replace(LOW, rank="min(r**2, m, n)"),  # rank(A ⊙ B) ≤ rank A · rank B
    "LoKr": replace(LOW, rank="min(a·r, m, n)"),  # rank(A ⊗ B) = rank A · rank B
    "LoRA-XS": TOP_R,
    "Circulant": FULL,
    "Bone": FULL,  # W's blocks times B are W times a block-diagonal matrix: W is applied once more
    "Nonlinear": Line(False, True, "", None),
    "Mixture": Line(False, True, "", None),
    "TT": LOW,
    "Cayley both": FULL,
    "Gram-Schmidt": replace(LOW, additive=False, identity=False),  # a reflection from the start
    "Reflections left": replace(LOW, additive=False, identity=False),  # nothing says that r is even
    "Oblique": replace(LOW, additive=False, identity=False),
    "DoRA columns": Line(True, False, "at every step", ""),
    "Gate": Line(False, True, "", None),
    "Block diagonal low rank": replace(LOW, rank="min(b·r, m, n)"),
    "Bias only": replace(LOW, rank="0"),
}
HYPER: Mapping[str, Mapping[str, Any]] = {
    "adalora": {"r": 3, "steps": 10}, "antipasto": {"k": 3}, "delora": {"r": 3}, "dora": {"r": 3},
    "fourierft": {"k": 30}, "hra": {"r": 4}, "lora": {"r": 3}, "oft": {"k": 4}, "pissa": {"r": 3}, "psoft": {"r": 3},
    "randlora": {"r": 5}, "road": {"g": 8}, "ssvd": {"k": 3}, "svft": {"count": 5}, "vera": {"r": 3},
}
LINEAR = [(name, variant) for name, variant in LIBRARY if name not in ("clover", "reft")]


def of(program: str, variant: str | None = None) -> Mapping[str, Capability]:
    adapter: Adapter = padp.compile(program)
    return adapter.capabilities_of(variant)


def bound(text: str) -> Any:
    letters = ("m", "n", "r", "k", "count", "a", "b")
    names: dict[str, Any] = {n: sp.Symbol(n, integer=True, positive=True) for n in letters}
    return sp.parse_expr(text.replace("·", "*").replace("min", "Min"), local_dict=names)


def test_every_library_variant_is_listed() -> None:
    assert list(LIBRARY) == [(n, v) for n in library() for v in padp.compile(n).variants or (None,)]


@pytest.mark.parametrize(("name", "variant"), LIBRARY)
def test_library(name: str, variant: str | None) -> None:
    found = of(name, variant)
    check(found, LIBRARY[name, variant])
    assert bool(found["knobs"]) == (name == "antipasto")


@pytest.mark.parametrize("name", UNSEEN)
def test_unseen(name: str) -> None:
    found = of(PROGRAMS[name][0])
    check(found, UNSEEN[name])
    assert not found["knobs"]


def check(found: Mapping[str, Capability], line: Line) -> None:
    assert bool(found["mergeable"]) == line.mergeable
    assert bool(found["additive"]) == line.additive
    assert bool(found["batchable"]) == line.batchable
    assert bool(found["identity"]) == line.identity
    check_weight(found["needs_weight"], line.reads)
    check_rank(found["low_rank"], line.rank)


def check_weight(found: Capability, reads: str) -> None:
    assert bool(found) == bool(reads)
    if reads:
        assert found.reason.startswith(reads)


def check_rank(found: Capability, rank: str | None) -> None:
    if rank is None:
        assert not found
        assert found.value is None
    elif rank:
        assert found
        assert sp.simplify(found.value - bound(rank)) == 0
    else:
        assert not found
        assert found.value == bound("min(m, n)")


# ---------------------------------------------------------------- reasons


def test_reasons_name_the_line() -> None:
    gated = of(PROGRAMS["Gate"][0])
    assert gated["mergeable"].reason == "y is not affine in x: line 5 (y ← W @ x + sigmoid(gᵀ @ x) · (B @ (A @ x)))"
    assert of("dora")["needs_weight"].reason == (
        "at every step, line 11 (V̂ ← V / detach(‖V‖_row)); for a start, line 8 (g ∈ ℝ^m: learned, init = ‖W‖_row)")
    assert of("ssvd")["needs_weight"].reason == "when attached, line 9 (U, Σ, Vᵀ ← svd(W))"
    assert of("ia3", "attention")["additive"].reason == (
        "the bias does not stay as it is: line 11 (y ← (W @ x + bias) ⊙ λ)")
    assert of("ia3")["additive"].reason == "y is not W x and a sum of other terms: line 7 (y ← W @ (x ⊙ λ))"
    assert of(PROGRAMS["Bone"][0])["additive"].reason == (
        "W is applied once more in what is added: line 7 (y ← (W + assemble(D)) @ x)")
    bent = of("adapter Bent on linear(W ∈ ℝ^{m×n})\nv ∈ ℝ^n: learned, init = 1\ny ← (W + tanh(W ⊙ v)) @ x\n")
    assert bent["batchable"].reason == (
        "each adapter has a matrix as large as W of its own: line 3 (y ← (W + tanh(W ⊙ v)) @ x)")
    assert of("antipasto")["knobs"].reason == "α"


def test_a_base_that_is_applied_twice_is_not_additive() -> None:
    found = of("adapter Twice on linear(W ∈ ℝ^{m×n})\ns ∈ ℝ^n: learned, init = 0\ny ← W @ x + W @ (s ⊙ x) / 2 + bias\n")
    assert not found["additive"]
    assert found["mergeable"]


def test_a_program_without_the_base() -> None:
    found = of("adapter New(r = 2) on linear(W ∈ ℝ^{m×n})\nA ∈ ℝ^{r×n}: learned, init = kaiming\n"
               "B ∈ ℝ^{m×r}: learned, init = 0\ny ← B @ A @ x    # not the identity at init\n")
    assert repr(found["needs_weight"]) == "no (no weight is read)"
    assert not found["additive"]
    assert not found["low_rank"]  # B A − W


def test_entries_of_the_weight_in_a_function_of_their_own() -> None:
    found = of("adapter Odd on linear(W ∈ ℝ^{m×n})\nk ∈ ℝ: learned, init = 0\n"
               "y ← W @ x + k · tanh(W) @ x\n")
    assert found["needs_weight"].reason == "when attached, line 3 (y ← W @ x + k · tanh(W) @ x)"
    assert found["batchable"]
    found = of("adapter Odd on linear(W ∈ ℝ^{m×n})\nk ∈ ℝ: learned, init = 0\n"
               "y ← W @ x + tanh(k · W) @ x\n")
    assert found["needs_weight"].reason.startswith("at every step")
    assert not found["batchable"]


def test_a_conditional_on_sizes_names_its_cases() -> None:
    program = """adapter Sometimes(r = 2) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = 0
u ← A @ x
y ← W @ x + B @ (u if m ≥ n else gelu(u))
"""
    found = of(program)
    assert not found["mergeable"]
    assert found["mergeable"].reason == ("m ≥ n: y is affine in x; not m ≥ n: y is not affine in x: "
                                         "line 5 (y ← W @ x + B @ (u if m ≥ n else gelu(u)))")
    assert found["additive"]


def test_a_capability_reads_well() -> None:
    found = padp.compile("lora").capabilities
    assert repr(found["low_rank"]) == "yes (the rank of the change is at most min(m, n, r))"
    assert repr(found["needs_weight"]) == "no (W stands in W @ (…) alone, the base layer's own forward)"
    assert list(found) == ["mergeable", "batchable", "additive", "needs_weight", "low_rank", "knobs", "identity"]


def test_no_torch_is_imported() -> None:
    code = "import padp, sys; padp.compile('dora').capabilities['mergeable']; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- against what layers do


@pytest.mark.parametrize(("name", "variant"), LINEAR)
def test_library_layers_do_what_is_said(name: str, variant: str | None) -> None:
    found = of(name, variant)
    for m, n in ((16, 24), (24, 16)):
        compare(found, built(name, m, n, HYPER.get(name, {}), variant=variant))


@pytest.mark.parametrize("name", PROGRAMS)
def test_unseen_layers_do_what_is_said(name: str) -> None:
    program, hyper = PROGRAMS[name]
    compare(of(program), built(program, 16, 24, hyper))


def compare(found: Mapping[str, Capability], layer: Any) -> None:
    """Merging, adding, reads of W in the plan, and the rank of W' − W for random tensors, against what was derived."""
    module = layer.adapters["default"]
    assert bool(found["additive"]) == module.additive
    reads = any(low.prim == "weight" for low in order(*module.compiled.outputs))
    assert reads == any(said in found["needs_weight"].reason for said in ("at every step", "when attached"))
    if not found["mergeable"]:
        with pytest.raises(PadpError, match="E504"):
            module.merged(layer.base.weight, layer.base.bias)
        return
    W, b = module.merged(layer.base.weight, layer.base.bias)
    x = torch.randn(3, W.shape[1], dtype=torch.double)
    assert torch.allclose(nn.functional.linear(x, W, b), layer(x), rtol=1e-9, atol=1e-9)
    numbers = {k: v for k, v in {**module.sizes, **module.hyper}.items() if isinstance(v, int)}
    limit = sp.sympify(found["low_rank"].value)
    limit = int(limit.subs({s: numbers[str(s)] for s in limit.free_symbols}))
    assert int(torch.linalg.matrix_rank(W - layer.base.weight, atol=1e-9)) <= limit
