"""What torch sees when it looks on: no questions about the number of tokens, and nothing that outlives the look.

Every adapter, on a layer that is large enough for routines to be chosen by size (``compiler/kernels/products.py``).
Beside it stands the plain layer: an adapted one may have no narrower range of tokens and no more graphs than that.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import padp
from padp.compiler.library import library
from tests.library.test_compiled import CASES
from tests.support.common import Case, close, inputs, learned, trained

N, M = 320, 256
"""512 tokens or 3: on either side of every threshold."""
TOKENS = (3, 5, 40, 600)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch's own, of its tracers
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=torch.jit._trace.TracerWarning)  # sizes of parameters are constants  # pyright: ignore[reportAttributeAccessIssue]
        yield
    torch.compiler.reset()


def adapted(case: Case | None, m: int = M, n: int = N) -> nn.Module:
    """A layer with an adapter that does something; the plain layer without a case."""
    torch.manual_seed(0)
    layer: nn.Module = nn.Linear(n, m)
    if case is not None:
        layer = padp.compile(case.name)(layer, variant=case.variant, **case.hyper)
        with torch.no_grad():
            for p in layer.parameters():
                if p.requires_grad:
                    p.add_(0.05 * torch.randn_like(p))
    return layer


def agree(y: object, wanted: Tensor) -> None:
    """Equal to single precision, of the largest number there."""
    assert isinstance(y, Tensor) and y.shape == wanted.shape
    assert (y - wanted).abs().max() <= 2e-6 * wanted.abs().max()


def tokens(t: int, n: int = N) -> Tensor:
    return torch.randn(t, n, generator=torch.Generator().manual_seed(t))


# ---------------------------------------------------------------- no questions about sizes


HEAVY = ("lora", "dora", "goft", "boft", "fourierft", "randlora")
"""Of these every case is run always; of the others with ``--thorough``."""
SOME = [pytest.param(c, id=str(c), marks=() if c.name in HEAVY else pytest.mark.thorough) for c in CASES]


@pytest.mark.parametrize("case", SOME)
def test_an_exported_layer_takes_any_number_of_tokens(case: Case) -> None:
    """As a plain layer does: any from 2 on where nothing is said, and a range that has a name."""
    layer = adapted(case).eval()
    with torch.no_grad():
        free = torch.export.export(layer, (tokens(3),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        (found,) = free.range_constraints.values()
        assert (int(cast(Any, found.lower)), str(found.upper)) == (2, "int_oo")
        for t in TOKENS:
            agree(free.module()(tokens(t)), layer(tokens(t)))


@pytest.mark.parametrize("name", ["lora", "dora", "oft", "goft", "fourierft", "svft"])
@pytest.mark.parametrize("training", [True, False])
def test_a_named_range_of_tokens(name: str, training: bool) -> None:
    layer = adapted(next(c for c in CASES if c.name == name)).train(training)
    batch = torch.export.Dim("batch", max=1000)
    made = torch.export.export(layer, (tokens(3),), dynamic_shapes=({0: batch},)).module()
    for t in TOKENS:
        agree(made(tokens(t)), layer(tokens(t)))


def graphs(model: nn.Module, training: bool) -> int:
    """How many graphs torch.compile makes of a model over all numbers of tokens."""
    torch.compiler.reset()  # which numbers were seen before is remembered
    counter = CompileCounter()
    compiled = torch.compile(model.train(training), backend=counter, fullgraph=True)
    first = next(m for m in model.modules() if isinstance(m, nn.Linear))
    with torch.set_grad_enabled(training):
        for t in TOKENS:
            compiled(tokens(t, first.in_features))
    return counter.frame_count


@pytest.mark.parametrize("case", SOME)
def test_no_more_graphs_than_a_plain_layer(case: Case) -> None:
    assert [graphs(adapted(case), mode) for mode in (True, False)] == [2, 2]


def test_a_plain_layer_has_two_graphs() -> None:
    assert [graphs(adapted(None), mode) for mode in (True, False)] == [2, 2]


@pytest.mark.parametrize("name", ["lora", "dora", "goft", "randlora"])
def test_a_model_with_layers_of_many_sizes(name: str) -> None:
    """Constants of one size must not be taken for another's, and a size more is no graph more."""
    case = next(c for c in CASES if c.name == name)
    sizes = [64 + 16 * i for i in range(13 if name == "lora" else 4)]

    def chain() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))

    model = padp.attach(chain(), padp.compile(name), variant=case.variant, **case.hyper)
    wanted = [model(tokens(t, sizes[0])) for t in TOKENS]
    for mode in (True, False):
        assert graphs(model, mode) == graphs(chain(), mode) == 2
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for t, y in zip(TOKENS, wanted, strict=True):
        agree(compiled(tokens(t, sizes[0])), y)


# ---------------------------------------------------------------- nothing outlives the look

Look = Callable[[nn.Module, Tensor], None]


def _exported(layer: nn.Module, x: Tensor) -> None:
    torch.export.export(layer, (x,))


def _jit_traced(layer: nn.Module, x: Tensor) -> None:
    made: Any = torch.jit.trace(layer, x)
    for t in (1, 3, 7):
        close(made(x.repeat(t, 1)), layer(x.repeat(t, 1)), 1e-12)


def _made_fx(layer: nn.Module, x: Tensor) -> None:
    make_fx(layer, tracing_mode="symbolic", _allow_non_fake_inputs=True)(x)


def _made_fake(layer: nn.Module, x: Tensor) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer(torch.empty(x.shape, dtype=x.dtype))


def _compiled(layer: nn.Module, x: Tensor) -> None:
    torch.compile(layer, backend="eager", fullgraph=True)(x)


def _mapped(layer: nn.Module, x: Tensor) -> None:
    torch.func.vmap(layer)(x)


def _of_other_tensors(layer: nn.Module, x: Tensor) -> None:
    other = {name: p.detach() + 1 for name, p in layer.named_parameters() if p.requires_grad}
    torch.func.functional_call(layer, other, (x,))


def _of_many(layer: nn.Module, x: Tensor) -> None:
    """An ensemble: every learned tensor has an axis more."""
    many = {name: torch.stack([p.detach(), p.detach() + 1]) for name, p in layer.named_parameters() if p.requires_grad}
    torch.func.vmap(lambda own: torch.func.functional_call(layer, own, (x,)))(many)


def _in_inference_mode(layer: nn.Module, x: Tensor) -> None:
    with torch.inference_mode():
        layer(x)


LOOKS: list[Look] = [_jit_traced, _made_fake, _mapped, _of_other_tensors, _of_many, _in_inference_mode,
                     _exported, _made_fx, _compiled]
SLOW = (_exported, _made_fx, _compiled)


def test_every_adapter_of_linear_sites_is_here() -> None:
    assert {c.name for c in CASES} == {n for n in library() if padp.compile(n).site == "linear"}


@pytest.mark.parametrize(("case", "look"), [
    pytest.param(case, look, id=f"{look.__name__.strip('_')}-{case}",
                 marks=() if case.name in HEAVY or look not in SLOW else pytest.mark.thorough)
    for case in CASES for look in LOOKS])
def test_after_a_look_everything_is_as_before(case: Case, look: Look) -> None:
    """Cold, and again when values are kept: later results are those of a layer that nobody looked into, with gradients.
    """
    layer, twin = trained(case).eval(), trained(case).eval()
    x = inputs(case, 6)
    with torch.no_grad():
        for warm in (False, True):
            if warm:
                layer(x)
            look(layer, x)
            assert torch.equal(layer(x), twin(x))
    for each in (layer, twin):
        each.train()
        each(x).square().sum().backward()
    for (name, p), q in zip(learned(layer).items(), learned(twin).values(), strict=True):
        assert p.grad is not None and q.grad is not None and torch.equal(p.grad, q.grad), name


def test_no_cache_holds_a_tensor() -> None:
    """When layers are gone, so are all tensors that were made for them, whoever looked on."""
    def alive() -> int:
        gc.collect()
        return sum(isinstance(o, Tensor) for o in gc.get_objects())

    def everything() -> None:
        for case in CASES:
            layer, x = trained(case).eval(), inputs(case, 6)
            with torch.no_grad():
                for look in (_made_fake, _in_inference_mode):  # torch itself keeps fake ones after an export
                    look(layer, x)
                layer(x)
            layer.train()(x).sum().backward()
        torch.compiler.reset()

    def fake() -> int:
        return sum(isinstance(o, FakeTensor) for o in gc.get_objects())

    everything()
    before, false = alive(), fake()  # torch itself keeps some after an export
    everything()
    assert alive() <= before and fake() <= false
