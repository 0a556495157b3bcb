"""Which adapters act in a call: those that are on now, or, where a checkpoint runs it again, those of its first run.

Knobs come back with them. State that cannot be brought back (another weight of the base, an adapter that is gone) is
refused by name.
"""

from __future__ import annotations

import threading
from typing import NamedTuple, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from padp.compiler.module.first_runs import checkpointed, then
from padp.dsl.diagnostics import refuse

_REMEDY = "run backward first, or make this call without a checkpoint around it"


class Part(Protocol):
    """What adapters are switched on at: a site, a projection of one, a module that is trained whole."""

    path: str
    training: bool

    @property
    def switched(self) -> bool:
        """Whether adapters were ever switched here since they came."""
        ...

    @property
    def acting(self) -> tuple[str, ...]:
        """The names that act now."""
        ...

    @property
    def merged(self) -> tuple[str, ...]:
        """The names that the base's weight holds."""
        ...

    def has(self, name: str) -> bool:
        """Whether an adapter of that name is here."""
        ...

    def draws(self, name: str) -> bool:
        """Whether it draws numbers in training."""
        ...

    def knobbed(self, name: str) -> Knobbed | None:
        """The module of that adapter, where it has knobs."""
        ...

    def __hash__(self) -> int: ...


class Knobbed(Protocol):
    """What has knobs."""

    knobs: dict[str, float]

    def __hash__(self) -> int: ...


class _State(NamedTuple):
    names: tuple[str, ...]
    knobs: tuple[dict[str, float], ...]
    merged: tuple[str, ...]
    training: bool


class _Knobs(threading.local):
    """Knobs of calls that this thread runs again, where they have another value now."""

    def __init__(self) -> None:
        self.then: WeakKeyDictionary[Knobbed, dict[str, float]] = WeakKeyDictionary()


_KNOBS = _Knobs()


def acting(part: Part) -> tuple[str, ...]:
    """The names that act in this call; E511 where a checkpoint runs it again and that cannot be told or done."""
    if not checkpointed():
        return part.acting
    now = _State(part.acting, _knobs(part, part.acting), part.merged, part.training)
    was = then(part, now)
    label = part.path or "this layer"
    if was is None:
        if part.switched:
            raise refuse("E511", f"{label} is computed again in a backward pass, adapters were switched there, and "
                         "which of them acted in its first run is not known", suggestion=_REMEDY)
        was = now
    if was == now:
        _bring_back(part, now)
        return now.names
    gone = [name for name in was.names if not part.has(name)]
    reason = (f"{gone[0]}, which acted in its first run, was taken off since" if gone else
              "it was merged or unmerged since its first run" if was.merged != now.merged else
              "it was switched between training and evaluation since its first run, and an adapter there draws numbers"
              if was.training != now.training and any(part.draws(name) for name in was.names) else None)
    if reason is not None:
        raise refuse("E511", f"{label} is computed again in a backward pass, and {reason}", suggestion=_REMEDY)
    _bring_back(part, was)
    return was.names


def _knobs(part: Part, names: tuple[str, ...]) -> tuple[dict[str, float], ...]:
    modules = (part.knobbed(name) for name in names)
    return tuple({} if module is None else dict(module.knobs) for module in modules)


def _bring_back(part: Part, state: _State) -> None:
    """Let this call read the knobs of then."""
    for name, knobs in zip(state.names, state.knobs, strict=True):
        module = part.knobbed(name)
        if module is not None and module.knobs != knobs:
            _KNOBS.then[module] = knobs
        elif module is not None:
            _KNOBS.then.pop(module, None)


def knob(module: Knobbed, name: str, tensor: Tensor) -> Tensor:
    """A knob as a call reads it: ``tensor``, which holds its value of now, or the value of the first run.

    Where gradients are computed it is a copy: another value that is set before backward leaves this call's alone.
    """
    if not torch.is_grad_enabled():
        return tensor
    if not checkpointed() or module not in _KNOBS.then:
        return tensor.clone()
    return torch.full_like(tensor, _KNOBS.then[module][name])
