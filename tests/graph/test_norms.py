"""Quotients by norms that are 0: the same value in both readings, in gradients and in the merged weight, never nan."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import padp
from padp.compiler.kernels import table as prims
from tests.support.agreement import agree, close, learned, moved

F64 = torch.double
HEAD = "adapter Norms(b = 2) on linear(W ∈ ℝ^{m×n}) where n = b·k\n"
ZEROS = """v ∈ ℝ^n: learned, init = 0
A ∈ ℝ^{b×n}: learned, init = 0
B ∈ ℝ^{m×b}: learned, init = normal(1)
F ∈ (ℝ^{k×k})^b: learned, init = 0
"""


def compared(program: str, m: int = 6, n: int = 8, **hyper: Any) -> None:
    """Both readings at the start, where the norms are 0: finite, equal, with finite and equal gradients."""
    agreed = agree(program, m, n, hyper, by=0.0)
    assert agreed.y.isfinite().all()
    agreed.layer(agreed.x).square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in learned(agreed.layer))


SPELLINGS = {
    "v / ‖v‖": "y ← W @ (x + v / ‖v‖)",
    "a name": "ν ← ‖v‖; y ← W @ (x + v / ν)",
    "detached": "y ← W @ (x + v / detach(‖v‖))",
    "a multiple": "y ← W @ (x + v / (2 · ‖v‖))",
    "a power": "y ← W @ (x + v / ‖v‖²)",
    "a root": "y ← W @ (x + v / √‖v‖)",
    "a root as a power": "y ← W @ (x + v / ‖v‖^(1/3) + ‖v‖^0.25 · ones(n))",
    "roots in sums": "y ← W @ (x + √‖v‖ · ones(n) + √(2 · ‖A‖_F) · v)",
    "an inverse": "y ← W @ (x + ‖v‖⁻¹ · v)",
    "a negative power": "y ← W @ (x + ‖v‖^-1 · v)",
    "a number over a norm": "y ← W @ (x + (1/‖v‖) · v)",
    "another numerator": "y ← W @ (x + ones(n) / ‖v‖)",
    "a product of norms": "y ← (W + (1 / (‖A‖_F · ‖B‖_F)) · B @ A) @ x",
    "a sum of norms": "y ← W @ (x + v / (‖v‖ + ‖A‖_F))",
    "a sum of squares": "y ← W @ (x + v / √(‖v‖² + ‖A‖_F²))",
    "a sum over an index": "y ← W @ (x + v / (Σ_{i ∈ range(b)} ‖A_i‖))",
    "the mean of norms": "y ← W @ (x + v / mean(‖A‖_row))",
    "the largest of norms": "y ← W @ (x + v / maximum(‖v‖, ‖A‖_F))",
    "a norm over its own": "y ← W @ (x + (‖v‖ / ‖v‖) · ones(n))",
    "rows": "y ← W @ x + B @ (A / ‖A‖_row) @ x",
    "columns": "y ← W @ x + B @ (A / ‖A‖_col) @ x",
    "vectors by vectors": "y ← W @ x + B @ (ones(b) / ‖A‖_row)",
    "one entry": "ν ← 1 / ‖A‖_row; y ← W @ x + ν_0 · (B @ A @ x)",
    "entry by entry": "for i in range(b):\n    ν_i ← ‖A_i‖\ny ← W @ x + B @ (ones(b) / ν)",
    "each of a family": "y ← W @ blkdiag(I + F / ‖F‖_F) @ x",
    "rows of a family": "y ← W @ blkdiag(I + F / ‖F‖_row) @ x",
    "columns of a family": "y ← W @ blkdiag(I + F / ‖F‖_col) @ x",
    "a function": "unit(u) ← u / ‖u‖\ny ← W @ (x + unit(v))",
    "a reflection": "y ← W @ (I - 2 · v vᵀ / ‖v‖²) @ x",
    "a reflection along a direction": "u ← v / ‖v‖; y ← W @ (I - 2 · u uᵀ) @ x",
    "a chain of reflections": "R ← I\nfor i in range(b):\n    R ← (I - 2 · A_i A_iᵀ / ‖A_i‖²) @ R\ny ← W @ R @ x",
    "a penalty": "y ← W @ (x + v)\nminimise ‖v / ‖v‖‖²",
    "tokens": "y ← W @ (x + v + (v ⊙ x) / ‖v ⊙ x‖)",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_quotient_by_a_norm_that_is_0(spelling: str) -> None:
    compared(f"{HEAD}{ZEROS}{SPELLINGS[spelling]}\n", b=2)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_same_away_from_0(spelling: str) -> None:
    agree(f"{HEAD}{ZEROS}{SPELLINGS[spelling]}\n", 6, 8, {"b": 2})


@pytest.mark.parametrize("by", ["v_0", "(v_0 + 1 - 1)", "min(‖A‖_row)", "(‖v‖ - ‖A‖_F)", "sum(v ⊙ v)"])
def test_what_is_no_norm_divides_as_numbers_do(by: str) -> None:
    """1/0 is not 0: no direction that is missing, but a program that has no value there."""
    layer = padp.compile(f"{HEAD}{ZEROS}y ← W @ x + (1/{by}) · ones(m)\n")(nn.Linear(8, 6), b=2)
    x = torch.randn(3, 8)
    assert not layer(x).isfinite().any()
    assert not layer.reference(x).isfinite().any()


def dead(m: int, n: int) -> nn.Linear:
    """A layer with a row and a column of zeros, as pruned models have them."""
    made = nn.Linear(n, m).to(F64)
    with torch.no_grad():
        made.weight[1] = 0
        made.weight[:, 2] = 0
    return made


LIBRARY = {"dora": {"r": 2}, "delora": {"r": 2}, "hra": {"r": 4}, "lora": {"r": 2}, "oft": {"k": 4}, "boft": {"k": 4}}


@pytest.mark.parametrize("name", LIBRARY)
def test_adapters_on_a_weight_with_zero_rows(name: str) -> None:
    torch.manual_seed(0)
    base = dead(8, 8)
    x = torch.randn(5, 8, dtype=F64)
    plain = base(x).detach()
    adapter = padp.compile(name)
    layer: Any = adapter(base, dtype=F64, **LIBRARY[name])
    if adapter.capabilities["identity"].holds:
        close(layer(x), plain, 1e-12, "a fresh adapter")
    moved(layer, by=0.2)
    y, literal = layer(x), layer.reference(x)
    assert y.isfinite().all()
    close(y, literal, 1e-9, "the literal reading")
    ours, theirs = (torch.autograd.grad(z.square().sum(), learned(layer), allow_unused=True, materialize_grads=True)
                    for z in (y, literal))
    for a, c in zip(ours, theirs, strict=True):
        assert a.isfinite().all()
        close(a, c, 1e-8, "gradients")
    layer.merge()
    close(base(x), y, 1e-9, "the merged weight")


def test_zero_vectors_in_every_reflection() -> None:
    layer: Any = padp.compile("hra")(nn.Linear(6, 6).to(F64), r=4, dtype=F64)
    with torch.no_grad():
        layer.tensors["v"].zero_()
    x = torch.randn(3, 6, dtype=F64)
    close(layer(x), layer.base(x), 1e-12, "reflections along nothing")
    layer(x).sum().backward()
    assert layer.tensors["v"].grad.isfinite().all()


def test_the_inverse_of_a_norm() -> None:
    s = torch.tensor([0.0, 2.0, 1e-30, 0.0], dtype=F64, requires_grad=True)
    made = prims.inverse_norm(s)
    assert made[0] == made[3] == 0 and made[1] == 0.5 and math.isclose(made[2].item(), 1e30)
    (first,) = torch.autograd.grad(made.sum(), s, create_graph=True)
    assert first[0] == 0 and first[1] == -0.25 and first[3] == 0
    (second,) = torch.autograd.grad(first[:2].sum(), s)
    assert second[0] == 0 and math.isclose(second[1].item(), 0.25)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_in_every_precision(dtype: torch.dtype) -> None:
    layer: Any = padp.compile(f"{HEAD}{ZEROS}{SPELLINGS['rows']}\n")(nn.Linear(8, 6), b=2, dtype=dtype)
    out: Tensor = layer(torch.randn(3, 8))
    assert out.isfinite().all()
