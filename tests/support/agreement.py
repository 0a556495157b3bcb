"""Two readings of one program side by side: what is compiled, and the literal dense reading.

    agree(program, m, n, …) -> Agreed      outputs, gradients, eval path and merged weight are compared in float64
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import padp
from padp.compiler.module.module import AdapterModule
from padp.compiler.plan.steps import Low, order
from padp.dsl.diagnostics import PadpError

Leading = tuple[int, ...]


@dataclass(frozen=True)
class Agreed:
    """A layer whose two readings agree, with the input and output that they agree on."""

    layer: Any
    module: AdapterModule
    x: Tensor
    y: Tensor


def linear(m: int, n: int, *, bias: bool = True, dtype: torch.dtype = torch.double, seed: int = 0) -> nn.Linear:
    """A linear layer with random weights of its own seed."""
    made = nn.Linear(n, m, bias=bias).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.double) * (0.6 if p.dim() == 2 else 0.3))
    return made


def learned(module: nn.Module) -> list[nn.Parameter]:
    """What is trained."""
    return [p for p in module.parameters() if p.requires_grad]


def moved(module: nn.Module, seed: int = 1, by: float = 0.3) -> None:
    """Every learned tensor moved off its start, at random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in learned(module):
            p.add_(torch.randn(p.shape, generator=generator, dtype=torch.double).to(p.dtype), alpha=by)


def built(program: str, m: int, n: int, hyper: Mapping[str, Any] | None = None, *, bias: bool = True,
          dtype: torch.dtype = torch.double, seed: int = 0, by: float = 0.3, **more: Any) -> Any:
    """A layer of this program on a random linear layer, its tensors moved off their start."""
    layer = padp.compile(program)(linear(m, n, bias=bias, dtype=dtype, seed=seed), dtype=dtype, **(hyper or {}), **more)
    moved(layer, seed + 1, by)
    return layer


def close(a: Tensor, b: Tensor, tolerance: float, what: str) -> None:
    """Equal up to rounding, measured by the largest entry."""
    assert a.shape == b.shape, f"{what}: {tuple(a.shape)} and {tuple(b.shape)}"
    if not a.numel():
        return
    error, size = float((a - b).detach().abs().max()), 1.0 + float(b.detach().abs().max())
    assert error <= tolerance * size, f"{what}: off by {error:.2e} where values are up to {size:.2e}"


def agree(program: str, m: int, n: int, hyper: Mapping[str, Any] | None = None, *, bias: bool = True, seed: int = 0,
          lead: Leading = (2, 3), by: float = 0.3, tolerance: float = 1e-9, **more: Any) -> Agreed:
    """Compile a program at these sizes and compare it with its literal reading in every way there is."""
    layer = built(program, m, n, hyper, bias=bias, seed=seed, by=by, **more)
    module = layer.adapters["default"]
    x = torch.randn(*lead, n, generator=torch.Generator().manual_seed(seed + 7), dtype=torch.double)
    x.requires_grad_(True)
    y, literal = layer(x), module.reference(x, layer.base)
    close(y, literal, tolerance, "output")
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.double)
    agree_gradients((y * weights).sum(), (literal * weights).sum(), module, x, 30 * tolerance)
    module.expect("one")
    few = layer(x)
    close(few, literal, tolerance, "output by the plan for one token")
    agree_gradients((few * weights).sum(), (literal * weights).sum(), module, x, 30 * tolerance)
    module.expect("many")
    penalty = module.penalty(layer.base)
    if penalty is not None:
        wanted = module.literal(layer.base).minimise()
        close(penalty, wanted, tolerance, "penalty")
        agree_gradients(penalty, wanted, module, x, 30 * tolerance)
    if module.compiled.additive:
        close(module.delta(x, layer.base) + layer.base(x), y, tolerance, "what is added to the base")
    with torch.no_grad():
        layer.eval()
        close(layer(x), y, tolerance, "eval")
        close(layer(x), y, tolerance, "eval from the cache")
        agree_merged(layer, x, y, 10 * tolerance)
        layer.train()
    return Agreed(layer, module, x, y)


def agree_gradients(fast: Tensor, slow: Tensor, module: AdapterModule, x: Tensor, tolerance: float) -> None:
    """The gradients of two scalars by everything that is learned and by x; what does not depend has gradient 0."""
    wanted: Sequence[Tensor] = [*learned(module), x]
    names = [*(k for k, p in module.named_parameters() if p.requires_grad), "x"]

    def gradients(of: Tensor) -> Sequence[Tensor]:
        if not of.requires_grad:
            return [torch.zeros_like(t) for t in wanted]
        return torch.autograd.grad(of, wanted, allow_unused=True, materialize_grads=True, retain_graph=True)

    for name, a, b in zip(names, gradients(fast), gradients(slow), strict=True):
        close(a, b, tolerance, f"gradient of {name}")


def agree_merged(layer: Any, x: Tensor, y: Tensor, tolerance: float) -> None:
    """The merged weight gives the same outputs; a program that cannot be merged refuses."""
    module = layer.adapters["default"]
    if module.compiled.why_not_mergeable is not None:
        with pytest.raises(PadpError, match="E504"):
            module.merged(layer.base.weight, layer.base.bias)
        return
    W, b = module.merged(layer.base.weight, layer.base.bias)
    close(nn.functional.linear(x, W, b), y, tolerance, "merged weight")


def operations(module: AdapterModule) -> list[Low]:
    """The operations of a training step, arguments first."""
    return order(*module.compiled.outputs)


def prims(module: AdapterModule) -> list[str]:
    """Their names."""
    return [low.prim for low in operations(module)]


def base_calls(module: AdapterModule) -> int:
    """How often a training step calls the base layer."""
    return sum(p in ("base", "base_without_bias") for p in prims(module))


def built_matrices(module: AdapterModule, m: int, n: int) -> list[Low]:
    """What a step makes that is as large as W (in any layout), beside what depends on tokens."""
    def size(low: Low) -> int:
        total = 1
        for d in low.dims:
            total *= int(d)
        return total

    return [low for low in operations(module)
            if low.stage == 1 and "T" not in low.lead and low.prim not in ("param", "weight") and size(low) >= m * n]
