"""A reminder, once: an adapter has rules for after backward, an optimiser makes its second step, and nobody ran them.

The rules of AdaLoRA are its method: without them it trains, silently, as something else.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from padp.compiler.module.module import AdapterModule

_SAID = -1
_STEPS: WeakKeyDictionary[AdapterModule, int] = WeakKeyDictionary()
"""Steps since the rules of a module ran; _SAID where the reminder was given."""


def remind_of(modules: Iterable[AdapterModule]) -> None:
    """Count the steps of optimisers on these from now on."""
    for module in modules:
        if module.has_updates:
            _STEPS.setdefault(module, 0)


def have_run(modules: Iterable[AdapterModule]) -> None:
    """Their rules have run."""
    for module in modules:
        if _STEPS.get(module, 0) != _SAID:
            _STEPS[module] = 0


def _stepped(optimiser: Optimizer, *_: object) -> None:
    if not _STEPS:
        return
    trained = {id(p) for group in optimiser.param_groups for p in group["params"] if p.grad is not None}
    waiting: list[AdapterModule] = []
    for module, steps in list(_STEPS.items()):
        if steps != _SAID and any(id(p) in trained for p in module.parameters()):
            _STEPS[module] = steps + 1
            if steps:
                waiting.append(module)
    for module in waiting:
        _STEPS[module] = _SAID
    if waiting:
        warnings.warn(f"{waiting[0].adapter.name} has rules for after backward, and the optimiser has made two steps "
                      "without them: call padp.update(model) after optimiser.step() and before zero_grad() (in "
                      "transformers' Trainer: in on_optimizer_step of a callback)", stacklevel=2)


register_optimizer_step_post_hook(_stepped)
