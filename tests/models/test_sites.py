"""One layer with adapters: what it computes, what others see of it, merging it and back."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

import padp
from padp import Adapter
from padp.compiler.module.module import AdapterModule
from padp.compiler.module.site import LinearSite
from tests.support.families import Refused
from tests.support.programs import BIAS, LORA, PISSA, ROTATION


def layer(base: Any, *adapters: Adapter, dtype: torch.dtype | None = None, dropout: float = 0.0) -> LinearSite:
    """The layer with these adapters, each under its own name, all active."""
    site = LinearSite(base, "here")
    for adapter in adapters:
        site.add(adapter.name, made(adapter, base, dtype, dropout))
    site.activate([adapter.name for adapter in adapters])
    return site


def made(adapter: Adapter, base: Any, dtype: torch.dtype | None = None, dropout: float = 0.0) -> AdapterModule:
    """One adapter for the layer."""
    alone = adapter(base, dtype=dtype, dropout=dropout, seed=1)
    assert isinstance(alone, LinearSite)
    return alone.module("default")


def same(a: Any, b: Any) -> bool:
    """Both None, or equal bit for bit."""
    return a is b if b is None else torch.equal(a, b)


def bases() -> list[Any]:
    torch.manual_seed(0)
    conv = Conv1D(12, 8)
    nn.init.normal_(conv.bias)
    return [nn.Linear(8, 12), nn.Linear(8, 12, bias=False), conv]


@pytest.mark.parametrize("base", bases(), ids=["linear", "no bias", "Conv1D"])
@pytest.mark.parametrize("adapters", [(LORA,), (ROTATION,), (LORA, PISSA), (BIAS,), (BIAS, LORA)],
                         ids=lambda adapters: "+".join(a.name for a in adapters))
def test_merged_equals_unmerged_and_comes_back_bitwise(base: Any, adapters: tuple[Adapter, ...]) -> None:
    base = copy.deepcopy(base).double()
    site = layer(base, *adapters, dtype=torch.float64)
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    weight: Any = base.weight.clone()
    bias = copy.deepcopy(base.bias)
    identity = id(base.weight)
    before = site(x)
    assert not torch.allclose(before, base(x))
    for keep_on_cpu in (False, True):
        site.merge(keep_on_cpu)
        assert site.merged == tuple(a.name for a in adapters)
        assert torch.equal(site.eval()(x), base(x))
        assert torch.allclose(site(x), before, atol=1e-12)
        site.unmerge()
        assert torch.equal(base.weight, weight) and id(base.weight) == identity
        assert same(base.bias, bias)
        assert torch.equal(site(x), before)


def test_several_additive_adapters_add_in_order() -> None:
    base = nn.Linear(8, 12)
    site = layer(base, LORA, PISSA)
    x = torch.randn(5, 8)
    assert torch.equal(site(x), base(x) + site.module("Lora").delta(x) + site.module("Pissa").delta(x))


def test_dropout_is_each_adapters_own() -> None:
    """Zeros come in before the adapter, never before the base; alone or beside another, in training only."""
    base = nn.Linear(8, 12)
    site = LinearSite(base, "here")
    site.add("dropped", made(LORA, base, dropout=0.5))
    site.add("whole", made(PISSA, base))
    x = torch.ones(2000, 8)
    own = site.module("dropped").delta(x, base).detach()
    for names, rest in ((["dropped"], base(x)), (["dropped", "whole"], base(x) + site.module("whole").delta(x, base))):
        site.activate(names)
        added = (site.train()(x) - rest).detach()
        assert len(added.unique(dim=0)) > 200  # of 2⁸ ways to drop
        assert torch.allclose(added.mean(0), own[0], atol=0.1 * float(own.abs().max()))  # scaled to the same mean
        assert torch.allclose(site.eval()(x), rest + own, atol=1e-5)


def test_adapters_that_do_more_than_add_are_alone() -> None:
    site = layer(nn.Linear(8, 12), LORA)
    site.add("Rotation", made(ROTATION, site.base))
    with Refused("E508", "here", "Lora and Rotation", "Rotation does not only add", model=site):
        site.activate(["Lora", "Rotation"])
    assert site.active == ("Lora",)
    site.activate(["Rotation"])
    assert [p.requires_grad for p in site.learned("Lora")] == [True, True]  # acting or not
    with Refused("E510", "nobody"):
        site.activate(["nobody"])


@pytest.mark.parametrize("base", bases(), ids=["linear", "no bias", "Conv1D"])
def test_what_looks_at_the_layer_goes_on_working(base: Any) -> None:
    site = layer(base, LORA)
    assert site.weight is base.weight and site.bias is base.bias
    assert (site.in_features, site.out_features) == (8, 12)
    if isinstance(base, Conv1D):
        assert site.nf == 12
    with pytest.raises(AttributeError, match="nothing"):
        _ = site.nothing
    fresh = nn.Parameter(torch.zeros_like(base.weight))
    cast(Any, site).weight = fresh  # as transformers ties weights
    assert base.weight is fresh and "weight" not in dict(site.named_parameters(recurse=False))


def test_the_site_takes_over_the_mode() -> None:
    base = nn.Linear(8, 12).eval()
    site = layer(base, LORA, dropout=0.5)
    assert not site.training and not site.module("Lora").training
    x = torch.randn(5, 8)
    assert torch.equal(site(x), site(x))
    assert not torch.equal(site.train()(x), site(x))


def test_deepcopy_is_independent() -> None:
    site = layer(nn.Linear(8, 12), LORA)
    x = torch.randn(5, 8)
    before = site(x)
    other = copy.deepcopy(site)
    assert torch.equal(other(x), before)
    with torch.no_grad():
        other.tensors["A"].zero_()
        other.weight.zero_()
    assert torch.equal(site(x), before) and not torch.equal(other(x), before)
    site.merge()
    third = copy.deepcopy(site)
    third.unmerge()
    assert torch.equal(third(x), before)


def test_no_training_while_merged() -> None:
    site = layer(nn.Linear(8, 12), LORA).train()
    x = torch.randn(5, 8)
    site.merge()
    with Refused("E511", "merged", "unmerge"):
        site(x)
    with torch.no_grad():
        site(x)
    site.eval()(x)
    with Refused("E504", "merged already"):
        site.merge()
    with Refused("E511", "merged"):
        site.activate([])
    with Refused("E511", "merged"):
        site.set_knob("α", 0.0)
    site.unmerge()
    site.unmerge()
    site.train()(x).sum().backward()
    assert site.tensors["B"].grad is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite_is_not_merged(value: float) -> None:
    site = layer(nn.Linear(8, 12), LORA)
    with torch.no_grad():
        site.tensors["B"].fill_(value)
    with Refused("E504", "not finite", model=site):
        site.merge()
    assert site.merged == ()


def test_half_overflow_is_not_merged() -> None:
    site = layer(nn.Linear(8, 12).half(), LORA)
    with torch.no_grad():
        site.tensors["B"].fill_(1e4)
        site.tensors["A"].fill_(1e3)  # finite in float32, in which it is computed, not in float16
    with Refused("E504", "not finite in torch.float16", model=site):
        site.merge()


def test_merges_in_float32_on_half_bases() -> None:
    base = nn.Linear(8, 12).bfloat16()
    site = layer(base, LORA)
    W, change = base.weight.float(), 2 * site.tensors["B"] @ site.tensors["A"]
    kept = base.weight.clone()
    site.merge()
    assert torch.equal(base.weight, (W + change).bfloat16())
    site.unmerge()
    assert torch.equal(base.weight, kept)
    assert site(torch.randn(2, 8).bfloat16()).dtype == torch.bfloat16


def test_modules_a_linear_site_cannot_take() -> None:
    with Refused("E502", "Embedding"):
        LinearSite(nn.Embedding(3, 4), "words")
    with Refused("E502", "never calls"):
        LinearSite(nn.MultiheadAttention(8, 2).out_proj)


def test_weights_that_are_computed_are_not_merged() -> None:
    base = nn.utils.parametrizations.weight_norm(nn.Linear(8, 12))
    site = layer(base, LORA)
    with Refused("E504", "parametrization"):
        site.merge()


def test_starts_follow_the_declarations_not_the_use() -> None:
    """B starts from A, and the program uses B first; parameters come in the order in which they are declared."""
    adapter: Adapter = padp.compile("""adapter Twice(r = 2) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = W_{:r}
B ∈ ℝ^{r×n}: frozen, init = 2 · A
C ∈ ℝ^{m×r}: learned, init = 0
y ← (W + C @ (B - A)) @ x
""")
    base = nn.Linear(8, 12)
    site = layer(base, adapter)
    assert torch.equal(site.tensors["A"], base.weight[:2]) and torch.equal(site.tensors["B"], 2 * base.weight[:2])
    assert list(site.tensors) == ["A", "B", "C"]
    assert [name.split(".")[-1] for name, p in site.named_parameters() if p.requires_grad] == ["A", "C"]


def test_autocast() -> None:
    site = layer(nn.Linear(8, 12), LORA, PISSA)
    with torch.autocast("cpu", torch.bfloat16):
        y = site(torch.randn(3, 8))
    assert y.dtype == torch.bfloat16  # the base's, which the sum keeps
    y.float().sum().backward()
    assert all(p.grad is not None for name in site.active for p in site.learned(name))
