"""What ``padp targets DIR`` and ``padp count --model DIR`` take is what ``padp.attach`` takes, family by family."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import padp.models as pm
from padp.cli import main
from padp.cli.targets import remarks
from padp.models.places import all_linear
from padp.weights import read_model
from tests.support.programs import LORA
from tests.support.zoo import ZOO, build

RENAMED = {"vit"}  # transformers loads it under other names than the file's
EXPERTS = {"mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss"}


def shape_of(model: Any, path: str) -> tuple[int, int]:
    from padp.compiler.module.linear_layer import weight_of

    m, n = weight_of(model.get_submodule(path)).shape
    return m, n


@pytest.mark.parametrize("name", ZOO)
def test_a_file_tells_what_a_model_has(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = build(name)
    model.save_pretrained(tmp_path)
    stored, taken = read_model(tmp_path), all_linear(model)
    assert Counter((layer.m, layer.n) for layer in stored.linears) == Counter(shape_of(model, path) for path in taken)
    if name not in RENAMED:
        assert {layer.name for layer in stored.linears} == set(taken)
    assert (name in EXPERTS) == bool(stored.experts)
    assert any("experts" in said for said in remarks(stored)) == bool(stored.experts)
    capsys.readouterr()
    assert main(["count", "lora", "--model", str(tmp_path), "--set", "r=2"]) == 0
    said = capsys.readouterr().out
    learned = sum(2 * sum(shape_of(model, path)) for path in taken)
    assert f"{learned:,} learned scalars" in said.replace("\u202f", ",").replace(" ", " ")


@pytest.mark.parametrize("name", ["llama, positions = hidden", "mixtral", "gpt2"])
def test_attach_takes_as_many(name: str) -> None:
    model = build(name)
    taken = all_linear(model)
    pm.attach(model, LORA)
    assert len(pm.summary(model).sites) == len(taken)


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "llama"])
def test_what_all_linear_leaves_out_is_said(name: str) -> None:
    model = build(name)
    rows = [row for row in pm.targets(model).rows if row.kind == "none"]
    pm.attach(model, LORA)
    summary = pm.summary(model)
    held = sum(p.numel() for path, p in model.named_parameters() if ".experts." in path)
    if name == "llama":
        assert not rows and not summary.outside and "no linear layer" not in summary.total
        return
    assert {"gate_up_proj", "down_proj"} <= {row.name.split(".")[-1] for row in rows}
    assert sum(row.parameters for row in rows) >= held
    assert all("no linear layer" in row.note and "%" in row.note for row in rows)
    assert summary.outside >= held
    assert f"{100 * summary.outside / summary.base:.1f} % of it" in summary.total
    assert rows == [row for row in pm.targets(model).rows if row.kind == "none"]  # the same when attached
