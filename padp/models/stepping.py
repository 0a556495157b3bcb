"""One step of the ``after backward`` rules of an adapter, at all its sites at once, with the state that they keep.

The state (moving averages) lies in buffers of the adapter's module, ``ema_…``, zero at the start: it is in state dicts and
checkpoints and follows the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, cast

import torch
from torch import Tensor, nn

from padp.compiler import updates
from padp.dsl.diagnostics import refuse

if TYPE_CHECKING:
    from padp.compiler.module import AdapterModule

Weights: TypeAlias = "Tensor | Mapping[str, Tensor] | None"
_STATE = "ema_"


def prepare(module: AdapterModule, weight: Weights, bias: Tensor | None) -> None:
    """Give a module with updates the buffers for their state, zero: found by one step with zero gradients."""
    if not module.has_updates:
        return
    gradients = {name: torch.zeros_like(tensor) for name, tensor in module.tensors.items()}
    outcome = updates.update([updates.Site(meaning(module, weight, bias), gradients, {})], 0)[0]
    for name, value in outcome.state.items():
        if not name.startswith(_STATE):
            raise AssertionError(f"state {name} does not begin with {_STATE}")
        module.register_buffer(name, torch.zeros_like(value))


def meaning(module: AdapterModule, weight: Weights, bias: Tensor | None) -> updates.Reference:
    """The module's program read literally, with its tensors of now."""
    return module._reference(weight, bias)  # pyright: ignore[reportPrivateUsage]


def state_of(module: AdapterModule) -> dict[str, Tensor]:
    """The moving averages that a module keeps."""
    return {name: tensor for name, tensor in module.named_buffers() if name.startswith(_STATE)}


def step(places: Sequence[tuple[AdapterModule, Weights, Tensor | None]], number: int) -> None:
    """Run the updates of one adapter at all its sites, for step ``number``; E511 when a gradient is missing."""
    given: list[updates.Site] = []
    for module, weight, bias in places:
        gradients = {name: tensor.grad for name, tensor in module.tensors.items() if tensor.grad is not None}
        if not gradients:
            raise refuse("E511", f"{module.adapter.name} has no gradients to update from",
                         suggestion="call padp.update(model) between loss.backward() and the optimiser's step")
        given.append(updates.Site(meaning(module, weight, bias), gradients, state_of(module)))
    with torch.no_grad():
        for (module, _, _), outcome in zip(places, updates.update(given, number), strict=True):
            for name, value in outcome.values.items():
                cast(nn.Parameter, module.tensors[name]).copy_(value)
            for name, value in outcome.state.items():
                module.get_buffer(name).copy_(value)
            module.drop_cache()
