"""Who owns the modules of a model: another model's adapters on shared modules, and wrappers that have taken the
parameters into account, are found before anything is changed."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import torch
from torch import nn

from padp.compiler.module.site import Site
from padp.dsl.diagnostics import refuse
from padp.models.saved import SavedModule
from padp.models.walk import walk

_WRAPPERS = {"DistributedDataParallel": "DistributedDataParallel", "DataParallel": "DataParallel",
             "FullyShardedDataParallel": "FullyShardedDataParallel", "FSDPModule": "fully_shard",
             "OptimizedModule": "torch.compile", "DeepSpeedEngine": "DeepSpeed", "PipelineStage": "pipelining"}


class Key:
    """What the parts of one model's adapters have in common: a copy of the model has another."""


def wrapper(module: nn.Module) -> str | None:
    """What has wrapped a module, by name; None for a module of its own."""
    for kind in type(module).__mro__:
        if kind.__name__ in _WRAPPERS and kind.__module__.startswith(("torch.", "deepspeed.")):
            return _WRAPPERS[kind.__name__]
    return None


def refuse_wrapped(model: nn.Module) -> None:
    """E511 when the model, or a part of it, is wrapped already: the wrapper would not know of new parameters."""
    own = wrapper(model)
    if own is not None:
        raise refuse("E511", f"the model is wrapped by {own}, which would not know of the adapter's parameters",
                     suggestion="attach to the model inside first, and wrap it then")
    for path, part in model.named_modules():
        inner = wrapper(part)
        if inner is not None and inner != "torch.compile":
            raise refuse("E511", f"{path}, a part of this model, is wrapped by {inner}, which would not know of the "
                         "adapter's parameters", suggestion="attach first, and wrap it then")
    for outer in _around():
        if any(part is model for part in outer.modules()):
            raise refuse("E511", f"this model is inside {wrapper(outer)} already, which would not know of the "
                         "adapter's parameters: processes would drift apart",
                         suggestion="attach first, and wrap the model then")


def _around() -> Iterator[nn.Module]:
    """All wrappers of this process that synchronise gradients. They exist only beside a process group."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    for thing in gc.get_objects():
        kind = type(thing)
        if kind.__name__ in ("DistributedDataParallel", "FullyShardedDataParallel") and isinstance(thing, nn.Module):
            yield thing


def foreign(model: nn.Module, key: object) -> str | None:
    """The path of a part that another model's adapters brought; None when there is none."""
    for path, part in walk(model):
        if isinstance(part, (Site, SavedModule)) and part.path and part.owner is not key:
            return path
    return None


def refuse_foreign(model: nn.Module, key: object) -> None:
    """E511 when adapters sit in the model that were attached through another one, with which it shares modules."""
    path = foreign(model, key)
    if path is not None:
        raise refuse("E511", f"{path} has an adapter that was attached through another model, which shares this module",
                     suggestion="padp.detach that model first, or call this with that model")
