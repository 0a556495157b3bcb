"""Writes into the tensors of an adapter between two evaluations: the numbers are those of the tensors of now."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import padp
from padp.compiler.module.module import AdapterModule, Tokens
from padp.compiler.module.site import LinearSite
from tests.support.common import Case, close, inputs, learned, only, trained
from tests.support.programs import HEADS
from tests.support.writes import LIBRARY, WRITES, Write, agree


def evaluated(layer: LinearSite, x: Tensor) -> Tensor:
    """The output, and whatever is kept for the next call is kept."""
    with torch.no_grad():
        layer(x)
        return cast(Tensor, layer(x))


@pytest.mark.parametrize("tokens", ["many", "one"])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
@pytest.mark.parametrize("case", LIBRARY, ids=str)
def test_a_write_into_learned_tensors_is_seen(case: Case, write: Write, tokens: Tokens) -> None:
    layer = trained(case).eval()
    module = only(layer)
    module.expect(tokens)
    x = inputs(case, 1 if tokens == "one" else 4)
    before = evaluated(layer, x)
    for key in learned(module):
        write(module, key, cast(Tensor, getattr(module, key)).detach() * 1.3 + 0.1)
    after = evaluated(layer, x)
    with torch.no_grad():
        close(after, layer.reference(x), 1e-9)
        assert torch.equal(after, copy.deepcopy(layer)(x)), "a copy keeps nothing"
    assert not torch.allclose(after, before, atol=1e-3)


@pytest.mark.parametrize("case", LIBRARY, ids=str)
def test_every_way_to_the_output_after_a_write(case: Case) -> None:
    layer, x = trained(case).eval(), inputs(case, 4)
    agree(layer, x)
    evaluated(layer, x)
    for p in learned(only(layer)).values():
        p.data.mul_(1.2)
    agree(layer, x)


@pytest.mark.parametrize("case", LIBRARY, ids=str)
def test_averaged_weights(case: Case) -> None:
    """An averaged copy is swapped in for evaluation, and the trained weights come back after it."""
    layer, x = trained(case).eval(), inputs(case, 4)
    own = list(learned(layer).values())
    average = [p.detach() * 0.7 + 0.1 for p in own]
    mine = [p.detach().clone() for p in own]
    first = evaluated(layer, x)
    for p, a in zip(own, average, strict=True):
        p.data.copy_(a)
    with torch.no_grad():
        close(evaluated(layer, x), layer.reference(x), 1e-9)
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(mine), own)
    assert torch.equal(evaluated(layer, x), first)


@pytest.mark.parametrize("case", LIBRARY, ids=str)
def test_one_number_of_a_learned_tensor(case: Case) -> None:
    """Comparing is exact: the last bit of the last number counts."""
    layer, x = trained(case).eval(), inputs(case, 4)
    evaluated(layer, x)
    for p in learned(layer).values():
        last = p.data.view(-1)[-1:]
        last.copy_(torch.nextafter(last, last + 1))
    assert torch.equal(evaluated(layer, x), evaluated(copy.deepcopy(layer), x))


def test_maps_of_heads(opt: Any, batch: dict[str, Tensor]) -> None:
    padp.attach(opt, HEADS)
    with torch.no_grad():
        before = opt(**batch).logits
        for p in padp.trainable(opt):
            p.data.mul_(1.5)
        after = opt(**batch).logits
        assert not torch.allclose(after, before, atol=1e-3)
        assert torch.equal(copy.deepcopy(opt)(**batch).logits, after)


def test_hidden_states() -> None:
    module = cast(AdapterModule, padp.compile("reft").build(
        {"d": 12}, variant=None, hyper={"r": 3, "positions": "all"}, weight=None, bias=None, dtype=torch.float64,
        device=torch.device("cpu"))).eval()
    h = torch.randn(5, 12, dtype=torch.float64)
    with torch.no_grad():
        before = module(h, None)
        for p in module.parameters():
            p.data.add_(0.2)
        after = module(h, None)
        assert not torch.allclose(after, before, atol=1e-3)
        assert torch.equal(copy.deepcopy(module)(h, None), after)
