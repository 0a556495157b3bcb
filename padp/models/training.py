"""What a training loop calls: loss terms, updates after backward, knobs, the parameters to train."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from padp.compiler.literal import updates
from padp.compiler.module.site import LinearSite, Site
from padp.compiler.sizes.settings import number
from padp.dsl.diagnostics import refuse
from padp.dsl.spellings import glyph_name
from padp.models.attention import AttentionSite
from padp.models.merging import refuse_merged
from padp.models.record import holder, named, record_of, sites_of, store
from padp.models.reminders import have_run, remind_of
from padp.models.saved import saved_modules
from padp.models.walk import sites

if TYPE_CHECKING:
    from padp.compiler.module.module import AdapterModule


def penalty(model: nn.Module) -> Tensor:
    """The sum of what the active adapters minimise beside the loss, over all sites; 0 when they minimise nothing.

    While merged it is what it was before; E511 where an attention's term reads the weights that it is merged into.
    """
    acting = [(module, site) for site in sites(holder(model)) for module in site.in_use()]
    terms = [term for module, site in acting
             if (term := module.penalty(*_base_of(site))) is not None]
    if not terms:
        return torch.zeros((), device=next((p.device for p in model.parameters()), None))
    total = terms[0]
    for term in terms[1:]:
        total = total + term.to(total.device)
    return total


def _base_of(site: Site) -> tuple[nn.Module | None, dict[str, Tensor] | None]:
    """The layer of a linear site; the weights of an attention by name."""
    match site:
        case LinearSite():
            return site.unmerged, None
        case AttentionSite():
            if site.merged and any(module.compiled.penalty is not None for module in site.in_use()):
                raise refuse("E511", f"{site.path} is merged, and what it minimises would read the merged weights",
                             suggestion="padp.unmerge(model) first")
            return None, site.attention.tensors()
        case _:
            return None, None


def update(model: nn.Module) -> None:
    """Run the ``after backward`` rules of the active adapters, once for all sites of an adapter, and count the step.

    To be called after the optimiser's step and before the gradients are cleared, as in the algorithms it is for:
    ``loss.backward(); optimiser.step(); padp.update(model); optimiser.zero_grad()``. Called before the step it works
    too, but then the step moves what the rules have just set (AdaLoRA's pruned values). E511 while merged.
    """
    model = holder(model)
    refuse_merged(model, "updating adapters")
    record = record_of(model)
    for name in record.active:
        one = record.attached[name]
        modules = [module for site in sites_of(model, name).values() if (module := site.module(name)).has_updates]
        if modules:
            updates.update(modules, one.steps)
            have_run(modules)
            for module in modules:
                module.drop_cache()
        record = record.with_attached(replace(one, steps=one.steps + 1))
    store(model, record)


def set_knobs(model: nn.Module, name: str | None = None, **knobs: float) -> None:
    """Give knobs a new value at every site of the adapters that have them (or of the one called ``name``).

    Greek or ASCII: ``padp.set(model, α=-1)`` is ``padp.set(model, alpha=-1)``. A layer that is called meanwhile sees
    all of them or none. E510 for a knob that no adapter has, E511 while merged; then nothing changed.
    """
    model = holder(model)
    record = record_of(model)
    refuse_merged(model, "setting a knob")
    names = list(record.attached) if name is None else [named(record, name).name]
    modules = [module for each in names for site in sites_of(model, each).values() if (module := site.module(each))]
    todo: dict[AdapterModule, dict[str, float]] = {}
    for knob, value in knobs.items():
        value = number(knob, value)
        having = [(module, known) for module in modules if (known := knob_of(module, knob)) is not None]
        if not having:
            there = sorted({known for module in modules for known in module.knobs})
            raise refuse("E510", f"no attached adapter has a knob called {knob}",
                         suggestion=f"there are: {', '.join(there)}" if there else "none of them has any knob")
        for module, known in having:
            todo.setdefault(module, {})[known] = value
    for each in names:
        for site in sites_of(model, each).values():
            site.switched = True
    for module, values in todo.items():
        module.set_knobs(values)


def knob_of(module: AdapterModule, name: str) -> str | None:
    """The knob that a name means, as the module calls it; None when it has no such knob."""
    return next((knob for knob in module.knobs if glyph_name(knob) == glyph_name(name)), None)


def trainable(model: nn.Module, name: str | None = None) -> Iterator[nn.Parameter]:
    """The parameters that an adapter trains, its saved modules' included; of all active adapters with no name."""
    model = holder(model)
    record = record_of(model)
    names = list(record.active) if name is None else [named(record, name).name]
    for each in names:
        for site in sites_of(model, each).values():
            remind_of([site.module(each)])
            yield from site.learned(each)
        for module in saved_modules(model):
            if each in module.copies:
                yield from module.copies[each].parameters()
