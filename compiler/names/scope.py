"""Names in force at a place of a program, and how a name is taken apart at its subscript.

``A_i``, ``Aᵢ`` and ``A_{i}`` have one key, so a name is found however its subscript was typed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, cast

from padp.compiler.ir.budget import spend
from padp.compiler.names.terms import Term
from padp.dsl.source import Span

Kind: TypeAlias = Literal["number", "index", "tensor", "constant"]

SUBSCRIPTS: Mapping[str, str] = MappingProxyType(
    dict(zip("₀₁₂₃₄₅₆₇₈₉ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ", "0123456789aehijklmnoprstuvxβγρφχ", strict=True))
)


def plain(text: str) -> str:
    """Subscript glyphs as ordinary letters: the index of ``Σₜ`` is t."""
    return "".join(SUBSCRIPTS.get(c, c) for c in text)


def split(text: str) -> tuple[str, str] | None:
    """Base and subscript of ``aᵢ``, ``R₁₂``, ``λ_b``; None when there is none, or when primes follow it."""
    at = len(text)
    while at and text[at - 1] in SUBSCRIPTS:
        at -= 1
    if 0 < at < len(text):
        return text[:at].removesuffix("_"), plain(text[at:])
    base, line, sub = text.rpartition("_")
    return (base, sub) if line and base and sub.isalnum() else None


def key(text: str) -> str:
    """What two spellings of one name have in common."""
    parts = split(text)
    return text if parts is None else f"{parts[0]}_{parts[1]}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A bound name. ``family`` and ``item`` are its symbolic axes where they are known; ``size`` is the n of an index
    that runs over range(n)."""

    name: str
    kind: Kind
    span: Span
    family: tuple[Term, ...] | None = None
    item: tuple[Term, ...] | None = None
    size: Term | None = None
    learned: bool = False


class Scope:
    """What is bound. ``value_of`` holds the values of names that are wrongly dimensions as well."""

    def __init__(self, entries: dict[str, Entry] | None = None, value_of: dict[str, Entry] | None = None) -> None:
        self._entries: dict[str, Entry] = dict(entries or {})
        self.value_of: dict[str, Entry] = dict(value_of or {})

    def inner(self) -> Scope:
        """A copy for the body of a loop, a sum or a function."""
        return Scope(self._entries, self.value_of)

    def bind(self, entry: Entry) -> None:
        self._entries[key(entry.name)] = entry

    def alias(self, text: str, known: str) -> None:
        """A name that has been refused stands for the one that was meant."""
        self._entries[key(text)] = self._entries[key(known)]

    def find(self, text: str) -> Entry | None:
        return self._entries.get(key(text))

    def names(self) -> Iterator[str]:
        return (e.name for e in self._entries.values())

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries.values()))


def nearest(text: str, known: Iterable[str]) -> list[str]:
    """At most three names that look like ``text``; of very many names the first ones are looked at."""
    near = sorted(set(known) - {text})[:_LOOKED_AT]
    spend(10 * len(near))
    return get_close_matches(text, near, n=3, cutoff=0.5)


_LOOKED_AT = 200


def walk(tree: Any) -> Iterator[Any]:
    """Every node of a term or a syntax tree, itself included, outermost first."""
    stack: list[Any] = [tree]
    count = 0
    spend(2)
    while stack:
        node = stack.pop()
        if isinstance(node, tuple):
            stack.extend(reversed(node))
            continue
        parts = _parts_of(type(node))
        if parts is None:
            continue
        count += 1
        if not count & 15:
            spend(8)
        yield node
        for part in parts:
            stack.append(getattr(node, part))


@lru_cache(maxsize=256)
def _parts(kind: Hashable) -> tuple[str, ...] | None:
    """The fields of a kind of node, last first, without its place; None for what is no node."""
    if not isinstance(kind, type) or not is_dataclass(kind) or kind is Span:
        return None
    return tuple(f.name for f in reversed(fields(kind)) if f.name != "span")


_parts_of = cast("Callable[[type], tuple[str, ...] | None]", _parts)  # to mypy a type is not Hashable


def nowhere(tree: Any) -> Any:
    """The same term without places, for terms that stand in another text (the prelude)."""
    if isinstance(tree, tuple):
        return tuple(nowhere(part) for part in tree)
    if is_dataclass(tree) and not isinstance(tree, (type, Span)):
        changed = {f.name: nowhere(getattr(tree, f.name)) for f in fields(tree) if f.name != "span"}
        return replace(tree, **changed, **({"span": Span(0, 0)} if hasattr(tree, "span") else {}))
    return tree
