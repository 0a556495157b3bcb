"""Every dense operator against its defining equation, written out entry by entry."""

from __future__ import annotations

import math

import pytest
import torch

from padp.compiler.kernels import dense as K
from padp.compiler.kernels import itemwise
from padp.dsl.diagnostics import PadpError

torch.manual_seed(0)


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_skew_fills_the_upper_triangle_row_by_row() -> None:
    S = K.skew(torch.tensor([1.0, 2.0, 3.0]))
    assert S.tolist() == [[0, 1, 2], [-1, 0, 3], [-2, -3, 0]]
    assert K.skew(rand(4, 2, 6)).shape == (4, 2, 4, 4)
    assert K.skew(rand(0)).shape == (1, 1)
    with pytest.raises(PadpError):
        K.skew(rand(5))


def test_blkdiag_of_one_and_two_family_axes() -> None:
    F = rand(2, 3, 2, 4)
    want = torch.block_diag(*(F[a, b] for a in range(2) for b in range(3)))
    assert torch.equal(K.blkdiag(F, 2), want)
    assert torch.equal(K.blkdiag(F[0]), torch.block_diag(*F[0]))
    assert torch.equal(K.blkdiag(F)[1], torch.block_diag(*F[1]))
    A, B = rand(2, 3), rand(1, 4)
    assert torch.equal(K.blkdiag_of(A, B), torch.block_diag(A, B))


def test_perm_gathers() -> None:
    idx = torch.tensor([2, 0, 1])
    x = rand(3)
    assert torch.equal(K.perm(idx, torch.float64) @ x, x[idx])


def test_kron_outer_circulant() -> None:
    A, B, u, v = rand(2, 3), rand(4, 2), rand(3), rand(4)
    assert torch.equal(K.kron(A, B), torch.kron(A, B))
    assert torch.equal(K.kron(A.expand(5, 2, 3), B)[3], torch.kron(A, B))
    assert torch.equal(K.kron_vectors(u, v), torch.kron(u, v))
    assert torch.equal(K.outer(u, v), torch.outer(u, v))
    C = K.circulant(v)
    assert all(C[i, j] == v[(i - j) % 4] for i in range(4) for j in range(4))


def test_scatter_adds_up_repeats() -> None:
    c = rand(3)
    S = K.scatter(c, torch.tensor([[0, 1], [2, 0], [0, 1]]), 3, 2)
    assert torch.allclose(S[0, 1], c[0] + c[2]) and S[2, 0] == c[1] and S.count_nonzero() == 2


def test_shapes() -> None:
    M = rand(6, 4)
    assert torch.equal(K.vec(M), torch.cat([M[:, j] for j in range(4)]))
    F = K.blocks(M, 3, 2)
    assert torch.equal(F[1, 1], M[2:4, 2:4]) and torch.equal(K.assemble(F), M)
    batch = rand(5, 6, 4)
    assert torch.equal(K.assemble(K.blocks(batch, 2, 4)), batch)
    with pytest.raises(PadpError):
        K.blocks(M, 4, 2)
    v = rand(2)
    assert torch.equal(K.tile(v, 3, 1), torch.cat([v, v, v]))
    assert torch.equal(K.tile(M, 2, 2), torch.cat([M, M]))
    assert torch.equal(K.repeat(F, 2, 2), F.repeat_interleave(2, 1))
    assert torch.equal(K.repeat(M, 2, 1), M.repeat_interleave(2, 0))
    assert torch.equal(K.grouped(M, 12, 1), M.repeat_interleave(2, 0))
    with pytest.raises(PadpError):
        K.grouped(M, 8, 1)
    assert K.reshape(rand(9, 6, 4), 2, [3, 8]).shape == (9, 3, 8)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (2, 5, 3)])
def test_svd_is_exact_and_has_fixed_signs(shape: tuple[int, ...]) -> None:
    M = rand(*shape)
    U, S, Vh = K.svd(M)
    assert torch.allclose(U @ K.diag(S) @ Vh, M)
    top = U.gather(-2, U.abs().argmax(-2, keepdim=True))
    assert (top > 0).all()
    U2, S2, Vh2 = K.svd(M, 2)
    assert torch.equal(U2, U[..., :2]) and torch.equal(S2, S[..., :2]) and torch.equal(Vh2, Vh[..., :2, :])
    again = K.svd(M.flip(-1).flip(-1).clone())
    assert torch.allclose(again[0], U)
    assert K.svd(M.float())[0].dtype == torch.float32
    with pytest.raises(PadpError):
        K.svd(M, 9)


@pytest.mark.parametrize("shape", [(5, 3), (4, 4), (2, 5, 3)])
def test_qr_has_a_positive_diagonal(shape: tuple[int, ...]) -> None:
    M = rand(*shape)
    Q, R = K.qr(M)
    assert torch.allclose(Q @ R, M) and (K.diagonal(R) >= 0).all()
    assert torch.autograd.gradcheck(lambda t: K.qr(t), (M.requires_grad_(),))


def test_orthonormal_rows_keeps_what_is_orthonormal() -> None:
    R = K.orthonormal_rows(rand(3, 5))
    assert torch.allclose(R @ R.mT, torch.eye(3, dtype=torch.float64))
    assert torch.allclose(K.orthonormal_rows(R), R)
    assert torch.autograd.gradcheck(K.orthonormal_rows, (rand(2, 4).requires_grad_(),))
    S = K.special_orthogonal(rand(6, 3, 3))
    assert torch.allclose(torch.linalg.det(S), torch.ones(6, dtype=torch.float64))
    assert torch.allclose(S @ S.mT, torch.eye(3, dtype=torch.float64).expand(6, 3, 3))


def test_inverse_solve_and_friends() -> None:
    A, B = rand(4, 4), rand(4, 2)
    assert torch.allclose(A @ K.inverse(A), torch.eye(4, dtype=torch.float64))
    assert torch.allclose(A @ itemwise.solve(A, B), B)
    assert torch.allclose(A @ itemwise.solve(A, B[:, 0]), B[:, 0])
    assert torch.allclose(K.expm(K.diag(B[:, 0])), K.diag(B[:, 0].exp()))
    assert torch.allclose(itemwise.power(A, 3), A @ A @ A)
    assert torch.allclose(K.trace(A), A.trace())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_goes_through_float32(dtype: torch.dtype) -> None:
    M = (torch.randn(3, 3) + 3 * torch.eye(3)).to(dtype)
    assert torch.equal(K.inverse(M), torch.linalg.inv(M.float()).to(dtype))
    for f in (K.inverse, K.expm, K.orthonormal_rows, K.special_orthogonal, lambda t: itemwise.solve(t, t)):
        assert f(M).dtype == dtype
    assert all(part.dtype == dtype for part in (*K.svd(M), *K.qr(M)))
    assert K.real(K.ifft2(M), dtype).dtype == dtype


def test_fourier_norms() -> None:
    v, M = rand(5), rand(4, 6)
    assert torch.allclose(K.real(K.ifft(K.fft(v))), v)
    assert torch.allclose(K.real(K.ifft2(K.fft2(M))), M)
    assert torch.allclose(K.ifft2(M), torch.fft.ifft2(M))
    assert torch.equal(K.imag(M), torch.zeros_like(M))


def test_ifft2_at_the_size_that_some_builds_get_wrong() -> None:
    S = torch.zeros(2048, 2048)
    S[3, 5] = 2048.0 * 2048.0
    assert torch.allclose(K.real(K.ifft2(S))[0, 0], torch.tensor(1.0))


def test_norms_and_reductions() -> None:
    M = rand(2, 3, 4)
    assert torch.allclose(K.norm_row(M), (M * M).sum(-1).sqrt())
    assert torch.allclose(K.norm_col(M), (M * M).sum(-2).sqrt())
    assert torch.allclose(K.norm_F(M), (M * M).sum((-2, -1)).sqrt())
    assert torch.allclose(K.total(M, 2), M.sum((-2, -1))) and torch.equal(K.total(M, 0), M)
    assert torch.allclose(K.mean(M, 1), M.mean(-1))
    assert torch.equal(K.largest_entry(M, 2), M.flatten(1).max(1).values)
    assert torch.equal(K.smallest_entry(M, 1), M.min(-1).values)
    assert K.sum_row(M).shape == (2, 3) and K.mean_col(M).shape == (2, 4)


def test_selection_breaks_ties_towards_the_lower_index() -> None:
    s = torch.tensor([1.0, 3.0, 3.0, 2.0, 3.0])
    assert K.topk(s, 2).tolist() == [0, 1, 1, 0, 0]
    assert K.argtop(s, 4).tolist() == [1, 2, 4, 3]
    with pytest.raises(PadpError):
        K.topk(s, 6)
    assert torch.equal(K.clamp(s, 1.5, 2.5), s.clamp(1.5, 2.5))


def test_index_sets() -> None:
    assert K.band(3, 1).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2], [2, 1], [2, 2]]
    got = K.sample(4, 5, 6, 777)
    flat = torch.randperm(20, generator=torch.Generator().manual_seed(777))[:6]
    assert (got[:, 0] * 5 + got[:, 1]).tolist() == flat.tolist()
    assert K.largest(torch.tensor([[1.0, 5.0], [5.0, 2.0]]), 3).tolist() == [[0, 1], [1, 0], [1, 1]]
    assert K.pairs(5).tolist() == [[0, 1], [2, 3]]
    assert K.halves(8, 4).tolist() == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert K.tree(5).tolist() == [[0, 1, 0], [2, 3, 1], [0, 2, 2], [0, 4, 3]]
    assert all(len(K.tree(n)) == n - 1 for n in range(1, 20))
    assert K.tree(1).shape == (0, 3)
    assert K.neighbours(3).tolist() == [[0, 1, 0], [1, 2, 1]]


@pytest.mark.parametrize(("n", "k"), [(16, 2), (16, 4), (24, 4), (12, 2), (24, 6), (27, 3), (6, 6), (5, 1)])
def test_butterfly_pairs_half_blocks_at_a_distance(n: int, k: int) -> None:
    levels = max((e + 1 for e in range(8) if k % 2 == 0 and n % (k * 2**e) == 0), default=1)
    for j in range(levels):
        idx = K.butterfly(n, k, j).tolist()
        assert sorted(idx) == list(range(n))
        if k % 2:
            assert idx == list(range(n))
            continue
        half, apart = k // 2, 2**j
        for block in range(0, n, k):
            first, second = (idx[block + s : block + s + half] for s in (0, half))
            assert first[0] % half == 0 and first == list(range(first[0], first[0] + half))
            assert second == [i + apart * half for i in first]
    assert K.butterfly(n, k, 0).tolist() == list(range(n))
    for wrong in ((n + 1, 0), (k, levels)):
        with pytest.raises(PadpError):
            K.butterfly(n, *wrong)


def test_initial_values() -> None:
    g = torch.Generator().manual_seed(1)
    shape = (64, 256)
    t = K.initialise("kaiming", (), shape, g, torch.float64)
    assert t.dtype == torch.float64 and t.abs().max() <= 1 / 16 and t.abs().max() > 0.99 / 16
    t = K.initialise("kaiming", (1.0,), shape, g, torch.float32)
    assert math.isclose(t.abs().max().item(), math.sqrt(3 / 256), rel_tol=0.01)
    t = K.initialise("normal", (0.5,), shape, g, torch.float32)
    assert math.isclose(t.std().item(), 0.5, rel_tol=0.05)
    t = K.initialise("normal", (2.0, 0.5), shape, g, torch.float32)
    assert math.isclose(t.mean().item(), 2.0, rel_tol=0.05)
    t = K.initialise("uniform", (1.0, 2.0), shape, g, torch.float32)
    assert t.min() >= 1 and t.max() <= 2
    t = K.initialise("trunc_normal", (0.0, 0.1), shape, g, torch.float32)
    assert t.abs().max() <= 0.2
    for s in [(3, 5), (5, 3), (2, 3, 5)]:
        t = K.initialise("orthogonal", (), s, g, torch.float64)
        gram = t @ t.mT if s[-2] <= s[-1] else t.mT @ t
        assert torch.allclose(gram, torch.eye(3, dtype=torch.float64).expand_as(gram))
    one = K.initialise("normal", (1.0,), (4,), torch.Generator().manual_seed(5), torch.float32)
    two = K.initialise("normal", (1.0,), (4,), torch.Generator().manual_seed(5), torch.float64)
    assert torch.equal(one, two.float())
    for bad in [("normal", ()), ("kaiming_normal", (1.0,)), ("normal", (-1.0,)), ("nonsense", ())]:
        with pytest.raises(PadpError):
            K.initialise(bad[0], bad[1], shape, g, torch.float32)


def test_initial_values_of_values() -> None:
    t = rand(5, 3)
    p = K.equal_pairs(t)
    assert torch.equal(p[0], p[1]) and torch.equal(p[2], p[3]) and torch.equal(p[4], t[4])
    assert torch.allclose(K.unit_std(t).std(), torch.tensor(1.0, dtype=torch.float64))


def test_all_of_it_under_vmap() -> None:
    x = rand(7, 6)
    omega = K.pairs(6)
    for f in (K.skew, K.circulant, K.diag, lambda v: K.topk(v, 2), lambda v: K.scatter(v[:3], omega, 6, 6),
              lambda v: K.blkdiag(K.reshape(v, 1, (3, 1, 2))), K.softmax):
        assert torch.allclose(torch.vmap(f)(x), torch.stack([f(v) for v in x]))


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize(("m", "n", "rank"), [(9, 7, 4), (5, 11, 4), (6, 6, 2)])
def test_a_thin_product_is_decomposed_through_its_factors(lead: tuple[int, ...], m: int, n: int, rank: int) -> None:
    generator = torch.Generator().manual_seed(3)
    A, B = (torch.randn(*lead, *item, generator=generator, dtype=torch.double) for item in ((m, 4), (4, n)))
    for made, literal in zip(K.svd_of_product(A, B, rank), K.svd(A @ B, rank), strict=True):
        torch.testing.assert_close(made, literal, rtol=1e-10, atol=1e-10)

    def parts(A: torch.Tensor, B: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return K.svd_of_product(A, B, rank)

    assert torch.autograd.gradcheck(parts, (A.requires_grad_(), B.requires_grad_()))


def test_factors_of_lower_rank_give_the_triples_that_were_asked_for() -> None:
    A, B = torch.randn(6, 3, dtype=torch.double), torch.randn(3, 7, dtype=torch.double)
    A[:, 2] = A[:, 0]
    U, S, Vh = K.svd_of_product(A, B, 3)
    assert U.shape == (6, 3) and S[2] < 1e-14 * S[0]
    torch.testing.assert_close(U @ torch.diag(S) @ Vh, A @ B)
    torch.testing.assert_close(U.mT @ U, torch.eye(3, dtype=torch.double))
    torch.testing.assert_close(Vh @ Vh.mT, torch.eye(3, dtype=torch.double))
