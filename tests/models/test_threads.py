"""Other threads merge, switch, turn knobs or train while a layer is called: each call sees one state of it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import padp
from padp.compiler.module.moments import Moments, in_one_state
from padp.compiler.module.site import LinearSite
from tests.support.common import Case, close, inputs, learned, trained
from tests.support.programs import HEADS
from tests.support.writes import LIBRARY

CALLS = 150


@contextmanager
def meanwhile(change: Callable[[], object]) -> Generator[list[BaseException], None, None]:
    """``change`` again and again in another thread, with threads taking turns often."""
    over, errors = threading.Event(), cast("list[BaseException]", [])

    def run() -> None:
        try:
            while not over.is_set():
                change()
        except BaseException as error:
            errors.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield errors
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(before)
    assert not errors, errors[0]


def outputs(call: Callable[[], Tensor], change: Callable[[], object]) -> list[Tensor]:
    with torch.no_grad(), meanwhile(change):
        return [call() for _ in range(CALLS)]


def to_and_fro(layer: Any) -> Callable[[], object]:
    def change() -> None:
        layer.merge()
        layer.unmerge()

    return change


@pytest.mark.parametrize("case", LIBRARY, ids=str)
def test_merging(case: Case) -> None:
    """Merged or not, the output is the same: never the adapter twice, nor the new weight with the old bias."""
    layer, x = trained(case).eval(), inputs(case, 3)
    with torch.no_grad():
        wanted = layer(x)
        held = {key: t.clone() for key, t in layer.base.state_dict().items()}
    for y in outputs(lambda: layer(x), to_and_fro(layer)):
        close(y, wanted, 1e-9)
    assert all(torch.equal(t, held[key]) for key, t in layer.base.state_dict().items())


def one_of(made: list[Tensor], wanted: list[Tensor]) -> None:
    assert all(any(torch.allclose(y, w, rtol=1e-9, atol=1e-9) for w in wanted) for y in made)


def test_knobs() -> None:
    case = Case("antipasto", hyper={"k": 3})
    layer, x = trained(case).eval(), inputs(case, 3)
    values = [-1.0, 1.0]
    wanted: list[Tensor] = []
    with torch.no_grad():
        for value in values:
            layer.set_knob("α", value)
            wanted.append(layer(x))
    assert not torch.allclose(wanted[0], wanted[1])

    def change() -> None:
        for value in values:
            layer.set_knob("α", value)

    one_of(outputs(lambda: layer(x), change), wanted)


def test_knobs_that_are_set_together_change_together() -> None:
    text = """adapter T(knob α = 1, knob β = 1) on linear(W ∈ ℝ^{m×n})
B ∈ ℝ^{m×n}: learned, init = 0
y ← (W + α · B - β · B) @ x
"""
    model = nn.Sequential(nn.Linear(16, 16, dtype=torch.float64)).eval()
    padp.attach(model, padp.compile(text), ["0"])
    with torch.no_grad():
        for t in learned(model).values():
            t.normal_()
    x = torch.randn(3, 16, dtype=torch.float64)
    wanted = [model(x)]

    def change() -> None:
        for value in (5.0, 1.0):
            padp.set(model, α=value, β=value)

    one_of(outputs(lambda: cast(Tensor, model(x)), change), wanted)


@pytest.mark.parametrize("names", [("oft", "dora"), ("lora", "vera")])
def test_switching_and_disabling(names: tuple[str, str]) -> None:
    model = nn.Sequential(nn.Linear(32, 32, dtype=torch.float64)).eval()
    x = torch.randn(3, 32, dtype=torch.float64)
    with torch.no_grad():
        wanted = [model(x)]
        for name in names:
            padp.attach(model, padp.compile(name), name=name, active=False)
            for p in padp.trainable(model, name):
                p.add_(0.2)
            padp.activate(model, name)
            wanted.append(model(x))
            padp.activate(model, [])

    def change() -> None:
        for name in names:
            padp.activate(model, name)
            with padp.disabled(model):
                pass

    padp.activate(model, names[0])
    one_of(outputs(lambda: cast(Tensor, model(x)), change), wanted)


@pytest.mark.parametrize("case", [c for c in LIBRARY if c.name in ("dora", "oft", "boft", "ssvd")], ids=str)
def test_with_and_without_gradients_and_other_plans(case: Case) -> None:
    layer, x = trained(case).eval(), inputs(case, 1)
    with torch.no_grad():
        wanted = layer(x)
    module = layer.only()

    def change() -> None:
        with torch.enable_grad():
            layer(x).sum().backward()
        module.expect("one")
        layer(x)
        module.expect("many")

    for y in outputs(lambda: layer(x), change):
        close(y, wanted, 1e-9)


def test_maps_of_heads(opt: Any, batch: dict[str, Tensor]) -> None:
    padp.attach(opt, HEADS)
    with torch.no_grad():
        wanted = opt(**batch).logits

        def change() -> None:
            padp.merge(opt)
            padp.unmerge(opt)

        with meanwhile(change):
            for _ in range(20):
                close(opt(**batch).logits, wanted, 1e-4)


def test_merging_for_good() -> None:
    """The parameters stay the same objects, and a call has the adapter once, before and after."""
    model = nn.Sequential(nn.Linear(16, 16, dtype=torch.float64)).eval()
    own = list(model.parameters())
    padp.attach(model, padp.compile("lora"), r=2)
    site = cast(LinearSite, model[0])
    with torch.no_grad():
        for p in learned(site).values():
            p.add_(0.2)
        x = torch.randn(3, 16, dtype=torch.float64)
        wanted = model(x)
        padp.merge(model)
        padp.detach(model, keep_merged=True)
        close(site(x), wanted, 1e-9)
        close(model(x), wanted, 1e-9)
    assert all(a is b for a, b in zip(own, model.parameters(), strict=True))


def test_changes_wait_for_a_call_that_meets_too_many() -> None:
    moments = Moments()
    calls: list[int] = []

    def restless() -> int:
        calls.append(1)
        with moments.changing():
            return len(calls)

    assert in_one_state(moments, restless) == len(calls) > 1


def test_an_error_of_the_call_itself_is_raised() -> None:
    def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_one_state(Moments(), fails)
