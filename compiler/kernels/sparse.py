"""A sparse matrix S = c at places (i, j), applied to vectors: gather, scale, add up.

    y_i = Σ_{k: i_k = i} c_k x_{j_k}       ∂x = Sᵀ ∂y       ∂c_k = Σ_t ∂y_{i_k} x_{j_k}

Nothing but x and c is kept for backward: what was gathered is gathered again.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from padp.compiler.kernels.torch_state import looked_into


def sparse_apply(c: Tensor, places: Tensor, v: Tensor, size: int, transposed: bool) -> Tensor:
    """S v for vectors along the last axis, ``size`` entries each; ``transposed``: Sᵀ v."""
    rows, cols = (places[:, 1], places[:, 0]) if transposed else (places[:, 0], places[:, 1])
    flat = v.reshape(-1, v.shape[-1])
    dtype = torch.promote_types(c.dtype, v.dtype)
    c, flat = c.to(dtype), flat.to(dtype)
    if looked_into():
        made = flat.new_zeros(flat.shape[0], size).index_add(1, rows, flat.index_select(1, cols) * c)
    else:
        made = cast(Tensor, _Sparse.apply(c, flat, rows, cols, size))  # type: ignore[no-untyped-call]
    return made.reshape(*v.shape[:-1], size)


class _Sparse(torch.autograd.Function):
    """y = S x row by row; differentiable as often as wanted."""

    @staticmethod
    def forward(ctx: Any, c: Tensor, x: Tensor, rows: Tensor, cols: Tensor, size: int) -> Tensor:
        needs_c, needs_x = ctx.needs_input_grad[:2]
        ctx.save_for_backward(c if needs_x else None, x if needs_c else None, rows, cols)
        ctx.columns = x.shape[1]
        return x.new_zeros(x.shape[0], size).index_add_(1, rows, x.index_select(1, cols).mul_(c))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (dy,) = grads
        c, x, rows, cols = ctx.saved_tensors
        dc = None if x is None else (dy.index_select(1, rows) * x.index_select(1, cols)).sum(0)
        dx = None if c is None else _Sparse.apply(c, dy, cols, rows, ctx.columns)  # type: ignore[no-untyped-call]
        return dc, dx, None, None, None
