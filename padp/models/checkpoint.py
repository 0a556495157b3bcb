"""Saving an adapter with all it needs (program, settings, tensors, frozen ones too) and putting it on a model again.

A checkpoint is checked whole before the model is touched. Nothing is computed anew from the model's weights: results of
an SVD and random tensors come from the file, so that outputs are the same bit for bit.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

from padp.compiler.module.ambient import at_rest
from padp.compiler.module.shared import SharedStore
from padp.dsl.diagnostics import PadpError, refuse
from padp.models.attaching import check_name, commit, planned
from padp.models.building import remade, shared_of
from padp.models.files import dtype_name, write
from padp.models.merging import refuse_merged
from padp.models.owners import refuse_wrapped
from padp.models.places import Kind, Place, place
from padp.models.record import Attached, holder, named, record_of, refuse_nested, sites_of
from padp.models.saved import copied, saved_modules
from padp.models.sizing import same_sizes, sizes_at
from padp.models.stored import FORMAT, Stored, finite, key_of, read_stored
from padp.models.walk import walk
from padp.version import VERSION

if TYPE_CHECKING:
    from padp.compiler.adapter import Settings
    from padp.compiler.module.module import AdapterModule

Model = TypeVar("Model", bound=nn.Module)


def save(model: nn.Module, directory: str | PathLike[str], name: str | None = None) -> None:
    """Write an adapter of a model (the only one, or the one called ``name``) to a directory.

    ``adapter.json`` holds the program, settings, knobs, steps and versions, ``adapter.safetensors`` every tensor;
    shared ones once. Writing over an older checkpoint leaves the old one or the new one, whatever happens. E510 for a
    name that is not attached, E511 for tensors without values or with nan, E505 for what the file system refuses.
    """
    root = holder(model)
    one = named(record_of(root), name)
    sites = {path: site.module(one.name) for path, site in sites_of(root, one.name).items()}
    shared = shared_of(root)
    tensors: dict[str, Tensor] = {}
    for path, module in sites.items():
        tensors.update({key_of("sites", path, key): tensor for key, tensor in own_state(module).items()})
        tensors.update({f"shared/{key}": shared.tensors[key] for key in module.shared.values()})
    for saved in saved_modules(root):
        if one.name in saved.copies:
            state = saved.copies[one.name].state_dict()
            tensors.update({key_of("modules", saved.path, key): tensor for key, tensor in state.items()})
    empty = [key for key, tensor in tensors.items() if tensor.is_meta]
    if empty:
        raise refuse("E511", f"{one.name} is not saved: {empty[0]} is on the meta device and has no values",
                     suggestion="load the model's weights and attach to that")
    infinite = [key for key, tensor in tensors.items() if not finite(key, tensor)]
    if infinite:
        raise refuse("E511", f"{one.name} is not saved: {infinite[0]} holds nan or inf ({len(infinite)} tensors)",
                     suggestion="a training that diverged is begun again from what was saved last")
    write(Path(directory), describe(root, one, sites), tensors)


def own_state(module: AdapterModule) -> dict[str, Tensor]:
    """What is stored for a site: everything in the module's state but shared tensors."""
    return {key: tensor for key, tensor in module.state_dict().items() if key not in module.shared}


def describe(model: nn.Module, one: Attached, sites: Mapping[str, AdapterModule]) -> dict[str, Any]:
    """The content of ``adapter.json``."""
    adapter = one.adapter
    return {
        "format": "padp",
        "number": FORMAT,
        "versions": {"padp": VERSION, "torch": torch.__version__, "python": platform.python_version()},
        "model": {"class": type(model).__name__,
                  "name": str(getattr(getattr(model, "config", None), "_name_or_path", ""))},
        "name": one.name,
        "adapter": {"name": adapter.name, "title": adapter.title, "site": adapter.site, "hash": adapter.hash,
                    "source": adapter.source.name, "program": adapter.source.text},
        "sites": {path: {"variant": module.variant, "hyper": dict(module.hyper), "knobs": dict(module.knobs),
                         "sizes": dict(module.sizes), **_dtypes(module)}
                  for path, module in sites.items()},
        "modules_to_save": list(one.saved),
        "dropout": one.dropout,
        "seed": one.seed,
        "dtype": None if one.dtype is None else dtype_name(one.dtype),
        "steps": one.steps,
    }


def _dtypes(module: AdapterModule) -> dict[str, Any]:
    """The precision of a site; and by name that of tensors of another one."""
    own = module.like.dtype
    others = {key: dtype_name(tensor.dtype) for key, tensor in module.state_dict().items()
              if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype != own}
    return {"dtype": dtype_name(own), **({"dtypes": others} if others else {})}


# ---------------------------------------------------------------- loading


@at_rest()
def load(model: Model, directory: str | PathLike[str], name: str | None = None, *, active: bool = True) -> Model:
    """Put a saved adapter on a model, in place, and return the model; ``name`` may be another than it was saved under.

    E505, with cause and remedy, for files that are missing, truncated, foreign or changed, and for a model that does
    not fit; E511 for a name that is taken. The model is then as it was.
    """
    record = record_of(model)
    refuse_wrapped(model)
    refuse_nested(model)
    stored = read_stored(Path(directory))
    name = stored.name if name is None else name
    check_name(record, name)
    refuse_merged(model, "loading")
    places = places_for(model, stored)
    device = places[0].device if places else torch.device("cpu")
    shared = with_stored(shared_of(model), stored, device)
    settings: dict[str, Settings] = {}
    modules: dict[str, AdapterModule] = {}
    for each in places:
        site = stored.sites[each.path]
        with stored.blamed(f"what adapter.json says of {each.path} does not fit its program"):
            settings[each.path] = stored.adapter.settings(site.variant, **site.hyper)
        with stored.blamed(f"the tensors of {each.path} are not those of its program"):
            module = remade(each, stored.adapter, settings[each.path], stored.of("sites", each.path),
                            dtype=site.dtype, dropout=stored.dropout, seed=stored.seed, shared=shared)
            refuse_other_dtypes(module, site.dtype, site.dtypes)
            for knob, value in site.knobs.items():
                module.set_knobs({knob: value})
            said, made = ((about.variant, dict(about.hyper), dict(about.knobs), dict(about.sizes))
                          for about in (site, module))
            if said != made:
                raise ValueError(f"it says {said} and the program makes {made} of it")
        modules[each.path] = module
    refuse_other_shared(stored, modules.values())
    copies = {path: _loaded_copy(model, path, stored) for path in stored.saved}
    one = Attached(name, stored.adapter, settings, stored.saved, stored.dropout, stored.seed, stored.dtype,
                   stored.steps)
    commit(model, planned(model, one, places, modules, copies, active), shared)
    return model


def places_for(model: nn.Module, stored: Stored) -> list[Place]:
    """The places of the stored sites in this model; E505 when some are missing or have other sizes."""
    every = dict(walk(model))
    lost = [path for path in (*stored.sites, *stored.saved) if path not in every]
    if lost:
        raise stored.wrong(f"this {type(model).__name__} has no {_some(lost)}; it was saved from a {stored.model}",
                           "load it on the model that it was trained on, built the same way")
    try:
        places = list(place(cast(Kind, stored.adapter.site), model, list(stored.sites)))
    except PadpError as error:
        if error.diagnostics[0].code != "E502":
            raise
        raise stored.wrong(f"this model does not fit: {error.diagnostics[0].message}",
                           "load it on the model that it was trained on") from None
    sizes: dict[str, dict[str, int]] = {}
    for each in places:
        with stored.blamed(f"what adapter.json says of {each.path} does not fit its program or this model"):
            sizes[each.path] = sizes_at(stored.adapter.method(stored.sites[each.path].variant), each)
    other = [each for each in places if not same_sizes(sizes[each.path], stored.sites[each.path].sizes)]
    if other:
        first = other[0]
        had = {name: stored.sites[first.path].sizes.get(name) for name in sizes[first.path]}
        raise stored.wrong(f"{first.path} has {_show(sizes[first.path])} here and had {_show(had)} when it was saved "
                           f"({len(other)} sites differ)", "load it on the model that it was trained on")
    return places


def with_stored(shared: SharedStore, stored: Stored, device: torch.device) -> SharedStore:
    """The model's shared tensors with the checkpoint's; equal ones are not held twice."""
    store = shared.fork()
    for key, tensor in stored.of("shared").items():
        here = store.tensors.get(key)
        if here is None:
            store.tensors[key] = nn.Parameter(tensor.to(device), requires_grad=False)
        elif here.shape != tensor.shape or not torch.equal(here.cpu(), tensor):
            raise stored.wrong(f"the model holds the shared tensor {key} as {tuple(here.shape)}, the checkpoint has "
                               f"another one, of {tuple(tensor.shape)}", "detach the adapter that uses it first")
    return store


def refuse_other_dtypes(module: AdapterModule, dtype: torch.dtype, others: Mapping[str, torch.dtype]) -> None:
    """ValueError for a tensor whose precision is neither the site's nor the one that is said of it."""
    declared = {module.names[name] for name in module.compiled.parameters}
    for key, tensor in module.state_dict().items():
        if not (tensor.is_floating_point() or tensor.is_complex() or key in declared):
            continue  # whole numbers are asked for when they are loaded
        real = tensor.is_floating_point() or key in declared  # what is declared is real; what is kept may be complex
        if tensor.dtype != others.get(key, dtype if real else tensor.dtype):
            raise ValueError(f"{key} is {dtype_name(tensor.dtype)} in a site of {dtype_name(dtype)}")


def refuse_other_shared(stored: Stored, modules: Iterable[AdapterModule]) -> None:
    """E505 when the shared tensors of a checkpoint are not those that its sites use."""
    used, there = {key for module in modules for key in module.shared.values()}, set(stored.of("shared"))
    for key in sorted(used - there):
        raise stored.wrong(f"it lacks the shared tensor {key}", "copy both files again from where they were saved")
    for key in sorted(there - used):
        raise stored.wrong(f"it holds the shared tensor {key}, which no site uses",
                           "copy both files again from where they were saved")


def _loaded_copy(model: nn.Module, path: str, stored: Stored) -> nn.Module:
    """The saved copy of a whole module; E505 for what this model's cannot hold without loss."""
    copy, tensors = copied(model, path, stored.sites), stored.of("modules", path)
    fits = "load it on the model that it was trained on"
    for key, own in copy.state_dict().items():
        kept = tensors[key].dtype if key in tensors else own.dtype
        if kept != own.dtype and (torch.promote_types(kept, own.dtype) != own.dtype
                                  or kept.is_floating_point != own.dtype.is_floating_point):
            raise stored.wrong(f"{path}.{key} was saved as {dtype_name(kept)}, and this model has "
                               f"{dtype_name(own.dtype)} there", f"{fits}, or change its precision after loading")
    try:
        copy.load_state_dict(tensors)
    except RuntimeError as error:
        raise stored.wrong(f"the saved module {path} does not fit this model's: {error}", fits) from None
    return copy


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _show(sizes: Mapping[str, int | None]) -> str:
    return ", ".join(f"{name} = {size}" for name, size in sizes.items())
