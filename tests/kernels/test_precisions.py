"""Tensors of two precisions in one program: every product takes them, whatever its sides are."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import padp

HEAD = """adapter T on linear(W ∈ ℝ^{m×n})
v ∈ ℝ^n: learned, init = normal(0.4)
u ∈ ℝ^m: learned, init = normal(0.4)
M ∈ ℝ^{n×m}: learned, init = normal(0.4)
"""
OUTPUTS = ["W @ v", "W @ x + W @ v", "W @ (x + v)", "W @ x + (uᵀ @ W @ x) · u", "W @ x + u · (uᵀ @ W @ v)",
           "W @ x + W @ M @ u", "W @ x + W @ M @ W @ v", "(W + outer(u, Wᵀ @ u)) @ x", "W @ x + W @ (M @ W @ x)"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("output", OUTPUTS)
def test_beside_a_half_precision_base(output: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = padp.compile(f"{HEAD}y ← {output}\n")(nn.Linear(4, 6).to(dtype))
    x = torch.randn(3, 4, dtype=dtype)
    exact = copy.deepcopy(layer).double().reference(x.double())
    size = float(exact.detach().abs().max())
    for training in (True, False):
        layer.train(training)
        y = layer(x)
        assert y.dtype == dtype and float((y - exact).detach().abs().max()) < 0.05 * size
