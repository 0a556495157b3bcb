"""torch.compile and torch.export of adapted layers: one graph, the same outputs; a knob compiles nothing anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from torch import Tensor, fx

import padp
from tests.support.common import Case, close, inputs, learned, only, trained

CASES = [
    Case("lora", hyper={"r": 4}), Case("oft", hyper={"k": 4}), Case("vera", hyper={"r": 5}), Case("ia3", "attention"),
    Case("dora", hyper={"r": 4}), Case("delora", hyper={"r": 4}), Case("pissa", hyper={"r": 4}), Case("svft", "banded"),
    Case("ssvd", hyper={"k": 3}), Case("road"), Case("antipasto", hyper={"k": 3}), Case("goft"),
    Case("adalora", hyper={"r": 4, "steps": 9}), Case("boft", hyper={"k": 2, "F": 2}), Case("hra", hyper={"r": 4}),
    Case("randlora", hyper={"r": 4}), Case("fourierft", hyper={"k": 10}), Case("psoft", hyper={"r": 3}),
]


class Counter:
    """A backend that runs a graph as it is and counts the graphs."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: fx.GraphModule, example: list[Tensor]) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_graph(case: Case) -> None:
    """In training with its gradients, and in eval, where what would be kept is computed inside the graph."""
    layer, counter = trained(case), Counter()
    x = inputs(case, 3, 4)
    compiled = torch.compile(layer, fullgraph=True, backend=counter)
    y = layer(x)
    close(compiled(x), y, 1e-12)
    leaves = list(learned(layer).values())
    one = torch.autograd.grad(compiled(x).square().sum(), leaves)
    other = torch.autograd.grad(y.square().sum(), leaves)
    for a, b in zip(one, other, strict=True):
        close(a, b, 1e-10)
    assert counter.graphs == 1
    layer.eval()
    with torch.no_grad():
        close(compiled(x), y.detach(), 1e-12)
    assert counter.graphs == 2


@pytest.mark.parametrize("case", CASES, ids=str)
def test_export(case: Case) -> None:
    """For any number of tokens."""
    layer = trained(case).eval()
    tokens = torch.export.Dim.AUTO
    with torch.no_grad():
        made = torch.export.export(layer, (inputs(case, 3, 4),), dynamic_shapes=({0: tokens, 1: tokens},)).module()
        for shape in ((3, 4), (2, 7)):
            x = inputs(case, *shape)
            close(cast(Tensor, made(x)), layer(x), 1e-12)


def test_a_knob_compiles_nothing_anew() -> None:
    """−1, 0 and 1 are values of one tensor, read at every call."""
    case = Case("antipasto", hyper={"k": 3})
    for mode in (True, False):
        layer, counter = trained(case).train(mode), Counter()
        compiled = torch.compile(layer, fullgraph=True, backend=counter)
        x = inputs(case, 5)
        with torch.set_grad_enabled(mode):
            for strength in (1.0, -1.0, 0.0, 0.5):
                layer.set_knob("α", strength)
                close(compiled(x), layer(x), 1e-12)
            layer.set_knob("α", 0.0)
            close(compiled(x), layer.base(x), 1e-12)
        assert counter.graphs == 1


def test_a_knob_survives_a_change_of_precision() -> None:
    layer = trained(Case("antipasto", hyper={"k": 3}))
    layer.set_knob("α", 0.1)
    before = layer(inputs(Case("antipasto"), 5))
    layer.half().double()
    knobs = [b for name, b in only(layer).named_buffers() if name.startswith("knob_")]
    assert [float(k) for k in knobs] == [0.1] and knobs[0].dtype == torch.float64
    assert before.shape == layer(inputs(Case("antipasto"), 5)).shape
    assert not any("knob" in key for key in layer.state_dict())


def test_every_adapter_of_linear_sites_is_here() -> None:
    from padp.compiler.library import library

    assert {c.name for c in CASES} == {n for n in library() if padp.compile(n).site == "linear"}
