"""Kept values that are complex, where a module is moved or takes another precision.

    parts_of(fn)         fn for real tensors; a complex one goes through it as its real and imaginary parts

A change of precision in torch keeps the real part of a complex tensor and drops the other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def parts_of(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``fn`` on both parts of a complex tensor; of half precision there are no complex numbers to compute with."""
    def moved(tensor: Tensor) -> Tensor:
        if not tensor.is_complex():
            return fn(tensor)
        parts = fn(torch.view_as_real(tensor.resolve_conj()))
        if not parts.is_floating_point():
            return fn(tensor)
        return torch.view_as_complex(parts.to(torch.promote_types(parts.dtype, torch.float32)).contiguous())

    return moved
