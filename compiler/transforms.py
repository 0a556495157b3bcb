"""Whether torch is looking into what runs now: compiling it, or transforming it as torch.func does.

Then operations are written out in torch's own, which it can follow; else autograd functions of ours save time and
memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_PEEK: Callable[[], object] | None = getattr(getattr(getattr(torch, "_C", None), "_functorch", None),
                                             "peek_interpreter_stack", None)
"""What torch.func is doing now, or None; torch has no public name for it."""


def looked_into() -> bool:
    """True under torch.compile, export, vmap, torch.func.grad and their like."""
    return torch.compiler.is_compiling() or (_PEEK is not None and _PEEK() is not None)
