"""Adapters that add a thin product: y = W x + b + s · B M A x, all small work on A, M and B rather than on tokens.

One autograd function for all of them. Forward adds B h into the base's output and backward adds Aᵀ ∂h into the base's
∂x, so no pass over tokens is left but the products themselves; kept for backward are x (for ∂A) and the thin h only.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from padp.bench.hand.form import Hand, base_product, pieces
from padp.compiler.kernels import dense as kernels


class Thin(torch.autograd.Function):
    """y = x Wᵀ + b + s ((x Aᵀ) Mᵀ) Bᵀ; M may be None. W and b are frozen, s is a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, A: Tensor, M: Tensor | None, B: Tensor, s: float
                ) -> Tensor:
        y = base_product(x, W, b)
        h = x @ A.T
        g = h if M is None else h @ M.T
        y.addmm_(g, B.T, alpha=s)
        ctx.scale = s
        _, _, _, needs_A, needs_M, needs_B, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if needs_A else None, W, A, M, B, h if needs_M else None, g if needs_B else None)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy,) = grads
        x, W, A, M, B, h, g = ctx.saved_tensors
        dg = (dy @ B).mul_(ctx.scale)
        dh = dg if M is None else dg @ M
        dx = None
        if ctx.needs_input_grad[0]:
            dx = dy @ W
            dx.addmm_(dh, A)
        dA = None if x is None else dh.T @ x
        dM = None if h is None else dg.T @ h
        dB = None if g is None else (dy.T @ g).mul_(ctx.scale)
        return dx, None, None, dA, dM, dB, None


class LowRank(Hand):
    """y = W x + b + s B A x with A and B from ``values``."""

    scale = 1.0

    def tokens(self, x: Tensor, *values: Tensor) -> Tensor:
        A, B = values
        return cast(Tensor, Thin.apply(x, self.W, self.b, A, None, B, self.scale))


class LoRA(LowRank):
    """The scale goes into the product that adds to the base's output."""

    A: Tensor
    B: Tensor

    def prepare(self) -> None:
        self.scale = float(self.hyper["α"]) / float(self.hyper["r"])

    def values(self) -> tuple[Tensor, ...]:
        return self.A, self.B


class PiSSA(LowRank):
    """W stays: what was taken out of it joins as the second half of one product of twice the rank."""

    A: Tensor
    B: Tensor
    A_0: Tensor
    B_0: Tensor

    def prepare(self) -> None:
        self.scale = float(self.hyper["α"]) / float(self.hyper["r"])
        self.register_buffer("A_0", self.A.detach().clone())
        self.register_buffer("B_0", -self.B.detach())

    def values(self) -> tuple[Tensor, ...]:
        return torch.cat([self.A, self.A_0]), torch.cat([self.B, self.B_0], -1)


class AdaLoRA(LowRank):
    """Λ and the scale go into P."""

    P: Tensor
    Lambda: Tensor
    Q: Tensor

    def values(self) -> tuple[Tensor, ...]:
        return self.Q, self.P * (self.Lambda * (self.hyper["α"] / (self.hyper["r"] + 0.00001)))


class DeLoRA(LowRank):
    """Norms of A's rows, B's columns and W's columns go into A."""

    A: Tensor
    B: Tensor
    lambda_: Tensor
    norms: Tensor

    def prepare(self) -> None:
        self.register_buffer("norms", torch.linalg.vector_norm(self.W.to(self.A.dtype), dim=0))

    def values(self) -> tuple[Tensor, ...]:
        rows = torch.linalg.vector_norm(self.A, dim=1).clamp_min(1.0e-4)
        columns = torch.linalg.vector_norm(self.B, dim=0).clamp_min(1.0e-4)
        s = (self.lambda_ / self.hyper["r"]) / (rows * columns)
        return self.A * s[:, None] * self.norms, self.B


class VeRA(Hand):
    """A and B are frozen: both vectors go into B, one product gives both gradients, and A x alone is kept."""

    A: Tensor
    B: Tensor
    lambda_d: Tensor
    lambda_b: Tensor

    def values(self) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled():
            return self.lambda_b, self.lambda_d
        return (self.B * self.lambda_d * self.lambda_b[:, None],)

    def tokens(self, x: Tensor, *values: Tensor) -> Tensor:
        A, B = self.A.to(x.dtype), self.B.to(x.dtype)
        if len(values) == 1:
            return base_product(x, self.W, self.b).addmm_(x @ A.T, values[0].T)
        return cast(Tensor, _SharedBases.apply(x, self.W, self.b, A, B, *values))


class _SharedBases(torch.autograd.Function):
    """y = x Wᵀ + b + (x Aᵀ) Mᵀ, M = diag(u) B diag(v), made again for backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, A: Tensor, B: Tensor, u: Tensor, v: Tensor) -> Tensor:
        h = x @ A.T
        ctx.save_for_backward(W, A, B, u, v, h)
        return base_product(x, W, b).addmm_(h, (B * v * u[:, None]).T)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy,) = grads
        W, A, B, u, v, h = ctx.saved_tensors
        dx = dy @ W
        dx.addmm_(dy @ (B * v * u[:, None]), A)
        D = (dy.T @ h).mul_(B)
        return dx, None, None, None, None, D @ v, D.T @ u


class InSubspace(Hand):
    """y = W x + b + U M Vᵀ x with frozen U and Vᵀ of rank k: only M is trained, so x is not kept, Vᵀ x is."""

    U: Tensor
    S: Tensor
    V: Tensor

    def decompose(self, rank: int, like: Tensor) -> None:
        U, S, V = kernels.svd(self.W.to(torch.promote_types(like.dtype, torch.float32)), None)
        for name, kept in (("U", U[:, :rank]), ("S", S[:rank]), ("V", V[:rank])):
            self.register_buffer(name, kept.to(like.dtype).contiguous())

    def tokens(self, x: Tensor, *values: Tensor) -> Tensor:
        (M,) = values
        return cast(Tensor, Thin.apply(x, self.W, self.b, self.V.to(x.dtype), M, self.U.to(x.dtype), 1.0))


def identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


class SSVD(InSubspace):
    """M = diag(Σ + ΔΣ) (I − K)(I + K)⁻¹ − diag(Σ)."""

    theta: Tensor
    Delta_Sigma: Tensor

    def prepare(self) -> None:
        self.decompose(self.hyper["k"], self.theta)

    def values(self) -> tuple[Tensor, ...]:
        K = kernels.skew(self.theta)
        one = identity(K)
        G = torch.linalg.solve(one + K, one - K)  # the two factors commute
        return ((self.S + self.Delta_Sigma)[:, None] * G - torch.diag(self.S),)


class AntiPaSTO(InSubspace):
    """M = diag(Σ + α ΔΣ) cayley(α/2 · A) − diag(Σ), the angles of A clamped softly."""

    theta: Tensor
    Delta_Sigma: Tensor

    def prepare(self) -> None:
        self.decompose(self.hyper["k"], self.theta)

    def values(self) -> tuple[Tensor, ...]:
        alpha = float(self.hyper.get("α", 1.0))
        a = 2.0 * float(torch.tan(torch.tensor(self.hyper["θ_max"] / 2.0, dtype=torch.float64)))
        K = kernels.skew(torch.tanh(self.theta / a) * (a * alpha / 2.0))
        one = identity(K)
        R = torch.linalg.solve(one + K, one - K)
        return ((self.S + alpha * self.Delta_Sigma)[:, None] * R - torch.diag(self.S),)


class PSOFT(InSubspace):
    """M = diag(Σ) (diag(β) C diag(α) − I), C = (I + K)(I − K)⁻¹."""

    K: Tensor
    alpha: Tensor
    beta: Tensor

    def prepare(self) -> None:
        self.decompose(self.hyper["r"], self.K)

    def values(self) -> tuple[Tensor, ...]:
        K = kernels.skew(self.K)
        one = identity(K)
        C = torch.linalg.solve(one - K, one + K)
        return (self.S[:, None] * (self.beta[:, None] * C * self.alpha) - torch.diag(self.S),)


class DoRA(Hand):
    """y = c ⊙ (W + s B A) x + b, c = g/‖V‖ with ‖V‖² from ‖W‖², W Aᵀ and A Aᵀ, constant for gradients."""

    A: Tensor
    B: Tensor
    g: Tensor
    squares: Tensor

    def prepare(self) -> None:
        self.register_buffer("squares", self.W.to(self.A.dtype).square().sum(1))

    def values(self) -> tuple[Tensor, ...]:
        B = self.B * (self.hyper["α"] / self.hyper["r"])
        with torch.no_grad():
            cross = (self.W @ self.A.T.to(self.W.dtype)).to(B.dtype)
            norms = (self.squares + ((2 * cross + B @ (self.A @ self.A.T)) * B).sum(1)).sqrt()
        return self.A, B, self.g / norms

    def tokens(self, x: Tensor, *values: Tensor) -> Tensor:
        A, B, c = values
        return cast(Tensor, _Rescaled.apply(x, self.W, self.b, A, B, c))


class _Rescaled(torch.autograd.Function):
    """y = c ⊙ u + b, u = x Wᵀ + (x Aᵀ) Bᵀ. u is kept for ∂c: getting it back would cost a whole product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, A: Tensor, B: Tensor, c: Tensor) -> Tensor:
        u = x @ W.T
        h = x @ A.T
        u.addmm_(h, B.T)
        if not any(ctx.needs_input_grad):
            return u.mul_(c) if b is None else u.mul_(c).add_(b)
        ctx.save_for_backward(x, W, A, B, c, u, h)
        return u * c if b is None else torch.addcmul(b, u, c)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy,) = grads
        x, W, A, B, c, u, h = ctx.saved_tensors
        du = torch.empty_like(dy)
        dc = torch.zeros_like(c)
        for dy_, u_, du_ in pieces(dy, u, du):
            dc += (dy_ * u_).sum(0)
            torch.mul(dy_, c, out=du_)
        dh = du @ B
        dx = du @ W
        dx.addmm_(dh, A)
        return dx, None, None, dh.T @ x, du.T @ h, dc
