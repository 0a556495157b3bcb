"""Values that backward makes again: the gradients are the same, less is kept, and misuse is an error."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import padp

PROGRAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "vera": ("vera", {"r": 24}), "randlora": ("randlora", {"r": 8}), "hra": ("hra", {"r": 6}),
    "scaled": ("""adapter Scaled(r = 3) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = kaiming
s ∈ ℝ^n: learned, init = 1
y ← (W + B @ tanh(A)) @ (s ⊙ tanh(x))
""", {}),
}


def layer_of(name: str, size: int = 256, dtype: torch.dtype = torch.double) -> Any:
    program, hyper = PROGRAMS[name]
    layer = padp.compile(program)(nn.Linear(size, size).to(dtype), dtype=dtype, **hyper)
    with torch.no_grad():
        for p in layer.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).to(p))
    assert layer.adapters["default"].compiled.lean is not None, "this program is meant to drop something"
    return layer


def plainly(layer: Any, x: Tensor) -> Tensor:
    module = layer.adapters["default"]
    stage = module.compiled.train
    return stage.graph(x, layer.base, True, *module.arguments(stage, layer.base))  # type: ignore[no-any-return]


def learned(layer: Any) -> list[Tensor]:
    return [p for p in layer.parameters() if p.requires_grad]


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_are_those_of_the_plain_plan(name: str) -> None:
    layer = layer_of(name)
    x = torch.randn(5, 7, 256, dtype=torch.double, requires_grad=True)
    weights = torch.randn(5, 7, 256, dtype=torch.double)
    y, plain = layer(x), plainly(layer, x)
    assert torch.equal(y, plain)
    lean = torch.autograd.grad((y * weights).sum(), [x, *learned(layer)])
    full = torch.autograd.grad((plain * weights).sum(), [x, *learned(layer)])
    for a, b in zip(lean, full, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_of_gradients(name: str) -> None:
    layer = layer_of(name)
    x = torch.randn(3, 256, dtype=torch.double, requires_grad=True)
    second = []
    for y in (layer(x), plainly(layer, x)):
        first = torch.autograd.grad(y.square().sum(), [x, *learned(layer)], create_graph=True)
        squares = torch.stack([g.square().sum() for g in first])
        second.append(torch.autograd.grad(squares.sum(), [x, *learned(layer)]))
    for a, b in zip(*second, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", PROGRAMS)
def test_backward_twice(name: str) -> None:
    layer = layer_of(name)
    x = torch.randn(3, 256, dtype=torch.double, requires_grad=True)
    y = layer(x).square().sum()
    once = torch.autograd.grad(y, [x, *learned(layer)], retain_graph=True)
    again = torch.autograd.grad(y, [x, *learned(layer)])
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def held_bytes(call: Any, layer: Any, x: Tensor) -> int:
    own = {t.untyped_storage().data_ptr() for t in (*layer.parameters(), *layer.buffers(), x)}
    found: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in own:
            found[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            alive.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        call(layer, x)
    return sum(found.values())


@pytest.mark.parametrize("name", PROGRAMS)
def test_less_is_kept(name: str) -> None:
    layer = layer_of(name)
    x = torch.randn(512, 256, dtype=torch.double, requires_grad=True)
    assert held_bytes(lambda layer, x: layer(x), layer, x) < 0.8 * held_bytes(plainly, layer, x)


def test_nothing_stays_when_the_graph_is_gone() -> None:
    layer = layer_of("randlora")
    x = torch.randn(3, 256, dtype=torch.double, requires_grad=True)
    gc.collect()
    gc.disable()
    try:
        y = layer(x)
        before = sum(1 for o in gc.get_objects() if type(o).__name__ == "Recall")
        assert before >= 1
        del y
        assert sum(1 for o in gc.get_objects() if type(o).__name__ == "Recall") == before - 1
    finally:
        gc.enable()


def test_a_parameter_changed_before_backward_is_an_error() -> None:
    layer = layer_of("vera")
    y = layer(torch.randn(3, 256, dtype=torch.double, requires_grad=True))
    with torch.no_grad():
        for p in learned(layer):
            p.mul_(2)
    with pytest.raises(RuntimeError, match=r"in.?place"):
        y.sum().backward()


def test_x_changed_before_backward_is_an_error() -> None:
    layer = layer_of("scaled")
    x = torch.randn(3, 256, dtype=torch.double, requires_grad=True) * 1
    y = layer(x)
    x.mul_(2)
    with pytest.raises(RuntimeError, match=r"in.?place"):
        y.sum().backward()


@pytest.mark.parametrize("name", PROGRAMS)
def test_inside_a_checkpoint(name: str) -> None:
    layer = layer_of(name)
    x = torch.randn(3, 256, dtype=torch.double, requires_grad=True)
    plain = torch.autograd.grad(layer(x).square().sum(), [x, *learned(layer)])
    inside = torch.autograd.grad(checkpoint(layer, x, use_reentrant=False).square().sum(), [x, *learned(layer)])
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))


def test_under_autocast() -> None:
    layer = layer_of("vera", dtype=torch.float32)
    x = torch.randn(64, 256, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lean, plain = layer(x), plainly(layer, x)
    assert torch.equal(lean, plain)
    for a, b in zip(torch.autograd.grad(lean.float().sum(), [x, *learned(layer)]),
                    torch.autograd.grad(plain.float().sum(), [x, *learned(layer)]), strict=True):
        assert torch.equal(a, b)


def test_func_grad_takes_the_plain_plan() -> None:
    layer = layer_of("randlora")
    x = torch.randn(3, 256, dtype=torch.double)
    functional = torch.func.grad(lambda x: layer(x).square().sum())(x)
    x.requires_grad_(True)
    assert torch.equal(functional, torch.autograd.grad(layer(x).square().sum(), x)[0])
