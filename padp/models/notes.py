"""What is allowed and seldom meant: said by ``summary``, and once by a warning where it would cost a training run."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

from torch import nn

from padp.compiler.module.module import AdapterModule
from padp.compiler.module.site import LinearSite, Site
from padp.models.places import heads_of
from padp.models.saved import SavedModule
from padp.models.walk import sites, walk

EMBEDDINGS = ("lm_head", "embed_out")
"""Heads over a vocabulary: they come trained with the model."""
_MANY = 10_000  # learned scalars at a site below which nobody minds


def frozen_heads(model: nn.Module) -> list[str]:
    """The paths of output heads that no adapter trains and that are no output embeddings."""
    ask = getattr(model, "get_output_embeddings", None)
    try:
        embeddings = ask() if callable(ask) else None
    except (NotImplementedError, AttributeError):
        embeddings = None
    every = dict(walk(model))
    return [path for path in heads_of(model) if every[path] is not embeddings and _untouched(every[path])]


def _untouched(head: nn.Module) -> bool:
    """Whether all of a module is frozen, and nothing of ours is in it."""
    parameters = list(head.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters) and not any(
        isinstance(part, (Site, SavedModule)) for part in head.modules())


def _looks_fresh(head: nn.Module) -> bool:
    """Whether a head may never have been trained: its last bias is 0, or it has none."""
    biases = [p for name, p in head.named_parameters() if name.rpartition(".")[2] == "bias" and not p.is_meta]
    return not biases or not bool(biases[-1].detach().any())


def oversized(modules: Mapping[str, AdapterModule], sites_: Iterable[Site]) -> list[str]:
    """The paths of linear layers at which an adapter learns more numbers than the layer has."""
    layers = {site.path: site.base for site in sites_ if isinstance(site, LinearSite)}
    return [path for path, module in modules.items() if path in layers
            and _learned(module) > sum(p.numel() for p in layers[path].parameters())]


def _learned(module: AdapterModule) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def notes_on(model: nn.Module) -> tuple[str, ...]:
    """The lines under a summary."""
    found: list[str] = []
    here = sites(model)
    for name in dict.fromkeys(name for site in here for name in site.adapters):
        large = oversized({site.path: site.module(name) for site in here if name in site.adapters}, here)
        if large:
            found.append(f"{name} learns more numbers than the layer has at {_several(large)}")
    heads = frozen_heads(model) if here else []
    if heads:
        found.append(f"frozen output head: {', '.join(heads)} (modules_to_save= trains it)")
    return tuple(found)


def warn_of(model: nn.Module, modules: Mapping[str, AdapterModule]) -> None:
    """After an attachment: a head that looks fresh stays frozen; a rank that is out of all proportion."""
    every = dict(walk(model))
    fresh = [path for path in frozen_heads(model)
             if path.rpartition(".")[2] not in EMBEDDINGS and _looks_fresh(every[path])]
    if fresh:
        warnings.warn(f"the output head {', '.join(fresh)} looks untrained and stays frozen; to train it with the "
                      f"adapter: padp.attach(…, modules_to_save={fresh!r})", stacklevel=3)
    large = [path for path in oversized(modules, sites(model))
             if (count := _learned(modules[path])) > _MANY and count > 2 * _numbers(every[path])]
    if large:
        module = modules[large[0]]
        warnings.warn(f"{module.adapter.name} learns {_learned(module):,} numbers at {_several(large)}, where the "
                      f"layer itself has {_numbers(every[large[0]]):,}; is {module.extra_repr()} meant?", stacklevel=3)


def _numbers(site: nn.Module) -> int:
    return sum(p.numel() for p in site.base.parameters()) if isinstance(site, LinearSite) else 0


def _several(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
