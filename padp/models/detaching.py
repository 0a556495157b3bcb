"""Taking adapters off a model: its own modules come back, the very same objects, with the flags that they had."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from padp.compiler.module.reloading import unfollow
from padp.compiler.module.site import LinearSite, StandIn
from padp.compiler.module.weights import find_offloaded
from padp.dsl.diagnostics import refuse
from padp.models.attention import AttentionSite
from padp.models.building import keep_shared, shared_of
from padp.models.fast_paths import turn_on
from padp.models.hidden import HiddenSite
from padp.models.merging import mergeables, refuse_merged
from padp.models.reading import PromptReader
from padp.models.record import Record, holder, named, record_of, sites_of, store
from padp.models.saved import saved_modules
from padp.models.states import forget_states
from padp.models.uncalled import unwatch
from padp.models.walk import inside, put_in_place, sites, walk

Model = TypeVar("Model", bound=nn.Module)


def detach(model: Model, name: str | None = None, *, keep_merged: bool = False) -> Model:
    """Take an adapter (all of them, with no name) off the model; where none is left the model's own modules are put
    back, the very same objects, and what required a gradient before requires it again.

    A merged model is unmerged first, unless ``keep_merged``: then the new weights stay (all adapters go), those of
    modules that were trained whole too.
    E510 when it is not attached, E511 to keep merged weights of a model that is not merged.
    """
    root = holder(model)
    record = record_of(root)
    names = [named(record, name).name] if name is not None else list(record.attached)
    mergeable = mergeables(root)
    if keep_merged:
        if len(names) < len(record.attached):
            raise refuse("E511", "keep_merged takes every adapter off, because merged weights hold them all",
                         suggestion="padp.detach(model, keep_merged=True)")
        if not any(part.merged for part in mergeable):
            raise refuse("E511", "keep_merged: nothing is merged", suggestion="padp.merge(model) first")
    elif name is not None:
        refuse_merged(root, "detaching one adapter")
    for part in (*mergeable, *saved_modules(root)):
        if keep_merged:
            part.keep_merged()
        else:
            part.unmerge()
    for each in names:
        _remove(root, each)
    return model


def _remove(model: nn.Module, name: str) -> None:
    """Take one adapter off and put back what nothing stands in for any more."""
    back: list[tuple[nn.Module, nn.Module]] = []
    plain: list[LinearSite] = []
    every = dict(walk(model))
    for path, site in sites_of(model, name).items():
        site.remove(name)
        if len(site.adapters):
            continue
        match site:
            case LinearSite():
                plain.append(site)
                back.append((site, site.base))
                unfollow(site.base, site)
            case HiddenSite():
                site.take_off(every[path])
            case AttentionSite():
                site.take_off(model)
            case _:
                raise AssertionError(f"no such site: {site.kind}")
    unwatch(plain)
    for module in saved_modules(model):
        if name in module.copies:
            module.remove(name)
            if not len(module.copies):
                back.append((module, module.original))
    for stand, own in back:
        if isinstance(stand, StandIn):
            find_offloaded(own, stand.path, stand.inside)
    put_in_place(model, back)
    _finish(model, record_of(model).without(name))


def _finish(model: nn.Module, record: Record) -> None:
    """Store the record; when no adapter is left, leave the model as it was before the first."""
    store(model, record)
    keep_shared(model, shared_of(model).kept(model.parameters()))
    if not any(isinstance(site, HiddenSite) for site in sites(model)):
        for module in model.modules():
            for hook in list(inside(module, "_forward_pre_hooks").values()):
                reader = getattr(hook, "__self__", None)
                if isinstance(reader, PromptReader):
                    reader.forget(model)
    if not record.attached:
        forget_states(model)
        turn_on(model, record.nested)
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name in record.required_grad
