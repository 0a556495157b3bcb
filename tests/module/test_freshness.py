"""What is kept from call to call is the value of what is there now, also where addresses and versions are the same."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import padp
from padp.compiler.kernels.each_block import each_block
from padp.compiler.module.freshness import stamp
from padp.compiler.module.module import AdapterModule


def test_another_tensor_at_the_same_address_is_another_stamp() -> None:
    """Memory that is given back is given out again: the next tensor of that size lies where the last one lay."""
    like = torch.zeros(())
    a = torch.zeros(1000)
    first, address = stamp([], [a], like), a.data_ptr()
    assert first is not None and first.holds([a], like)
    assert not first.holds([], like) and not first.holds([a, a], like)
    del a
    others: list[Tensor] = []
    while not others or (others[-1].data_ptr() != address and len(others) < 1000):
        others.append(torch.ones(1000))
    assert not first.holds([others[-1]], like)


def test_lent_parameters_in_eval() -> None:
    layer = padp.compile("boft")(nn.Linear(64, 64).double(), dtype=torch.double).eval()
    part = layer.adapters["default"]
    x = torch.randn(4, 64, dtype=torch.double)
    with torch.no_grad():
        for _ in range(8):
            lent = {k: 0.1 * torch.randn_like(p) for k, p in layer.named_parameters() if p.requires_grad}
            kept = torch.func.functional_call(layer, lent, (x,))
            part.drop_cache()
            assert torch.equal(kept, torch.func.functional_call(layer, lent, (x,)))
            del lent


@pytest.mark.parametrize("name", ["boft", "dora", "oft"])
def test_copies_keep_nothing_of_the_first(name: str) -> None:
    layer = padp.compile(name)(nn.Linear(64, 64)).eval()
    x = torch.randn(4, 64)
    with torch.no_grad():
        y = layer(x)
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(twin(x), y)
            for p in twin.parameters():
                if p.requires_grad:
                    p.add_(0.1)
            assert torch.equal(layer(x), y)
            assert not torch.equal(twin(x), y)


def test_compiled_after_unpickling_and_inside_decoding() -> None:
    """The graphs are built before torch.compile looks in."""
    torch.compiler.reset()
    model = nn.Sequential(nn.Linear(256, 256))
    padp.attach(model, padp.compile("randlora"), dtype=torch.float32)
    model.eval()
    x = torch.randn(1, 256)
    part = next(m for m in model.modules() if isinstance(m, AdapterModule))
    fresh = pickle.loads(pickle.dumps(model))
    with torch.no_grad():
        y = model(x)
        with padp.decoding(model):
            assert part.compiled.one.whole is not part.compiled.many.whole, "the plans are meant to differ"
            compiled: Any = torch.compile(model, fullgraph=True, backend="eager")
            assert torch.allclose(compiled(x), y, atol=1e-5)
        compiled = torch.compile(fresh, fullgraph=True, backend="eager")
        assert torch.allclose(compiled(x), y, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_over_many_tokens_in_half_precision(dtype: torch.dtype) -> None:
    """A matrix's gradient is a sum over tokens: as exact as one product of all of them."""
    torch.manual_seed(0)
    v, m = torch.randn(20000, 4, 64), torch.randn(4, 64, 64)
    grads: dict[torch.dtype, Tensor] = {}
    for kind in (dtype, torch.double):
        matrix = m.to(dtype).to(kind).requires_grad_()
        (each_block(v.to(dtype).to(kind), matrix) * 0.01).sum().backward()
        assert matrix.grad is not None
        grads[kind] = matrix.grad.double()
    error = (grads[dtype] - grads[torch.double]).abs().max() / grads[torch.double].abs().max()
    assert error < 4 * torch.finfo(dtype).eps


@pytest.mark.filterwarnings("ignore:.*jit.script:DeprecationWarning")  # torch's own, for some derivatives
def test_forward_mode_sees_plain_operations() -> None:
    layer = padp.compile("oft")(nn.Linear(64, 64).double(), dtype=torch.double)
    x, t = (torch.randn(4, 64, dtype=torch.double) for _ in range(2))
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, t))).tangent
    expected = torch.func.jvp(layer, (x,), (t,))[1]
    assert tangent is not None and torch.allclose(tangent, expected)


class Scaled(nn.Module):
    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(()))

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = t * self.factor
        return out


@pytest.mark.parametrize("tokens", ["many", "one"])
def test_a_parametrisations_own_buffer_counts(tokens: Any) -> None:
    layer: Any = padp.compile("dora")(nn.Linear(8, 6), r=2)
    module = layer.only()
    with torch.no_grad():
        module.B.normal_()
    nn.utils.parametrize.register_parametrization(module, "B", Scaled())
    layer.eval()
    module.expect(tokens)
    x = torch.randn(2, 8)
    with torch.no_grad():
        layer(x)
        module.parametrizations.B[0].factor.mul_(3)
        torch.testing.assert_close(layer(x), layer.reference(x), rtol=1e-5, atol=1e-5)
