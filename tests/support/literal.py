"""The typed IR read literally: one torch expression an operator, loops as Python loops, nothing rearranged.

    literal(node, {"A": tensor, …}) -> tensor laid out (loops…, families…, item…)

What rules and plans make of a graph is compared with this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor

from padp.compiler.ir.nodes import Axis, Node, Type, walk
from padp.compiler.kernels import dense as kernels

LEAVES = ("param", "weight", "bias", "input", "knob")
F64 = torch.double


def literal(root: Node, leaves: Mapping[str, Tensor]) -> Tensor:
    """The value of a node."""
    return evaluated([root], leaves)[0]


def evaluated(roots: list[Node], leaves: Mapping[str, Tensor]) -> list[Tensor]:
    """The values of several nodes."""
    done: dict[int, Any] = {}
    for node in walk(*roots):
        args = [done[id(a)] for a in node.args]
        made = leaves[str(node.attrs[0])] if node.op in LEAVES else _value(node, args)
        if isinstance(made, Tensor) and node.op not in ("svd", "qr"):
            made = made.expand([int(d) for d in node.type.shape])
        done[id(node)] = made
    return [done[id(r)] for r in roots]


# ---------------------------------------------------------------- axes


def batched(t: Tensor, own: Type, want: Type) -> Tensor:
    """``t`` with an axis of size 1 for every loop and family axis of ``want`` that it lacks."""
    loops = [t.shape[own.loops.index(a)] if a in own.loops else 1 for a in want.loops]
    family = [int(d) for d in own.family] or [1] * len(want.family)
    return t.reshape([*loops, *family, *t.shape[len(own.loops) + len(own.family):]])


def together(node: Node, args: list[Tensor]) -> list[Tensor]:
    """The arguments with the batch axes of the result."""
    return [batched(t, a.type, node.type) for t, a in zip(args, node.args, strict=True)]


def filled(t: Tensor, rank: int, item: int) -> Tensor:
    """A scalar (``rank`` 0) with ``item`` axes behind it, to meet items of that rank."""
    return t.reshape([*t.shape, *([1] * item)]) if rank == 0 else t


def steps(axes: tuple[Axis, ...]) -> Iterator[dict[int, int]]:
    """Every setting of some loops: the number of the step by the loop's uid."""
    for values in product(*(range(int(a.size)) for a in axes)):
        yield dict(zip((a.uid for a in axes), values, strict=True))


def at(t: Tensor, own: Type, step: Mapping[int, int]) -> Tensor:
    """``t`` in one step of the loops around."""
    return t[tuple(step[a.uid] if a.uid in step else slice(None) for a in own.loops)]


def each_step(node: Node, args: list[Tensor], one: Callable[..., Tensor]) -> Tensor:
    """``one`` of the arguments in each step of the result's loops, stacked."""
    made = [one(*(at(t, a.type, step) for t, a in zip(args, node.args, strict=True)))
            for step in steps(node.type.loops)]
    return torch.stack(made).reshape([*(int(a.size) for a in node.type.loops), *made[0].shape])


# ---------------------------------------------------------------- operators


def _value(node: Node, args: list[Any]) -> Any:
    simple = _SIMPLE.get(node.op)
    if simple is not None:
        return simple(node, together(node, args))
    match node.op:
        case "const":
            return torch.tensor(float(node.attrs[0]), dtype=F64)
        case "full":
            return torch.full(tuple(map(int, node.type.shape)), float(node.attrs[0]), dtype=F64)
        case "eye":
            return torch.eye(int(node.type.item[0]), dtype=F64)
        case "iota":
            axis, step, first = node.attrs
            return torch.tensor([first + step * i for i in range(int(axis.size))])
        case "column":
            return args[0] if args[0].dim() == 1 else args[0][:, node.attrs[1]]
        case "svd":
            return kernels.svd(args[0], int(node.attrs[0]))
        case "qr":
            return kernels.qr(args[0])
        case "out":
            return args[0][node.attrs[0]]
        case "inverse_index":
            return torch.argsort(args[0])
        case "butterfly" if node.args:
            n, k = (int(a) for a in node.attrs)
            return torch.stack([kernels.butterfly(n, k, int(j)) for j in args[0]])
        case "argtop" | "largest":
            return getattr(kernels, node.op)(args[0], *map(int, node.attrs))
        case name if name in kernels.INDEX_SETS:
            return kernels.INDEX_SETS[name](*map(int, node.attrs))
        case "take":
            return each_step(node, args, lambda a, i: _taken(a, i, int(node.attrs[0])))
        case "put":
            return each_step(node, args, lambda a, v, *place: _put(a, v, place))
        case "fold":
            return each_step(node, args, lambda step, start: _folded(node, step, start))
        case "sumloop":
            return args[0].sum(node.args[0].type.loops.index(node.attrs[0]))
        case "stack":
            return args[0].movedim(node.args[0].type.loops.index(node.attrs[0]), _place(node))
        case "blkdiag":
            return kernels.blkdiag(args[0], len(node.args[0].type.family))
        case "perm":
            return kernels.perm(args[0], F64)
        case "scatter":
            return kernels.scatter(args[0], args[1], *map(int, node.attrs))
        case "reshape" | "view":
            return args[0].reshape(*map(int, node.type.shape))
        case "tile" | "repeat" | "grouped" | "blocks":
            return getattr(kernels, node.op)(args[0], *map(int, node.attrs))
        case name:
            return getattr(kernels, name)(*args, *node.attrs)


def _taken(a: Tensor, index: Tensor, back: int) -> Tensor:
    return a.select(-back, int(index)) if not index.dim() else a.index_select(-back, index.long())


def _put(a: Tensor, value: Tensor, place: tuple[Tensor, ...]) -> Tensor:
    copy = a.clone()
    where: tuple[Any, ...] = (..., *(int(i) for i in place))
    copy[where] = value
    return copy


def _folded(node: Node, step: Tensor, start: Tensor) -> Tensor:
    axis, side = node.attrs
    where = [a for a in node.args[0].type.loops if a == axis or a not in node.type.loops]
    result = start
    for i in range(int(axis.size)):
        factor = step.select(where.index(axis), i) if axis in where else step
        result = factor @ result if side == "left" else result @ factor
    return result


def _place(node: Node) -> int:
    """Where the axis of a loop goes when it becomes an axis of the value."""
    place, type_ = node.attrs[1], node.type
    return {"columns": -1, "item": -type_.rank, "family": -type_.rank - len(type_.family)}[place]


def _prod(node: Node, args: list[Tensor]) -> Tensor:
    vector = node.args[-1].type.rank == 1
    total = args[-1][..., None] if vector else args[-1]
    for factor in reversed(args[:-1]):
        total = factor @ total
    return total[..., 0] if vector else total


def _elementwise(f: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Node, list[Tensor]], Tensor]:
    def value(node: Node, args: list[Tensor]) -> Tensor:
        a, c = (filled(t, x.type.rank, node.type.rank) for t, x in zip(args, node.args, strict=True))
        return f(a, c)

    return value


def _over_norm(a: Tensor, c: Tensor) -> Tensor:
    """a / c, 0 where the norm c is 0."""
    none = c == 0
    return torch.where(none, torch.zeros_like(a * c), a / torch.where(none, torch.ones_like(c), c))


_AXES: dict[str, Callable[[int], tuple[int, ...]]] = {
    "row": lambda rank: (-1,), "col": lambda rank: (-2,), "all": lambda rank: tuple(range(-rank, 0))}
_REDUCE: dict[str, Callable[..., Tensor]] = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin}


def _sumsq(node: Node, args: list[Tensor]) -> Tensor:
    return args[0].square().sum(_AXES[node.attrs[0]](node.args[0].type.rank))


def _reduce(node: Node, args: list[Tensor]) -> Tensor:
    return _REDUCE[node.attrs[0]](args[0], _AXES[node.attrs[1]](node.args[0].type.rank))


def _slice(node: Node, args: list[Tensor]) -> Tensor:
    axis, start, stop, step = (int(v) for v in node.attrs)
    where: tuple[Any, ...] = (..., slice(start, stop, step), *([slice(None)] * (-axis - 1)))
    return args[0][where]


def _cat(node: Node, args: list[Tensor]) -> Tensor:
    lead = torch.broadcast_shapes(*(t.shape[: t.dim() - node.type.rank] for t in args))
    return torch.cat([t.expand(*lead, *t.shape[t.dim() - node.type.rank:]) for t in args], -node.attrs[0])


def _interleave(node: Node, args: list[Tensor]) -> Tensor:
    along = -node.attrs[0]
    parts = torch.broadcast_tensors(*args)
    size = parts[0].shape[along]
    return torch.cat([p.narrow(along, i, 1) for i in range(size) for p in parts], along)


_SIMPLE: dict[str, Callable[[Node, list[Tensor]], Tensor]] = {
    "add": lambda n, a: torch.stack(torch.broadcast_tensors(*a)).sum(0),
    "scale": _elementwise(torch.mul), "mul": _elementwise(torch.mul),
    "div": lambda n, a: _elementwise(_over_norm if n.attrs else torch.div)(n, a),
    "maximum": _elementwise(torch.maximum), "minimum": _elementwise(torch.minimum),
    "pow": lambda n, a: a[0] ** float(n.attrs[0]), "point": lambda n, a: kernels.POINTWISE[n.attrs[0]](a[0]),
    "prod": _prod, "outer": lambda n, a: kernels.outer(*a), "dot": lambda n, a: (a[0] * a[1]).sum(-1),
    "t": lambda n, a: a[0][..., None, :] if n.args[0].type.rank == 1 else a[0].mT,
    "inv": lambda n, a: torch.linalg.inv(a[0]), "sumsq": _sumsq, "reduce": _reduce, "slice": _slice, "cat": _cat,
    "interleave": _interleave, "spread": lambda n, a: a[0], "expand": lambda n, a: a[0], "lying": lambda n, a: a[0],
    "column_of": lambda n, a: a[0][..., None], "entry": lambda n, a: a[0][..., None, None],
    "detach": lambda n, a: a[0].detach(), "drop": lambda n, a: a[0],
    "blkdiag_of": lambda n, a: kernels.blkdiag_of(*a), "kron": lambda n, a: kernels.kron(*a),
    "kron_vectors": lambda n, a: kernels.kron_vectors(*a), "Re": lambda n, a: torch.real(a[0]),
    "Im": lambda n, a: torch.imag(a[0]) if a[0].is_complex() else torch.zeros_like(a[0]),
    "orthonormal": lambda n, a: kernels.orthonormal_rows(a[0]),
    "clamp": lambda n, a: torch.clamp(*torch.broadcast_tensors(a[0], *(filled(t, 0, n.type.rank) for t in a[1:]))),
}  # fmt: skip
