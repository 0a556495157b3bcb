"""What torch does around what runs now: compiling or transforming it, or casting its arguments.

Where torch looks in, operations are written out in its own, which it can follow; else autograd functions of ours save
time and memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_PEEK: Callable[[], object] | None = getattr(getattr(getattr(torch, "_C", None), "_functorch", None),
                                             "peek_interpreter_stack", None)
"""What torch.func is doing now, or None; torch has no public name for it."""
_WRAPPED: Callable[[Tensor], bool] = getattr(getattr(getattr(torch, "_C", None), "_functorch", None),
                                             "is_functorch_wrapped_tensor", lambda _: False)
"""Whether a tensor stands for many, or is being differentiated by torch.func."""
_MODES: Callable[[], int] | None = getattr(getattr(torch, "_C", None), "_len_torch_dispatch_stack", None)
"""How many dispatch modes there are now; torch has no public name for it."""
_CASTING: Callable[[], bool] = getattr(getattr(torch, "_C", None), "_is_any_autocast_enabled",
                                       lambda: torch.is_autocast_enabled("cpu"))
"""Whether autocast is on anywhere; torch has no public name for it."""
_TRACED: Callable[[], bool] = getattr(getattr(torch, "_C", None), "_is_tracing",
                                      getattr(torch.jit, "is_tracing", lambda: False))
_compiler: Any = torch.compiler
_levels: Any = forward_ad


def compiling() -> bool:
    """``torch.compiler.is_compiling``, by a shorter way: a call asks several times. Dynamo takes the first for true and
    never looks at the second, which is true in an export that runs the code."""
    return torch.compiler.is_dynamo_compiling() or getattr(_compiler, "_is_compiling_flag", False)


def looked_into() -> bool:
    """True under torch.compile, export, jit.trace, vmap, torch.func.grad and forward-mode differentiation."""
    return torch.compiler.is_dynamo_compiling() or getattr(_compiler, "_is_compiling_flag", False) or _TRACED() \
        or (_PEEK is not None and _PEEK() is not None) or getattr(_levels, "_current_level", -1) >= 0


def transforming() -> bool:
    """Whether torch.func transforms what runs now."""
    return not compiling() and _PEEK is not None and _PEEK() is not None


def lent(t: Tensor) -> bool:
    """Whether a tensor is one of torch.func's, for the time of a call."""
    return transforming() and _WRAPPED(t)


def dispatched() -> bool:
    """True inside a mode that sees every operation: FLOP counters, fake tensors, loggers."""
    return _MODES is not None and _MODES() > 0


def passing() -> bool:
    """Whether tensors that are made now may not outlive the call: a trace's, a transform's, fake ones. Nothing is kept
    from them for the next call, nor taken from the last one."""
    return looked_into() or dispatched()


def autocasting() -> bool:
    """Whether autocast is on for some device."""
    return _CASTING()


def autocast_dtype(t: Tensor) -> torch.dtype | None:
    """What autocast makes of products on t's device; None where it is off, or the device has none."""
    if not _CASTING():
        return None
    kind = t.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)
