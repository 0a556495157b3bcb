"""State dicts of adapted models: the base's own keys, whatever is attached and merged, and every way back."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_model, save_file, save_model
from torch import Tensor, nn

import padp
import padp.models as pm
from padp.models.record import record_of
from padp.models.walk import inside, sites
from tests.support.families import Batch, Refused, make_llama, make_opt, run
from tests.support.programs import BIAS, HEADS, LORA, PISSA, RANKED, REFT, ROTATION, VERA

EVERY = [LORA, ROTATION, PISSA, VERA, RANKED, REFT, HEADS]
MERGING = [LORA, ROTATION, PISSA, VERA, HEADS]
OURS = ("adapters", "copies", "original", "merged", "padp_hidden", "padp_attention")


def make_tied() -> Any:
    return make_llama(tie_word_embeddings=True)


def make_gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2)
    return GPT2LMHeadModel(config).eval()


FAMILIES: list[Callable[[], Any]] = [make_llama, make_tied, make_gpt2, make_opt]


def pairs(adapters: list[padp.Adapter]) -> list[Any]:
    """Every adapter on a LLaMA, and what adds, reads or shares tensors on every family."""
    chosen: list[tuple[Callable[[], Any], padp.Adapter]] = [(make_llama, adapter) for adapter in adapters]
    chosen += [(make, adapter) for make in FAMILIES[1:] for adapter in (LORA, VERA)]
    return [pytest.param(make, adapter, id=f"{make.__name__}-{adapter.name}") for make, adapter in chosen]


def shake(model: Any, seed: int = 11) -> Any:
    """Other values for everything that is trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in pm.trainable(model):
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


def put_on(make: Callable[[], Any], adapter: padp.Adapter) -> Any:
    """A model with an adapter that was trained; merged it has no bias that it did not have."""
    return shake(pm.attach(make(), adapter, variant="plain" if adapter is HEADS else None))


def own(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a plain model knows of a state dict."""
    return {key: value for key, value in state.items() if not set(key.split(".")) & set(OURS)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


@pytest.mark.parametrize(("make", "adapter"), pairs(EVERY))
def test_a_state_dict_is_one_of_the_plain_model(make: Callable[[], Any], adapter: padp.Adapter) -> None:
    plain, model = make().state_dict(), make()
    pm.attach(model, adapter)
    state = model.state_dict()
    same(own(state), plain)
    assert list(own(state)) == list(plain)  # in the same order too
    other = make()
    assert not other.load_state_dict(state, strict=False).missing_keys
    assert state.keys() - plain.keys()


@pytest.mark.parametrize(("make", "adapter"), pairs(EVERY))
@pytest.mark.parametrize("assign", [False, True], ids=["copied", "assigned"])
def test_round_trip(make: Callable[[], Any], adapter: padp.Adapter, assign: bool, batch: Batch) -> None:
    model = shake(pm.attach(make(), adapter, seed=1))
    other = shake(pm.attach(make(), adapter, seed=2), 12)
    wanted, state = run(model, batch), model.state_dict()
    other.load_state_dict(copy.deepcopy(state), assign=assign)
    assert torch.equal(run(other, batch), wanted)
    same(dict(other.state_dict()), dict(state))
    if assign and adapter is VERA:
        assert len({id(site.module("default").A) for site in sites(other)}) == 1
    pm.detach(other)
    pm.attach(other, adapter, seed=3)  # shared tensors are found again


@pytest.mark.parametrize("adapter", [LORA, REFT, HEADS], ids=lambda a: a.name)
def test_both_spellings_load(adapter: padp.Adapter, batch: Batch) -> None:
    model = shake(pm.attach(make_llama(), adapter, modules_to_save=["lm_head"]))
    state = model.state_dict()
    named = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    old: dict[str, Tensor] = {}
    for key, value in state.items():
        head, _, last = key.rpartition(".")
        spellings = [f"{head}.{child}.{last}" for child in ("base", "original")]
        old[next((name for name in spellings if name in named), key)] = value
    assert old.keys() != state.keys()
    other = pm.attach(make_llama(), adapter, modules_to_save=["lm_head"], seed=4)
    other.load_state_dict(old)
    assert torch.equal(run(other, batch), run(model, batch))


def test_weights_of_a_plain_model_load_into_an_adapted_one(batch: Batch) -> None:
    model = pm.attach(make_llama(), ROTATION, modules_to_save=["lm_head"])
    torch.manual_seed(5)
    other = {key: 0.1 * torch.randn_like(t) for key, t in make_llama().state_dict().items()}
    found = model.load_state_dict(other, strict=False)
    assert not found.unexpected_keys and all(set(key.split(".")) & set(OURS) for key in found.missing_keys)
    same(own(model.state_dict()), other)
    pm.detach(model)
    plain = make_llama()
    plain.load_state_dict(other)
    assert torch.equal(run(model, batch), run(plain, batch))


# ---------------------------------------------------------------- merged


@pytest.mark.parametrize(("make", "adapter"), pairs(MERGING))
def test_merged_state_is_the_merged_model(make: Callable[[], Any], adapter: padp.Adapter, batch: Batch) -> None:
    model = put_on(make, adapter)
    before, unmerged = run(model, batch), model.state_dict()
    unmerged = {key: value.clone() for key, value in unmerged.items()}
    pm.merge(model)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    plain = make()
    assert not plain.load_state_dict(state, strict=False).missing_keys
    assert torch.equal(run(plain, batch), run(model, batch))
    assert torch.allclose(run(plain, batch), before, atol=1e-5)
    model.load_state_dict(state)  # the same again
    with Refused("E511", "would act twice"):
        put_on(make, adapter).load_state_dict(state, strict=False)
    with Refused("E511", "merged"):
        model.load_state_dict(unmerged, strict=False)
    with Refused("E511", "would not reach the merged weight"):
        first = next(key for key in state if ".adapters." in key)
        model.load_state_dict({**state, first: state[first] + 1}, strict=False)
    same(dict(model.state_dict()), state)
    pm.unmerge(model)
    same(dict(model.state_dict()), unmerged)


def test_a_refused_state_dict_changes_nothing(batch: Batch) -> None:
    merged = pm.merge(shake(pm.attach(make_llama(), LORA)))
    other = pm.attach(make_llama(), LORA)
    before = copy.deepcopy(other.state_dict())
    mixed = {**shake(pm.attach(make_llama(), LORA), 13).state_dict()}
    mark = next(key for key in reversed(merged.state_dict()) if ".merged." in key)
    mixed[mark] = torch.tensor(True)  # at the last site
    with Refused("E511", mark.split(".merged")[0], model=other):
        other.load_state_dict(mixed)
    same(dict(other.state_dict()), dict(before))


def test_whole_modules(batch: Batch) -> None:
    model = shake(pm.attach(make_llama(), LORA, modules_to_save=["lm_head", "model.norm"]))
    plain, wanted = make_llama().state_dict(), run(model, batch)
    same(own(model.state_dict()), plain)
    assert not torch.equal(model.state_dict()["lm_head.copies.default.weight"], plain["lm_head.weight"])
    unmerged = copy.deepcopy(model.state_dict())
    pm.merge(model)
    state = copy.deepcopy(model.state_dict())
    other = make_llama()
    assert not other.load_state_dict(state, strict=False).missing_keys
    assert torch.allclose(run(other, batch), wanted, atol=1e-5) and torch.equal(run(other, batch), run(model, batch))
    assert torch.equal(state["lm_head.original.weight"], plain["lm_head.weight"])
    model.load_state_dict(state)
    save_file(dict(model.state_dict()), Path("/dev/null"))  # nothing in it twice
    pm.unmerge(model)
    same(dict(model.state_dict()), dict(unmerged))
    head = model.lm_head.original
    pm.detach(pm.merge(model), keep_merged=True)
    assert model.lm_head is head and torch.allclose(run(model, batch), wanted, atol=1e-5)
    assert model.state_dict().keys() == plain.keys()


def test_modules_with_names_of_ours_are_no_copies() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.copies = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return cast(Tensor, self.copies(x))

    model = nn.ModuleDict({"a": nn.Linear(4, 4), "odd": Odd()})
    with Refused("E511", "odd", "copies", model=model):
        pm.attach(model, LORA, ["a"], modules_to_save=["odd"])


def test_a_bias_that_merging_makes_is_told() -> None:
    model = pm.attach(make_llama(), BIAS, ["q_proj"])
    model.state_dict()
    pm.merge(model)
    with pytest.warns(UserWarning, match=r"q_proj\.bias"):
        state = model.state_dict()
    assert "model.layers.0.self_attn.q_proj.bias" in state


# ---------------------------------------------------------------- who writes state dicts


def test_with_torch_and_safetensors(tmp_path: Path) -> None:
    def make() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6), nn.Linear(6, 6))

    x = torch.randn(3, 6)
    for adapter in (LORA, VERA):
        model = shake(pm.attach(make(), adapter))
        torch.save(model.state_dict(), tmp_path / "a.pt")
        other = pm.attach(make(), adapter, seed=2)
        other.load_state_dict(torch.load(tmp_path / "a.pt"))
        assert torch.equal(other(x), model(x))
        save_file(dict(model.state_dict()), tmp_path / "a.safetensors")
        save_model(model, str(tmp_path / "b.safetensors"))
        again = pm.attach(make(), adapter, seed=3)
        load_model(again, tmp_path / "b.safetensors")
        assert torch.equal(again(x), model(x))
        plain = make()
        load_model(plain, tmp_path / "b.safetensors", strict=False)
        assert torch.equal(plain(x), make()(x))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_have_plain_keys_too(copied: Callable[[Any], Any]) -> None:
    model = shake(pm.attach(nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)), VERA, modules_to_save=["1"],
                            targets=["0"]))
    twin = copied(model)
    same(dict(twin.state_dict()), dict(model.state_dict()))
    twin.load_state_dict(model.state_dict())


def test_inside_a_wrapper_and_of_a_part(batch: Batch) -> None:
    model = shake(pm.attach(make_llama(), VERA))
    outer = nn.ModuleDict({"module": model})
    state = outer.state_dict()
    assert {key.removeprefix("module.") for key in state} == set(model.state_dict())
    inner = pm.attach(make_llama(), VERA, seed=2)
    nn.ModuleDict({"module": inner}).load_state_dict(state)
    assert torch.equal(run(inner, batch), run(model, batch))
    part = model.model.layers[1]
    inner.model.layers[1].load_state_dict(part.state_dict())
    lone = part.self_attn.q_proj
    assert "weight" in lone.state_dict()
    lone.load_state_dict(lone.state_dict())
    buffer: dict[str, Any] = {}
    model.state_dict(destination=buffer, prefix="x.")
    assert {key.removeprefix("x.") for key in buffer} == set(model.state_dict())


def test_a_layer_adapted_by_hand() -> None:
    linear = nn.Linear(6, 6)
    plain = copy.deepcopy(linear.state_dict())
    layer = LORA(linear)
    same({key: t for key, t in layer.state_dict().items() if "." not in key}, dict(plain))
    assert list(layer.state_dict())[:2] == ["weight", "bias"]
    layer.load_state_dict(layer.state_dict())


def test_a_layer_under_two_names(tmp_path: Path) -> None:
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": nn.Sequential(shared), "b": nn.Sequential(shared), "c": nn.Linear(4, 4)})
    pm.attach(model, LORA)
    state = model.state_dict()
    assert {"a.0.weight", "b.0.weight", "a.0.adapters.default.A"} <= state.keys()
    assert "b.0.adapters.default.A" not in state
    model.load_state_dict(state)
    save_model(model, str(tmp_path / "m.safetensors"))
    load_model(model, tmp_path / "m.safetensors")


def test_metadata_is_where_a_plain_model_looks() -> None:
    model = pm.attach(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), LORA, modules_to_save=["1"])
    about = cast(Any, model.state_dict())._metadata
    assert about["1"] == {"version": 2} and about["0"] == {"version": 1}


def test_detached_models_have_no_hook_left() -> None:
    model = make_llama()
    before = [dict(inside(model, table)) for table in ("_state_dict_hooks", "_load_state_dict_pre_hooks")]
    pm.attach(model, VERA)
    pm.attach(model, LORA, name="two", active=False)
    assert len(inside(model, "_state_dict_hooks")) == 1  # once a model
    pm.detach(model)
    assert [dict(inside(model, table)) for table in ("_state_dict_hooks", "_load_state_dict_pre_hooks")] == before


# ---------------------------------------------------------------- transformers


@pytest.mark.parametrize(("make", "adapter"), pairs([LORA, VERA, HEADS]))
@pytest.mark.parametrize("merged", [False, True], ids=["unmerged", "merged"])
def test_save_pretrained(make: Callable[[], Any], adapter: padp.Adapter, merged: bool, batch: Batch,
                         tmp_path: Path) -> None:
    model = put_on(make, adapter)
    if merged:
        pm.merge(model)
    model.save_pretrained(tmp_path / "model")
    other, found = type(model).from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not found["missing_keys"] and not found["mismatched_keys"]
    wanted = model if merged else make()
    assert torch.equal(run(other.eval(), batch), run(wanted, batch))
    pm.save(model, tmp_path / "adapter")
    if merged:
        pm.unmerge(model)
    else:
        pm.load(other, tmp_path / "adapter")
        assert torch.equal(run(other, batch), run(model, batch))


def test_trainer_saves_and_resumes(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(3, 64, (8, 6))]

    def trainer(steps: int) -> Trainer:
        model = pm.attach(make_llama(), VERA, modules_to_save=["lm_head"], seed=steps)
        arguments = TrainingArguments(str(tmp_path), max_steps=steps, save_steps=2, per_device_train_batch_size=4,
                                      report_to=[], use_cpu=True, disable_tqdm=True, seed=1)
        return Trainer(model=model, args=arguments, train_dataset=cast(Any, rows))

    first = trainer(4)
    first.train()
    second = trainer(4)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    same(dict(second.model.state_dict()), dict(first.model.state_dict()))  # pyright: ignore[reportOptionalMemberAccess]
    plain, found = type(make_llama()).from_pretrained(tmp_path / "checkpoint-4", output_loading_info=True)
    assert not found["missing_keys"]
    same(dict(plain.state_dict()), dict(make_llama().state_dict()))


def test_other_state_stays_out_of_it() -> None:
    """A record is no part of a state dict, and a state dict read into memory is a state dict."""
    model = pm.attach(make_llama(), VERA)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True).keys() == model.state_dict().keys()
    assert record_of(model).attached
