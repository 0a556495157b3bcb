"""Layers whose weight a model reads without calling them (Mamba's ``dt_proj``): an adapter there would do nothing.

Nothing in a model says so before it runs. So of every module that holds sites the first call in training and the first
in evaluation is watched: a layer that has an active adapter, was not called, and whose weight was read, is refused by
name. A module that reads weights of layers that it calls (T5 asks for their dtype) is watched in every call.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from padp.compiler.kernels.torch_state import compiling
from padp.compiler.module.reads import begin, end
from padp.compiler.module.site import LinearSite, Site, StandIn
from padp.dsl.diagnostics import refuse
from padp.models.walk import inside

_TABLES = ("_forward_pre_hooks", "_forward_hooks")


class Watch:
    """The sites that one module holds, and the modes in which it was seen to call them. It keeps neither alive."""

    def __init__(self, parent: nn.Module | None, sites: Iterable[LinearSite] = ()) -> None:
        self._parent = None if parent is None else weakref.ref(parent)
        self._sites = [weakref.ref(site) for site in sites]
        self.seen: set[bool] = set()
        self._called = _Called()

    @property
    def parent(self) -> nn.Module | None:
        """The module that holds the sites; None when it is gone."""
        return None if self._parent is None else self._parent()

    @property
    def sites(self) -> list[LinearSite]:
        """The sites that there still are."""
        return [site for ref in self._sites if (site := ref()) is not None]

    def hold(self, sites: Iterable[LinearSite]) -> None:
        """These sites from now on, none of them seen to be called."""
        self._sites = [weakref.ref(site) for site in sites]
        self.seen.clear()

    def arm(self) -> None:
        """Hang on to the module and its sites."""
        parent = self.parent
        if parent is None:
            return
        if self not in _watches(parent):
            parent.register_forward_pre_hook(self.enter)
            parent.register_forward_hook(self.leave, always_call=True)
        for site in self.sites:
            if self not in _watches(site):
                site.register_forward_pre_hook(self.called)

    def disarm(self) -> None:
        """Take all hooks off."""
        parent = self.parent
        for module in (*(() if parent is None else (parent,)), *self.sites):
            for table in _TABLES:
                hooks = inside(module, table)
                for key in [key for key, hook in hooks.items() if getattr(hook, "__self__", None) is self]:
                    del hooks[key]
                    for flags in (f"{table}_with_kwargs", "_forward_hooks_always_called"):
                        inside(module, flags).pop(key, None)

    def turned(self, training: bool) -> None:
        """The module is in this mode now."""
        if training not in self.seen:
            self.arm()

    def enter(self, module: nn.Module, args: object) -> None:
        if not compiling():
            begin()
            self._called.runs.append(set())

    def called(self, site: nn.Module, args: object) -> None:
        if not compiling() and self._called.runs:
            self._called.runs[-1].add(id(site))

    def leave(self, module: nn.Module, args: object, output: object) -> None:
        if compiling() or not self._called.runs:
            return
        read, called = end(), self._called.runs.pop()
        for site in self.sites:
            if id(site) in read - called and output is not None and site.acting and not site.merged:
                raise refuse("E511", f"{site.path}: {type(module).__name__} reads this layer's "
                             "weight and does not call it, so the adapter there does nothing",
                             suggestion="padp.detach(model), and attach again with exclude= for this layer")
        if called and not read:
            self.seen.add(module.training)
            self.disarm()

    def __deepcopy__(self, memo: dict[int, Any]) -> Watch:
        parent = memo.get(id(self.parent))  # a layer that is copied alone is not watched
        twin = memo[id(self)] = Watch(parent)
        if parent is not None:
            twin.hold([copy.deepcopy(site, memo) for site in self.sites])
            twin.seen = set(self.seen)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return {"parent": self.parent, "sites": self.sites, "seen": self.seen}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["parent"], state["sites"])  # type: ignore[misc]
        self.seen = state["seen"]


class _Called(threading.local):
    def __init__(self) -> None:
        self.runs: list[set[int]] = []


def _watches(module: nn.Module) -> list[Watch]:
    found = [getattr(hook, "__self__", None) for table in _TABLES for hook in inside(module, table).values()]
    return [one for one in found if isinstance(one, Watch)]


def watch(model: nn.Module, sites: Iterable[Site]) -> None:
    """Watch the modules that hold these sites, for whatever comes next."""
    wanted = {id(site) for site in sites if isinstance(site, LinearSite)}
    for parent, children in _holders(model):
        new = [child for child in children if id(child) in wanted]
        if new:
            one = next((child.watch for child in children if isinstance(child.watch, Watch)), None) or Watch(parent)
            one.hold({id(site): site for site in (*one.sites, *new)}.values())
            for child in new:
                child.watch = one
            one.arm()


def unwatch(gone: Sequence[LinearSite]) -> None:
    """Forget sites that are taken off."""
    watches: dict[int, Watch] = {id(site.watch): site.watch for site in gone if isinstance(site.watch, Watch)}
    off = {id(site) for site in gone}
    for one in watches.values():
        one.disarm()
    for site in gone:
        site.watch = None
    for one in watches.values():
        seen = set(one.seen)
        one.hold(other for other in one.sites if id(other) not in off)
        one.seen = seen
        if one.sites and one.parent is not None:
            one.turned(one.parent.training)


def _holders(model: nn.Module) -> list[tuple[nn.Module, list[LinearSite]]]:
    """The modules that are called and hold linear sites, also in lists."""
    found: dict[int, tuple[nn.Module, list[LinearSite]]] = {}

    def visit(module: nn.Module, holder: nn.Module) -> None:
        for child in module.children():
            if isinstance(child, LinearSite):
                found.setdefault(id(holder), (holder, []))[1].append(child)
            elif not isinstance(child, (Site, StandIn)):
                visit(child, holder if isinstance(child, (nn.ModuleList, nn.ModuleDict)) else child)

    visit(model, model)
    return list(found.values())
