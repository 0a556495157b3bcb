"""Fourier transforms that also take nothing: of no tokens there is no transform, and libraries refuse to plan one.

    fft, ifft, fft2, ifft2, rfft, irfft         as in torch.fft; a tensor without entries gives one of the right shape

Nothing is still a function of what it was made of, so that its gradients are zeros and not missing.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fft(v: Tensor) -> Tensor:
    """Complex; no factor."""
    made: Tensor = torch.fft.fft(v) if v.numel() else _complex(v)
    return made


def ifft(v: Tensor) -> Tensor:
    """Complex; no factor either."""
    made: Tensor = torch.fft.ifft(v, norm="forward") if v.numel() else _complex(v)
    return made


def fft2(M: Tensor) -> Tensor:
    """Complex; no factor."""
    made: Tensor = torch.fft.fft2(M) if M.numel() else _complex(M)
    return made


def ifft2(M: Tensor) -> Tensor:
    """Complex; no factor either."""
    made: Tensor = torch.fft.ifft2(M, norm="forward") if M.numel() else _complex(M)
    return made


def rfft(v: Tensor, dim: int = -1) -> Tensor:
    """The first half of the spectrum, ⌊n/2⌋ + 1 bins along ``dim``."""
    made: Tensor = torch.fft.rfft(v, dim=dim) if v.numel() else _complex(v.narrow(dim, 0, v.shape[dim] // 2 + 1))
    return made


def irfft(half: Tensor, n: int, dim: int = -1) -> Tensor:
    """The n real numbers of a half spectrum along ``dim``; factor 1/n."""
    if half.numel():
        made: Tensor = torch.fft.irfft(half, n=n, dim=dim)
        return made
    shape = list(half.shape)
    shape[dim] = n
    return half.real.sum(dim, keepdim=True).expand(shape)


def _complex(nothing: Tensor) -> Tensor:
    return nothing if nothing.is_complex() else torch.complex(nothing, torch.zeros_like(nothing))
