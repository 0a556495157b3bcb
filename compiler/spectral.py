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
    y = _written_out(c, _half(flat), p, q, m, n) if looked_into() else \
        cast(Tensor, _Spectral.apply(c, flat, p, q, m, n))  # type: ignore[no-untyped-call]
    return y.reshape(*v.shape[:-1], m).to(v.dtype)


class _Spectral(torch.autograd.Function):
    """y = D x row by row, D of m×n; differentiable as often as wanted."""

    @staticmethod
    def forward(ctx: Any, c: Tensor, x: Tensor, p: Tensor, q: Tensor, m: int, n: int) -> Tensor:
        ctx.save_for_backward(c, x, p, q)
        ctx.sizes = m, n
        y = x.new_empty(x.shape[0], m)
        entries = _Entries(c, p, q, m, n)
        for at in _pieces(x):
            y[at] = entries.applied(_half(x[at]))
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (dy,) = grads
        c, x, p, q = ctx.saved_tensors
        m, n = ctx.sizes
        needs_c, needs_x = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled() and len(x):  # somebody differentiates this too
            dc = _slopes(_half(dy), _half(x), p, q, m, n) if needs_c else None
            dx = _Spectral.apply(c, dy, q, p, n, m) if needs_x else None  # type: ignore[no-untyped-call]
            return dc, dx, None, None, None, None
        dc, dx = torch.zeros_like(c), torch.empty_like(x)
        turned = _Entries(c, q, p, n, m)
        for at in _pieces(x):
            spectrum = _half(dy[at])
            if needs_c:
                dc += _slopes(spectrum, _half(x[at]), p, q, m, n)
            if needs_x:
                dx[at] = turned.applied(spectrum)
        return dc if needs_c else None, dx if needs_x else None, None, None, None, None


class _Entries:
    """The coefficients between half spectra: from bin ``taken`` to bin ``put``, weights for real and imaginary part.

    c_k goes from q_k to p_k, and conjugated to −p_k: each with half its size, and only where that is in the first half.
    Bins in the second half are read as the conjugates of their mirrors.
    """

    def __init__(self, c: Tensor, p: Tensor, q: Tensor, m: int, n: int) -> None:
        self.m, self.n = m, n
        mirrored = q > n // 2
        taken, sign = torch.where(mirrored, n - q, q), torch.where(mirrored, 1.0, -1.0).to(c.dtype)
        put = torch.cat([p, (m - p) % m])
        inside = torch.nonzero(put <= m // 2)[:, 0]
        self.put, self.taken = put[inside], taken.repeat(2)[inside]
        half = 0.5 * c.repeat(2)[inside]
        imaginary = torch.cat([sign, -sign])[inside] * half
        self.weights = torch.stack([half, imaginary], -1)[:, None]  # (entries, 1, 2)

    def applied(self, half: Tensor) -> Tensor:
        """Rows of D x from the half spectra of x, frequencies first."""
        terms = torch.view_as_real(half.index_select(0, self.taken)) * self.weights
        spectrum = torch.zeros(self.m // 2 + 1, half.shape[1], 2, dtype=terms.dtype, device=half.device)
        spectrum.index_add_(0, self.put, terms)
        rows: Tensor = torch.fft.irfft(torch.view_as_complex(spectrum), n=self.m, dim=0).mT
        return rows / self.n


def _pieces(x: Tensor) -> Iterator[slice]:
    """Token ranges that fit a core's cache; all at once on other devices."""
    tokens, numbers = x.shape
    step = max(1, tokens) if x.device.type != "cpu" else max(1, NUMBERS_AT_A_TIME // max(1, numbers))
    return (slice(t, t + step) for t in range(0, tokens, step))


def _half(x: Tensor) -> Tensor:
    """The first half of each row's spectrum: (n/2 + 1, tokens)."""
    half: Tensor = torch.fft.rfft(x.mT.contiguous(), dim=0)
    return half


def _slopes(dy: Tensor, x: Tensor, p: Tensor, q: Tensor, m: int, n: int) -> Tensor:
    """∂c_k = Σ_t Re(DY_{p_k} X_{q_k}) / (mn); a conjugate on one side turns the imaginary parts' sign."""
    far_p, far_q = p > m // 2, q > n // 2
    a = torch.view_as_real(dy.index_select(0, torch.where(far_p, m - p, p)))
    b = torch.view_as_real(x.index_select(0, torch.where(far_q, n - q, q)))
    real, imaginary = (a * b).sum(1).unbind(-1)
    return (real - torch.where(far_p == far_q, imaginary, -imaginary)) / (m * n)


def _written_out(c: Tensor, half: Tensor, p: Tensor, q: Tensor, m: int, n: int) -> Tensor:
    """The same in operations whose sizes do not depend on where the entries lie, for torch.compile and its like."""
    mirrored = q > n // 2
    found = half.index_select(0, torch.where(mirrored, n - q, q))
    terms = torch.where(mirrored[:, None], found, found.conj()) * (0.5 * c)[:, None]
    spectrum = torch.zeros(m // 2 + 1, half.shape[1], dtype=half.dtype, device=half.device)
    for place, part in ((p, terms), ((m - p) % m, terms.conj())):  # what lies in the other half adds 0, to entry 0
        inside = place <= m // 2
        spectrum = spectrum.index_add(0, torch.where(inside, place, 0), part * inside[:, None])
    rows: Tensor = torch.fft.irfft(spectrum, n=m, dim=0).mT
    return rows / n
