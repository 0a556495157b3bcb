"""Saving and loading: the same outputs bit for bit, in another process too; every way in which a file can be wrong."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import padp
import padp.models as pm
from padp.models import files
from padp.models.record import record_of
from padp.models.walk import sites
from tests.support.families import Batch, Refused, make_llama, run
from tests.support.programs import HEADS, LORA, PISSA, REFT, ROTATION, VERA

_svd = torch.linalg.svd


def _on_meta_only(A: Tensor, *args: Any, **kwargs: Any) -> Any:
    assert A.is_meta, "an SVD was computed at load"
    return _svd(A, *args, **kwargs)


def shaken(model: Any) -> Any:
    """The model after some training: its trained parameters moved."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for p in pm.trainable(model):
            p.add_(0.1 * torch.randn(p.shape, generator=generator).to(p.dtype))
    return model


def seen(model: Any) -> list[tuple[str, bool, torch.dtype]]:
    """What an optimiser sees."""
    return [(name, p.requires_grad, p.dtype) for name, p in model.named_parameters()]


@pytest.mark.parametrize("adapter", [LORA, ROTATION, PISSA, VERA, REFT, HEADS], ids=lambda a: a.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_round_trip(adapter: padp.Adapter, dtype: torch.dtype, tmp_path: Path, batch: Batch,
                    monkeypatch: pytest.MonkeyPatch) -> None:
    llama = make_llama().to(dtype)
    pm.attach(llama, adapter, name="mine", modules_to_save=["lm_head"])
    after = run(shaken(llama), batch)
    pm.save(llama, tmp_path / "a")
    other = make_llama().to(dtype)
    monkeypatch.setattr(torch.linalg, "svd", _on_meta_only)
    assert pm.load(other, tmp_path / "a") is other
    assert not any(t.is_meta for t in (*other.parameters(), *other.buffers()))
    assert torch.equal(run(other, batch), after)
    assert list(record_of(other).attached) == ["mine"]
    assert seen(other) == seen(llama)
    shaken(other)
    pm.detach(other)
    assert torch.equal(run(other, batch), run(make_llama().to(dtype), batch))


def test_fresh_process(tmp_path: Path, batch: Batch) -> None:
    llama = make_llama()
    pm.attach(llama, PISSA, name="svd")
    pm.attach(llama, VERA, ["q_proj", "down_proj"], name="random")
    torch.save({"batch": batch, "after": run(shaken(llama), batch)}, tmp_path / "expected.pt")
    pm.save(llama, tmp_path / "svd", "svd")
    pm.save(llama, tmp_path / "random", "random")
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import torch; from tests.support.families import make_llama, run
import padp.models as pm
expected = torch.load({str(tmp_path / "expected.pt")!r})
torch.set_num_threads(1)
llama = make_llama()
pm.load(llama, {str(tmp_path / "svd")!r}); pm.load(llama, {str(tmp_path / "random")!r})
assert torch.equal(run(llama, expected["batch"]), expected["after"])
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_everything_about_an_adapter_comes_back(llama: Any, tmp_path: Path, batch: Batch) -> None:
    pm.attach(llama, LORA, ["q_proj", "v_proj"], r={"q_proj": 3, "*": 2}, dropout=0.25, seed=5, name="mine")
    pm.set(llama, α=2.5)
    for _ in range(3):
        pm.update(llama)  # counts the steps, also of a program without updates
    pm.save(llama, tmp_path)
    other = pm.load(make_llama(), tmp_path, "yours")
    one = record_of(other).attached["yours"]
    assert (one.dropout, one.seed, one.steps) == (0.25, 5, 3)
    modules = [site.module("yours") for site in sites(other)]
    assert {m.hyper["r"] for m in modules} == {2, 3} and {m.knobs["α"] for m in modules} == {2.5}
    assert {m.dropout for m in modules} == {0.25}
    assert torch.equal(run(other, batch), run(llama, batch))
    described = json.loads((tmp_path / "adapter.json").read_text())
    assert described["adapter"]["program"] == LORA.source.text and described["adapter"]["hash"] == LORA.hash
    assert described["versions"].keys() == {"padp", "torch", "python"} and described["number"] == 1
    assert set(load_file(tmp_path / "adapter.safetensors")) >= {"sites/model.layers.0.self_attn.q_proj/A"}


def test_shared_tensors_are_stored_once_and_held_once(llama: Any, tmp_path: Path, batch: Batch) -> None:
    pm.attach(llama, VERA, ["q_proj", "v_proj"], name="one")
    pm.attach(llama, VERA, ["k_proj"], name="two")
    pm.save(llama, tmp_path / "one", "one")
    pm.save(llama, tmp_path / "two", "two")
    stored = load_file(tmp_path / "one" / "adapter.safetensors")
    assert len([key for key in stored if ".A." in key]) == 1 and not any(key.endswith("/A") for key in stored)
    other = make_llama()
    pm.load(other, tmp_path / "one")
    pm.load(other, tmp_path / "two")
    assert len({id(site.module(name).A) for site in sites(other) for name in site.adapters}) == 1
    assert torch.equal(run(other, batch), run(llama, batch))


def test_which_one_is_saved(llama: Any, tmp_path: Path) -> None:
    with Refused("E510", "no adapter is attached"):
        pm.save(llama, tmp_path)
    pm.attach(llama, LORA, ["q_proj"], name="one")
    pm.attach(llama, LORA, ["k_proj"], name="two")
    with Refused("E510", "one, two", "name="):
        pm.save(llama, tmp_path)
    with Refused("E510", "three", "one, two"):
        pm.save(llama, tmp_path, "three")
    pm.save(llama, tmp_path / "merged" / "two", "two")  # directories are made
    with Refused("E511", "'two' is attached already", model=llama):
        pm.load(llama, tmp_path / "merged" / "two")


def test_tensors_without_values_are_not_saved(tmp_path: Path) -> None:
    model = pm.attach(nn.Sequential(nn.Linear(4, 4, device="meta")), LORA)
    with Refused("E511", "meta", "sites/0/A", model=model):
        pm.save(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_saving_a_merged_model_saves_the_adapter(llama: Any, tmp_path: Path, batch: Batch) -> None:
    pm.attach(llama, LORA)
    adapted = run(llama, batch)
    pm.merge(llama)
    pm.save(llama, tmp_path)
    with Refused("E511", "merged", model=llama):
        pm.load(llama, tmp_path, "two")
    assert torch.equal(run(pm.load(make_llama(), tmp_path), batch), adapted)


# ---------------------------------------------------------------- writing


def test_overwriting_leaves_the_old_or_the_new(llama: Any, tmp_path: Path, batch: Batch,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before each change of the directory in turn, a save leaves a checkpoint that loads: old or new."""
    pm.attach(llama, LORA, ["q_proj"])
    old = run(llama, batch)
    pm.save(llama, tmp_path)
    new = run(shaken(llama), batch)
    real, results = os.replace, []

    class Stopped(BaseException):
        pass

    for survives in range(5):
        left = survives

        def replace(source: Any, target: Any) -> None:
            nonlocal left
            if left == 0:
                raise Stopped
            left -= 1
            real(source, target)

        monkeypatch.setattr(files.os, "replace", replace)
        try:
            pm.save(llama, tmp_path)
        except Stopped:
            results.append("stopped")
        else:
            results.append("saved")
        monkeypatch.setattr(files.os, "replace", real)
        found = run(pm.load(make_llama(), tmp_path), batch)
        assert torch.equal(found, new if survives >= 2 else old)
    assert results == ["stopped"] * 4 + ["saved"]  # a save first finishes one that was stopped after its commit
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter.json", "adapter.safetensors"]


# ---------------------------------------------------------------- wrong files


def edit(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = directory / "adapter.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


def sign(directory: Path, tensors: dict[str, Tensor]) -> None:
    """Write these tensors as if they had been saved so."""
    save_file(tensors, directory / "adapter.safetensors")
    edit(directory, lambda d: d["tensors"].update(sha256=files.digest_of(directory / "adapter.safetensors")))


def truncate(directory: Path, name: str) -> None:
    path = directory / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_tensor(directory: Path) -> None:
    tensors = load_file(directory / "adapter.safetensors")
    del tensors["sites/model.layers.0.self_attn.q_proj/A"]
    sign(directory, tensors)


def add_tensor(directory: Path) -> None:
    sign(directory, {**load_file(directory / "adapter.safetensors"), "sites/model.layers.9.q_proj/A": torch.zeros(2)})


def misshape(directory: Path) -> None:
    tensors = load_file(directory / "adapter.safetensors")
    tensors["sites/model.layers.0.self_attn.q_proj/A"] = torch.zeros(5, 5)
    sign(directory, tensors)


SITE = "model.layers.0.self_attn.q_proj"


def garble(**entries: object) -> Callable[[Path], None]:
    """Other entries for a site."""
    return lambda directory: edit(directory, lambda d: d["sites"][SITE].update(entries))


def other_program(directory: Path) -> None:
    text = "adapter Lora(r = 2 on linear(W ∈ ℝ^{m×n})"
    digest = hashlib.sha256(text.encode()).hexdigest()
    edit(directory, lambda d: d["adapter"].update(program=text, hash=digest))


def foreign(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA"}')


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda d: truncate(d, "adapter.safetensors"), "truncated"),
    (lambda d: truncate(d, "adapter.json"), "truncated or is no JSON"),
    (lambda d: (d / "adapter.json").write_bytes(b"\xff\xfe{}"), "no JSON"),
    (lambda d: (d / "adapter.json").write_text("[]"), "not written by padp"),
    (lambda d: (d / "adapter.json").unlink(), "there is no adapter.json"),
    (lambda d: (d / "adapter.safetensors").unlink(), "there is no adapter.safetensors"),
    (lambda d: (d / "adapter.safetensors").write_bytes(b"x" * 100), "truncated, was changed"),
    (foreign, "PEFT"),
    (lambda d: edit(d, lambda j: j.update(number=2)), "format 2 is not known"),
    (lambda d: edit(d, lambda j: j["adapter"].update(program="# other\n" + j["adapter"]["program"])),
     "changed after saving"),
    (lambda d: edit(d, lambda j: j.pop("sites")), "lacks or garbles"),
    (lambda d: edit(d, lambda j: j.update(steps="many")), "lacks or garbles"),
    (lambda d: edit(d, lambda j: j["sites"].popitem()), "does not list"),
    (drop_tensor, "model.layers.0.self_attn.q_proj are not those of its program"),
    (add_tensor, "does not list"),
    (misshape, "size mismatch"),
    (other_program, "has errors here"),
    (garble(knobs={"α": "strong"}), "α is 'strong'"),
    (garble(knobs={"ω": 1.0}), "no knob called ω"),
    (garble(hyper={"r": "two"}), "r is a number"),
    (garble(hyper={"rank": 2}), "no hyperparameter 'rank'"),
    (garble(variant="best"), "no variant 'best'"),
    (garble(dtype="float12"), "no dtype"),
    (garble(sizes={"m": "many"}), "m is 'many'"),
    (lambda d: edit(d, lambda j: j.update(tensors=[])), "belongs to another"),
    (lambda d: edit(d, lambda j: j.update(dropout="much")), "lacks or garbles"),
]


@pytest.mark.parametrize(("harm", "said"), BROKEN, ids=[said for _, said in BROKEN])
def test_wrong_files_are_refused_and_the_model_stays(harm: Callable[[Path], object], said: str, llama: Any,
                                                     tmp_path: Path, batch: Batch) -> None:
    pm.attach(llama, LORA, ["q_proj"])
    pm.save(llama, tmp_path)
    other = make_llama()
    before = run(other, batch)
    harm(tmp_path)
    with Refused("E505", said, str(tmp_path), model=other):
        pm.load(other, tmp_path)
    assert torch.equal(run(other, batch), before)


def test_other_models_are_refused(llama: Any, gpt2: Any, tmp_path: Path) -> None:
    pm.attach(llama, LORA, ["q_proj", "down_proj"], modules_to_save=["lm_head"])
    pm.save(llama, tmp_path)
    with Refused("E505", "model.layers.0.self_attn.q_proj", "and 3 more", "LlamaForCausalLM", model=gpt2):
        pm.load(gpt2, tmp_path)
    wide = make_llama(intermediate_size=64)
    with Refused("E505", "down_proj has m = 32, n = 64 here", "n = 48", "3 sites differ", model=wide):
        pm.load(wide, tmp_path)
    words = make_llama(vocab_size=80)
    with Refused("E505", "lm_head", "size mismatch", model=words):
        pm.load(words, tmp_path)
    shallow = make_llama(num_hidden_layers=2)
    with Refused("E505", "model.layers.2", model=shallow):
        pm.load(shallow, tmp_path)
    odd = make_llama()
    odd.model.layers[1].self_attn.q_proj = nn.Identity()
    with Refused("E505", "Identity", model=odd):
        pm.load(odd, tmp_path)


def test_other_shared_tensors_are_refused(llama: Any, tmp_path: Path) -> None:
    pm.attach(llama, VERA, ["q_proj"])
    pm.save(llama, tmp_path)
    other = make_llama()
    pm.attach(other, VERA, ["down_proj"], name="mine")
    with Refused("E505", ".A.", "(4, 48)", "(4, 32)", model=other):
        pm.load(other, tmp_path)
