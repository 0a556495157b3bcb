"""Structured products with gradients of their own: those of dense ones, twice differentiable, also piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest
import torch
from torch import Tensor

from padp.compiler.kernels import dense as kernels
from padp.compiler.kernels import each_block as blocks
from padp.compiler.kernels import spectral
from padp.compiler.kernels.slices import close_slice, open_slice, turned_slice
from padp.compiler.kernels.sparse import sparse_apply
from padp.compiler.kernels.spectral import spectral_apply, spectral_bins, spectral_weights
from padp.compiler.kernels.table import circulant_apply, each

Apply: TypeAlias = Callable[[Tensor, Tensor], Tensor]
PLACES = torch.tensor([[0, 0], [3, 1], [2, 4], [3, 1], [5, 3], [4, 0]])  # one of them twice, first and middle ones
ROWS, COLS = 6, 5


def spread(c: Tensor) -> Tensor:
    return torch.zeros(ROWS, COLS, dtype=c.dtype).index_put((PLACES[:, 0], PLACES[:, 1]), c, accumulate=True)


def waves(c: Tensor) -> Tensor:
    real: Tensor = torch.fft.ifft2(spread(c.to(torch.complex128))).real
    return real


def slots(v: Tensor, m: Tensor) -> Tensor:
    new = v.clone()
    new[..., 1:6:2] = v[..., 1:6:2] @ m.mT
    return new


def opened(m: Tensor, v: Tensor) -> Tensor:
    rest, part = open_slice(v, 1, 2, 3)
    return close_slice(rest, part.to(m.dtype) @ m.mT, 1, 2)


def turned(flip: bool, matrix: Callable[[Tensor], Tensor]) -> Apply:
    return lambda p, v: v @ (matrix(p) if flip else matrix(p).mT)


def sparse(flip: bool) -> Apply:
    return lambda c, v: sparse_apply(c, PLACES, v, COLS if flip else ROWS, flip)


def spectra(flip: bool) -> Apply:
    bins = spectral_bins(PLACES, ROWS, COLS)
    return lambda c, v: spectral_apply(spectral_weights(c, bins, ROWS, COLS, flip), bins, v, ROWS, COLS, flip)


def circulants(flip: bool) -> Apply:
    return lambda c, v: circulant_apply(c, v, flip)


def in_blocks(m: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bij,...bj->...bi", m, v)


CASES: dict[str, tuple[Apply, Apply, tuple[int, ...], tuple[int, ...]]] = {
    **{f"sparse {f}": (sparse(f), turned(f, spread), (6,), (ROWS if f else COLS,)) for f in (False, True)},
    **{f"spectral {f}": (spectra(f), turned(f, waves), (6,), (ROWS if f else COLS,)) for f in (False, True)},
    **{f"circulant {n} {f}": (circulants(f), turned(f, kernels.circulant), (n,), (n,))
       for n in (1, 4, 5) for f in (False, True)},
    "blocks": (lambda m, v: each(v, m, 1), in_blocks, (3, 2, 4), (3, 4)),
    "opened slice": (opened, lambda m, v: slots(v, m), (3, 3), (7,)),
    "turned slice": (lambda m, v: turned_slice(v, m, 1, 2), lambda m, v: slots(v, m), (3, 3), (7,)),
}
"""What is applied, its dense meaning, the shape of what is learned, and of one vector."""


@pytest.fixture(params=[1 << 17, 8], ids=["at once", "piece by piece"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "NUMBERS_AT_A_TIME", request.param)
    monkeypatch.setattr(spectral, "NUMBERS_AT_A_TIME", request.param)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str) -> None:
    apply, dense, of_matrix, of_vector = CASES[name]
    torch.manual_seed(0)
    p = torch.randn(of_matrix, dtype=torch.double, requires_grad=True)
    for lead in ((), (1,), (3,), (2, 3), (0,)):
        v = torch.randn(*lead, *of_vector, dtype=torch.double, requires_grad=True)
        made, meant = apply(p, v), dense(p, v)
        assert made.shape == meant.shape and torch.allclose(made, meant)
        weights = torch.randn_like(meant)
        for wanted in ([p], [v], [p, v]):
            got = torch.autograd.grad((made * weights).sum(), wanted, retain_graph=True)
            assert all(torch.allclose(a, b) for a, b in zip(
                got, torch.autograd.grad((meant * weights).sum(), wanted, retain_graph=True), strict=True))


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("name", CASES)
def test_gradients_of_gradients_and_transforms(name: str) -> None:
    apply, dense, of_matrix, of_vector = CASES[name]
    torch.manual_seed(0)
    p = torch.randn(of_matrix, dtype=torch.double, requires_grad=True)
    v = torch.randn(3, *of_vector, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(apply, (p, v))
    assert torch.autograd.gradgradcheck(apply, (p, v))
    assert torch.allclose(torch.func.vmap(lambda one: apply(p, one))(v), dense(p, v))
    assert torch.allclose(torch.func.grad(lambda q: apply(q, v).square().sum())(p.detach()),
                          torch.func.grad(lambda q: dense(q, v).square().sum())(p.detach()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_half_precision_vectors_and_full_precision_matrices(name: str, dtype: torch.dtype) -> None:
    apply, dense, of_matrix, of_vector = CASES[name]
    torch.manual_seed(0)
    p, v = torch.randn(of_matrix, requires_grad=True), torch.randn(50, *of_vector).to(dtype).requires_grad_()
    exact = p.detach().double().requires_grad_(), v.detach().double().requires_grad_()
    made, meant = apply(p, v), dense(*exact)
    weights = torch.randn(meant.shape, dtype=torch.double).to(dtype).double()
    for a, b in zip((made, *torch.autograd.grad((made.double() * weights).sum(), [p, v])),
                    (meant, *torch.autograd.grad((meant * weights).sum(), exact)), strict=True):
        assert (a.detach().double() - b.detach()).abs().max() <= 8 * torch.finfo(dtype).eps * b.detach().abs().max()
