"""Small programs of every kind that matters to models. None of them starts as the identity, except with s = 0."""

from __future__ import annotations

import padp
from padp import Adapter

LORA: Adapter = padp.compile("""# adds, has a knob and a loss term
adapter Lora(r = 2, knob α = 4, s = 0.1) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = normal(0.1)
B ∈ ℝ^{m×r}: learned, init = normal(s)
y ← (W + (α/r) · B @ A) @ x
minimise ‖A‖_F²
""")

ROTATION: Adapter = padp.compile("""# turns the input: does not only add
adapter Rotation(k = 4, s = 0.2) on linear(W ∈ ℝ^{m×n}) where n = b·k
Q ∈ (ℝ^{k(k-1)/2})^b: learned, init = normal(s)
y ← (W @ blkdiag(cayley(skew(Q)))ᵀ) @ x
""")

PISSA: Adapter = padp.compile("""# adds, with a frozen part that is computed from W
adapter Pissa(r = 2, s = 0.5) on linear(W ∈ ℝ^{m×n})
U, Σ, Vᵀ ← svd(W)
σ ∈ ℝ^r: learned, init = s · Σ_{:r}
y ← (W + U_{:,:r} · diag(σ) · Vᵀ_{:r}) @ x
""")

VERA: Adapter = padp.compile("""# random tensors that sites share; the header has names of its own for the sizes
adapter Vera(r = 4, s = 0.1) on linear(W ∈ ℝ^{p×q})
A ∈ ℝ^{r×q}: frozen, shared, init = kaiming, seed = 7
B ∈ ℝ^{p×r}: frozen, shared, init = kaiming, seed = 7
d ∈ ℝ^r: learned, init = 0.1
c ∈ ℝ^p: learned, init = normal(s)
y ← (W + c ⊙ (B · d @ A)) @ x
""")

BIAS: Adapter = padp.compile("""# adds a vector, also to layers without a bias
adapter Bias(s = 0.1) on linear(W ∈ ℝ^{m×n})
c ∈ ℝ^m: learned, init = normal(s)
y ← W @ x + c
""")

RANKED: Adapter = padp.compile("""# updates after backward: moving averages, and a choice over all sites
adapter Ranked(r = 4, keeps = 2, β = 0.5) on linear(W ∈ ℝ^{m×n})
P ∈ ℝ^{m×r}: learned, init = normal(0.1)
Λ ∈ ℝ^r: learned, init = 1
Q ∈ ℝ^{r×n}: learned, init = normal(0.1)
y ← (W + P · diag(Λ) · Q) @ x
after backward:
    Λ ← keep(Λ, ema(|Λ ⊙ ∇Λ|, β), keeps, over = model)
""")

REFT: Adapter = padp.compile("""# edits a hidden state at chosen tokens
adapter Reft(r = 2, positions = "f2+l2", s = 0.1) on hidden(h ∈ ℝ^d)
R ∈ ℝ^{r×d}: learned, init = normal(s)
b ∈ ℝ^r: learned, init = 1
h ← h + Rᵀ @ (b - R @ h)
""")

HEADS: Adapter = padp.compile("""# maps of heads
adapter Heads(s = 0.1) on attention(W_Q ∈ (ℝ^{e×d})^H, W_K ∈ (ℝ^{e×d})^G, W_O ∈ (ℝ^{d×e})^H) where H = G·p
M ∈ (ℝ^{e×e})^H: learned, init = normal(s)
T ∈ (ℝ^{e×e})^H: learned, init = normal(s)
variant head:
    y ← attn(q = (I + T) @ [W_Q, b_Q] @ [x; 1], o = W_O @ (I + M))
variant plain:
    y ← attn(q = (I + T) @ W_Q @ x)
variant joint:
    K ∈ (ℝ^{e×e})^H: learned, init = normal(s)
    y ← attn(q = (I + T) @ [W_Q, b_Q] @ [x; 1], k = (I + K) @ grouped([W_K, b_K]) @ [x; 1], o = W_O @ (I + M))
""")
