"""Dense values and their algebra: what ``+ · @ ⊙ / ᵀ ⁻¹ _{…}`` mean, literally.

    datum = int | float | Value            sizes and hyperparameters stay plain numbers
    Value = tensor (family…, item…), rank of the item, and the marks that the meaning of ``·`` and ``/`` depends on

A bare ``I`` has no size of its own. It is kept as D ⊕ c·I: a dense block D, empty at first, and c on the rest of an
endless diagonal. Such matrices can be added, multiplied, transposed, inverted and written into; where one meets a
matrix or a vector of known size, it is cut to that size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from padp.compiler.kernels import dense as K
from padp.compiler.kernels import itemwise
from padp.dsl.diagnostics import refuse


@dataclass(frozen=True)
class Value:
    """A dense tensor with what its meaning needs.

    ``row``: the transpose of a vector. ``axis``: one number a row or a column, as made by ‖·‖_row. ``lying``: a row
    that was taken out of a matrix, ``M_{j,:}``; with ``row`` its transpose, a column where that fits. ``over``: the
    index set that a vector has its numbers for.
    ``rest``: the c of D ⊕ c·I. ``norm``: a norm, or what is 0 only where norms are 0: a quotient by it is 0 there.
    """

    tensor: Tensor
    rank: int
    row: bool = False
    axis: Literal["row", "col"] | None = None
    lying: bool = False
    over: Tensor | None = None
    rest: Tensor | None = None
    norm: bool = False

    @property
    def item(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape[self.tensor.dim() - self.rank :])

    @property
    def family(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape[: self.tensor.dim() - self.rank])

    @property
    def is_index(self) -> bool:
        return not (self.tensor.is_floating_point() or self.tensor.is_complex())

    def __str__(self) -> str:
        if self.rest is not None:
            return "an identity of open size"
        letter = "ℕ" if self.is_index else "ℂ" if self.tensor.is_complex() else "ℝ"
        item = f"{letter}^{{{'×'.join(map(str, self.item))}}}" if self.rank else letter
        return f"({item})^{{{'×'.join(map(str, self.family))}}}" if self.family else item


Datum: TypeAlias = int | float | Value


def identity(dtype: torch.dtype, device: torch.device) -> Value:
    """``I``."""
    return Value(torch.zeros(0, 0, dtype=dtype, device=device), 2, rest=torch.ones((), dtype=dtype, device=device))


def scalar(value: Datum, like: Value) -> Value:
    """A plain number as a tensor of the dtype of ``like``."""
    if isinstance(value, Value):
        return value
    dtype = torch.get_default_dtype() if like.is_index else like.tensor.dtype
    return Value(torch.tensor(value, dtype=dtype, device=like.tensor.device), 0)


def cut(a: Value, n: int) -> Value:
    """An identity of open size, brought to n×n; anything else as it is."""
    if a.rest is None:
        return a
    size = a.tensor.shape[-1]
    if size > n:
        raise refuse("E305", f"entry {size - 1} was written into an identity that turns out to be {n}×{n}")
    return Value(_grown(a, n).tensor, 2)


def _grown(a: Value, n: int) -> Value:
    """D ⊕ c·I with D made n×n."""
    assert a.rest is not None
    more = n - a.tensor.shape[-1]
    if more <= 0:
        return a
    lead = torch.broadcast_shapes(a.family, tuple(a.rest.shape))
    tail = a.rest[..., None, None] * torch.eye(more, dtype=a.tensor.dtype, device=a.tensor.device)
    D, tail = a.tensor.expand(*lead, *a.item), tail.expand(*lead, more, more)
    return replace(a, tensor=K.blkdiag_of(D, tail))


def closed(a: Value) -> Value:
    """Refuse what has no size."""
    if a.rest is not None:
        raise refuse("E309", "the size of this identity cannot be found", suggestion="eye(n)")
    return a


def _families(*values: Value) -> None:
    found = [v for v in values if v.family]
    if len({v.family for v in found}) > 1:
        raise refuse("E301", f"two families of different sizes meet: {' and '.join(str(v) for v in found)}")


def scalars(value: Value, rank: int) -> Tensor:
    """A scalar's tensor with ``rank`` axes behind it, for multiplying items of that rank."""
    return value.tensor.reshape((*value.tensor.shape, *([1] * rank)))


# ---------------------------------------------------------------- sums and products


def add(a: Datum, b: Datum, sign: int = 1) -> Datum:
    """a ± b: equal shapes."""
    if not isinstance(a, Value) and not isinstance(b, Value):
        return a + sign * b
    a = scalar(a, b) if isinstance(b, Value) else a
    assert isinstance(a, Value)
    b = scalar(b, a)
    _families(a, b)
    if 1 in (a.rank, b.rank):
        a, b = upright(a), upright(b)
    if a.rest is not None and b.rest is not None:
        n = max(a.item[0], b.item[0])
        a, b = _grown(a, n), _grown(b, n)
        assert a.rest is not None and b.rest is not None
        return Value(a.tensor + sign * b.tensor, 2, rest=a.rest + sign * b.rest)
    for known, open_ in ((a, b), (b, a)):
        if open_.rest is not None and (known.rank != 2 or known.item[0] != known.item[1]):
            raise refuse("E304" if known.rank == 2 else "E301", f"I fits a square matrix, this is {known}")
    a, b = (cut(a, b.item[0]) if b.rank else a), (cut(b, a.item[0]) if a.rank else b)
    if a.item != b.item:
        raise refuse("E301", f"{a} and {b} cannot be {'added' if sign > 0 else 'subtracted'}",
                     suggestion="c · ones(n) + v for adding a number to each entry" if 0 in (a.rank, b.rank) else None)
    return Value(a.tensor + sign * b.tensor, a.rank, row=a.row and b.row, lying=a.lying and b.lying,
                 norm=a.norm and b.norm and sign > 0)


def scale(s: Datum, a: Value) -> Value:
    """s · a."""
    if isinstance(s, Value):
        _families(s, a)
        factor: Tensor | float = scalars(s, a.rank)
        rest = None if a.rest is None else a.rest * s.tensor
    else:
        factor, rest = s, None if a.rest is None else a.rest * s
    return Value(a.tensor * factor, a.rank, row=a.row, axis=a.axis, lying=a.lying, rest=rest,
                 norm=a.norm and (s.norm if isinstance(s, Value) else s > 0))


def scaled(a: Datum, b: Datum) -> Datum | None:
    """The product when one side is a scalar, else None."""
    match a, b:
        case Value(rank=0), Value():
            return scale(a, b)
        case Value(), Value(rank=0):
            return scale(b, a)
        case Value(), Value():
            return None
        case Value(), _:
            return scale(b, a)
        case _, Value():
            return scale(a, b)
        case _:
            return a * b


def _inner(m: int, n: int, a: Value, b: Value) -> None:
    if m != n:
        raise refuse("E301", f"inner dimensions differ: {a} @ {b} needs {m} = {n}")


def matmul(a: Datum, b: Datum) -> Value:
    """a @ b."""
    if not isinstance(a, Value) or not isinstance(b, Value) or not a.rank or not b.rank:
        raise refuse("E302", "@ is the matrix product, and one side is a scalar", suggestion="· for scaling")
    _families(a, b)
    if (a.rank == 2 and a.item[1] != 1) or (a.rank == 1 and a.lying):  # M_{j,:}ᵀ is a column where that is meant
        b = upright(b)
    if b.rank == 1 and b.lying:
        a = upright(a)
    if a.tensor.is_complex() != b.tensor.is_complex():
        dtype = torch.result_type(a.tensor, b.tensor)
        a, b = replace(a, tensor=a.tensor.to(dtype)), replace(b, tensor=b.tensor.to(dtype))
    match a.rank, b.rank:
        case 2, 2:
            if a.rest is not None and b.rest is not None:
                n = max(a.item[0], b.item[0])
                a, b = _grown(a, n), _grown(b, n)
                assert a.rest is not None and b.rest is not None
                return Value(a.tensor @ b.tensor, 2, rest=a.rest * b.rest)
            a, b = cut(a, b.item[0]), cut(b, a.item[1])
            _inner(a.item[1], b.item[0], a, b)
            return Value(a.tensor @ b.tensor, 2, row=a.row)
        case 2, 1:
            a = cut(a, b.item[0])
            _inner(a.item[1], b.item[0], a, b)
            product = (a.tensor @ b.tensor[..., None])[..., 0]
            return Value(product[..., 0], 0) if a.row else Value(product, 1)
        case 1, 2 if b.row or (b.rest is None and b.item[0] == 1 and not a.lying):
            return Value(K.outer(a.tensor, b.tensor[..., 0, :]), 2)
        case 1, 2 if a.lying:
            b = cut(b, a.item[0])
            _inner(a.item[0], b.item[0], a, b)
            return Value(a.tensor[..., None, :] @ b.tensor, 2, row=True)
        case 1, 1 if b.lying and not a.lying:
            return Value(K.outer(a.tensor, b.tensor), 2)
        case 1, 1 if a.lying and not b.lying:
            _inner(a.item[0], b.item[0], a, b)
            return Value((a.tensor * b.tensor).sum(-1), 0)
        case 1, 1:
            raise refuse("E302", f"{a} @ {b} is not a matrix product", suggestion="uᵀ @ v, u @ vᵀ or u ⊙ v")
        case _:
            raise refuse("E301", f"inner dimensions differ: {a} @ {b}", suggestion="vᵀ @ M")


def beside(a: Datum, b: Datum) -> Datum:
    """Juxtaposition: a scalar scales, everything else is the matrix product."""
    made = scaled(a, b)
    return matmul(a, b) if made is None else made


def dotted(a: Datum, b: Datum) -> Datum:
    """a · b: a scalar scales; beside a matrix a vector is a diagonal; two vectors entry by entry; else the product."""
    made = scaled(a, b)
    if made is not None:
        return made
    assert isinstance(a, Value) and isinstance(b, Value)
    match a.rank, b.rank:
        case 1, 1:
            return entrywise(a, b)
        case 2, 1 if not a.row:
            return scale_columns(a, b, "M · v")
        case 1, 2 if not b.row:
            return scale_rows(a, b, "v · M")
        case _:
            return matmul(a, b)


def scale_rows(v: Value, M: Value, what: str) -> Value:
    """diag(v) M."""
    _families(v, M)
    M = cut(M, v.item[0])
    if v.item[0] != M.item[0]:
        raise refuse("E301", f"{what} scales the rows of M: v ∈ {v} does not fit M ∈ {M}")
    return Value(v.tensor[..., :, None] * M.tensor, 2)


def scale_columns(M: Value, v: Value, what: str) -> Value:
    """M diag(v)."""
    _families(v, M)
    M = cut(M, v.item[0])
    if v.item[0] != M.item[1]:
        raise refuse("E301", f"{what} scales the columns of M: v ∈ {v} does not fit M ∈ {M}")
    return Value(M.tensor * v.tensor[..., None, :], 2)


def entrywise(a: Value, b: Value) -> Value:
    """Equal items, entry by entry."""
    _families(a, b)
    if a.rank == b.rank == 2:
        a, b = cut(a, b.item[0]), cut(b, a.item[0])
    if a.item != b.item:
        raise refuse("E301", f"{a} and {b} cannot be multiplied entry by entry")
    return Value(closed(a).tensor * closed(b).tensor, a.rank, row=a.row and b.row, norm=a.norm and b.norm)


def hadamard(a: Datum, b: Datum) -> Datum:
    """a ⊙ b: v ⊙ M scales rows, M ⊙ v columns, equal shapes entry by entry."""
    if not isinstance(a, Value) or not isinstance(b, Value):
        if not isinstance(a, Value) and not isinstance(b, Value):
            return a * b
        a = scalar(a, b) if isinstance(b, Value) else a
        assert isinstance(a, Value)
        b = scalar(b, a)
    match a.rank, b.rank:
        case 1, 2:
            return scale_rows(a, b, "v ⊙ M")
        case 2, 1:
            return scale_columns(a, b, "M ⊙ v")
        case i, j if i != j:
            raise refuse("E302", f"⊙ takes equal shapes; {a} ⊙ {b} has a scalar", suggestion="· for scaling")
        case _:
            return entrywise(a, b)


def kron(a: Datum, b: Datum) -> Value:
    """a ⊗ b."""
    if not isinstance(a, Value) or not isinstance(b, Value) or a.rank != b.rank or not a.rank:
        raise refuse("E302", "⊗ takes two matrices or two vectors")
    _families(a, b)
    return Value(itemwise.each(itemwise.kron, (closed(a).tensor, a.rank), (closed(b).tensor, b.rank)), a.rank)


def divide(a: Datum, b: Datum) -> Datum:
    """a / b: by a scalar; entry by entry by a vector; a matrix by its row or column norms along that axis."""
    if not isinstance(a, Value) and not isinstance(b, Value):
        if b == 0:
            raise refuse("E302", "division by zero")
        exact = isinstance(a, int) and isinstance(b, int) and a % b == 0
        return a // b if exact else a / b
    if not isinstance(b, Value):
        assert isinstance(a, Value)
        return scale(1.0 / b if b != 0 else math.inf, a) if a.rest is not None else replace(
            a, tensor=a.tensor / b, over=None, norm=a.norm and b > 0
        )
    a = scalar(a, b)
    if b.rank == 2:
        raise refuse("E302", f"division by a matrix ({b})", suggestion="A @ B⁻¹, or A ⊙ (1/B) entry by entry")
    _families(a, b)
    if b.norm:
        return _over_norm(a, b)
    if b.rank == 0:
        rest = None if a.rest is None else a.rest / b.tensor
        return Value(a.tensor / scalars(b, a.rank), a.rank, row=a.row, axis=a.axis, lying=a.lying, rest=rest)
    if a.rank == 0:
        return Value(scalars(a, 1) / b.tensor, 1, axis=b.axis)
    if a.rank == 1:
        if a.item != b.item:
            raise refuse("E301", f"{a} cannot be divided by {b} entry by entry")
        return Value(a.tensor / b.tensor, 1)
    if b.axis is None:
        raise refuse("E302", f"{a} / {b}: which axis?",
                     suggestion="diag(1/v) @ M for rows, M @ diag(1/v) for columns")
    a = cut(a, b.item[0])
    if b.item[0] != a.item[0 if b.axis == "row" else 1]:
        raise refuse("E301", f"{b.item[0]} {b.axis} norms do not fit {a}")
    return Value(a.tensor / (b.tensor[..., :, None] if b.axis == "row" else b.tensor[..., None, :]), 2)


def _over_norm(a: Value, b: Value) -> Datum:
    """a / b for a norm b: 0 where b is 0. There a is replaced by 0 and b by 1, so that gradients are 0 as well."""
    none = b.tensor == 0
    quotient = divide(a, replace(b, tensor=torch.where(none, torch.ones_like(b.tensor), b.tensor), norm=False))
    assert isinstance(quotient, Value)
    spread = none[..., None, :] if b.axis == "col" and a.rank == 2 else \
        none.reshape((*none.shape, *([1] * (quotient.rank - b.rank))))
    tensor, rest = quotient.tensor, quotient.rest
    return replace(quotient, tensor=torch.where(spread, torch.zeros_like(tensor), tensor),
                   rest=None if rest is None else torch.where(none, torch.zeros_like(rest), rest))


def floor_divide(a: Datum, b: Datum) -> Datum:
    """a // b of sizes."""
    if isinstance(a, Value) or isinstance(b, Value):
        raise refuse("E302", "// is for sizes", suggestion="/")
    if b == 0:
        raise refuse("E302", "division by zero")
    return a // b


# ---------------------------------------------------------------- one operand


def transpose(a: Datum) -> Datum:
    """aᵀ; of a vector a row, of a row a vector."""
    match a:
        case Value(rank=1):
            return Value(a.tensor[..., None, :], 2, row=True, lying=a.lying, norm=a.norm)
        case Value(rank=2, row=True):
            return Value(a.tensor[..., 0, :], 1, lying=a.lying, norm=a.norm)
        case Value(rank=2):
            return replace(a, tensor=a.tensor.mT)
        case _:
            return a


def upright(a: Value) -> Value:
    """M_{j,:}ᵀ as the column that it is; everything else stays."""
    return Value(a.tensor[..., 0, :], 1) if a.row and a.lying else a


def invert(a: Datum) -> Datum:
    """a⁻¹ of a square matrix, 1/a of a scalar."""
    if not isinstance(a, Value) or a.rank == 0:
        return divide(1, a)
    if a.rank == 1:
        raise refuse("E302", f"a vector has no inverse ({a})", suggestion="1 / v")
    if a.item[0] != a.item[1]:
        raise refuse("E304", f"only a square matrix has an inverse; this is {a}")
    return Value(itemwise.each(itemwise.inverse, (a.tensor, 2)), 2, rest=None if a.rest is None else 1 / a.rest)


LARGEST_EXPONENT = 1000


def power(a: Datum, exponent: Datum) -> Datum:
    """Scalars and vectors entry by entry, square matrices by the matrix power."""
    if isinstance(exponent, Value):
        raise refuse("E302", "an exponent is a number")
    if abs(exponent) > LARGEST_EXPONENT:
        raise refuse("E105", f"an exponent of {exponent} is too large")
    if not isinstance(a, Value):
        if a == 0 and exponent < 0:
            raise refuse("E302", "division by zero")
        result = a**exponent
        if not isinstance(result, (int, float)) or abs(result) > 1e300:
            raise refuse("E105", f"{a} to the power of {exponent} is no number of use here")
        return result
    if a.norm and exponent < 0:
        return divide(1, power(a, -exponent))
    if a.norm and 0 < exponent < 1:  # the gradient of a norm is 0 where it is 0, and so is that of its root
        none = a.tensor == 0
        some = torch.where(none, torch.ones_like(a.tensor), a.tensor) ** exponent
        return replace(a, tensor=torch.where(none, torch.zeros_like(some), some))
    if a.rank < 2:
        return Value(a.tensor**exponent, a.rank, axis=a.axis, norm=a.norm and exponent > 0)
    if a.item[0] != a.item[1]:
        raise refuse("E304", f"only a square matrix has powers; this is {a}", suggestion="M ⊙ M entry by entry")
    if not isinstance(exponent, int) or exponent < 0:
        raise refuse("E302", "a matrix power takes a whole exponent ≥ 0", suggestion="M⁻¹ for the inverse")
    powers = itemwise.each(lambda M: itemwise.power(M, exponent), (a.tensor, 2))
    return Value(powers, 2, rest=None if a.rest is None else a.rest**exponent)


def norm(a: Datum, axis: str | None) -> Datum:
    """‖a‖, with the axis when a is a matrix."""
    if not isinstance(a, Value):
        return abs(a)
    closed(a)
    if a.rank == 2 and not a.row:
        match axis:
            case "row":
                return Value(K.norm_row(a.tensor), 1, axis="row", norm=True)
            case "col":
                return Value(K.norm_col(a.tensor), 1, axis="col", norm=True)
            case "F":
                return Value(K.norm_F(a.tensor), 0, norm=True)
            case _:
                raise refuse("E303", "the norm of a matrix names its axis", suggestion="‖M‖_row, ‖M‖_col or ‖M‖_F")
    if axis in ("row", "col"):
        raise refuse("E303", f"‖·‖_{axis} takes a matrix, this is {a}", suggestion="‖v‖")
    if a.rank == 0:
        return Value(a.tensor.abs(), 0)
    return Value(K.norm(a.tensor[..., 0, :] if a.row else a.tensor), 0, norm=True)


# ---------------------------------------------------------------- indexing and writing

@dataclass(frozen=True)
class FromEnd:
    """A place that is written with a minus in front: ``by`` places from the end of its axis."""

    by: int


Index: TypeAlias = "int | FromEnd | slice | Tensor"
Place: TypeAlias = "int | slice | Tensor"


def _from_start(place: int | FromEnd, size: int) -> int:
    return size + place.by if isinstance(place, FromEnd) else place


def _whole(items: Sequence[Index], shape: Sequence[int], what: Value) -> list[Place]:
    """Items for every axis, checked against their lengths, and counted from 0."""
    if len(items) > len(shape):
        raise refuse("E305", f"{len(items)} indices for {what}")
    done: list[Place] = []
    for index, size in zip(items, shape, strict=False):
        match index:
            case int() | FromEnd():
                at = _from_start(index, size)
                if not 0 <= at < size:
                    raise refuse("E305", f"index {at} is outside of an axis of length {size} ({what})")
                done.append(at)
            case slice():
                start, stop = (0 if index.start is None else index.start), (size if index.stop is None else index.stop)
                start, stop = _from_start(start, size), _from_start(stop, size)
                step = 1 if index.step is None else index.step
                if not (0 <= start <= stop <= size and step >= 1):
                    raise refuse("E305", f"the slice {start}:{stop} does not lie in an axis of length {size} ({what})")
                done.append(slice(start, stop, step))
            case _:
                if index.numel() and not (0 <= int(index.min()) and int(index.max()) < size):
                    raise refuse("E305", f"the index vector leaves an axis of length {size} ({what})")
                done.append(index)
    return done + [slice(0, size, 1) for size in shape[len(items) :]]


def item(a: Value, items: Sequence[Index]) -> Value:
    """``a_{items}``: over family axes first, then rows, then columns; what is left out is ``:``."""
    if a.over is not None and len(items) == a.over.shape[-1] > 1 and all(isinstance(i, int) for i in items):
        place = torch.tensor([i for i in items if isinstance(i, int)], device=a.over.device)
        found = (a.over == place).all(-1).nonzero()
        if len(found) != 1:
            raise refuse("E305", f"{tuple(items)} is {'not' if not len(found) else 'more than once'} in the index set")
        return Value(a.tensor[..., int(found[0, 0])], 0)
    if a.rest is not None:
        a = _at_least(a, items)
        if not all(isinstance(i, int) for i in items) or len(items) != len(a.family) + 2:
            closed(a)
    families = len(a.family)
    whole = _whole(items, a.tensor.shape, a)
    tensor = a.tensor
    for axis in range(len(whole) - 1, -1, -1):
        index = whole[axis]
        match index:
            case int():
                tensor = tensor.select(axis, index)
            case slice():
                tensor = tensor[(slice(None),) * axis + (index,)]
            case _:
                tensor = tensor.index_select(axis, index.to(tensor.device))
    rank = sum(1 for index in whole[families:] if not isinstance(index, int))
    lying = (a.rank == 2 and not a.row and len(items) == families + 2 and isinstance(whole[families], int)
             and not isinstance(whole[-1], int))
    return Value(tensor, rank, lying=lying, norm=a.norm)


def _at_least(a: Value, items: Sequence[Index]) -> Value:
    ends = [end for i in items for end in ((i.start, i.stop) if isinstance(i, slice) else (i,))]
    if any(isinstance(end, FromEnd) for end in ends):
        raise refuse("E305", "this I has no size yet, and a negative index counts from the end", suggestion="eye(n)")
    largest = max((i for i in items if isinstance(i, int)), default=-1)
    return _grown(a, largest + 1)


def write(a: Value, items: Sequence[Index], op: str, value: Datum) -> Value:
    """A copy of ``a`` with the entries at ``items`` replaced, or changed by ``value``."""
    if a.rest is not None:
        a = _at_least(a, items)
    whole = _whole(items, a.tensor.shape, a)
    places = torch.arange(a.tensor.numel(), device=a.tensor.device).reshape(a.tensor.shape)
    for axis in range(len(whole) - 1, -1, -1):
        index = whole[axis]
        if isinstance(index, int):
            places = places.select(axis, index)
        elif isinstance(index, slice):
            places = places[(slice(None),) * axis + (index,)]
        else:
            if len(index.unique()) != len(index):
                raise refuse("E305", "an index vector that is written to names each entry once")
            places = places.index_select(axis, index.to(places.device))
    new = _fitting(value, tuple(places.shape), a)
    flat, where = a.tensor.reshape(-1), places.reshape(-1)
    if op != "←":
        new = flat[where].reshape(places.shape) + (new if op == "+=" else -new)
    pick = torch.arange(flat.numel(), device=flat.device)
    pick[where] = flat.numel() + torch.arange(where.numel(), device=flat.device)
    both = torch.cat([flat, new.reshape(-1).to(flat.dtype)])
    return replace(a, tensor=both[pick].reshape(a.tensor.shape), axis=None, over=None, lying=False,
                   norm=a.norm and op != "-=" and isinstance(value, Value) and value.norm)


def _fitting(value: Datum, shape: tuple[int, ...], a: Value) -> Tensor:
    v = scalar(value, a)
    closed(v)
    tensor = v.tensor[..., 0, :] if v.row else v.tensor
    if tuple(tensor.shape) != shape:
        raise refuse("E301", f"{v} does not fit a place of shape {'×'.join(map(str, shape)) or 'one number'}")
    return tensor


@dataclass
class Pieces:
    """A name that is being defined by writes to parts of it."""

    parts: list[tuple[tuple[Index, ...], Value]]

    def assembled(self, name: str) -> Value:
        """The whole: every entry written exactly once, lengths found from the writes."""
        first = self.parts[0][1]
        starts: list[tuple[list[int | tuple[int, int, int]], Tensor]] = []
        rank = max(value.rank + sum(1 for i in items if isinstance(i, int)) for items, value in self.parts)
        shape = [0] * (rank + len(first.family))
        for items, value in self.parts:
            place = self._place(items, value, len(shape), name)
            starts.append((place, value.tensor[..., 0, :] if value.row else value.tensor))
            for axis, index in enumerate(place):
                end = index + 1 if isinstance(index, int) else index[0] + index[2] * (index[1] - 1) + 1
                shape[axis] = max(shape[axis], end)
        places = torch.arange(math.prod(shape), device=first.tensor.device).reshape(shape)
        flat: list[Tensor] = []
        where: list[Tensor] = []
        for place, tensor in starts:
            at = places
            for axis in range(len(place) - 1, -1, -1):
                index = place[axis]
                if isinstance(index, int):
                    at = at.select(axis, index)
                else:
                    stop = index[0] + index[2] * (index[1] - 1) + 1
                    at = at[(slice(None),) * axis + (slice(index[0], stop, index[2]),)]
            flat.append(tensor.reshape(-1))
            where.append(at.reshape(-1))
        order = torch.cat(where)
        if len(order) != places.numel() or len(order.unique()) != len(order):
            written = "twice" if len(order.unique()) != len(order) else "never"
            raise refuse("E305", f"`{name}` is defined by its entries, and one of them is written {written}",
                         suggestion=f"bind `{name}` before, as in `{name} ← zeros(…)`, to write into it")
        whole = torch.cat(flat)[torch.argsort(order)].reshape(shape)
        return Value(whole, min(2, rank), norm=all(value.norm for _, value in self.parts))

    @staticmethod
    def _place(items: Sequence[Index], value: Value, axes: int, name: str) -> list[int | tuple[int, int, int]]:
        """For every axis an index, or (start, length, step); lengths are those of the value."""
        if value.family:
            raise refuse("E305", f"`{name}` is defined entry by entry: an entry is not a family")
        lengths = list(value.item[1:] if value.row else value.item)
        place: list[int | tuple[int, int, int]] = []
        for index in items:
            ends = (index.start, index.stop) if isinstance(index, slice) else (index,)
            if any(isinstance(end, FromEnd) or (isinstance(end, int) and end < 0) for end in ends):
                raise refuse("E305", f"`{name}` has no length yet, and a negative index counts from its end")
            if isinstance(index, int):
                place.append(index)
            elif isinstance(index, slice) and lengths:
                start, step = index.start or 0, index.step or 1
                length = lengths.pop(0)
                if index.stop is not None and len(range(start, index.stop, step)) != length:
                    raise refuse("E301", f"{value} does not fit the slice {start}:{index.stop}")
                place.append((start, length, step))
            else:
                raise refuse("E301", f"{value} does not fit this place of `{name}`")
        place += [(0, length, 1) for length in lengths]
        if len(place) != axes:
            raise refuse("E305", f"the writes to `{name}` have different numbers of axes")
        return place
