"""Each capability is a claim about what is compiled: tried with numbers, over random programs and random loops.

    mergeable       y is affine in x, and W' x + b' is y; where it is refused, merging is refused too
    additive        base(x) + delta(x) is y
    needs_weight    no plan reads W where it is said that none does
    low_rank        rank(W' − W) is no larger
    identity        the fresh output is the base's, and where a start is shown instead, it is not
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from torch import Tensor, nn

import padp
from padp.compiler.adapter import Adapter
from padp.compiler.facts.abilities import Capability
from padp.compiler.plan.steps import order
from padp.dsl.diagnostics import PadpError
from tests.graph.test_random_programs import SLOW
from tests.support.agreement import linear, moved
from tests.support.random_loops import loops
from tests.support.random_programs import Program, programs

CONDITION = "not "  # the reason of what differs between the cases of a conditional names the case that fails


def held(program: str, m: int, n: int, hyper: Mapping[str, Any]) -> Mapping[str, Capability]:
    """What is said of a program, after all of it was tried on a layer."""
    adapter: Adapter = padp.compile(program)
    said: Mapping[str, Capability] = adapter.capabilities
    layer: Any = adapter(linear(m, n), dtype=torch.double, **hyper)
    module, base = layer.adapters["default"], layer.base
    x = torch.randn(7, n, dtype=torch.double, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        _starts(said["identity"], layer(x), base(x))
        moved(layer, 2)
        _merges(said, layer, x)
        assert bool(said["additive"]) == module.additive or CONDITION in said["additive"].reason
        if said["additive"]:
            _close(module.delta(x, base) + base(x), layer(x))
    if any(low.prim == "weight" for low in order(*module.compiled.outputs)):
        assert any(word in said["needs_weight"].reason for word in ("at every step", "when attached"))
    return said


def _starts(said: Capability, y: Tensor, base: Tensor) -> None:
    same = torch.allclose(y, base, rtol=1e-9, atol=1e-9)
    assert not said or same
    assert "it starts" not in said.reason or not same or CONDITION in said.reason


def _merges(said: Mapping[str, Capability], layer: Any, x: Tensor) -> None:
    module, base = layer.adapters["default"], layer.base
    if not said["mergeable"]:
        if CONDITION not in said["mergeable"].reason:
            with pytest.raises(PadpError, match="E504"):
                module.merged(base.weight, base.bias)
        return
    W, b = module.merged(base.weight, base.bias)
    _close(nn.functional.linear(x, W, b), layer(x))
    numbers = {k: v for k, v in {**module.sizes, **module.hyper}.items() if isinstance(v, int)}
    bound = sp.sympify(said["low_rank"].value)
    bound = int(bound.subs({s: numbers[str(s)] for s in bound.free_symbols}))
    assert int(torch.linalg.matrix_rank(W - base.weight, atol=1e-9)) <= bound


def _close(a: Tensor, b: Tensor) -> None:
    assert float((a - b).abs().max()) <= 1e-8 * (1 + float(b.abs().max()))


@settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=SLOW)
@given(programs(depth=2))
def test_of_a_random_program(program: Program) -> None:
    held(program.text, program.m, program.n, program.hyper)


@pytest.mark.parametrize("seed", range(60))
def test_of_a_random_loop(seed: int) -> None:
    held(loops(seed), 5, 5, {"r": 3})


HEAD = "adapter T(r = 3) on linear(W ∈ ℝ^{m×n})\nv ∈ ℝ^n: learned, init = normal(0.4)\n"
LOOP = {
    "one through the other": ("a ← zeros(n)\nq ← x", "a ← a ⊙ v + q · v", "q ← q · q", "W @ a", False),
    "the other way round": ("a ← zeros(n)\nq ← x", "q ← q · q", "a ← a ⊙ v + q · v", "W @ a", False),
    "linear in both": ("a ← zeros(n)\nq ← x", "a ← a ⊙ v + q · v", "q ← q · v", "W @ a", True),
    "a factor that is carried": ("a ← x\nq ← v", "a ← a ⊙ q", "q ← q · q", "W @ a", True),
    "a factor that meets x at the first step": ("a ← x\nq ← v", "a ← a ⊙ q", "q ← q + x", "W @ a", False),
}


@pytest.mark.parametrize("name", LOOP)
def test_a_loop_is_affine_where_all_that_it_carries_is(name: str) -> None:
    start, first, second, output, mergeable = LOOP[name]
    said = held(f"{HEAD}{start}\nfor i in range(r):\n    {first}\n    {second}\ny ← {output}\n", 4, 5, {})
    assert bool(said["mergeable"]) == mergeable


ADDED = {
    "steps of the base's output": ("z ← W @ x\nfor i in range(r):\n    z ← z + tanh(z)\ny ← W @ x + z\n", False),
    "what is carried starts at 0 and takes the base's output": (
        "z ← W @ x\nq ← zeros(m)\nfor i in range(r):\n    q ← tanh(q) + z\n    z ← 2 · z\ny ← W @ x + q\n", False),
    "a loop of its own": ("q ← x\nfor i in range(r):\n    q ← tanh(q) ⊙ v\ny ← W @ x + sum(q) · ones(m)\n", True),
    "nothing": ("y ← W @ x + 0 · (W @ v)\n", True),
}


@pytest.mark.parametrize("name", ADDED)
def test_what_is_added_is_made_without_the_base(name: str) -> None:
    body, additive = ADDED[name]
    assert bool(held(HEAD + body, 4, 5, {})["additive"]) == additive


PARTS = {
    "all of its first parts": "U, Σ, Vᵀ ← svd(W, rank = r)\ny ← W @ x + s · U @ diag(Σ) @ Vᵀ @ x\n",
    "its first parts, scaled and moved": "U, Σ, Vᵀ ← svd(W, rank = r)\ny ← W @ x + U @ diag(Σ) @ Vᵀ @ (v ⊙ x)\n",
    "what the first parts leave": "U, Σ, Vᵀ ← svd(W)\ny ← W @ x + s · U_{:,r:} @ diag(Σ_{r:}) @ Vᵀ_{r:,:} @ x\n",
    "all of its parts": "U, Σ, Vᵀ ← svd(W)\ny ← W @ x + s · U @ diag(Σ) @ Vᵀ @ x\n",
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(("m", "n", "r"), [(4, 5, 3), (3, 5, 3), (5, 3, 3), (3, 3, 3), (1, 1, 1), (1, 4, 1), (4, 1, 1)])
def test_parts_of_a_decomposition_that_are_all_of_it(name: str, m: int, n: int, r: int) -> None:
    """What is additive for all sizes is where the rank happens to be W's own."""
    held(f"adapter T(r = 1) on linear(W ∈ ℝ^{{m×n}}) where r ≤ min(m, n)\nv ∈ ℝ^n: learned, init = normal(0.4)\n"
         f"s ∈ ℝ: learned, init = normal(0.4)\n{PARTS[name]}", m, n, {"r": r})


FACTORS = {
    "a sum behind a tall factor": "W @ B @ (A + C) @ x",
    "a sum before a wide factor": "D @ (A + C) @ Wᵀ @ W @ x",
    "tall and wide on both sides": "D @ (E + E) @ W @ B @ (A - C) @ x",
    "W in a sum between them": "D @ E @ (W + D @ A) @ B @ C @ x",
}


@pytest.mark.parametrize("name", FACTORS)
def test_factors_that_are_not_square(name: str) -> None:
    held("adapter T(r = 2) on linear(W ∈ ℝ^{m×n})\nB ∈ ℝ^{n×r}: learned, init = normal(0.4)\n"
         "A, C ∈ ℝ^{r×n}: learned, init = normal(0.4)\nD ∈ ℝ^{m×r}: learned, init = normal(0.4)\n"
         f"E ∈ ℝ^{{r×m}}: learned, init = normal(0.4)\ny ← {FACTORS[name]}\n", 5, 6, {})


UNDEFINED = {
    "0/0": "W @ x + (s / s - 1) · (W @ x)",
    "1/0": "(W + s · (1/s) · W) @ x",
    "the inverse of 0": "W @ (x + s · (M⁻¹ @ x))",
    "solve with 0": "W @ (x + s · solve(M, x))",
    "a negative power of 0": "W @ x + 0 · (sum(z^-2) · (W @ x))",
    "log 0": "W @ x + s · log(s) · (W @ x)",
    "the root of a negative number": "W @ x + s · √(s - 1) · (W @ x)",
    "behind a detach": "W @ x + s · detach(1 / s) · (W @ x)",
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_what_has_no_value_is_no_identity(name: str) -> None:
    program = "adapter T on linear(W ∈ ℝ^{m×n})\ns ∈ ℝ: learned, init = 0\nz ∈ ℝ^n: learned, init = 0\n" \
        f"M ∈ ℝ^{{n×n}}: learned, init = 0\ny ← {UNDEFINED[name]} + sum(z) · (W @ x) + sum(M) · (W @ x)\n"
    said = padp.compile(program).capabilities["identity"]
    assert not said
    assert "has no value" in said.reason
    assert [d.message for d in padp.check(program) if d.code == "W305"] == [
        f"a fresh adapter is not the identity: {said.reason}"]
    defined = program.replace("init = 0", "init = kaiming")
    assert "has no value" not in padp.compile(defined).capabilities["identity"].reason


ZEROS = ("outer((zeros(n)ᵀ @ K)ᵀ, v)", "diag(diagonal(Z)) @ K", "(K @ Zᵀ)ᵀ", "reshape(flatten(Z), n, n)",
         "circulant(Z_0)", "Z_{:,:2} @ K_{:2}", "Re(ifft2(fft2(Z)))", "K @ assemble(blocks(Z, 1, 1))",
         "tril(Z) @ K", "K @ triu(Z)", "stril(Z) - striu(Z) @ K", "outer(vec(Z)_{:n}, v)")


@pytest.mark.parametrize("zero", ZEROS)
def test_a_part_of_zero_is_zero(zero: str) -> None:
    said = held("adapter T on linear(W ∈ ℝ^{n×n})\nK ∈ ℝ^{n×n}: learned, init = kaiming\nv ∈ ℝ^n: learned, init = 1\n"
                f"Z ∈ ℝ^{{n×n}}: learned, init = 0\ny ← (W + {zero}) @ x + sum(Z) · v\n", 4, 4, {})
    assert said["identity"]
