"""What is on a model and what could be: ``summary`` and ``targets``, frozen records that draw themselves as tables."""

from __future__ import annotations

import html
import io
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.parameter import UninitializedParameter

from padp.compiler.ir.dims import show
from padp.compiler.module.linear_layer import weight_of
from padp.compiler.module.site import LinearSite
from padp.compiler.module.weights import why_no_product
from padp.dsl.diagnostics import PadpError
from padp.models.heads import fused, read_attention
from padp.models.merging import mergeables
from padp.models.notes import notes_on
from padp.models.outside import outside
from padp.models.places import (
    attentions,
    blocks,
    heads_of,
    hidden_place,
    is_place_for_linear,
    with_ancestors,
)
from padp.models.record import holder, record_of, sites_of
from padp.models.saved import saved_modules
from padp.models.walk import walk

_WIDTH = 118


class Drawn:
    """A record with a table: in a terminal through rich, as text in ``repr``, as HTML in a notebook."""

    def __rich__(self) -> Table:
        raise NotImplementedError

    def __repr__(self) -> str:
        console = Console(file=io.StringIO(), width=_WIDTH, color_system=None, legacy_windows=False)
        with console.capture() as capture:
            console.print(self.__rich__())
        return "\n".join(line.rstrip() for line in capture.get().splitlines())

    def _repr_html_(self) -> str:
        return f"<pre style='line-height:1.2'>{html.escape(repr(self))}</pre>"


# ---------------------------------------------------------------- summary


@dataclass(frozen=True)
class SiteSummary:
    """One adapter at one site. ``count`` is what it learns there."""

    path: str
    kind: str
    adapter: str
    name: str
    variant: str | None
    sizes: dict[str, int]
    formula: str
    count: int
    active: bool
    merged: bool


@dataclass(frozen=True, repr=False)
class Summary(Drawn):
    """The adapters of a model. ``base`` counts the model's own parameters, ``saved`` those of modules trained whole,
    ``shared`` the frozen ones that sites have in common, ``outside`` those in matrices that are no layer of their own
    (experts in one tensor), which "all-linear" leaves out; ``notes`` say what is seldom meant."""

    sites: tuple[SiteSummary, ...]
    base: int
    saved: int
    shared: int
    outside: int = 0
    notes: tuple[str, ...] = ()

    @cached_property
    def learned(self) -> int:
        """The learned scalars of all adapters."""
        return sum(site.count for site in self.sites)

    @cached_property
    def share(self) -> float:
        """What is trained, as a share of the model's own parameters."""
        return (self.learned + self.saved) / self.base if self.base else 0.0

    def __rich__(self) -> Table:
        table = Table(title=None, caption="\n".join((self.total, *self.notes)), caption_justify="left")
        for heading in ("site", "adapter", "sizes", "formula"):
            table.add_column(heading, overflow="fold")
        table.add_column("learned", justify="right")
        for label, group in _alike(self.sites):
            first = group[0]
            adapter = first.adapter + (f", {first.variant}" if first.variant else "")
            state = "" if first.active else " (not active)"
            table.add_row(label, f"{first.name}: {adapter}{state}{' (merged)' if first.merged else ''}",
                          ", ".join(f"{k}={v}" for k, v in first.sizes.items()), first.formula,
                          f"{len(group)} × {first.count:,}" if len(group) > 1 else f"{first.count:,}")
        return table

    @property
    def total(self) -> str:
        """One line: sites, learned scalars, share."""
        more = (f" + {self.saved:,} in saved modules" if self.saved else "")
        shared = f"; {self.shared:,} frozen and shared" if self.shared else ""
        part = self.outside / self.base if self.base else 0.0
        outside = f"; {100 * part:.1f} % of it is in matrices that are no linear layer" if part > 0.001 else ""
        return (f"{len(self.sites)} sites, {self.learned:,} learned{more}: {100 * self.share:.3f} % of "
                f"{self.base:,}{shared}{outside}")


def _alike(sites: tuple[SiteSummary, ...]) -> list[tuple[str, list[SiteSummary]]]:
    """Sites that differ in the numbers of their path only, together under one label (``layers.*.q_proj``)."""
    groups: dict[tuple[object, ...], list[SiteSummary]] = {}
    for site in sites:
        label = ".".join("*" if part.isdigit() else part for part in site.path.split("."))
        key = (label, site.name, site.variant, tuple(site.sizes.items()), site.count, site.formula, site.active,
               site.merged)
        groups.setdefault(key, []).append(site)
    return [(str(key[0]) if len(group) > 1 else group[0].path, group) for key, group in groups.items()]


def summary(model: nn.Module) -> Summary:
    """The adapters of a model: sites, learned scalars by formula and number, share of the model."""
    try:
        root = holder(model)
    except PadpError:
        root = model
    record = record_of(root)
    rows: list[SiteSummary] = []
    ours: set[int] = set()
    shared: set[int] = set()
    merged = {part.path: part.merged for part in mergeables(root)}
    for name, one in record.attached.items():
        for path, site in sites_of(root, name).items():
            module, learned = site.module(name), site.learned(name)
            rows.append(SiteSummary(
                path, site.kind, one.adapter.name, name, module.variant, dict(module.sizes),
                show(one.adapter.count_of(module.variant)), sum(p.numel() for p in learned), name in site.active,
                name in merged.get(site.path, ())))
            ours.update(id(p) for p in module.parameters())
            shared.update({id(p) for p in module.parameters()} - {id(p) for p in learned})
    saved = [p for module in saved_modules(root) for copy in module.copies.values() for p in copy.parameters()]
    ours.update(map(id, saved))
    every = [p for p in root.parameters() if not isinstance(p, UninitializedParameter)]
    return Summary(tuple(rows), sum(p.numel() for p in every if id(p) not in ours),
                   sum(p.numel() for p in saved), sum(p.numel() for p in every if id(p) in shared),
                   sum(p.numel() for _, _, p in outside(root)), notes_on(root))


# ---------------------------------------------------------------- targets


@dataclass(frozen=True)
class Target:
    """Modules of one name that an adapter can take. ``note`` says what is special about them."""

    name: str
    kind: str
    module: str
    count: int
    sizes: str
    parameters: int
    note: str = ""


@dataclass(frozen=True, repr=False)
class Targets(Drawn):
    """What adapters could be attached to, by kind of site."""

    rows: tuple[Target, ...]

    def __rich__(self) -> Table:
        table = Table()
        for heading in ("target", "site", "module", "sizes"):
            table.add_column(heading, overflow="fold")
        table.add_column("modules", justify="right")
        table.add_column("scalars", justify="right")
        table.add_column("", overflow="fold")
        for row in self.rows:
            table.add_row(row.name, row.kind, row.module, row.sizes, f"{row.count:,}", f"{row.parameters:,}", row.note)
        return table


def targets(model: nn.Module) -> Targets:
    """What adapters can be attached to: linear layers by the end of their path, blocks, attentions."""
    return Targets((*_linear_targets(model), *_hidden_targets(model), *_attention_targets(model),
                    *_outside_targets(model)))


def _outside_targets(model: nn.Module) -> list[Target]:
    """What no adapter can be attached to: matrices that are no layer of their own, with their share of the model."""
    whole = summary(model).base
    groups: dict[tuple[str, str, str], list[int]] = {}
    for path, owner, parameter in outside(model):
        shape = "×".join(map(str, parameter.shape))
        groups.setdefault((".".join(path.split(".")[-2:]), type(owner).__name__, shape), []).append(parameter.numel())
    return [Target(name, "none", kind, len(sizes), shape, sum(sizes),
                   f'no linear layer, not in "all-linear": {100 * sum(sizes) / whole:.1f} % of the model')
            for (name, kind, shape), sizes in groups.items()]


def _linear_targets(model: nn.Module) -> list[Target]:
    heads = tuple(heads_of(model))
    under = tuple(head + "." for head in heads)
    counts: Counter[tuple[str, str, str, str]] = Counter()
    scalars: Counter[tuple[str, str, str, str]] = Counter()
    for path, module in walk(model):
        if path and is_place_for_linear(module):
            note = 'output head, not in "all-linear"' if path in heads or path.startswith(under) else ""
            base = module.base if isinstance(module, LinearSite) else module
            reason = why_no_product(base) if base is module else None
            m, n = weight_of(base).shape
            key = (path.rsplit(".", 1)[-1], type(base).__name__, f"m={m}, n={n}",
                   note if reason is None else f"cannot be taken: {reason}")
            counts[key] += 1
            scalars[key] += sum(p.numel() for p in base.parameters())
    return [Target(key[0], "linear", key[1], counts[key], key[2], scalars[key], key[3]) for key in counts]


def _hidden_targets(model: nn.Module) -> list[Target]:
    try:
        path, paths = blocks(model)
        every = with_ancestors(model)
        place = hidden_place(paths[0], *every[paths[0]])
    except PadpError:
        return []
    total = sum(p.numel() for name in paths for p in every[name][0].parameters())
    return [Target(f"{path}.*", "hidden", type(place.module).__name__, len(paths), f"d={place.sizes['d']}", total,
                   'layers="all" or [0, …]')]


def _attention_targets(model: nn.Module) -> list[Target]:
    every = with_ancestors(model)
    counts: Counter[tuple[str, str, str, str]] = Counter()
    scalars: Counter[tuple[str, str, str, str]] = Counter()
    for path in dict.fromkeys([*attentions(model), *(p for p, (module, _) in every.items() if fused(module))]):
        module, above = every[path]
        try:
            found = read_attention(path, module, above)
            sizes = ", ".join(f"{k}={v}" for k, v in found.sizes.items())
            note = f"no joint forms of Q and K: {found.between}" if found.between else ""
            own = sum(p.numel() for role in "qkvo" for p in found.projection(role).parameters())
        except PadpError as error:
            sizes, note, own = "", error.diagnostics[0].message.split(": ", 1)[-1], 0
        key = (path.rsplit(".", 1)[-1], type(module).__name__, sizes, note)
        counts[key] += 1
        scalars[key] += own
    return [Target(key[0], "attention", key[1], counts[key], key[2], scalars[key], key[3]) for key in counts]

