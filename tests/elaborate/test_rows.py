"""M_{j,:}ᵀ: a column where only that fits, the transpose of a vector in M_{j,:}ᵀ x and u M_{j,:}ᵀ; columns written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import padp

HEAD = "adapter T on linear(W ∈ ℝ^{m×n})\nM ∈ ℝ^{3×n}: learned, init = kaiming\nB ∈ ℝ^{m×3}: learned, init = 0.5\n"
Meaning = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

CASES: dict[str, Meaning] = {
    "y ← W @ x + W @ M_{0,:}ᵀ": lambda W, M, B, x: W @ x + W @ M[0],
    "y ← (M_{0,:} @ M_{1,:}ᵀ) · (W @ x)": lambda W, M, B, x: (M[0] @ M[1]) * (W @ x),
    "y ← (M_{0,:}ᵀ @ x) · (W @ x)": lambda W, M, B, x: (M[0] @ x) * (W @ x),
    "y ← ((M_{0,:} - 2 · M_{1,:}) @ x) · (W @ x)": lambda W, M, B, x: ((M[0] - 2 * M[1]) @ x) * (W @ x),
    "y ← ((M_{0,:} / ‖M_{1,:}‖) @ x) · (W @ x)": lambda W, M, B, x: (M[0] @ x) / M[1].norm() * (W @ x),
    "y ← W @ (x + (2 · M_{0,:})ᵀ)": lambda W, M, B, x: W @ (x + 2 * M[0]),
    "y ← W @ (M_{0,:}ᵀ @ M_{1,:} @ x)": lambda W, M, B, x: W @ (torch.outer(M[0], M[1]) @ x),
    "y ← W @ (x @ M_{1,:}ᵀ @ x)": lambda W, M, B, x: W @ (torch.outer(x, M[1]) @ x),
    "y ← W @ x + W @ Σ_{i ∈ range(3)} M_{i,:}ᵀ": lambda W, M, B, x: W @ x + W @ M.sum(0),
    "P ← Σ_{i ∈ range(3)} M_{i,:}ᵀ M_{i,:}; y ← W @ P @ x": lambda W, M, B, x: W @ (M.T @ M) @ x,
    "R ← I; c ← R @ M_{2,:}ᵀ; y ← W @ (x + c)": lambda W, M, B, x: W @ (x + M[2]),
    "c ← M_{1,:}; R ← I; z ← R @ x; y ← (c @ z) · (W @ x)": lambda W, M, B, x: (M[1] @ x) * (W @ x),
    "c ← (M_{0,:}ᵀ)ᵀ @ x; y ← c · (W @ x)": lambda W, M, B, x: (M[0] @ x) * (W @ x),
    "C ← B; C_{:,0} ← B @ M @ x; y ← W @ x + C @ M @ x":
        lambda W, M, B, x: W @ x + torch.stack([B @ M @ x, B[:, 1], B[:, 2]], 1) @ M @ x,
    "C ← B; C_{:,2} += bias; y ← (W + C @ M) @ x":
        lambda W, M, B, x: (W + torch.stack([B[:, 0], B[:, 1], B[:, 2] + 1], 1) @ M) @ x,
}


@pytest.mark.parametrize("body", CASES)
def test_what_a_row_means(body: str) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 4).double()
    nn.init.ones_(linear.bias)
    layer = padp.compile(HEAD + body.replace("; ", "\n") + "\n")(linear)
    x = torch.randn(5, 6).double()
    offset = 0 if "bias" in body else linear.bias
    wanted = torch.stack([CASES[body](linear.weight, layer.tensors["M"], layer.tensors["B"], each) for each in x])
    torch.testing.assert_close(layer(x), wanted + offset, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.reference(x), wanted + offset, rtol=1e-10, atol=1e-10)
