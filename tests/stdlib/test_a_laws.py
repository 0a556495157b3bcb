"""Every law of tests/stdlib/common.py for ten of the twenty: LoRA to BOFT, all variants, odd and non-square sizes."""

from __future__ import annotations

import pytest

import padp
from tests.stdlib.common import LAWS, Case, Law, law_name

NAMES = ("lora", "oft", "vera", "dora", "delora", "pissa", "ia3", "road", "adalora", "boft")

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
]


@pytest.mark.parametrize("law", LAWS, ids=law_name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_law(case: Case, law: Law) -> None:
    law(case)


@pytest.mark.parametrize("name", NAMES)
def test_check_finds_nothing(name: str) -> None:
    assert padp.check(name) == []


def test_every_variant_has_a_case() -> None:
    wanted = {(name, variant) for name in NAMES for variant in padp.compile(name).variants or (None,)}
    covered = {(c.name, c.variant or (c.adapter.variants or (None,))[0]) for c in CASES}
    assert covered == wanted
