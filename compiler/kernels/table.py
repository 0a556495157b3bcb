"""The functions that plans are made of: what ``torch`` calls each tensor operation.

    PRIMS[name](*args)      the arguments in the order of ``Low.args``

Functional operations only: nothing is changed in place, so a plan can be differentiated, exported and compiled. Where a
mixture of precisions can meet (a half-precision base, float32 adapters) the function says who yields.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from padp.compiler.kernels import dense as kernels
from padp.compiler.kernels import waves
from padp.compiler.kernels.circulants import circulant_grid
from padp.compiler.kernels.each_block import each_block
from padp.compiler.kernels.products import FEW, THIN, plain, plus_product, product, sum_applied
from padp.compiler.kernels.singular import solved
from padp.compiler.kernels.slices import close_slice, open_slice, turned_slice
from padp.compiler.kernels.sparse import sparse_apply
from padp.compiler.kernels.spectral import spectral_apply, spectral_bins, spectral_weights
from padp.compiler.kernels.torch_state import autocast_dtype, dispatched, looked_into
from padp.compiler.plan import rotation_rounds as rounds
from padp.dsl.diagnostics import refuse

_HALF = (torch.float16, torch.bfloat16)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b. Of two precisions the smaller matrix yields, so that a half-precision base weight is never copied."""
    if a.dtype == b.dtype or autocast_dtype(a) is not None:
        return torch.matmul(a, b)
    wide = torch.promote_types(a.dtype, b.dtype)
    if wide.is_complex:
        return torch.matmul(a.to(wide), b.to(wide))
    large = a.dim() > 1 and (b.dim() < 2 or a.shape[-2] * a.shape[-1] >= b.shape[-2] * b.shape[-1])
    if large:  # not of tokens, whose number nobody asks for here
        return torch.matmul(a, b.to(a.dtype)).to(wide)
    return torch.matmul(a.to(b.dtype), b).to(wide)


def linear(v: Tensor, m: Tensor, bias: Tensor | None = None) -> Tensor:
    """Each vector of v times m, and a bias: v mᵀ + bias."""
    if m.dtype != v.dtype or (bias is not None and bias.dtype != v.dtype):
        v, m = alike(v, m)
        if bias is not None:
            v, bias = alike(v, bias)
            m = m.to(v.dtype)
    return product(v, m, bias)


def alike(v: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the precision of v; in complex numbers where one is complex: a number's imaginary part is never lost."""
    if v.dtype == other.dtype:
        return v, other
    if v.is_complex() or other.is_complex():
        wide = torch.promote_types(v.dtype, other.dtype)
        return v.to(wide), other.to(wide)
    return v, other.to(v.dtype)


def linear_each(v: Tensor, m: Tensor) -> Tensor:
    """(…, n) and a batch of matrices (b…, m, n) → (…, b…, m): one product for all of them.

    For a few vectors a batch that lies transposed is not laid out anew.
    """
    if not looked_into() and v.numel() < FEW * v.shape[-1] and m.mT.is_contiguous() and not m.is_contiguous() \
            and v.dtype == m.dtype:
        lying = m.mT.reshape(-1, m.shape[-1], m.shape[-2])
        rows = v.reshape(-1, v.shape[-1]).expand(len(lying), -1, -1)
        made = torch.bmm(rows, lying)  # torch.matmul may lay out anew
        return made.movedim(0, 1).reshape(*v.shape[:-1], *m.shape[:-1])
    flat = m.reshape(-1, m.shape[-1])
    out: Tensor = linear(v, flat).unflatten(-1, m.shape[:-1])
    return out


def each(v: Tensor, m: Tensor, axes: int) -> Tensor:
    """(…, b…, n) and (b…, m, n) → (…, b…, m): the i-th matrix times the i-th vector."""
    v, m = alike(v, m)
    if axes == 1 and v.dim() > 2 and autocast_dtype(v) is None:
        return each_block(v, m)
    letters = "abcdefgh"[:axes]
    return torch.einsum(f"...{letters}y,{letters}zy->...{letters}z", v, m)


def matvec(m: Tensor, v: Tensor) -> Tensor:
    """m @ v with all leading axes broadcast."""
    m, v = alike(m, v)
    return (m @ v[..., None])[..., 0]


def solve(a: Tensor, x: Tensor) -> Tensor:
    """a⁻¹ x in at least float32."""
    a, x = _both_complex(a, x)
    y: Tensor = solved(torch.linalg.solve, _wide(a), _wide(as_matrices(x, a)))
    return y.to(x.dtype)


def as_matrices(x: Tensor, a: Tensor) -> Tensor:
    """x with as many axes as a, so that torch takes it for matrices: where x has one axis fewer and its sizes are those
    of a without the last, torch.linalg.solve takes it for a batch of vectors."""
    return x[(None,) * max(0, a.dim() - x.dim())]


def solve_right(a: Tensor, x: Tensor) -> Tensor:
    """x a⁻¹ in at least float32."""
    a, x = _both_complex(a, x)
    y: Tensor = solved(torch.linalg.solve, _wide(a), _wide(as_matrices(x, a)), left=False)
    return y.to(x.dtype)


def solve_vectors(a: Tensor, v: Tensor, axes: int) -> Tensor:
    """a⁻¹ v for many vectors: a is factored once."""
    a, v = _both_complex(a, v)
    lead = v.shape[: v.dim() - axes - 1]
    rows = v.reshape(-1, *v.shape[v.dim() - axes - 1:]).movedim(0, -1)  # (b…, n, T)
    y: Tensor = solved(torch.linalg.solve, _wide(a), _wide(rows))
    return y.movedim(-1, 0).reshape(*lead, *v.shape[v.dim() - axes - 1:]).to(v.dtype)


def _both_complex(a: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Both as they are, or both complex."""
    return alike(a, x) if a.is_complex() != x.is_complex() else (a, x)


def _wide(t: Tensor) -> Tensor:
    return t.float() if t.dtype in _HALF else t


def sumsq(a: Tensor, axis: str, rank: int) -> Tensor:
    """Sums of squares a row, a column or of all entries of an item."""
    dims = {"row": (-1,), "col": (-2,), "all": tuple(range(-rank, 0))}[axis]
    if a.is_complex():
        return (a.real.square() + a.imag.square()).sum(dims)
    return _wide(a).square().sum(dims).to(a.dtype)


def root(s: Tensor) -> Tensor:
    """√s of a sum of squares: a norm. Where it is 0 the gradient is 0 too, as of torch's own norms."""
    none = s == 0
    return torch.sqrt(s.masked_fill(none, 1.0)).masked_fill(none, 0.0)


def inverse_norm(s: Tensor) -> Tensor:
    """1/s of a norm, 0 where it is 0; there the gradient is 0 too."""
    return s.masked_fill(s == 0, torch.inf).reciprocal()


def norm(a: Tensor, axis: str, rank: int) -> Tensor:
    """√ of ``sumsq``; where it is 0 its gradient is 0 too, and so is the gradient of that.

    torch's own, in one call, is slow for many columns, and its second derivative is nan where the norm is 0.
    """
    if looked_into() or dispatched() or not a.is_cpu or (axis == "col" and THIN * a.shape[-1] > a.shape[-2]):
        return root(sumsq(a, axis, rank))
    dims = {"row": (-1,), "col": (-2,), "all": tuple(range(-rank, 0))}[axis]
    made: Tensor = torch.linalg.vector_norm(_wide(a), dim=dims)
    if made.requires_grad and not made.all():
        return root(sumsq(a, axis, rank))
    return made if a.is_complex() else made.to(a.dtype)


def rowdot(a: Tensor, b: Tensor) -> Tensor:
    """⟨row of a, row of b⟩ for each row."""
    return (a * b).sum(-1)


def wy(gram: Tensor, scaled: Tensor, reverse: bool) -> Tensor:
    """(I − T)⁻¹ scaled, T the strict lower (``reverse``: upper) triangle of ``gram``: a triangular solve."""
    triangle = torch.triu(gram, 1) if reverse else torch.tril(gram, -1)
    eye = torch.eye(gram.shape[-1], dtype=_wide(gram).dtype, device=gram.device)
    out: Tensor = torch.linalg.solve_triangular(eye - _wide(triangle), _wide(scaled), upper=reverse, unitriangular=True)
    return out.to(scaled.dtype)


def put(tensors: Sequence[Tensor], rank: int) -> Tensor:
    """A copy with one entry set, by a mask, so that it can be differentiated and batched."""
    base, value, row, *rest = tensors
    base, value = alike(base, value)
    if rank == 1:
        hit = torch.arange(base.shape[-1], device=base.device) == row[..., None]
        return torch.where(hit, value[..., None], base)
    col = rest[0]
    hit_row = torch.arange(base.shape[-2], device=base.device) == row[..., None]
    hit_col = torch.arange(base.shape[-1], device=base.device) == col[..., None]
    return torch.where(hit_row[..., :, None] & hit_col[..., None, :], value[..., None, None], base)


def reshape_tail(t: Tensor, axes: int, dims: Sequence[int]) -> Tensor:
    """The last ``axes`` axes become ``dims``, row-major."""
    return t.reshape(*t.shape[: t.dim() - axes], *dims)


def expand(t: Tensor, shape: Sequence[int]) -> Tensor:
    """Axes of size 1 (and missing ones in front) repeated to ``shape``; axes before those stay."""
    lead = t.shape[: max(0, t.dim() - len(shape))]
    return t.expand(*lead, *shape)


def packed(t: Tensor) -> Tensor:
    """The same, laid out in order."""
    return t.contiguous()


def permute_tail(t: Tensor, order: Sequence[int]) -> Tensor:
    """The last axes in another order."""
    lead = t.dim() - len(order)
    return t.permute(*range(lead), *(lead + a for a in order))


def gather(t: Tensor, axis: int, index: Tensor) -> Tensor:
    """Entries at an index; along the last axis as if there were two, where torch is ten times faster."""
    if axis == -1 and t.dim() > 2:
        return t.reshape(-1, t.shape[-1]).index_select(1, index).reshape(*t.shape[:-1], index.shape[0])
    return torch.index_select(t, axis, index)


def stack_parts(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Parts beside each other along a new axis, counted from the end of the result."""
    return torch.stack(list(parts), axis)


def replace_slice(t: Tensor, new: Tensor, start: int, step: int) -> Tensor:
    """A copy with every ``step``-th entry of the last axis replaced, from ``start``."""
    t, new = alike(t, new)
    return torch.slice_scatter(t, new, -1, start, start + step * (new.shape[-1] - 1) + 1, step)


def replace_entries(t: Tensor, new: Tensor, index: Tensor) -> Tensor:
    """A copy with some entries of the last axis replaced."""
    t, new = alike(t, new)
    return torch.index_copy(t, t.dim() - 1, index, new)


def given_index(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


def transposed(t: Tensor) -> Tensor:
    """tᵀ of each matrix; complex numbers stay as they are (torch.adjoint would conjugate them)."""
    return t.mT


def take_along(t: Tensor, index: Tensor, loop: int, axis: int) -> Tensor:
    """Along ``axis`` the entry index[s] in each step s of the axis ``loop``; ``axis`` goes."""
    shape = [1] * t.dim()
    shape[loop] = index.shape[0]
    places = index.reshape(shape).expand([1 if k == t.dim() + axis else n for k, n in enumerate(t.shape)])
    return torch.gather(t, axis, places).squeeze(axis)


def slice_step(t: Tensor, axis: int, start: int, stop: int, step: int) -> Tensor:
    """Every ``step``-th from start to stop."""
    index = (..., slice(start, stop, step)) + (slice(None),) * (-axis - 1)
    return t[index]


def cat(parts: Sequence[Tensor], axis: int) -> Tensor:
    """End to end along an axis from the end; leading axes are broadcast."""
    dtype = parts[0].dtype
    for p in parts[1:]:
        dtype = torch.promote_types(dtype, p.dtype)
    lead = torch.broadcast_shapes(*(p.shape[:-2] if axis == -2 else p.shape[:-1] for p in parts))
    tail = 2 if axis == -2 else 1
    return torch.cat([p.to(dtype).expand(*lead, *p.shape[-tail:]) for p in parts], axis)


def interleave(parts: Sequence[Tensor], along: int) -> Tensor:
    """a₀ b₀ a₁ b₁ … along an axis counted from the end."""
    return torch.stack(torch.broadcast_tensors(*parts), -along).flatten(-along - 1, -along)


def circulant_apply(c: Tensor, v: Tensor, transposed: bool) -> Tensor:
    """circulant(c) v by FFT; transposed: circulant(c)ᵀ v, which is the circulant of c read backwards."""
    if c.dim() == 1:
        return circulant_grid((c.flip(0).roll(1) if transposed else c)[None, None], v)
    n = v.shape[-1]
    spectrum = waves.rfft(_wide(c))
    if transposed:
        spectrum = spectrum.conj()
    wide = _wide(v)
    wide = wide.to(torch.promote_types(wide.dtype, _wide(c).dtype))
    out: Tensor = waves.irfft(spectrum * waves.rfft(wide), n=n)
    return out.to(v.dtype)


def per_token(y: Tensor, x: Tensor) -> Tensor:
    """A vector that is the same for every token of x."""
    return y.expand(*x.shape[:-1], y.shape[-1])


def dropout(t: Tensor, p: float, training: bool) -> Tensor:
    return F.dropout(t, p, training)


def dot(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).sum(-1)


def addcmul(a: Tensor, b: Tensor, c: Tensor, sign: int = 1) -> Tensor:
    """a ± b ⊙ c; in one pass where the precisions are the same."""
    if a.dtype == b.dtype == c.dtype:
        return torch.addcmul(a, b, c, value=sign)
    return a + b * c if sign == 1 else a - b * c


def add_linear(a: Tensor, v: Tensor, m: Tensor, factor: float) -> Tensor:
    """a + factor · v mᵀ, the product adding to a as it goes; with mixed precisions one after the other."""
    if a.dtype == v.dtype == m.dtype and v.dim() > 1 and autocast_dtype(a) is None:
        return plus_product(a, v, m, factor)
    product = linear(v, m)
    return a + (product if factor == 1 else product * factor)


def call_base(base: nn.Module, v: Tensor, x: Tensor) -> Tensor:
    """The base layer's own forward, in the precision of the model."""
    if v.is_complex():
        return torch.complex(*(_wide(f(base, part, x)) for f, part in (
            (call_base, v.real), (call_base_without_bias, v.imag))))
    v = from_compute(v, x)
    if plain(base):
        return product(v, cast(Tensor, base.weight), cast("Tensor | None", base.bias))
    out: Tensor = base(v)
    return out


def call_base_without_bias(base: nn.Module, v: Tensor, x: Tensor) -> Tensor:
    """W v: a plain linear layer without its bias, any other layer's output minus its bias."""
    if v.is_complex():
        return torch.complex(*(_wide(call_base_without_bias(base, part, x)) for part in (v.real, v.imag)))
    v = from_compute(v, x)
    if plain(base):
        return product(v, cast(Tensor, base.weight))
    bias = base.bias
    out: Tensor = base(v)
    return out - bias if isinstance(bias, Tensor) else out


def to_compute(x: Tensor, like: Tensor) -> Tensor:
    """x in the precision of the adapter."""
    return x if x.dtype == like.dtype else x.to(like.dtype)


def from_compute(y: Tensor, like: Tensor) -> Tensor:
    """y in the precision of ``like``."""
    if y.dtype == like.dtype:
        return y
    if y.is_complex() and not like.is_complex():
        raise refuse("E306", "a complex value is wanted as a real one", suggestion="Re(…)")
    return y.to(like.dtype)


def full(shape: Sequence[int], value: float, like: Tensor) -> Tensor:
    return torch.full(tuple(shape), value, dtype=like.dtype, device=like.device)


def eye(n: int, like: Tensor) -> Tensor:
    return torch.eye(n, dtype=like.dtype, device=like.device)


def unit_blocks(size: int, count: int, like: Tensor) -> Tensor:
    """[I I … I]: row q is 1 at the q-th coordinate of every block."""
    return torch.eye(size, dtype=like.dtype, device=like.device).repeat(1, count)


def permutation(index: Tensor, like: Tensor) -> Tensor:
    """The matrix P with (P v)_i = v_{index_i}."""
    return torch.eye(index.shape[-1], dtype=like.dtype, device=index.device)[index]


def iota(count: int, step: int, first: int) -> Tensor:
    return first + step * torch.arange(count)


def places(op: str, attrs: tuple[Any, ...], columns: tuple[int, int], n: int) -> Tensor:
    """Where all rotations' i's and j's lie in a matrix of a row a round."""
    return torch.from_numpy(rounds.places((op, attrs, columns, n)))


def partner(op: str, attrs: tuple[Any, ...], columns: tuple[int, int], k: int, n: int) -> Tensor:
    """For each coordinate the one it is rotated with in round k (itself when none)."""
    return torch.from_numpy(rounds.partners((op, attrs, columns, n), k))


def spread_rounds(first: Tensor, second: Tensor, at: Tensor, n: int, count: int, default: int) -> tuple[Tensor, ...]:
    """For each of ``count`` rounds a vector: ``first`` at its i's, ``second`` at its j's, ``default`` elsewhere; ``at``
    has the ``places`` of both."""
    base = torch.full((count * n,), default, dtype=first.dtype, device=first.device)
    spread = base.scatter(0, at, torch.cat([first, second]))
    return spread.reshape(count, n).unbind(0)


def real_part(e: Tensor) -> Tensor:
    return torch.real(e).contiguous() if e.is_complex() else e  # a view would keep the other half alive


def imag_part(e: Tensor) -> Tensor:
    return torch.imag(e) if e.is_complex() else torch.zeros_like(e)


def grouped(t: Tensor, heads: int, rank: int) -> Tensor:
    return kernels.grouped(t, heads, rank)


def _maximum(a: Tensor, b: Tensor) -> Tensor:
    return torch.maximum(a, b.to(a.dtype))


def _minimum(a: Tensor, b: Tensor) -> Tensor:
    return torch.minimum(a, b.to(a.dtype))


PRIMS: dict[str, Callable[..., Any]] = {
    "neg": torch.neg, "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "pow": torch.pow,
    "reciprocal": torch.reciprocal, "rdiv": lambda s, t: s / t, "matmul": matmul, "mv": matmul, "linear": linear,
    "linear_each": linear_each, "each": each, "matvec": matvec, "solve": solve, "solve_right": solve_right,
    "solve_vectors": solve_vectors, "sumsq": sumsq, "root": root,
    "inverse_norm": inverse_norm, "norm": norm, "rowdot": rowdot,
    "dot": dot, "wy": wy, "put": put,
    "sum": torch.sum, "mean": torch.mean, "amax": torch.amax, "amin": torch.amin, "addcmul": addcmul,
    "add_linear": add_linear, "sum_applied": sum_applied, "index_select": gather, "stack_parts": stack_parts,
    "permute_tail": permute_tail, "packed": packed,
    "unit_blocks": unit_blocks,
    "replace_slice": replace_slice, "turned_slice": turned_slice, "open_slice": open_slice, "close_slice": close_slice,
    "replace_entries": replace_entries,
    "i:given": given_index, "spectral_apply": spectral_apply,
    "i:spectral_bins": spectral_bins, "spectral_weights": spectral_weights, "cat": cat, "interleave": interleave,
    "circulant_apply": circulant_apply, "sparse_apply": sparse_apply, "detach": torch.detach, "dropout": dropout,
    "per_token": per_token, "spread_rounds": spread_rounds, "full": full, "eye": eye,
    "mT": transposed, "narrow": torch.narrow, "unsqueeze": torch.unsqueeze, "movedim": torch.movedim,
    "select": torch.select, "expand": expand, "slice_step": slice_step, "take_along": take_along,
    "flatten": torch.flatten,
    "reshape_tail": reshape_tail,
    "getitem": lambda t, k: t[k],
    "base": call_base, "base_without_bias": call_base_without_bias,
    "i:iota": iota, "i:inverse_index": torch.argsort, "i:partner": partner, "i:places": places,
    **{f"i:{n}": getattr(kernels, n) for n in ("tree", "band", "sample", "pairs", "halves", "neighbours", "arange",
                                               "butterfly", "largest", "argtop")},
    **{f"f:{n}": f for n, f in kernels.POINTWISE.items()},
    "k:maximum": _maximum, "k:minimum": _minimum, "k:Re": real_part, "k:Im": imag_part,
    "k:orthonormal": kernels.orthonormal_rows, "k:special_orthogonal": kernels.special_orthogonal,
    **{f"k:{n}": getattr(kernels, n) for n in (
        "skew", "diag", "diagonal", "blkdiag", "blkdiag_of", "kron", "kron_vectors", "circulant", "scatter", "tril",
        "triu", "stril", "striu", "vec", "blocks", "assemble", "tile", "repeat", "grouped", "svd", "qr", "inverse",
        "expm", "trace", "fft", "ifft", "fft2", "ifft2", "softmax", "topk", "clamp")},
    "k:perm": permutation, "svd_of_product": kernels.svd_of_product,
    "circulant_grid": circulant_grid,
}
"""Every operation by name. ``k:`` is an operator's dense meaning, ``f:`` an entry-wise function, ``i:`` index sets."""

MAKE_COMPLEX = ("k:fft", "k:ifft", "k:fft2", "k:ifft2")
"""Operations that make complex numbers of real ones."""

ALIASES = ("as_is", "as_rows", "from_rows")
"""Operations that only change how a tensor is read."""

NEEDS_LIKE = ("full", "eye", "k:perm", "unit_blocks")
"""Operations that make a tensor from numbers: they take a tensor whose precision and device to use."""

