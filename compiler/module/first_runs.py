"""What a checkpointed call read when it first ran: switched since, it still counts when backward runs the call again.

    then(key, now)  first run        notes ``now`` on the checkpoint, and is ``now``
                    run again        what was noted there
                    anything else    now

Activation checkpointing (``torch.utils.checkpoint`` of both kinds, and every autograd function that runs a module in
its ``forward`` and again in its ``backward``) forgets what a block computed and calls it again in the backward pass. By
then other adapters may be active, a knob may have another value, an adapter may be merged. A checkpoint is an object
that lives as long as its graph; it is found on the Python stack, or behind torch's hooks for saved tensors. Where a
call runs in a backward pass and no note is found (a checkpoint of another make, or one that first ran compiled), it is
refused if anything was ever switched, since nobody can tell what acted then.

Asking costs a few calls into torch; the stack is walked only inside checkpoints, hooks and backward passes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar, cast

import torch
from torch.autograd.function import FunctionCtx
from torch.utils import checkpoint

from padp.compiler.kernels.torch_state import compiling

T = TypeVar("T")
_autograd: Any = getattr(getattr(torch, "_C", None), "_autograd", None)
_hooks: Callable[[bool], Any] = getattr(_autograd, "_top_saved_tensors_default_hooks", lambda _: None)
"""The hooks for saved tensors that are set now; torch has no public name for it."""
_backward: Callable[[], int] = getattr(getattr(torch, "_C", None), "_current_graph_task_id", lambda: -1)
"""The backward pass that runs in this thread, −1 for none; torch has no public name for it."""
_tangents: Callable[[], bool] = getattr(getattr(torch, "_C", None), "_is_fwd_grad_enabled", lambda: True)
"""Off inside an autograd function's ``forward``, where ``no_grad`` leaves it on; torch has no public name for it."""

_FILE = checkpoint.__file__
_ATTRIBUTE = "_padp_notes"


def checkpointed() -> bool:
    """Whether this call may be one that backward runs again, or is the second run."""
    if compiling():
        return False
    if torch.is_grad_enabled():
        return _hooks(False) is not None or _backward() != -1
    return not _tangents() and not torch.is_inference_mode_enabled()


def then(key: Hashable, now: T) -> T | None:
    """What counts for this call; None where it cannot be told. To be asked when ``checkpointed``, once a call: the
    k-th call of a second run is the k-th of the first."""
    first, again = _checkpoints()
    value: Any = now if _backward() == -1 else None
    if again is not None:
        known, run = _notes(again), (key, _backward())
        k = known.asked.get(run, 0)
        known.asked[run] = k + 1
        calls = known.calls.get(key, [])
        value = calls[k] if k < len(calls) else None
    if value is not None:
        for one in first:
            _notes(one).calls.setdefault(key, []).append(value)
    return cast("T | None", value)


@dataclass(frozen=True, slots=True)
class _Notes:
    """On a checkpoint: what a key was in each call of the first run; how often it was asked for, by backward pass."""

    calls: dict[Hashable, list[Any]] = field(default_factory=dict)
    asked: dict[tuple[Hashable, int], int] = field(default_factory=dict)


def _checkpoints() -> tuple[list[object], object | None]:
    """The checkpoints whose first run this is, and the one whose second run they are in."""
    hooked = _behind_hooks()
    first = [] if hooked is None else [hooked]
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        code = frame.f_code
        if code.co_filename == _FILE and code.co_name == "unpack_hook" and "frame" in code.co_freevars:
            return first, frame.f_locals["frame"]
        if code.co_filename == _FILE and code.co_name == "checkpoint":
            inner = getattr(frame.f_locals.get("gen"), "gi_frame", None)
            one = None if inner is None else inner.f_locals.get("new_frame")
            if one is not None and one is not hooked:
                first.append(one)
        elif code.co_name in ("forward", "backward") and code.co_argcount:
            one = frame.f_locals.get(code.co_varnames[0])
            if isinstance(one, FunctionCtx):
                if code.co_name == "backward":
                    return first, one
                first.append(one)
        frame = frame.f_back
    return first, None


def _behind_hooks() -> object | None:
    """The checkpoint whose hooks for saved tensors are set: hooks of modules set them without being on the stack."""
    top = _hooks(False)
    code = getattr(top[0], "__code__", None) if top is not None else None
    if code is None or code.co_filename != _FILE or "frame" not in code.co_freevars:
        return None
    return cast(object, top[0].__closure__[code.co_freevars.index("frame")].cell_contents)  # pyright: ignore[reportOptionalSubscript]


def _notes(one: object) -> _Notes:
    """What is noted on a checkpoint."""
    return cast(_Notes, vars(one).setdefault(_ATTRIBUTE, _Notes()))
