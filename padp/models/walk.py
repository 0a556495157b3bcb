"""One traversal of a model: every module once, under the name it had before padp came, padp's own parts left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from torch import nn

from padp.compiler.site import Site, StandIn


def walk(module: nn.Module, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, nn.Module]]:
    """(path, module), parents first. What is ours is given where it stands and not entered.

    So nothing has a name that padp made up: ``encoder.query`` is the site, there is no ``encoder.query.base``.
    """
    seen = set() if seen is None else seen
    if id(module) in seen:
        return
    seen.add(id(module))
    yield path, module
    if isinstance(module, (Site, StandIn)):
        return
    for name, child in module.named_children():
        yield from walk(child, f"{path}.{name}" if path else name, seen)


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
