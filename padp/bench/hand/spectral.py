"""Adapters whose ΔW has full rank: over singular vectors, over random bases, in the Fourier domain."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from padp.bench.hand.form import Hand, base_product, pieces
from padp.compiler.kernels import dense as kernels


class SVFT(Hand):
    """Plain: y = U ((Σ + c) ⊙ Vᵀ x) + b. The base's product is inside: two products, not three."""

    c: Tensor
    U: Tensor
    S: Tensor
    V: Tensor

    def prepare(self) -> None:
        U, S, V = kernels.svd(self.W.to(torch.promote_types(self.c.dtype, torch.float32)), None)
        for name, kept in (("U", U), ("S", S), ("V", V)):
            self.register_buffer(name, kept.to(self.c.dtype).contiguous())

    def values(self) -> tuple[Tensor, ...]:
        return (self.S + self.c,)

    def tokens(self, x: Tensor, *values: Tensor) -> Tensor:
        return cast(Tensor, _Spectrum.apply(x, self.U.to(x.dtype), self.V.to(x.dtype), self.b, *values))


class _Spectrum(torch.autograd.Function):
    """y = U (s ⊙ V x) + b. Kept: V x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, U: Tensor, V: Tensor, b: Tensor | None, s: Tensor) -> Tensor:
        h = x @ V.T
        if not any(ctx.needs_input_grad):
            return base_product(h.mul_(s), U, b)
        ctx.save_for_backward(U, V, s, h)
        return base_product(h * s, U, b)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy,) = grads
        U, V, s, h = ctx.saved_tensors
        d = dy @ U
        ds = torch.zeros_like(s)
        for d_, h_ in pieces(d, h):
            ds += (d_ * h_).sum(0)
            d_.mul_(s)
        return d @ V, None, None, None, ds


FEW = 8
"""For up to so many tokens Γ_j ⊙ x is smaller than A ⊙ Γ_j."""


class RandLoRA(Hand):
    """ΔW is built (its factors are as wide as W), added to W and applied in the base's one product.

    Backward: ∂x needs one product with W + ΔW, and ∂Λ, ∂Γ come from (∂y B)ᵀ x, never from ∂ΔW. Without gradients
    nothing as large as W is kept: tokens go through the two factors, a few without even building the scaled one.
    """

    A: Tensor
    B: Tensor
    Lambda: Tensor
    Gamma: Tensor
    flat: Tensor

    def prepare(self) -> None:
        self.register_buffer("flat", self.B.movedim(0, 1).flatten(1).contiguous())  # p×Nr, in the place of B
        del self.B

    def values(self) -> tuple[Tensor, ...]:
        return self.Lambda * (self.hyper["α"] / self.hyper["r"]), self.Gamma

    def tokens(self, x: Tensor, *values: Tensor) -> Tensor:
        A, B = self.A.to(x.dtype), self.flat.to(x.dtype)
        if torch.is_grad_enabled():
            return cast(Tensor, _Bases.apply(x, self.W, self.b, A, B, *values))
        L, G = values
        y = base_product(x, self.W, self.b)
        if self.W.shape[0] < self.W.shape[1]:
            return y.addmm_(x @ B, _scaled(A, L, G))
        if len(x) <= FEW:
            return y.addmm_((((x[:, None] * G) @ A.T) * L).flatten(1), B.T)
        return y.addmm_(x @ _scaled(A, L, G).T, B.T)


class _Bases(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, A: Tensor, B: Tensor, L: Tensor, G: Tensor) -> Tensor:
        m, n = W.shape
        C = _scaled(A, L, G)
        whole = torch.addmm(W, B, C) if m >= n else torch.addmm(W, C.T, B.T)
        ctx.save_for_backward(x, A, B, L, G, whole)
        return base_product(x, whole, b)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy,) = grads
        x, A, B, L, G, whole = ctx.saved_tensors
        m, n = whole.shape
        D = (dy @ B).T @ x if m >= n else (x @ B).T @ dy
        D = D.view(*L.shape, -1).mul_(A)
        dL = torch.bmm(D, G[:, :, None])[..., 0]
        dG = torch.bmm(L[:, None], D)[:, 0]
        return dy @ whole, None, None, None, None, dL, dG


def _scaled(A: Tensor, L: Tensor, G: Tensor) -> Tensor:
    """Rows (j, i): Λ_{j,i} A_i ⊙ Γ_j."""
    return (L[..., None] * A).mul_(G[:, None]).flatten(0, 1)


class FourierFT(Hand):
    """ΔW x = α Re iFFT(S iFFT(x)) with k frequencies: two transforms of tokens, no m×n matrix."""

    c: Tensor
    up: Tensor
    across: Tensor
    sign: Tensor
    order: Tensor

    def prepare(self) -> None:
        m, n = self.W.shape
        u, v = kernels.sample(m, n, self.c.numel(), self.hyper["seed"]).unbind(1)
        # Re z = Re z̄: a frequency above the middle is the conjugate of its mirror, on either side
        up, across = torch.minimum(u, m - u), torch.minimum(v, n - v)
        turned = (up != u) ^ (across != v)
        order = torch.argsort(up, stable=True)
        for name, kept in (("up", up[order]), ("across", across[order]), ("sign", turned[order]), ("order", order)):
            self.register_buffer(name, kept.to(self.c.device))
        inner = (up[order] > 0) & (2 * up[order] < m)
        self.register_buffer("weight", torch.where(inner, 0.5, 1.0).to(self.c))

    weight: Tensor

    def values(self) -> tuple[Tensor, ...]:
        m, n = self.W.shape
        return (self.c[self.order] * self.weight * (self.hyper["α"] / (m * n)),)

    def tokens(self, x: Tensor, *values: Tensor) -> Tensor:
        return cast(Tensor, _Frequencies.apply(x, self.W, self.b, *values, self.up, self.across, self.sign))


class _Frequencies(torch.autograd.Function):
    """Kept: x. Work is on spectra with tokens last, so that a frequency is one contiguous row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, c: Tensor, up: Tensor, across: Tensor,
                turned: Tensor) -> Tensor:
        ctx.save_for_backward(x, W, c, up, across, turned)
        y = base_product(x, W, b)
        m = W.shape[0]
        wide = _wide(c)
        for x_, y_ in pieces(x, y):
            picked = _picked(x_, across, turned)
            H = picked.new_zeros(m // 2 + 1, len(x_)).index_add_(0, up, picked * wide[:, None])
            y_ += torch.fft.irfft(H, n=m, dim=0, norm="forward").T
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy,) = grads
        x, W, c, up, across, turned = ctx.saved_tensors
        m, n = W.shape
        dx = dy @ W
        wide = _wide(c)
        dc = torch.zeros_like(wide)
        one = _twice_inside(m, up).to(wide)
        back = _twice_inside(n, across).to(wide)
        for x_, dy_, dx_ in pieces(x, dy, dx):
            g = torch.fft.rfft(_wide(dy_).T, dim=0).index_select(0, up) * one[:, None]
            p = _picked(x_, across, turned)
            dc += (g.real * p.real + g.imag * p.imag).sum(1)
            q = g * (wide / back)[:, None]
            H = q.new_zeros(n // 2 + 1, len(x_)).index_add_(0, across, torch.where(turned[:, None], q, q.conj()))
            dx_ += torch.fft.irfft(H, n=n, dim=0, norm="forward").T
        return dx, None, None, dc.to(c.dtype), None, None, None


def _picked(x: Tensor, across: Tensor, turned: Tensor) -> Tensor:
    """Σ_j ω^{v j} x_j for each frequency v, conjugated where ``turned``; ω = e^{2πi/n}."""
    spectrum = torch.fft.rfft(_wide(x).T, dim=0).index_select(0, across)
    return torch.where(turned[:, None], spectrum, spectrum.conj())


def _wide(t: Tensor) -> Tensor:
    """There is no Fourier transform in half precision."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def _twice_inside(m: int, up: Tensor) -> Tensor:
    """irfft counts a frequency twice, but not the first nor, of an even length, the middle one."""
    return torch.where((up > 0) & (2 * up < m), 2.0, 1.0)
