"""Tensors that are declared in a space of orthonormal matrices: X ∈ O(k), SO(k) or St(r, d).

    stored Z (free)  →  X = the Q of Zᵀ = Q R, transposed        in SO(k) with determinant 1

The program's X is always in its space, whatever is stored, and a learned Z is trained freely. ``layer.tensors["X"]`` is
X; Z is the parameter, ``layer.get_parameter``. A Z without full rank has no X, and near it no useful gradient, so a
start of equal numbers is refused; without ``init`` a learned X is the identity (its first r rows in St), a frozen one
random.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from padp.compiler.kernels import dense as kernels
from padp.dsl.diagnostics import refuse

if TYPE_CHECKING:
    from padp.compiler.names.terms import SpaceTerm

SPACES = ("O", "SO", "St")
_DATA: Any = Tensor.data


def in_space(kind: str, stored: Tensor) -> Tensor:
    """The orthonormal matrix that a stored one stands for."""
    return kernels.special_orthogonal(stored) if kind == "SO" else kernels.orthonormal_rows(stored)


def first_rows(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The first rows of the identity, for each item of a family: where a tensor in such a space starts."""
    return torch.eye(shape[-2], shape[-1], dtype=dtype, device=device).expand(shape).clone()


def refuse_deficient(name: str, space: SpaceTerm, stored: Tensor) -> None:
    """E511 for a start from which no orthonormal matrix can be made."""
    if stored.is_meta or not stored.numel() or space.kind not in SPACES:
        return
    below = 4 * stored.shape[-1] * torch.finfo(stored.dtype).eps
    if int(torch.linalg.matrix_rank(stored.detach().double(), rtol=below).min()) < stored.shape[-2]:
        raise refuse("E511", f"`{name}` starts without full rank, so there is no matrix in {space.kind} for it",
                     space.span, suggestion="init = orthogonal, init = kaiming, or no init: the identity")


class Computed(Tensor):
    """A tensor that is made from a parameter: what is written into it would be lost, so that is refused."""

    @classmethod
    def of(cls, value: Tensor, name: str, attribute: str) -> Computed:
        """``value``, which is ``name`` of the program, made from the parameter ``attribute``."""
        made: Computed = value.as_subclass(cls)
        made.__dict__["_of"] = (name, attribute)  # pyright: ignore[reportIndexIssue]
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        called = str(getattr(func, "__name__", ""))
        written = _target(called, args, kwargs or {}, func)
        if isinstance(written, Computed):
            name, attribute = written.__dict__.get("_of", ("this tensor", "…"))
            raise refuse("E511", f"`{name}` is made orthonormal from a parameter: what is written into it is lost",
                         suggestion=f"write into layer.get_parameter(…{attribute!r}), of which `{name}` is made")
        with torch._C.DisableTorchFunctionSubclass():  # pyright: ignore[reportPrivateUsage]
            return func(*args, **(kwargs or {}))


def _target(called: str, args: Any, kwargs: Any, func: Any) -> Any:
    """The tensor that a function writes into, or gives a way to write into."""
    if kwargs.get("out") is not None:
        return kwargs["out"]
    in_place = called.endswith("_") and not called.endswith("__")
    if in_place or called in ("__setitem__", "__set__") or getattr(func, "__self__", None) is _DATA:
        return args[0] if args else None
    if called.startswith("__i") and called.endswith("__") and called not in ("__int__", "__index__", "__invert__"):
        return args[0] if args else None
    return None
