"""Adapters that turn the input: y = W Rᵀ x + b. R is made of small blocks once a step; x is not kept twice.

Tokens are rows here, so that Rᵀ x is the row x R.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from padp.bench.hand.form import Hand, base_product, pieces
from padp.bench.hand.low_rank import identity
from padp.compiler.kernels import dense as kernels

WIDTH = 32
"""Smaller blocks are joined to blocks of this size: a batch of 4×4 products is slower than one of 32×32."""


class _Blocks(torch.autograd.Function):
    """y = W (x turned block by block) + b; R is (b, k, k). Kept: x and R."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, R: Tensor) -> Tensor:
        ctx.save_for_backward(x, W, R)
        return base_product(_turned(x, R), W, b)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy,) = grads
        x, W, R = ctx.saved_tensors
        d = dy @ W
        dx = torch.empty_like(d)
        dR = torch.zeros_like(R)
        for x_, d_, dx_ in pieces(x, d, dx):
            by_block = _by_block(d_, R)
            dR.baddbmm_(_by_block(x_, R).mT, by_block)
            _by_token(dx_, R).copy_(torch.bmm(by_block, R.mT).transpose(0, 1))
        return dx, None, None, dR


def _by_block(x: Tensor, R: Tensor) -> Tensor:
    """(T, bk) → (b, T, k), a view."""
    return _by_token(x, R).transpose(0, 1)


def _by_token(x: Tensor, R: Tensor) -> Tensor:
    return x.view(len(x), R.shape[0], R.shape[-1])


def _turned(x: Tensor, R: Tensor) -> Tensor:
    """x_i R_i for each block i."""
    y = torch.empty_like(x)
    for x_, y_ in pieces(x, y):
        _by_token(y_, R).copy_(torch.bmm(_by_block(x_, R), R).transpose(0, 1))
    return y


class Rotation(Hand):
    """y = W Rᵀ x + b with R block-diagonal."""

    def tokens(self, x: Tensor, *values: Tensor) -> Tensor:
        (R,) = values
        return cast(Tensor, _Blocks.apply(x.contiguous(), self.W, self.b, R))


class OFT(Rotation):
    """PEFT's exact rotation, (I − Q)(I + Q)⁻¹."""

    Q: Tensor

    def values(self) -> tuple[Tensor, ...]:
        K = kernels.skew(self.Q)
        one = identity(K)
        return (torch.linalg.solve(one + K, one - K),)


def joined(R: Tensor, width: int) -> Tensor:
    """(b, k, k) → (bk/width, width, width), block-diagonal inside; unchanged where ``width`` does not fit."""
    b, k, _ = R.shape
    every = width // k
    return R if every < 2 or b % every else kernels.blkdiag(R.view(b // every, every, k, k))


class BOFT(Hand):
    """F butterfly factors of blocks of k act inside blocks of k·2^{F−1}: composed there once a step, applied once."""

    D: Tensor
    s: Tensor

    def values(self) -> tuple[Tensor, ...]:
        K = (self.D - self.D.mT) / 2
        one = identity(K)
        factors = torch.linalg.solve(one + K, one - K)  # (F, b, k, k)
        F, b, k, _ = factors.shape
        size = k << (F - 1)
        R = factors.new_empty(0)
        for j, factor in enumerate(factors):
            local = kernels.butterfly(size, k, j).to(factor.device)
            back = torch.argsort(local)
            whole = kernels.blkdiag(factor.view(b * k // size, size // k, k, k))[:, back][:, :, back]
            R = whole if j == 0 else whole @ R
        return joined(R, WIDTH), self.s

    def tokens(self, x: Tensor, *values: Tensor) -> Tensor:
        R, s = values
        return cast(Tensor, _ScaledBlocks.apply(x.contiguous(), self.W, self.b, R, s))


class _ScaledBlocks(torch.autograd.Function):
    """y = s ⊙ u + b, u = W Rᵀ x. Kept: x, R and u."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, R: Tensor, s: Tensor) -> Tensor:
        u = _turned(x, R) @ W.T
        if not any(ctx.needs_input_grad):
            return u.mul_(s) if b is None else u.mul_(s).add_(b)
        ctx.save_for_backward(x, W, R, s, u)
        return u * s if b is None else torch.addcmul(b, u, s)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy,) = grads
        x, W, R, s, u = ctx.saved_tensors
        du = torch.empty_like(dy)
        ds = torch.zeros_like(s)
        for dy_, u_, du_ in pieces(dy, u, du):
            ds += (dy_ * u_).sum(0)
            torch.mul(dy_, s, out=du_)
        d = du @ W
        dR = torch.zeros_like(R)
        for x_, d_ in pieces(x, d):
            by_block = _by_block(d_, R)
            dR.baddbmm_(_by_block(x_, R).mT, by_block)
            _by_token(d_, R).copy_(torch.bmm(by_block, R.mT).transpose(0, 1))
        return d, None, None, dR, ds


class GOFT(Hand):
    """The tree's first rounds stay inside blocks of 32; the others turn every 32nd coordinate: two small products."""

    theta: Tensor
    rounds: list[tuple[Tensor, Tensor, Tensor]]

    def prepare(self) -> None:
        n = self.W.shape[1]
        self.size = 1
        while self.size < WIDTH and n % (2 * self.size) == 0:
            self.size *= 2
        self.rounds = []
        first = 0
        step = 1
        while step < n:
            i = torch.arange(0, n - step, 2 * step)
            self.rounds.append((i, i + step, torch.arange(first, first + len(i))))
            first += len(i)
            step *= 2

    def values(self) -> tuple[Tensor, ...]:
        n, k = self.W.shape[1], self.size
        inner = identity(self.theta.new_empty(k, k)).expand(n // k, k, k)
        outer = identity(self.theta.new_empty(n // k, n // k))
        cos, sin = torch.cos(self.theta), torch.sin(self.theta)
        for number, (i, j, t) in enumerate(self.rounds):
            if 1 << number < k:
                inner = _givens(inner, i.view(n // k, -1) % k, j.view(n // k, -1) % k, cos[t].view(n // k, -1),
                                sin[t].view(n // k, -1))
            else:
                outer = _givens(outer[None], i[None] // k, j[None] // k, cos[t][None], sin[t][None])[0]
        return inner, outer

    def tokens(self, x: Tensor, *values: Tensor) -> Tensor:
        return cast(Tensor, _Tree.apply(x.contiguous(), self.W, self.b, *values))


def _givens(R: Tensor, i: Tensor, j: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Disjoint rotations of the rows of a batch of matrices: row i ← c row i − s row j, row j ← s row i + c row j."""
    i, j = i[0].to(R.device), j[0].to(R.device)  # the same places in every block
    top, low = R[:, i], R[:, j]
    c, s = cos[..., None], sin[..., None]
    return R.index_copy(1, i, c * top - s * low).index_copy(1, j, s * top + c * low)


class _Tree(torch.autograd.Function):
    """y = W v + b, v = the row x with its every k-th entry turned by ``outer``, then turned by the inner blocks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, inner: Tensor, outer: Tensor) -> Tensor:
        ctx.save_for_backward(x, W, inner, outer)
        v = torch.empty_like(x)
        for x_, v_ in pieces(x, v):
            by_block = _by_block(_heads_turned(x_, inner, outer), inner)
            _by_token(v_, inner).copy_(torch.bmm(by_block, inner).transpose(0, 1))
        return base_product(v, W, b)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy,) = grads
        x, W, inner, outer = ctx.saved_tensors
        k = inner.shape[-1]
        d = dy @ W
        d_inner, d_outer = torch.zeros_like(inner), torch.zeros_like(outer)
        for x_, d_ in pieces(x, d):
            by_block = _by_block(d_, inner)
            d_inner.baddbmm_(_by_block(_heads_turned(x_, inner, outer), inner).mT, by_block)
            _by_token(d_, inner).copy_(torch.bmm(by_block, inner.mT).transpose(0, 1))
            heads = d_[:, ::k].contiguous()
            d_outer.addmm_(x_[:, ::k].T, heads)
            d_[:, ::k] = heads @ outer.T
        return d, None, None, d_inner, d_outer


def _heads_turned(x: Tensor, inner: Tensor, outer: Tensor) -> Tensor:
    made = x.clone()
    k = inner.shape[-1]
    made[:, ::k] = x[:, ::k] @ outer
    return made


class HRA(Hand):
    """H_1 … H_r = I + Vᵀ C in compact WY form: Rᵀ x = x + Vᵀ (C x), C ∈ ℝ^{r×n} from one triangular solve."""

    v: Tensor

    def values(self) -> tuple[Tensor, ...]:
        v = self.v
        tau = 2.0 / v.square().sum(1)
        gram = v @ v.T
        one = identity(gram)
        # H_r acts first: c_i = −τ_i (v_iᵀ x + Σ_{l>i} v_iᵀ v_l c_l)
        upper = one + torch.triu(gram, 1) * tau[:, None]
        C = torch.linalg.solve_triangular(upper, -tau[:, None] * v, upper=True, unitriangular=True)
        return C, v

    def tokens(self, x: Tensor, *values: Tensor) -> Tensor:
        return cast(Tensor, _Reflected.apply(x, self.W, self.b, *values))


class _Reflected(torch.autograd.Function):
    """y = W (x + (x Cᵀ) V) + b. Kept: x and the thin x Cᵀ."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, C: Tensor, V: Tensor) -> Tensor:
        h = x @ C.T
        ctx.save_for_backward(x, W, C, V, h)
        return base_product(torch.addmm(x, h, V), W, b)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy,) = grads
        x, W, C, V, h = ctx.saved_tensors
        d = dy @ W
        dh = d @ V.T
        dV = h.T @ d
        d.addmm_(dh, C)
        return d, None, None, dh.T @ x, dV
