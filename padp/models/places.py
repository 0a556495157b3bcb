"""The places of a model where an adapter can sit, by kind of site, and what each says to the compiler.

    linear     an nn.Linear or Conv1D                      W ∈ ℝ^{m×n}, bias
    hidden     a block of the model's list of blocks       d, the width of what it puts out
    attention  a module with Q, K, V and O projections     H heads in G groups of size e, over width d
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import torch
from torch import nn

from padp.compiler.module.linear_layer import weight_of, why_not_linear
from padp.compiler.module.site import LinearSite, Site, StandIn
from padp.compiler.module.weights import is_offloaded, stored_as, why_no_product, works_on
from padp.dsl.diagnostics import refuse
from padp.models.heads import Attention, fused, projections, read_attention
from padp.models.walk import walk

Kind: TypeAlias = Literal["linear", "hidden", "attention"]

# "all-linear" leaves out what maps to the task's outputs: the model's output embeddings, and modules of these names
# with all that is under them.
HEADS = ("lm_head", "classifier", "score", "embed_out", "qa_outputs")


@dataclass(frozen=True, eq=False)
class Place:
    """One place: its path, the module there, and its sizes as the language names them."""

    kind: Kind
    path: str
    module: nn.Module
    sizes: dict[str, int]
    attention: Attention | None = None

    @property
    def base(self) -> nn.Module:
        """The model's own module, also when a site stands there already."""
        return self.module.base if isinstance(self.module, LinearSite) else self.module

    @property
    def like(self) -> torch.Tensor:
        """A tensor whose dtype and device the adapter follows."""
        if self.kind == "linear":
            return weight_of(self.base)
        if self.attention is not None:
            return weight_of(self.attention.projection("q"))
        return next((p for p in self.module.parameters() if p.is_floating_point()), torch.empty(0))

    @property
    def device(self) -> torch.device:
        """Where the layer computes, also when its weight lies elsewhere between calls."""
        first = next((m for m in self.module.modules() if is_offloaded(m)), None) if self.like.is_meta else None
        found = None if first is None else works_on(first)
        return self.like.device if found is None else found


# ---------------------------------------------------------------- linear


def is_place_for_linear(module: nn.Module) -> bool:
    """Whether a linear adapter can sit here: a linear layer, or one that has adapters already."""
    return isinstance(module, LinearSite) or why_not_linear(module) is None


def linear_place(path: str, module: nn.Module) -> Place:
    """The place of a linear layer; E502 when the module is none, E508 when an attention adapter holds it."""
    if isinstance(module, StandIn) and not isinstance(module, LinearSite):
        raise refuse("E508", f"{path}: an adapter or a saved module ({type(module).__name__}) stands there already",
                     suggestion="detach it first, or leave this layer out with exclude=")
    if isinstance(module, LinearSite) and module.path != path:
        raise refuse("E508", f"{path}: the layer there was adapted by hand and put into the model",
                     suggestion="put the plain layer back, or leave this one out with exclude=")
    base = module.base if isinstance(module, LinearSite) else module
    reason = why_not_linear(base) or (why_no_product(base) if base is module else None)
    if reason is not None:
        raise refuse("E502", f"{path}: {reason}", suggestion=f'leave it out: exclude=[r"{path}"]')
    if any(isinstance(child, Site) for child in base.children()):
        raise refuse("E508", f"{path}: an adapter edits what this layer puts out already", suggestion="detach it first")
    m, n = weight_of(base).shape
    return Place("linear", path, module, {"m": m, "n": n})


def heads_of(model: nn.Module) -> list[str]:
    """The paths of the output heads: the module of ``get_output_embeddings()`` and modules called as in ``HEADS``."""
    ask = getattr(model, "get_output_embeddings", None)
    try:
        output = ask() if callable(ask) else None
    except (NotImplementedError, AttributeError):  # what models without one answer
        output = None
    return [path for path, module in walk(model)
            if path and (module is output or path.rsplit(".", 1)[-1] in HEADS)]


def foreign_parts(model: nn.Module) -> list[str]:
    """The paths of what another library put beside a layer of the model: what PEFT's layers call their adapters."""
    found: list[str] = []
    for path, module in walk(model):
        names = getattr(type(module), "adapter_layer_names", None)
        if isinstance(names, tuple) and "base_layer" in dict(module.named_children()):
            found.extend(f"{path}.{name}" if path else str(name) for name in names)
    return found


def all_linear(model: nn.Module) -> list[str]:
    """The paths of every linear layer that is not part of an output head, nor of another library's adapter; also of
    those that cannot be taken as they are (quantised, or without a weight so far), so that they are refused by name and
    not left out in silence."""
    heads = (*heads_of(model), *foreign_parts(model))
    under = tuple(head + "." for head in heads)
    return [path for path, module in walk(model)
            if (is_place_for_linear(module) or _is_linear_in_name(module))
            and path not in heads and not path.startswith(under)]


def _is_linear_in_name(module: nn.Module) -> bool:
    """Whether a module is a linear layer whose weight cannot be read as a matrix of numbers."""
    if isinstance(module, (nn.modules.linear.NonDynamicallyQuantizableLinear, StandIn)):
        return False
    return isinstance(module, nn.Linear) or (stored_as(module) is not None and "Linear" in type(module).__name__)


# ---------------------------------------------------------------- hidden


def blocks(model: nn.Module) -> tuple[str, list[str]]:
    """The model's list of blocks: the longest ``nn.ModuleList`` of one class that is in no other such list.

    Its path and the paths of its blocks. E511 when there is none, or two that are equally long (an encoder and a
    decoder).
    """
    lists: list[tuple[str, int]] = []
    for path, module in walk(model):
        outer = any(path.startswith(other + ".") for other, _ in lists)
        if not outer and isinstance(module, nn.ModuleList) and len(module) and len({type(b) for b in module}) == 1:
            lists.append((path, len(module)))
    longest = max((length for _, length in lists), default=0)
    best = [path for path, length in lists if length == longest]
    if len(best) != 1:
        found = f"there are {len(best)} of {longest} blocks: {', '.join(best)}" if best else "there is none"
        raise refuse("E511", f"this model has no single list of blocks to take as layers: {found}",
                     suggestion=f'name the blocks: targets=r"{best[0]}\\.\\d+"' if best else 'name them: targets=[…]')
    path = best[0]
    return path, [f"{path}.{i}" if path else str(i) for i in range(longest)]


def chosen_layers(layers: str | Sequence[int], paths: Sequence[str]) -> list[str]:
    """The blocks that ``layers`` names: "all", or numbers from 0 (negative ones from the end)."""
    if isinstance(layers, str):
        if layers != "all":
            raise refuse("E511", f'layers={layers!r} is not understood', suggestion='layers="all" or layers=[3, 7]')
        return list(paths)
    wrong = [i for i in layers if not -len(paths) <= i < len(paths)]
    if wrong:
        raise refuse("E503", f"layers: there is no block {', '.join(map(str, wrong))}; this model has {len(paths)}, "
                     f"numbered from 0")
    numbers = sorted({i % len(paths) for i in layers})
    return [paths[i] for i in numbers]


def hidden_place(path: str, module: nn.Module, ancestors: Sequence[nn.Module]) -> Place:
    """The place of a block; E502 when the width of what it puts out cannot be told."""
    if isinstance(module, StandIn):
        raise refuse("E508", f"{path}: an adapter or a saved module ({type(module).__name__}) stands there already",
                     suggestion="detach it first, or name the block around it")
    width = _width(module, ancestors)
    if width is None:
        raise refuse("E502", f"{path}: neither a configuration nor a norm or linear layer in it tells the width of its "
                     "hidden states", suggestion="give the model a config with hidden_size")
    return Place("hidden", path, module, {"d": width})


def _width(module: nn.Module, ancestors: Sequence[nn.Module]) -> int | None:
    """d: of the nearest configuration, else of the block's first norm, else the first linear layer's input."""
    for owner in (module, *reversed(ancestors)):
        config = getattr(owner, "config", None)
        if config is not None:
            config = config.get_text_config() if hasattr(config, "get_text_config") else config
            for name in ("hidden_size", "n_embd", "d_model", "dim"):
                if isinstance(getattr(config, name, None), int):
                    return cast(int, getattr(config, name))
    inside = [part for _, part in walk(module)]
    for part in inside:
        weight = dict(part.named_parameters(recurse=False)).get("weight")
        if "norm" in type(part).__name__.lower() and weight is not None and weight.dim() == 1:
            return weight.shape[0]
    return next((weight_of(getattr(part, "base", part)).shape[1] for part in inside if is_place_for_linear(part)), None)


# ---------------------------------------------------------------- all kinds


def with_ancestors(model: nn.Module) -> dict[str, tuple[nn.Module, tuple[nn.Module, ...]]]:
    """Every path with its module and the modules above it, the model first."""
    found: dict[str, tuple[nn.Module, tuple[nn.Module, ...]]] = {}
    for path, module in walk(model):
        if not path:
            found[path] = (module, ())
            continue
        above, ancestors = found[path.rpartition(".")[0]]
        found[path] = (module, (*ancestors, above))
    return found


def attentions(model: nn.Module) -> list[str]:
    """The paths of modules that look like an attention: those of a known layout, and those with fused projections."""
    every = with_ancestors(model)
    return [path for path, (module, above) in every.items()
            if projections(module, above[-1] if above else None) is not None]


def place(kind: Kind, model: nn.Module, paths: Sequence[str]) -> Iterator[Place]:
    """The places at these paths, for adapters of one kind of site."""
    every = with_ancestors(model)
    for path in paths:
        module, ancestors = every[path]
        if kind == "linear":
            yield linear_place(path, module)
        elif kind == "hidden":
            yield hidden_place(path, module, ancestors)
        else:
            attention = read_attention(path, module, ancestors)
            yield Place("attention", path, module, attention.sizes, attention)


def fused_attentions(model: nn.Module) -> list[str]:
    """The paths of projections that make Q, K and V in one, which an attention site cannot take."""
    return [f"{path}.{name}" for path, module in walk(model) if (name := fused(module)) is not None]
