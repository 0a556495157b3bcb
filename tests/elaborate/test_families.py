"""Families against an evaluator of their own: each item by itself, in numpy, at sizes that coincide.

Where a library tells axes apart by their sizes, both readings of a program could be wrong alike; numpy here never sees
more than one item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from padp.compiler.kernels import dense as K
from padp.compiler.kernels import itemwise
from padp.compiler.kernels import table as prims
from tests.support.agreement import agree

Array = np.ndarray[Any, np.dtype[np.float64]]
Item = Callable[..., Array]
SIZES = [(2, 3), (3, 3), (1, 1)]
HEAD = """adapter Families(b = 2) on linear(W ∈ ℝ^{m×n}) where m = b·p, n = b·p
F, G ∈ (ℝ^{p×p})^b: learned, init = normal(1)
M ∈ ℝ^{p×p}: learned, init = normal(1)
u ∈ (ℝ^p)^b: learned, init = normal(1)
v ∈ ℝ^p: learned, init = normal(1)
c ∈ (ℝ)^b: learned, init = normal(1)
"""


def _rows(A: Array) -> Array:
    return np.asarray(np.sqrt((A * A).sum(1)))


def _columns(A: Array) -> Array:
    return np.asarray(np.sqrt((A * A).sum(0)))


MATRICES: Mapping[str, Item] = {
    "F⁻¹ @ M": lambda F, G, M, u, v, c: np.linalg.inv(F) @ M, "M @ F⁻¹": lambda F, G, M, u, v, c: M @ np.linalg.inv(F),
    "M⁻¹ @ F": lambda F, G, M, u, v, c: np.linalg.inv(M) @ F, "F @ M⁻¹": lambda F, G, M, u, v, c: F @ np.linalg.inv(M),
    "G ⊙ (F⁻¹ @ M)": lambda F, G, M, u, v, c: G * (np.linalg.inv(F) @ M),
    "solve(F, M)": lambda F, G, M, u, v, c: np.linalg.inv(F) @ M,
    "solve(M, F)": lambda F, G, M, u, v, c: np.linalg.inv(M) @ F,
    "solve(F, G)": lambda F, G, M, u, v, c: np.linalg.inv(F) @ G,
    "G @ solve(F, M)": lambda F, G, M, u, v, c: G @ np.linalg.inv(F) @ M,
    "(M @ solve(F, M))ᵀ": lambda F, G, M, u, v, c: (M @ np.linalg.inv(F) @ M).T,
    "M @ F + M": lambda F, G, M, u, v, c: M @ F + M, "F ⊙ M - M": lambda F, G, M, u, v, c: F * M - M,
    "v · F": lambda F, G, M, u, v, c: v[:, None] * F, "F · v": lambda F, G, M, u, v, c: F * v,
    "u · M": lambda F, G, M, u, v, c: u[:, None] * M, "M · u": lambda F, G, M, u, v, c: M * u,
    "c · M": lambda F, G, M, u, v, c: c * M, "c · F + c · M": lambda F, G, M, u, v, c: c * F + c * M,
    "F / ‖M‖_row": lambda F, G, M, u, v, c: F / _rows(M)[:, None],
    "M / ‖F‖_row": lambda F, G, M, u, v, c: M / _rows(F)[:, None],
    "F / ‖M‖_col": lambda F, G, M, u, v, c: F / _columns(M), "M / ‖F‖_col": lambda F, G, M, u, v, c: M / _columns(F),
    "M / ‖F‖_F": lambda F, G, M, u, v, c: M / np.sqrt((F * F).sum()),
    "u vᵀ": lambda F, G, M, u, v, c: np.outer(u, v), "outer(v, u) + M": lambda F, G, M, u, v, c: np.outer(v, u) + M,
    "F² @ M": lambda F, G, M, u, v, c: F @ F @ M, "F @ M²": lambda F, G, M, u, v, c: F @ M @ M,
    "diag(u) @ M": lambda F, G, M, u, v, c: u[:, None] * M, "M @ diag(u) @ F": lambda F, G, M, u, v, c: M * u @ F,
    "tril(F) @ M": lambda F, G, M, u, v, c: np.tril(F) @ M,
}
VECTORS: Mapping[str, Item] = {
    "F @ v": lambda F, G, M, u, v, c: F @ v, "M @ u": lambda F, G, M, u, v, c: M @ u,
    "F⁻¹ @ v": lambda F, G, M, u, v, c: np.linalg.inv(F) @ v, "M⁻¹ @ u": lambda F, G, M, u, v, c: np.linalg.inv(M) @ u,
    "F⁻¹ @ u": lambda F, G, M, u, v, c: np.linalg.inv(F) @ u,
    "solve(F, v)": lambda F, G, M, u, v, c: np.linalg.inv(F) @ v,
    "solve(M, u)": lambda F, G, M, u, v, c: np.linalg.inv(M) @ u,
    "solve(F, u)": lambda F, G, M, u, v, c: np.linalg.inv(F) @ u,
    "(vᵀ @ F)ᵀ": lambda F, G, M, u, v, c: v @ F, "(uᵀ @ M)ᵀ": lambda F, G, M, u, v, c: u @ M,
    "u ⊙ v": lambda F, G, M, u, v, c: u * v, "c · v + u": lambda F, G, M, u, v, c: c * v + u,
    "‖F‖_row ⊙ v": lambda F, G, M, u, v, c: _rows(F) * v, "‖M‖_col + u": lambda F, G, M, u, v, c: _columns(M) + u,
    "diagonal(F) + v": lambda F, G, M, u, v, c: np.diagonal(F) + v,
    "u / ‖v‖": lambda F, G, M, u, v, c: u / np.sqrt(v @ v), "v / ‖u‖": lambda F, G, M, u, v, c: v / np.sqrt(u @ u),
    "maximum(u, v)": lambda F, G, M, u, v, c: np.maximum(u, v),
    "(uᵀ @ v) · v": lambda F, G, M, u, v, c: (u @ v) * v, "(vᵀ @ M @ u) · u": lambda F, G, M, u, v, c: (v @ M @ u) * u,
    "sum(F ⊙ M) · v": lambda F, G, M, u, v, c: (F * M).sum() * v,
}


def _check(program: str, item: Item, b: int, p: int, whole: Callable[[list[Array], Array], Array]) -> None:
    layer, module, x, y = (lambda a: (a.layer, a.module, a.x, a.y))(
        agree(program, b * p, b * p, {"b": b}, by=0.0, lead=(b, p), tolerance=1e-8))
    t = {k: v.detach().numpy() for k, v in module.tensors.items()}
    items = [item(t["F"][i], t["G"][i], t["M"], t["u"][i], t["v"], t["c"][i]) for i in range(b)]
    base = x.detach().numpy() @ layer.base.weight.detach().numpy().T
    wanted = whole(items, base) + layer.base.bias.detach().numpy()
    found = y.detach().numpy()
    assert np.abs(found - wanted).max() <= 1e-8 * (1 + np.abs(wanted).max())


@pytest.mark.parametrize(("b", "p"), SIZES)
@pytest.mark.parametrize("expression", MATRICES)
def test_matrices_of_a_family(expression: str, b: int, p: int) -> None:
    def turned(blocks: list[Array], z: Array) -> Array:
        parts = [z[..., i * p: (i + 1) * p] @ block.T for i, block in enumerate(blocks)]
        return np.concatenate(parts, -1)

    _check(f"{HEAD}Z ← {expression}\ny ← blkdiag(Z) @ W @ x\n", MATRICES[expression], b, p, turned)


@pytest.mark.parametrize(("b", "p"), SIZES)
@pytest.mark.parametrize("expression", VECTORS)
def test_vectors_of_a_family(expression: str, b: int, p: int) -> None:
    def scaled(parts: list[Array], z: Array) -> Array:
        return np.asarray(np.concatenate(parts) * z)

    _check(f"{HEAD}z ← {expression}\ny ← flatten(z) ⊙ (W @ x)\n", VECTORS[expression], b, p, scaled)


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_solving_never_takes_matrices_for_vectors(n: int, axes: int) -> None:
    """Of a family of n (or n×n) matrices n×n, and one matrix n×n: whatever their sizes are."""
    A = torch.randn(*[n] * axes, n, n, dtype=torch.double) + 3 * torch.eye(n, dtype=torch.double)
    M = torch.randn(n, n, dtype=torch.double)
    inverses = torch.stack([torch.linalg.inv(a) for a in A.reshape(-1, n, n)]).reshape(A.shape)
    assert torch.allclose(prims.solve(A, M), inverses @ M)
    assert torch.allclose(prims.solve_right(A, M), M @ inverses)


def _units(M: torch.Tensor) -> torch.Tensor:
    return torch.eye(M.shape[-1], dtype=M.dtype).expand(M.shape)


@pytest.mark.parametrize("lead", [(), (3,), (2, 2)])
@pytest.mark.parametrize(("ours", "theirs", "ranks"), [
    (itemwise.inverse, K.inverse, (2,)), (itemwise.solve, prims.solve, (2, 2)), (itemwise.kron, K.kron, (2, 2)),
    (itemwise.kron, K.kron_vectors, (1, 1)), (itemwise.diag, K.diag, (1,)), (itemwise.circulant, K.circulant, (1,)),
    (itemwise.skew, K.skew, (1,)), (itemwise.softmax, K.softmax, (1,)), (itemwise.expm, K.expm, (2,)),
    (lambda M: itemwise.blocks(M, 3, 1), lambda M: K.blocks(M, 3, 1), (2,)),
    (lambda *F: itemwise.blkdiag(list(F)), K.blkdiag_of, (2, 2)),
    (lambda M: itemwise.power(M, 3), lambda M: M @ M @ M, (2,)), (lambda M: itemwise.power(M, 0), _units, (2,)),
], ids=lambda value: getattr(value, "__name__", "") if callable(value) else None)
def test_what_the_literal_reading_does_to_items_is_what_kernels_do_to_families(
        ours: Callable[..., torch.Tensor], theirs: Callable[..., torch.Tensor], ranks: tuple[int, ...],
        lead: tuple[int, ...]) -> None:
    parts = [torch.randn(*lead, *[3] * rank, dtype=torch.double) for rank in ranks]
    made = itemwise.each(ours, *zip(parts, ranks, strict=True))
    assert torch.allclose(made, theirs(*parts))


def test_a_grid_of_blocks_is_put_together_item_by_item() -> None:
    F = torch.randn(2, 3, 4, 5)
    assert torch.equal(itemwise.assemble(F), K.assemble(F))
    M = torch.randn(5, 6, 4)
    assert torch.equal(itemwise.each(lambda A: itemwise.blocks(A, 2, 2), (M, 2)), K.blocks(M, 2, 2))


@pytest.mark.parametrize("rank", [1, 2])
def test_a_family_of_no_items_has_the_shape_of_its_items(rank: int) -> None:
    F = torch.zeros(0, *[3] * rank)
    made = itemwise.each(itemwise.inverse if rank == 2 else itemwise.diag, (F, rank))
    assert made.shape == (0, 3, 3)
