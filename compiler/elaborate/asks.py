"""What each operator asks of its numbers, and how far the indices of an index set go.

    asked(name, args, kwargs, span) -> Iterator[Condition]        topk(v ∈ ℝ^n, k): k is whole, 0 ≤ k, k ≤ n
    reach(index) -> bounds                                        (i, j) of sample(m, n, …): i < m, j < n
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import sympy as sp

from padp.compiler.elaborate.conditions import Condition
from padp.compiler.ir.dims import least, lower, product
from padp.compiler.ir.nodes import Node
from padp.dsl.source import Span

Ask: TypeAlias = tuple[Any, Any | None]
Asker: TypeAlias = Callable[[Sequence[Node], Mapping[str, Node]], Iterator[Ask]]


def asked(name: str, args: Sequence[Node], kwargs: Mapping[str, Node], span: Span) -> Iterator[Condition]:
    """The conditions of one call; of an argument that is no number the operator itself complains."""
    asker = ASKS.get(name)
    if asker is not None:
        yield from (Condition(left, right, span) for left, right in asker(args, kwargs))


def _number(node: Node) -> Any | None:
    return node.value if node.op == "const" else None


def from_(low: int, *values: Any) -> Iterator[Ask]:
    """Whole numbers from ``low`` on."""
    for value in values:
        if value is not None:
            yield value, None
            yield low, value


def _sizes(args: Sequence[Node], kwargs: Mapping[str, Node]) -> Iterator[Ask]:
    yield from from_(0, *map(_number, args))


def _sizes_behind(args: Sequence[Node], kwargs: Mapping[str, Node]) -> Iterator[Ask]:
    yield from from_(0, *map(_number, args[1:]))


def _not_empty(args: Sequence[Node], kwargs: Mapping[str, Node]) -> Iterator[Ask]:
    yield from from_(1, *map(_number, args))


def _blocks(args: Sequence[Node], kwargs: Mapping[str, Node]) -> Iterator[Ask]:
    """a and b from 1 on; p = rows/a and q = columns/b are whole."""
    for axis, count in zip(args[0].type.item, map(_number, args[1:]), strict=False):
        yield from from_(1, count)
        if count:
            yield lower(sp.sympify(axis) / count), None


def _choice(args: Sequence[Node], kwargs: Mapping[str, Node]) -> Iterator[Ask]:
    """At most as many as there are entries."""
    count = _number(args[1])
    yield from from_(0, count)
    if count is not None:
        yield count, product(args[0].type.item)


def _sample(args: Sequence[Node], kwargs: Mapping[str, Node]) -> Iterator[Ask]:
    m, n, count, seed = map(_number, args)
    yield from from_(0, m, n, count, seed)
    if m is not None and n is not None and count is not None:
        yield count, lower(m * n)


def _svd(args: Sequence[Node], kwargs: Mapping[str, Node]) -> Iterator[Ask]:
    rank = _number(kwargs["rank"]) if "rank" in kwargs else None
    if rank is not None and args[0].type.rank == 2:
        yield from from_(1, rank)
        yield rank, lower(least(*args[0].type.item))


def _scatter(args: Sequence[Node], kwargs: Mapping[str, Node]) -> Iterator[Ask]:
    """Sizes that hold all places of the set."""
    shape = [_number(a) for a in kwargs["shape"].args] if "shape" in kwargs else []
    yield from from_(0, *shape)
    for furthest, size in zip(reach(args[1]), shape, strict=False):
        if furthest is not None and size is not None:
            yield furthest, size


def _grouped(args: Sequence[Node], kwargs: Mapping[str, Node]) -> Iterator[Ask]:
    heads = _number(args[1])
    yield from from_(0, heads)
    if heads is not None and args[0].type.family:
        yield lower(sp.sympify(heads) / args[0].type.family[-1]), None


def _butterfly(args: Sequence[Node], kwargs: Mapping[str, Node]) -> Iterator[Ask]:
    n, k, j = map(_number, args)
    yield from from_(0, n, j)
    yield from from_(1, k)


def _drop(args: Sequence[Node], kwargs: Mapping[str, Node]) -> Iterator[Ask]:
    p = _number(args[1])
    if p is not None:
        yield 0, p
        yield p, 1


def _entries(axes: slice) -> Asker:
    """What has no value for no entries at all: 1 ≤ each of some axes of the item."""
    def asker(args: Sequence[Node], kwargs: Mapping[str, Node]) -> Iterator[Ask]:
        yield from ((1, size) for size in args[0].type.item[axes])

    return asker


_SOME = {f"{name}{of}": _entries(axes) for name in ("max", "min", "mean")
         for of, axes in (("", slice(None)), ("_row", slice(1, 2)), ("_col", slice(0, 1)))}
_SOME |= {name: _entries(slice(None)) for name in ("softmax", "circulant", "fft", "ifft", "fft2", "ifft2")}

ASKS: Mapping[str, Asker] = {
    **_SOME,
    "ones": _sizes, "zeros": _sizes, "eye": _sizes, "arange": _sizes, "pairs": _sizes, "halves": _sizes,
    "band": _sizes, "tree": _not_empty, "neighbours": _not_empty, "reshape": _sizes_behind, "tile": _sizes_behind,
    "repeat": _sizes_behind, "blocks": _blocks, "topk": _choice, "argtop": _choice, "largest": _choice,
    "sample": _sample, "svd": _svd, "scatter": _scatter, "grouped": _grouped, "butterfly": _butterfly, "drop": _drop,
}
"""By operator. One that takes a number known from the sizes, or has no value for no entries, has an entry here."""


# ---------------------------------------------------------------- index sets


def reach(index: Node) -> tuple[Any | None, ...]:
    """For each number of an element of an index value a bound that it stays below; None where nothing says it."""
    match index.op:
        case "arange" | "butterfly":
            return (index.attrs[0],)
        case "argtop":
            return (index.args[0].type.item[0],)
        case "band":
            return (index.attrs[0],) * 2
        case "pairs":
            return (lower(2 * sp.floor(sp.sympify(index.attrs[0]) / 2)),) * 2
        case "halves":
            return (index.attrs[0],) * 2
        case "sample":
            return index.attrs[:2]
        case "largest":
            return index.args[0].type.item
        case "tree" | "neighbours":
            n = index.attrs[0]
            return n, n, lower(n - 1)
        case "column":
            return (_at(reach(index.args[0]), index.attrs[1]),)
        case "take" if index.type.kind == "index":
            return _taken(index)
        case "slice" if index.type.kind == "index" and index.type.rank == 1:
            return reach(index.args[0])
        case _:
            return (None,) * (index.type.item[1] if index.type.rank == 2 and isinstance(index.type.item[1], int) else 1)


def _taken(index: Node) -> tuple[Any | None, ...]:
    """An element of an index vector; a column or a row of a set."""
    whole, (axis,) = index.args[0], index.attrs
    bounds = reach(whole)
    if whole.type.rank == 2 and axis == 1:
        k = index.args[1].attrs[0] if index.args[1].op == "const" else None
        return (_at(bounds, k),)
    return bounds if whole.type.rank == 1 else (None,)


def _at(bounds: Sequence[Any | None], k: Any) -> Any | None:
    return bounds[k] if isinstance(k, int) and 0 <= k < len(bounds) else None
