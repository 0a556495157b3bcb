"""What is measured of a layer: time of a training step, of evaluation, of decoding one token; bytes; merging.

Times of all candidates are taken in turn (a, b, c, a, b, c, …) and the median of each is reported, so that a machine
that is busy for a while is busy for all. Bytes are exact: what autograd keeps for backward beside parameters, the base's
weight and x itself.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Measured:
    """One candidate at one size. Times in seconds, ``saved`` in bytes beside x (``keeps_x``: x itself is kept too)."""

    method: str
    maker: str
    rows: int
    columns: int
    tokens: int
    step: float = 0.0
    evaluation: float = 0.0
    saved: int = 0
    keeps_x: bool = False
    attach: float = 0.0
    merge: float = 0.0
    merge_error: float = 0.0
    learned: int = 0
    ratios: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


def saved_for_backward(layer: nn.Module, x: Tensor) -> tuple[int, bool]:
    """(bytes kept for backward beside parameters, buffers and x; whether x is kept)."""
    own = {t.untyped_storage().data_ptr() for t in [*layer.parameters(), *layer.buffers()]}
    given = x.untyped_storage().data_ptr()
    found: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = layer(x)
    keeps = given in found
    total = sum(size for pointer, size in found.items() if pointer != given)
    del y, alive
    return total, keeps


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turn(candidates: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each candidate, taken in turn after one warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    gc.collect()
    for round_ in range(repeats + 1):
        for name, run in candidates.items():
            synchronise(device)
            start = time.perf_counter()
            run()
            synchronise(device)
            if round_:
                times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


def training_step(layer: nn.Module, x: Tensor, weights: Tensor) -> Callable[[], None]:
    """Forward and backward, the gradient of x included, as inside a network."""
    learned = [p for p in layer.parameters() if p.requires_grad]

    def run() -> None:
        y = layer(x)
        torch.autograd.grad((y * weights).sum() if y.dim() else y, [*learned, x], allow_unused=True)

    return run


def step_of(layer: nn.Module, x: Tensor, grad: Tensor) -> Callable[[], None]:
    """Forward and backward from a given gradient of the output."""

    def run() -> None:
        y = layer(x)
        y.backward(grad)

    return run


def evaluation_of(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward without gradients, in eval mode."""

    def run() -> None:
        with torch.no_grad():
            layer(x)

    return run


def scramble(layer: nn.Module, seed: int = 0) -> None:
    """Move every trained tensor off its start, so that no branch for zeros can help."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            if p.requires_grad:
                p.add_(0.01 * torch.randn(p.shape, generator=generator).to(p))


def sizes_of(text: str) -> Sequence[tuple[int, int]]:
    """``1024x1024,4096x1024`` → [(1024, 1024), (4096, 1024)]: rows × columns of W."""
    found: list[tuple[int, int]] = []
    for part in text.split(","):
        rows, _, columns = part.strip().partition("x")
        found.append((int(rows), int(columns or rows)))
    return found
