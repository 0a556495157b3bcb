"""Modules that are trained whole beside the adapters, such as a classifier: a copy for each adapter, saved with it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, cast

from torch import nn

from padp.compiler.module.acting import acting
from padp.compiler.module.site import Site, StandIn
from padp.compiler.module.weights import find_offloaded
from padp.dsl.diagnostics import refuse
from padp.models.walk import walk


class SavedModule(StandIn):
    """Stands in the place of ``original``. Calls go to the copy of the active adapter, else to the original.

    ``base``, what others see of it, is the module that calls go to. In a state dict the original has plain keys; while
    the model is merged, the active copy, as calls go to it.
    """

    own = ("original", "copies")

    def __init__(self, original: nn.Module, path: str) -> None:
        super().__init__()
        self.path = path
        self.original = original
        self.copies = nn.ModuleDict()
        self.active: str | None = None
        self.enabled = True
        self.holds: tuple[str, ...] = ()
        self.switched = False
        self.owner: object = None
        self.training = original.training

    @property
    def merged(self) -> tuple[str, ...]:
        return self.holds

    def inside_of(self, merged: tuple[str, ...]) -> str:
        return f"copies.{merged[0]}" if merged else "original"

    def merge(self) -> None:
        """The model is merged: the active copy counts as the module itself."""
        if self.active is not None and self.enabled:
            self.holds = (self.active,)

    def unmerge(self) -> None:
        """The model is not merged any more."""
        self.holds = ()

    def keep_merged(self) -> None:
        """Give what the copy holds to the original: there is no way back."""
        for name in self.holds:
            self.original.load_state_dict(self.copies[name].state_dict())
        self.holds = ()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        names = acting(self)
        find_offloaded(self.original, self.path, "original")
        return (self.copies[names[0]] if names else self.original)(*args, **kwargs)

    @property
    def acting(self) -> tuple[str, ...]:
        """The adapter whose copy is called now."""
        return (self.active,) if self.active is not None and self.enabled else ()

    def has(self, name: str) -> bool:
        """Whether an adapter has a copy here."""
        return name in self.copies

    def draws(self, name: str) -> bool:
        """A copy draws what the model's own module would: that is torch's."""
        return False

    def knobbed(self, name: str) -> None:
        """A copy has no knobs."""

    @property
    def current(self) -> nn.Module:
        """The module that calls go to."""
        names = self.acting
        return self.copies[names[0]] if names else self.original

    def add(self, name: str, module: nn.Module) -> None:
        """The copy of a new adapter, not active yet."""
        self.copies[name] = module.train(self.training)

    def remove(self, name: str) -> None:
        """Forget the copy of an adapter."""
        if self.active == name:
            self.activate([])
        del self.copies[name]

    def refuse_together(self, names: list[str]) -> None:
        """E508 when more than one of these adapters has a copy of this module."""
        if len(names) > 1:
            raise refuse("E508", f"{self.path} is saved with {' and '.join(names)}: only one copy can be active",
                         suggestion=f'padp.activate(model, "{names[0]}")')

    def activate(self, names: list[str]) -> None:
        """Use the copy of this adapter; with no name, the original."""
        self.refuse_together(names)
        self.active = names[0] if names else None

    def __getattr__(self, name: str) -> Any:
        if name == "base":  # what StandIn delegates to
            modules = self.__dict__.get("_modules", {})
            if "original" not in modules or "copies" not in modules:
                raise AttributeError(name)
            return self.current
        try:
            return nn.Module.__getattr__(self, name)
        except AttributeError:
            if name.startswith("_") or "original" not in self.__dict__.get("_modules", {}):
                raise
            return getattr(self.current, name)

    def __getitem__(self, index: Any) -> Any:
        """Where the module is a sequence."""
        return cast(Any, self.current)[index]

    def __len__(self) -> int:
        return len(cast(Any, self.current))

    def __bool__(self) -> bool:
        return True


def copied(model: nn.Module, path: str, targets: Iterable[str] = ()) -> nn.Module:
    """A trainable copy of a module that is to be saved.

    E511 when adapters sit in it or are about to (``targets``) or a part of it has a name that is ours, E509 when it
    shares a tensor with the rest of the model.
    """
    module = model.get_submodule(path)
    if isinstance(module, SavedModule):
        module = module.original
    inside = [f"{path}.{name}" if name else path for name, part in walk(module) if isinstance(part, (Site, StandIn))]
    inside += [target for target in targets if target == path or target.startswith(path + ".")]
    if inside:
        raise refuse("E511", f"modules_to_save: {path} holds the site {inside[0]} of an adapter",
                     suggestion="leave these sites out with exclude=, or do not save the whole module")
    tables = (dict(module.named_children()), vars(module)["_parameters"], vars(module)["_buffers"])
    taken = [name for table in tables for name in table if name in (*SavedModule.own, "merged")]
    if taken:
        raise refuse("E511", f"modules_to_save: {path} has a part called {taken[0]}, as padp calls parts of its own",
                     suggestion=f"save its parts ({path}.{taken[0]}, …), or give this one another name")
    own = {id(p): name for name, p in module.named_parameters()}
    parts = {id(part) for part in module.modules()}
    for other, part in model.named_modules():
        tied = [own[id(p)] for p in part.parameters(recurse=False) if id(p) in own]
        if tied and id(part) not in parts:
            raise refuse("E509", f"modules_to_save: {path}.{tied[0]} is tied to {other}: a copy would not be",
                         suggestion="untie them first, or leave this module out")
    return copy.deepcopy(module).requires_grad_(True)


def saved_modules(model: nn.Module) -> list[SavedModule]:
    """Every saved module of a model."""
    return [module for _, module in walk(model) if isinstance(module, SavedModule)]
