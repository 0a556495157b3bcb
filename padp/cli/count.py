"""``padp count FILE``: learned scalars, as a formula, for one site, or for a model on disk. Never imports torch."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy as sp

from padp.cli.options import Usage, adapter_of, hyperparameters, open_model, site_sizes, sizes_of
from padp.cli.output import console, number, plural, progress, share, table
from padp.cli.targets import remarks, suffix
from padp.compiler.adapter import Adapter, Settings
from padp.compiler.ir.dims import show
from padp.compiler.names.scope import walk
from padp.compiler.names.terms import Method, Var
from padp.compiler.sizes.solve import solve
from padp.dsl.diagnostics import Diagnostic, PadpError
from padp.dsl.spellings import glyph_name
from padp.weights import StoredModel, chosen


@dataclass(frozen=True, slots=True)
class Row:
    """Sites that are alike: their name, sizes, how many there are, and what one of them learns."""

    name: str
    sizes: Mapping[str, int]
    sites: int
    each: int


def run(arguments: Namespace) -> int:
    adapter = adapter_of(arguments.file)
    settings = adapter.settings(arguments.variant, **counted_with(adapter, arguments))
    method = adapter.method(settings.variant)
    formula = adapter.count_of(settings.variant)
    out = console()
    variant = f", variant {settings.variant} of {', '.join(adapter.variants)}" if settings.variant else ""
    out.print(f"{adapter.name}{variant}: {show(formula)} learned scalars a site", style="bold")
    values = said(settings, formula)
    if values:
        out.print(f"with {values}")
    if arguments.size:
        given = sizes_of(method, arguments.size)
        out.print(f"{', '.join(f'{k} = {v}' for k, v in given.items())}: {number(evaluated(adapter, settings, given))}")
    elif arguments.model:
        model = open_model(arguments.model)
        rows = _rows(adapter, settings, _sites(method, model, arguments))
        _print_model(rows, model, method.site)
    return 0


def counted_with(adapter: Adapter, arguments: Namespace) -> dict[str, object]:
    """The hyperparameters that were given, and 1 for those that must be given but that no count depends on."""
    given = dict(hyperparameters(arguments.set))
    method = adapter.method(arguments.variant)
    said = {glyph_name(name) for name in given}
    counts = {str(symbol) for symbol in adapter.count_of(arguments.variant).free_symbols}
    relations = {node.name for node in walk(method.relations) if isinstance(node, Var)}
    for hyper in method.hyper:
        if hyper.default is None and hyper.name not in {*said, *counts, *relations}:
            given[hyper.name] = 1
    return given


def said(settings: Settings, formula: sp.Expr) -> str:
    """The hyperparameters that the count depends on, with their values."""
    names = {str(symbol) for symbol in formula.free_symbols}
    return ", ".join(f"{name} = {value}" for name, value in settings.hyper.items() if name in names)


def evaluated(adapter: Adapter, settings: Settings, given: Mapping[str, int], where: str = "") -> int:
    """The count at a site of these sizes. Raises PadpError E501 when they break a relation."""
    known = {**settings.hyper, **solve(adapter.method(settings.variant), given, settings.hyper, where)}
    formula = adapter.count_of(settings.variant)
    return int(formula.subs({symbol: known[str(symbol)] for symbol in formula.free_symbols}))


def _sites(method: Method, model: StoredModel, arguments: Namespace) -> list[tuple[str, dict[str, int]]]:
    """Name and sizes of every site in the model."""
    if method.site == "linear":
        layers = chosen(model.linears, arguments.targets, arguments.exclude)
        if not layers:
            raise Usage(f"{model.path} has no linear layer to attach to")
        return [(layer.name, site_sizes(method, {"m": layer.m, "n": layer.n})) for layer in layers]
    if arguments.targets != "all-linear" or arguments.exclude:
        raise Usage(f"--targets and --exclude choose linear layers; {method.name} works on {method.site} sites")
    given = model.hidden_sizes() if method.site == "hidden" else model.attention_sizes()
    return [(f"layer {i}", site_sizes(method, given)) for i in range(model.layers)]


def _rows(adapter: Adapter, settings: Settings, sites: Sequence[tuple[str, dict[str, int]]]) -> list[Row]:
    """Sites of one suffix and one shape together. All sizes that break a relation are refused at once."""
    alike: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for name, given in sites:
        alike.setdefault(tuple(given.items()), []).append(name)
    counts: dict[tuple[tuple[str, int], ...], int] = {}
    broken: list[Diagnostic] = []
    with progress() as bar:
        for key, names in bar.track(alike.items(), description="counting"):
            where = names[0] if len(names) == 1 else f"{names[0]} and {plural(len(names) - 1, 'other')}"
            try:
                counts[key] = evaluated(adapter, settings, dict(key), where)
            except PadpError as error:
                broken += error.diagnostics
    if broken:
        raise PadpError(broken)
    groups = Counter((suffix(name) if adapter.site == "linear" else "every layer", tuple(given.items()))
                     for name, given in sites)
    return [Row(label, dict(key), times, counts[key]) for (label, key), times in groups.items()]


def _print_model(rows: Sequence[Row], model: StoredModel, site: str) -> None:
    out = console()
    drawn = table("suffix" if site == "linear" else "site", "sizes", ">sites", ">each", ">all")
    for row in rows:
        text = ", ".join(f"{k} = {v}" for k, v in row.sizes.items())
        drawn.add_row(row.name, text, number(row.sites), number(row.each), number(row.each * row.sites))
    out.print(drawn)
    total = sum(row.each * row.sites for row in rows)
    out.print(
        f"{plural(sum(row.sites for row in rows), 'site')}, {number(total)} learned scalars: "
        f"{share(total, model.scalars)} of the model's {number(model.scalars)}"
    )
    for remark in remarks(model) if site == "linear" else ():
        out.print(remark, style="dim")
