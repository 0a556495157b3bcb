"""Every adapter of the library, every variant, on a model: attached, trained, copied, saved, loaded, merged."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

import padp
import padp.models as pm
from padp.compiler.library import library
from padp.models.walk import sites
from tests.models.test_checkpoint import shaken
from tests.support.families import make_llama, make_opt, run

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
    wide = copy.deepcopy(model).double()  # what was kept is rounded to float32, nothing else is
    apart = run(wide, batch)
    pm.merge(wide)
    assert torch.allclose(run(wide, batch), apart, atol=1e-6)
    pm.merge(model)
    pm.unmerge(model)
    assert all(torch.equal(weights[key], tensor) for key, tensor in model.state_dict().items())
    formula = adapter.count_of(variant)
    for site in sites(model):
        module = site.module("default")
        values = {**module.hyper, **module.sizes}
        counted = formula.subs({symbol: values[str(symbol)] for symbol in formula.free_symbols})
        assert counted == sum(p.numel() for p in site.learned("default"))


# ---------------------------------------------------------------- in another process


def small(name: str) -> nn.Module:
    """The smallest model that has a place for an adapter of the library; the same numbers in every process."""
    site = padp.compile(name).site
    if site != "linear":
        return cast(nn.Module, make_llama(num_hidden_layers=1) if site == "hidden" else make_opt(num_hidden_layers=1))
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 16)).eval()


def answer(model: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    if isinstance(model, nn.Sequential):
        with torch.no_grad():
            return cast(Tensor, model(torch.randn(5, 16, generator=generator)))
    return run(model, {"input_ids": torch.randint(3, 64, (2, 6), generator=generator)})


def reload(directory: Path) -> None:
    """For the other process: every checkpoint gives its answer, and nothing is decomposed or drawn again."""

    def on_meta_only(own: Callable[..., Any]) -> Callable[..., Any]:
        def call(t: Tensor, *args: Any, **kwargs: Any) -> Any:
            assert t.is_meta, f"{own} again"
            return own(t, *args, **kwargs)

        return call

    expected = torch.load(directory / "expected.pt")
    plain = {name: small(name) for name, _ in every()}
    loaded: dict[str, nn.Module] = {}
    with ExitStack() as patches:
        for owner, names in ((torch.linalg, ("svd", "qr")), (torch.Tensor, ("uniform_", "normal_"))):
            for name in names:
                patches.enter_context(patch.object(owner, name, on_meta_only(getattr(owner, name))))
        for name, variant in every():
            loaded[f"{name}-{variant}"] = pm.load(copy.deepcopy(plain[name]), directory / f"{name}-{variant}")
    assert loaded.keys() == expected.keys()
    wrong = [key for key, model in loaded.items() if not torch.equal(answer(model), expected[key])]
    assert not wrong, wrong


def test_every_adapter_loads_in_a_fresh_process(tmp_path: Path) -> None:
    expected: dict[str, Tensor] = {}
    for name, variant in every():
        adapter = padp.compile(name)
        settings = {key: value for key, value in SMALL.items() if key in adapter.hyper}
        model = pm.attach(small(name), adapter, variant=variant, **settings)
        expected[f"{name}-{variant}"] = answer(shaken(model))
        pm.save(model, tmp_path / f"{name}-{variant}")
    assert all(not torch.equal(answer(small(name)), expected[f"{name}-{variant}"]) for name, variant in every())
    torch.save(expected, tmp_path / "expected.pt")
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path; from tests.models.test_library import reload
reload(Path({str(tmp_path)!r}))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
