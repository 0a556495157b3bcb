"""Knobs, loss terms, updates and the summary."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import padp.models as pm
from padp.models.record import record_of
from padp.models.walk import sites
from tests.support.families import Batch, Refused, notebook, run
from tests.support.programs import BIAS, LORA, RANKED, REFT, VERA


def test_knobs(llama: Any, batch: Batch) -> None:
    before = run(llama, batch)
    pm.attach(llama, LORA, ["q_proj"])
    pm.attach(llama, BIAS, ["v_proj"], name="bias", active=False)
    adapted = run(llama, batch)
    pm.set(llama, α=0.0)
    assert torch.equal(run(llama, batch), before)
    pm.set(llama, name="default", alpha=4.0)
    assert torch.equal(run(llama, batch), adapted)
    with Refused("E510", "β", "there are: α"):
        pm.set(llama, α=1.0, β=2.0)
    with Refused("E510", "knob"):
        pm.set(llama, name="bias", α=1.0)
    assert torch.equal(run(llama, batch), adapted)  # nothing was set


def test_penalty(llama: Any) -> None:
    pm.attach(llama, BIAS, ["v_proj"], name="bias")
    assert float(pm.penalty(llama)) == 0.0
    pm.attach(llama, LORA, ["q_proj", "o_proj"])
    total = pm.penalty(llama)
    As = [site.module("default").tensors["A"] for site in sites(llama) if "default" in site.adapters]
    by_hand = sum(float((A.detach() ** 2).sum()) for A in As)
    assert float(total.detach()) == pytest.approx(by_hand)
    total.backward()
    assert all(A.grad is not None for A in As)
    pm.activate(llama, "bias")
    assert float(pm.penalty(llama)) == 0.0
    with pm.disabled(llama):
        assert float(pm.penalty(llama)) == 0.0


def test_update_ranks_over_all_sites_and_counts_steps(llama: Any, batch: Batch) -> None:
    pm.attach(llama, LORA, ["q_proj"], name="plain")
    pm.attach(llama, RANKED, ["q_proj", "v_proj"], name="ranked")
    modules = [site.module("ranked") for site in sites(llama) if "ranked" in site.adapters]
    with Refused("E210", "gradient"):
        pm.update(llama)
    averages: list[Tensor] = [torch.zeros(4) for _ in modules]
    for _ in range(3):
        llama.zero_grad()
        llama(**batch)[0].square().mean().backward()
        values = [m.tensors["Λ"].detach().clone() for m in modules]
        scores = [(value * grad).abs() for value, m in zip(values, modules, strict=True)
                  if (grad := m.tensors["Λ"].grad) is not None]
        averages = [0.5 * old + 0.5 * new for old, new in zip(averages, scores, strict=True)]
        pm.update(llama)
        best = torch.cat(averages).sort(descending=True, stable=True).indices[: 2 * len(modules)]
        kept = torch.zeros(4 * len(modules)).scatter(0, best, 1.0).split(4)
        for module, value, mask in zip(modules, values, kept, strict=True):
            assert torch.equal(module.tensors["Λ"], value * mask)
    assert {name: one.steps for name, one in record_of(llama).attached.items()} == {"plain": 3, "ranked": 3}
    assert any(bool((m.tensors["Λ"] != 0).sum() != 2) for m in modules)  # not so many each: a choice over all
    pm.activate(llama, "plain")
    pm.update(llama)
    assert {name: one.steps for name, one in record_of(llama).attached.items()} == {"plain": 4, "ranked": 3}


def test_trainable(llama: Any) -> None:
    pm.attach(llama, LORA, ["q_proj"], name="one")
    pm.attach(llama, VERA, ["v_proj"], name="two", modules_to_save=["lm_head"])
    assert {id(p) for p in pm.trainable(llama)} == {id(p) for p in llama.parameters() if p.requires_grad}
    assert len(list(pm.trainable(llama, "one"))) == 6 and len(list(pm.trainable(llama, "two"))) == 7


def test_summary(llama: Any) -> None:
    assert pm.summary(llama).sites == () and pm.summary(llama).learned == 0
    own = sum(p.numel() for p in llama.parameters())
    pm.attach(llama, LORA, ["q_proj", "down_proj"], r={"layers.0.self_attn.q_proj": 4, "*": 2},
              modules_to_save=["lm_head"])
    pm.attach(llama, VERA, ["v_proj"], name="vera")
    pm.attach(llama, REFT, name="reft", layers=[0], active=False)
    seen = pm.summary(llama)
    by_path = {(site.path, site.name): site for site in seen.sites}
    assert by_path["model.layers.0.self_attn.q_proj", "default"].count == 4 * 64
    assert by_path["model.layers.1.mlp.down_proj", "default"].count == 2 * (32 + 48)
    assert by_path["model.layers.0", "reft"].active is False
    assert seen.base == own and seen.saved == 64 * 32
    assert seen.shared == 4 * 32 + 16 * 4  # v_proj has 2 groups of 8
    assert seen.learned == sum(p.numel() for p in llama.parameters()) - own - seen.saved - seen.shared
    assert seen.share == (seen.learned + seen.saved) / own
    text = repr(seen)
    assert "model.layers.*.mlp.down_proj" in text and "3 × 160" in text and f"{seen.learned:,} learned" in text
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(seen)
    assert "r(m + n)" in console.export_text() and "<pre" in notebook(seen)
    pm.activate(llama, "default")
    pm.merge(llama)
    assert "merged" in repr(pm.summary(llama))
