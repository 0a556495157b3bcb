"""What padp knows of a model beside its sites: which adapters are attached, with what, and how the model was before.

The record lies on the model that ``attach`` was given, as a plain attribute: it is in no state dict, and ``deepcopy``
takes it along. It is never changed, only replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from padp.compiler.module.site import Site
from padp.dsl.diagnostics import refuse
from padp.models.owners import Key, foreign, refuse_foreign
from padp.models.places import Kind
from padp.models.walk import sites

if TYPE_CHECKING:
    from padp.compiler.adapter import Adapter, Settings

_ATTRIBUTE = "_padp"


@dataclass(frozen=True, eq=False)
class Attached:
    """One named adapter on a model: its program, its settings by site, and what is saved with it."""

    name: str
    adapter: Adapter
    settings: Mapping[str, Settings]
    saved: tuple[str, ...] = ()
    dropout: float = 0.0
    seed: int = 0
    dtype: torch.dtype | None = None
    steps: int = 0  # calls of ``update``

    @property
    def kind(self) -> Kind:
        """The kind of its sites."""
        return cast(Kind, self.adapter.site)


@dataclass(frozen=True, eq=False)
class Record:
    """The adapters of a model in the order in which they came; those that are active; how the model was before."""

    attached: Mapping[str, Attached] = field(default_factory=dict)
    active: tuple[str, ...] = ()
    required_grad: frozenset[str] = frozenset()
    nested: tuple[str, ...] = ()
    key: Key = field(default_factory=Key)  # also of every site of these adapters

    def with_attached(self, one: Attached) -> Record:
        """The record with an adapter more, or with an adapter's entry replaced."""
        return replace(self, attached={**self.attached, one.name: one})

    def without(self, name: str) -> Record:
        """The record with an adapter less."""
        return replace(self, attached={key: one for key, one in self.attached.items() if key != name},
                       active=tuple(key for key in self.active if key != name))

    def __deepcopy__(self, memo: dict[int, Any]) -> Record:
        return replace(self, key=deepcopy(self.key, memo))  # nothing else in it changes, and it holds no tensor


def holder(model: nn.Module) -> nn.Module:
    """The module that was given to ``attach``: the model, or one inside it (under DistributedDataParallel, for one).

    E510 when there is none, E511 when several parts of a model have adapters of their own.
    """
    found = [(path, module) for path, module in model.named_modules() if _ATTRIBUTE in module.__dict__]
    if not found and foreign(model, None) is not None:
        refuse_foreign(model, None)
    if not found:
        raise refuse("E510", f"no adapter is attached to this {type(model).__name__}",
                     suggestion="padp.attach(model, adapter) or padp.load(model, directory)")
    if len(found) > 1:
        parts = ", ".join(path or "the model" for path, _ in found)
        raise refuse("E511", f"several parts of this model have adapters of their own: {parts}",
                     suggestion="call this with one of the parts")
    return cast(nn.Module, found[0][1])


def record_of(model: nn.Module) -> Record:
    """The record on this very module; an empty one when nothing is attached."""
    return cast(Record, model.__dict__.get(_ATTRIBUTE, Record()))


def store(model: nn.Module, record: Record) -> None:
    """Put a record in the place of the last one; an empty one is taken off."""
    if record.attached:
        model.__dict__[_ATTRIBUTE] = record
    else:
        model.__dict__.pop(_ATTRIBUTE, None)


def refuse_nested(model: nn.Module) -> None:
    """E511 when a part of the model, and not the model itself, has adapters, or shares modules with another model that
    has."""
    inner = [path for path, module in model.named_modules() if path and _ATTRIBUTE in module.__dict__]
    if inner:
        raise refuse("E511", f"{inner[0]}, a part of this model, has adapters of its own",
                     suggestion=f"attach to model.{inner[0]} again, or detach there first")
    refuse_foreign(model, record_of(model).key)


def named(record: Record, name: str | None) -> Attached:
    """The adapter of that name; the only one when no name is given. E510 otherwise."""
    names = ", ".join(record.attached)
    if name is None:
        if len(record.attached) != 1:
            raise refuse("E510", f"{len(record.attached)} adapters are attached ({names}): which one is meant?",
                         suggestion="give its name=")
        return next(iter(record.attached.values()))
    if name not in record.attached:
        raise refuse("E510", f"no adapter called {name!r} is attached",
                     suggestion=f"there are: {names}" if names else None)
    return record.attached[name]


def names_of(record: Record, names: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several as a tuple without repeats; E510 for an unknown one."""
    wanted = (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
    return tuple(named(record, name).name for name in wanted)


def sites_of(model: nn.Module, name: str) -> dict[str, Site]:
    """The sites where an adapter sits, by path."""
    return {site.path: site for site in sites(model) if name in site.adapters}
