"""What is computed from parameters only is kept in eval without gradients, and never when it is out of date."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import padp
from padp.compiler.module.site import LinearSite
from tests.support.common import Case, close, inputs, learned, only, trained
from tests.support.programs import HEADS

CASES = [Case("oft", hyper={"k": 4}), Case("dora", hyper={"r": 4}), Case("antipasto", hyper={"k": 3})]
Write = Callable[[LinearSite], Any]


def kept(layer: LinearSite) -> list[int]:
    """Where the kept values lie; none when nothing is kept."""
    held = only(layer)._held  # pyright: ignore[reportPrivateUsage]
    return [] if held is None else [t.data_ptr() for t in held.values]


def filled(layer: LinearSite) -> None:
    """Run it so that the values are kept, and make sure that they are used again."""
    layer.eval()
    with torch.no_grad():
        x = torch.randn(3, layer.in_features, dtype=layer.weight.dtype)
        layer(x)
        first = kept(layer)
        layer(x)
    assert first and kept(layer) == first


def step(fused: bool) -> Write:
    """One step of an optimiser, its gradients made before the values were kept."""

    def write(layer: LinearSite) -> None:
        parameters = list(learned(layer).values())
        for p in parameters:
            p.grad = torch.ones_like(p)
        torch.optim.Adam(parameters, lr=0.3, fused=fused).step()

    return write


@torch.no_grad()
def in_place(layer: LinearSite) -> None:
    for p in learned(layer).values():
        p.add_(0.2)


@torch.no_grad()
def replaced(layer: LinearSite) -> None:
    for p in learned(layer).values():
        p.data = p.data + 0.2


def loaded(layer: LinearSite) -> None:
    layer.load_state_dict({key: t + 0.2 if key in learned(layer) else t for key, t in layer.state_dict().items()})


def assigned(layer: LinearSite) -> None:
    state = {key: t + 0.2 if key in learned(layer) else t.clone() for key, t in layer.state_dict().items()}
    layer.load_state_dict(state, assign=True)


def written_in_training(layer: LinearSite) -> None:
    in_place(layer.train())
    layer.eval()


def to_and_fro(layer: LinearSite) -> None:
    layer.merge()
    layer.unmerge()


WRITES: dict[str, Write] = {
    "fused": step(True), "plain": step(False), "in place": in_place, "data": replaced, "load": loaded,
    "assign": assigned, "mode": written_in_training, "dtype": lambda layer: layer.float().double(), "merge": to_and_fro,
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_change_is_seen(case: Case, write: Write) -> None:
    layer, x = trained(case), inputs(case, 4)
    filled(layer)
    write(layer)
    with torch.no_grad():
        close(layer(x), layer.reference(x), 1e-6)
        close(layer(x), copy.deepcopy(layer)(x), 1e-12)  # a copy keeps nothing


@pytest.mark.parametrize("case", CASES, ids=str)
def test_other_tensors_for_one_call(case: Case) -> None:
    """torch.func puts other parameters in the place of the module's, one set or many at once."""
    layer, x = trained(case), inputs(case, 4)
    filled(layer)
    with torch.no_grad():
        own = learned(layer)
        other = {name: p.detach() + 0.2 for name, p in own.items()}
        moved = copy.deepcopy(layer)
        moved.load_state_dict({**layer.state_dict(), **other})
        close(torch.func.functional_call(layer, other, (x,)), moved(x), 1e-12)
        both = {name: torch.stack([p.detach(), other[name]]) for name, p in own.items()}

        def call(values: dict[str, Tensor]) -> Tensor:
            return cast(Tensor, torch.func.functional_call(layer, values, (x,)))

        close(torch.vmap(call)(both), torch.stack([layer(x), moved(x)]), 1e-10)
        close(layer(x), layer.reference(x), 1e-10)


def test_precisions_of_autocast_are_kept_apart() -> None:
    case = Case("oft", hyper={"k": 4})
    layer, x = trained(case, dtype=torch.float32), inputs(case, 4, dtype=torch.float32)
    layer.eval()
    with torch.no_grad():
        exact = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            layer(x)
        assert torch.equal(layer(x), exact)
        layer.drop_cache()
        with torch.autocast("cpu", torch.bfloat16):
            layer(x)
        assert torch.equal(layer(x), exact)


def test_gradients_are_not_cut_by_what_is_kept() -> None:
    case = CASES[0]
    layer = trained(case)
    filled(layer)
    layer(inputs(case, 4)).sum().backward()
    assert all(p.grad is not None for p in learned(layer).values())


def test_values_kept_in_inference_mode_serve_outside() -> None:
    case = CASES[0]
    layer, x = trained(case).eval(), inputs(case, 4)
    with torch.inference_mode():
        y = layer(x)
    with torch.no_grad():
        close(layer(x), y.clone(), 1e-12)
    layer(x).sum().backward()


def test_maps_of_heads_are_kept_and_dropped(opt: Any, batch: dict[str, Tensor]) -> None:
    padp.attach(opt, HEADS)
    with torch.no_grad():
        first = opt(**batch).logits
        assert torch.equal(opt(**batch).logits, first)
        for p in padp.trainable(opt):
            p.grad = torch.ones_like(p)
        torch.optim.SGD(padp.trainable(opt), lr=0.1, fused=True).step()
        second = opt(**batch).logits
        assert not torch.allclose(second, first, atol=1e-3)
        assert torch.equal(copy.deepcopy(opt)(**batch).logits, second)


def test_an_update_through_padp_is_seen() -> None:
    """``after backward`` writes to tensors; what is kept is from after it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6))
    padp.attach(model, padp.compile("adalora"), r=4, target=1, steps=1)
    x = torch.randn(5, 6)
    with torch.no_grad():
        for p in padp.trainable(model):
            p.add_(0.3)
    model(x).square().sum().backward()
    model.eval()
    with torch.no_grad():
        before = model(x)
        padp.update(model)
        padp.update(model)
        assert not torch.allclose(model(x), before, atol=1e-4)
        assert torch.equal(copy.deepcopy(model)(x), model(x))
