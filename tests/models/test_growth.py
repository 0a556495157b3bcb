"""Cost grows with the work: counted in calls of Python functions, which are the same on every machine."""

from __future__ import annotations

import copy
import gc
import itertools
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import pytest
import torch
from torch import nn

import padp
import padp.models as pm
from padp.compiler.graph import compile as compiled
from padp.models.walk import sites


def calls(work: Callable[[], object]) -> int:
    """How many Python functions were called; the collector's own calls, which come when it likes, are kept out."""
    count = 0

    def seen(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    gc.collect()
    gc.disable()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def slope(cost: Callable[[int], int], at: int) -> float:
    """How much the second doubling adds in comparison with the first: 2 when cost is linear, 4 when it is quadratic."""
    cost(at)  # what is made once
    one, two, four = cost(at), cost(2 * at), cost(4 * at)
    return (four - two) / (two - one)


# ---------------------------------------------------------------- attaching


def stack(depth: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(16, 16, device="meta") for _ in range(depth)))


@pytest.mark.parametrize("name", ["lora", "pissa", "vera"])
def test_attaching_is_linear_in_layers(name: str) -> None:
    adapter = padp.compile(name)

    def attached(depth: int) -> int:
        model = stack(depth)
        count = calls(lambda: pm.attach(model, adapter, r=4))
        assert len(sites(model)) == depth
        return count

    assert slope(attached, 10) < 2.1


@pytest.mark.parametrize("work", ["detach", "merge", "copy", "update"])
def test_what_is_done_to_a_model_is_linear_in_layers(work: str) -> None:
    adapter = padp.compile("adalora")

    def done(depth: int) -> int:
        model = stack(depth).to_empty(device="cpu")
        for p in model.parameters():
            nn.init.normal_(p)
        pm.attach(model, adapter, r=4, steps=9)
        model(torch.randn(3, 16)).sum().backward()
        what: dict[str, Callable[[], Any]] = {"detach": lambda: pm.detach(model), "merge": lambda: pm.merge(model),
                                              "copy": lambda: copy.deepcopy(model), "update": lambda: pm.update(model)}
        return calls(what[work])

    assert slope(done, 8) < 2.1


def test_equal_shapes_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    real = compiled._compile.__wrapped__  # pyright: ignore[reportPrivateUsage]

    def counting(key: Any) -> Any:
        made.append(key)
        return real(key)

    monkeypatch.setattr(compiled, "_compile", lru_cache(maxsize=512)(counting))
    model = nn.Sequential(*stack(20), nn.Linear(16, 24, device="meta"), nn.Linear(16, 16, bias=False, device="meta"))
    pm.attach(model, padp.compile("lora"), r={"3": 2, "*": 4})
    assert len(made) == 4  # the shape of twenty, one of them of another rank; a wider one; one without a bias


def test_a_seven_billion_model_takes_little_for_a_layer() -> None:
    """224 layers of three shapes, 193,000 calls: a fifth of a second, most of it under the profiler."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = cast(nn.Module, LlamaForCausalLM(LlamaConfig()))
    adapter = padp.compile("lora")
    count = calls(lambda: pm.attach(model, adapter))
    assert len(sites(model)) == 224 and pm.summary(model).learned == 19_988_480
    assert count < 2_000 * 224


# ---------------------------------------------------------------- compiling


def sums(length: int) -> str:
    """A sum of low ranks, each with its own two tensors and its own statement."""
    names = range(length)
    return "\n".join([
        "adapter Sums(r = 2) on linear(W ∈ ℝ^{m×n})",
        *(f"A{i} ∈ ℝ^{{r×n}}: learned, init = kaiming\nB{i} ∈ ℝ^{{m×r}}: learned, init = 0" for i in names),
        *(f"D{i} ← B{i} @ A{i}" for i in names), f"y ← (W + {' + '.join(f'D{i}' for i in names)}) @ x", ""])


def steps(length: int) -> str:
    """Statements that each read the one before."""
    return "\n".join([
        "adapter Steps on linear(W ∈ ℝ^{m×n})",
        *(f"λ{i} ∈ ℝ^n: learned, init = 0" for i in range(length)), "z0 ← x",
        *(f"z{i + 1} ← λ{i} ⊙ tanh(z{i})" for i in range(length)), f"y ← W @ x + W @ z{length}", ""])


@pytest.mark.parametrize("program", [sums, steps])
def test_checking_and_compiling_are_linear_in_the_program(program: Callable[[int], str]) -> None:
    """Nearly: a doubling adds at most 2.5 times what the one before added."""
    turn = itertools.count()

    def text(length: int) -> str:  # another one each time: equal texts are read once
        return program(length) + "\n" * next(turn)

    def layered(length: int) -> int:
        adapter = padp.compile(text(length))
        return calls(lambda: adapter(nn.Linear(16, 16)))

    assert slope(lambda length: calls(lambda: padp.compile(text(length))), 8) < 2.5
    assert slope(layered, 8) < 2.5


def test_products_are_planned_in_polynomial_time() -> None:
    """A product of k rotations applied to x: 2ᵏ ways to multiply it out, of which k² are looked at."""

    def planned(length: int) -> int:
        text = "\n".join([
            "adapter Turns on linear(W ∈ ℝ^{m×n}) where n = b·4",
            *(f"Q{i} ∈ (ℝ^{{6}})^b: learned, init = 0" for i in range(length)), "R0 ← I",
            *(f"R{i + 1} ← blkdiag(cayley(skew(Q{i}))) @ R{i}" for i in range(length)),
            f"y ← (W @ R{length}ᵀ) @ x", ""])
        adapter = padp.compile(text)
        return calls(lambda: adapter(nn.Linear(16, 16)))

    planned(2)
    assert planned(6) < 2**3 * planned(3)
