"""Many small matrices, each on its own piece of every vector: (…, b, n) and (b, m, n) → (…, b, m).

A batched product wants the blocks outermost, tokens have them innermost. On a CPU a few tokens at a time are turned
round while they lie in the cache, forward and backward, so that no rearranged copy of all tokens is ever made or kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from padp.compiler.kernels.torch_state import looked_into

NUMBERS_AT_A_TIME = 1 << 17
"""Half a megabyte in float32: what a core's cache holds beside the matrices."""


def each_block(v: Tensor, m: Tensor) -> Tensor:
    """The i-th matrix times the i-th piece, for every vector."""
    flat = v.reshape(-1, *v.shape[-2:])
    if looked_into():
        return torch.bmm(flat.transpose(0, 1), m.mT).transpose(0, 1).reshape(*v.shape[:-1], m.shape[-2])
    made = cast(Tensor, _Each.apply(flat, m))  # type: ignore[no-untyped-call]
    return made.reshape(*v.shape[:-1], m.shape[-2])


class _Each(torch.autograd.Function):
    """y_tb = m_b v_tb; differentiable as often as wanted."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, m: Tensor) -> Tensor:
        needs_v, needs_m = ctx.needs_input_grad
        ctx.save_for_backward(v if needs_m else None, m if needs_v else None)
        return _by_token(v, m)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (dy,) = grads
        v, m = ctx.saved_tensors
        dv = None if m is None else cast(Tensor, _Each.apply(dy, m.mT))  # type: ignore[no-untyped-call]
        return dv, None if v is None else _over_tokens(dy, v)


def _pieces(tokens: int, numbers: int, device: torch.device) -> Iterator[slice]:
    """Token ranges that fit the cache; all at once on other devices."""
    step = tokens if device.type != "cpu" else max(1, NUMBERS_AT_A_TIME // max(1, numbers))
    return (slice(t, t + step) for t in range(0, tokens, max(1, step)))


def _by_token(v: Tensor, m: Tensor) -> Tensor:
    y = v.new_empty(*v.shape[:-1], m.shape[-2])
    for at in _pieces(len(v), v[0].numel() if len(v) else 1, v.device):
        y[at] = torch.bmm(v[at].transpose(0, 1), m.mT).transpose(0, 1)
    return y


def _over_tokens(dy: Tensor, v: Tensor) -> Tensor:
    """Σ_t dy_tb v_tbᵀ."""
    if torch.is_grad_enabled():  # somebody differentiates this too
        return torch.bmm(dy.permute(1, 2, 0), v.transpose(0, 1))
    half = v.dtype in (torch.float16, torch.bfloat16)  # sums of many pieces want more than half precision
    total = v.new_zeros(v.shape[1], dy.shape[-1], v.shape[-1], dtype=torch.float32 if half else v.dtype)
    for at in _pieces(len(v), v[0].numel() if len(v) else 1, v.device):
        left, right = dy[at].permute(1, 2, 0), v[at].transpose(0, 1)
        total = total + torch.bmm(left, right) if half else torch.baddbmm(total, left, right)
    return total.to(v.dtype)
