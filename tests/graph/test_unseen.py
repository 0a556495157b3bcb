"""Programs that are not in the library mean the same compiled as read literally."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import nn

import padp
from padp.compiler.plan.steps import LEAVES, order
from padp.dsl.diagnostics import PadpError
from tests.support.unseen import PROGRAMS

SHAPES = ((16, 24), (24, 16), (16, 16))


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_compiled_is_the_dense_reading(name: str, shape: tuple[int, int]) -> None:
    program, hyper = PROGRAMS[name]
    m, n = shape
    torch.manual_seed(0)
    layer = padp.compile(program)(nn.Linear(n, m).double(), dtype=torch.double, **hyper)
    module = layer.adapters["default"]
    learned = [p for p in module.parameters() if p.requires_grad]
    with torch.no_grad():
        for p in learned:
            p.add_(torch.randn_like(p) * 0.2)
    x = torch.randn(2, 3, n, dtype=torch.double, requires_grad=True)
    y, literal = layer(x), module.reference(x, layer.base)
    assert torch.allclose(y, literal, rtol=1e-9, atol=1e-9)
    weights = torch.randn_like(y)
    fast = torch.autograd.grad((y * weights).sum(), [*learned, x])
    slow = torch.autograd.grad((literal * weights).sum(), [*learned, x])
    for a, b in zip(fast, slow, strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-8)
    with torch.no_grad():
        assert torch.allclose(layer.eval()(x), y, rtol=1e-10, atol=1e-10)
        if padp.compile(program).capabilities["mergeable"]:
            W, b = module.merged(layer.base.weight, layer.base.bias)
            assert torch.allclose(nn.functional.linear(x, W, b), y, rtol=1e-9, atol=1e-9)
        else:
            with pytest.raises(PadpError, match="E504"):
                module.merged(layer.base.weight, layer.base.bias)


THIN: Mapping[str, Mapping[str, int]] = {
    "LoHa": {}, "ABBA": {}, "LoKr": {}, "Hadamard rows": {}, "GraLoRA": {}, "C3A": {"b": 32}, "Bone": {},
}
"""Programs that write a matrix as large as W and whose plans have none; of C3A with blocks worth a transform."""


@pytest.mark.parametrize("name", THIN)
@pytest.mark.parametrize(("m", "n"), [(1024, 1024), (768, 1536)])
def test_a_training_step_builds_nothing_as_large_as_W(name: str, m: int, n: int) -> None:
    program, hyper = PROGRAMS[name]
    adapter = padp.compile(program)
    chosen = adapter.settings(None, **{**hyper, **THIN[name]})
    compiled = adapter.compiled({"m": m, "n": n}, chosen.variant, chosen.hyper, True)[0]
    large = [low for low in order(*compiled.outputs) if "T" not in low.dims and low.prim not in LEAVES
             and math.prod(int(d) for d in low.dims) >= m * n / 2]
    assert not large


@pytest.mark.parametrize("program", [PROGRAMS["Bone"][0], """adapter Around(r = 2) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{n×r}: learned, init = 0
y ← (W + W @ B @ A) @ x
"""])
@pytest.mark.parametrize("has_bias", [False, True])
def test_what_applies_W_twice_calls_the_base_once(program: str, has_bias: bool) -> None:
    """W x + W N x = W (x + N x)."""
    torch.manual_seed(0)
    base = nn.Linear(16, 24, bias=has_bias).double()
    layer = padp.compile(program)(base, dtype=torch.double)
    module = layer.adapters["default"]
    calls = [low for low in order(*module.compiled.outputs) if low.prim in ("base", "base_without_bias")]
    assert len(calls) == 1
    x = torch.randn(3, 16, dtype=torch.double)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p))
        assert torch.allclose(layer(x), module.reference(x, layer.base), rtol=1e-10, atol=1e-10)
