"""Ways in which people write into tensors that padp has computed something from, and what has to hold afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from padp.compiler.module.site import LinearSite
from tests.support.common import Case, close, only

LIBRARY = [
    Case("adalora", hyper={"r": 4, "steps": 10}), Case("antipasto", hyper={"k": 3}), Case("boft", hyper={"k": 2}),
    Case("delora", hyper={"r": 4}), Case("dora", hyper={"r": 4}), Case("fourierft", hyper={"k": 10}), Case("goft"),
    Case("hra", hyper={"r": 4}), Case("ia3"), Case("lora", hyper={"r": 4}), Case("oft", hyper={"k": 4}),
    Case("pissa", hyper={"r": 4}), Case("psoft", hyper={"r": 3}), Case("randlora", hyper={"r": 4, "α": 8}),
    Case("road", hyper={"g": 4}), Case("ssvd", hyper={"k": 3}), Case("svft"), Case("vera", hyper={"r": 5})]
"""All adapters of linear layers, at a size of their own."""

Write: TypeAlias = Callable[[nn.Module, str, Tensor], None]


def tensor(owner: nn.Module, key: str) -> Tensor:
    return cast(Tensor, getattr(owner, key))


def data_copied(owner: nn.Module, key: str, new: Tensor) -> None:
    """As averaged weights are commonly swapped in: memory, address and version stay as they are."""
    tensor(owner, key).data.copy_(new)


def data_scaled(owner: nn.Module, key: str, new: Tensor) -> None:
    tensor(owner, key).data.zero_().add_(new)


def data_replaced(owner: nn.Module, key: str, new: Tensor) -> None:
    tensor(owner, key).data = new.clone()


@torch.no_grad()
def copied(owner: nn.Module, key: str, new: Tensor) -> None:
    tensor(owner, key).copy_(new)


@torch.no_grad()
def put_elsewhere(owner: nn.Module, key: str, new: Tensor) -> None:
    tensor(owner, key).set_(cast(Any, new.clone()))


def swapped(owner: nn.Module, key: str, new: Tensor) -> None:
    old = tensor(owner, key)
    other: Tensor = nn.Parameter(new.clone(), old.requires_grad) if isinstance(old, nn.Parameter) else new.clone()
    torch.utils.swap_tensors(old, other)


def assigned(owner: nn.Module, key: str, new: Tensor) -> None:
    old = tensor(owner, key)
    setattr(owner, key, nn.Parameter(new.clone(), old.requires_grad) if isinstance(old, nn.Parameter) else new.clone())


def through_numpy(owner: nn.Module, key: str, new: Tensor) -> None:
    tensor(owner, key).detach().numpy()[...] = new.numpy()


def in_inference_mode(owner: nn.Module, key: str, new: Tensor) -> None:
    with torch.inference_mode():
        tensor(owner, key).copy_(new)


WRITES: dict[str, Write] = {
    "data.copy_": data_copied, "data in place": data_scaled, "data =": data_replaced, "copy_": copied,
    "set_": put_elsewhere, "swap_tensors": swapped, "assigned": assigned, "numpy": through_numpy,
    "inference_mode": in_inference_mode}


def agree(layer: LinearSite, x: Tensor, tolerance: float = 1e-9) -> None:
    """Every way to the output is the program read literally on the tensors of now; ``x`` is (tokens, n)."""
    module = only(layer)
    with torch.no_grad():
        wanted = layer.reference(x)
        close(layer.eval()(x), wanted, tolerance)
        if module.additive:
            close(layer.base(x) + module.delta(x, layer.base), wanted, tolerance)
        module.expect("one")
        close(layer(x[:1]), wanted[:1], tolerance)
        module.expect("many")
        close(layer.train()(x), wanted, tolerance)
        layer.eval()
        layer.merge()
        close(layer(x), wanted, tolerance)
        layer.unmerge()
        close(layer(x), wanted, tolerance)
    with torch.enable_grad():
        close(layer(x), wanted, tolerance)
