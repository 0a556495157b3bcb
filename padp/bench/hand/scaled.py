"""Adapters that scale or rotate vectors entry by entry: the work is passes over tokens, done a cacheful at a time."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from padp.bench.hand.form import Hand, base_product, pieces


class IA3(Hand):
    """y = W (λ ⊙ x) + b; x alone is kept."""

    lambda_: Tensor

    def values(self) -> tuple[Tensor, ...]:
        return (self.lambda_,)

    def tokens(self, x: Tensor, *values: Tensor) -> Tensor:
        return cast(Tensor, _ScaledInput.apply(x, self.W, self.b, *values))


class _ScaledInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, s: Tensor) -> Tensor:
        ctx.save_for_backward(x, W, s)
        return base_product(x * s, W, b)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy,) = grads
        x, W, s = ctx.saved_tensors
        dx = dy @ W
        ds = torch.zeros_like(s)
        for dx_, x_ in pieces(dx, x):
            ds += (dx_ * x_).sum(0)
            dx_.mul_(s)
        return dx, None, None, ds


class RoAd(Hand):
    """The output turned in pairs (p, p + g/2) of each group of g: y_p = a z_p − b z_q, y_q = b z_p + a z_q."""

    theta: Tensor
    alpha: Tensor

    def values(self) -> tuple[Tensor, ...]:
        return self.alpha * torch.cos(self.theta), self.alpha * torch.sin(self.theta)

    def tokens(self, x: Tensor, *values: Tensor) -> Tensor:
        return cast(Tensor, _TurnedOutput.apply(x, self.W, self.b, *values, self.hyper["g"] // 2))


class _TurnedOutput(torch.autograd.Function):
    """z = W x + b is kept for the gradients of a and b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, cos: Tensor, sin: Tensor, half: int) -> Tensor:
        z = base_product(x, W, b)
        train = any(ctx.needs_input_grad)
        y = torch.empty_like(z) if train else z
        a, s = cos.view(-1, half), sin.view(-1, half)
        for z_, y_ in pieces(z, y):
            p, q = z_.view(len(z_), -1, 2, half).unbind(2)
            top, low = y_.view(len(z_), -1, 2, half).unbind(2)
            turned = torch.mul(p, a).addcmul_(q, s, value=-1)
            torch.mul(q, a, out=low).addcmul_(p, s)
            top.copy_(turned)
        if train:
            ctx.save_for_backward(z, W, cos, sin)
            ctx.half = half
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy,) = grads
        z, W, cos, sin = ctx.saved_tensors
        half = ctx.half
        a, s = cos.view(-1, half), sin.view(-1, half)
        dz = torch.empty_like(z)
        da, ds = torch.zeros_like(a), torch.zeros_like(s)
        for z_, dy_, dz_ in pieces(z, dy, dz):
            p, q = z_.view(len(z_), -1, 2, half).unbind(2)
            dtop, dlow = dy_.view(len(z_), -1, 2, half).unbind(2)
            dp, dq = dz_.view(len(z_), -1, 2, half).unbind(2)
            da += torch.mul(dtop, p).addcmul_(dlow, q).sum(0)
            ds += torch.mul(dlow, p).addcmul_(dtop, q, value=-1).sum(0)
            torch.mul(dtop, a, out=dp).addcmul_(dlow, s)
            torch.mul(dlow, a, out=dq).addcmul_(dtop, s, value=-1)
        return dz @ W, None, None, da.view(-1), ds.view(-1), None
