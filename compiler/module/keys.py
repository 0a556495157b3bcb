"""The keys of a stand-in in a state dict: the base's own, as if nobody stood in for it.

    layer.weight               the base's weight (not ``layer.base.weight``); the merged one while merged
    layer.adapters.default.A   what the adapter there has
    layer.merged.default       only while merged: says that the weight holds this adapter

So a state dict of an adapted model, with what a plain model does not know left aside, is one of the plain model, and
what writes models by their state dict (``save_pretrained``, Trainer, ``torch.save``) writes one that loads without
padp. Both spellings load, ``layer.weight`` and ``layer.base.weight``. A state dict that was taken while merged is
refused by a site that is not: the adapter would act twice.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from padp.dsl.diagnostics import refuse


class Stand(Protocol):
    """What stands in for a module: where that lies, and what of it is ours."""

    loading: str
    path: str
    own: ClassVar[tuple[str, ...]]

    @property
    def inside(self) -> str: ...
    @property
    def merged(self) -> tuple[str, ...]: ...
    def inside_of(self, merged: tuple[str, ...]) -> str: ...


class Guarded(Protocol):
    """A site whose adapters may be merged."""

    @property
    def label(self) -> str: ...
    @property
    def merged(self) -> tuple[str, ...]: ...
    def module(self, name: str) -> nn.Module: ...

_MERGED = "merged."


def keep_plain_keys(stand: nn.Module) -> None:
    """Let state dicts have the keys of what ``stand`` stands in for."""
    stand.register_state_dict_post_hook(_give_plain_keys)
    stand.register_load_state_dict_pre_hook(_take_plain_keys)
    stand.register_load_state_dict_post_hook(_name_plain_keys)


def guard_adapters(site: nn.Module) -> None:
    """Let nothing be loaded into adapters that are merged."""
    site.register_load_state_dict_pre_hook(_before_adapters)


def _give_plain_keys(module: nn.Module, state: MutableMapping[str, Any], prefix: str, _: object) -> None:
    """After ``stand.state_dict``: the keys of the module inside lose its name; marks for what is merged into it."""
    stand = cast("Stand", module)
    inner = f"{prefix}{stand.inside}."
    own: dict[str, Any] = {}
    length = len(inner)
    for key in _last(state, prefix):
        if key.startswith(inner):
            state[prefix + key[length:]] = state.pop(key)
        else:
            own[key] = state.pop(key)
    state.update(own)
    for name in stand.merged:
        state[f"{prefix}{_MERGED}{name}"] = torch.tensor(True)
    metadata: dict[str, dict[str, Any]] = getattr(state, "_metadata", {})
    there = inner[:-1]
    metadata.update({(prefix[:-1] + key.removeprefix(there)).removeprefix("" if prefix else "."): dict(metadata[key])
                     for key in _last(metadata, prefix[:-1]) if key == there or key.startswith(inner)})


def _last(keys: Mapping[str, Any], prefix: str) -> list[str]:
    """The keys with a prefix: what a module has put in stands at the end."""
    found: list[str] = []
    for key in reversed(cast("dict[str, Any]", keys)):
        if not key.startswith(prefix):
            break
        found.append(key)
    return found[::-1]


def _take_plain_keys(module: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: object) -> None:
    """Before ``stand`` loads: plain keys go to the module inside."""
    stand = cast("Stand", module)
    stand.loading = prefix
    refuse_half_merged(stand, state, prefix)
    names = marks(state, prefix)
    for name in names:
        del state[f"{prefix}{_MERGED}{name}"]
    inner = prefix + stand.inside_of(names) + "."
    own = tuple(f"{prefix}{child}." for child in stand.own)
    for key in [key for key in state if key.startswith(prefix) and not key.startswith(own)]:
        there = inner + key.removeprefix(prefix)
        if there not in state:  # with both spellings one is unexpected
            state[there] = state.pop(key)


def _name_plain_keys(module: nn.Module, found: Any) -> None:
    """After ``stand`` has loaded: what it missed is called by its plain key."""
    stand = cast("Stand", module)
    inner = f"{stand.loading}{stand.inside}."
    found.missing_keys[:] = [stand.loading + key.removeprefix(inner) if key.startswith(inner) else key
                             for key in found.missing_keys]


def marks(state: Mapping[str, Any], prefix: str) -> tuple[str, ...]:
    """The adapters that a state dict says are merged into the weight there."""
    return tuple(key.removeprefix(prefix + _MERGED) for key in state if key.startswith(prefix + _MERGED))


def refuse_half_merged(stand: Stand, state: Mapping[str, Any], prefix: str) -> None:
    """E511 when the state dict's weight holds an adapter that the weight here does not."""
    names = [name for name in marks(state, prefix) if name not in stand.merged]
    if names:
        raise refuse("E511", f"{stand.path or 'this layer'}: the state dict was taken while {names[0]} was merged, "
                     "and it is not merged here: it would act twice",
                     suggestion="load it on a model without adapters, or take the state dict after padp.unmerge(model)")


def refuse_under_merged(site: Guarded, state: Mapping[str, Any], prefix: str) -> None:
    """E511 when other tensors would be loaded into an adapter that the base's weight holds: that would not change."""
    for name in site.merged:
        for key, own in site.module(name).state_dict().items():
            new = state.get(f"{prefix}adapters.{name}.{key}")
            if isinstance(new, Tensor) and not _same(new, own):
                raise refuse("E511", f"{site.label} is merged: another {key} would not reach the merged weight",
                             suggestion="padp.unmerge(model) first")


def _before_adapters(site: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: object) -> None:
    """Before the adapters of a site load."""
    refuse_under_merged(cast("Guarded", site), state, prefix)


def _same(new: Tensor, own: Tensor) -> bool:
    if new.is_meta or own.is_meta or new.shape != own.shape:
        return new.shape == own.shape and new.is_meta == own.is_meta
    return torch.equal(new.detach().to(own.device, own.dtype), own.detach())
