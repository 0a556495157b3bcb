"""What people bring from other libraries, forget, or write too large: each hears what is meant."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import padp
import padp.models as pm
from padp.models.walk import sites
from tests.support.families import Refused, make_llama
from tests.support.programs import BIAS, HEADS, LORA, RANKED

TEXT = """adapter Low(r = 2) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned
y ← (W + B @ A) @ x
"""


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))


def test_an_adapter_by_name_path_or_text(tmp_path: Path) -> None:
    file = tmp_path / "low.padp"
    file.write_text(TEXT, encoding="utf-8")
    for given, name in (("lora", "LoRA"), (file, "Low"), (str(file), "Low"), (TEXT, "Low"), (LORA, "Lora")):
        model = small()
        pm.attach(model, given, r=2)
        assert {row.adapter for row in pm.summary(model).sites} == {name}
    model = small()
    with Refused("E510", "'lorra'", "lora", model=model):
        pm.attach(model, "lorra")
    with Refused("E511", "second argument", 'padp.attach(model, "lora")', model=model):
        pm.attach(model, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("keyword", "value", "meant"), [
    ("target_modules", ["0"], "targets="), ("exclude_modules", ["0"], "exclude="), ("target", "0", "targets="),
    ("lora_alpha", 8, "alpha="), ("rank", 4, "try r="), ("lora_r", 4, "try r="), ("lora_dropout", 0.1, "dropout="),
    ("rank_pattern", {"0": 4}, '"*": 8'), ("layers_to_transform", [0], "targets=r"), ("adapter_name", "x", "name="),
    ("use_dora", True, '"dora"'), ("bias", "none", "leave it out"), ("anything", 1, "alpha, r")])
def test_keywords_of_other_libraries(keyword: str, value: object, meant: str) -> None:
    model = small()
    arguments: dict[str, Any] = {keyword: value}
    with pytest.raises(padp.PadpError) as refused:
        pm.attach(model, "lora", **arguments)
    (diagnostic,) = refused.value.diagnostics
    assert diagnostic.code == "E507" and keyword in diagnostic.message
    assert meant in f"try {diagnostic.suggestion}"
    assert not sites(model)


def test_all_wrong_keywords_at_once_and_only_what_the_adapter_has() -> None:
    arguments: dict[str, Any] = {"rank": 4, "target_modules": ["0"]}
    with pytest.raises(padp.PadpError) as refused:
        pm.attach(small(), BIAS, **arguments)
    first, second = refused.value.diagnostics
    assert "rank" in first.message and "are s" in str(first.suggestion)  # it has no rank
    assert "target_modules" in second.message


@pytest.mark.parametrize("adapter", [LORA, HEADS], ids=lambda a: a.name)
def test_layers_of_another_kind_of_site(adapter: Any) -> None:
    """The error's own suggestion takes the linear layers of these blocks."""
    llama = make_llama()
    with pytest.raises(padp.PadpError) as refused:
        pm.attach(llama, adapter, layers=[0, 2])
    (diagnostic,) = refused.value.diagnostics
    pattern = str(diagnostic.suggestion).removeprefix('targets=r"').removesuffix('"')
    assert diagnostic.code == "E511" and adapter.site in diagnostic.message
    if adapter is LORA:
        pm.attach(llama, adapter, targets=pattern)
        assert len(sites(llama)) == 14 and {site.path.split(".")[2] for site in sites(llama)} == {"0", "2"}
    with Refused("E511", "leave layers out"):
        pm.attach(make_llama(), adapter, layers="all")
    with Refused("E511", "name them"):
        pm.attach(small(), LORA, layers=[0])


def test_public_names_and_nothing_else() -> None:
    assert sorted(dir(padp)) == sorted([*padp.__all__, "__version__"])


# ---------------------------------------------------------------- said, not refused


class Classifier(nn.Module):
    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.body = nn.Linear(6, 6)
        self.classifier = nn.Linear(6, 2, bias=bias)
        nn.init.normal_(self.classifier.weight)
        if bias:
            nn.init.zeros_(self.classifier.bias)


@pytest.mark.parametrize("bias", [True, False])
def test_a_head_that_stays_frozen(bias: bool) -> None:
    model = Classifier(bias)
    with pytest.warns(UserWarning, match=r"modules_to_save=\['classifier'\]"):
        pm.attach(model, LORA)
    assert any("classifier" in note for note in pm.summary(model).notes)
    assert "classifier (modules_to_save= trains it)" in " ".join(repr(pm.summary(model)).split())
    model = Classifier(bias)
    pm.attach(model, LORA, modules_to_save=["classifier"])
    assert pm.summary(model).notes == ()
    model = Classifier(bias)
    pm.attach(model, BIAS, targets=["classifier"])
    assert pm.summary(model).notes == ()


def test_a_trained_head_is_only_noted_and_output_embeddings_are_not() -> None:
    model = Classifier()
    nn.init.normal_(model.classifier.bias)
    pm.attach(model, LORA)
    assert any("classifier" in note for note in pm.summary(model).notes)
    llama = make_llama()
    pm.attach(llama, LORA)
    assert pm.summary(llama).notes == ()
    assert pm.summary(small()).notes == ()


def test_a_rank_out_of_proportion() -> None:
    model = nn.Sequential(nn.Linear(64, 64))
    with pytest.warns(UserWarning, match="524,288 numbers.*4,160.*r=4096"):
        pm.attach(model, "lora", r=4096)
    assert pm.summary(model).notes == ("default learns more numbers than the layer has at 0",)
    model = nn.Sequential(nn.Linear(64, 64))
    pm.attach(model, "lora", r=48)  # more than the layer has, and small
    assert len(pm.summary(model).notes) == 1
    pm.detach(model)
    pm.attach(model, "lora", r=8)
    assert pm.summary(model).notes == ()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # between PEFT and transformers
def test_another_librarys_adapters_are_no_sites() -> None:
    import peft

    model = peft.get_peft_model(make_llama(), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    pm.attach(model, LORA)
    paths = [site.path for site in sites(model)]
    assert len(paths) == 21 and not any("lora_" in path for path in paths)
    assert sum(path.endswith("q_proj.base_layer") for path in paths) == 3


# ---------------------------------------------------------------- rules after backward


def step(model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    model(torch.randn(3, 6)).square().sum().backward()
    optimiser.step()


@pytest.mark.parametrize("copied", [False, True])
def test_forgotten_updates_are_said_once(copied: bool) -> None:
    model = small()
    pm.attach(model, RANKED)
    if copied:
        model = copy.deepcopy(model)
    optimiser = torch.optim.AdamW(pm.trainable(model), lr=1e-3)
    step(model, optimiser)
    optimiser.zero_grad()
    with pytest.warns(UserWarning, match=r"Ranked.*padp\.update\(model\)"):
        step(model, optimiser)
    optimiser.zero_grad()
    step(model, optimiser)  # said once: warnings are errors here


@pytest.mark.parametrize("adapter", [RANKED, LORA], ids=lambda a: a.name)
def test_updates_that_run_are_not_spoken_of(adapter: Any) -> None:
    model = small()
    pm.attach(model, adapter)
    optimiser = torch.optim.AdamW(pm.trainable(model), lr=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            step(model, optimiser)
            pm.update(model)
            optimiser.zero_grad()
        other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
        for _ in range(3):
            other.step()  # of another model
        if adapter is LORA:
            step(model, optimiser)
            step(model, optimiser)


def test_an_update_after_the_gradients_are_cleared_says_the_order() -> None:
    model = small()
    pm.attach(model, RANKED)
    optimiser = torch.optim.AdamW(pm.trainable(model), lr=1e-3)
    step(model, optimiser)
    optimiser.zero_grad()
    with Refused("E210", "no gradient", "cleared", "padp.update(model); optimiser.zero_grad()"):
        pm.update(model)
