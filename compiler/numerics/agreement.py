"""The compiled program against its literal reading, in float64, in every way in which it is computed.

    differences(made) -> [Difference]       outputs, gradients, the cached eval path, merged weight, delta, penalty

Both readings mean the same; a difference is a mistake of the compiler.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from padp.compiler.numerics.trials import Made

VALUES, GRADIENTS = 1e-8, 1e-7
"""Allowed, beside the largest entry: rounding in float64 stays far below, also through an inverse or an svd."""


@dataclass(frozen=True)
class Difference:
    """``what`` differs by ``error`` where entries are up to ``size``."""

    what: str
    error: float
    size: float

    def __str__(self) -> str:
        return f"{self.what} differs by {self.error:.3g} where entries are up to {self.size:.3g}"


def differences(made: Made) -> list[Difference]:
    """Where compiled and literal reading differ, at the tensors of now."""
    return [found for found in _compared(made) if found is not None]


def difference(what: str, ours: Tensor, theirs: Tensor, tolerance: float) -> Difference | None:
    """None where two tensors are equal to rounding, measured by the largest entry; not a number is equal to itself."""
    if ours.shape != theirs.shape:
        return Difference(f"the shape of {what}, {tuple(ours.shape)} and {tuple(theirs.shape)},", float("inf"), 0.0)
    ours, theirs = ours.detach(), theirs.detach()
    finite = torch.isfinite(theirs)
    if not bool((torch.isfinite(ours) == finite).all()):
        return Difference(what, float("inf"), 0.0)
    if not bool(finite.any()):
        return None
    size = float(theirs[finite].abs().max())
    error = float((ours - theirs)[finite].abs().max())
    return Difference(what, error, size) if error > tolerance * (1.0 + size) else None


def _compared(made: Made) -> Iterator[Difference | None]:
    x = made.x.clone().requires_grad_(True)
    y, literal = made.fast(x), made.literal(x)
    yield difference("the output", y, literal, VALUES)
    yield from _gradients(made, x, y, literal)
    with torch.no_grad():
        made.module.drop_cache()
        yield difference("the output in evaluation", made.fast(x), literal, VALUES)
        yield difference("the output from kept values", made.fast(x), literal, VALUES)
        yield from _merged(made, x, literal)
        if made.module.additive:
            yield difference("base(x) + delta(x)", made.untouched(x) + made.module.delta(x, made.base), literal, VALUES)
    penalty = made.module.penalty()
    if penalty is not None:
        exact = made.reference().minimise()
        yield difference("the sum of `minimise` terms", penalty, exact, VALUES)
        tensors = list(made.learned.items())
        yield from _derivatives("`minimise`", tensors, penalty, exact)


def _gradients(made: Made, x: Tensor, y: Tensor, literal: Tensor) -> Iterator[Difference | None]:
    """Of a random sum of the outputs."""
    if y.shape != literal.shape:
        return
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    tensors: list[tuple[str, Tensor]] = [*made.learned.items(), ("x", x)]
    yield from _derivatives("the output", tensors, (y * weights).sum(), (literal * weights).sum())


def _derivatives(of: str, tensors: Sequence[tuple[str, Tensor]], ours: Tensor, theirs: Tensor
                 ) -> Iterator[Difference | None]:
    leaves = [t for _, t in tensors]
    fast, slow = _gradient(ours, leaves), _gradient(theirs, leaves)
    for (name, _), a, b in zip(tensors, fast, slow, strict=True):
        yield difference(f"the gradient of {of} by {name}", a, b, GRADIENTS)


def _gradient(value: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
    if not value.requires_grad or not leaves:
        return [torch.zeros_like(t) for t in leaves]
    return torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)


def _merged(made: Made, x: Tensor, literal: Tensor) -> Iterator[Difference | None]:
    """W' x + b' against y."""
    if made.site != "linear" or made.module.compiled.why_not_mergeable is not None:
        return
    W, b = made.module.merged(made.weights["W"], made.bias)
    yield difference("the output of the merged weight", nn.functional.linear(x, W, b), literal, VALUES)
