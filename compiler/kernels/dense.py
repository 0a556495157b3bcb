"""What every operator means on dense tensors: one small torch function each, named as in the language.

Items (a scalar, a vector, a matrix) are the last zero, one or two axes; everything before them is batch or family.
All are functional, differentiable where the maths is, and work under ``torch.vmap``. Decompositions, inverses and
Fourier transforms of half-precision tensors are computed in float32 and cast back.
``compiler/literal/reference.py`` reads programs with these; the fast lowerings are tested against them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from padp.compiler.kernels import waves
from padp.compiler.kernels.singular import solved
from padp.compiler.operators import index_rows
from padp.dsl.diagnostics import refuse

_HALF = (torch.bfloat16, torch.float16)


def _single(t: Tensor) -> Tensor:
    return t.float() if t.dtype in _HALF else t


# ---------------------------------------------------------------- building matrices and vectors


def triangle_size(length: int) -> int:
    """The k with k(k − 1)/2 = ``length``; E301 when there is none."""
    k = (1 + math.isqrt(1 + 8 * length)) // 2
    if k * (k - 1) // 2 != length:
        raise refuse("E301", f"skew: a vector of {length} numbers fills no strict triangle",
                     suggestion="give it k(k-1)/2 numbers for a k×k matrix")
    return k


def skew(v: Tensor) -> Tensor:
    """k(k−1)/2 numbers → k×k antisymmetric: +v above the diagonal row by row, −v below."""
    k = triangle_size(v.shape[-1])
    i, j = torch.triu_indices(k, k, 1, device=v.device)
    place = (i * k + j).expand(v.shape)
    upper = v.new_zeros((*v.shape[:-1], k * k)).scatter(-1, place, v).reshape(*v.shape[:-1], k, k)
    return upper - upper.mT


def diag(v: Tensor) -> Tensor:
    """A vector as a diagonal matrix."""
    return torch.diag_embed(v)


def diagonal(M: Tensor) -> Tensor:
    """The diagonal of a matrix."""
    return torch.diagonal(M, dim1=-2, dim2=-1)


def blkdiag(F: Tensor, families: int = 1) -> Tensor:
    """(…, b, p, q) → (…, bp, bq); with ``families`` = 2 the last two family axes are taken row-major."""
    F = F.flatten(-2 - families, -3)
    b, p, q = F.shape[-3:]
    spread = torch.diag_embed(F.movedim(-3, -1)).movedim((-2, -1), (-4, -2))  # (…, b, p, b, q)
    return spread.reshape(*F.shape[:-3], b * p, b * q)


def blkdiag_of(*parts: Tensor) -> Tensor:
    """blkdiag(A, B, …) of matrices of any shapes."""
    lead = torch.broadcast_shapes(*(p.shape[:-2] for p in parts))
    wide = sum(p.shape[-1] for p in parts)
    rows: list[Tensor] = []
    at = 0
    for part in parts:
        p, q = part.shape[-2:]
        left, right = part.new_zeros(*lead, p, at), part.new_zeros(*lead, p, wide - at - q)
        rows.append(torch.cat([left, part.expand(*lead, p, q), right], -1))
        at += q
    return torch.cat(rows, -2)


def perm(idx: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix P with (P x)_i = x_{idx_i}."""
    return torch.eye(idx.shape[-1], dtype=dtype, device=idx.device)[idx]


def kron(A: Tensor, B: Tensor) -> Tensor:
    """A ⊗ B of matrices."""
    (p, q), (s, t) = A.shape[-2:], B.shape[-2:]
    grid = A[..., :, None, :, None] * B[..., None, :, None, :]
    return grid.reshape(*grid.shape[:-4], p * s, q * t)


def kron_vectors(u: Tensor, v: Tensor) -> Tensor:
    """u ⊗ v of vectors."""
    return outer(u, v).flatten(-2)


def outer(u: Tensor, v: Tensor) -> Tensor:
    """u vᵀ."""
    return u[..., :, None] * v[..., None, :]


def circulant(v: Tensor) -> Tensor:
    """C_{ij} = v_{(i−j) mod n}."""
    i = torch.arange(v.shape[-1], device=v.device)
    return v[..., (i[:, None] - i[None, :]) % v.shape[-1]]


def scatter(c: Tensor, places: Tensor, m: int, n: int) -> Tensor:
    """The m×n matrix with c_t added at places_t = (i, j)."""
    flat = (places[:, 0] * n + places[:, 1]).to(c.device).expand(c.shape)
    return c.new_zeros(*c.shape[:-1], m * n).scatter_add(-1, flat, c).reshape(*c.shape[:-1], m, n)


def tril(M: Tensor) -> Tensor:
    """Lower triangle with the diagonal."""
    return torch.tril(M)


def triu(M: Tensor) -> Tensor:
    """Upper triangle with the diagonal."""
    return torch.triu(M)


def stril(M: Tensor) -> Tensor:
    """Lower triangle without the diagonal."""
    return torch.tril(M, -1)


def striu(M: Tensor) -> Tensor:
    """Upper triangle without the diagonal."""
    return torch.triu(M, 1)


# ---------------------------------------------------------------- changing shape


def reshape(e: Tensor, axes: int, dims: Sequence[int]) -> Tensor:
    """Row-major: the last ``axes`` axes (families and item) become ``dims``."""
    return e.reshape(*e.shape[: e.dim() - axes], *dims)


def vec(M: Tensor) -> Tensor:
    """Columns of a matrix stacked."""
    return M.mT.flatten(-2)


def flatten(e: Tensor, axes: int) -> Tensor:
    """The last ``axes`` axes as one vector, row-major."""
    return e.reshape(*e.shape[: e.dim() - axes], -1)


def blocks(M: Tensor, a: int, b: int) -> Tensor:
    """ap×bq → (…, a, b, p, q): the grid of blocks."""
    rows, columns = M.shape[-2:]
    if a < 1 or b < 1 or rows % a or columns % b:
        raise refuse("E301", f"blocks: {rows}×{columns} cannot be cut into {a}×{b} equal blocks")
    return M.reshape(*M.shape[:-2], a, rows // a, b, columns // b).movedim(-3, -2)


def assemble(F: Tensor) -> Tensor:
    """(…, a, b, p, q) → ap×bq: undoes ``blocks``."""
    a, b, p, q = F.shape[-4:]
    return F.movedim(-2, -3).reshape(*F.shape[:-4], a * p, b * q)


def tile(e: Tensor, t: int, rank: int) -> Tensor:
    """A vector (``rank`` 1) repeated t times end to end; the rows of a matrix (``rank`` 2) likewise."""
    return torch.cat([e] * t, -rank) if t else e.narrow(-rank, 0, 0)


def repeat(F: Tensor, t: int, rank: int) -> Tensor:
    """Each item of a family (the axis before the ``rank`` item axes) t times: a, a, b, b."""
    axis = F.dim() - rank - 1
    return F.unsqueeze(axis + 1).expand(*F.shape[: axis + 1], t, *F.shape[axis + 1 :]).flatten(axis, axis + 1)


def grouped(F: Tensor, heads: int, rank: int) -> Tensor:
    """A family of G items → ``heads`` items, each repeated heads/G times."""
    groups = F.shape[F.dim() - rank - 1]
    if not groups or heads % groups:
        raise refuse("E501", f"grouped: {heads} heads are not a multiple of {groups} groups")
    return repeat(F, heads // groups, rank)


# ---------------------------------------------------------------- linear algebra


def svd(M: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Thin M = U diag(Σ) Vᵀ with q = min(m, n) triples, or the ``rank`` leading ones.

    Computed in float64 (attach time only). Singular vectors have no sign of their own: in each column of U the
    entry of largest magnitude, the first of equals, is made positive.
    """
    U, S, Vh = _signed(*solved(torch.linalg.svd, M.double(), full_matrices=False))
    if rank is not None:
        if rank > S.shape[-1] or rank < 1:
            raise refuse("E501", f"svd: rank = {rank}, but a {M.shape[-2]}×{M.shape[-1]} matrix has {S.shape[-1]}")
        U, S, Vh = U[..., :rank], S[..., :rank], Vh[..., :rank, :]
    return U.to(M.dtype), S.to(M.dtype), Vh.to(M.dtype)


def _signed(U: Tensor, S: Tensor, Vh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A decomposition with the sign of each pair of singular vectors fixed."""
    top = U.gather(-2, U.abs().argmax(-2, keepdim=True))
    sign = torch.where(top < 0, -1.0, 1.0).to(U.dtype)
    return U * sign, S, Vh * sign.mT


def svd_of_product(A: Tensor, B: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """``svd(A @ B, rank)`` of a thin product, rank ≤ its inner dimension: A B is never built.

    A = Q_A R_A, Bᵀ = Q_B R_B, and R_A R_Bᵀ = U Σ Vᵀ is small; then A B = (Q_A U) Σ (Q_B V)ᵀ.
    """
    Qa, Ra = solved(torch.linalg.qr, A.double())
    Qb, Rb = solved(torch.linalg.qr, B.double().mT)
    U, S, Vh = solved(torch.linalg.svd, Ra @ Rb.mT, full_matrices=False)
    U, S, Vh = _signed(Qa @ U[..., :rank], S[..., :rank], Vh[..., :rank, :] @ Qb.mT)
    dtype = torch.promote_types(A.dtype, B.dtype)
    return U.to(dtype), S.to(dtype), Vh.to(dtype)


def _positive_qr(M: Tensor) -> tuple[Tensor, Tensor]:
    Q, R = solved(torch.linalg.qr, M)
    sign = torch.where(diagonal(R) < 0, -1.0, 1.0).to(R.dtype)
    return Q * sign[..., None, :], R * sign[..., :, None]


def qr(M: Tensor) -> tuple[Tensor, Tensor]:
    """Thin M = Q R with diag(R) ≥ 0, which makes it unique; computed in float64."""
    Q, R = _positive_qr(M.double())
    return Q.to(M.dtype), R.to(M.dtype)


def orthonormal_rows(Z: Tensor) -> Tensor:
    """r×d (r ≤ d) → the Q of Zᵀ = Q R, transposed: orthonormal rows, and Z itself when its rows are orthonormal."""
    return _positive_qr(_single(Z).mT)[0].mT.to(Z.dtype)


def special_orthogonal(Z: Tensor) -> Tensor:
    """k×k → ``orthonormal_rows`` with its last row turned over where the determinant is −1."""
    R = orthonormal_rows(Z)
    sign = torch.where(torch.linalg.det(_single(R.detach())) < 0, -1.0, 1.0).to(R.dtype)
    return torch.cat([R[..., :-1, :], R[..., -1:, :] * sign[..., None, None]], -2)


def inverse(M: Tensor) -> Tensor:
    """M⁻¹."""
    made: Tensor = solved(torch.linalg.inv, _single(M)).to(M.dtype)
    return made


def expm(M: Tensor) -> Tensor:
    """The matrix exponential."""
    made: Tensor = torch.linalg.matrix_exp(_single(M)).to(M.dtype)
    return made


def trace(M: Tensor) -> Tensor:
    """The sum of the diagonal."""
    return diagonal(M).sum(-1)


# ---------------------------------------------------------------- Fourier transforms


def fft(v: Tensor) -> Tensor:
    """Complex; no factor."""
    made: Tensor = waves.fft(_single(v))
    return made


def ifft(v: Tensor) -> Tensor:
    """Complex; factor 1/n."""
    made: Tensor = waves.ifft(_single(v)) * (1.0 / int(v.shape[-1]))
    return made


def fft2(M: Tensor) -> Tensor:
    """Complex; no factor."""
    made: Tensor = waves.fft2(_single(M))
    return made


def ifft2(M: Tensor) -> Tensor:
    """Complex; factor 1/(mn).

    ``norm="forward"`` and a factor of our own: some CPU builds apply ifft2's own factor twice at 2048×2048.
    """
    made: Tensor = waves.ifft2(_single(M)) * (1.0 / (int(M.shape[-2]) * int(M.shape[-1])))
    return made


def real(e: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The real part; ``dtype`` gives half-precision programs their dtype back (there is no complex bfloat16)."""
    part = torch.real(e)
    return part if dtype is None else part.to(dtype)


def imag(e: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The imaginary part."""
    part = torch.imag(e) if e.is_complex() else torch.zeros_like(e)
    return part if dtype is None else part.to(dtype)


# ---------------------------------------------------------------- norms and reductions


def norm(v: Tensor) -> Tensor:
    """‖v‖₂ of a vector."""
    made: Tensor = torch.linalg.vector_norm(v, dim=-1)
    return made


def norm_row(M: Tensor) -> Tensor:
    """One 2-norm a row."""
    made: Tensor = torch.linalg.vector_norm(M, dim=-1)
    return made


def norm_col(M: Tensor) -> Tensor:
    """One 2-norm a column."""
    made: Tensor = torch.linalg.vector_norm(M, dim=-2)
    return made


def norm_F(M: Tensor) -> Tensor:
    """√(Σ M_{ij}²)."""
    made: Tensor = torch.linalg.vector_norm(M, dim=(-2, -1))
    return made


def _item(rank: int) -> tuple[int, ...]:
    return tuple(range(-rank, 0))


def total(e: Tensor, rank: int) -> Tensor:
    """``sum``: of all entries of an item."""
    return e.sum(_item(rank)) if rank else e


def mean(e: Tensor, rank: int) -> Tensor:
    """``mean``: of all entries of an item."""
    return e.mean(_item(rank)) if rank else e


def sum_row(M: Tensor) -> Tensor:
    """One sum a row."""
    return M.sum(-1)


def sum_col(M: Tensor) -> Tensor:
    """One sum a column."""
    return M.sum(-2)


def mean_row(M: Tensor) -> Tensor:
    """One mean a row."""
    return M.mean(-1)


def mean_col(M: Tensor) -> Tensor:
    """One mean a column."""
    return M.mean(-2)


def largest_entry(e: Tensor, rank: int) -> Tensor:
    """``max`` of the entries of an item."""
    return e.amax(_item(rank)) if rank else e


def smallest_entry(e: Tensor, rank: int) -> Tensor:
    """``min`` of the entries of an item."""
    return e.amin(_item(rank)) if rank else e


# ---------------------------------------------------------------- pointwise and selection


def clamp(e: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """e, but not below ``low`` nor above ``high``; both are scalars."""
    as_low, as_high = (torch.as_tensor(x, dtype=e.dtype, device=e.device) for x in (low, high))
    shape = torch.broadcast_shapes(e.shape, as_low.shape, as_high.shape)
    return torch.clamp(e.expand(shape), as_low, as_high)


POINTWISE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp, "log": torch.log, "sin": torch.sin, "cos": torch.cos, "tan": torch.tan, "tanh": torch.tanh,
    "arctan": torch.arctan, "sigmoid": torch.sigmoid, "relu": torch.relu, "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu, "softplus": torch.nn.functional.softplus, "sqrt": torch.sqrt, "abs": torch.abs,
    "sign": torch.sign,
}


def softmax(v: Tensor) -> Tensor:
    """exp(v)/sum(exp(v))."""
    return torch.softmax(v, -1)


def argtop(s: Tensor, k: int) -> Tensor:
    """Indices of the k largest, largest first; of equals the lower index first."""
    if not 0 <= k <= s.shape[-1]:
        raise refuse("E305", f"the {k} largest of {s.shape[-1]} numbers were asked for")
    return torch.sort(s, dim=-1, descending=True, stable=True).indices[..., :k]


def topk(s: Tensor, k: int) -> Tensor:
    """1 at the k largest entries, 0 elsewhere."""
    chosen = argtop(s.detach(), k)
    return torch.zeros_like(s).scatter(-1, chosen, torch.ones_like(chosen, dtype=s.dtype))


# ---------------------------------------------------------------- index sets and index vectors (int64, CPU)


def _index_set(name: str, *attrs: int) -> Tensor:
    """A row an index tuple; an index vector has no second axis."""
    width = index_rows.WIDTHS[name]
    made = torch.tensor(index_rows.index_rows(name, attrs), dtype=torch.int64)
    return made.reshape(-1) if width == 1 else made.reshape(-1, width)


def band(q: int, d: int) -> Tensor:
    """The index set of that name, which ``operators/index_rows.py`` says."""
    return _index_set("band", q, d)


def pairs(n: int) -> Tensor:
    """The index set of that name, which ``operators/index_rows.py`` says."""
    return _index_set("pairs", n)


def halves(n: int, g: int) -> Tensor:
    """The index set of that name, which ``operators/index_rows.py`` says."""
    return _index_set("halves", n, g)


def tree(n: int) -> Tensor:
    """The index set of that name, which ``operators/index_rows.py`` says."""
    return _index_set("tree", n)


def neighbours(n: int) -> Tensor:
    """The index set of that name, which ``operators/index_rows.py`` says."""
    return _index_set("neighbours", n)


def arange(n: int) -> Tensor:
    """The index set of that name, which ``operators/index_rows.py`` says."""
    return _index_set("arange", n)


def butterfly(n: int, k: int, j: int) -> Tensor:
    """The index set of that name, which ``operators/index_rows.py`` says."""
    return _index_set("butterfly", n, k, j)


def sample(m: int, n: int, count: int, seed: int) -> Tensor:
    """The index set of that name, which ``operators/index_rows.py`` says."""
    return _index_set("sample", m, n, count, seed)


def largest(M: Tensor, count: int) -> Tensor:
    """Places of the ``count`` largest entries, largest first; of equals the lower row-major place first."""
    m, n = M.shape
    if not 0 <= count <= m * n:
        raise refuse("E501", f"largest: {count} places were asked of a {m}×{n} matrix, which has {m * n}")
    flat = argtop(M.detach().reshape(-1), count)
    flat = flat if flat.is_meta else flat.cpu()  # on meta, where a checkpoint gives the values later
    return torch.stack([flat // n, flat % n], -1)


INDEX_SETS: Mapping[str, Callable[..., Tensor]] = {
    "band": band, "sample": sample, "pairs": pairs, "halves": halves, "tree": tree, "neighbours": neighbours,
    "arange": arange, "butterfly": butterfly,
}


# ---------------------------------------------------------------- initial values


def initialise(kind: str, args: Sequence[float], shape: Sequence[int], generator: torch.Generator,
               dtype: torch.dtype) -> Tensor:
    """A fresh tensor of a named kind, on the CPU.

    Numbers are drawn in float32 whatever ``dtype`` is, so that a seed means the same numbers for every dtype.
    fan_in is the last dimension, fan_out the one before it.
    """
    t = torch.empty(tuple(shape), dtype=torch.float32)
    fan_in = shape[-1] if shape else 1
    fan_out = shape[-2] if len(shape) > 1 else fan_in
    if 0 in shape:
        return t.to(dtype)
    match kind, tuple(args):
        case "kaiming", ():
            bound = 1.0 / math.sqrt(fan_in)
            t.uniform_(-bound, bound, generator=generator)
        case "kaiming", (a,):
            bound = math.sqrt(6.0 / ((1.0 + a * a) * fan_in))
            t.uniform_(-bound, bound, generator=generator)
        case "kaiming_normal", ():
            t.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
        case "xavier", ():
            bound = math.sqrt(6.0 / (fan_in + fan_out))
            t.uniform_(-bound, bound, generator=generator)
        case "normal", (std,):
            t.normal_(0.0, _spread(std), generator=generator)
        case "normal", (mean_, std):
            t.normal_(mean_, _spread(std), generator=generator)
        case "uniform", (low, high):
            if not low <= high:
                raise refuse("E209", f"uniform({low}, {high}): the first number must not be above the second")
            t.uniform_(low, high, generator=generator)
        case "trunc_normal", (mean_, std):
            s = _spread(std)
            torch.nn.init.trunc_normal_(t, mean_, s, mean_ - 2 * s, mean_ + 2 * s, generator=generator)
        case "orthogonal", ():
            if len(shape) < 2:
                raise refuse("E209", "orthogonal: only a matrix can start orthonormal")
            Z = t.normal_(generator=generator).double()
            return (orthonormal_rows(Z) if fan_out <= fan_in else orthonormal_rows(Z.mT).mT).to(dtype)
        case _:
            raise refuse("E209", f"{kind} does not take {len(args)} numbers",
                         suggestion="normal(std), uniform(low, high), kaiming(a), trunc_normal(mean, std)")
    return t.to(dtype)


def _spread(std: float) -> float:
    if not std >= 0:
        raise refuse("E209", f"a standard deviation of {std}", suggestion="a number ≥ 0")
    return std


def equal_pairs(t: Tensor) -> Tensor:
    """``pairs(init)``: row 2i + 1 becomes equal to row 2i (an odd last row stays)."""
    if t.dim() < 2:
        raise refuse("E209", "pairs: needs rows, a matrix or a family of vectors")
    i = torch.arange(t.shape[-2], device=t.device)
    return t[..., i - i % 2, :]


def unit_std(t: Tensor) -> Tensor:
    """``unit_std(init)``: divided by the standard deviation of all its numbers."""
    return t / t.std()
