"""What a program asks of its sizes is proved, or refused where a layer breaks it: by the plan and by the literal
reading, at the same sizes, and nothing that both accept comes out differently."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

import padp
from padp import PadpError
from padp.compiler.adapter import Adapter
from padp.compiler.reference import Reference
from padp.compiler.sizes import solve

HEAD = """adapter T(r = 3, k = 1) on linear(W ∈ ℝ^{m×n})
v ∈ ℝ^n: learned, init = normal(1)
A ∈ ℝ^{r×n}: learned, init = normal(1)
M ∈ ℝ^{m×n}: learned, init = normal(1)
"""
LAST = "y ← (1 + s) · (W @ (v + sum(A) · v + sum(M) · x))    # not the identity at init\n"

SCALARS = """
v_{r} · v_{r-1}
v_{n-r}
v_{-r}
v_{r-k}
v_{-r+k}
v_{n/2}
A_{k,0}
sum(v_{:r})
sum(v_{r:})
sum(v_{n-r:})
sum(v_{-r:})
sum(v_{:-r})
sum(v_{k:r})
sum(v_{r-k:})
sum(v_{:n/2})
sum(A_{:,r:n-k})
sum(A_{k:})
sum(A_{-k,:})
sum(ones(n/r))
sum(ones(n - r))
sum(zeros(r - k, n)) + sum(ones(r))
sum(eye(n/k))
sum(reshape(v, k, n/k))
sum(reshape(A, r·n))
sum(assemble(blocks(M, m/k, n/k)))
sum(assemble(blocks(M, k, r)))
sum(tile(v, n/k))
sum(tile(v, r - k))
sum(flatten(repeat(family(A), n/k)))
sum(topk(v, n/2) ⊙ v)
sum(topk(v, r))
sum(v_{argtop(‖W‖_col, r)})
len(largest(W, r·k)) · v_0
len(sample(m, n, r·k, 0)) · v_0
sum(scatter(v, sample(m, n, n, r - k), shape=(m, n)) ⊙ M)
sum(scatter(ones(r), pairs(2·r), shape=(m, n)) ⊙ M)
sum(scatter(ones(r - 1), neighbours(r), shape=(m, n)) ⊙ M) if r < 0 else v_0
Σ_{(i,j) ∈ band(r, 1)} M_{i,j}
Σ_{(i,j) ∈ pairs(r)} v_j
Σ_{(i,j,t) ∈ tree(r)} v_t · A_{0,j}
Σ_{i ∈ range(r - 1)} v_i
Σ_{i ∈ range(k, r)} v_i
Σ_{i ∈ range(n/2)} v_{2i}
Σ_{i ∈ range(r)} v_{2i+1}
Σ_{i ∈ range(r)} v_{r-1-i}
Σ_{i ∈ range(r)} v_{-i-1}
Σ_{i ∈ range(r)} A_{i,n-1-i}
sum(arange(n/2) · 1.0) if r < 0 else sum(v_{arange(r)})
sum(perm(butterfly(n, k, 0)) @ v)
""".strip().splitlines()

STATEMENTS = [
    "U, Σ, Vᵀ ← svd(M, rank=r)\ns ← sum(Σ)\n",
    "Z ← eye(r)\nZ_{k,:} += ones(r)\ns ← sum(Z)\n",
    "Z ← zeros(m, n)\nZ_{:,r-k} ← ones(m)\ns ← sum(Z)\n",
    "Z ← zeros(n)\nZ_{r} += v_0\ns ← sum(Z · v)\n",
    "Z ← zeros(n)\nfor i in range(r):\n    Z_{i+k} ← v_i\ns ← sum(Z)\n",
    "Z ← I\nfor i in range(r):\n    Z[i,i+1] ← v_i\ns ← vᵀ @ Z @ v\n",
    "Z ← I\nZ[r,k] ← v_0\ns ← vᵀ @ Z @ v\n",
    "Z ← zeros(r)\nfor i in range(k):\n    Z ← Z + A_{i,:r}\ns ← sum(Z)\n",
    "for i in range(r - 1):\n    Z_i ← v_i\ns ← sum(Z)\n",
    "R ← I\nfor i in range(k):\n    R ← (I - A_i A_iᵀ / ‖A_i‖²) @ R\ns ← vᵀ @ R @ v\n",
    "first(e, j) ← e_{:j}\ns ← sum(first(v, r - k))\n",
    "D ∈ ℝ^{n/r}: learned, init = 1\ns ← sum(D)\n",
    "D ∈ ℝ^{(r-k)×n}: learned, init = 1\ns ← sum(D) + v_0\n",
    "D ∈ St(r, n): learned, init = orthogonal\ns ← sum(D)\n",
    "D ∈ ℝ^{k(k-1)/2}: learned, init = 1\ns ← sum(skew(D)) + v_0\n",
    "Z ← [diag(v); zeros(r - k, n)]\ns ← sum(Z)\n",
    "Z ← [v; zeros(n - r)]\ns ← sum(Z ⊙ Z)\n",
]  # fmt: skip
PROGRAMS = [HEAD + (e if "←" in e else f"s ← {e}\n") + LAST for e in [*SCALARS, *STATEMENTS]]
SIZES = [(4, 6, 2, 2), (6, 5, 7, 2), (5, 4, 2, 4), (3, 3, 3, 1), (6, 4, 1, 2)]
"""m, n, r, k: with each other's divisors or not, r above and below n and k."""


def name(program: str) -> str:
    return program.removeprefix(HEAD).removesuffix(LAST).replace("\n", "; ")


def literal(adapter: Adapter, W: Tensor, hyper: Mapping[str, int], tensors: Mapping[str, Tensor] | None, x: Tensor
            ) -> Tensor:
    """The program read literally; with random tensors where none are given."""
    method = adapter.method()
    m, n = W.shape
    sizes = solve(method, {"m": m, "n": n}, hyper)
    if tensors is None:
        empty = Reference(method, sizes, hyper, {"W": W})
        tensors = {p.name: torch.randn(empty.shape(p), dtype=torch.double) for p in method.parameters}
    return Reference(method, sizes, hyper, {"W": W, **tensors}).forward(x)


@pytest.mark.parametrize("program", PROGRAMS, ids=map(name, PROGRAMS))
def test_plan_and_reading_refuse_the_same_sizes(program: str) -> None:
    adapter = padp.compile(program)
    accepted = []
    for m, n, r, k in SIZES:
        layer = nn.Linear(n, m, bias=False, dtype=torch.double)
        x = torch.randn(3, n, dtype=torch.double)
        try:
            made = adapter(layer, r=r, k=k)
        except PadpError as error:
            assert {d.code for d in error.diagnostics} <= {"E501", "E305"}, error
            assert all(d.span is not None for d in error.diagnostics), error
            with pytest.raises(PadpError):
                literal(adapter, layer.weight.detach(), {"r": r, "k": k}, None, x)
            continue
        accepted.append((m, n, r, k))
        with torch.no_grad():
            assert torch.allclose(made(x), made.reference(x)), (m, n, r, k)
        literal(adapter, layer.weight.detach(), {"r": r, "k": k}, None, x)
    assert accepted, "no sizes fit"
