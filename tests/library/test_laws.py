"""Every law of tests/support/common.py for the library: all variants, odd and non-square sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

import padp
import padp.stdlib
from padp.compiler.module.site import LinearSite
from tests.support.common import LAWS, Case, Law, fresh, inputs, law_name, only, randomise

NAMES = ("svft", "ssvd", "antipasto", "goft", "hra", "randlora", "fourierft", "psoft", "clover", "reft")
PLAIN = ("lora", "oft", "vera", "dora", "delora", "pissa", "ia3", "road", "adalora", "boft")

SIZES = ((12, 8), (9, 15))
CASES = [
    Case("lora", hyper={"r": 4}),
    Case("lora", n=9, m=15, hyper={"r": 2, "α": 5}),
    Case("oft", hyper={"k": 4}),
    Case("oft", n=9, m=15, hyper={"k": 3}),
    Case("oft", "peft", hyper={"k": 4}),
    Case("oft", "peft", n=9, m=15, hyper={"k": 9}),
    Case("oft", "peft_exact", n=9, m=15, hyper={"k": 3}),
    Case("vera", hyper={"r": 5}),
    Case("vera", n=9, m=15, hyper={"r": 20, "seed": 3}),
    Case("dora", hyper={"r": 4}, start=1e-12, detached=True),
    Case("dora", n=9, m=15, hyper={"r": 2, "α": 5}, start=1e-12, detached=True),
    Case("delora", hyper={"r": 4}, start=1e-12),
    Case("delora", n=9, m=15, hyper={"r": 2, "λ₀": 3}, start=1e-12),
    Case("delora", "seed", n=9, m=15, hyper={"r": 2}),
    Case("delora", "peft", hyper={"r": 4}),
    Case("delora", "peft", n=9, m=15, hyper={"r": 2, "λ₀": 3}),
    Case("pissa", hyper={"r": 4}, start=1e-12),
    Case("pissa", n=9, m=15, hyper={"r": 9}, start=1e-12),
    Case("pissa", "peft", hyper={"r": 4, "α": 6}, start=1e-12),
    Case("pissa", "peft", n=9, m=15, hyper={"r": 2, "α": 6}, start=1e-12),
    Case("ia3"),
    Case("ia3", "feedforward", n=9, m=15),
    Case("ia3", "attention"),
    Case("ia3", "attention", n=9, m=15),
    Case("road"),
    Case("road", n=9, m=14),
    Case("road", "road_2", n=9, m=14),
    Case("road", "road_4", n=9, m=14),
    Case("road", "seed", n=12, m=15),
    Case("road", "peft", hyper={"g": 4}),
    Case("road", "peft", n=9, m=12, hyper={"g": 6}),
    Case("road", "peft_2", n=9, m=12, hyper={"g": 6}),
    Case("road", "peft_4", n=9, m=12, hyper={"g": 6}),
    Case("adalora", hyper={"r": 4, "steps": 10}),
    Case("adalora", n=9, m=15, hyper={"r": 3, "target": 2, "steps": 10}),
    Case("adalora", "peft", n=9, m=15, hyper={"r": 3, "steps": 10}),
    Case("boft", hyper={"k": 2, "F": 2}),
    Case("boft", n=16, m=9, hyper={"k": 4, "F": 3}),
    Case("boft", n=9, m=15, hyper={"k": 3, "F": 1}),
    Case("boft", "peft", n=16, m=9, hyper={"k": 4, "F": 2}, start=1e-12),
    Case("boft", "peft", n=9, m=15, hyper={"k": 3, "F": 1}, start=1e-12),
    *(Case("svft", v, n, m, {"count": 11, "d": 2}) for v in ("plain", "banded", "random", "topk") for n, m in SIZES),
    *(Case("ssvd", v, n, m, {"k": 3}) for v in ("exact", "paper") for n, m in SIZES),
    Case("ssvd", "exact", 7, 5, {"k": 5}, start=2e-15),  # all triples: no rest of W is left to be exact on
    *(Case("antipasto", v, n, m, {"k": 3}, None if v == "steer" else 0.0) for v in ("steer", "seed") for n, m in SIZES),
    Case("antipasto", "steer", 12, 8, {"k": 4, "α": -1, "θ_max": 0.5}, None),
    *(Case("goft", v, n, m) for v in ("tree", "quasi") for n, m in (*SIZES, (2, 3))),
    *(Case("hra", None, n, m, {"r": r, "λ": 0.1}, 1e-15) for (n, m), r in zip(SIZES, (4, 2), strict=True)),
    *(Case("randlora", v, n, m, {"r": 4, "α": 8}) for v in ("bases", "peft") for n, m in SIZES),
    *(Case("fourierft", v, n, m, {"k": 10, "α": 20}, None if v == "paper" else 0.0) for v in ("zero", "paper")
      for n, m in SIZES),
    *(Case("psoft", v, n, m, {"r": 3}) for v in ("input", "seed", "peft") for n, m in SIZES),
]


@pytest.mark.parametrize("law", LAWS, ids=law_name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_law(case: Case, law: Law) -> None:
    law(case)


@pytest.mark.parametrize("name", NAMES)
def test_checks_clean(name: str) -> None:
    assert [d for d in padp.check(name) if d.severity != "note"] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_file_says_what_it_is(name: str) -> None:
    """A title that begins with the method's name and a paper; at most a dozen lines a variant."""
    adapter = padp.compile(name)
    assert adapter.title.startswith(f"{adapter.name}: ")
    lines = (Path(padp.stdlib.__path__[0]) / f"{name}.padp").read_text(encoding="utf-8").splitlines()
    assert "arXiv:" in lines[0]
    sections = "\n".join(line for line in lines if not line.startswith("#")).split("variant ")
    assert all(len([line for line in section.splitlines() if line.strip()]) <= 13 for section in sections)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("clover", "reft")])
def test_nothing_of_the_weights_size_is_kept(name: str) -> None:
    """Beside W a site holds less than half of it, in all its tensors together; SVFT holds U and Vᵀ, as it must."""
    adapter = padp.compile(name)
    for variant in adapter.variants or (None,):
        model = nn.Sequential(nn.Linear(192, 256), nn.Linear(256, 192))
        hyper: dict[str, Any] = {"d": 1, "count": 50} if name == "svft" else {}
        padp.attach(model, adapter, variant=variant, **hyper)
        for layer in model:
            own = only(cast(LinearSite, layer))
            kept = {k: t for k, t in own.state_dict().items() if k not in own.shared}
            largest = (192 + 256) * 192 + 2000 if name == "svft" else 192 * 256 // 2
            assert sum(t.numel() for t in kept.values()) < largest, {k: tuple(t.shape) for k, t in kept.items()}


def test_randlora_has_one_set_of_bases_a_model() -> None:
    model = nn.Sequential(nn.Linear(9, 15), nn.Linear(15, 12))
    for variant in ("bases", "peft"):
        padp.attach(model, padp.compile("randlora"), variant=variant, name=variant, r=4)
        first, second = (cast(LinearSite, layer).module(variant).tensors for layer in model)
        assert first["A"].data_ptr() == second["A"].data_ptr() and first["B"].data_ptr() == second["B"].data_ptr()
        assert not first["A"].requires_grad


def test_the_seed_is_the_programs() -> None:
    """FourierFT's places, SVFT's random ones and RandLoRA's bases follow ``seed``."""
    programs = [("fourierft", "paper", {"k": 9}), ("svft", "random", {"count": 9}), ("randlora", "bases", {"r": 3})]
    for name, variant, hyper in programs:
        outputs: list[torch.Tensor] = []
        for seed in (1, 1, 2):
            case = Case(name, variant, hyper={**hyper, "seed": seed})
            layer = randomise(fresh(case), 0.3)
            if name == "fourierft":
                with torch.no_grad():
                    layer.tensors["c"].fill_(1.0)
            outputs.append(layer(inputs(case, 3)))
        assert torch.equal(outputs[0], outputs[1]) and not torch.allclose(outputs[0], outputs[2])


@pytest.mark.parametrize("name", PLAIN)
def test_check_finds_nothing(name: str) -> None:
    assert padp.check(name) == []


def test_every_variant_has_a_case() -> None:
    wanted = {(name, variant) for name in PLAIN for variant in padp.compile(name).variants or (None,)}
    covered = {(c.name, c.variant or (c.adapter.variants or (None,))[0]) for c in CASES if c.name in PLAIN}
    assert covered == wanted
