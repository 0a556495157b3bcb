"""The literal reading against independent torch, written out by hand, and against PEFT's own layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from padp.compiler.literal.reference import Reference
from padp.compiler.names.resolve import resolve
from padp.dsl.diagnostics import PadpError
from padp.dsl.parse import parse
from padp.dsl.source import Source

F64 = torch.float64


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed + 17 * len(shape) + sum(shape)))


def read(text: str, tensors: Mapping[str, Tensor], variant: str | None = None, **hyper: float | int | str) -> Reference:
    source = Source.of(text)
    return Reference(resolve(parse(source), source, variant), {}, hyper, tensors)


def linear(body: str, header: str = "adapter T on linear(W ∈ ℝ^{m×n})") -> str:
    return f"{header}\n{body}\n"


M, N = 6, 8
W, BIAS, X = rand(M, N), rand(M), rand(2, 3, N)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def expect(text: str, tensors: Mapping[str, Tensor], weight: Tensor, **hyper: Any) -> Reference:
    """The program is the linear map with this weight and bias: by its output, its merged weight and its gradients."""
    reference = read(text, {"W": W, "bias": BIAS, **tensors}, **hyper)
    close(reference.forward(X), X @ weight.mT + BIAS)
    close(reference.forward(X[0, 0]), weight @ X[0, 0] + BIAS)
    merged, shift = reference.merged()
    close(merged, weight)
    close(shift, BIAS)
    learned = [p.name for p in reference.method.parameters if p.role == "learned"]
    leaves = {k: v.clone().requires_grad_() if k in learned else v for k, v in reference.tensors.items()}
    y = read(text, leaves, **hyper).forward(X)
    assert y.requires_grad
    return reference


# ---------------------------------------------------------------- adapters against torch by hand

LORA = linear("""A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = 0
ΔW ← B @ A
y ← (W + (α/r) · ΔW) @ x""", "adapter LoRA(r = 2, α = 6) on linear(W ∈ ℝ^{m×n})")


def test_lora() -> None:
    A, B = rand(2, N), rand(M, 2)
    reference = expect(LORA, {"A": A, "B": B}, W + 3 * B @ A)
    fresh = {name: reference.init(name, torch.Generator().manual_seed(0)) for name in ("A", "B")}
    assert fresh["A"].shape == (2, N) and fresh["A"].abs().max() <= 1 / math.sqrt(N)
    assert not fresh["B"].any()
    expect(LORA, {"A": A[:1], "B": B[:, :1]}, W + 6 * B[:, :1] @ A[:1], r=1)


def test_lora_gradients() -> None:
    A, B = rand(2, N).requires_grad_(), rand(M, 2).requires_grad_()
    g = rand(2, 3, M)
    (read(LORA, {"W": W, "A": A, "B": B}).forward(X) * g).sum().backward()
    grads = (A.grad, B.grad)
    A.grad = B.grad = None
    ((X @ (W + 3 * B @ A).mT) * g).sum().backward()
    assert grads[0] is not None and grads[1] is not None and A.grad is not None and B.grad is not None
    close(grads[0], A.grad)
    close(grads[1], B.grad)


def skew(v: Tensor, k: int) -> Tensor:
    S = torch.zeros(k, k, dtype=v.dtype)
    at = 0
    for i in range(k):
        for j in range(i + 1, k):
            S[i, j], S[j, i] = v[at], -v[at]
            at += 1
    return S


def cayley(K: Tensor) -> Tensor:
    eye = torch.eye(len(K), dtype=K.dtype)
    made: Tensor = (eye - K) @ torch.linalg.inv(eye + K)
    return made


OFT = linear("""Q ∈ (ℝ^{k(k-1)/2})^b: learned, init = 0
Q_skew ← skew(Q)
R ← (I + Q_skew)(I - Q_skew)⁻¹
R_full ← blkdiag(R₁, ..., R_b)
y ← (W @ R_fullᵀ) @ x""", "adapter OFT(k = 4) on linear(W ∈ ℝ^{m×n}) where n = b·k")


def test_oft() -> None:
    Q = rand(2, 6)
    R = torch.block_diag(*(cayley(-skew(q, 4)) for q in Q))
    reference = expect(OFT, {"Q": Q}, W @ R.T)
    close(R @ R.T, torch.eye(N, dtype=F64))
    assert reference.numbers["b"] == 2
    with pytest.raises(PadpError, match="E501"):
        read(OFT, {"W": rand(6, 9)}, k=4)


HRA = linear("""v ∈ ℝ^{r×n}: learned, init = pairs(kaiming)
R ← I
for i in range(r):
    R ← (I - 2 · v_i v_iᵀ / ‖v_i‖²) @ R
y ← (W @ Rᵀ) @ x""", "adapter HRA(r = 4) on linear(W ∈ ℝ^{m×n}) where r even")


def test_hra() -> None:
    v = rand(4, N)
    R = torch.eye(N, dtype=F64)
    for u in v:
        R = (torch.eye(N, dtype=F64) - 2 * torch.outer(u, u) / (u @ u)) @ R
    reference = expect(HRA, {"v": v}, W @ R.T)
    fresh = reference.init("v", torch.Generator().manual_seed(3))
    assert torch.equal(fresh[0::2], fresh[1::2])
    close(read(HRA, {"W": W, "v": fresh}).forward(X), X @ W.T)
    with pytest.raises(PadpError, match="E501"):
        read(HRA, {"W": W}, r=3)


def test_hra_with_a_name_for_each_reflection() -> None:
    text = linear("""v ∈ ℝ^{r×n}: learned, init = 0
R ← I
for i in range(r):
    Hᵢ ← I - 2 · vᵢ vᵢᵀ / ‖vᵢ‖²
    R ← Hᵢ @ R
y ← (W @ Rᵀ) @ x""", "adapter HRA(r = 4) on linear(W ∈ ℝ^{m×n})")
    v = rand(4, N)
    close(read(text, {"W": W, "v": v}).forward(X), read(HRA, {"W": W, "v": v}).forward(X))


def test_dora() -> None:
    text = linear("""A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = 0
mag ∈ ℝ^m: learned, init = ‖W‖_row
V ← W + α · B @ A
y ← (mag ⊙ (V / detach(‖V‖_row))) @ x""", "adapter DoRA(r = 2, α = 2) on linear(W ∈ ℝ^{m×n})")
    A, B, mag = rand(2, N), rand(M, 2), rand(M)
    V = W + 2 * B @ A
    reference = expect(text, {"A": A, "B": B, "mag": mag}, torch.diag(mag / V.norm(dim=1)) @ V)
    close(reference.init("mag", torch.Generator()), W.norm(dim=1))
    named = text.replace("y ← (mag ⊙ (V / detach(‖V‖_row))) @ x", "s ← detach(‖V‖_row)\ny ← (mag · (V / s)) @ x")
    close(read(named, reference.tensors).forward(X), reference.forward(X))
    with pytest.raises(PadpError, match="E302"):
        read(text.replace("detach(‖V‖_row)", "mag"), reference.tensors).forward(X)
    with pytest.raises(PadpError, match="E303"):
        read(text.replace("‖V‖_row", "‖V‖"), reference.tensors).forward(X)
    with pytest.raises(PadpError, match="E301"):
        other = text.replace("V / detach(‖V‖_row)", "V / ‖V‖_col").replace("mag ⊙", "‖V‖_col ⊙")
        read(other, reference.tensors).forward(X)


SSVD = linear("""θ ∈ ℝ^{k(k-1)/2}: learned, init = 0
ΔΣ ∈ ℝ^k: learned, init = 0
U, Σ, Vᵀ ← svd(W)
G ← cayley(skew(θ))
Σ̂ ← Σ; Σ̂_{:k} += ΔΣ
V̂ᵀ ← Vᵀ; V̂ᵀ_{:k} ← G @ Vᵀ_{:k}
y ← U · diag(Σ̂) · V̂ᵀ @ x""", "adapter SSVD(k = 3) on linear(W ∈ ℝ^{m×n})")


def signed_svd(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    sign = torch.sign(U[U.abs().argmax(0), torch.arange(U.shape[1])])
    return U * sign, S, Vh * sign[:, None]


def test_ssvd() -> None:
    theta, shift = rand(3), rand(3)
    U, S, Vh = signed_svd(W)
    S2, V2 = S.clone(), Vh.clone()
    S2[:3] += shift
    V2[:3] = cayley(skew(theta, 3)) @ Vh[:3]
    reference = expect(SSVD, {"θ": theta, "ΔΣ": shift}, U @ torch.diag(S2) @ V2)
    frozen = reference.frozen()
    close(frozen["U"], U)
    close(frozen["Vᵀ"], Vh)
    assert set(frozen) == {"U", "Σ", "Vᵀ"}  # Σ̂ and V̂ᵀ depend on what is learned


ROAD = linear("""θ ∈ ℝ^d: learned, init = 0
α ∈ ℝ^d: learned, init = 1
for i in range(d):
    x̂[2i] ← α_i · (cos θ_i · x[2i] - sin θ_i · x[2i+1])
    x̂[2i+1] ← α_i · (sin θ_i · x[2i] + cos θ_i · x[2i+1])
y ← W @ x̂""", "adapter RoAd on linear(W ∈ ℝ^{m×n}) where n = 2·d")


def test_road() -> None:
    theta, alpha = rand(4), rand(4, seed=1)
    blocks = [a * torch.tensor([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]], dtype=F64)
              for t, a in zip(theta.tolist(), alpha.tolist(), strict=True)]
    expect(ROAD, {"θ": theta, "α": alpha}, W @ torch.block_diag(*blocks))


def test_writes_over_an_index_set() -> None:
    text = linear("""Ω ← halves(m, g)
θ ∈ ℝ^Ω: learned, init = 0
z ← W @ x + bias
for (p,q) in Ω:
    y[p] ← cos θ_{p,q} · z[p] - sin θ_{p,q} · z[q]
    y[q] ← sin θ_{p,q} · z[p] + cos θ_{p,q} · z[q]""", "adapter RoAdP(g = 6) on linear(W ∈ ℝ^{m×n})")
    theta = rand(3)
    c, s = torch.cos(theta), torch.sin(theta)
    z = X @ W.T + BIAS
    want = torch.cat([c * z[..., :3] - s * z[..., 3:], s * z[..., :3] + c * z[..., 3:]], -1)
    close(read(text, {"W": W, "bias": BIAS, "θ": theta}).forward(X), want)


@pytest.mark.parametrize(("change", "code"), [
    (("x̂[2i+1]", "x̂[2i]"), "E305"),  # written twice, and never
    (("for i in range(d)", "for i in range(d-1)"), "E301"),  # shorter than x
])
def test_writes_that_do_not_cover(change: tuple[str, str], code: str) -> None:
    with pytest.raises(PadpError, match=code):
        read(ROAD.replace(*change), {"W": W, "θ": rand(4), "α": rand(4)}).forward(X)


GOFT = linear("""θ ∈ ℝ^{n-1}: learned, init = 0
R ← I
for (i,j,t) in tree(n):
    G ← I; G[i,i] ← cos θ_t; G[i,j] ← -sin θ_t; G[j,i] ← sin θ_t; G[j,j] ← cos θ_t
    R ← G @ R
y ← (W @ Rᵀ) @ x""", "adapter GOFT on linear(W ∈ ℝ^{m×n})")


@pytest.mark.parametrize("n", [8, 5])
def test_goft(n: int) -> None:
    w, x, theta = rand(M, n), rand(4, n), rand(n - 1)
    R, t, step = torch.eye(n, dtype=F64), 0, 1
    while step < n:
        for i in range(0, n - step, 2 * step):
            G, j = torch.eye(n, dtype=F64), i + step
            c, s = torch.cos(theta[t]), torch.sin(theta[t])
            G[i, i], G[i, j], G[j, i], G[j, j] = c, -s, s, c
            R, t = G @ R, t + 1
        step *= 2
    assert t == n - 1
    close(read(GOFT, {"W": w, "θ": theta}).forward(x), x @ (w @ R.T).T)


BOFT = linear("""Q ∈ (ℝ^{k(k-1)/2})^{F×b}: learned, init = 0
R ← I
for j in range(F):
    P ← perm(butterfly(n, k, j))
    R ← Pᵀ @ blkdiag(cayley(skew(Q_{j}))) @ P @ R
y ← (W @ Rᵀ) @ x""", "adapter BOFT(k = 2, F = 3) on linear(W ∈ ℝ^{m×n}) where n = b·k")


def test_boft() -> None:
    Q = rand(3, 4, 1)
    R = torch.eye(N, dtype=F64)
    for j in range(3):
        stride = 2**j
        factor = torch.zeros(N, N, dtype=F64)
        block = 0
        for high in range(N // (2 * stride)):
            for low in range(stride):
                i = high * 2 * stride + low
                C = cayley(skew(Q[j, block], 2))
                for a in range(2):
                    for b in range(2):
                        factor[i + a * stride, i + b * stride] = C[a, b]
                block += 1
        R = factor @ R
    expect(BOFT, {"Q": Q}, W @ R.T)
    assert (R != 0).all()  # three factors mix all eight coordinates


RANDLORA = linear("""A ∈ ℝ^{r×q}: frozen, shared, init = unit_std(kaiming), seed = seed
B ∈ (ℝ^{p×r})^N: frozen, shared, init = unit_std(kaiming), seed = seed
Λ ∈ (ℝ^r)^N: learned, init = 0
Γ ∈ (ℝ^q)^N: learned, init = 1/p
D ← (α/r) · Σⱼ Bⱼ · Λⱼ @ A · Γⱼ
y ← (W + (D if m ≥ n else Dᵀ)) @ x""", "adapter RandLoRA(r = 4, α = 8, seed = 0) on linear(W ∈ ℝ^{m×n}) "
    "where q = min(m, n), p = max(m, n), N = ceil(q/r)")


def test_randlora() -> None:
    A, B, lam, gam = rand(4, 6), rand(2, 8, 4), rand(2, 4), rand(2, 6)
    D = 2 * torch.stack([B[j] @ torch.diag(lam[j]) @ A @ torch.diag(gam[j]) for j in range(2)]).sum(0)
    reference = expect(RANDLORA, {"A": A, "B": B, "Λ": lam, "Γ": gam}, W + D.T)
    assert reference.numbers["N"] == 2
    assert torch.equal(reference.init("Γ", torch.Generator()), torch.full((2, 6), 1 / 8, dtype=F64))
    close(reference.init("B", torch.Generator().manual_seed(0)).std(), torch.tensor(1.0, dtype=F64))
    tall = {"W": rand(8, 6), "A": A, "B": B, "Λ": lam, "Γ": gam}
    close(read(RANDLORA, tall).merged()[0], rand(8, 6) + D)


def test_fourierft() -> None:
    text = linear("""Ω ← sample(m, n, count, 777)
c ∈ ℝ^Ω: learned, init = normal(1)
y ← (W + s · Re(iFFT2(scatter(c, Ω, shape=(m,n))))) @ x""", "adapter F(count = 5, s = 150) on linear(W ∈ ℝ^{m×n})")
    c = rand(5)
    flat = torch.randperm(M * N, generator=torch.Generator().manual_seed(777))[:5]
    S = torch.zeros(M * N, dtype=F64).scatter(0, flat, c).reshape(M, N)
    reference = expect(text, {"c": c}, W + 150 * torch.fft.ifft2(S).real)
    assert reference.init("c", torch.Generator().manual_seed(0)).shape == (5,)
    with pytest.raises(PadpError, match="E306"):
        read(text.replace("Re(", "("), {"W": W, "c": c}).forward(X)


SVFT = linear("""U, Σ, Vᵀ ← svd(W)
variant banded:
    Ω ← band(len(Σ), d)
variant random:
    Ω ← sample(len(Σ), len(Σ), count, 0)
variant topk:
    Ω ← largest(Uᵀ @ Vᵀ.T, count)
common:
    c ∈ ℝ^Ω: learned, init = 0
    ΔW ← Σ_{(i,j) ∈ Ω} c_{i,j} · U_{:,i} Vᵀ_{j,:}
    y ← (W + ΔW) @ x""", "adapter SVFT(d = 1, count = 5) on linear(W ∈ ℝ^{m×n})")


@pytest.mark.parametrize("variant", ["banded", "random", "topk"])
def test_svft(variant: str) -> None:
    w = rand(6, 6) if variant == "topk" else W
    U, S, Vh = signed_svd(w)
    q = len(S)
    match variant:
        case "banded":
            cells = [(i, j) for i in range(q) for j in range(q) if abs(i - j) <= 1]
        case "random":
            flat = torch.randperm(q * q, generator=torch.Generator().manual_seed(0))[:5]
            cells = [divmod(f, q) for f in flat.tolist()]
        case _:
            flat = (U.T @ Vh.T).reshape(-1).argsort(descending=True)[:5]
            cells = [divmod(f, q) for f in flat.tolist()]
    c = rand(len(cells))
    S_c = torch.zeros(q, q, dtype=F64)
    for value, (i, j) in zip(c, cells, strict=True):
        S_c[i, j] += value
    reference = read(SVFT, {"W": w, "c": c}, variant)
    close(reference.merged()[0], w + U @ S_c @ Vh)
    assert reference.init("c", torch.Generator()).tolist() == [0.0] * len(cells)
    close(reference.frozen()["Ω"], torch.tensor(cells))
    as_rows = SVFT.replace("U_{:,i} Vᵀ_{j,:}", "U_{:,i} V_{:,j}ᵀ")
    close(read(as_rows, {"W": w, "c": c}, variant).merged()[0], w + U @ S_c @ Vh)


def test_pissa() -> None:
    text = linear("""U, Σ, Vᵀ ← svd(W)
A ∈ ℝ^{m×r}: learned, init = U_{:,:r} · √Σ_{:r}
B ∈ ℝ^{r×n}: learned, init = √Σ_{:r} · Vᵀ_{:r,:}
W_res ← U_{:,r:} · Σ_{r:} · Vᵀ_{r:,:}
y ← (W_res + A @ B) @ x""", "adapter PiSSA(r = 2) on linear(W ∈ ℝ^{m×n})")
    U, S, Vh = signed_svd(W)
    first = read(text, {"W": W})
    A, B = first.init("A", torch.Generator()), first.init("B", torch.Generator())
    close(A, U[:, :2] * S[:2].sqrt())
    close(B, S[:2].sqrt()[:, None] * Vh[:2])
    expect(text, {"A": A, "B": B}, W)
    close(first.frozen()["W_res"], U[:, 2:] @ torch.diag(S[2:]) @ Vh[2:])


def test_delora_defines_its_norms_by_index() -> None:
    text = linear("""λ ∈ ℝ^r: learned, init = 1
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = kaiming
for i in range(r): â_i ← ‖aᵢ‖; b̂_i ← ‖bᵢ‖
s ← (λ/r) / (â · b̂)
y ← W(x) + B · diag(s) · A @ x""", "adapter DeLoRA(r = 3) on linear(W ∈ ℝ^{m×n})")
    lam, A, B = rand(3), rand(3, N), rand(M, 3)
    s = lam / 3 / (A.norm(dim=1) * B.norm(dim=0))
    expect(text, {"λ": lam, "A": A, "B": B}, W + B @ torch.diag(s) @ A)


def test_adalora_scores_without_a_loop() -> None:
    text = linear("""P ∈ ℝ^{m×r}: learned, init = normal(0.02)
Λ ∈ ℝ^r: learned, init = 0
Q ∈ ℝ^{r×n}: learned, init = normal(0.02)
s_i ← |Λ_i| + β · ‖pᵢ‖ · ‖qᵢ‖
mask ← topk(s, 2)
y ← (W + P · diag(Λ ⊙ mask) · Q) @ x
minimise γ · (‖Pᵀ @ P - I‖_F² + ‖Q @ Qᵀ - I‖_F²)""", "adapter A(r = 4, β = 0.5, γ = 0.1) on linear(W ∈ ℝ^{m×n})")
    P, L, Q = rand(M, 4), rand(4), rand(4, N)
    s = L.abs() + 0.5 * P.norm(dim=0) * Q.norm(dim=1)
    keep = torch.zeros(4, dtype=F64).index_fill(0, s.argsort(descending=True)[:2], 1.0)
    reference = expect(text, {"P": P, "Λ": L, "Q": Q}, W + P @ torch.diag(L * keep) @ Q)
    eye = torch.eye(4, dtype=F64)
    close(reference.minimise(), 0.1 * ((P.T @ P - eye).square().sum() + (Q @ Q.T - eye).square().sum()))


def test_ia3_scales_the_bias_when_it_is_mentioned() -> None:
    text = """adapter IA3 on linear(W ∈ ℝ^{m×n})
variant feedforward:
    λ ∈ ℝ^n: learned, init = 1
    y ← W @ (x ⊙ λ)
variant attention:
    λ ∈ ℝ^m: learned, init = 1
    y ← (W @ x + bias) ⊙ λ
"""
    for variant, size in (("feedforward", N), ("attention", M)):
        scale = rand(size)
        reference = read(text, {"W": W, "bias": BIAS, "λ": scale}, variant)
        want = (X * scale) @ W.T + BIAS if size == N else (X @ W.T + BIAS) * scale
        close(reference.forward(X), want)
        assert torch.equal(reference.init("λ", torch.Generator()), torch.ones(size, dtype=F64))
    close(read(text, {"W": W, "λ": rand(M)}, "attention").forward(X), X @ W.T * rand(M))  # no bias: zeros


def test_reft_is_the_identity_at_its_own_start() -> None:
    text = """adapter ReFT(r = 2) on hidden(h ∈ ℝ^d, positions = "f7+l7")
R ∈ St(r, d): learned, init = orthogonal
M ∈ ℝ^{r×d}: learned, init = R
b ∈ ℝ^r: learned, init = 0
h ← h + Rᵀ @ (M @ h + b - R @ h)
"""
    source = Source.of(text)
    method = resolve(parse(source), source)
    bare = Reference(method, {"d": N}, {}, {"x": torch.zeros(1, dtype=F64)})
    R = bare.init("R", torch.Generator().manual_seed(0))
    start = Reference(method, {"d": N}, {}, {"R": R})
    Z = start.init("M", torch.Generator())
    close(Z, R)  # an orthonormal Z stands for itself
    close(Reference(method, {}, {}, {"R": R, "M": Z, "b": torch.zeros(2, dtype=F64)}).forward(X), X)
    stored, M_, b = rand(2, N), rand(2, N, seed=5), rand(2)
    Q = torch.linalg.qr(stored.T)
    Rm = (Q[0] * torch.sign(Q[1].diagonal())).T
    got = Reference(method, {}, {}, {"R": stored, "M": M_, "b": b}).forward(X)
    close(got, X + (X @ M_.T + b - X @ Rm.T) @ Rm)


# ---------------------------------------------------------------- attention

CLOVER = """adapter CLOVER on attention(W_Q ∈ (ℝ^{e×d})^H, W_K ∈ (ℝ^{e×d})^G, W_V ∈ (ℝ^{e×d})^G, W_O ∈ (ℝ^{d×e})^H)
where H = G·p
variant joint:
    U, S, Vᵀ ← svd([W_Q, b_Q]ᵀ @ grouped([W_K, b_K]), rank = e)
    E, Z, Fᵀ ← svd(W_O @ grouped([W_V, b_V]), rank = e)
    T ∈ (ℝ^{e×e})^H: learned, init = diag(S); M ∈ (ℝ^{e×e})^H: learned, init = diag(Z)
    y ← attn(q = Tᵀ @ Uᵀ @ [x; 1], k = Vᵀ @ [x; 1], v = Fᵀ @ [x; 1], o = E @ M)
variant head:
    N, L ← qr([W_Q, b_Q]ᵀ)
    T ∈ (ℝ^{e×e})^H: learned, init = L
    y ← attn(q = Tᵀ @ Nᵀ @ [x; 1])
"""


def attention_tensors(H: int = 4, G: int = 2, e: int = 3, d: int = 12) -> dict[str, Tensor]:
    return {"W_Q": rand(H, e, d), "W_K": rand(G, e, d), "W_V": rand(G, e, d, seed=1), "W_O": rand(H, d, e, seed=2),
            "b_Q": rand(H, e), "b_K": rand(G, e), "b_V": rand(G, e, seed=1), "b_O": rand(d)}


def sdpa(t: Mapping[str, Tensor], x: Tensor, causal: bool) -> Tensor:
    """torch's own attention with the base weights."""
    H, e, d = t["W_Q"].shape
    q, k, v = (x @ t[f"W_{c}"].reshape(-1, d).T + t[f"b_{c}"].reshape(-1) for c in "QKV")
    q, k, v = (s.reshape(len(x), -1, e).transpose(0, 1) for s in (q, k, v))
    k, v = (s.repeat_interleave(H // len(s), 0) for s in (k, v))
    heads = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return heads.transpose(0, 1).reshape(len(x), -1) @ t["W_O"].permute(0, 2, 1).reshape(-1, d) + t["b_O"]


@pytest.mark.parametrize("variant", ["joint", "head"])
@pytest.mark.parametrize("causal", [False, True])
def test_clover_starts_as_the_base_attention(variant: str, causal: bool) -> None:
    tensors, x = attention_tensors(), rand(5, 12)
    first = read(CLOVER, tensors, variant)
    learned = {p.name: first.init(p.name, torch.Generator()) for p in first.method.parameters}
    reference = read(CLOVER, {**tensors, **learned}, variant)
    close(reference.attention(x, causal), sdpa(tensors, x, causal))
    moved = {k: v + 0.1 * rand(*v.shape) for k, v in learned.items()}
    difference = read(CLOVER, {**tensors, **moved}, variant).attention(x, causal) - sdpa(tensors, x, causal)
    assert difference.abs().max() > 1e-3


def test_clover_trains_one_map_per_head() -> None:
    tensors, x = attention_tensors(), rand(5, 12)
    A = [torch.cat([tensors["W_Q"][h], tensors["b_Q"][h][:, None]], 1).T for h in range(4)]
    T = rand(4, 3, 3)
    new: list[Tensor] = []
    for h, a in enumerate(A):
        Q, R = torch.linalg.qr(a)
        new.append(T[h].T @ (Q * torch.sign(R.diagonal())).T)
    stacked = torch.stack(new)
    changed = {**tensors, "W_Q": stacked[..., :-1], "b_Q": stacked[..., -1]}
    close(read(CLOVER, {**tensors, "T": T}, "head").attention(x, True), sdpa(changed, x, True))


# ---------------------------------------------------------------- rules of the language


@pytest.mark.parametrize(("body", "weight"), [
    ("y ← (x · W) @ x", None),
    ("y ← ones(m) + x", None),
    ("y ← W @ x + 1", None),
    ("y ← W ⊙ W @ x", lambda: W * W),
    ("y ← W · ones(n) @ x", lambda: W),
    ("y ← (ones(m) ⊙ W) @ x", lambda: W),
    ("y ← W @ (Wᵀ @ W + I)^2 @ x", lambda: W @ torch.linalg.matrix_power(W.T @ W + torch.eye(N, dtype=F64), 2)),
    ("y ← W @ (I + I) @ x", lambda: 2 * W),
    ("y ← W @ (2 · I - I)⁻¹ @ x", lambda: W),
    ("y ← (Wᵀ)ᵀ @ x", lambda: W),
    ("y ← trace(W @ Wᵀ) · W @ x", lambda: (W @ W.T).trace() * W),
    ("y ← assemble(blocks(W, 2, 4)) @ x", lambda: W),
    ("y ← reshape(flatten(W), m, n) @ x", lambda: W),
    ("y ← reshape(vec(Wᵀ), m, n) @ x", lambda: W),
    ("y ← rows(family(W)) @ x", lambda: W),
    ("y ← [W_{:,:2}, W_{:,2:}] @ x", lambda: W),
    ("y ← [W_{:2}; W_{2:}] @ x", lambda: W),
    ("y ← kron(eye(1), W) @ x", lambda: W),
    ("y ← (eye(1) ⊗ W) @ x", lambda: W),
    ("y ← W @ circulant(x) @ ones(n)", None),
    ("y ← solve(eye(m) + eye(m), W) @ x", lambda: W / 2),
    ("y ← expm(zeros(m, m)) @ W @ x", lambda: W),
    ("y ← (tril(W) + striu(W)) @ x", lambda: W),
    ("y ← (W if m ≥ n else 2·W) @ x", lambda: 2 * W),
    ("y ← W_{arange(m)} @ x", lambda: W),
    ("y ← (W / ‖W‖_row) @ x", lambda: W / W.norm(dim=1, keepdim=True)),
    ("y ← (W / mean_col(|W|)) @ x", lambda: W / W.abs().mean(0, keepdim=True)),
    ("y ← Σ_{i ∈ range(n)} W_{:,i} · x_i", lambda: W),
    ("y ← Σ_{i ∈ range(n)} W_{:,i} (eye(n)_{i,:} @ x)", lambda: W),
    ("D ← zeros(m, n)\nfor i in range(m):\n    D_{i,:} += W_i\ny ← D @ x", lambda: W),
    ("for j in range(n):\n    D_{:,j} ← W_{:,j}\ny ← D @ x", lambda: W),
    ("for i in range(m):\n    D_i ← W_i\ny ← D @ x", lambda: W),
    ("D_{:2} ← W_{:2}; D_{2:} ← W_{2:}\ny ← D @ x", lambda: W),
    ("R ← I; R_{0,0} ← 0; R_{1,1} -= 2\ny ← W @ R @ x", lambda: W * torch.tensor([0, -1, 1, 1, 1, 1, 1, 1], dtype=F64)),
    ("f(u) ← 2 · u\ng(u) ← f(f(u))\ny ← g(W) @ x", lambda: 4 * W),
    ("y ← drop(W, 0.5) @ x", lambda: W),
    ("y ← W @ x · sqrt(4) · log2(8) · floor(5/2) / max(2, 3)", lambda: W * 4),
    ("y ← clamp(W, -0.5, 0.5) @ x", lambda: W.clamp(-0.5, 0.5)),
    ("y ← maximum(W, 0) @ x", lambda: W.clamp(min=0)),
])
def test_rules(body: str, weight: Callable[[], Tensor] | None) -> None:
    text = linear(body)
    if weight is None:
        if "circulant" in body:
            sums = X.sum(-1, keepdim=True).expand_as(X)
            close(read(text, {"W": W}).forward(X), sums @ W.T)
            return
        with pytest.raises(PadpError):
            read(text, {"W": W}).forward(X)
        return
    close(read(text, {"W": W}).forward(X), X @ weight().T)


@pytest.mark.parametrize(("body", "code"), [
    ("y ← W @ W @ x", "E301"), ("y ← W⁻¹ @ x", "E304"), ("y ← ‖W‖ · x", "E303"), ("y ← W / W @ x", "E302"),
    ("y ← W_{9} · x", "E305"), ("y ← W_{:,3:20} @ x", "E305"), ("y ← x @ x", "E302"), ("y ← 1 / 0 · W @ x", "E302"),
    ("y ← W @ x ⊙ 2", "E302"), ("y ← I", "E301"), ("y ← ‖I‖_F · W @ x", "E309"), ("y ← (2^4000) · W @ x", "E105"),
    ("y ← skew(x) @ x", "E301"), ("y ← W", "E301"), ("y ← topk(x, 99)", "E305"), ("y ← x + I", "E301"),
    ("y ← svd(W) @ x", "E301"), ("y ← reshape(W, 5, 5) @ x", "E301"), ("y ← butterfly(n, 3, 0)", "E501"),
    ("y ← (W + ones(n))@ x", "E301"), ("y ← (W + I) @ x", "E304"), ("y ← zeros(m,m)⁻¹ @ W @ x", "E511"),
])
def test_refusals_have_a_code_and_a_place(body: str, code: str) -> None:
    with pytest.raises(PadpError) as caught:
        read(linear(body), {"W": W}).forward(X)
    (found,) = caught.value.diagnostics
    assert found.code == code and found.span is not None and found.source is not None
    assert found.source.position(found.span.start)[0] == 2


def test_families_are_treated_item_by_item() -> None:
    text = linear("""A ∈ (ℝ^{r×n})^N: learned, init = 0
c ∈ (ℝ)^N: learned, init = 1
B ∈ ℝ^{m×r}: learned, init = 0
F ← c · (B @ A)
y ← (W + Σ_{i ∈ range(N)} F_i) @ x""", "adapter T(r = 2, N = 3) on linear(W ∈ ℝ^{m×n})")
    A, c, B = rand(3, 2, N), rand(3), rand(M, 2)
    expect(text, {"A": A, "c": c, "B": B}, W + torch.einsum("i,mr,irn->mn", c, B, A))
    with pytest.raises(PadpError, match="families"):
        clash = text.replace("c ∈ (ℝ)^N", "c ∈ (ℝ)^2")
        read(clash, {"W": W, "A": A, "c": c[:2], "B": B}).forward(X)


def test_empty_batches_and_float32() -> None:
    A, B = rand(2, N).float(), rand(M, 2).float()
    reference = read(LORA, {"W": W.float(), "A": A, "B": B})
    assert reference.forward(torch.zeros(0, 5, N)).shape == (0, 5, M)
    assert reference.forward(X.float()).dtype == torch.float32


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(PadpError, match="E501"):
        read(LORA, {"W": W, "A": rand(2, N), "B": rand(M, 3)})
    with pytest.raises(PadpError, match="E301"):
        read(LORA, {"W": W, "A": rand(N), "B": rand(M, 2)})
    with pytest.raises(PadpError, match="E507"):
        read(LORA.replace("r = 2", "r"), {"W": W})
