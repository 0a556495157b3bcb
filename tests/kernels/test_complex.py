"""Complex values: no imaginary part is ever lost, operators that mean nothing for them say so, half precision reads."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import padp
from padp.compiler.operators.table import OPERATORS, TAKES_COMPLEX
from tests.support.agreement import agree

HEAD = """adapter T on linear(W ∈ ℝ^{m×n})
v ∈ ℝ^n: learned, init = normal(0.4)
M ∈ ℝ^{n×n}: learned, init = normal(0.4)
"""
MATRICES = ["fft2(M)", "fft2(M)ᵀ", "tril(fft2(M))", "circulant(fft(v))", "kron(fft2(M), eye(1))", "outer(fft(v), v)",
            "(fft2(M) ⊙ M)", "(v ⊙ fft2(M))", "(M @ fft2(M))", "(fft2(M) @ M)", "diag(fft(v))", "expm(fft2(0.1 · M))"]
VECTORS = [*(f"{m} @ x" for m in MATRICES), "fft2(M)⁻¹ @ x", "(I + 0.1 · M)⁻¹ @ fft(x)", "fft2(M) @ v", "M @ fft(v)",
           "M @ fft(x)", "fft(v) ⊙ x", "v ⊙ fft(x)", "x / fft(v)", "sum(fft(v)) · x", "trace(fft2(M)) · x",
           "sum_row(fft2(M))", "mean_col(fft2(M))", "[fft(v); v]_{:n}", "exp(0.1 · fft(v))",
           "tanh(0.1 · fft(v)) ⊙ x", "circulant(v) @ fft(x)", "sum(fft(x)) · v"]


PARTS = ["W @ (x + 0.1 · Im(z))", "W @ x + Im(W @ z)"]
SOME = [*((v, p) for v in VECTORS for p in PARTS), *(pytest.param(v, p, marks=pytest.mark.thorough) for v in VECTORS
        for p in ("W @ (x + 0.1 · Re(z))", "W @ x + |W @ z|"))]


@pytest.mark.parametrize(("value", "part"), SOME)
def test_real_and_complex_meet(value: str, part: str) -> None:
    agree(f"{HEAD}z ← {value}\ny ← {part}\n", 6, 4, lead=(2,))


@pytest.mark.parametrize("value", VECTORS)
def test_a_complex_output_is_refused(value: str) -> None:
    assert {d.code for d in padp.check(f"{HEAD}y ← W @ ({value})\n") if d.severity == "error"} == {"E306"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", ["fft2(M)ᵀ @ x", "ifft(fft(v) ⊙ fft(x))", "circulant(fft(v)) @ fft(x)", "M @ fft(x)"])
def test_half_precision_has_a_reading(value: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = padp.compile(f"{HEAD}y ← W @ (x + 0.1 · Im(2 · ({value})))\n")(nn.Linear(4, 6).to(dtype), dtype=dtype)
    x = torch.randn(5, 4, dtype=dtype)
    exact = copy.deepcopy(layer).double().reference(x.double())
    size = float(exact.detach().abs().max())
    with torch.no_grad():
        assert float((layer.reference(x) - exact).abs().max()) < 1e-4 * size
        assert float((layer(x) - exact).abs().max()) < 0.05 * size


CALLS = {"clamp": "clamp(z, 0, 1)", "maximum": "maximum(z, x)", "minimum": "minimum(x, z)", "topk": "topk(z, 2)",
         "drop": "drop(z, 0.1)", "softmax": "softmax(z)"}
ENTRYWISE = ("relu", "gelu", "silu", "softplus", "sign", "arctan")


@pytest.mark.parametrize("call", [*CALLS.values(), *(f"{f}(z)" for f in ENTRYWISE), "max(z) · x", "min(z) · x"])
def test_what_means_nothing_for_complex_numbers(call: str) -> None:
    found = padp.check(f"{HEAD}z ← fft(v)\ny ← W @ (x + Re({call}))\n")
    assert [d.code for d in found if d.severity == "error"] == ["E306"]


def test_the_table_names_operators() -> None:
    assert set(OPERATORS) >= TAKES_COMPLEX
    assert not TAKES_COMPLEX & {*CALLS, *ENTRYWISE, "max", "min", "svd", "qr"}
