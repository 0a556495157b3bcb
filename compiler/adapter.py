"""``padp.compile``: from a file, a name of the library or program text to an Adapter; from an Adapter to a layer.

    adapter = compile("oft")             parsed, resolved and typed; no torch yet
    layer = adapter(linear, k=32)        solved for the layer's sizes, planned, and given tensors
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import sympy as sp

from padp.compiler import phases
from padp.compiler.ir.dims import show
from padp.compiler.library import load, tree
from padp.compiler.names.terms import Method, Negate, Number, Term, Text
from padp.compiler.phases import Variant
from padp.compiler.sizes.settings import plain, whole, writable
from padp.dsl.diagnostics import refuse
from padp.dsl.source import Source
from padp.dsl.spellings import ascii_name, glyph_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from padp.compiler.facts.abilities import Capability
    from padp.compiler.graph.compile import Compiled
    from padp.compiler.module.module import AdapterModule
    from padp.compiler.module.shared import SharedStore


class _Required:
    """The default of a hyperparameter that has none."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = _Required()


@dataclass(frozen=True)
class Settings:
    """A variant and the value of every hyperparameter, by its name as written."""

    variant: str | None
    hyper: Mapping[str, Any]


@dataclass(frozen=True, repr=False)
class Adapter:
    """A compiled program: call it with a layer. Immutable; equal text gives an equal adapter."""

    source: Source

    # ------------------------------------------------------------ what the text says

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants, the default first; () when there are none."""
        return phases.program(self.source).variants

    def method(self, variant: str | None = None) -> Method:
        """The resolved program of a variant (E208 for one that does not exist)."""
        return self.of(variant).method

    def of(self, variant: str | None = None) -> Variant:
        """A variant on its way through the compiler (E208 for one that does not exist)."""
        return phases.program(self.source).variant(self._variant(variant))

    def _variant(self, variant: str | None) -> str | None:
        if variant is None:
            return self.variants[0] if self.variants else None
        if variant not in self.variants:
            raise refuse("E208", f"{self.name} has no variant {variant!r}", source=self.source,
                         suggestion=" or ".join(self.variants) if self.variants else "it has none: leave variant out")
        return variant

    @property
    def name(self) -> str:
        header = tree(self.source).header
        return header.name if header is not None else "block"

    @property
    def title(self) -> str:
        return self.method().title

    @property
    def site(self) -> str:
        """'linear', 'hidden' or 'attention'."""
        return self.method().site

    @property
    def hash(self) -> str:
        """sha256 of the program text."""
        return hashlib.sha256(self.source.text.encode()).hexdigest()

    @cached_property
    def hyper(self) -> Mapping[str, Any]:
        """Hyperparameters and knobs with their defaults; REQUIRED where there is none."""
        return {h.name: _plain(h.default) for h in self.method().hyper}

    @property
    def parameters(self) -> Mapping[str, str]:
        """Declared tensors by symbol: space and role, as in ``ℝ^{r×n}, learned``."""
        return self.of().counts.spaces

    @property
    def count(self) -> sp.Expr:
        """Learned scalars a site, exactly: for OFT n(k − 1)/2."""
        return self.of().counts.total

    def count_of(self, variant: str | None = None) -> sp.Expr:
        """``count`` of a variant."""
        return self.of(variant).counts.total

    @cached_property
    def capabilities(self) -> Mapping[str, Capability]:
        """What this adapter can do, each with the reason (default variant)."""
        return self.capabilities_of()

    def capabilities_of(self, variant: str | None = None) -> Mapping[str, Capability]:
        """``capabilities`` of a variant."""
        return {c.name: c for c in self.of(variant).capabilities}

    def __repr__(self) -> str:
        hyper = ", ".join(f"{k}={v}" for k, v in self.hyper.items())
        variants = f"; variants {', '.join(self.variants)}" if self.variants else ""
        count = f"{show(self.count)} learned scalars a site"
        return f"<padp adapter {self.name}({hyper}) on {self.site}: {count}{variants}>"

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in self.parameters.items())
        return (f"<b>{escape(self.name)}</b>: {escape(self.title)}<br>{escape(show(self.count))} learned scalars a site"
                f"<table>{rows}</table><pre>{escape(self.source.text)}</pre>")

    # ------------------------------------------------------------ settings

    def settings(self, variant: str | None = None, **hyper: Any) -> Settings:
        """Validated settings: Greek or ASCII names, every hyperparameter given or defaulted.

        Raises PadpError E507 for an unknown, missing or unusable hyperparameter, E208 for an unknown variant.
        """
        chosen = self._variant(variant)
        method = self.method(chosen)
        known = {h.name: h for h in method.hyper}
        values: dict[str, Any] = {}
        for given, value in hyper.items():
            name = given if given in known else glyph_name(given)
            if name not in known:
                raise refuse("E507", f"{self.name} has no hyperparameter {given!r}", source=self.source,
                             suggestion=f"it has {', '.join(_both(n) for n in known) or 'none'}")
            if name in values:
                raise refuse("E507", f"{_both(name)} is given twice", source=self.source)
            values[name] = _checked(self.name, name, _plain(known[name].default), value)
        for name, h in known.items():
            if name not in values:
                default = _plain(h.default)
                if default is REQUIRED:
                    raise refuse("E507", f"{self.name} needs {_both(name)}: it has no default", h.span,
                                 source=self.source, suggestion=f"{ascii_name(name)}=…")
                values[name] = default
        for name, value in method.options:
            values.setdefault(name, value.value if isinstance(value, Text) else _plain(value))
        return Settings(chosen, values)

    # ------------------------------------------------------------ compiling

    def compiled(self, sizes: Mapping[str, int], variant: str | None, hyper: Mapping[str, Any],
                 has_bias: bool | frozenset[str], where: str = "") -> tuple[Compiled, dict[str, int]]:
        """The graphs for these sizes, and all dimensions. Equal sizes are compiled once."""
        known = self.of(variant)
        numbers = {k: v for k, v in hyper.items() if not any(h.knob and h.name == k for h in known.method.hyper)}
        sized = known.at(sizes, numbers, where)
        return sized.compiled(has_bias), dict(sized.sizes)

    def shared_shapes(self, sizes: Mapping[str, int], variant: str | None, hyper: Mapping[str, Any]
                      ) -> dict[str, tuple[int, ...]]:
        """The shapes of shared tensors that a site of these sizes needs, by key."""
        from padp.compiler.module.starting import seed_of, shared_key

        method = self.method(variant)
        if not any(p.shared for p in method.parameters):
            return {}
        compiled, _ = self.compiled(sizes, variant, hyper, True)
        found: dict[str, tuple[int, ...]] = {}
        for name, p in compiled.parameters.items():
            if p.declaration.shared:
                key = shared_key(self.name, self.hash, variant, name, seed_of(p, hyper, 0), p.start)
                found[key] = tuple(int(d) for d in p.stored)
        return found

    def build(self, sizes: Mapping[str, int], *, variant: str | None, hyper: Mapping[str, Any],
              weight: Tensor | Mapping[str, Tensor] | None, bias: Tensor | None, dtype: torch.dtype,
              device: torch.device, dropout: float = 0.0, seed: int = 0,
              shared: SharedStore | None = None) -> AdapterModule:
        """An adapter module for a site of these sizes."""
        from padp.compiler.module.module import AdapterModule

        has_bias: bool | frozenset[str] = bias is not None
        if isinstance(weight, Mapping):
            has_bias = frozenset(k for k in weight if k.startswith("b_"))
        compiled, solved = self.compiled(sizes, variant, hyper, has_bias)
        return AdapterModule(self, compiled, variant, hyper, solved, weight=weight, bias=bias, dtype=dtype,
                             device=device, dropout=dropout, seed=seed, shared=shared)

    def __call__(self, module: nn.Module, *, name: str = "default", variant: str | None = None,
                 dtype: torch.dtype | None = None, dropout: float = 0.0, seed: int | None = None,
                 **hyper: Any) -> nn.Module:
        """A layer that stands in for ``module`` (nn.Linear or transformers' Conv1D) with this adapter active.

        The base's own parameters are frozen. ``seed`` is what random starts are drawn from, and the hyperparameter
        of that name where the program has one. Raises PadpError E502 for a module that this site does not take.
        """
        from padp.compiler.module.ambient import at_rest

        if self.site != "linear":
            raise refuse("E502", f"{self.name} works on a {self.site} site, not on one layer",
                         suggestion=f"padp.attach(model, padp.compile({self.name.lower()!r}))")
        if seed is not None and "seed" in self.hyper:
            hyper["seed"] = seed
        with at_rest():
            return self._on_layer(module, name, self.settings(variant, **hyper), dtype, dropout, seed or 0)

    def _on_layer(self, module: nn.Module, name: str, chosen: Settings, dtype: torch.dtype | None, dropout: float,
                  seed: int) -> nn.Module:
        import torch as torch_

        from padp.compiler.module.linear_layer import bias_of, weight_of, why_not_linear
        from padp.compiler.module.site import LinearSite
        from padp.compiler.module.weights import why_no_product, why_unreadable

        reason = why_not_linear(module) or why_no_product(module)
        if reason is not None:
            raise refuse("E502", reason)
        weight = weight_of(module)
        sizes = dict(zip(_weight_dims(self.method(chosen.variant)), weight.shape, strict=True))
        reason = why_unreadable(module)
        if reason is not None:
            compiled, _ = self.compiled(sizes, chosen.variant, chosen.hyper, bias_of(module) is not None)
            if compiled.reads:
                raise refuse("E502", f"{reason}, and {self.name} reads {' and '.join(sorted(compiled.reads))}")
        built = self.build(sizes, variant=chosen.variant, hyper=chosen.hyper,
                           weight=weight if reason is None else None, bias=bias_of(module),
                           dtype=dtype or torch_.promote_types(weight.dtype, torch_.float32), device=weight.device,
                           dropout=dropout, seed=seed)
        for p in module.parameters():
            p.requires_grad_(False)
        site = LinearSite(module)
        site.add(name, built)
        site.activate([name])
        return site


def _weight_dims(method: Method) -> tuple[str, ...]:
    """The names of W's rows and columns."""
    from padp.compiler.names.terms import Var

    space = next((x.space for x in method.bound if x.name == "W"), None)
    dims = space.dims if space is not None else ()
    return tuple(d.name for d in dims if isinstance(d, Var))


def _plain(default: Term | None) -> Any:
    match default:
        case None:
            return REQUIRED
        case Number(value) | Text(value):
            return value
        case Negate(Number(value)):
            return -value
        case _:
            from padp.compiler.sizes.solve import symbolic

            value = symbolic(default, {})
            return float(value) if not getattr(value, "is_integer", False) else int(value)


def _both(name: str) -> str:
    plain = ascii_name(name)
    return name if plain == name else f"{name} ({plain})"


def _checked(adapter: str, name: str, default: Any, value: Any) -> Any:
    """A hyperparameter's value, of the kind of its default, as a plain number or text."""
    if isinstance(default, str):
        text = plain(value)
        if not isinstance(text, str):
            raise refuse("E507", f"{adapter}: {_both(name)} is a text like {default!r}, not {value!r}")
        return writable(f"{adapter}: {_both(name)} =", text)
    made = plain(value)
    if isinstance(made, bool) or not isinstance(made, (int, float)):
        raise refuse("E507", f"{adapter}: {_both(name)} is a number, not {value!r}")
    if isinstance(made, int):
        return whole(f"{adapter}: {_both(name)}", made)
    if not math.isfinite(made):
        raise refuse("E507", f"{adapter}: {_both(name)} = {made}")
    return int(made) if isinstance(default, int) and made.is_integer() else made


def compile(program: str | PathLike[str], module: nn.Module | None = None, **settings: Any) -> Any:
    """The adapter of a path, of a name of the library ("oft"), or of program text.

    With a layer as second argument, the adapted layer: ``compile("oft", linear, k=32)`` is
    ``compile("oft")(linear, k=32)``.

    Raises PadpError with every finding when the program has errors.
    """
    adapter = Adapter(load(program))
    phases.require(adapter.source)
    return adapter if module is None else adapter(module, **settings)
