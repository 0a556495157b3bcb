"""A matrix of few frequencies, D = Re(iFFT₂(S)) with S = c at places (p, q), applied to vectors without being built.

    y_a = 1/(mn) · Re Σ_k c_k e^{2πi p_k a/m} · conj(X_{q_k}),        X = FFT(x)

x and y are real, so half of each spectrum is enough: one real transform of x, the frequencies gathered, scaled and put
at p and −p, one real transform back. Backward is the same with S transposed; nothing but x and c is kept for it. On a
CPU a few tokens at a time are transformed, tokens innermost, so that frequencies are whole rows that lie in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from padp.compiler.transforms import looked_into

NUMBERS_AT_A_TIME = 1 << 17


def spectral_apply(c: Tensor, places: Tensor, v: Tensor, rows: int, cols: int, transposed: bool) -> Tensor:
    """D v for vectors along the last axis; ``transposed``: Dᵀ v."""
    wide = torch.promote_types(torch.promote_types(c.dtype, v.dtype), torch.float32)
    flat = v.reshape(-1, v.shape[-1]).to(wide)
    p, q = (places[:, 1], places[:, 0]) if transposed else (places[:, 0], places[:, 1])
    m, n = (cols, rows) if transposed else (rows, cols)
    c = c.to(wide)
    y = _applied(c, _half(flat), p, q, m, n) if looked_into() else \
        cast(Tensor, _Spectral.apply(c, flat, p, q, m, n))  # type: ignore[no-untyped-call]
    return y.reshape(*v.shape[:-1], m).to(v.dtype)


class _Spectral(torch.autograd.Function):
    """y = D x row by row, D of m×n; differentiable as often as wanted."""

    @staticmethod
    def forward(ctx: Any, c: Tensor, x: Tensor, p: Tensor, q: Tensor, m: int, n: int) -> Tensor:
        ctx.save_for_backward(c, x, p, q)
        ctx.sizes = m, n
        y = x.new_empty(x.shape[0], m)
        for at in _pieces(x):
            y[at] = _applied(c, _half(x[at]), p, q, m, n)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (dy,) = grads
        c, x, p, q = ctx.saved_tensors
        m, n = ctx.sizes
        needs_c, needs_x = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # somebody differentiates this too
            dc = _entries(_half(dy), _half(x), p, q, m, n) if needs_c else None
            dx = _Spectral.apply(c, dy, q, p, n, m) if needs_x else None  # type: ignore[no-untyped-call]
            return dc, dx, None, None, None, None
        dc, dx = torch.zeros_like(c), torch.empty_like(x)
        for at in _pieces(x):
            spectrum = _half(dy[at])
            if needs_c:
                dc += _entries(spectrum, _half(x[at]), p, q, m, n)
            if needs_x:
                dx[at] = _applied(c, spectrum, q, p, n, m)
        return dc if needs_c else None, dx if needs_x else None, None, None, None, None


def _pieces(x: Tensor) -> Iterator[slice]:
    """Token ranges that fit a core's cache; all at once on other devices."""
    tokens, numbers = x.shape
    step = max(1, tokens) if x.device.type != "cpu" else max(1, NUMBERS_AT_A_TIME // max(1, numbers))
    return (slice(t, t + step) for t in range(0, tokens, step))


def _half(x: Tensor) -> Tensor:
    """The first half of each row's spectrum: (n/2 + 1, tokens)."""
    return cast(Tensor, torch.fft.rfft(x.mT.contiguous(), dim=0))


def _at(half: Tensor, index: Tensor, n: int) -> Tensor:
    """Entries of a real vector's spectrum at any frequency, from its first half."""
    mirrored = index > n // 2
    found = half.index_select(0, torch.where(mirrored, n - index, index))
    return torch.where(mirrored[:, None], found.conj(), found)


def _entries(dy: Tensor, x: Tensor, p: Tensor, q: Tensor, m: int, n: int) -> Tensor:
    """∂c_k = Σ_t Re(DY_{p_k} X_{q_k}) / (mn)."""
    return torch.real(_at(dy, p, m) * _at(x, q, n)).sum(1) / (m * n)


def _applied(c: Tensor, half: Tensor, p: Tensor, q: Tensor, m: int, n: int) -> Tensor:
    """Both p and −p get half of each coefficient: the part of the spectrum that makes a real y."""
    terms = _at(half, q, n).conj() * (0.5 * c)[:, None]
    spectrum = torch.zeros(m // 2 + 1, half.shape[1], dtype=half.dtype, device=half.device)
    for place, part in ((p, terms), ((m - p) % m, terms.conj())):  # what lies in the other half adds 0, to entry 0
        inside = place <= m // 2
        spectrum = spectrum.index_add(0, torch.where(inside, place, 0), part * inside[:, None])
    return cast(Tensor, torch.fft.irfft(spectrum, n=m, dim=0)).mT / n
