"""Starting an adapter anew, from the base as it is now: after ``to_empty``, or after other weights were put in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from padp.compiler.module.ambient import at_rest
from padp.compiler.module.module import AdapterModule
from padp.compiler.module.shared import SharedStore
from padp.compiler.module.weights import is_offloaded
from padp.dsl.diagnostics import refuse
from padp.models.building import at, built, given, keep_shared, shared_of
from padp.models.merging import refuse_merged
from padp.models.places import Place, place
from padp.models.record import Attached, holder, named, record_of, sites_of, store
from padp.models.saved import SavedModule, copied, saved_modules
from padp.models.sizing import sizes_at

Model = TypeVar("Model", bound=nn.Module)


@at_rest()
def restart(model: Model, name: str | None = None) -> Model:
    """Start an adapter (all of them, with no name) anew: every tensor as if it were attached now, knobs and the count
    of steps too, and saved modules as copies of what the base has now. Returns the model.

    For a model that was built on the meta device: attach, ``to_empty``, load the base's weights, restart. Parameters
    that have values stay the same objects, so an optimiser goes on with them. E510 for a name that is not attached,
    E511 while merged or while the base has no values; then nothing changed.
    """
    root = holder(model)
    refuse_merged(root, "starting an adapter anew")
    record = record_of(root)
    wanted = [named(record, name)] if name is not None else list(record.attached.values())
    places = {one.name: list(place(one.kind, root, list(sites_of(root, one.name)))) for one in wanted}
    for found in places.values():
        _refuse_empty(found)
    shared = _shared(root, wanted, places)
    fresh = {(one.name, each.path): built(each, one.adapter, one.settings[each.path],
                                          dtype=sites_of(root, one.name)[each.path].module(one.name).like.dtype,
                                          dropout=one.dropout, seed=one.seed, shared=shared)
             for one in wanted for each in places[one.name]}
    copies = {(one.name, path): copied(root, path) for one in wanted for path in one.saved}
    for one in wanted:
        for each in places[one.name]:
            module = sites_of(root, one.name)[each.path].module(one.name)
            take(module, fresh[one.name, each.path])
            module.belongs_to(*given(each))
    for saved in saved_modules(root):
        for key in saved.copies:
            if (key, saved.path) in copies:
                _take_copy(saved, key, copies[key, saved.path])
    keep_shared(root, shared)
    for one in wanted:
        record = record.with_attached(replace(one, steps=0))
    store(root, record)
    return model


def _refuse_empty(places: list[Place]) -> None:
    for each in places:
        bases = [each.base] if each.kind == "linear" else [each.attention.projection(role) for role in "qkvo"] \
            if each.attention is not None else []
        if each.device.type == "meta" or any(p.is_meta for base in bases if not is_offloaded(base)
                                             for p in base.parameters(recurse=False)):
            raise refuse("E511", f"{each.path} is on the meta device and has no values to start from",
                         suggestion="load the model's weights first")


def _shared(model: nn.Module, wanted: list[Attached], places: Mapping[str, list[Place]]) -> SharedStore:
    """The model's shared tensors; those without values are made again, as large as they were."""
    old = shared_of(model)
    used = {id(p) for p in model.parameters()}
    new = SharedStore({key: tensor for key, tensor in old.tensors.items() if not tensor.is_meta and id(tensor) in used})
    for one in wanted:
        for each in places[one.name]:
            settings = one.settings[each.path]
            with at(each):
                sizes = sizes_at(one.adapter.method(settings.variant), each)
                shapes = one.adapter.shared_shapes(sizes, settings.variant, settings.hyper)
            for key, shape in shapes.items():
                new.reserve(key, tuple(old.tensors[key].shape) if key in old.tensors else shape, each.path)
    return new


def take(old: AdapterModule, new: AdapterModule) -> None:
    """Let ``old`` hold what ``new`` does; its parameters stay the same objects where they can."""
    with torch.no_grad():
        for key, tensor in new._parameters.items():  # pyright: ignore[reportPrivateUsage]
            here = old._parameters[key]  # pyright: ignore[reportPrivateUsage]
            if here is None or tensor is None or key in new.shared or here.is_meta or here.is_inference() \
                    or (here.dtype, here.device, here.shape) != (tensor.dtype, tensor.device, tensor.shape):
                if here is not None and tensor is not None:
                    tensor.requires_grad_(here.requires_grad)
                old._parameters[key] = tensor  # pyright: ignore[reportPrivateUsage]
            else:
                here.copy_(tensor)
                here.grad = None
        for key, buffer in new._buffers.items():  # pyright: ignore[reportPrivateUsage]
            old._buffers[key] = buffer  # pyright: ignore[reportPrivateUsage]
    old.shared = dict(new.shared)
    old.knobs = dict(new.knobs)
    old.unstarted = new.unstarted
    old.drop_cache()


def _take_copy(saved: SavedModule, name: str, copy: nn.Module) -> None:
    here = saved.copies[name]
    if any(t.is_meta for t in (*here.parameters(), *here.buffers())):
        for (_, old), (_, new) in zip(here.named_parameters(), copy.named_parameters(), strict=True):
            new.requires_grad_(old.requires_grad)
        saved.copies[name] = copy.train(here.training)
    else:
        here.load_state_dict(copy.state_dict())
