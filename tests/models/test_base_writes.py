"""The base's weights and frozen tensors change or are trained after an adapter was attached: right numbers, or E511."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import padp
from padp.compiler.module.site import LinearSite
from tests.support.common import Case, base_layer, close, inputs, learned, only, randomise, trained
from tests.support.writes import LIBRARY, WRITES, Write, agree, in_inference_mode

FROZEN = [(case, symbol) for case in LIBRARY for symbol, space in case.adapter.parameters.items() if "frozen" in space]
FROM_W = [case for case in LIBRARY if case.name in ("delora", "psoft", "ssvd", "svft", "antipasto")]
STARTED = [case for case in LIBRARY if case.name in ("dora", "pissa")]


def weight_of(layer: LinearSite) -> Tensor:
    return cast(Tensor, layer.base.weight)


def warm(layer: LinearSite, x: Tensor) -> None:
    with torch.no_grad():
        layer(x)
        layer(x)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
@pytest.mark.parametrize("case", [*FROM_W, *STARTED], ids=str)
def test_a_write_into_the_base(case: Case, write: Write) -> None:
    """What was computed from W is what the W of now gives; where a learned tensor started from it, it is refused."""
    layer, x = trained(case).eval(), inputs(case, 4)
    warm(layer, x)
    torch.manual_seed(5)
    write(layer.base, "weight", torch.randn(case.m, case.n, dtype=torch.float64))
    if case in STARTED:
        for call in (lambda: layer(x), layer.merge, lambda: layer.train()(x)):
            with torch.no_grad(), pytest.raises(padp.PadpError, match="started from those that were there"):
                call()
        only(layer).compute_anew(*layer.given())
    agree(layer, x)


@pytest.mark.parametrize("case", LIBRARY, ids=str)
def test_scaled_in_place_and_nothing_called_in_between(case: Case) -> None:
    model = nn.Sequential(base_layer(case))
    padp.attach(model, case.adapter, **case.hyper)
    site, x = randomise(cast(LinearSite, model[0]), 0.3), inputs(case, 4)
    with torch.no_grad():
        weight_of(site).mul_(2.0)
        cast(Tensor, site.base.bias).add_(1.0)
    padp.refresh(model)
    agree(site, x)


@pytest.mark.parametrize("write", [w for w in WRITES.values() if w is not in_inference_mode],
                         ids=[k for k, w in WRITES.items() if w is not in_inference_mode])
@pytest.mark.parametrize(("case", "symbol"), FROZEN, ids=str)
def test_a_write_into_a_frozen_tensor(case: Case, symbol: str, write: Write) -> None:
    layer, x = trained(case).eval(), inputs(case, 4)
    warm(layer, x)
    module = only(layer)
    old = layer.tensors[symbol]
    write(module, module.names[symbol], old.detach() * 1.5 + 0.1)
    agree(layer, x)


@pytest.mark.parametrize("case", [*FROM_W, *STARTED], ids=str)
def test_equal_numbers_elsewhere_are_no_change(case: Case) -> None:
    """Moved, copied, stored in another precision and back: kept values stay, bit for bit."""
    layer, x = trained(case).eval(), inputs(case, 4)
    kept = {k: t for k, t in only(layer).named_buffers() if k.startswith("kept_")}
    cast(Any, layer.base).weight = nn.Parameter(weight_of(layer).detach().clone(), requires_grad=False)
    for twin in (layer, copy.deepcopy(layer)):
        warm(twin, x)
        assert all(torch.equal(t, kept[k]) for k, t in only(twin).named_buffers() if k.startswith("kept_"))
    assert all(dict(only(layer).named_buffers())[k] is t for k, t in kept.items())
    layer.float()
    warm(layer, x.float())
    warm(layer.double(), x)


@pytest.mark.parametrize("tokens", [5, 1])
@pytest.mark.parametrize("case", LIBRARY, ids=str)
def test_gradients_towards_a_base_that_is_trained_too(case: Case, tokens: int) -> None:
    """Every gradient is the literal reading's: nothing that was computed from W is a constant, but what is detached."""
    layer = trained(case)
    layer.base.requires_grad_()
    only(layer).expect("one" if tokens == 1 else "many")
    x = inputs(case, tokens).requires_grad_()
    own: dict[str, Tensor] = {"x": x, "W": weight_of(layer), "bias": cast(Tensor, layer.base.bias),
                              **learned(only(layer))}
    weights = torch.randn(tokens, case.m, dtype=torch.float64)
    for _ in range(2):
        fast, slow = layer(x), layer.reference(x)
        close(fast, slow, 1e-9)
        one, other = (torch.autograd.grad((y * weights).sum(), list(own.values()), allow_unused=True,
                                          materialize_grads=True) for y in (fast, slow))
        for name, a, b in zip(own, one, other, strict=True):
            assert (a - b).abs().max() <= 1e-8 * max(1.0, float(b.abs().max())), f"gradient of {name}"
        with torch.no_grad():  # a step of an optimiser
            weight_of(layer).sub_(0.01 * one[1])
    with torch.no_grad():
        close(layer.eval()(x), layer.reference(x), 1e-9)
        weight_of(layer).mul_(1.1)
        close(layer(x), layer.reference(x), 1e-9)


def test_what_is_detached_is_a_constant_for_the_base_too() -> None:
    cut = padp.compile("""
adapter Cut(r = 2) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = kaiming
y ← (W + detach(‖W‖_row) ⊙ (B @ A)) @ x + detach(W) @ x
""")
    base = nn.Linear(6, 5).double()
    layer = cast(LinearSite, cut(base))
    base.weight.requires_grad_()
    x = torch.randn(3, 6, dtype=torch.float64)
    one, other = (torch.autograd.grad(y.sum(), base.weight)[0] for y in (layer(x), layer.reference(x)))
    close(one, other)
    close(one, x.sum(0).expand(5, 6).clone())


@pytest.mark.parametrize("case", [*FROM_W, *STARTED], ids=str)
def test_weights_lent_for_one_call(case: Case) -> None:
    """torch.func puts other weights in the place of the base's, many at once."""
    layer, x = trained(case).eval(), inputs(case, 4)
    warm(layer, x)
    W = weight_of(layer).detach()
    both = torch.stack([W, W.flip(0)])

    def call(weight: Tensor) -> Tensor:
        return cast(Tensor, torch.func.functional_call(layer, {"base.weight": weight}, (x,)))

    with torch.no_grad():
        made = torch.vmap(call)(both)
        close(made[0], layer.reference(x), 1e-9)
        other = copy.deepcopy(layer)
        weight_of(other).copy_(both[1])
        only(other).compute_anew(*other.given())
        close(made[1], other.reference(x), 1e-9)
        close(layer(x), layer.reference(x), 1e-9)


def test_a_base_that_is_trained_too_and_torch_compile() -> None:
    case = STARTED[0]
    layer = trained(case)
    layer.base.requires_grad_()
    x = inputs(case, 4)
    wanted = layer(x)
    compiled = cast(Any, torch.compile(layer, fullgraph=True, backend="eager"))
    close(compiled(x), wanted, 1e-9)
