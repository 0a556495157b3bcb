"""The table of operators: one entry each, with its signature, what it means, and how its type follows.

    OPERATORS[name].make(g, args, kwargs) -> node or tuple of nodes          raises Mismatch

``args`` are IR nodes; dimensions arrive as ``const`` nodes. The dense meaning of every entry is the function of the
same name in ``compiler/kernels/dense.py`` (kernels import torch, this module does not). Operators that can be said in
the language are in ``stdlib/prelude.padp`` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, TypeAlias

import sympy as sp

from padp.compiler.ir import build as b
from padp.compiler.ir.build import Mismatch
from padp.compiler.ir.dims import least, lower, product, same, show
from padp.compiler.ir.nodes import Graph, Node, Type

Made: TypeAlias = Node | tuple[Node, ...]
Maker: TypeAlias = Callable[[Graph, Sequence[Node], Mapping[str, Node]], Made]


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator: ``signature`` as the language has it, ``doc`` in a line, ``make`` builds the typed node."""

    name: str
    signature: str
    doc: str
    make: Maker
    arity: tuple[int, int]
    keywords: tuple[str, ...] = ()


def number(node: Node, what: str) -> Any:
    """The value of a ``const`` argument."""
    if node.op != "const":
        raise Mismatch(f"{what} must be a number known from the sizes, this is {node.type}", "E310")
    return node.value


def triangle(length: Any) -> Any | None:
    """The k with k(k − 1)/2 = length, or None."""
    if isinstance(length, int):
        k = (1 + isqrt(1 + 8 * length)) // 2
        return k if k * (k - 1) // 2 == length else None
    try:
        coefficient, factors = sp.factor_list(1 + 8 * sp.expand(length))  # pyright: ignore[reportAssignmentType]
    except sp.PolynomialError:  # r/q
        return None
    root = sp.sqrt(coefficient)
    if not root.is_rational or any(power % 2 for _, power in factors):
        return None
    for base, power in factors:
        root = root * base ** (power // 2)
    k = sp.expand((1 + root) / 2)
    return k if k.could_extract_minus_sign() is False else sp.expand((1 - root) / 2)


def _vector(a: Node, name: str) -> Any:
    if a.type.rank != 1:
        raise Mismatch(f"{name} takes a vector, this is {a.type}", "E301")
    return a.type.item[0]


def _matrix(a: Node, name: str) -> tuple[Any, Any]:
    if a.type.rank != 2:
        raise Mismatch(f"{name} takes a matrix, this is {a.type}", "E301")
    return a.type.item[0], a.type.item[1]


def _square(a: Node, name: str) -> Any:
    m, n = _matrix(a, name)
    if not same(m, n):
        raise Mismatch(f"{name} takes a square matrix, this is {a.type}", "E304")
    return m


# ---------------------------------------------------------------- makers


def _skew(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    (v,) = args
    length = _vector(v, "skew")
    k = triangle(length)
    if k is None:
        raise Mismatch(f"skew takes k(k − 1)/2 numbers for some k; {show(length)} is not of that form", "E301",
                       "declare the vector as ℝ^{k(k-1)/2}")
    return g.node("skew", (v,), (), b.typed((lower(k), lower(k)), v))


def _blkdiag(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    if len(args) == 1:
        return b.blkdiag(g, args[0])
    rows = cols = 0
    for a in args:
        m, n = _matrix(a, "blkdiag")
        rows, cols = rows + m, cols + n
    return g.node("blkdiag_of", tuple(args), (), b.typed((lower(rows), lower(cols)), *args))


def _perm(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    n = _vector(args[0], "perm")
    if args[0].type.kind != "index":
        raise Mismatch("perm takes an index vector", "E310", "arange(n) or butterfly(n, k, j)")
    return g.node("perm", tuple(args), (), b.typed((n, n), args[0], kind="real"))


def kron(g: Graph, a: Node, c: Node) -> Node:
    """a ⊗ c."""
    if a.type.rank == 1 and c.type.rank == 1:
        return g.node("kron_vectors", (a, c), (), b.typed((lower(a.type.item[0] * c.type.item[0]),), a, c))
    if 1 in (a.type.rank, c.type.rank) and 2 in (a.type.rank, c.type.rank):
        raise Mismatch(f"⊗ takes two matrices or two vectors, this is {a.type} ⊗ {c.type}", "E301",
                       "eye(1) for a 1×1 matrix to begin with; vᵀ, or u @ vᵀ, for a vector as a matrix")
    (p, q), (s, t) = _matrix(a, "kron"), _matrix(c, "kron")
    return g.node("kron", (a, c), (), b.typed((lower(p * s), lower(q * t)), a, c))


def _circulant(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    n = _vector(args[0], "circulant")
    return g.node("circulant", tuple(args), (), b.typed((n, n), args[0]))


def _constant(value: int) -> Maker:
    def make(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
        return b.full(g, value, Type(tuple(number(a, "a size") for a in args)))

    return make


def _eye(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    return b.eye(g, number(args[0], "a size"))


def _reshape(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    return b.reshape(g, args[0], [number(a, "a size") for a in args[1:]])


def _flatten(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    return b.reshape(g, args[0], [product(args[0].type.family + args[0].type.item)])


def _vec(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    m, n = _matrix(args[0], "vec")
    return g.node("vec", tuple(args), (), b.typed((lower(m * n),), args[0]))


def _blocks(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    M, a, c = args[0], number(args[1], "a size"), number(args[2], "a size")
    m, n = _matrix(M, "blocks")
    p, q = lower(sp.sympify(m) / a), lower(sp.sympify(n) / c)
    if (isinstance(m, int) and isinstance(a, int) and m % a) or (isinstance(n, int) and isinstance(c, int) and n % c):
        raise Mismatch(f"{M.type} does not divide into {show(a)}×{show(c)} blocks")
    return g.node("blocks", (M,), (a, c), Type((p, q), (*M.type.family, a, c), M.type.loops))


def _assemble(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    (F,) = args
    p, q = _matrix(F, "assemble")
    if len(F.type.family) < 2:
        raise Mismatch(f"assemble takes a grid of blocks (ℝ^{{p×q}})^{{a×b}}, this is {F.type}")
    *rest, a, c = F.type.family
    return g.node("assemble", (F,), (), Type((lower(a * p), lower(c * q)), tuple(rest), F.type.loops))


def _family(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    (M,) = args
    m, n = _matrix(M, "family")
    return g.node("view", (M,), (), Type((n,), (*M.type.family, m), M.type.loops, False, M.type.kind))


def _rows(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    (F,) = args
    n = _vector(F, "rows (of a family of vectors)")
    if not F.type.family:
        raise Mismatch(f"rows takes a family of vectors, this is {F.type}")
    *rest, m = F.type.family
    return g.node("view", (F,), (), Type((m, n), tuple(rest), F.type.loops, False, F.type.kind))


def _tile(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    e, t = args[0], number(args[1], "the number of repeats")
    if e.type.rank == 0:
        raise Mismatch("tile takes a vector or a matrix")
    item = (lower(e.type.item[0] * t), *e.type.item[1:])
    return g.node("tile", (e,), (t, e.type.rank), b.typed(item, e))


def _repeat(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    F, t = args[0], number(args[1], "the number of repeats")
    if not F.type.family:
        raise Mismatch(f"repeat takes a family, this is {F.type}", "E301", "tile(v, t) repeats a vector")
    *rest, last = F.type.family
    type_ = Type(F.type.item, (*rest, lower(last * t)), F.type.loops, F.type.row, F.type.kind)
    return g.node("repeat", (F,), (t, F.type.rank), type_)


def _scatter(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    c, places = args[0], args[1]
    _vector(c, "scatter")
    if "shape" not in kw:
        raise Mismatch("scatter needs shape=(m, n)", "E209")
    if places.type.kind != "index" or places.type.rank != 2:
        raise Mismatch(f"scatter takes an index set of pairs (i, j), this is {places.type}", "E301")
    if not same(c.type.item[0], places.type.item[0]):
        raise Mismatch(f"{show(c.type.item[0])} values for {show(places.type.item[0])} places")
    shape = kw["shape"].args
    if len(shape) != 2:
        raise Mismatch("the shape of what scatter makes is two sizes", "E309", "shape=(m, n)")
    m, n = (number(a, "a size") for a in shape)
    return g.node("scatter", (c, places), (m, n), b.typed((m, n), c))


def _same_shape(name: str) -> Maker:
    def make(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
        _matrix(args[0], name)
        return g.node(name, tuple(args), (), b.typed(args[0].type.item, args[0]))

    return make


def _svd(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    (M,) = args
    m, n = _matrix(M, "svd")
    q = number(kw["rank"], "rank") if "rank" in kw else lower(least(m, n))
    whole = g.node("svd", (M,), (q,), b.typed((q,), M))
    U, S, V = b.typed((m, q), M), b.typed((q,), M), b.typed((q, n), M)
    return tuple(g.node("out", (whole,), (k,), type_) for k, type_ in enumerate((U, S, V)))


def _qr(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    (M,) = args
    m, n = _matrix(M, "qr")
    q = lower(least(m, n))
    whole = g.node("qr", (M,), (), b.typed((q,), M))
    return tuple(g.node("out", (whole,), (k,), b.typed(s, M)) for k, s in enumerate(((m, q), (q, n))))


def _expm(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    _square(args[0], "expm")
    return g.node("expm", tuple(args), (), b.typed(args[0].type.item, args[0]))


def _solve(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    return b.matmul(g, b.inv(g, args[0]), args[1])


def _trace(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    _square(args[0], "trace")
    return g.node("trace", tuple(args), (), b.typed((), args[0]))


def _diagonal(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    m, n = _matrix(args[0], "diagonal")
    return g.node("diagonal", tuple(args), (), b.typed((lower(least(m, n)),), args[0]))


def _fourier(name: str, rank: int) -> Maker:
    def make(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
        if args[0].type.rank != rank:
            raise Mismatch(f"{name} takes a {'vector' if rank == 1 else 'matrix'}, this is {args[0].type}")
        return g.node(name, tuple(args), (), b.typed(args[0].type.item, args[0], kind="complex"))

    return make


def _part(name: str) -> Maker:
    def make(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
        return g.node(name, tuple(args), (), b.typed(args[0].type.item, args[0], kind="real"))

    return make


def _reduction(function: str, axis: str) -> Maker:
    def make(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
        if function in ("max", "min") and len(args) > 1:
            for a in args:
                if a.op != "const":
                    raise Mismatch(f"{function} of two is of numbers known from the sizes, this is {a.type}", "E310",
                                   f"{function}imum(a, b) entry by entry")
            values = [number(a, "a size") for a in args]
            return g.const(lower((sp.Max if function == "max" else sp.Min)(*values)))
        if args[0].type.rank == 0:
            raise Mismatch(f"{function} takes a vector or a matrix, this is {args[0].type}")
        return b.reduce_(g, function, args[0], axis)

    return make


def _point(function: str) -> Maker:
    def make(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
        a = args[0]
        if a.op == "const" and isinstance(a.value, (int, float, sp.Expr)) and function in _CONSTANT:
            _moderate_power(function, a.value)
            return g.const(lower(_CONSTANT[function](sp.sympify(a.value))))
        return b.point(g, function, a)

    return make


def _moderate_power(function: str, value: Any) -> None:
    """A number stays within what a float holds; working exp(exp(exp(5))) out would never end."""
    number_ = sp.sympify(value)
    if function == "exp" and number_.is_number and bool(number_ > _LARGEST_LOGARITHM):
        raise Mismatch(f"exp({show(value)}) is too large a number", "E105", "numbers go up to 1.7e308")


_LARGEST_LOGARITHM = 709


_CONSTANT: dict[str, Callable[[Any], Any]] = {
    "exp": sp.exp, "log": sp.log, "sin": sp.sin, "cos": sp.cos, "tan": sp.tan, "tanh": sp.tanh, "arctan": sp.atan,
    "sqrt": sp.sqrt, "abs": sp.Abs, "sign": sp.sign,
}


def _clamp(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    e, low, high = args
    if low.type.rank or high.type.rank:
        raise Mismatch("the bounds of clamp are scalars")
    return g.node("clamp", (e, low, high), (), b.typed(e.type.item, *args))


def _extreme(name: str) -> Maker:
    def make(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
        a, c = args
        if a.type.rank and c.type.rank and not b.fits(a.type.item, c.type.item):
            raise Mismatch(f"{name} of {a.type} and {c.type}")
        return g.node(name, (a, c), (), b.typed(a.type.item or c.type.item, a, c))

    return make


def _softmax(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    n = _vector(args[0], "softmax")
    return g.node("softmax", tuple(args), (), b.typed((n,), args[0]))


def _topk(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    n = _vector(args[0], "topk")
    return g.node("topk", (args[0],), (number(args[1], "k"),), b.typed((n,), args[0]))


def _argtop(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    _vector(args[0], "argtop")
    k = number(args[1], "k")
    return g.node("argtop", (args[0],), (k,), b.typed((k,), args[0], kind="index"))


def _dimension(function: Callable[..., Any]) -> Maker:
    def make(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
        return g.const(lower(function(*(sp.sympify(number(a, "the argument")) for a in args))))

    return make


def _len(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    if args[0].type.rank == 0:
        raise Mismatch(f"len takes a vector or an index set, this is {args[0].type}")
    return g.const(args[0].type.item[0])


def _band_count(q: Any, d: Any) -> Any:
    if isinstance(q, int) and isinstance(d, int):
        d = min(d, q - 1)
    return lower(q * (2 * d + 1) - d * (d + 1))


def _index_set(name: str, count: Callable[..., Any], arity: int) -> Maker:
    def make(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
        values = tuple(number(a, f"an argument of {name}") for a in args)
        size = lower(count(*values))
        item = (size, arity) if arity > 1 else (size,)
        return g.node(name, (), values, Type(item, kind="index"))

    return make


def _butterfly(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    n, k = number(args[0], "n"), number(args[1], "k")
    j = args[2]
    if isinstance(n, int) and isinstance(k, int) and (k < 1 or n % k):
        raise Mismatch(f"butterfly: blocks of {k} do not divide {n}", "E501", f"a size of blocks that divides {n}")
    if j.op == "const":
        return g.node("butterfly", (), (n, k, j.value), Type((n,), kind="index"))
    return g.node("butterfly", (j,), (n, k), b.typed((n,), j, kind="index"))


def _largest(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    _matrix(args[0], "largest")
    count = number(args[1], "count")
    return g.node("largest", (args[0],), (count,), Type((count, 2), kind="index"))


def _detach(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    a = args[0]
    return g.node("detach", (a,), (), a.type)


def _drop(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    p = number(args[1], "the probability")
    return g.node("drop", (args[0],), (p,), args[0].type)


def _outer(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    _vector(args[0], "outer")
    _vector(args[1], "outer")
    return b.outer(g, args[0], args[1])


def _diag(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    return b.diag(g, args[0])


def _grouped(g: Graph, args: Sequence[Node], kw: Mapping[str, Node]) -> Made:
    F, heads = args
    if not F.type.family:
        raise Mismatch(f"grouped takes a family over groups, this is {F.type}")
    H = number(heads, "the number of heads")
    *rest, _ = F.type.family
    type_ = Type(F.type.item, (*rest, H), F.type.loops, F.type.row)
    return g.node("grouped", (F,), (H, F.type.rank), type_)


def _halves_count(n: Any, group: Any) -> Any:
    if isinstance(n, int) and isinstance(group, int) and (group < 2 or group % 2 or n % group):
        raise Mismatch(f"halves({n}, {group}): groups of {group} do not fit {n}", "E501",
                       f"an even size of groups that divides {n}")
    return sp.sympify(n) / 2


_ROWS: tuple[Operator, ...] = (
    Operator("skew", "skew(v ∈ ℝ^{k(k-1)/2}) ∈ ℝ^{k×k}", "antisymmetric: +v above the diagonal row by row, −v below",
             _skew, (1, 1)),
    Operator("diag", "diag(v ∈ ℝ^n) ∈ ℝ^{n×n}", "v on the diagonal", _diag, (1, 1)),
    Operator("diagonal", "diagonal(M) ∈ ℝ^n", "the diagonal of a matrix", _diagonal, (1, 1)),
    Operator("blkdiag", "blkdiag(F ∈ (ℝ^{p×q})^b) ∈ ℝ^{bp×bq}", "blocks along the diagonal; also blkdiag(A, B, …)",
             _blkdiag, (1, 64)),
    Operator("perm", "perm(idx ∈ ℕ^n) ∈ ℝ^{n×n}", "the permutation with (P x)_i = x_{idx_i}", _perm, (1, 1)),
    Operator("kron", "kron(A, B), A ⊗ B", "Kronecker product", lambda g, a, k: kron(g, a[0], a[1]), (2, 2)),
    Operator("outer", "outer(u, v)", "u vᵀ", _outer, (2, 2)),
    Operator("circulant", "circulant(v ∈ ℝ^n) ∈ ℝ^{n×n}", "C_{ij} = v_{(i−j) mod n}", _circulant, (1, 1)),
    Operator("ones", "ones(n), ones(m, n)", "all ones", _constant(1), (1, 2)),
    Operator("zeros", "zeros(n), zeros(m, n)", "all zeros", _constant(0), (1, 2)),
    Operator("eye", "eye(n)", "the identity", _eye, (1, 1)),
    Operator("reshape", "reshape(e, d₁, d₂, …)", "row-major; the last two dims are a matrix", _reshape, (2, 9)),
    Operator("flatten", "flatten(e)", "all entries as one vector, row-major", _flatten, (1, 1)),
    Operator("vec", "vec(M)", "the columns of M, stacked", _vec, (1, 1)),
    Operator("blocks", "blocks(M ∈ ℝ^{ap×bq}, a, b) ∈ (ℝ^{p×q})^{a×b}", "the grid of blocks", _blocks, (3, 3)),
    Operator("assemble", "assemble(F ∈ (ℝ^{p×q})^{a×b}) ∈ ℝ^{ap×bq}", "undoes blocks", _assemble, (1, 1)),
    Operator("family", "family(M ∈ ℝ^{b×n}) ∈ (ℝ^n)^b", "the rows of a matrix as a family of vectors", _family, (1, 1)),
    Operator("rows", "rows(F ∈ (ℝ^n)^b) ∈ ℝ^{b×n}", "a family of vectors as the rows of a matrix", _rows, (1, 1)),
    Operator("tile", "tile(v, t)", "v, t times end to end", _tile, (2, 2)),
    Operator("repeat", "repeat(F, t)", "each item of a family t times", _repeat, (2, 2)),
    Operator("grouped", "grouped(F ∈ T^G) ∈ T^H", "each item H/G times, H query heads over G groups", _grouped, (1, 2)),
    Operator("scatter", "scatter(c, Ω, shape=(m, n)) ∈ ℝ^{m×n}", "c_t at Ω_t; repeats add up", _scatter, (2, 2),
             ("shape",)),
    *(Operator(n, f"{n}(M)", d, _same_shape(n), (1, 1)) for n, d in (
        ("tril", "lower triangle"), ("triu", "upper triangle"), ("stril", "lower triangle without the diagonal"),
        ("striu", "upper triangle without the diagonal"))),
    Operator("svd", "svd(M[, rank=e]) → U, Σ, Vᵀ", "thin; signs fixed; M = U diag(Σ) Vᵀ", _svd, (1, 1), ("rank",)),
    Operator("qr", "qr(M) → Q, R", "thin; diagonal of R not negative", _qr, (1, 1)),
    Operator("expm", "expm(M)", "matrix exponential", _expm, (1, 1)),
    Operator("solve", "solve(A, B)", "A⁻¹ B", _solve, (2, 2)),
    Operator("trace", "trace(M)", "sum of the diagonal", _trace, (1, 1)),
    *(Operator(n, f"{n}({'v' if r == 1 else 'M'})", "discrete Fourier transform, inverse with 1/n", _fourier(n, r),
               (1, 1)) for n, r in (("fft", 1), ("ifft", 1), ("fft2", 2), ("ifft2", 2))),
    Operator("Re", "Re(e)", "real part", _part("Re"), (1, 1)),
    Operator("Im", "Im(e)", "imaginary part", _part("Im"), (1, 1)),
    *(Operator(f"{f}{s}", f"{f}{s}(M)", f"{f} of {w}", _reduction(f, a), (1, 2 if f in ("max", "min") else 1))
      for f in ("sum", "mean", "max", "min")
      for s, a, w in (("", "all", "all entries"), ("_row", "row", "each row"), ("_col", "col", "each column"))),
    *(Operator(f, f"{f}(e)", "entry by entry", _point(f), (1, 1)) for f in (
        "exp", "log", "sin", "cos", "tan", "tanh", "arctan", "sigmoid", "relu", "gelu", "silu", "softplus", "sqrt",
        "abs", "sign")),
    Operator("clamp", "clamp(e, lo, hi)", "entries cut off at two scalars", _clamp, (3, 3)),
    Operator("maximum", "maximum(a, b)", "the larger, entry by entry", _extreme("maximum"), (2, 2)),
    Operator("minimum", "minimum(a, b)", "the smaller, entry by entry", _extreme("minimum"), (2, 2)),
    Operator("softmax", "softmax(v)", "exp(v)/sum(exp(v))", _softmax, (1, 1)),
    Operator("topk", "topk(s, k) ∈ {0,1}^n", "1 at the k largest", _topk, (2, 2)),
    Operator("argtop", "argtop(s, k) ∈ ℕ^k", "places of the k largest", _argtop, (2, 2)),
    Operator("floor", "floor(d)", "of a dimension", _dimension(sp.floor), (1, 1)),
    Operator("ceil", "ceil(d)", "of a dimension", _dimension(sp.ceiling), (1, 1)),
    Operator("log2", "log2(d)", "of a dimension", _dimension(lambda d: sp.log(d, 2)), (1, 1)),
    Operator("len", "len(v)", "number of entries, or of elements of an index set", _len, (1, 1)),
    Operator("arange", "arange(n) ∈ ℕ^n", "0, 1, …, n − 1", _index_set("arange", lambda n: n, 1), (1, 1)),
    Operator("band", "band(q, d)", "(i, j) with |i − j| ≤ d", _index_set("band", _band_count, 2), (2, 2)),
    Operator("sample", "sample(m, n, count, seed)", "different random places of an m×n matrix",
             _index_set("sample", lambda m, n, c, s: c, 2), (4, 4)),
    Operator("pairs", "pairs(n)", "(2i, 2i + 1)", _index_set("pairs", lambda n: sp.floor(sp.sympify(n) / 2), 2),
             (1, 1)),
    Operator("halves", "halves(n, g)", "(p, p + g/2) in each group of g", _index_set("halves", _halves_count, 2),
             (2, 2)),
    Operator("tree", "tree(n)", "n − 1 rotations (i, j, t) in a binary tree", _index_set("tree", lambda n: n - 1, 3),
             (1, 1)),
    Operator("neighbours", "neighbours(n)", "(k − 1, k, k − 1), k = 1 … n − 1",
             _index_set("neighbours", lambda n: n - 1, 3), (1, 1)),
    Operator("butterfly", "butterfly(n, k, j) ∈ ℕ^n", "order in which the j-th butterfly factor is block-diagonal",
             _butterfly, (3, 3)),
    Operator("largest", "largest(M, count)", "places of the largest entries", _largest, (2, 2)),
    Operator("detach", "detach(e)", "no gradient flows through", _detach, (1, 1)),
    Operator("drop", "drop(e, p)", "dropout, in training only", _drop, (2, 2)),
)


def _table(rows: Sequence[Operator]) -> dict[str, Operator]:
    table: dict[str, Operator] = {}
    for row in rows:
        if row.name in table:
            raise ValueError(f"operator {row.name} is registered twice")
        table[row.name] = row
    return table


OPERATORS: Mapping[str, Operator] = _table(_ROWS)
TAKES_COMPLEX = frozenset(
    "diag diagonal blkdiag kron outer circulant reshape flatten vec blocks assemble family rows tile repeat scatter "
    "tril triu stril striu expm solve trace fft ifft fft2 ifft2 Re Im sum sum_row sum_col mean mean_row mean_col exp "
    "log sin cos tan tanh sigmoid sqrt abs len detach".split())
"""Operators that mean something for complex numbers; the others compare numbers, or are defined for real ones only."""
ALIASES: Mapping[str, str] = {"iFFT2": "ifft2", "FFT2": "fft2", "iFFT": "ifft", "FFT": "fft", "tr": "trace"}
