"""Adapters that are not in the library: papers' and inventions, as their authors would write them.

The language is judged by these. Each is compiled, trained for a step's worth of gradients, merged where it can be, and
compared with its literal dense reading (``test_unseen.py``).
"""

from __future__ import annotations

PROGRAMS: dict[str, tuple[str, dict[str, float]]] = {
    "LoHa": ("""adapter LoHa(r = 3, α = 6) on linear(W ∈ ℝ^{m×n})
A₁, A₂ ∈ ℝ^{r×n}: learned, init = normal(0.1)
B₁ ∈ ℝ^{m×r}: learned, init = normal(0.1)
B₂ ∈ ℝ^{m×r}: learned, init = 0
ΔW ← (B₁ @ A₁) ⊙ (B₂ @ A₂)
y ← (W + (α/r) · ΔW) @ x
""", {}),
    "ABBA": ("""adapter ABBA(r = 2) on linear(W ∈ ℝ^{m×n})
U, Σ, Vᵀ ← svd(W)
B₁ ∈ ℝ^{m×r}: learned, init = U_{:,:r} · √Σ_{:r}
A₁ ∈ ℝ^{r×n}: learned, init = √Σ_{:r} · Vᵀ_{:r,:}
B₂ ∈ ℝ^{m×r}: learned, init = 0
A₂ ∈ ℝ^{r×n}: learned, init = kaiming
y ← (W + (B₁ @ A₁) ⊙ (B₂ @ A₂)) @ x
""", {}),
    "LoKr": ("""adapter LoKr(a = 4, r = 2) on linear(W ∈ ℝ^{m×n}) where m = a·p, n = a·q
A ∈ ℝ^{a×a}: learned, init = kaiming
B ∈ ℝ^{p×r}: learned, init = 0
C ∈ ℝ^{r×q}: learned, init = kaiming
y ← (W + A ⊗ (B @ C)) @ x
""", {}),
    "LoRA-XS": ("""adapter LoRAXS(r = 3) on linear(W ∈ ℝ^{m×n})
U, Σ, Vᵀ ← svd(W)
R ∈ ℝ^{r×r}: learned, init = 0
y ← (W + U_{:,:r} · Σ_{:r} @ R @ Vᵀ_{:r,:}) @ x
""", {}),
    "C3A": ("""adapter C3A(b = 4) on linear(W ∈ ℝ^{m×n}) where m = b·p, n = b·q
c ∈ (ℝ^b)^{p×q}: learned, init = 0
y ← (W + assemble(circulant(c))) @ x
""", {}),
    "Circulant": ("""adapter Circ on linear(W ∈ ℝ^{m×n})
c ∈ ℝ^n: learned, init = 0
y ← W @ (x + circulant(c) @ x)
""", {}),
    "MoRA": ("""adapter MoRA(k = 4) on linear(W ∈ ℝ^{m×n}) where n = k·a, m = k·b
M ∈ ℝ^{k×k}: learned, init = 0
z ← M @ (reshape(x, a, k)ᵀ @ ones(a))
y ← W @ x + tile(z, b)
""", {}),
    "Bone": ("""adapter Bone(k = 4) on linear(W ∈ ℝ^{m×n}) where m = k·a, n = k·b
B ∈ (ℝ^{k×k})^b: learned, init = 0
F ← blocks(W, a, b)
for i in range(a):
    for j in range(b):
        D_{i,j} ← F_{i,j} @ B_j + B_j
y ← (W + assemble(D)) @ x
""", {}),
    "Nonlinear": ("""adapter Bottleneck(r = 3) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = 0
c ∈ ℝ^r: learned, init = 0
y ← W @ x + B @ gelu(A @ x + c)
""", {}),
    "Mixture": ("""adapter Mixture(r = 2, N = 3) on linear(W ∈ ℝ^{m×n})
A ∈ (ℝ^{r×n})^N: learned, init = kaiming
B ∈ (ℝ^{m×r})^N: learned, init = 0
G ∈ ℝ^{N×n}: learned, init = kaiming
p ← softmax(G @ x)
y ← W @ x + Σᵢ p_i · B_i @ (A_i @ x)
""", {}),
    "Hydra": ("""adapter Hydra(r = 2, N = 3) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ (ℝ^{m×r})^N: learned, init = 0
G ∈ ℝ^{N×n}: learned, init = kaiming
p ← softmax(G @ x); h ← A @ x
y ← W @ x
for i in range(N):
    y ← y + p_i · (B_i @ h)
""", {}),
    "VB": ("""adapter VB(N = 6, b = 4, k = 2, r = 2) on linear(W ∈ ℝ^{m×n}) where n = b·q
V ∈ ℝ^{N×b}: learned, init = kaiming
L ∈ (ℝ^N)^{r×q}: learned, init = normal(0.1)
B ∈ ℝ^{m×r}: learned, init = 0
for i in range(r):
    for j in range(q):
        P_{i,j} ← softmax(L_{i,j}) ⊙ topk(L_{i,j}, k)
A ← reshape(P, r·q, N) @ V
y ← (W + B @ reshape(A, r, n)) @ x
""", {}),
    "TT": ("""adapter TT(r = 2, a = 4, c = 4) on linear(W ∈ ℝ^{m×n}) where m = a·p, n = c·q
G ∈ ℝ^{a×r}: learned, init = kaiming
H ∈ (ℝ^{p×r})^r: learned, init = kaiming
K ∈ (ℝ^{r×c})^r: learned, init = kaiming
L ∈ ℝ^{r×q}: learned, init = 0
left ← zeros(m, r)
left ← Σ_{i ∈ range(r)} reshape(G_{:,i}, a, 1) ⊗ H_i
right ← Σ_{i ∈ range(r)} K_i ⊗ reshape(L_{i}, 1, q)
y ← (W + left @ right) @ x
""", {}),
    "Monarch": ("""adapter Monarch(b = 4) on linear(W ∈ ℝ^{m×n}) where n = b·k
L ∈ (ℝ^{k×k})^b: learned, init = 0
R ∈ (ℝ^{b×b})^k: learned, init = kaiming
z ← blkdiag(L) @ x
w ← flatten(reshape(z, b, k)ᵀ)
u ← flatten(reshape(blkdiag(R) @ w, k, b)ᵀ)
y ← W @ (x + u)
""", {}),
    "GraLoRA": ("""adapter GraLoRA(k = 2, r = 2) on linear(W ∈ ℝ^{m×n}) where m = k·p, n = k·q
A ∈ (ℝ^{r×q})^{k×k}: learned, init = kaiming
B ∈ (ℝ^{p×r})^{k×k}: learned, init = 0
y ← (W + assemble(B @ A)) @ x
""", {}),
    "Cayley both": ("""adapter Both(k = 4) on linear(W ∈ ℝ^{m×n}) where n = b·k, m = c·k
P ∈ (ℝ^{k(k-1)/2})^b: learned, init = 0
Q ∈ (ℝ^{k(k-1)/2})^c: learned, init = 0
y ← blkdiag(cayley(skew(Q))) @ W @ blkdiag(cayley(skew(P))) @ x
""", {}),
    "Exponential": ("""adapter Exponential(k = 4) on linear(W ∈ ℝ^{m×n}) where n = b·k
Q ∈ (ℝ^{k(k-1)/2})^b: learned, init = 0
y ← W @ blkdiag(expm(skew(Q))) @ x
""", {}),
    "Neumann": ("""adapter Neumann(k = 4, t = 5) on linear(W ∈ ℝ^{m×n}) where n = b·k
Q ∈ (ℝ^{k(k-1)/2})^b: learned, init = 0
K ← skew(Q)
S ← I + K
for i in range(t):
    S ← I + K @ S
y ← W @ blkdiag((I + K) @ S) @ x
""", {}),
    "Gram-Schmidt": ("""adapter GramSchmidt(r = 3) on linear(W ∈ ℝ^{m×n})
U ∈ ℝ^{r×n}: learned, init = kaiming
Q, L ← qr(Uᵀ)
y ← W @ (x - 2 · Q @ (Qᵀ @ x))
""", {}),
    "Reflections left": ("""adapter Left(r = 4) on linear(W ∈ ℝ^{m×n})
v ∈ ℝ^{r×m}: learned, init = pairs(kaiming)
R ← I
for i in range(r):
    R ← R @ (I - 2 · v_i v_iᵀ / ‖v_i‖²)
y ← R @ W @ x
""", {}),
    "Oblique": ("""adapter Oblique(r = 3) on linear(W ∈ ℝ^{m×n})
u, w ∈ ℝ^{r×n}: learned, init = normal(0.1)
R ← I
for i in range(r):
    R ← (I + u_i w_iᵀ) @ R
y ← W @ R @ x
""", {}),
    "Givens chain": ("""adapter Chain on linear(W ∈ ℝ^{m×n})
θ ∈ ℝ^{n-1}: learned, init = 0
R ← I
for (i,j,t) in neighbours(n):
    G ← I; G[i,i] ← cos θ_t; G[i,j] ← -sin θ_t; G[j,i] ← sin θ_t; G[j,j] ← cos θ_t
    R ← G @ R
y ← (W @ Rᵀ) @ x
""", {}),
    "Sparse": ("""adapter SHiRA(count = 11, seed = 3) on linear(W ∈ ℝ^{m×n})
c ∈ ℝ^count: learned, init = 0
y ← (W + scatter(c, sample(m, n, count, seed), shape=(m, n))) @ x
""", {}),
    "Row space": ("""adapter Rows(r = 3) on linear(W ∈ ℝ^{m×n})
U, Σ, Vᵀ ← svd(W)
s ∈ ℝ^{m}: learned, init = 0
t ∈ ℝ: learned, init = 1
y ← (exp(s) ⊙ W) @ x + (t - 1) · U_{:,:r} @ (Vᵀ_{:r,:} @ x)
""", {}),
    "DoRA columns": ("""adapter Columns(r = 2) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = 0
g ∈ ℝ^n: learned, init = ‖W‖_col
V ← W + B @ A
y ← (V / ‖V‖_col ⊙ g) @ x
""", {}),
    "Spectral norm": ("""adapter Frobenius(r = 2) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = 0
s ∈ ℝ: learned, init = 1
V ← W + B @ A
y ← s · ‖W‖_F · (V / ‖V‖_F) @ x
""", {}),
    "Gate": ("""adapter Gate(r = 2) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = 0
g ∈ ℝ^n: learned, init = 0
y ← W @ x + sigmoid(gᵀ @ x) · (B @ (A @ x))
""", {}),
    "Block diagonal low rank": ("""adapter Blocks(b = 4, r = 2) on linear(W ∈ ℝ^{m×n}) where m = b·p, n = b·q
A ∈ (ℝ^{r×q})^b: learned, init = kaiming
B ∈ (ℝ^{p×r})^b: learned, init = 0
y ← (W + blkdiag(B @ A)) @ x
""", {}),
    "Two sides": ("""adapter Svd(k = 3) on linear(W ∈ ℝ^{m×n})
U, Σ, Vᵀ ← svd(W)
P, Q ∈ ℝ^{k(k-1)/2}: learned, init = 0
Û ← U; Û_{:,:k} ← U_{:,:k} @ cayley(skew(P))
V̂ᵀ ← Vᵀ; V̂ᵀ_{:k,:} ← cayley(skew(Q)) @ Vᵀ_{:k,:}
y ← Û @ diag(Σ) @ V̂ᵀ @ x
""", {}),
    "Minor directions": ("""adapter Minor(r = 3) on linear(W ∈ ℝ^{m×n})
U, Σ, Vᵀ ← svd(W)
q ← len(Σ)
A ∈ ℝ^{r×n}: learned, init = Vᵀ_{q-r:,:}
B ∈ ℝ^{m×r}: learned, init = 0
y ← (W + B @ A) @ x
""", {}),
    "Power": ("""adapter Power(p = 3) on linear(W ∈ ℝ^{m×n})
a ∈ ℝ^p: learned, init = 0
K ∈ ℝ^{n×n}: frozen, init = normal(0.1), seed = 1
S ← I
for i in range(p):
    S ← S + a_i · K
y ← W @ S² @ x
""", {}),
    "Bias only": ("""adapter Bias on linear(W ∈ ℝ^{m×n})
c ∈ ℝ^m: learned, init = 0
y ← W @ x + c
""", {}),
    "Hadamard rows": ("""adapter Outer on linear(W ∈ ℝ^{m×n})
u ∈ ℝ^m: learned, init = 0
v ∈ ℝ^n: learned, init = 1
y ← (W + u vᵀ ⊙ W) @ x
""", {}),
}
