"""What each tensor operation costs: one entry an operation, forward and backward, symbolic in every size.

    cost(low, tokens) -> Cost      FLOPs of matrix products, other FLOPs and numbers moved, forward and backward
    saved(low) -> [Low]            what autograd keeps of it for backward
    storage(low) -> Low            whose memory a value lies in: a view has none of its own

FLOPs of products are counted as torch's own counter does (two for a multiply-add), and agree with it exactly; what it
does not count (entry-wise work, solves, transforms) is ``other``. Sizes may be numbers or sympy symbols, ``tokens``
too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import sympy as sp

from padp.compiler.plan.steps import LEAVES, VIEWS, Low, copies

Dims: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs and numbers read or written (times the bytes of one: the traffic); ``*_back`` is backward's share."""

    product: Any = 0
    other: Any = 0
    moved: Any = 0
    product_back: Any = 0
    other_back: Any = 0
    moved_back: Any = 0

    @property
    def flops(self) -> Any:
        """Forward FLOPs of every kind."""
        return self.product + self.other


@dataclass(frozen=True, slots=True)
class Sizes:
    """An operation as its entry sees it: sizes of the result and of the inputs, and which inputs have a gradient."""

    out: Dims
    ins: tuple[Dims, ...]
    needs: tuple[bool, ...]
    args: tuple[Any, ...]

    @property
    def made(self) -> Any:
        """Numbers in the result."""
        return count(self.out)

    def read(self, k: int) -> Any:
        """Numbers in an input."""
        return count(self.ins[k])

    @property
    def all_read(self) -> Any:
        return sum((count(d) for d in self.ins), start=0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One operation: what it costs at given sizes, and ``keeps``: which inputs, or the result, its gradients read."""

    cost: Callable[[Sizes], Cost]
    keeps: Callable[[Low], Sequence[Low]]


def count(dims: Dims) -> Any:
    total: Any = 1
    for d in dims:
        total = total * d
    return total


def log2(n: Any) -> Any:
    return sp.log(n, 2) if isinstance(n, sp.Expr) and n.free_symbols else math.log2(max(float(n), 1.0))


def sizes(low: Low, tokens: Any) -> Sizes:
    """The sizes of an operation at a number of tokens."""

    def at(dims: Dims) -> Dims:
        return tuple(tokens if d == "T" else d for d in dims)

    inputs = list(low.inputs())
    return Sizes(at(low.dims), tuple(at(x.dims) for x in inputs), tuple(x.grad for x in inputs), low.args)


def cost(low: Low, tokens: Any) -> Cost:
    """What one operation costs; a leaf, a view and a choice cost nothing."""
    if copies(low):
        return _moving(sizes(low, tokens))
    if low.prim in LEAVES or low.prim in VIEWS or low.prim in FREE:
        return Cost()
    return entry(low.prim).cost(sizes(low, tokens))


def saved(low: Low) -> list[Low]:
    """Whose memory autograd holds until backward because of this operation; nothing without a gradient."""
    if not low.grad or low.prim in LEAVES or low.prim in VIEWS or low.prim in FREE:
        return []
    return [storage(x) for x in entry(low.prim).keeps(low)]


def entry(prim: str) -> Entry:
    """The entry of an operation by its name, or by the kind its name says."""
    found = ENTRIES.get(prim)
    if found is not None:
        return found
    if prim.startswith("f:"):
        return Entry(_pointwise, _KEEPS_OF_POINT.get(prim[2:], _keeps_input))
    if prim.startswith("i:"):
        return Entry(lambda s: Cost(moved=s.made + s.all_read), _keeps_nothing)
    raise KeyError(f"no cost is stated for the operation {prim}")


# ---------------------------------------------------------------- whose memory


def storage(low: Low) -> Low:
    """The value whose memory ``low`` lies in."""
    while (low.prim in VIEWS or low.prim == "detach") and not copies(low):
        low = low.args[0]
    return low


# ---------------------------------------------------------------- what is kept


def _inputs(low: Low) -> list[Low]:
    return list(low.inputs())


def _keeps_nothing(low: Low) -> Sequence[Low]:
    return ()


def _keeps_second(low: Low) -> Sequence[Low]:
    """What is put in, for its shape."""
    return _inputs(low)[1:2]


def _keeps_input(low: Low) -> Sequence[Low]:
    return _inputs(low)[:1]


def _keeps_result(low: Low) -> Sequence[Low]:
    return (low,)


def _keeps_other(low: Low) -> Sequence[Low]:
    """Of a product of two: each, where the other has a gradient."""
    a, c, *_ = (*_inputs(low), low)
    if len(_inputs(low)) < 2:
        return ()  # times a plain number
    return [x for x, y in ((a, c), (c, a)) if y.grad]


def _keeps_div(low: Low) -> Sequence[Low]:
    """a/b: b for a's gradient; a and b for b's."""
    inputs = _inputs(low)
    if len(inputs) < 2:
        return ()
    a, c = inputs
    return [x for x, wanted in ((c, a.grad or c.grad), (a, c.grad)) if wanted]


def _keeps_addcmul(low: Low) -> Sequence[Low]:
    """a + b ⊙ c."""
    _, x, y = _inputs(low)
    return [one for one, other in ((x, y), (y, x)) if other.grad]


def _keeps_addmm(low: Low) -> Sequence[Low]:
    """a + v Mᵀ."""
    _, v, m = _inputs(low)
    return [one for one, other in ((v, m), (m, v)) if other.grad]


def _keeps_sum_applied(low: Low) -> Sequence[Low]:
    """v for the factors' gradients; the sum for v's; all parts for gradients of gradients."""
    return _inputs(low)[:5]


def _keeps_sparse(low: Low) -> Sequence[Low]:
    """S v: the vectors for the entries' gradient, the entries for the vectors'."""
    c, v = low.args[0], low.args[2]
    return [x for x, y in ((c, v), (v, c)) if y.grad]


def _keeps_solve(low: Low) -> Sequence[Low]:
    """a⁻¹ x: a itself stands for its factors, and the result where a has a gradient."""
    a = _inputs(low)[0]
    return [a, low] if a.grad else [a]


def _keeps_input_and_result(low: Low) -> Sequence[Low]:
    return (*_inputs(low)[:1], low)


_KEEPS_OF_POINT: Mapping[str, Callable[[Low], Sequence[Low]]] = {
    "exp": _keeps_result, "sqrt": _keeps_result, "tanh": _keeps_result, "sigmoid": _keeps_result,
    "relu": _keeps_result, "tan": _keeps_result, "sign": _keeps_nothing, "floor": _keeps_nothing,
}  # fmt: skip


# ---------------------------------------------------------------- costs by kind


def _entrywise(flops: int = 1, backward: int = 1) -> Callable[[Sizes], Cost]:
    """One pass over the result; backward one pass for each input with a gradient, and a sum where it was broadcast."""

    def cost_of(s: Sizes) -> Cost:
        other = moved = 0
        for k, wanted in enumerate(s.needs):
            if wanted:
                summed = s.ins[k] != s.out
                other = other + (backward + (1 if summed else 0)) * s.made
                moved = moved + (2 if backward else 0) * s.made + (s.made if summed else 0) + s.read(k)
        return Cost(other=flops * s.made, moved=s.made + s.all_read, other_back=other, moved_back=moved)

    return cost_of


def _passing(s: Sizes) -> Cost:
    """A sum: backward hands the gradient on, or sums it where the input was broadcast."""
    other = moved = 0
    for k, wanted in enumerate(s.needs):
        if wanted and s.ins[k] != s.out:
            other, moved = other + s.made, moved + s.made + s.read(k)
    return Cost(other=s.made, moved=s.made + s.all_read, other_back=other, moved_back=moved)


def _pointwise(s: Sizes) -> Cost:
    back = 3 * s.made if any(s.needs) else 0
    return Cost(other=4 * s.made, moved=2 * s.made, other_back=back, moved_back=back)


def _product(vector: int, matrix: int) -> Callable[[Sizes], Cost]:
    """A product over one shared axis: 2 |result| · (its length), and as much again for each gradient."""

    def cost_of(s: Sizes) -> Cost:
        work = 2 * s.made * s.ins[vector][-1]
        needed = sum(1 for k in (vector, matrix) if s.needs[k])
        moved = s.made + s.all_read
        return Cost(product=work, moved=moved, product_back=needed * work, moved_back=needed * moved)

    return cost_of


def _matvec(s: Sizes) -> Cost:
    """One matrix times one vector: torch's counter leaves it out, and its gradients are outer products."""
    work = 2 * s.made * s.ins[0][-1]
    needed = sum(s.needs)
    moved = s.made + s.all_read
    return Cost(other=work, moved=moved, other_back=needed * work, moved_back=needed * moved)


def _base(s: Sizes) -> Cost:
    """W v with a frozen W: ``columns`` of W is the length of v."""
    rows, columns = s.out[-1], s.ins[0][-1]
    work = 2 * s.made * columns
    moved = s.made + s.all_read + rows * columns
    back = s.needs[0]
    return Cost(product=work, moved=moved, product_back=work if back else 0, moved_back=moved if back else 0)


def _addmm(s: Sizes) -> Cost:
    """a + c v Mᵀ in one product."""
    work = 2 * s.made * s.ins[1][-1]
    needed = sum(1 for k in (1, 2) if s.needs[k])
    moved = 2 * s.made + s.all_read
    return Cost(product=work, moved=moved, product_back=needed * work, moved_back=needed * (s.made + s.read(1)))


def _sum_applied(s: Sizes) -> Cost:
    """v Sᵀ; backward v's gradient by S, those of S's factors l and r through the tokens."""
    k = s.ins[3][-1]
    work = 2 * s.made * s.ins[0][-1]
    each = 2 * (s.made + s.read(0)) * k
    back = (work if s.needs[0] else 0) + sum(each for j in (3, 4) if s.needs[j])
    moved = s.made + s.read(0) + s.read(1)
    return Cost(product=work, moved=moved, product_back=back, moved_back=sum(s.needs) * moved)


def _turned_slice(s: Sizes) -> Cost:
    """A copy, and a product on as many entries as the matrix has rows."""
    size = s.ins[1][-1]
    work = 2 * s.made * size * size / s.out[-1]
    work = work if isinstance(work, sp.Expr) else round(work)
    needed = sum(s.needs)
    return Cost(product=work, moved=4 * s.made, product_back=needed * work, moved_back=4 * s.made if needed else 0)


def _inner(s: Sizes) -> Cost:
    """⟨a, b⟩ along the last axis."""
    big = max((count(d) for d in s.ins), key=lambda c: float(c) if not isinstance(c, sp.Expr) else 0.0)
    needed = sum(s.needs)
    return Cost(other=2 * big, moved=2 * big + s.made, other_back=needed * big, moved_back=needed * 2 * big)


def _reduction(s: Sizes) -> Cost:
    size = s.read(0)
    back = size if any(s.needs) else 0
    return Cost(other=2 * size, moved=size + s.made, other_back=back, moved_back=2 * back)


def _solving(matrix: int, right: int) -> Callable[[Sizes], Cost]:
    """a⁻¹ x: a is factored (2/3 n³), then two triangular solves; a's gradient is one product more."""

    def cost_of(s: Sizes) -> Cost:
        n = s.ins[matrix][-1]
        work = 2 * s.made * n
        factor = sp.Rational(2, 3) * s.read(matrix) * n if isinstance(n, sp.Expr) else 2 / 3 * s.read(matrix) * n
        back = work if any(s.needs) else 0
        return Cost(other=factor + work, moved=s.all_read + s.made, other_back=back,
                    product_back=work if s.needs[matrix] else 0, moved_back=s.all_read + s.made if any(s.needs) else 0)

    return cost_of


def _inverse(s: Sizes) -> Cost:
    """A⁻¹ (2 n³); its gradient −A⁻ᵀ g A⁻ᵀ is two products."""
    work = 2 * s.made * s.out[-1]
    return Cost(other=work, moved=2 * s.made, product_back=2 * work if any(s.needs) else 0, moved_back=4 * s.made)


def _wy(s: Sizes) -> Cost:
    """A unit triangular solve; the triangle's gradient is one product."""
    work = s.made * s.ins[0][-1]
    return Cost(other=work, moved=s.all_read + s.made, other_back=work if any(s.needs) else 0,
                product_back=2 * work if s.needs[0] else 0, moved_back=2 * s.made)


def _decomposition(s: Sizes) -> Cost:
    short = s.ins[0][-1] if float_of(s.ins[0][-1]) <= float_of(s.ins[0][-2]) else s.ins[0][-2]
    return Cost(other=20 * s.read(0) * short, moved=s.read(0) * 8, other_back=20 * s.read(0) * short)


def _decomposition_of_product(s: Sizes) -> Cost:
    """QR of both factors (4 r numbers each), a decomposition of r×r, and the bases (2 r numbers each)."""
    r = s.ins[0][-1]
    small = count(s.ins[0][:-2]) * r**3
    work = 6 * s.all_read * r + 20 * small
    return Cost(other=work, moved=8 * s.all_read, other_back=2 * work if any(s.needs) else 0)


def float_of(d: Any) -> float:
    return 0.0 if isinstance(d, sp.Expr) and d.free_symbols else float(d)


def _expm(s: Sizes) -> Cost:
    work = 30 * s.made * s.out[-1]
    return Cost(other=work, moved=20 * s.made, other_back=4 * work if any(s.needs) else 0)


def _gather(s: Sizes) -> Cost:
    back = s.read(0) + s.made if s.needs and s.needs[0] else 0
    return Cost(moved=2 * s.made, moved_back=2 * back)


def _moving(s: Sizes) -> Cost:
    """A rearrangement: read once, written once."""
    return Cost(moved=s.made + s.all_read, moved_back=s.made + s.all_read if any(s.needs) else 0)


def _opening(s: Sizes) -> Cost:
    """Backward a copy and entries far apart."""
    return Cost(moved_back=4 * s.made)


def _closing(s: Sizes) -> Cost:
    """A copy and entries far apart; backward the entries alone."""
    return Cost(moved=4 * s.made, moved_back=2 * s.read(1))


def _striding(s: Sizes) -> Cost:
    """A copy and entries far apart: every line of memory is touched twice."""
    plain = _moving(s)
    return Cost(moved=2 * plain.moved, moved_back=2 * plain.moved_back)


def _transform(axes: int) -> Callable[[Sizes], Cost]:
    """A fast Fourier transform: 5 N log₂ N; complex numbers move twice."""

    def cost_of(s: Sizes) -> Cost:
        length: Any = 1
        for d in s.out[len(s.out) - axes:]:
            length = length * d
        work = 5 * s.made * log2(length)
        back = any(s.needs)
        return Cost(other=work, moved=4 * s.made * axes, other_back=work if back else 0,
                    moved_back=4 * s.made * axes if back else 0)

    return cost_of


def _circulant(s: Sizes) -> Cost:
    """Two real transforms of the vectors, one of c."""
    work = 5 * s.made * log2(s.out[-1])
    back = 2 * work if any(s.needs) else 0
    return Cost(other=work, moved=8 * s.made, other_back=back, moved_back=12 * s.made if back else 0)


def _circulant_grid(s: Sizes) -> Cost:
    """Transforms of the pieces of v and y, and for each of k/2 frequencies a complex product of a×b."""
    rows, columns, k = s.ins[0]
    transforms = 2.5 * (s.read(0) + s.read(1) + s.made) * log2(k)
    product = 2 * (k // 2 + 1) * count(s.ins[1][:-1]) * rows * columns
    moved = 3 * s.all_read + 3 * s.made
    back = sum(s.needs)
    return Cost(product, transforms, moved, back * product, back * transforms, back * moved)


def _sparse(s: Sizes) -> Cost:
    """Gather, scale, add up: one pass over (tokens, entries) each."""
    entries = s.ins[0][-1]
    touched = s.made // s.out[-1] * entries if not isinstance(s.made, sp.Expr) else s.made / s.out[-1] * entries
    back = any(s.needs)
    return Cost(other=2 * touched, moved=6 * touched + s.made, other_back=4 * touched if back else 0,
                moved_back=8 * touched + s.read(2) if back else 0)


def _spectral(s: Sizes) -> Cost:
    """A real transform of the vectors, the entries, a real transform back; backward the same twice (recomputed)."""
    entries = s.ins[0][0]
    rows = s.made // s.out[-1] if not isinstance(s.made, sp.Expr) else s.made / s.out[-1]
    work = 2.5 * s.read(2) * log2(s.ins[2][-1]) + 2.5 * s.made * log2(s.out[-1]) + 8 * rows * entries
    moved = 4 * s.read(2) + 4 * s.made + 10 * rows * entries
    back = any(s.needs)
    return Cost(other=work, moved=moved, other_back=1.5 * work if back else 0, moved_back=1.5 * moved if back else 0)


def _making(s: Sizes) -> Cost:
    return Cost(moved=s.made)


def _softmax(s: Sizes) -> Cost:
    return Cost(other=8 * s.made, moved=2 * s.made, other_back=4 * s.made, moved_back=3 * s.made)


def speed(low: Low) -> float:
    """How fast its products run beside large ones: batches of small matrices are slow."""
    if low.prim in ("each", "matvec"):
        m = list(low.inputs())[1 if low.prim == "each" else 0]
        return min(1.0, (float(min(m.type.item[-2:])) / 64) ** 1.27) if m.type.rank == 2 else 1.0
    return 0.2 if low.prim == "circulant_grid" else 1.0  # complex numbers: four products for one


FREE = ("getitem", "detach", "choice")
"""Operations that cost nothing of their own."""

ENTRIES: Mapping[str, Entry] = {
    # products
    "linear": Entry(_product(0, 1), _keeps_other), "linear_each": Entry(_product(0, 1), _keeps_other),
    "each": Entry(_product(0, 1), _keeps_other), "matmul": Entry(_product(0, 1), _keeps_other),
    "matvec": Entry(_product(0, 1), _keeps_other), "mv": Entry(_matvec, _keeps_other),
    "turned_slice": Entry(_turned_slice, _keeps_other), "open_slice": Entry(_opening, _keeps_nothing),
    "close_slice": Entry(_closing, _keeps_nothing),
    "add_linear": Entry(_addmm, _keeps_addmm),
    "sum_applied": Entry(_sum_applied, _keeps_sum_applied),
    "base": Entry(_base, _keeps_nothing), "base_without_bias": Entry(_base, _keeps_nothing),
    "rowdot": Entry(_inner, _keeps_other), "dot": Entry(_inner, _keeps_other),
    # entry by entry
    "add": Entry(_passing, _keeps_nothing), "sub": Entry(_passing, _keeps_nothing),
    "neg": Entry(_entrywise(), _keeps_nothing), "mul": Entry(_entrywise(), _keeps_other),
    "div": Entry(_entrywise(backward=2), _keeps_div), "pow": Entry(_entrywise(4, 4), _keeps_input),
    "reciprocal": Entry(_entrywise(backward=2), _keeps_result), "rdiv": Entry(_entrywise(2, 2), _keeps_result),
    "addcmul": Entry(_entrywise(2), _keeps_addcmul), "root": Entry(_entrywise(4, 3), _keeps_result),
    "inverse_norm": Entry(_entrywise(3, 3), _keeps_result),
    "k:maximum": Entry(_entrywise(), _inputs), "k:minimum": Entry(_entrywise(), _inputs),
    "k:clamp": Entry(_entrywise(), _keeps_input), "dropout": Entry(_entrywise(2), _keeps_result),
    "put": Entry(_entrywise(2, 1), _keeps_nothing), "k:Re": Entry(_moving, _keeps_nothing),
    "k:Im": Entry(_moving, _keeps_nothing), "k:softmax": Entry(_softmax, _keeps_result),
    # sums
    "sum": Entry(_reduction, _keeps_nothing), "mean": Entry(_reduction, _keeps_nothing),
    "sumsq": Entry(_reduction, _keeps_input), "norm": Entry(_reduction, _keeps_input_and_result),
    "amax": Entry(_reduction, _keeps_input_and_result), "amin": Entry(_reduction, _keeps_input_and_result),
    "k:trace": Entry(_reduction, _keeps_nothing),
    # rearrangements
    "index_select": Entry(_gather, _keeps_nothing), "take_along": Entry(_gather, _keeps_nothing),
    "cat": Entry(_moving, _keeps_nothing), "packed": Entry(_moving, _keeps_nothing),
    "interleave": Entry(_moving, _keeps_nothing), "spread_rounds": Entry(_moving, _keeps_nothing),
    "per_token": Entry(_moving, _keeps_nothing), "stack_parts": Entry(_moving, _keeps_nothing),
    "replace_slice": Entry(_striding, _keeps_nothing), "replace_entries": Entry(_moving, _keeps_second),
    **{f"k:{name}": Entry(_moving, _keeps_nothing) for name in (
        "skew", "diag", "diagonal", "blkdiag", "blkdiag_of", "scatter", "tril", "triu", "stril", "striu", "vec",
        "blocks", "assemble", "tile", "repeat", "grouped", "perm", "circulant", "topk")},
    "k:kron": Entry(_entrywise(), _keeps_other), "k:kron_vectors": Entry(_entrywise(), _keeps_other),
    "unit_blocks": Entry(_making, _keeps_nothing),
    "full": Entry(_making, _keeps_nothing),
    "eye": Entry(_making, _keeps_nothing),
    # solves and decompositions
    "solve": Entry(_solving(0, 1), _keeps_solve), "solve_right": Entry(_solving(0, 1), _keeps_solve),
    "solve_vectors": Entry(_solving(0, 1), _keeps_solve), "k:inverse": Entry(_inverse, _keeps_result),
    "wy": Entry(_wy, _keeps_input_and_result), "k:svd": Entry(_decomposition, _keeps_input),
    "svd_of_product": Entry(_decomposition_of_product, _inputs),
    "k:qr": Entry(_decomposition, _keeps_input), "k:orthonormal": Entry(_decomposition, _keeps_input),
    "k:special_orthogonal": Entry(_expm, _keeps_input), "k:expm": Entry(_expm, _keeps_input),
    # transforms and sparse matrices
    "k:fft": Entry(_transform(1), _keeps_nothing), "k:ifft": Entry(_transform(1), _keeps_nothing),
    "k:fft2": Entry(_transform(2), _keeps_nothing), "k:ifft2": Entry(_transform(2), _keeps_nothing),
    "circulant_apply": Entry(_circulant, lambda low: _inputs(low)[:2]),
    "circulant_grid": Entry(_circulant_grid, _keeps_other),
    "sparse_apply": Entry(_sparse, _keeps_sparse),
    "spectral_weights": Entry(_entrywise(2), _keeps_nothing),
    "spectral_apply": Entry(_spectral, lambda low: [low.args[2]]),
}  # fmt: skip
