"""A matrix of few frequencies, D = Re(iFFT₂(S)) with S = c at places (p, q), applied to vectors without being built.

    y_a = 1/(mn) · Re Σ_k c_k e^{2πi p_k a/m} · conj(X_{q_k}),        X = FFT(x)

Re z = Re z̄, so a frequency above the middle, on either side, is the conjugate of its mirror below: half of each
spectrum is enough. One real transform of x, the bins q gathered, weighted, put at the bins p, one real transform back.

    spectral_bins(places, m, n) -> (3, k)      p and q below the middle, and whether exactly one of them was above
    spectral_weights(c, bins, …) -> (k, 2)     what real and imaginary parts are multiplied with
    spectral_apply(weights, bins, v, …)        D v

The first is the same for ever, the second for a step. On a CPU a few tokens at a time are transformed, tokens
innermost, so that frequencies are whole rows that lie in the cache; nothing but x and the weights is kept for backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from padp.compiler.kernels import waves
from padp.compiler.kernels.torch_state import looked_into

NUMBERS_AT_A_TIME = 1 << 17


def spectral_bins(places: Tensor, rows: int, cols: int) -> Tensor:
    """For each entry: the bin of its row and of its column in half spectra, and 1 where the two are on one side of
    their middles, else 0."""
    p, q = places.unbind(1)
    up, across = torch.minimum(p, rows - p), torch.minimum(q, cols - q)
    return torch.stack([up, across, ((up == p) == (across == q)).to(up.dtype)])


def spectral_weights(c: Tensor, bins: Tensor, rows: int, cols: int, transposed: bool) -> Tensor:
    """(…, k, 2) for the real and the imaginary part of each entry on its way from q to p (``transposed``: p to q)."""
    put, size, other = (bins[1], cols, rows) if transposed else (bins[0], rows, cols)
    wide = c.to(torch.promote_types(c.dtype, torch.float32))
    real = wide * (_share(put, size, wide.dtype) / other)
    return torch.stack([real, torch.where(bins[2] == 1, -real, real)], -1)


def spectral_apply(weights: Tensor, bins: Tensor, v: Tensor, rows: int, cols: int, transposed: bool) -> Tensor:
    """D v for vectors along the last axis; ``transposed``: Dᵀ v."""
    wide = torch.promote_types(torch.promote_types(weights.dtype, v.dtype), torch.float32)
    flat = v.reshape(-1, v.shape[-1]).to(wide)
    put, take, size = (bins[1], bins[0], cols) if transposed else (bins[0], bins[1], rows)
    weights = weights.to(wide)
    if looked_into():
        y = _row_by_row(flat, weights, take, put, size)
    elif torch.is_grad_enabled() and (weights.requires_grad or flat.requires_grad):
        y = cast(Tensor, _Spectral.apply(weights, flat, take, put, size))  # type: ignore[no-untyped-call]
    else:
        y = _by_pieces(weights, flat, take, put, size)
    return y.reshape(*v.shape[:-1], size).to(v.dtype)


class _Spectral(torch.autograd.Function):
    """y = D x row by row, D of m×n; differentiable as often as wanted."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, x: Tensor, take: Tensor, put: Tensor, m: int) -> Tensor:
        ctx.save_for_backward(weights, x, take, put)
        ctx.size = m
        return _by_pieces(weights, x, take, put, m)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (dy,) = grads
        weights, x, take, put = ctx.saved_tensors
        m, n = ctx.size, x.shape[1]
        for_weights, for_x = ctx.needs_input_grad[:2]
        twice = (1 / (_share(put, m, x.dtype) * m))[:, None]  # a bin inside counts twice in a real transform back
        turned = weights * twice * (_share(take, n, x.dtype) * n)[:, None]
        if torch.is_grad_enabled() and len(x):  # somebody differentiates this too
            dw = _slopes(_half(dy), _half(x), take, put) * twice if for_weights else None
            dx = _Spectral.apply(turned, dy, put, take, n) if for_x else None  # type: ignore[no-untyped-call]
            return dw, dx, None, None, None
        dw, dx = torch.zeros_like(weights), torch.empty_like(x, memory_format=torch.contiguous_format)
        for at in _pieces(x):
            spectrum = _half(dy[at])
            if for_weights:
                dw += _slopes(spectrum, _half(x[at]), take, put)
            if for_x:
                dx[at] = _moved(spectrum, turned, put, take, n)
        return dw * twice if for_weights else None, dx if for_x else None, None, None, None


def _by_pieces(weights: Tensor, x: Tensor, take: Tensor, put: Tensor, m: int) -> Tensor:
    """Rows of D x, a few at a time."""
    pieces = list(_pieces(x))
    if len(pieces) == 1:
        return _moved(_half(x), weights, take, put, m)
    y = x.new_empty(x.shape[0], m)
    for at in pieces:
        y[at] = _moved(_half(x[at]), weights, take, put, m)
    return y


def _moved(half: Tensor, weights: Tensor, take: Tensor, put: Tensor, m: int) -> Tensor:
    """Rows from half spectra, frequencies first: bins taken, weighted, put and transformed back."""
    terms = torch.view_as_real(half.index_select(0, take)) * weights[:, None]
    spectrum = torch.zeros(m // 2 + 1, half.shape[1], 2, dtype=terms.dtype, device=half.device)
    rows: Tensor = waves.irfft(torch.view_as_complex(spectrum.index_add_(0, put, terms)), n=m, dim=0).mT
    return rows


def _row_by_row(x: Tensor, weights: Tensor, take: Tensor, put: Tensor, m: int) -> Tensor:
    """The same with every row where it lies: a tracer that saw it turned round would ask how many rows there are."""
    terms = torch.view_as_real(waves.rfft(x).index_select(1, take)) * weights
    spectrum = terms.new_zeros(x.shape[0], m // 2 + 1, 2).index_add(1, put, terms)
    rows: Tensor = waves.irfft(torch.view_as_complex(spectrum), n=m)
    return rows


def _pieces(x: Tensor) -> Iterator[slice]:
    """Token ranges that fit a core's cache; all at once on other devices."""
    tokens, numbers = x.shape
    step = max(1, tokens) if x.device.type != "cpu" else max(1, NUMBERS_AT_A_TIME // max(1, numbers))
    return (slice(t, t + step) for t in range(0, tokens, step))


def _half(x: Tensor) -> Tensor:
    """The first half of each row's spectrum: (n/2 + 1, tokens)."""
    half: Tensor = waves.rfft(x.mT.contiguous(), dim=0)
    return half


def _slopes(dy: Tensor, x: Tensor, take: Tensor, put: Tensor) -> Tensor:
    """Σ_t of the bins put of dy times the bins taken of x, real and imaginary parts each on their own: (k, 2)."""
    return (torch.view_as_real(dy.index_select(0, put)) * torch.view_as_real(x.index_select(0, take))).sum(1)


def _share(bins: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """½, for a real transform back counts a bin twice; 1 for the first and, of an even size, the middle one."""
    return 1 - ((bins > 0) & (2 * bins < size)).to(dtype) / 2
