"""A product of vectors with a matrix, v mᵀ + bias: which routine computes it, forward and backward.

    product(v, m, bias) = v mᵀ + bias        plus_product(a, v, m, c) = a + c v mᵀ
    sum_applied(v, S, a, l, r, c) = v Sᵀ for S = a + c l r, gradients through l and r

The values are torch's; only the routine is chosen, by sizes, precision and processor, so that one machine always does
the same. On a CPU two things are slow in torch's own way, which asks MKL: float32 products on processors that are not
Intel's, where oneDNN, which torch brings along, is faster; and the gradient of a matrix with few columns, which is
computed lying down here, gᵀ v = (vᵀ g)ᵀ. Everywhere else, and where torch looks in (compiling, transforms, autocast,
dispatch modes), these are F.linear and addmm. ``torch.backends.mkldnn.flags(enabled=False)`` turns oneDNN off.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from padp.compiler.kernels.torch_state import autocast_dtype, dispatched, looked_into

WORTH_CHOOSING = 1 << 18
"""Multiplications from which on a routine is chosen; fewer take less time than the choice."""
WORTH_ONEDNN = 1 << 22
"""Multiplications from which on oneDNN is faster for many vectors."""
WORTH_ONEDNN_FEW = 1 << 20
"""The same for a few vectors, which wait for the matrix to come from memory."""
FEW = 16
THIN = 4
"""A matrix with this many times more rows than columns is thin."""

_LINEAR: Any = getattr(getattr(torch.ops, "mkldnn", None), "_linear_pointwise", None)
"""oneDNN's product; torch has no public name for it, and torch.compile uses this one."""


@lru_cache(maxsize=1)
def foreign_processor() -> bool:
    """Whether torch's products go to MKL on a processor that MKL was not made for."""
    if not torch.backends.mkl.is_available() or not torch.backends.mkldnn.is_available() or _LINEAR is None:
        return False
    try:
        said = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        said = platform.processor()
    return "AuthenticAMD" in said or "HygonGenuine" in said


def product(v: Tensor, m: Tensor, bias: Tensor | None = None) -> Tensor:
    """v mᵀ + bias for v (…, n) and m (k, n)."""
    if looked_into() or _small(v, m) or not _choosable(v, m, bias):
        return F.linear(v, m, bias)
    if torch.is_grad_enabled() and (v.requires_grad or m.requires_grad or (bias is not None and bias.requires_grad)):
        return cast(Tensor, _Product.apply(v, m, bias))  # type: ignore[no-untyped-call]
    return _made(v, m, bias)


def few_times(v: Tensor, m: Tensor, bias: Tensor | None = None) -> Tensor:
    """``product`` for few vectors of which it is known that nobody looks into what is done with them."""
    if torch.is_grad_enabled():
        return F.linear(v, m, bias) if _small(v, m) else product(v, m, bias)
    if v.numel() * m.shape[0] >= WORTH_ONEDNN_FEW and v.dtype is torch.float32 is m.dtype and type(m) in PLAIN \
            and v.shape[-1] == m.shape[1] and v.is_contiguous() and m.is_contiguous() and m.is_cpu \
            and (bias is None or bias.dtype is torch.float32) and _ENABLED() and foreign_processor():
        return cast(Tensor, _LINEAR(v, m, bias, "none", [], ""))
    return F.linear(v, m, bias)


def plus_product(a: Tensor, v: Tensor, m: Tensor, factor: float) -> Tensor:
    """a + factor · v mᵀ, the product adding to a as it goes."""
    if looked_into():
        return _addmm_of_rows(a, v, m, factor)
    if _small(v, m) or not _choosable(v, m, a) or a.shape[:-1] != v.shape[:-1]:
        return _addmm(a, v, m, factor)
    if torch.is_grad_enabled() and (v.requires_grad or m.requires_grad or a.requires_grad):
        return cast(Tensor, _PlusProduct.apply(a, v, m, factor))  # type: ignore[no-untyped-call]
    return _added(a, v, m, factor)


def sum_applied(v: Tensor, whole: Tensor, a: Tensor, left: Tensor, right: Tensor, factor: float,
                bias: Tensor | None = None) -> Tensor:
    """v wholeᵀ + bias for whole = a + factor · left right, a constant; left and right get their gradients themselves.

    ∂r = c (g l)ᵀ v and ∂l = c gᵀ (v rᵀ), where differentiating the sum would first make gᵀ v, as large as ``whole``.
    """
    if looked_into() or autocast_dtype(v) is not None or not v.dtype == whole.dtype == left.dtype \
            == right.dtype or v.dim() < 2:
        return F.linear(v, (a + factor * (left @ right)).to(v.dtype), bias)
    return cast(Tensor, _SumApplied.apply(v, whole, a, left, right, bias, factor))  # type: ignore[no-untyped-call]


def plain(base: nn.Module) -> bool:
    """Whether calling this layer is nothing but a product: nn.Linear itself, with nothing hung on to it or put over it.

    Hooks of all modules (``register_module_forward_hook``) count too.
    """
    here = base.__dict__
    return type(base) is nn.Linear and "forward" not in here and not (
        here["_forward_hooks"] or here["_forward_pre_hooks"] or here["_backward_hooks"] or here["_backward_pre_hooks"]
        or _EVERYWHERE[0] or _EVERYWHERE[1] or _EVERYWHERE[2] or _EVERYWHERE[3])


def plain_or_none(base: nn.Module | None) -> bool:
    """Whether there is no base layer, or a plain one."""
    return base is None or plain(base)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_EVERYWHERE = tuple(getattr(nn.modules.module, f"_global{hooks}", {}) for hooks in _HOOKS)
PLAIN = (Tensor, nn.Parameter)
"""The classes of tensors of which torch computes with the numbers and does nothing else."""
REAL = (torch.float32, torch.float64)
_ENABLED: Callable[[], bool] = getattr(getattr(torch, "_C", None), "_get_mkldnn_enabled",
                                       lambda: bool(torch.backends.mkldnn.enabled))
"""``torch.backends.mkldnn.enabled``, by a shorter way."""


def _small(v: Tensor, m: Tensor) -> bool:
    """Whether the product takes less time than choosing a routine for it."""
    numbers = v.numel()
    if not torch.is_grad_enabled():
        return numbers * m.shape[0] < WORTH_ONEDNN_FEW
    return numbers * m.shape[0] < (WORTH_CHOOSING if numbers >= FEW * v.shape[-1] else WORTH_ONEDNN)


def _choosable(v: Tensor, m: Tensor, third: Tensor | None) -> bool:
    """Whether there is a choice: a product of plain tensors on a CPU, that nobody looks into."""
    return type(v) in PLAIN and type(m) in PLAIN \
        and v.device.type == "cpu" == m.device.type and v.dtype == m.dtype and v.dtype in REAL \
        and v.layout == m.layout == torch.strided and v.dim() > 1 \
        and (third is None or (type(third) in PLAIN and third.dtype == v.dtype)) \
        and not dispatched() and autocast_dtype(v) is None


def _by_onednn(v: Tensor, m: Tensor) -> bool:
    """Whether oneDNN is the faster one."""
    if v.dtype != torch.float32 or v.device.type != "cpu" or not foreign_processor() or dispatched() \
            or not _ENABLED():
        return False
    few = v.numel() < FEW * v.shape[-1]
    if v.shape[-1] != m.shape[-1]:  # torch says it better
        return False
    if not (_dense(v) and _dense(m)) or (few and not m.is_contiguous()):
        return False
    return v.numel() * m.shape[0] >= (WORTH_ONEDNN_FEW if few else WORTH_ONEDNN)


def _dense(t: Tensor) -> bool:
    """Row after row or column after column without gaps: what else there is, oneDNN takes a hundred times longer for.
    """
    return t.is_contiguous() or (t.dim() == 2 and t.mT.is_contiguous())


def _made(v: Tensor, m: Tensor, bias: Tensor | None) -> Tensor:
    """v mᵀ + bias, now."""
    if not _dense(m) and m.numel() < v.numel():  # cut out of a larger one
        m = m.contiguous()
    if _by_onednn(v, m):
        return cast(Tensor, _LINEAR(v, m, bias, "none", [], ""))
    if bias is None and m.stride(0) == 1 and THIN * m.shape[0] <= m.shape[1] and m.numel() < v.numel():
        m = m.contiguous()
    return F.linear(v, m, bias)


def _added(a: Tensor, v: Tensor, m: Tensor, factor: float) -> Tensor:
    """a + factor · v mᵀ, now."""
    if _by_onednn(v, m) and a.shape[-1] == m.shape[0] and a.is_contiguous():
        if factor != 1:
            v, m = (v, m * factor) if m.numel() < v.numel() else (v * factor, m)
        return cast(Tensor, _LINEAR.binary(v, a, m, None, "add"))
    return _addmm(a, v, m, factor)


def _addmm(a: Tensor, v: Tensor, m: Tensor, factor: float) -> Tensor:
    if a.dim() == 2:
        return torch.addmm(a, v, m.mT, alpha=factor)
    if factor == 1 and a.numel() == a.shape[-1]:  # one vector is a bias
        return F.linear(v, m, a.reshape(-1))
    return _addmm_of_rows(a, v, m, factor)


def _addmm_of_rows(a: Tensor, v: Tensor, m: Tensor, factor: float) -> Tensor:
    return torch.addmm(_rows(a), _rows(v), m.mT, alpha=factor).reshape(a.shape)


def _rows(t: Tensor) -> Tensor:
    return t.reshape(-1, t.shape[-1])


def _gradient_of_matrix(g: Tensor, v: Tensor) -> Tensor:
    """gᵀ v, lying down where it has few columns."""
    g, v = _rows(g), _rows(v)
    return _made(g.mT, v.mT, None) if g.shape[-1] < THIN * v.shape[-1] else _made(v.mT, g.mT, None).mT


class _Product(torch.autograd.Function):
    """v mᵀ + bias; differentiable as often as wanted."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, m: Tensor, bias: Tensor | None) -> Tensor:
        for_v, for_m, _ = ctx.needs_input_grad
        ctx.save_for_backward(v if for_m else None, m if for_v else None)
        return _made(v, m, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (g,) = grads
        v, m = ctx.saved_tensors
        return *_gradients(g, v, m), _rows(g).sum(0) if ctx.needs_input_grad[2] else None


class _PlusProduct(torch.autograd.Function):
    """a + factor · v mᵀ; differentiable as often as wanted."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, v: Tensor, m: Tensor, factor: float) -> Tensor:
        _, for_v, for_m, _ = ctx.needs_input_grad
        ctx.save_for_backward(v if for_m else None, m if for_v else None)
        ctx.factor = factor
        return _added(a, v, m, factor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        (g,) = grads
        v, m = ctx.saved_tensors
        dv, dm = _gradients(g, v, m)
        if ctx.factor != 1:
            dv, dm = (None if d is None else d * ctx.factor for d in (dv, dm))
        return g if ctx.needs_input_grad[0] else None, dv, dm, None


def _gradients(g: Tensor, v: Tensor | None, m: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """g m and gᵀ v, of those that were kept."""
    if torch.is_grad_enabled():  # somebody differentiates this too
        return None if m is None else g @ m, None if v is None else _rows(g).mT @ _rows(v)
    return None if m is None else _made(g, m.mT, None), None if v is None else _gradient_of_matrix(g, v)


class _SumApplied(torch.autograd.Function):
    """v (a + c l r)ᵀ + bias; differentiable as often as wanted."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, whole: Tensor, a: Tensor, left: Tensor, right: Tensor, bias: Tensor | None,
                factor: float) -> Tensor:
        ctx.save_for_backward(v, whole, a, left, right)
        ctx.factor = factor
        return _made(v, whole, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        v, whole, a, left, right = ctx.saved_tensors
        for_v, _, for_a, for_left, for_right, for_bias, _ = ctx.needs_input_grad
        dv = da = dl = dr = None
        if torch.is_grad_enabled():  # somebody differentiates this too
            rows, by = _rows(g), _rows(v)
            dv = g @ (a + ctx.factor * (left @ right)) if for_v else None
            dl = rows.mT @ (by @ right.mT) if for_left else None
            dr = (rows @ left).mT @ by if for_right else None
        else:
            dv = _made(g, whole.mT, None) if for_v else None
            dl = _gradient_of_matrix(g, _made(v, right, None)) if for_left else None
            dr = _gradient_of_matrix(_made(g, left.mT, None), v) if for_right else None
        if for_a:
            da = _rows(g).mT @ _rows(v)
        dl, dr = (None if d is None else d * ctx.factor for d in (dl, dr))
        return dv, None, da, dl, dr, _rows(g).sum(0) if for_bias else None, None
