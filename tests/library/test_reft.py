"""ReFT in all its forms: the edit of one hidden vector against the paper's formulas. Positions: see tests/models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest
import torch
from torch import Tensor, nn

import padp
from padp.compiler.adapter import Adapter
from padp.compiler.literal.reference import Reference
from padp.compiler.module.module import AdapterModule
from tests.support.common import close

ADAPTER = cast(Adapter, padp.compile("reft"))
FORMS = ("LoReFT", "NoReFT", "ConsReFT", "LobiReFT", "DiReFT")
ORTHONORMAL = ("LoReFT", "ConsReFT", "LobiReFT")
SIZES = ((9, 4), (12, 3), (5, 5))


def built(form: str, d: int, r: int, dtype: torch.dtype = torch.float64) -> AdapterModule:
    hyper = ADAPTER.settings(form, r=r).hyper
    return ADAPTER.build({"d": d}, variant=form, hyper=hyper, weight=None, bias=None, dtype=dtype,
                         device=torch.device("cpu"))


def moved(module: AdapterModule, spread: float = 0.4, seed: int = 2) -> AdapterModule:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(spread * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype))
    module.drop_cache()
    return module


def edit(module: AdapterModule, h: Tensor) -> Tensor:
    return cast(Tensor, module(h, None))


def hidden(d: int, *leading: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*leading, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def literal(module: AdapterModule, h: Tensor) -> Tensor:
    """The program read literally."""
    return Reference(ADAPTER.method(module.variant), {}, module.hyper, dict(module.tensors)).forward(h)


def rotation(form: str, t: Mapping[str, Tensor]) -> Tensor:
    """R as it acts. Orthonormal: Qᵀ, where storedᵀ = Q times an upper triangle with a positive diagonal."""
    stored = t["R"]
    if form not in ORTHONORMAL:
        return stored
    Q, upper = torch.linalg.qr(stored.mT)
    return cast(Tensor, (Q * torch.sign(upper.diagonal())).mT)


def by_hand(form: str, t: Mapping[str, Tensor], h: Tensor) -> Tensor:
    R, b = rotation(form, t), t["b"]
    match form:
        case "LoReFT" | "NoReFT":
            return h + (h @ t["M"].mT + b - h @ R.mT) @ R
        case "ConsReFT":
            return h + (b - h @ R.mT) @ R
        case "LobiReFT":
            return h + b @ R
        case _:
            return h + (h @ t["M"].mT + b) @ R


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("form", FORMS)
class TestForms:
    def test_is_the_papers_formula(self, form: str, size: tuple[int, int]) -> None:
        module = moved(built(form, *size))
        h = hidden(size[0], 2, 3).requires_grad_()
        leaves = [h, *module.parameters()]
        got, read, wanted = edit(module, h), literal(module, h), by_hand(form, module.tensors, h)
        close(got, wanted)
        close(read, wanted)
        weights = hidden(size[0], 2, 3).cos()
        gradients = [torch.autograd.grad((y * weights).sum(), leaves) for y in (got, wanted)]
        for one, other in zip(*gradients, strict=True):
            assert (one - other).abs().max() <= 1e-9 * max(1.0, other.abs().max().item())
        if form in ORTHONORMAL:
            R = rotation(form, module.tensors)
            close(R @ R.mT, torch.eye(size[1], dtype=torch.float64))

    def test_gradients(self, form: str, size: tuple[int, int]) -> None:
        module = moved(built(form, *size))
        names = [name for name, _ in module.named_parameters()]

        def forward(h: Tensor, *values: Tensor) -> Tensor:
            return cast(Tensor, torch.func.functional_call(module, dict(zip(names, values, strict=True)), (h, None)))

        values = [p.detach().clone().requires_grad_() for p in module.parameters()]
        assert torch.autograd.gradcheck(forward, (hidden(size[0], 2).requires_grad_(), *values), fast_mode=True)

    def test_start(self, form: str, size: tuple[int, int]) -> None:
        """h itself, exactly; ConsReFT wipes its subspace out."""
        module, h = built(form, *size), hidden(size[0], 4)
        if form == "ConsReFT":
            assert (edit(module, h) - h).abs().max() > 0.1
            R = rotation(form, module.tensors)
            assert (edit(module, h) @ R.mT).abs().max() < 1e-12
        else:
            assert torch.equal(edit(module, h), h)

    def test_count(self, form: str, size: tuple[int, int]) -> None:
        module = built(form, *size)
        formula = ADAPTER.count_of(form)
        value = formula.subs({s: dict(zip("dr", size, strict=True))[str(s)] for s in formula.free_symbols})
        assert value == sum(p.numel() for p in module.parameters())
        assert not list(module.buffers())

    def test_eval_keeps_what_training_computes(self, form: str, size: tuple[int, int]) -> None:
        module, h = moved(built(form, *size)), hidden(size[0], 4)
        wanted = edit(module, h).detach()
        module.eval()
        with torch.no_grad():
            close(edit(module, h), wanted, 1e-12)
            close(edit(module, h), wanted, 1e-12)
            close(edit(moved(module, 0.1), h), by_hand(form, module.tensors, h))

    def test_leading_shapes(self, form: str, size: tuple[int, int]) -> None:
        module, h = moved(built(form, *size)), hidden(size[0], 2, 3)
        with torch.no_grad():
            y = edit(module, h)
            close(edit(module, h[0, 0]), y[0, 0])
            close(edit(module, h[1]), y[1])
            assert edit(module, h[:0]).shape == (0, 3, size[0])

    def test_half_precision(self, form: str, size: tuple[int, int]) -> None:
        module, h = moved(built(form, *size, torch.float32)), hidden(size[0], 6, dtype=torch.bfloat16)
        y = edit(module, h)
        assert y.dtype == torch.bfloat16
        close(y.float(), edit(module, h.float()), 0.01)
        y.float().sum().backward()
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())

    def test_cannot_merge(self, form: str, size: tuple[int, int]) -> None:
        with pytest.raises(padp.PadpError, match="E504"):
            built(form, *size).merged(torch.eye(size[0]), None)


def test_the_source_documents_text_is_lobireft() -> None:
    """Its block, read as it stands with R and b declared, is h + Rᵀ b."""
    text = """adapter Block(r = 3) on hidden(h ∈ ℝ^d)
R ∈ St(r, d): learned, init = orthogonal
b ∈ ℝ^r: learned, init = 0
h_proj ← R @ h
h_proj ← h_proj + b
h ← h + Rᵀ @ (h_proj - R @ h)
"""
    block = padp.compile(text)
    module = block.build({"d": 8}, variant=None, hyper=block.settings().hyper, weight=None, bias=None,
                         dtype=torch.float64, device=torch.device("cpu"))
    moved(module)
    twin = built("LobiReFT", 8, 3)
    twin.load_state_dict(module.state_dict())
    h = hidden(8, 5)
    close(edit(module, h), edit(twin, h))


def test_on_a_model_the_chosen_tokens_are_edited() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, h: Tensor) -> Tensor:
            return h + torch.tanh(self.linear(h))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([Block(), Block()])

        def forward(self, h: Tensor) -> Tensor:
            for layer in self.layers:
                h = layer(h)
            return h

    torch.manual_seed(0)
    model, h = Model().double(), hidden(6, 2, 5)
    before = model(h).detach()
    padp.attach(model, ADAPTER, r=2, positions="f1+l1")
    assert torch.equal(model(h), before)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.5)
    changed = (model(h) - before).abs().amax(-1) > 1e-6
    assert changed.tolist() == [[True, False, False, False, True]] * 2
