"""Each phase of a program runs once, whoever asks for what it gives; and asking again costs what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import padp
from padp.compiler import library as sources
from padp.compiler import phases
from padp.compiler.elaborate import cases as splitting
from padp.compiler.explain.plan import plan_of
from padp.compiler.ir.budget import budget, spend
from padp.compiler.library import library
from padp.compiler.plan.planner import Planner
from padp.dsl.source import Source

Counting = Callable[[Any, str], None]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a source is parsed, a variant resolved, and a program typed for all sizes."""
    found: Counter[str] = Counter()

    def count(module: Any, name: str, said: Callable[..., str]) -> None:
        real = getattr(module, name)

        def counted(*args: Any, **named: Any) -> Any:
            found[said(*args, **named)] += 1
            return real(*args, **named)

        monkeypatch.setattr(module, name, counted)

    count(sources, "parse", lambda source: "tree")
    count(phases, "resolve_leniently", lambda program, source, variant: f"names {variant}")
    count(splitting, "elaborate", lambda method, assume=(), **_: f"typed {method.variant} {len(assume)} {assume}")
    return found


@pytest.mark.parametrize("name", library())
def test_each_phase_runs_once(name: str, calls: Counter[str]) -> None:
    text = sources.load(name).text + "\n# told apart from what other tests have compiled\n"
    adapter = padp.compile(text)
    assert adapter.count is not None and adapter.capabilities and adapter.parameters and repr(adapter)
    for variant in adapter.variants or (None,):
        assert adapter.count_of(variant) is not None and adapter.capabilities_of(variant) and adapter.method(variant)
    padp.check(text)
    padp.compile(text)
    assert calls["tree"] == 1
    assert calls == dict.fromkeys(calls, 1), calls
    assert sum(key.startswith("names") for key in calls) == max(1, len(adapter.variants))


def test_layers_of_one_size_are_compiled_once(calls: Counter[str]) -> None:
    adapter = padp.compile(sources.load("lora").text + "\n# told apart from what other tests have compiled, too\n")
    one, other = (adapter(nn.Linear(6, 5), r=2) for _ in range(2))
    compiled = [layer.adapters["default"].compiled for layer in (one, other)]
    assert compiled[0] is compiled[1]
    assert calls == dict.fromkeys(calls, 1), calls
    assert torch.isfinite(one(torch.randn(2, 6))).all()


def test_what_is_known_costs_what_it_cost() -> None:
    """A budget does not have more left because somebody asked before."""
    source = Source.of("adapter T(r = 4) on linear(W ∈ ℝ^{m×n})\nA ∈ ℝ^{r×n}: learned, init = kaiming\n"
                       "B ∈ ℝ^{m×r}: learned, init = 0\ny ← (W + B @ A) @ x  # told apart\n")
    spent: list[int] = []
    for _ in range(3):
        with budget(source) as steps:
            variant = phases.program(source).variant(None)
            assert variant.method.name == "T" and len(variant.cases) == 1 and variant.counts and variant.capabilities
        spent.append(steps.limit - steps.left)
    assert spent[0] > 0 and spent == [spent[0]] * 3
    phases.program.cache_clear()
    known = phases.program(source).variant(None)
    assert known.cases  # without a budget
    with budget(source) as steps:
        assert known.cases
        spend(1)
    assert 1 < steps.limit - steps.left <= spent[0]


PLANNED: dict[str, tuple[dict[str, int], dict[str, Any]]] = {
    "lora": ({"m": 512, "n": 512}, {}), "oft": ({"m": 512, "n": 512}, {"k": 8}),
    "svft": ({"m": 512, "n": 512}, {"d": 1}), "randlora": ({"m": 512, "n": 512}, {"r": 8}),
    "clover": ({"d": 16, "e": 4, "H": 4, "G": 2}, {}), "reft": ({"d": 16}, {}),
}


@pytest.mark.parametrize("name", PLANNED)
def test_explaining_a_plan_makes_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, hyper = PLANNED[name]
    settings = padp.compile(name).settings(**hyper)
    usual = padp.compile(name).of(settings.variant).at(sizes, settings.hyper).compiled(False, tokens=77).usual

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("it plans")

    for method in ("__init__", "settle", "_apply"):
        monkeypatch.setattr(Planner, method, refused)
    plan = plan_of(usual)
    assert str(plan) and (plan.rules or name == "reft")  # which is written as it is computed
