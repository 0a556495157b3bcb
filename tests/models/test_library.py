"""Every adapter of the library, every variant, on a model: attached, trained, copied, saved, loaded, merged."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import padp
import padp.models as pm
from padp.compiler.program import library
from padp.models.walk import sites
from tests.models.families import run
from tests.models.test_checkpoint import shaken

# Sizes that fit a model of width 32; joint forms of CLOVER are tested where nothing stands between Q and K.
SMALL: dict[str, Any] = {"k": 4, "r": 4, "count": 20, "g": 8, "steps": 10, "target": 2}
JOINT = {("clover", "joint"), ("clover", "seed")}


def every() -> list[tuple[str, str | None]]:
    return [(name, variant) for name in library() for variant in (padp.compile(name).variants or (None,))]


@pytest.mark.parametrize(("name", "variant"), every())
def test_on_a_model(name: str, variant: str | None, batch: dict[str, Tensor], tmp_path: Path,
                    request: pytest.FixtureRequest) -> None:
    adapter = padp.compile(name)
    settings = {key: value for key, value in SMALL.items() if key in adapter.hyper}
    model = request.getfixturevalue("opt" if (name, variant) in JOINT else "llama")
    plain = copy.deepcopy(model)
    pm.attach(model, adapter, variant=variant, **settings)
    after = run(shaken(model), batch)
    assert not torch.allclose(after, run(plain, batch), atol=1e-4)
    assert torch.equal(run(copy.deepcopy(model), batch), after)
    pm.save(model, tmp_path)
    assert torch.equal(run(pm.load(copy.deepcopy(plain), tmp_path), batch), after)
    if adapter.site == "hidden":
        return
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    pm.merge(model)
    assert torch.allclose(run(model, batch), after, atol=5e-5)
    pm.unmerge(model)
    assert all(torch.equal(weights[key], tensor) for key, tensor in model.state_dict().items())
    formula = adapter.count_of(variant)
    for site in sites(model):
        module = site.module("default")
        values = {**module.hyper, **module.sizes}
        counted = formula.subs({symbol: values[str(symbol)] for symbol in formula.free_symbols})
        assert counted == sum(p.numel() for p in site.learned("default"))
