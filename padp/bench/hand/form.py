"""What every hand-written form is: a module around one nn.Linear with the same tensors as the compiled adapter.

    y = tokens(x, *values())        x ∈ ℝ^{T×n}, y ∈ ℝ^{T×m}

``values`` depends on parameters only; in eval without gradients it is computed once. Everybody gets the base layer's
weight itself, not a copy. The forms are what a careful engineer writes who knows the method, PyTorch and the machine:
they may do what a compiler that must keep hooks and quantised kernels working may not, as reading ``base.weight``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class Hand(nn.Module):
    """Parameters under the ASCII names of the program's tensors; a frozen tensor is a buffer."""

    def __init__(self, base: nn.Linear, tensors: Mapping[str, Tensor], hyper: Mapping[str, Any]) -> None:
        super().__init__()
        self.base, self.hyper = base, dict(hyper)
        self._values: tuple[Tensor, ...] | None = None
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter) and tensor.requires_grad:
                self.register_parameter(name, nn.Parameter(tensor.detach().clone()))
            else:
                self.register_buffer(name, tensor.detach().clone())
        with torch.no_grad():
            self.prepare()

    def prepare(self) -> None:
        """What is computed once, from W."""

    def values(self) -> tuple[Tensor, ...]:
        """What depends on parameters only."""
        raise NotImplementedError

    def tokens(self, x: Tensor, *values: Tensor) -> Tensor:
        """y for the rows of x."""
        raise NotImplementedError

    @property
    def W(self) -> Tensor:
        return self.base.weight

    @property
    def b(self) -> Tensor | None:
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if self.training or torch.is_grad_enabled():
            self._values = None
            values = self._cast(x)
        else:
            if self._values is None:
                self._values = self._cast(x)
            values = self._values
        y = self.tokens(rows, *values)
        return y.view(*x.shape[:-1], y.shape[-1])

    def _cast(self, x: Tensor) -> tuple[Tensor, ...]:
        """Parameters may be float32 around a half-precision base: tokens are worked on in x's own precision."""
        return tuple(v.to(x.dtype) if v.is_floating_point() else v for v in self.values())

    def train(self, mode: bool = True) -> Hand:
        self._values = None
        return super().train(mode)


@dataclass(frozen=True)
class Form:
    """A hand-written form and the program that it stands beside."""

    method: str
    adapter: str
    variant: str | None
    hyper: Mapping[str, Any]
    make: type[Hand]


CHUNK_BYTES = 512 * 1024
"""Elementwise work on tokens goes in pieces that stay in a CPU core's cache between operations."""


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The rows of several equally long tensors, a cacheful at a time; all at once on a GPU."""
    first = tensors[0]
    rows = first.shape[0]
    if first.device.type == "cpu":
        rows = max(1, CHUNK_BYTES // max(1, first[:1].numel() * first.element_size()))
    yield from zip(*(t.split(max(1, rows)) for t in tensors), strict=True)


def base_product(x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    """W x (+ b) for rows, as a new tensor that nobody else holds."""
    return x @ W.T if b is None else torch.addmm(b, x, W.T)
