"""One traversal of a model: every module once, under the name it had before padp came, padp's own parts left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from torch import nn

from padp.compiler.module.site import Site, StandIn


def walk(module: nn.Module, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, nn.Module]]:
    """(path, module), parents first. What is ours is given where it stands and not entered.

    So nothing has a name that padp made up: ``encoder.query`` is the site, there is no ``encoder.query.base``.
    """
    seen = set() if seen is None else seen
    waiting = [(path, module)]
    while waiting:
        path, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield path, module
        if not isinstance(module, (Site, StandIn)):
            waiting += children(path, module)


def everywhere(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(path, module) of all modules, ours and what is in them too, under every name that they have."""
    waiting = [("", model)]
    while waiting:
        path, module = waiting.pop()
        yield path, module
        waiting += children(path, module)


def children(path: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    """What stands in a module that has this path, the last first: as it is taken from the end of a list."""
    before = f"{path}." if path else ""
    return [(before + name, child) for name, child in reversed(inside(module, "_modules").items()) if child is not None]


def sites(model: nn.Module) -> list[Site]:
    """Every attached site of a model, in the model's order. A layer adapted by hand has no path and is none."""
    return [module for _, module in walk(model) if isinstance(module, Site) and module.path]


def put_in_place(model: nn.Module, pairs: Iterable[tuple[nn.Module, nn.Module]]) -> None:
    """For every (old, new) let new stand wherever old stands, also where one module is used under several names."""
    instead = {id(old): new for old, new in pairs}
    for _, parent in list(walk(model)):
        children = inside(parent, "_modules")
        for name, child in children.items():
            if id(child) in instead:
                children[name] = instead[id(child)]


def inside(module: nn.Module, table: str) -> dict[Any, Any]:
    """A table in which torch keeps what belongs to a module: its children under all their names, its hooks."""
    return cast("dict[Any, Any]", vars(module)[table])
