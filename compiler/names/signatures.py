"""Which functions there are, and how many arguments they take: the operator table, and what only some places know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from padp.compiler.operators.table import ALIASES, OPERATORS


@dataclass(frozen=True, slots=True)
class Signature:
    """Least and greatest number of positional arguments, and the keywords."""

    arity: tuple[int, int]
    keywords: tuple[str, ...] = ()


ATTENTION_PARTS = ("q", "k", "v", "o")
# Read by the compiler itself: loops, the attention site, and what happens after backward.
LANGUAGE: Mapping[str, Signature] = MappingProxyType({
    "range": Signature((1, 2)),
    "attn": Signature((0, 4), ATTENTION_PARTS),
    "ema": Signature((2, 2)),
    "keep": Signature((3, 3), ("over",)),
    "cubic": Signature((3, 5)),
})
AFTER_BACKWARD_ONLY = frozenset({"ema", "keep", "cubic"})
INITIALISERS: Mapping[str, Signature] = MappingProxyType({
    "kaiming": Signature((0, 1)),
    "kaiming_normal": Signature((0, 0)),
    "xavier": Signature((0, 0)),
    "normal": Signature((1, 2)),
    "uniform": Signature((2, 2)),
    "trunc_normal": Signature((2, 2)),
    "orthogonal": Signature((0, 0)),
    "pairs": Signature((1, 1)),
    "unit_std": Signature((1, 1)),
})
RANDOM = frozenset(INITIALISERS) - {"pairs", "unit_std"}
# The family of a value is that of its operands, except where an operator is about families.
REARRANGES = frozenset({
    "blkdiag", "reshape", "flatten", "blocks", "assemble", "family", "rows", "grouped", "repeat", "perm", "len",
    "ones", "zeros", "eye",
})


def canonical(name: str) -> str:
    """An alias's real name: ``iFFT2`` is ``ifft2``."""
    return ALIASES.get(name, name)


def signature(name: str) -> Signature | None:
    """The signature of a built-in function, or None."""
    if name in LANGUAGE:
        return LANGUAGE[name]
    operator = OPERATORS.get(canonical(name))
    return None if operator is None else Signature(operator.arity, operator.keywords)


def builtin_names() -> list[str]:
    """Every name that a function can be called by without being defined."""
    return [*LANGUAGE, *OPERATORS, *ALIASES]
