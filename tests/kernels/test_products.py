"""Whichever routine computes a product: the same values and gradients, and nothing of it where torch looks in."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import padp
from padp.compiler.kernels import products
from padp.compiler.kernels.products import plain, plus_product, product, sum_applied
from padp.compiler.library import library
from padp.compiler.plan.steps import order

SIZES = [(1, 900, 800), (3, 900, 800), (300, 128, 130), (300, 700, 5), (300, 5, 700), (40, 64, 200)]
"""(vectors, n, k) on both sides of every threshold."""


@pytest.fixture(params=[False, True], ids=["this processor", "a foreign one"])
def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN on every processor, or as this one has it."""
    if request.param:
        if not torch.backends.mkldnn.is_available():
            pytest.skip("this torch has no oneDNN")
        monkeypatch.setattr(products, "foreign_processor", lambda: True)


def made(*shape: int, dtype: torch.dtype, grad: bool = True) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype, requires_grad=grad)


def agree(got: Tensor, wanted: Tensor, leaves: list[Tensor], tolerance: float) -> None:
    """Values, gradients, and gradients of the gradients' squares."""
    close(got, wanted, tolerance)
    slopes = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(9), dtype=wanted.dtype)
    first = [torch.autograd.grad(y, leaves, slopes, retain_graph=True) for y in (got, wanted)]
    for a, c in zip(*first, strict=True):
        assert a.shape == c.shape
        close(a, c, tolerance)
    slow = [torch.stack([g.square().sum() for g in torch.autograd.grad(y, leaves, slopes, create_graph=True)]).sum()
            for y in (got, wanted)]
    again = [torch.autograd.grad(s, leaves, allow_unused=True, materialize_grads=True) for s in slow]
    for a, c in zip(*again, strict=True):
        close(a, c, tolerance)


def close(got: Tensor, wanted: Tensor, tolerance: float) -> None:
    scale = max(wanted.detach().abs().max().item(), 1e-12)
    assert (got.detach() - wanted.detach()).abs().max().item() <= tolerance * scale


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.double, 1e-12), (torch.float, 2e-5)])
@pytest.mark.parametrize(("vectors", "n", "k"), SIZES)
@pytest.mark.parametrize("lead", [False, True])
def test_a_product_and_its_gradients(vectors: int, n: int, k: int, lead: bool, dtype: torch.dtype, tolerance: float
                                     ) -> None:
    v = made(*((1, vectors) if lead else (vectors,)), n, dtype=dtype)
    m, b = made(k, n, dtype=dtype), made(k, dtype=dtype)
    agree(product(v, m, b), F.linear(v, m, b), [v, m, b], tolerance)
    a = made(*v.shape[:-1], k, dtype=dtype)
    agree(plus_product(a, v, m, -3.0), a - 3 * F.linear(v, m), [a, v, m], tolerance)


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.double, 1e-12), (torch.float, 2e-5)])
def test_a_sum_applied_and_the_gradients_of_its_parts(dtype: torch.dtype, tolerance: float) -> None:
    v, a, left, right, b = (made(*s, dtype=dtype) for s in ((300, 120), (130, 120), (130, 40), (40, 120), (130,)))
    whole = (a - 2 * left @ right).detach()
    agree(sum_applied(v, whole, a, left, right, -2.0, b), F.linear(v, a - 2 * left @ right, b),
          [v, a, left, right, b], tolerance)


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("turned", [lambda t: t, lambda t: t.mT.contiguous().mT, lambda t: t.flip(0), lambda t: t[:, :1]
                                    .expand_as(t)])  # fmt: skip
def test_any_layout(turned: Any) -> None:
    v, m = turned(made(300, 200, dtype=torch.float, grad=False)), turned(made(150, 200, dtype=torch.float, grad=False))
    close(product(v, m), v.double() @ m.double().mT, 1e-5)
    close(plus_product(turned(torch.ones(300, 150)), v, m, 2.0), 1 + 2 * v.double() @ m.double().mT, 1e-5)


ROUTINES = """
import torch
from padp.compiler.kernels import products
products.foreign_processor = lambda: True
layouts = [lambda t: t, lambda t: t.mT.contiguous().mT, lambda t: torch.cat([t, t], -1)[:, :t.shape[1]],
           lambda t: torch.cat([t, t]).mT.contiguous().mT[:len(t)], lambda t: t[:, :1].expand_as(t)]
for T, n, k in ((1, 1024, 1024), (600, 384, 256), (600, 8, 1000), (600, 1000, 8)):
    for one in layouts:
        for other in layouts:
            v, m = one(torch.randn(T, n)), other(torch.randn(k, n))
            products.product(v, m), products.plus_product(one(torch.randn(T, k)), v, m, 2.0)
print("done")
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_onednn_is_never_asked_for_what_it_has_no_fast_routine_for() -> None:
    """Its reference routine, which serves every layout, takes seconds where the others take milliseconds."""
    said = subprocess.run([sys.executable, "-c", ROUTINES], check=True, capture_output=True, text=True,
                          env={**os.environ, "ONEDNN_VERBOSE": "1"}).stdout
    ran = [line for line in said.splitlines() if ",inner_product," in line or ",matmul," in line]
    assert "done" in said and ran
    assert not [line for line in ran if ",ref:" in line or ",ref_" in line]


@pytest.mark.usefixtures("anywhere")
def test_only_what_is_asked_for_gets_a_gradient_and_is_kept() -> None:
    v, m = made(300, 200, dtype=torch.float, grad=False), made(150, 200, dtype=torch.float)
    kept: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        kept.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = product(v, m)
    assert [t.data_ptr() for t in kept] == [v.data_ptr()]
    y.sum().backward()
    assert v.grad is None and m.grad is not None
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        product(v.requires_grad_(), m.detach())
    assert [t.data_ptr() for t in kept] == [m.data_ptr()]


@pytest.mark.usefixtures("anywhere")
def test_where_torch_looks_in_it_is_torchs_own() -> None:
    v, m = made(300, 200, dtype=torch.float, grad=False), made(150, 200, dtype=torch.float, grad=False)
    with FlopCounterMode(display=False) as counted:
        product(v, m)
    assert counted.get_total_flops() == 2 * 300 * 200 * 150
    torch.compiler.reset()
    traced = torch.compile(product, backend="eager", fullgraph=True)
    assert torch.equal(traced(v, m), F.linear(v, m))
    close(torch.func.vmap(product, (0, None))(v.reshape(3, 100, 200), m), F.linear(v, m).reshape(3, 100, 150), 1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert product(v, m).dtype == torch.bfloat16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own, when forward mode is first used
        close(torch.func.jvp(lambda v: product(v, m), (v,), (v,))[1], F.linear(v, m), 1e-5)


def test_no_vectors_at_all() -> None:
    assert product(torch.zeros(0, 2000), torch.zeros(1000, 2000)).shape == (0, 1000)
    assert plus_product(torch.zeros(0, 1000), torch.zeros(0, 2000), torch.zeros(1000, 2000), 2.0).shape == (0, 1000)


# ---------------------------------------------------------------- the base layer's product


class Own(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


def patched() -> nn.Linear:
    """As offloading does it: another forward on the object."""
    base = nn.Linear(64, 64)

    def forward(input: Tensor) -> Tensor:
        y: Tensor = F.linear(input, base.weight, base.bias)
        return y + 1

    base.forward = forward  # type: ignore[method-assign]
    return base


def hooked() -> nn.Linear:
    base = nn.Linear(64, 64)
    base.register_forward_hook(_one_more)
    return base


def _one_more(module: nn.Module, args: Any, y: Any) -> Any:
    return y + 1


def _plus_one(module: nn.Module, args: Any) -> Any:
    return (args[0] + 1,)


def beforehand() -> nn.Linear:
    base = nn.Linear(64, 64)
    base.register_forward_pre_hook(_plus_one)
    return base


def normed() -> nn.Module:
    base: nn.Module = nn.utils.parametrizations.weight_norm(nn.Linear(64, 64))
    return base


@pytest.mark.parametrize("make", [lambda: Own(64, 64), patched])
def test_a_base_layer_with_a_forward_of_its_own_is_refused(make: Any) -> None:
    base = make()
    assert not plain(base)
    with pytest.raises(padp.PadpError, match="E502"):
        padp.compile("lora")(base)


@pytest.mark.parametrize("make", [hooked, beforehand, normed])
@pytest.mark.parametrize("name", ["lora", "dora", "svft", "randlora"])
def test_whatever_a_base_layer_does_is_done(make: Any, name: str) -> None:
    base = make()
    assert not plain(base)
    wanted = base(x := torch.randn(5, 64))
    close(padp.compile(name)(base)(x), wanted, 1e-4)


def test_a_hook_on_all_modules_is_called() -> None:
    base, seen = nn.Linear(64, 64), list[nn.Module]()
    layer = padp.compile("lora")(base)
    layer(torch.randn(5, 64))
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, y: seen.append(module))
    try:
        layer(torch.randn(5, 64))
    finally:
        handle.remove()
    assert base in seen and plain(base)


# ---------------------------------------------------------------- plans for plain base layers

SUM = """
adapter Sum(k = 200) on linear(W ∈ ℝ^{m×n})
L ∈ ℝ^{m×k}: learned, init = 0
R ∈ ℝ^{k×n}: learned, init = kaiming
y ← (W + 3 · L @ R) @ x
"""
SPECTRUM = """
adapter Spectrum on linear(W ∈ ℝ^{m×n}) where q = min(m, n)
U, Σ, Vᵀ ← svd(W)
s ∈ ℝ^q: learned, init = 0
y ← W @ x + U @ diag(s) @ Vᵀ @ x
"""
PLAIN = {"sum": SUM, "spectrum": SPECTRUM, "svft": "svft", "randlora": "randlora"}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", PLAIN)
def test_plans_for_a_plain_layer_mean_the_same(name: str, bias: bool) -> None:
    base = nn.Linear(300, 320, bias=bias).double().requires_grad_(False)
    layer = padp.compile(PLAIN[name])(base, dtype=torch.double)
    with torch.no_grad():
        for p in layer.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).to(p))
    module: Any = layer.adapters["default"]
    assert module.compiled.on_plain is not None
    assert module.plans_on(base) is module.compiled.on_plain
    x = made(3, 11, 300, dtype=torch.double)
    learned = [x, *(p for p in layer.parameters() if p.requires_grad)]
    agree(layer(x), layer.reference(x), learned, 1e-10)
    handle = base.register_forward_hook(lambda module, args, y: None)
    assert module.plans_on(base) is module.compiled
    agree(layer(x), layer.reference(x), learned, 1e-10)
    handle.remove()
    layer.eval()
    with torch.no_grad():
        wanted = layer.reference(x)
        for _ in range(2):
            close(layer(x), wanted, 1e-10)
        handle = base.register_forward_hook(lambda module, args, y: None)
        close(layer(x), wanted, 1e-10)
        handle.remove()
        module.expect("one")
        close(layer(x[0, :1]), wanted[0, :1], 1e-10)
        close(F.linear(x, *module.merged(base.weight, base.bias)), wanted, 1e-10)


EVERY = [(name, variant) for name in library() if padp.compile(name).site == "linear"
         for variant in (padp.compile(name).variants or (None,))]  # fmt: skip
GIVEN: dict[str, dict[str, Any]] = {"adalora": {"steps": 10}, "road": {"g": 8}, "fourierft": {"k": 30}}


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_every_adapter_means_the_same_with_w_as_any_matrix(plain_plans: None, name: str, variant: str | None) -> None:
    base = nn.Linear(32, 48).double().requires_grad_(False)
    layer = padp.compile(name)(base, variant=variant, dtype=torch.double, **GIVEN.get(name, {}))
    with torch.no_grad():
        for p in layer.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).to(p))
    module: Any = layer.adapters["default"]
    plans = module.plans_on(base)
    assert plans is module.compiled.on_plain
    for root in (*plans.outputs, *plans.many.outputs, *plans.one.outputs):
        assert not [low for low in order(root) if low.prim in ("base", "base_without_bias")]
    x = made(5, 32, dtype=torch.double)
    learned = [x, *(p for p in layer.parameters() if p.requires_grad)]
    agree(layer(x), layer.reference(x), learned, 1e-9)
    module.expect("one")
    agree(layer(x), layer.reference(x), learned, 1e-9)
    layer.eval()
    with torch.no_grad():
        close(layer(x), layer.reference(x), 1e-10)


def test_a_base_that_is_trained_too_gets_its_gradient() -> None:
    base = nn.Linear(300, 320).double()
    layer = padp.compile("svft")(base, dtype=torch.double)
    base.weight.requires_grad_(True)
    layer(torch.randn(4, 300, dtype=torch.double)).sum().backward()
    assert base.weight.grad is not None and bool(base.weight.grad.abs().sum() > 0)


def test_a_half_precision_base_is_called() -> None:
    base = nn.Linear(300, 320).bfloat16()
    layer = padp.compile("svft")(base)
    module: Any = layer.adapters["default"]
    assert module.plans_on(base) is module.compiled
    assert layer(torch.randn(4, 300).bfloat16()).dtype == torch.bfloat16
