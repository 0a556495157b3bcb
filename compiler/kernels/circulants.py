"""A grid of circulant blocks applied to vectors by Fourier transforms: no block is ever spread out.

    y_i = Σ_j circulant(c_ij) v_j = irfft(Σ_j rfft(c_ij) ⊙ rfft(v_j))

One transform of the pieces of v, a small product over j at each frequency, one transform back. Nothing but c and v is
kept for backward: their spectra are made again.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from padp.compiler.kernels import waves
from padp.compiler.kernels.torch_state import looked_into


def circulant_grid(c: Tensor, v: Tensor) -> Tensor:
    """(a, b, k) and (…, b·k) → (…, a·k)."""
    dtype = torch.promote_types(c.dtype, v.dtype)
    wide = torch.promote_types(dtype, torch.float32)
    flat = v.reshape(-1, *c.shape[1:]).to(wide)
    y = _applied(c.to(wide), flat, False) if looked_into() else \
        cast(Tensor, _Grid.apply(c.to(wide), flat, False))  # type: ignore[no-untyped-call]
    return y.reshape(*v.shape[:-1], c.shape[0] * c.shape[2]).to(v.dtype)


class _Grid(torch.autograd.Function):
    """The pieces of y from those of v; ``turned``: by the transposed grid. Differentiable as often as wanted."""

    @staticmethod
    def forward(ctx: Any, c: Tensor, v: Tensor, turned: bool) -> Tensor:
        ctx.save_for_backward(c, v)
        ctx.turned = turned
        if not len(v):  # a transform of nothing is an error on some CPUs
            return v.new_empty(0, c.shape[1] if turned else c.shape[0], c.shape[2])
        return _applied(c, v, turned)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (dy,) = grads
        c, v = ctx.saved_tensors
        needs_c, needs_v = ctx.needs_input_grad[:2]
        dv = _Grid.apply(c, dy, not ctx.turned) if needs_v else None  # type: ignore[no-untyped-call]
        if not needs_c:
            return None, dv, None
        if not len(dy):
            return torch.zeros_like(c), dv, None
        out, into = (v, dy) if ctx.turned else (dy, v)
        a, b = waves.rfft(out), waves.rfft(into).conj()
        product = (a * b).sum(0, keepdim=True) if c.shape[:2] == (1, 1) else torch.einsum("tif,tjf->ijf", a, b)
        return waves.irfft(product, n=c.shape[-1]), dv, None


def _applied(c: Tensor, v: Tensor, turned: bool) -> Tensor:
    spectrum = waves.rfft(c)
    if turned:
        spectrum = spectrum.conj().transpose(0, 1)
    spectra = waves.rfft(v)
    product = spectra * spectrum if c.shape[:2] == (1, 1) else torch.einsum("tjf,ijf->tif", spectra, spectrum)
    y: Tensor = waves.irfft(product, n=c.shape[-1])
    return y
