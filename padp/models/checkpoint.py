"""Saving an adapter with all it needs (program, settings, tensors, frozen ones too) and putting it on a model again.

A checkpoint is checked whole before the model is touched. Nothing is computed anew from the model's weights: results of
an SVD and random tensors come from the file, so that outputs are the same bit for bit.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

import padp
from padp.compiler.adapter import Adapter
from padp.compiler.check import require
from padp.compiler.shared import SharedStore
from padp.dsl.diagnostics import PadpError, refuse
from padp.dsl.source import Source
from padp.models.attaching import check_name, commit, planned
from padp.models.building import remade, shared_of
from padp.models.files import dtype_name, read, write, wrong
from padp.models.merging import refuse_merged
from padp.models.places import Kind, Place, place
from padp.models.record import Attached, holder, named, record_of, refuse_nested, sites_of
from padp.models.saved import copied, saved_modules
from padp.models.sizing import same_sizes, sizes_at
from padp.models.walk import walk

if TYPE_CHECKING:
    from padp.compiler.adapter import Settings
    from padp.compiler.module import AdapterModule

FORMAT = 1
_ANEW = "save it anew, or load it with the version of padp that wrote it"
Model = TypeVar("Model", bound=nn.Module)


def save(model: nn.Module, directory: str | PathLike[str], name: str | None = None) -> None:
    """Write an adapter of a model (the only one, or the one called ``name``) to a directory.

    ``adapter.json`` holds the program, settings, knobs, steps and versions, ``adapter.safetensors`` every tensor;
    shared ones once. Writing over an older checkpoint leaves the old one or the new one, whatever happens. E510 for a
    name that is not attached, E511 for tensors without values.
    """
    root = holder(model)
    one = named(record_of(root), name)
    sites = {path: site.module(one.name) for path, site in sites_of(root, one.name).items()}
    shared = shared_of(root)
    tensors: dict[str, Tensor] = {}
    for path, module in sites.items():
        tensors.update({f"sites/{path}/{key}": tensor for key, tensor in own_state(module).items()})
        tensors.update({f"shared/{key}": shared.tensors[key] for key in module.shared.values()})
    for saved in saved_modules(root):
        if one.name in saved.copies:
            state = saved.copies[one.name].state_dict()
            tensors.update({f"modules/{saved.path}/{key}": tensor for key, tensor in state.items()})
    empty = [key for key, tensor in tensors.items() if tensor.is_meta]
    if empty:
        raise refuse("E511", f"{one.name} is not saved: {empty[0]} is on the meta device and has no values",
                     suggestion="load the model's weights and attach to that")
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
        "versions": {"padp": padp.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "model": {"class": type(model).__name__, "name": getattr(getattr(model, "config", None), "_name_or_path", "")},
        "name": one.name,
        "adapter": {"name": adapter.name, "title": adapter.title, "site": adapter.site, "hash": adapter.hash,
                    "source": adapter.source.name, "program": adapter.source.text},
        "sites": {path: {"variant": module.variant, "hyper": dict(module.hyper), "knobs": dict(module.knobs),
                         "sizes": dict(module.sizes), "dtype": dtype_name(_dtype(module))}
                  for path, module in sites.items()},
        "modules_to_save": list(one.saved),
        "dropout": one.dropout,
        "seed": one.seed,
        "dtype": None if one.dtype is None else dtype_name(one.dtype),
        "steps": one.steps,
    }


def _dtype(module: AdapterModule) -> torch.dtype:
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


# ---------------------------------------------------------------- loading


@dataclass(frozen=True)
class StoredSite:
    """A site as ``adapter.json`` has it."""

    variant: str | None
    hyper: dict[str, Any]
    knobs: dict[str, Any]
    sizes: dict[str, int]
    dtype: torch.dtype


@dataclass(frozen=True)
class Stored:
    """A checkpoint that was read and is whole in itself."""

    directory: Path
    adapter: Adapter
    name: str
    model: str
    sites: dict[str, StoredSite]
    saved: tuple[str, ...]
    dropout: float
    seed: int
    dtype: torch.dtype | None
    steps: int
    tensors: dict[str, Tensor]

    def wrong(self, cause: str, remedy: str) -> PadpError:
        """E505 about this checkpoint."""
        return wrong(self.directory, cause, remedy)

    @contextmanager
    def blamed(self, what: str) -> Generator[None, None, None]:
        """What fails in here is this file's fault: E505, with what was found."""
        try:
            yield
        except PadpError as error:
            found = error.diagnostics[0]
            raise self.wrong(f"{what}: {found.message} ({found.code})", _ANEW) from None
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise self.wrong(f"{what}: {error}", _ANEW) from None

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose key begins so, without the prefix."""
        return {key.removeprefix(prefix): tensor for key, tensor in self.tensors.items() if key.startswith(prefix)}


def load(model: Model, directory: str | PathLike[str], name: str | None = None, *, active: bool = True) -> Model:
    """Put a saved adapter on a model, in place, and return the model; ``name`` may be another than it was saved under.

    E505, with cause and remedy, for files that are missing, truncated, foreign or changed, and for a model that does
    not fit; E511 for a name that is taken. The model is then as it was.
    """
    record = record_of(model)
    refuse_nested(model)
    stored = read_stored(Path(directory))
    name = stored.name if name is None else name
    check_name(record, name)
    refuse_merged(model, "loading")
    places = places_for(model, stored)
    device = places[0].like.device if places else torch.device("cpu")
    shared = with_stored(shared_of(model), stored, device)
    settings: dict[str, Settings] = {}
    modules: dict[str, AdapterModule] = {}
    for each in places:
        site = stored.sites[each.path]
        with stored.blamed(f"what adapter.json says of {each.path} does not fit its program"):
            settings[each.path] = stored.adapter.settings(site.variant, **site.hyper)
        with stored.blamed(f"the tensors of {each.path} are not those of its program"):
            module = remade(each, stored.adapter, settings[each.path], stored.under(f"sites/{each.path}/"),
                            dtype=site.dtype, dropout=stored.dropout, seed=stored.seed, shared=shared)
            for knob, value in site.knobs.items():
                module.set_knob(knob, value)
        modules[each.path] = module
    copies = {path: _loaded_copy(model, path, stored) for path in stored.saved}
    one = Attached(name, stored.adapter, settings, stored.saved, stored.dropout, stored.seed, stored.dtype,
                   stored.steps)
    commit(model, planned(model, one, places, modules, copies, active), shared)
    return model


def read_stored(directory: Path) -> Stored:
    """Read a checkpoint and check all that can be checked without a model; E505."""
    description, tensors = read(directory)
    if description.get("number") != FORMAT:
        raise wrong(directory, f"format {description.get('number')} is not known here (this padp writes {FORMAT})",
                    f"load it with padp {description.get('versions', {}).get('padp', 'of another version')}")
    try:
        program = description["adapter"]
        text, digest = str(program["program"]), str(program["hash"])
        sites = {str(path): StoredSite(site["variant"], dict(site["hyper"]), dict(site["knobs"]), dict(site["sizes"]),
                                       _dtype_of(site["dtype"])) for path, site in description["sites"].items()}
        dtype = None if description["dtype"] is None else _dtype_of(description["dtype"])
        saved = tuple(map(str, description["modules_to_save"]))
        numbers = float(description["dropout"]), int(description["seed"]), int(description["steps"])
        name, model = str(description["name"]), str(description["model"]["class"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise wrong(directory, f"adapter.json lacks or garbles an entry ({type(error).__name__}: {error})",
                    "copy it again from where it was saved") from None
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise wrong(directory, "the program in adapter.json was changed after saving: the tensors are another one's",
                    "put the program back, or train the new program and save it")
    try:
        adapter = compiled(text, str(program.get("source", "<checkpoint>")))
    except PadpError as error:
        found = error.diagnostics[0]
        raise wrong(directory, f"the program in adapter.json has errors here: {found.message} ({found.code})",
                    _ANEW) from None
    stored = Stored(directory, adapter, name, model, sites, saved, *numbers[:2], dtype, numbers[2], tensors)
    known = tuple([f"sites/{path}/" for path in sites] + [f"modules/{path}/" for path in saved] + ["shared/"])
    stray = [key for key in tensors if not key.startswith(known)]
    if stray:
        raise stored.wrong(f"it holds tensors of sites that adapter.json does not list ({stray[0]})",
                           "copy both files again from where they were saved")
    return stored


def compiled(text: str, name: str) -> Adapter:
    """The adapter of a program text."""
    adapter = Adapter(Source.of(text, name))
    require(adapter.source)
    return adapter


def _dtype_of(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"no dtype {name!r}")
    return dtype


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
    for key, tensor in stored.under("shared/").items():
        here = store.tensors.get(key)
        if here is None:
            store.tensors[key] = nn.Parameter(tensor.to(device), requires_grad=False)
        elif here.shape != tensor.shape or not torch.equal(here.cpu(), tensor):
            raise stored.wrong(f"the model holds the shared tensor {key} as {tuple(here.shape)}, the checkpoint has "
                               f"another one, of {tuple(tensor.shape)}", "detach the adapter that uses it first")
    return store


def _loaded_copy(model: nn.Module, path: str, stored: Stored) -> nn.Module:
    """The saved copy of a whole module."""
    copy = copied(model, path, stored.sites)
    try:
        copy.load_state_dict(stored.under(f"modules/{path}/"))
    except RuntimeError as error:
        raise stored.wrong(f"the saved module {path} does not fit this model's: {error}",
                           "load it on the model that it was trained on") from None
    return copy


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _show(sizes: Mapping[str, int | None]) -> str:
    return ", ".join(f"{name} = {size}" for name, size in sizes.items())
