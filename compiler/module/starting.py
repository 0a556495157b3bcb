"""What the tensors of an adapter start from: seeds, named starts, and what sites share.

    initial(start, shape, generator, …)      zeros, ones, kaiming, … drawn on the CPU: a seed means the same everywhere
    seed_of(parameter, hyper, site)          the seed of a tensor at a site, or one for all sites
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from padp.compiler.elaborate.state import Learned, Start
from padp.compiler.kernels import dense as kernels


def seed_of(p: Learned, hyper: Mapping[str, Any], site: int) -> int:
    """The seed as declared, which may name hyperparameters; else the site's, or one for all of a shared tensor."""
    from padp.compiler.sizes.solve import symbolic

    if p.declaration.seed is None:
        return 0 if p.declaration.shared else site
    return int(symbolic(p.declaration.seed, {k: v for k, v in hyper.items() if isinstance(v, (int, float))}))


def mixed(seed: int, name: str) -> int:
    """A seed for one tensor: the same in every process, another one for another name."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7], "big")


def shared_key(adapter: str, digest: str, variant: str | None, name: str, seed: int, start: Start) -> str:
    """What a shared tensor is made from; a site whose hyperparameters start it in another way has another tensor."""
    made = f"{digest} {start.kind} {start.numbers} {start.wrappers}"
    return f"{adapter}.{variant or ''}.{name}.{seed}.{hashlib.sha256(made.encode()).hexdigest()[:12]}"


def initial(start: Start, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype,
            device: torch.device) -> Tensor:
    """A fresh tensor of a named start; random numbers are drawn on the CPU, so a seed means the same everywhere."""
    if device.type == "meta":
        return torch.empty(shape, dtype=dtype, device=device)
    match start.kind:
        case "zeros":
            t = torch.zeros(shape, dtype=dtype)
        case "ones":
            t = torch.ones(shape, dtype=dtype)
        case "constant":
            t = torch.full(shape, float(start.numbers[0]), dtype=dtype)
        case str(kind):
            t = kernels.initialise(kind, tuple(map(float, start.numbers)), shape, generator, dtype)
        case None:
            raise AssertionError("an expression is not a named start")
    for wrapper in reversed(start.wrappers):
        t = kernels.equal_pairs(t) if wrapper == "pairs" else kernels.unit_std(t)
    return t.to(device)


def shaped(value: Tensor, p: Learned) -> Tensor:
    return value.expand(tuple(int(d) for d in p.stored)).clone()
