"""Putting adapters on a model, switching between them, turning them off for a while.

``attach`` plans first (places, settings, adapter modules: nothing of the model changes) and then commits, which cannot
fail: on any error the model is as it was.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import nn

from padp.compiler import adapter as compiler
from padp.compiler.module.ambient import at_rest
from padp.compiler.module.module import AdapterModule, Tokens
from padp.compiler.module.shared import SharedStore
from padp.compiler.module.site import LinearSite, Site
from padp.compiler.sizes.settings import number, whole, writable
from padp.dsl.diagnostics import refuse
from padp.models.arguments import adapter_of, refuse_unknown
from padp.models.attention import AttentionSite
from padp.models.building import built, keep_shared, shared_for
from padp.models.fast_paths import turn_off
from padp.models.hidden import HiddenSite, positions_of
from padp.models.merging import refuse_merged
from padp.models.notes import warn_of
from padp.models.owners import Key, refuse_wrapped
from padp.models.patterns import Misses, by_site, chosen
from padp.models.places import Kind, Place, place, with_ancestors
from padp.models.reading import PromptReader
from padp.models.record import Attached, Record, holder, names_of, record_of, refuse_nested, store
from padp.models.reminders import remind_of
from padp.models.saved import SavedModule, copied, saved_modules
from padp.models.selecting import ALL, select
from padp.models.states import watch_states
from padp.models.uncalled import watch
from padp.models.walk import put_in_place, sites, walk

if TYPE_CHECKING:
    from padp.compiler.adapter import Adapter, Settings
    from padp.compiler.module.module import AdapterModule

Model = TypeVar("Model", bound=nn.Module)


@at_rest()
def attach(model: Model, adapter: Adapter | str | PathLike[str], targets: str | Sequence[str] = ALL, *,
           name: str = "default", exclude: str | Sequence[str] | None = None,
           variant: str | Mapping[str, str] | None = None,
           modules_to_save: str | Sequence[str] = (), dropout: float = 0.0, dtype: torch.dtype | None = None,
           seed: int = 0, layers: str | Sequence[int] | None = None, active: bool = True, **hyper: object) -> Model:
    """Put an adapter on a model, in place, and return the model.

    ``adapter``: a compiled one, or what ``padp.compile`` takes: a name of the library, a path, program text.
    ``targets``: "all-linear" (every nn.Linear and Conv1D outside the output head; for adapters of hidden states every
    block, for adapters of attentions every attention), a list of ends of paths, or one regex for whole paths;
    ``layers``: blocks by number. ``variant`` and every hyperparameter may be a mapping {pattern: value, "*": default},
    a pattern being an end of a path or a regex. The base is frozen; adapter parameters have its dtype, float32 when
    that is half precision, or ``dtype``. ``dropout`` acts on the adapter's path in training. ``modules_to_save``:
    modules that are trained whole, as copies. The adapter joins the active ones unless ``active`` is false.

    Attach after the base's weights are loaded. Others that are loaded later (``load_state_dict``) are followed by what
    was computed from W, or refused (E511) where a learned tensor started from W; so are writes into W (``refresh``).

    Raises ``PadpError`` and leaves the model as it was: E502 a module that such an adapter cannot take, E503 patterns
    that match nothing, E506 a shared tensor that is too small, E507 and E501 hyperparameters, E508 adapters that do not
    combine, E511 what is refused for other reasons.
    """
    adapter = refuse_misuse(model, adapter, dtype)
    refuse_unknown(adapter, hyper)
    seed, dropout = whole("seed", seed), number("dropout", dropout)
    record = record_of(model)
    refuse_wrapped(model)
    refuse_nested(model)
    check_name(record, name)
    refuse_merged(model, "attaching")
    every = [path for path, _ in walk(model) if path]
    misses = Misses(every)
    saved = chosen(modules_to_save, every) if modules_to_save else {}
    for pattern, found in saved.items():
        misses.check("modules_to_save", pattern, bool(found))
    kind = cast(Kind, adapter.site)
    paths = select(model, kind, targets, exclude, layers, misses)
    for argument, value in {"variant": variant, **hyper}.items():
        misses.check_mapping(argument, value, paths)
    misses.raise_any()
    for path in (*paths, *(p for found in saved.values() for p in found)):
        writable("the module name", path)
    places = list(place(kind, model, paths))
    settings = settings_by_site(adapter, paths, variant, hyper)
    shared = shared_for(model, adapter, [(each, settings[each.path]) for each in places])
    modules = {each.path: built(each, adapter, settings[each.path], dtype=dtype, dropout=dropout, seed=seed,
                                shared=shared)
               for each in places}
    one = Attached(name, adapter, settings, tuple(dict.fromkeys(p for found in saved.values() for p in found)),
                   dropout, seed, dtype)
    copies = {path: copied(model, path, paths) for path in one.saved}
    commit(model, planned(model, one, places, modules, copies, active), shared)
    warn_of(model, modules)
    return model


def refuse_misuse(model: object, adapter: object, dtype: object) -> Adapter:
    """The adapter, compiled; E511 for arguments of another kind than they must be: what is easily mixed up."""
    if not isinstance(model, nn.Module):
        raise refuse("E511", f"the first argument is the model, an nn.Module; this is {type(model).__name__}",
                     suggestion="padp.attach(model, adapter)")
    adapter = adapter_of(adapter)
    if not isinstance(adapter, compiler.Adapter):
        raise refuse("E511", f"the second argument is an adapter, compiled or by name; this is "
                     f"{type(adapter).__name__}", suggestion='padp.attach(model, "lora")')
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise refuse("E511", f"dtype is of the adapter's tensors, which are floating-point numbers; this is {dtype!r}",
                     suggestion="dtype=torch.float32")
    return adapter


def check_name(record: Record, name: str) -> None:
    """E511 for a name that is taken or cannot be part of a state dict's keys."""
    if name in record.attached:
        raise refuse("E511", f"an adapter called {name!r} is attached already",
                     suggestion="give another name=, or padp.detach it first")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or hasattr(nn.ModuleDict(), name):
        raise refuse("E511", f"{name!r} cannot name an adapter: it becomes part of parameter names",
                     suggestion="letters, digits, _ and -")


def settings_by_site(adapter: Adapter, paths: Sequence[str], variant: str | Mapping[str, str] | None,
                     hyper: Mapping[str, object]) -> dict[str, Settings]:
    """The validated settings of every site; equal ones are one object."""
    known: dict[object, Settings] = {}
    found: dict[str, Settings] = {}
    for path in paths:
        given = {key: value for key, (is_given, value) in
                 ((key, by_site(value, path)) for key, value in hyper.items()) if is_given}
        own = cast("str | None", by_site(variant, path)[1])
        key = (own, repr(sorted(given.items())))
        if key not in known:
            known[key] = adapter.settings(own, **given)
        found[path] = known[key]
    return found


# ---------------------------------------------------------------- plan and commit


@dataclass(frozen=True, eq=False)
class Plan:
    """All that an attachment will change, ready made."""

    attached: Attached
    places: Sequence[Place]
    modules: Mapping[str, AdapterModule]
    copies: Mapping[str, nn.Module]
    active: tuple[str, ...]


def planned(model: nn.Module, one: Attached, places: Sequence[Place], modules: Mapping[str, AdapterModule],
         copies: Mapping[str, nn.Module], active: bool) -> Plan:
    """Check that everything fits together; E508 and E511 otherwise."""
    record = record_of(model)
    names = (*record.active, one.name) if active else record.active
    for module in modules.values():
        if one.kind == "hidden":
            positions_of(module)
    if active:
        here = {(site.kind, site.path): site for site in sites(model)}
        for each in places:
            site = here.get((each.kind, each.path))
            if site is not None:
                together = {name: site.module(name) for name in site.active}
                site.refuse_together({**together, one.name: modules[each.path]})
        for module_ in saved_modules(model):
            if module_.path in copies:
                module_.refuse_together([*([module_.active] if module_.active else []), one.name])
    return Plan(one, places, modules, copies, names)


def commit(model: nn.Module, plan: Plan, shared: SharedStore) -> None:
    """Change the model as planned."""
    one, record = plan.attached, record_of(model)
    if not record.attached:
        record = Record(required_grad=frozenset(name for name, p in model.named_parameters() if p.requires_grad))
        for parameter in model.parameters():
            parameter.requires_grad = False  # also of a layer that does not have its weight yet
    _add_sites(model, plan, record.key)
    _add_copies(model, plan, record.key)
    nested = (*record.nested, *turn_off(model))
    watch_states(model)
    store(model, replace(record.with_attached(one), nested=nested))
    remind_of(plan.modules.values())
    keep_shared(model, shared)
    _activate(model, plan.active)


def _add_sites(model: nn.Module, plan: Plan, key: Key) -> None:
    """Add the adapter at each place, making the site where there is none."""
    name = plan.attached.name
    here = {(site.kind, site.path): site for site in sites(model)}
    fresh: list[tuple[nn.Module, nn.Module]] = []
    ancestors = with_ancestors(model) if plan.attached.kind == "hidden" else {}
    reader = next((site.reader for site in here.values() if isinstance(site, HiddenSite)), None) or PromptReader()
    for each in plan.places:
        site = here.get((each.kind, each.path))
        if site is None:
            match each.kind:
                case "linear":
                    site = LinearSite(each.module, each.path)
                    fresh.append((each.module, site))
                case "hidden":
                    site = HiddenSite(each.sizes["d"], reader, each.path)
                    site.train(each.module.training)
                    site.hang_on(each.module)
                    reader.watch(above for above in ancestors[each.path][1] if not isinstance(above, nn.ModuleList))
                case "attention":
                    assert each.attention is not None
                    site = AttentionSite(each.attention, each.path)
                    site.train(each.module.training)
                    site.hang_on()
        site.owner = key
        site.add(name, plan.modules[each.path])
    put_in_place(model, fresh)
    watch(model, (site for site in sites(model) if name in site.adapters))


def _add_copies(model: nn.Module, plan: Plan, key: Key) -> None:
    """Add the copies of modules that are saved whole."""
    here = {module.path: module for module in saved_modules(model)}
    fresh: list[tuple[nn.Module, nn.Module]] = []
    for path, copy in plan.copies.items():
        module = here.get(path)
        if module is None:
            original = model.get_submodule(path)
            module = SavedModule(original, path)
            module.owner = key
            fresh.append((original, module))
        module.add(plan.attached.name, copy)
    put_in_place(model, fresh)


def _activate(model: nn.Module, names: Sequence[str]) -> None:
    """Let each site use those of the names that it has."""
    for site in sites(model):
        site.activate([name for name in names if name in site.adapters])
        site.drop_cache()
    for module in saved_modules(model):
        module.activate([name for name in names if name in module.copies])
    store(model, replace(record_of(model), active=tuple(names)))


# ---------------------------------------------------------------- switching


def activate(model: nn.Module, names: str | Sequence[str]) -> None:
    """Make these adapters the active ones, in this order; only they act. ``[]`` for none.

    The learned tensors of every adapter require a gradient from attaching on, so an optimiser or a trainer that was
    made before a switch trains whichever acts, and one loss may hold calls under several of them. One that does not
    act gets no gradient, and no optimiser of torch moves a tensor without one. What ``requires_grad_(False)`` froze
    stays frozen. DistributedDataParallel waits for every tensor that requires a gradient: freeze those of adapters
    that stay off, or give it ``find_unused_parameters=True``.

    E510 for an unknown name, E508 for adapters that do not combine at a site, E511 while merged; then nothing changed.
    """
    model = holder(model)
    wanted = names_of(record_of(model), names)
    refuse_merged(model, "switching adapters")
    for site in sites(model):
        site.refuse_together({name: site.module(name) for name in wanted if name in site.adapters})
    for module in saved_modules(model):
        module.refuse_together([name for name in wanted if name in module.copies])
    parts: list[Site | SavedModule] = [*sites(model), *saved_modules(model)]
    for part in parts:
        part.switched = True
    _activate(model, wanted)


@contextmanager
def disabled(model: nn.Module) -> Generator[None, None, None]:
    """Within this context the model is the base: no adapter acts. E511 while merged."""
    model = holder(model)
    refuse_merged(model, "turning adapters off")
    parts: list[Site | SavedModule] = [*sites(model), *saved_modules(model)]
    before = [part.enabled for part in parts]
    for part in parts:
        part.enabled, part.switched = False, True
    try:
        yield
    finally:
        for part, enabled in zip(parts, before, strict=True):
            part.enabled = enabled


@contextmanager
def decoding(model: nn.Module) -> Generator[None, None, None]:
    """Within this context calls are planned for one token each, as in a decoding loop; steps with gradients too.

    Only speed and memory differ, never the result. Prompts may be run inside too, at some cost.
    """
    parts = [part for part in holder(model).modules() if isinstance(part, AdapterModule)]
    before: list[Tokens] = [part.tokens for part in parts]
    for part in parts:
        part.expect("one")
    try:
        yield
    finally:
        for part, tokens in zip(parts, before, strict=True):
            part.expect(tokens)
