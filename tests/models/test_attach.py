"""Adapters on models: what attaching changes and what it leaves, several at once, taking them off."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

import padp
import padp.models as pm
from padp.compiler.module.site import LinearSite
from padp.models.walk import inside, sites
from tests.support.families import Batch, Refused, make_llama, run
from tests.support.programs import HEADS, LORA, PISSA, REFT, ROTATION, VERA


def test_attach_and_detach_leave_the_same_objects(llama: Any, batch: Batch) -> None:
    llama.model.norm.weight.requires_grad_(False)
    before = run(llama, batch)
    modules = [(name, id(m)) for name, m in llama.named_modules()]
    flags = [(name, id(p), p.requires_grad) for name, p in llama.named_parameters()]
    assert pm.attach(llama, LORA) is llama
    assert not torch.equal(run(llama, batch), before)
    trained = {name for name, p in llama.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 21 and all(name.endswith((".default.A", ".default.B")) for name in trained)
    assert pm.detach(llama) is llama
    assert modules == [(name, id(m)) for name, m in llama.named_modules()]
    assert flags == [(name, id(p), p.requires_grad) for name, p in llama.named_parameters()]
    assert torch.equal(run(llama, batch), before)
    assert not any(key.startswith("_padp") for key in llama.__dict__)


@pytest.mark.parametrize("family", ["minilm", "gpt2", "llama", "t5", "opt"])
@pytest.mark.parametrize("adapter", [LORA, ROTATION], ids=lambda a: a.name)
def test_families(family: str, adapter: Any, request: pytest.FixtureRequest, batch: Batch) -> None:
    model = request.getfixturevalue(family)
    if family == "t5":
        batch = {**batch, "decoder_input_ids": batch["input_ids"]}
    before = run(model, batch)
    pm.attach(model, adapter, s=0.0)
    assert torch.allclose(run(model, batch), before, atol=1e-5)
    pm.detach(model)
    pm.attach(model, adapter)
    adapted = run(model, batch)
    assert not torch.allclose(adapted, before, atol=1e-3)
    pm.merge(model)
    assert torch.allclose(run(model, batch), adapted, atol=1e-4)
    pm.unmerge(model)
    assert torch.equal(run(model, batch), adapted)
    pm.detach(model)
    assert torch.equal(run(model, batch), before)


def test_disabled(llama: Any, batch: Batch) -> None:
    before = run(llama, batch)
    pm.attach(llama, LORA)
    pm.attach(llama, REFT, name="reft")
    adapted = run(llama, batch)
    with pm.disabled(llama):
        assert torch.equal(run(llama, batch), before)
        with pm.disabled(llama):
            pass
        assert torch.equal(run(llama, batch), before)
    with pytest.raises(ZeroDivisionError), pm.disabled(llama):
        _ = 1 / 0
    assert torch.equal(run(llama, batch), adapted)
    pm.activate(llama, "default")
    pm.merge(llama)
    with Refused("E511", "merged"), pm.disabled(llama):
        pass


def test_several_names(llama: Any, batch: Batch) -> None:
    base = run(llama, batch)
    pm.attach(llama, LORA, ["q_proj", "v_proj"], name="one")
    one = run(llama, batch)
    pm.attach(llama, PISSA, ["v_proj", "o_proj"], name="two")  # both add: together
    both = run(llama, batch)
    assert not torch.equal(one, both)
    pm.activate(llama, "one")
    assert torch.equal(run(llama, batch), one)
    pm.activate(llama, ["two", "one"])
    assert torch.allclose(run(llama, batch), both, atol=1e-6)
    pm.activate(llama, [])
    assert torch.equal(run(llama, batch), base)
    assert not list(pm.trainable(llama))
    pm.activate(llama, ["one", "two"])
    with Refused("E508", "q_proj", "rot", model=llama):
        pm.attach(llama, ROTATION, ["q_proj", "k_proj"], name="rot")
    pm.attach(llama, ROTATION, ["q_proj", "k_proj"], name="rot", active=False)
    assert torch.equal(run(llama, batch), both)
    with Refused("E508", "one", "rot", model=llama):
        pm.activate(llama, ["rot", "one"])
    pm.activate(llama, ["rot", "two"])  # at different sites, or adding
    acting = {id(p) for p in pm.trainable(llama)}
    assert {n.split(".")[-2] for n, p in llama.named_parameters() if id(p) in acting} == {"rot", "two"}
    with Refused("E510", "nobody", "one, two, rot"):
        pm.activate(llama, "nobody")
    with Refused("E511", "attached already", model=llama):
        pm.attach(llama, LORA, name="one")
    pm.detach(llama, "one")
    pm.detach(llama, "rot")
    assert {site.path.split(".")[-1] for site in sites(llama)} == {"v_proj", "o_proj"}
    pm.detach(llama)
    assert torch.equal(run(llama, batch), base) and not sites(llama)
    with Refused("E510", "no adapter is attached"):
        pm.detach(llama)


def test_state_dict_has_readable_keys_and_loads(llama: Any, batch: Batch) -> None:
    pm.attach(llama, LORA, ["q_proj"])
    pm.attach(llama, REFT, name="reft", layers=[1])
    keys = set(llama.state_dict())
    assert "model.layers.0.self_attn.q_proj.adapters.default.A" in keys
    assert "model.layers.0.self_attn.q_proj.weight" in keys  # the base's own
    assert "model.layers.1.padp_hidden.adapters.reft.R" in keys
    other = make_llama()
    pm.attach(other, LORA, ["q_proj"], seed=5)
    pm.attach(other, REFT, name="reft", layers=[1], seed=5)
    assert not torch.equal(run(other, batch), run(llama, batch))
    other.load_state_dict(llama.state_dict())
    assert torch.equal(run(other, batch), run(llama, batch))


def test_deepcopy_and_pickle(llama: Any, batch: Batch) -> None:
    pm.attach(llama, LORA, modules_to_save=["lm_head"])
    pm.attach(llama, REFT, name="reft")
    before = run(llama, batch)
    file = io.BytesIO()
    torch.save(llama, file)
    file.seek(0)
    for other in (copy.deepcopy(llama), torch.load(file, weights_only=False)):
        assert torch.equal(run(other, batch), before)
        theirs = {id(t) for t in (*other.parameters(), *other.buffers(), *other.modules())}
        assert not theirs & {id(t) for t in (*llama.parameters(), *llama.buffers(), *llama.modules())}
        with torch.no_grad():
            for p in other.parameters():
                p.zero_()
        assert torch.equal(run(llama, batch), before)
        pm.detach(other)
        assert not sites(other)
    assert torch.equal(run(llama, batch), before)


def test_seeds_differ_by_site_and_are_reproducible(llama: Any) -> None:
    pm.attach(llama, LORA, ["q_proj", "o_proj"], seed=3)
    first = [site.module("default").tensors["A"].clone() for site in sites(llama)]
    assert len({float(t.detach().sum()) for t in first}) == len(first)
    pm.detach(llama)
    torch.manual_seed(99)
    pm.attach(llama, LORA, ["q_proj", "o_proj"], seed=3)
    assert all(torch.equal(a, s.module("default").tensors["A"]) for a, s in zip(first, sites(llama), strict=True))


@pytest.mark.parametrize(("base", "asked", "given"), [
    (torch.bfloat16, None, torch.float32), (torch.float16, None, torch.float32), (torch.float64, None, torch.float64),
    (torch.bfloat16, torch.bfloat16, torch.bfloat16)])
def test_dtypes(base: torch.dtype, asked: torch.dtype | None, given: torch.dtype, llama: Any,
                batch: Batch) -> None:
    llama = llama.to(base)
    pm.attach(llama, LORA, dtype=asked)
    assert {p.dtype for p in llama.parameters() if p.requires_grad} == {given}
    assert run(llama, batch).dtype == base


def test_dropout_is_for_additive_forms(llama: Any, batch: Batch) -> None:
    with Refused("E511", "dropout", "Rotation", model=llama):
        pm.attach(llama, ROTATION, dropout=0.1)
    pm.attach(llama, LORA, dropout=0.5)
    assert torch.equal(run(llama, batch), run(llama, batch))
    llama.train()
    assert not torch.equal(run(llama, batch), run(llama, batch))


def test_modules_to_save(llama: Any, batch: Batch) -> None:
    head = llama.lm_head
    before = run(llama, batch)
    pm.attach(llama, LORA, ["q_proj"], s=0.0, modules_to_save=["lm_head", "model.norm"])
    assert torch.equal(run(llama, batch), before)
    assert llama.lm_head.weight is not head.weight and llama.lm_head.in_features == 32
    trained = {name for name, p in llama.named_parameters() if p.requires_grad}
    assert {"lm_head.copies.default.weight", "model.norm.copies.default.weight"} < trained
    with torch.no_grad():
        llama.lm_head.weight.zero_()
    assert float(run(llama, batch).abs().max()) == 0
    assert set(map(id, pm.trainable(llama))) == {id(p) for p in llama.parameters() if p.requires_grad}
    with pm.disabled(llama):
        assert torch.equal(run(llama, batch), before)
    with Refused("E508", "lm_head", model=llama):
        pm.attach(llama, LORA, ["k_proj"], name="two", modules_to_save=["lm_head"])
    pm.attach(llama, LORA, ["k_proj"], name="two", s=0.0, modules_to_save=["lm_head"], active=False)
    pm.activate(llama, "two")
    assert torch.equal(run(llama, batch), before)  # a copy of the original, not of the other's copy
    pm.detach(llama, "two")
    pm.detach(llama)
    assert llama.lm_head is head and torch.equal(run(llama, batch), before)


def test_modules_to_save_and_sites_do_not_overlap(llama: Any, gpt2: Any) -> None:
    with Refused("E511", "self_attn", "q_proj", model=llama):
        pm.attach(llama, LORA, ["q_proj"], modules_to_save=["layers.0.self_attn"])
    pm.attach(llama, LORA, ["q_proj"])
    with Refused("E511", "self_attn", "q_proj", model=llama):
        pm.attach(llama, LORA, ["gate_proj"], name="two", modules_to_save=["layers.0.self_attn"])
    with Refused("E509", "tied", "wte", model=gpt2):
        pm.attach(gpt2, LORA, modules_to_save=["lm_head"])


def test_shared_tensors_exist_once(llama: Any, batch: Batch) -> None:
    pm.attach(llama, VERA, ["q_proj", "down_proj"], r=4)
    modules = [site.module("default") for site in sites(llama)]
    assert len({id(m.A) for m in modules}) == 1 and tuple(modules[0].tensors["A"].shape) == (4, 48)  # n of down_proj
    assert not modules[0].tensors["A"].requires_grad
    pm.attach(llama, VERA, ["k_proj"], name="small", r=4)
    assert sites(llama)[1].module("small").A is modules[0].A
    with Refused("E506", "gate_proj", "B", "48×4", "32×4", model=llama):
        pm.attach(llama, VERA, ["gate_proj"], name="large")
    other = copy.deepcopy(llama)
    copies = {id(site.module(name).A) for site in sites(other) for name in site.adapters}
    assert len(copies) == 1 and id(modules[0].A) not in copies
    other.to(torch.float64)
    assert {id(site.module(name).A) for site in sites(other) for name in site.adapters} == copies
    pm.detach(llama)
    pm.attach(llama, VERA, ["gate_proj"])  # nothing is left of the smaller ones
    assert tuple(sites(llama)[0].module("default").tensors["B"].shape) == (48, 4)


def test_tensors_that_start_otherwise_are_not_shared() -> None:
    adapter = padp.compile("""adapter S(r = 2, σ = 1) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: frozen, shared, init = normal(σ), seed = 3
B ∈ ℝ^{m×r}: learned, init = 0
y ← W @ x + B @ (A @ x)
""")
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(3)))
    pm.attach(model, adapter, σ={"1": 8})
    first, second, third = (site.module("default").tensors["A"] for site in sites(model))
    assert first is third
    torch.testing.assert_close(second, 8 * first)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
def test_checkpointing_of_activations(batch: Batch) -> None:
    grads = []
    labels = batch["input_ids"].clone()
    labels[:, :4] = -100
    for reentrant in (None, False, True):
        llama = make_llama().train()
        pm.attach(llama, LORA)
        pm.attach(llama, REFT, name="reft")
        if reentrant is not None:
            llama.gradient_checkpointing_enable({"use_reentrant": reentrant})
            if reentrant:
                llama.enable_input_require_grads()
        llama(**batch, labels=labels).loss.backward()
        grads.append([p.grad for p in pm.trainable(llama) if p.grad is not None])
    assert [len(g) for g in grads] == [2 * 21 + 2 * 3] * 3
    for other in grads[1:]:
        assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(grads[0], other, strict=True))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_torch_transformer_layers_do_not_skip_adapters() -> None:
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(block, 2).eval()
    assert model.use_nested_tensor
    x, padding = torch.randn(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        base = model(x, src_key_padding_mask=padding)
        pm.attach(model, LORA, ["linear1", "linear2"])
        adapted = model(x, src_key_padding_mask=padding)
        slow = copy.deepcopy(model).train()(x, src_key_padding_mask=padding)
        assert not torch.allclose(adapted[0], base[0], atol=1e-3)
        assert torch.allclose(adapted[0], slow[0], atol=1e-6)
        pm.detach(model)
        assert model.use_nested_tensor and not inside(model.layers[0], "_forward_pre_hooks")
        assert torch.equal(model(x, src_key_padding_mask=padding), base)


def test_under_a_wrapper(llama: Any, batch: Batch) -> None:
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, **kwargs: Any) -> Any:
            return self.module(**kwargs)

    pm.attach(llama, LORA)
    outer = Wrapper(llama)
    assert len(pm.summary(outer).sites) == 21
    with pm.disabled(outer):
        pass
    with Refused("E511", "module, a part of this model"):
        pm.attach(outer, LORA, name="two")
    pm.detach(outer)
    assert not sites(llama)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_cannot_be_decomposed_are_refused(bad: float) -> None:
    last = nn.Linear(4, 4)
    model = nn.Sequential(nn.Linear(4, 4), last)
    with torch.no_grad():
        last.weight[0, 0] = bad
    with Refused("E511", "Pissa", "weight", "at 1", model=model):
        pm.attach(model, PISSA)


def test_layers_adapted_by_hand_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), LORA(nn.Linear(4, 4)))
    with Refused("E508", "1", "by hand", model=model):
        pm.attach(model, LORA)
    pm.attach(model, LORA, exclude=["1"])
    pm.detach(model)
    assert isinstance(model[1], LinearSite) and model[1].active == ("default",)


def test_attention_and_linear_sites_do_not_share_a_projection(llama: Any) -> None:
    pm.attach(llama, LORA, ["q_proj"])
    with Refused("E508", "Q projection", model=llama):
        pm.attach(llama, HEADS, name="heads")
    pm.detach(llama)
    pm.attach(llama, HEADS)
    with Refused("E508", "q_proj", model=llama):
        pm.attach(llama, LORA, ["q_proj"], name="lora")
    assert all(isinstance(m, LinearSite) is False for m in llama.modules())
