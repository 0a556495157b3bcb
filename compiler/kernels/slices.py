"""Every s-th entry S of each vector changed, the rest as it is.

    turned_slice(v, m, …)            v_S ← m v_S
    open_slice(v, …) → rest, v_S     close_slice(rest, new, …) = v with v_S ← new, for anything in between

One copy forward and one backward, where torch's own slices would make four. Differentiable as often as wanted.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from padp.compiler.kernels.torch_state import autocast_dtype, looked_into


def turned_slice(v: Tensor, m: Tensor, start: int, step: int) -> Tensor:
    """v with every ``step``-th entry of the last axis, from ``start`` on, as many as m has rows, turned by m."""
    if m.is_complex() and not v.is_complex():
        v = v.to(torch.promote_types(v.dtype, m.dtype))
    flat = v.reshape(-1, v.shape[-1])
    m = m.to(v.dtype)
    if looked_into() or autocast_dtype(v) is not None:
        at = _slots(start, step, m.shape[0])
        new = (flat[:, at] @ m.mT).to(v.dtype)
        turned = torch.slice_scatter(flat, new, 1, at.start, at.stop, at.step)
    elif torch.is_grad_enabled():
        turned = cast(Tensor, _TurnedSlice.apply(flat, m, start, step))  # type: ignore[no-untyped-call]
    else:
        turned = _turned(flat, m, start, step)
    return turned.reshape(v.shape)


def open_slice(v: Tensor, start: int, step: int, count: int) -> tuple[Tensor, Tensor]:
    """v, for ``close_slice`` only, and its ``count`` entries from ``start`` on, ``step`` apart."""
    if torch.is_grad_enabled() and v.requires_grad and not looked_into():
        return cast("tuple[Tensor, Tensor]", _Open.apply(v, start, step, count))  # type: ignore[no-untyped-call]
    return v, v[..., _slots(start, step, count)]


def close_slice(rest: Tensor, new: Tensor, start: int, step: int) -> Tensor:
    """v with the opened entries set to ``new``."""
    if new.is_complex() and not rest.is_complex():
        rest = rest.to(torch.promote_types(rest.dtype, new.dtype))
    at = _slots(start, step, new.shape[-1])
    if looked_into():
        return torch.slice_scatter(rest, new.to(rest.dtype), -1, at.start, at.stop, at.step)
    if torch.is_grad_enabled() and (rest.requires_grad or new.requires_grad):
        return cast(Tensor, _Close.apply(rest, new, start, step))  # type: ignore[no-untyped-call]
    return _closed(rest, new, at)


def _closed(rest: Tensor, new: Tensor, at: slice) -> Tensor:
    y = rest.clone(memory_format=torch.contiguous_format)
    y[..., at] = new.to(rest.dtype)
    return y


class _Open(torch.autograd.Function):
    """∂v = ∂rest with its slots set to ∂v_S: what ∂rest holds there counts for nothing, nobody read rest there."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, start: int, step: int, count: int) -> tuple[Tensor, Tensor]:
        ctx.place = start, step, count
        return v.view_as(v), v[..., _slots(start, step, count)]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        rest, part = grads
        start, step, _ = ctx.place
        return _Close.apply(rest, part, start, step), None, None, None  # type: ignore[no-untyped-call]


class _Close(torch.autograd.Function):
    """∂rest = ∂y, whole, and ∂new = ∂y_S: the other way round, what was opened is closed."""

    @staticmethod
    def forward(ctx: Any, rest: Tensor, new: Tensor, start: int, step: int) -> Tensor:
        ctx.place, ctx.dtype = (start, step, new.shape[-1]), new.dtype
        return _closed(rest, new, _slots(*ctx.place))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        rest, part = _Open.apply(grads[0], *ctx.place)  # type: ignore[no-untyped-call]
        return rest, part.to(ctx.dtype), None, None


def _slots(start: int, step: int, count: int) -> slice:
    return slice(start, start + step * (count - 1) + 1, step)


def _turned(v: Tensor, m: Tensor, start: int, step: int) -> Tensor:
    at = _slots(start, step, m.shape[0])
    y = v.clone(memory_format=torch.contiguous_format)
    y[:, at] = v[:, at] @ m.mT
    return y


class _TurnedSlice(torch.autograd.Function):
    """∂v = ∂y with its slots turned by mᵀ; ∂m = Σ_t ∂y_S v_Sᵀ."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, m: Tensor, start: int, step: int) -> Tensor:
        needs_v, needs_m = ctx.needs_input_grad[:2]
        ctx.save_for_backward(v if needs_m else None, m if needs_v else None)
        ctx.place = start, step, m.shape[0]
        return _turned(v, m, start, step)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (dy,) = grads
        v, m = ctx.saved_tensors
        start, step, count = ctx.place
        dv = None if m is None else _TurnedSlice.apply(dy, m.mT, start, step)  # type: ignore[no-untyped-call]
        at = _slots(start, step, count)
        return dv, None if v is None else dy[:, at].mT @ v[:, at], None, None
