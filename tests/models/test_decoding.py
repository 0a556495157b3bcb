"""One token at a time: another plan, the same result."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

import padp
from padp.compiler.module.module import AdapterModule
from padp.compiler.plan.steps import Low, order

LINEAR = ("adalora", "antipasto", "boft", "delora", "dora", "fourierft", "goft", "hra", "ia3", "lora", "oft", "pissa",
          "psoft", "randlora", "road", "ssvd", "svft", "vera")


def model_with(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 64)).double()
    hyper: dict[str, Any] = {"steps": 10} if name == "adalora" else {}
    padp.attach(model, padp.compile(name), dtype=torch.double, **hyper)
    with torch.no_grad():
        for p in padp.trainable(model):
            p.add_(0.05 * torch.randn_like(p))
    return model.eval()


@pytest.mark.parametrize("name", LINEAR)
def test_the_result_is_the_same(name: str) -> None:
    model = model_with(name)
    x = torch.randn(1, 1, 64, dtype=torch.double)
    with torch.no_grad():
        many = model(x)
        with padp.decoding(model):
            one, again = model(x), model(x)
        after = model(x)
    assert torch.allclose(one, many, rtol=1e-10, atol=1e-10)
    assert torch.equal(one, again)
    assert torch.equal(after, many)


def test_it_ends_with_the_context_also_after_an_error() -> None:
    model = model_with("lora")
    parts = [m for m in model.modules() if isinstance(m, AdapterModule)]
    with pytest.raises(ZeroDivisionError), padp.decoding(model):
        assert {part.tokens for part in parts} == {"one"}
        raise ZeroDivisionError
    assert {part.tokens for part in parts} == {"many"}


@pytest.mark.parametrize("name", ["dora", "boft", "randlora"])
def test_gradients_are_the_same_by_the_plan_for_one_token(name: str) -> None:
    model = model_with(name)
    x = torch.randn(3, 64, dtype=torch.double)
    plain = copy.deepcopy(model)
    plain(x).square().sum().backward()
    with padp.decoding(model):
        model(x).square().sum().backward()
    for a, b in zip(padp.trainable(model), padp.trainable(plain), strict=True):
        assert a.grad is not None and b.grad is not None
        assert torch.allclose(a.grad, b.grad, rtol=1e-9, atol=1e-9)


def test_another_parameter_another_result() -> None:
    model = model_with("boft")
    x = torch.randn(1, 64, dtype=torch.double)
    with torch.no_grad(), padp.decoding(model):
        before = model(x)
        for p in padp.trainable(model):
            p.mul_(1.5)
        assert not torch.allclose(model(x), before)


def test_plans_differ_where_it_pays() -> None:
    """RandLoRA multiplies its change of W out for 1024 tokens, at 2·512³ FLOPs; for one token it never does."""
    compiled = padp.compile("randlora")(nn.Linear(512, 512)).adapters["default"].compiled

    def built(outputs: Sequence[Low]) -> list[Low]:
        return [low for low in order(*outputs) if low.prim == "matmul" and low.dims == (512, 512)]

    assert len(built(compiled.many.outputs)) == 1
    assert built(compiled.one.outputs) == []


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = h + self.linear(h)
        return out


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block(), Block()])

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        for block in self.layers:
            h = block(h)
        return h


def test_hidden_sites_decode_too() -> None:
    """They have no base layer."""
    torch.manual_seed(0)
    model = Blocks().eval()
    padp.attach(model, padp.compile("reft"), variant="NoReFT", r=2, positions="all", layers="all")
    with torch.no_grad():
        for p in padp.trainable(model):
            p.add_(0.1 * torch.randn_like(p))
    x = torch.randn(1, 4, 16)
    y = model(x)
    y.square().sum().backward()
    slopes = [p.grad.clone() for p in padp.trainable(model) if p.grad is not None]
    model.zero_grad()
    with padp.decoding(model):
        again = model(x)
        again.square().sum().backward()
        with torch.no_grad():
            assert torch.allclose(model(x), y, atol=1e-6)
    assert torch.allclose(again, y, atol=1e-6)
    for p, slope in zip(padp.trainable(model), slopes, strict=True):
        assert p.grad is not None and torch.allclose(p.grad, slope, atol=1e-5)
