"""What was computed from a base's weights follows when other weights are loaded into that base.

    base.load_state_dict(other), model.load_state_dict(…)
        the same weights again                               nothing to do
        the dict brings what was computed from W as well     taken from it
        it does not                                          computed anew from the new W
        … and a learned tensor started from the old W        E511, and the layer is left as it was
        merged                                               E511: unmerging would bring the old W back

Two hooks on each base see the load, one on the module around the site sees first what else the dict holds. What writes
to W in another way (``W.add_(…)``, ``base.weight = …``) is seen at the next call, by the same rules
(``module/origins.py``).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from padp.dsl.diagnostics import refuse


class Named(Protocol):
    """The program of an adapter."""

    @property
    def name(self) -> str: ...


class Computed(Protocol):
    """An adapter's tensors, some of which were computed from a base's weights."""

    names: dict[str, str]

    @property
    def adapter(self) -> Named: ...
    @property
    def from_base(self) -> tuple[tuple[str, ...], tuple[str, ...]]: ...
    def compute_anew(self, weight: Any, bias: Tensor | None) -> None: ...
    def belongs_to(self, weight: Any, bias: Tensor | None) -> None: ...


class Followed(Protocol):
    """The site whose adapters follow a base's weights; ``brought``: what is loaded now beside them."""

    adapters: nn.ModuleDict
    brought: frozenset[str]
    waiting: tuple[str, ...]

    @property
    def merged(self) -> tuple[str, ...]: ...
    def module(self, name: str) -> Computed: ...
    def given(self) -> tuple[Any, Tensor | None]: ...


class Stand(Protocol):
    """What stands in for a base: a site, or a projection of one."""

    path: str

    @property
    def merged(self) -> tuple[str, ...]: ...

    @property
    def followers(self) -> Followed: ...


class _Hook:
    """A hook that does not keep alive what it belongs to, and that a copy of that gets a copy of."""

    def __init__(self, owner: object | None) -> None:
        self.owner = None if owner is None else weakref.ref(owner)

    @property
    def alive(self) -> Any:
        """What it belongs to, None when that is gone."""
        return None if self.owner is None else self.owner()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hook:
        return type(self)(memo.get(id(self.alive)))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.alive,)


class _BeforeBase(_Hook):
    def __call__(self, base: nn.Module, state: Mapping[str, Any], prefix: str, *_: object) -> None:
        stand = cast("Stand | None", self.alive)
        if stand is not None:
            stand.followers.waiting = _will_differ(stand, base, state, prefix)


class _AfterBase(_Hook):
    def __call__(self, base: nn.Module, _: object) -> None:
        stand = cast("Stand | None", self.alive)
        if stand is not None:
            site = stand.followers
            names, site.waiting = site.waiting, ()
            _compute_anew(site, names)


class _BeforeAll(_Hook):
    """``where``: the site's name inside the module that is hooked."""

    def __init__(self, owner: object | None, where: str = "") -> None:
        super().__init__(owner)
        self.where = where

    def __call__(self, module: nn.Module, state: Mapping[str, Any], prefix: str, *_: object) -> None:
        site = cast("Followed | None", self.alive)
        if site is not None:
            site.brought = _brought(site, state, f"{prefix}{self.where}")

    def __deepcopy__(self, memo: dict[int, Any]) -> _BeforeAll:
        return _BeforeAll(memo.get(id(self.alive)), self.where)

    def __reduce__(self) -> tuple[Any, ...]:
        return _BeforeAll, (self.alive, self.where)


class _AfterAll(_Hook):
    def __call__(self, module: nn.Module, _: object) -> None:
        site = cast("Followed | None", self.alive)
        if site is not None:
            site.brought = frozenset()


def _brought(site: Followed, state: Mapping[str, Any], prefix: str) -> frozenset[str]:
    """What started from the base and is in a state dict itself."""
    return frozenset(f"{name}.{key}" for name in site.adapters
                     for key in (k for keys in site.module(name).from_base for k in keys)
                     if f"{prefix}adapters.{name}.{key}" in state)


def refuse_ahead(site: Followed, state: Mapping[str, Any], prefix: str,
                 bases: Iterable[tuple[Stand, nn.Module, str]]) -> None:
    """E511 for what a load would be refused for at one of a site's bases: before anything of it is loaded anywhere.

    ``prefix``: where the site stands in the state dict; with each base, where its stand-in does.
    """
    if not (site.merged or any(site.module(name).from_base[0] for name in site.adapters)):
        return
    before, site.brought = site.brought, _brought(site, state, prefix)
    try:
        for stand, base, at in bases:
            found = {name: state[key] for name, _ in base.named_parameters(recurse=False)
                     for key in (f"{at}base.{name}", f"{at}{name}") if key in state}
            _will_differ(stand, base, found, "")
    finally:
        site.brought = before


def follow(around: nn.Module, site: Followed, where: str, bases: Mapping[nn.Module, Stand]) -> None:
    """Hook the bases of a site, and the module around them under which the site is called ``where`` ("" or "a.b.")."""
    around.register_load_state_dict_pre_hook(_BeforeAll(site, where))
    around.register_load_state_dict_post_hook(_AfterAll(site))
    for base, stand in bases.items():
        base.register_load_state_dict_pre_hook(_BeforeBase(stand))
        base.register_load_state_dict_post_hook(_AfterBase(stand))


def unfollow(module: nn.Module, *owners: object) -> None:
    """Take these owners' hooks off a module, and those whose owner is gone."""
    for table in ("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"):
        hooks = cast("dict[int, Any]", vars(module)[table])
        for key, entry in list(hooks.items()):
            hook = getattr(entry, "hook", entry)
            if isinstance(hook, _Hook) and (hook.alive is None or any(hook.alive is owner for owner in owners)):
                del hooks[key]


def replace_on(stand: Stand, base: nn.Module, name: str, value: Any) -> None:
    """Another weight or bias for a base, by assignment; the same rules as for loading."""
    names = _will_differ(stand, base, {name: value}, "")
    setattr(base, name, value)
    _compute_anew(stand.followers, names)


def _compute_anew(site: Followed, names: tuple[str, ...]) -> None:
    for name in site.adapters:
        if name in names:
            site.module(name).compute_anew(*site.given())
        elif any(key.startswith(f"{name}.") for key in site.brought):  # what was computed from them came along
            site.module(name).belongs_to(*site.given())


def _will_differ(stand: Stand, base: nn.Module, state: Mapping[str, Any], prefix: str) -> tuple[str, ...]:
    """The adapters whose values are to be computed anew after this load. E511 for what cannot be."""
    changed = [name for name, own in base.named_parameters(recurse=False) if _other(state.get(prefix + name), own)]
    if not changed:
        return ()
    site, label = stand.followers, stand.path or "this layer"
    if stand.merged:
        raise refuse("E511", f"{label} is merged: unmerging would bring back the weights of before this load",
                     suggestion="padp.unmerge(model) first, or padp.detach(model, keep_merged=True)")
    names: list[str] = []
    for name in site.adapters:
        module = site.module(name)
        learned, rest = ([key for key in keys if f"{name}.{key}" not in site.brought] for keys in module.from_base)
        if learned and not any(own.is_meta for own in base.parameters(recurse=False)):
            raise refuse("E511", f"{label}: other weights are loaded after {module.adapter.name} was attached, and "
                         f"{_symbols(module, learned)} started from those that were there; the layer is left as it was",
                         suggestion="load the weights first and then attach, or load the adapter's tensors with them")
        if learned or rest:
            names.append(name)
    return tuple(names)


def _other(new: Any, own: Tensor) -> bool:
    """Whether loading ``new`` changes ``own``. What does not fit is refused by torch itself."""
    if not isinstance(new, Tensor) or new.shape != own.shape:
        return False
    if new.is_meta or own.is_meta:
        return True
    return not torch.equal(new.detach().to(own.device, own.dtype), own.detach())


def _symbols(module: Computed, attributes: list[str]) -> str:
    return " and ".join(symbol for symbol, attribute in module.names.items() if attribute in attributes)
