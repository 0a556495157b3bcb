"""Random programs mean the same compiled as read literally; programs that once did not are kept by name.

The search is the same in every run (``derandomize``). For a longer one: PADP_RANDOM_PROGRAMS=5000 pytest -k random.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.agreement import agree
from tests.support.random_programs import HEAD, Program, programs

EXAMPLES = int(os.environ.get("PADP_RANDOM_PROGRAMS", "150"))
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES <= 150, database=None,
          suppress_health_check=SLOW)
@given(programs())
def test_a_random_program_is_its_dense_reading(program: Program) -> None:
    agree(program.text, program.m, program.n, program.hyper, bias=program.k != 3, lead=program.lead)


@settings(max_examples=EXAMPLES // 2, deadline=None, derandomize=EXAMPLES <= 150, database=None,
          suppress_health_check=[*SLOW, HealthCheck.function_scoped_fixture])
@given(programs())
def test_a_random_program_means_the_same_with_w_as_any_matrix(plain_plans: None, program: Program) -> None:
    agree(program.text, program.m, program.n, program.hyper, bias=program.k != 3, lead=program.lead)


# ---------------------------------------------------------------- what was found

FOUND: dict[str, str] = {
    "y is the same for every token": """v ∈ ℝ^n: learned, init = normal(0.4)
y ← W @ v
""",
    "W times a frozen vector is made at attach": """v ∈ ℝ^n: frozen, init = normal(0.4), seed = 5
u ∈ ℝ^m: frozen, init = normal(0.4), seed = 6
y ← W @ v + u
""",
    "no tensors of its own": """y ← W @ x + ones(m)
""",
    "nothing but the pieces of W": """U, Σ, Vᵀ ← svd(W)
y ← (U @ diag(Σ) @ Vᵀ) @ x
""",
    "a bias that is named but not used": """M ∈ ℝ^{m×n}: learned, init = normal(0.4)
c ← detach(bias · ones(m))
y ← M @ x
""",
    "rows of a matrix written one by one": """Z ∈ ℝ^{b×m}: learned, init = normal(0.4)
u ∈ ℝ^b: learned, init = normal(0.4)
for i in range(b):
    R_i ← tanh(Z_i)
y ← W @ x + Rᵀ @ u
""",
    "rows written in nested loops": """L ∈ (ℝ^r)^{b×k}: learned, init = normal(0.4)
for i in range(b):
    for j in range(k):
        P_{i,j} ← softmax(L_{i,j})
y ← W @ (x + reshape(P, n, r) @ ones(r))
""",
    "a matrix for each token, transposed": """v ∈ ℝ^k: learned, init = normal(0.4)
M ∈ ℝ^{k×m}: frozen, init = normal(0.4), seed = 5
y ← (W + (outer(x, v) @ M)ᵀ) @ x
""",
    "a circulant of tokens times a parameter": """v ∈ ℝ^n: learned, init = normal(0.4)
y ← W @ circulant(x) @ v
""",
    "a circulant of tokens, transposed": """v ∈ ℝ^n: learned, init = normal(0.4)
y ← W @ circulant(x)ᵀ @ v
""",
    "blocks of tokens times a parameter": """v ∈ ℝ^n: learned, init = normal(0.4)
F ∈ (ℝ^{k×k})^b: learned, init = normal(0.4)
y ← W @ blkdiag(F · tanh(x_0)) @ v
""",
    "an inverse that depends on tokens": """o ∈ ℝ^{n(n-1)/2}: learned, init = normal(0.3)
y ← W @ (I + tanh(x_0) · skew(o))⁻¹ @ x
""",
    "a chain that depends on tokens": """u, w ∈ ℝ^{b×n}: learned, init = normal(0.4)
R ← I
for i in range(b):
    R ← (I + tanh(x_0) · u_i w_iᵀ) @ R
y ← W @ R @ x
""",
    "a chain that starts at tokens": """u, w ∈ ℝ^{b×n}: learned, init = normal(0.4)
R ← outer(x, x)
for i in range(b):
    R ← (I + u_i w_iᵀ) @ R
y ← W @ R @ ones(n)
""",
    "norms of a matrix of tokens": """A ∈ ℝ^{1×n}: learned, init = normal(0.4)
B ∈ ℝ^{m×1}: learned, init = normal(0.4)
y ← W @ x + ‖W + tanh(x_0) · B @ A‖_row
""",
    "a solve between permutations": """q ∈ ℝ^n: frozen, init = normal(1), seed = 4
o ∈ ℝ^{n(n-1)/2}: learned, init = normal(0.3)
y ← W @ ((I - skew(o))⁻¹ @ perm(argtop(q, n))ᵀ) @ x
""",
    "a quadratic form is not affine": """M ∈ ℝ^{n×n}: learned, init = normal(0.4)
y ← W @ diagonal(M ⊙ outer(x, x))
""",
    "zero by simplification": """v ∈ ℝ^r: learned, init = normal(0.4)
y ← W @ tanh(I - eye(n)) @ x
""",
    "a condition on sizes that relations give": """M ∈ ℝ^{n×n}: learned, init = normal(0.4)
y ← W @ (M if m ≥ n else Mᵀ) @ x
""",
    "a condition that leaves an index set unused": """M ∈ ℝ^{n×p}: learned, init = normal(0.4)
N ∈ ℝ^{r×n}: learned, init = normal(0.4)
Ω ← sample(p, r, 1, 4)
c ∈ ℝ^Ω: learned, init = normal(0.4)
y ← (W @ (Σ_{(i,j) ∈ Ω} c_{i,j} · M_{:,i} N_{j,:}) if k < p else W) @ x
""",
    "numbers for an index set that is not used": """Ω ← sample(p, r, 1, 4)
c ∈ ℝ^Ω: learned, init = normal(0.4)
y ← W @ x
""",
    "a chain inside a Kronecker product": """t ∈ ℝ^{k-1}: learned, init = normal(0.4)
M ∈ ℝ^{b×b}: learned, init = normal(0.4)
N ∈ ℝ^{k×p}: learned, init = normal(0.4)
R ← eye(k)
for (i,j,q) in tree(k):
    G ← I; G[i,i] ← cos t_q; G[i,j] ← -sin t_q; G[j,i] ← sin t_q; G[j,j] ← cos t_q
    R ← G @ R
y ← (W + (kron(R @ N, M - Mᵀ))ᵀ) @ x
""",
    "an added part that reads W": """M ∈ ℝ^{m×n}: learned, init = normal(0.4)
y ← W @ x + ones(m) · sum_row(W / ‖M‖_col)
""",
    "a penalty that reads W": """v ∈ ℝ^n: learned, init = normal(0.4)
y ← W @ (x ⊙ v)
minimise ‖(W + W) @ v‖
""",
    "a constant inside, merged into a base without bias": """c ∈ ℝ^n: learned, init = normal(0.4)
y ← W @ (x + c)
""",
    "a family whose items turn out equal, as rows": """v ∈ ℝ^k: learned, init = normal(0.4)
F ∈ (ℝ^k)^b: learned, init = normal(0.4)
y ← W @ (x + flatten(rows(v + F - F)))
""",
    "a family whose items turn out equal, one by one": """M ∈ ℝ^{k×k}: learned, init = normal(0.4)
F ∈ (ℝ^{k×k})^b: learned, init = normal(0.4)
Z ← M + F - F
for i in range(b):
    D_i ← Z_i @ F_i
y ← W @ (x + blkdiag(D) @ x)
""",
    "zero written at pairs that may be equal": """R ← eye(n)
for (i,j) in band(n, 1):
    G ← I; G[i,j] ← 0
    R ← G @ R
y ← W @ (x + R @ x)
""",
    "rotations at pairs that may be equal": """t ∈ ℝ^n: learned, init = normal(0.4)
R ← eye(n)
for (i,j,q) in tree(n):
    G ← I; G[i,i] ← cos t_q; G[i,q] ← -sin t_q
    R ← G @ R
y ← W @ (R @ x)
""",
    "rotations of neighbours, by a range": """t ∈ ℝ^n: learned, init = normal(0.4)
R ← eye(n)
for i in range(n-1):
    G ← I; G[i,i] ← cos t_i; G[i,i+1] ← -sin t_i; G[i+1,i] ← sin t_i; G[i+1,i+1] ← cos t_i
    R ← G @ R
y ← W @ (R @ x)
""",
    "a diagonal taken in a loop": """F ∈ (ℝ^k)^b: learned, init = normal(0.4)
M ∈ ℝ^{k×k}: learned, init = normal(0.4)
for i in range(b):
    for j in range(k):
        Z_{i,j} ← sum(maximum(F_i, M_{j,j}))
y ← W @ (x + flatten(Z))
""",
    "a Kronecker product of two loops": """F ∈ (ℝ^r)^b: learned, init = normal(0.4)
M ∈ ℝ^{k×k}: learned, init = normal(0.4)
for i in range(b):
    for j in range(k):
        Z_{i,j} ← sum(F_i ⊗ M_{:,j})
y ← W @ (x + flatten(Z))
""",
    "bounds that are families": """F ∈ (ℝ^k)^b: learned, init = normal(0.4)
c ∈ (ℝ)^b: learned, init = normal(0.4)
y ← W @ (x + flatten(clamp(F, -1, c)))
""",
    "a sum of products applied to a family": """F ∈ (ℝ^k)^b: learned, init = normal(0.4)
A ∈ ℝ^{k×k}: learned, init = normal(0.4)
u, v ∈ ℝ^{r×k}: learned, init = normal(0.4)
y ← W @ (x + flatten((Σ_{i ∈ range(r)} diag(u_i) @ A @ diag(v_i)) @ F))
""",
    "a spectrum, transposed": """M ∈ ℝ^{n×n}: learned, init = normal(0.4)
y ← W @ (x + 0.2 · Im((fft2(M))ᵀ) @ x)
""",
    "norms of a spectrum": """M ∈ ℝ^{n×n}: learned, init = normal(0.4)
y ← W @ (x + 0.1 · ‖fft2(M)‖_row)
""",
    "a circulant of a spectrum": """v ∈ ℝ^n: learned, init = normal(0.4)
y ← W @ (x + 0.1 · Re(circulant(fft(v)) @ fft(x)))
""",
    "a whole number with a point before an index": """t ∈ ℝ^n: learned, init = normal(0.4)
z ← (0.5 + 0.5) · x
for i in range(n//2):
    q[2i] ← t_{i} · z[2i+1]
    q[2i+1] ← z[2i]
y ← W @ q
""",
    "rows changed in a loop": """D ← zeros(m, n)
s ∈ ℝ^m: learned, init = normal(0.4)
for i in range(m):
    D_{i,:} += s_i · W_i
y ← D @ x
""",
}


@pytest.mark.parametrize("what", FOUND)
@pytest.mark.parametrize("sizes", [(2, 4, 3, 2), (4, 3, 2, 1)], ids=str)
def test_found(what: str, sizes: tuple[int, int, int, int]) -> None:
    b, k, p, r = sizes
    agree(f"{HEAD}\n{FOUND[what]}", b * p, b * k, {"b": b, "r": r}, bias=k != 3)
