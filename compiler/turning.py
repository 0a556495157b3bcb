"""Every s-th entry of each vector turned by one matrix: v_S ← m v_S, the rest as it is.

One copy forward and one backward, where torch's own slices would make four. Differentiable as often as wanted.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from padp.compiler.transforms import autocast_dtype, looked_into


def turned_slice(v: Tensor, m: Tensor, start: int, step: int) -> Tensor:
    """v with every ``step``-th entry of the last axis, from ``start`` on, as many as m has rows, turned by m."""
    flat = v.reshape(-1, v.shape[-1])
    m = m.to(v.dtype)
    if looked_into() or autocast_dtype(v) is not None:
        at = _slots(start, step, m.shape[0])
        new = (flat[:, at] @ m.mT).to(v.dtype)
        turned = torch.slice_scatter(flat, new, 1, at.start, at.stop, at.step)
    else:
        turned = cast(Tensor, _TurnedSlice.apply(flat, m, start, step))  # type: ignore[no-untyped-call]
    return turned.reshape(v.shape)


def _slots(start: int, step: int, count: int) -> slice:
    return slice(start, start + step * (count - 1) + 1, step)


class _TurnedSlice(torch.autograd.Function):
    """∂v = ∂y with its slots turned by mᵀ; ∂m = Σ_t ∂y_S v_Sᵀ."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, m: Tensor, start: int, step: int) -> Tensor:
        needs_v, needs_m = ctx.needs_input_grad[:2]
        ctx.save_for_backward(v if needs_m else None, m if needs_v else None)
        ctx.place = start, step, m.shape[0]
        at = _slots(start, step, m.shape[0])
        y = v.clone(memory_format=torch.contiguous_format)
        y[:, at] = v[:, at] @ m.mT
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (dy,) = grads
        v, m = ctx.saved_tensors
        start, step, count = ctx.place
        dv = None if m is None else _TurnedSlice.apply(dy, m.mT, start, step)  # type: ignore[no-untyped-call]
        at = _slots(start, step, count)
        return dv, None if v is None else dy[:, at].mT @ v[:, at], None, None
