"""Merging a whole model: all or nothing, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import padp.models as pm
from padp.models.walk import sites
from tests.support.families import Batch, Refused, make_llama, run
from tests.support.programs import BIAS, HEADS, LORA, PISSA, REFT


def weights(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(model: Any, before: dict[str, Tensor]) -> bool:
    now = weights(model)
    return now.keys() == before.keys() and all(torch.equal(now[key], before[key]) for key in before)


def test_keep_on_cpu_and_twice(llama: Any, batch: Batch) -> None:
    pm.attach(llama, LORA)
    pm.attach(llama, BIAS, ["q_proj"], name="bias")
    before, adapted = weights(llama), run(llama, batch)
    for keep_on_cpu in (False, True):
        assert pm.merge(llama, keep_on_cpu=keep_on_cpu) is llama
        assert not same(llama, before)
        assert torch.allclose(run(llama, batch), adapted, atol=1e-5)
        with Refused("E504", "merged already", model=llama):
            pm.merge(llama)
        assert pm.unmerge(llama) is llama
        assert same(llama, before) and torch.equal(run(llama, batch), adapted)
    with Refused("E504", "nothing is merged"):
        pm.unmerge(llama)


def test_all_or_nothing(llama: Any) -> None:
    pm.attach(llama, LORA)
    with torch.no_grad():
        sites(llama)[-1].module("default").tensors["A"][0, 0] = torch.nan
    with Refused("E504", "layers.2.mlp.down_proj", "not finite", model=llama):
        pm.merge(llama)
    assert not any(site.merged for site in sites(llama))


def test_tied_weights_are_refused_by_name() -> None:
    llama = make_llama(tie_word_embeddings=True)
    pm.attach(llama, LORA, ["lm_head", "q_proj"])
    with Refused("E509", "lm_head", "embed_tokens", model=llama):
        pm.merge(llama)
    pm.detach(llama)
    pm.attach(llama, LORA, ["q_proj"])
    pm.merge(llama)
    pm.detach(llama)
    llama.model.layers[0].mlp.up_proj.weight = nn.Parameter(llama.model.layers[0].mlp.gate_proj.weight.data)
    pm.attach(llama, LORA, ["up_proj"])
    with Refused("E509", "up_proj", "gate_proj", model=llama):  # other parameters, one memory
        pm.merge(llama)


def test_what_is_refused_while_merged(llama: Any, batch: Batch) -> None:
    pm.attach(llama, LORA, ["q_proj"])
    pm.attach(llama, LORA, ["q_proj"], name="two", active=False)
    pm.merge(llama)
    calls: dict[str, Callable[[], Any]] = {
        "attach": lambda: pm.attach(llama, LORA, ["k_proj"], name="three"),
        "activate": lambda: pm.activate(llama, "two"),
        "update": lambda: pm.update(llama),
        "set": lambda: pm.set(llama, α=1.0),
        "detach": lambda: pm.detach(llama, "two"),
    }
    for call in calls.values():
        with Refused("E511", "merged", "unmerge", model=llama):
            call()
    llama.train()
    with Refused("E511", "merged"):
        llama(**batch)
    pm.unmerge(llama)
    llama(**batch).logits.sum().backward()


def test_hidden_states_do_not_merge(llama: Any) -> None:
    pm.attach(llama, LORA)
    pm.attach(llama, REFT, name="reft")
    with Refused("E504", "model.layers.0", "tokens", model=llama):
        pm.merge(llama)
    pm.activate(llama, "default")
    pm.merge(llama)
    pm.unmerge(llama)
    pm.activate(llama, [])
    with Refused("E504", "no adapter is active"):
        pm.merge(llama)


def test_detach_unmerges_or_keeps(llama: Any, batch: Batch) -> None:
    base, before = weights(llama), run(llama, batch)
    pm.attach(llama, LORA)
    pm.attach(llama, PISSA, name="two", active=False)
    adapted = run(llama, batch)
    with Refused("E511", "nothing is merged", model=llama):
        pm.detach(llama, keep_merged=True)
    pm.merge(llama)
    pm.detach(llama)
    assert same(llama, base) and torch.equal(run(llama, batch), before)
    pm.attach(llama, LORA)
    pm.merge(llama)
    pm.detach(llama, keep_merged=True)
    assert not sites(llama) and weights(llama).keys() == base.keys()
    assert torch.allclose(run(llama, batch), adapted, atol=1e-5)


def test_meta_weights_are_not_merged() -> None:
    model = nn.Sequential(nn.Linear(4, 4, device="meta"))
    pm.attach(model, LORA)
    with Refused("E504", "meta", model=model):
        pm.merge(model)


def test_attention_merges_too(llama: Any, opt: Any, batch: Batch) -> None:
    for model in (llama, opt):
        base = weights(model)
        pm.attach(model, HEADS, variant="head")
        adapted = run(model, batch)
        pm.merge(model)
        assert torch.allclose(run(model, batch), adapted, atol=1e-5)
        pm.unmerge(model)
        assert torch.equal(run(model, batch), adapted)
        pm.merge(model)
        pm.detach(model)
        assert same(model, base)


PENALTY = """adapter P on linear(W ∈ ℝ^{m×n})
v ∈ ℝ^n: learned, init = 1
y ← W @ (v ⊙ x)
minimise ‖W @ v‖
"""


@pytest.mark.parametrize("adapter", ["lora", "dora", "pissa", "oft", "svft", "delora", PENALTY])
@pytest.mark.parametrize("keep_on_cpu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_while_merged_the_reference_and_penalties_read_the_weight_from_before(adapter: str, keep_on_cpu: bool,
                                                                              bias: bool) -> None:
    model = nn.Sequential(nn.Linear(16, 12, bias=bias)).double().eval()
    settings: dict[str, Any] = {"k": 2} if adapter == "oft" else {}
    pm.attach(model, adapter, **settings)
    layer: Any = model[0]
    with torch.no_grad():
        for p in layer.adapters["default"].parameters():
            p.add_(0.1 * torch.rand_like(p))
    x = torch.randn(3, 16, dtype=torch.double)
    y, reference, penalty = model(x), layer.reference(x), pm.penalty(model)
    pm.merge(model, keep_on_cpu=keep_on_cpu)
    assert torch.allclose(model(x), y)
    assert torch.allclose(layer.reference(x), reference)
    assert torch.allclose(pm.penalty(model), penalty)
    pm.unmerge(model)
    assert torch.allclose(layer.reference(x), reference)
