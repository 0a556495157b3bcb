"""SVFT, SSVD, AntiPaSTO, GOFT, HRA, RandLoRA, FourierFT and PSOFT: the laws that every adapter keeps, at odd sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import padp
import padp.stdlib
from tests.stdlib.common import LAWS, Case, Law, base_layer, law_name, only

NAMES = ("svft", "ssvd", "antipasto", "goft", "hra", "randlora", "fourierft", "psoft", "clover", "reft")

CASES = [
    *(Case("svft", v, n, m, {"count": 11, "d": 2}) for v in ("plain", "banded", "random", "topk")
      for n, m in ((12, 8), (9, 15), (7, 7))),
    *(Case("ssvd", v, n, m, {"k": 3}) for v in ("exact", "paper") for n, m in ((12, 8), (9, 15))),
    Case("ssvd", "exact", 12, 8, {"k": 8}), Case("ssvd", "exact", 5, 6, {"k": 1}),
    *(Case("antipasto", v, n, m, {"k": 3}, None if v == "steer" else 0.0) for v in ("steer", "seed")
      for n, m in ((12, 8), (9, 15))),
    Case("antipasto", "steer", 12, 8, {"k": 4, "α": -1, "θ_max": 0.5}, None),
    *(Case("goft", v, n, m) for v in ("tree", "quasi") for n, m in ((12, 8), (9, 15), (2, 3))),
    *(Case("hra", None, n, m, {"r": r}, 1e-15) for n, m, r in ((12, 8, 4), (9, 15, 2))),
    Case("hra", None, 12, 8, {"r": 4, "λ": 0.1}, 1e-15),
    *(Case("randlora", v, n, m, {"r": r, "α": 2 * r}) for v in ("bases", "peft")
      for n, m, r in ((12, 8, 3), (9, 15, 3), (8, 12, 4), (6, 6, 4))),
    *(Case("fourierft", v, n, m, {"k": 10, "α": 20}, None if v == "paper" else 0.0) for v in ("zero", "paper")
      for n, m in ((12, 8), (9, 15))),
    *(Case("psoft", v, n, m, {"r": 3}) for v in ("input", "seed", "peft") for n, m in ((12, 8), (9, 15))),
]  # fmt: skip


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
    assert all(len(line) <= 120 for line in lines)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("clover", "reft")])
def test_nothing_of_the_weights_size_is_kept(name: str) -> None:
    """Beside W a site holds less than half of it, in all its tensors together; SVFT holds U and Vᵀ, as it must."""
    for variant in padp.compile(name).variants or (None,):
        for n, m in ((192, 256), (256, 192)):
            case = Case(name, variant, n, m, {"d": 0, "count": 50} if name == "svft" else {})
            layer = padp.compile(name)(base_layer(case, dtype=torch.float32), variant=variant, **case.hyper)
            own = [t for t in only(layer).state_dict().values()]
            shared = sum(t.numel() for s in only(layer).shared for t in [getattr(only(layer), s)])
            kept = sum(t.numel() for t in own) - shared
            if name == "svft":
                assert kept <= (n + m) * min(n, m) + 200
            else:
                assert kept < n * m / 2, {k: tuple(t.shape) for k, t in only(layer).state_dict().items()}
