"""Merging: the active adapters go into the base's weights, and come out again bit for bit."""

from __future__ import annotations

from collections import defaultdict
from typing import TypeAlias, TypeVar

from torch import Tensor, nn

from padp.compiler.module.ambient import at_rest
from padp.compiler.module.site import LinearSite
from padp.compiler.module.weights import is_lazy, stored_as, why_unreadable
from padp.dsl.diagnostics import refuse
from padp.models.attention import HeadProjection
from padp.models.hidden import HiddenSite
from padp.models.record import holder
from padp.models.saved import saved_modules
from padp.models.walk import inside, sites, walk

Model = TypeVar("Model", bound=nn.Module)
Mergeable: TypeAlias = LinearSite | HeadProjection


@at_rest()
def merge(model: Model, *, keep_on_cpu: bool = False) -> Model:
    """Put the active adapters of every site into the base's weights: the merged forward is the base's own.

    Computed in at least float32 and refused when not finite. What the weights were is kept until ``unmerge`` (on the
    CPU if asked). All or nothing: E504 when a site cannot merge, E509 when a weight is tied to another module.
    """
    root = holder(model)
    parts = mergeables(root)
    merged = [part for part in parts if part.merged]
    if merged:
        raise refuse("E504", f"{merged[0].path} is merged already", suggestion="padp.unmerge(model) first")
    for site in sites(root):
        if isinstance(site, HiddenSite) and site.in_use():
            raise refuse("E504", f"{site.path}: what edits hidden states at chosen tokens is no change of a weight",
                         suggestion="padp.activate the other adapters only, or keep the model unmerged")
    ready = [part for part in parts if acts(part)]
    if not ready:
        raise refuse("E504", "no adapter is active, so there is nothing to merge",
                     suggestion="padp.activate(model, name)")
    for part in ready:
        reason = why_unreadable(part.base)
        if reason is not None:
            raise refuse("E504", f"{part.path}: {reason}, so there is nothing to merge into",
                         suggestion="keep the model unmerged")
    refuse_tied(root, ready)
    try:
        for part in ready:
            part.merge(keep_on_cpu)
    except BaseException:
        for part in ready:
            part.unmerge()
        raise
    for saved in saved_modules(root):
        saved.merge()
    return model


def unmerge(model: Model) -> Model:
    """Put the base's weights back, bit for bit. E504 when nothing is merged."""
    root = holder(model)
    parts = [part for part in mergeables(root) if part.merged]
    if not parts:
        raise refuse("E504", "nothing is merged")
    for part in parts:
        part.unmerge()
    for saved in saved_modules(root):
        saved.unmerge()
    return model


def mergeables(model: nn.Module) -> list[Mergeable]:
    """The parts of a model that hold a weight into which an attached adapter can be merged."""
    return [part for _, part in walk(model) if isinstance(part, (LinearSite, HeadProjection)) and part.path]


def refuse_merged(model: nn.Module, what: str) -> None:
    """E511 while an adapter is merged into the model."""
    merged = [part.path for part in mergeables(model) if part.merged]
    if merged:
        raise refuse("E511", f"{what} is refused while adapters are merged ({merged[0]} is)",
                     suggestion="padp.unmerge(model) first")


def acts(part: Mergeable) -> bool:
    """Whether an adapter acts there now."""
    if isinstance(part, LinearSite):
        return bool(part.in_use())
    return part.role in part.site.maps()


def refuse_tied(model: nn.Module, parts: list[Mergeable]) -> None:
    """E509, with both names, when a weight or bias that is to change is another module's too."""
    owners: defaultdict[tuple[int, int], list[tuple[str, nn.Module]]] = defaultdict(list)
    for path, module in model.named_modules():
        tensors = [t for t in inside(module, "_parameters").values() if t is not None]
        if tensors and not is_lazy(module) and stored_as(module) is None:
            for tensor in tensors:
                if not tensor.is_meta:
                    owners[_memory(tensor)].append((path, module))
    for part in parts:
        for tensor in part.base.parameters(recurse=False):
            if tensor.is_meta:
                continue
            others = [path for path, module in owners[_memory(tensor)] if module is not part.base]
            if others:
                other = others[0].removesuffix(".base")
                raise refuse("E509", f"{part.path} is not merged: it is tied to {other}, which would change too",
                             suggestion="leave it out with exclude=, or untie the two before attaching")


def _memory(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor lies: equal for tied ones, also for different parameters on one memory."""
    return tensor.untyped_storage().data_ptr(), int(tensor.storage_offset())
