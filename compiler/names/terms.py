"""The resolved program: every name has a meaning, every juxtaposition is a call or a product, one variant is chosen.

    method    = Method(header facts, declarations, functions, statements, minimise, updates)
    statement = Let | Write | Loop
    term      = Number | Text | Var | Call | Negate | Arith | Power | Transpose | Inverse | Item | Magnitude | NormOf
              | SumOver | Choose | BlockTerm | Gradient | Letter

``compiler/names/resolve.py`` makes it from the syntax tree; ``compiler/literal/reference.py`` reads it literally;
``compiler/elaborate/elaborate.py`` types it. Nothing here knows of torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from padp.dsl.source import Source, Span

_NOWHERE = Span(0, 0)


# ---------------------------------------------------------------- terms


@dataclass(frozen=True, slots=True)
class Number:
    value: int | float
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Text:
    value: str
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Var:
    """A bound name: tensor, hyperparameter, dimension, loop index, ``I``, ``x``, ``W``, ``bias``, ``π``."""

    name: str
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """An operator of the table or a function of the language, by its canonical name."""

    function: str
    args: tuple[Term, ...]
    kwargs: tuple[tuple[str, Term], ...] = ()
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Negate:
    operand: Term
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Arith:
    """``+ - · @ ⊙ ⊗ / //``. Juxtaposition becomes ``*``: a scalar scales, everything else is the matrix product.
    ``grouped``: it stands in parentheses of its own."""

    op: Literal["+", "-", "·", "@", "⊙", "⊗", "/", "//", "*"]
    left: Term
    right: Term
    span: Span = field(default=_NOWHERE, compare=False, repr=False)
    grouped: bool = field(default=False, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Power:
    """Scalars and vectors: element-wise. Square matrices: the matrix power, for whole exponents ≥ 0. A squared norm
    is this too."""

    base: Term
    exponent: Term
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Transpose:
    operand: Term
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Inverse:
    """``e⁻¹``: of a square matrix, or 1/e of a scalar."""

    operand: Term
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Range:
    """``start:stop:step`` of an index; None is the end of the axis."""

    start: Term | None
    stop: Term | None
    step: Term | None = None
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Item:
    """``base[items]``, from 0. Items run over family axes first, then rows, then columns; what is left out is ``:``."""

    base: Term
    items: tuple[Term | Range, ...]
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Magnitude:
    """``|e|``, element-wise; ``|Ω|``, the size of an index set."""

    operand: Term
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class NormOf:
    """``‖e‖``. Of a vector: axis None. Of a matrix: 'row' (one norm a row), 'col' (one a column) or 'F'."""

    operand: Term
    axis: Literal["row", "col", "F"] | None
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SumOver:
    """``Σ_{i ∈ domain} body``. ``domain`` is ``range(n)`` or an index set; it was found from use when not written."""

    indices: tuple[str, ...]
    domain: Term
    body: Term
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Test:
    """``left op right`` over dimensions; op ``even``/``odd`` has no right side."""

    op: Literal["=", "≠", "<", "≤", ">", "≥", "even", "odd"]
    left: Term
    right: Term | None
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Choose:
    """``then if test else otherwise``, settled by sizes alone."""

    then: Term
    test: Test
    otherwise: Term
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class BlockTerm:
    """``[A, B; C, D]``."""

    rows: tuple[tuple[Term, ...], ...]
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Gradient:
    """``∇w`` in ``after backward``: the gradient of a learned tensor."""

    name: str
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


Term: TypeAlias = (
    Number | Text | Var | Call | Negate | Arith | Power | Transpose | Inverse | Item | Magnitude | NormOf | SumOver
    | Choose | BlockTerm | Gradient
)

def counts_back(index: Term) -> bool:
    """Whether an index is written with a minus in front, ``-1``, ``-k + 1``: then it counts from the end.

    How an index is written says it, not its value, which the sizes decide: ``q - r`` counts from 0, and is refused
    where it is negative.
    """
    match index:
        case Negate():
            return True
        case Arith(op="+" | "-" | "·" | "*" | "/" | "//", left=left):
            return counts_back(left)
        case _:
            return False


# ---------------------------------------------------------------- declarations and statements


@dataclass(frozen=True, slots=True)
class SpaceTerm:
    """A declared space with resolved dimensions. ``index`` is set for ``ℝ^Ω``: one number for each element of Ω."""

    kind: Literal["ℝ", "ℂ", "ℕ", "O", "SO", "St"]
    dims: tuple[Term, ...]
    family: tuple[Term, ...] = ()
    index: str | None = None
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A declared tensor: what is learned, or frozen with a start of its own (random, from a seed)."""

    name: str
    space: SpaceTerm
    role: Literal["learned", "frozen"]
    shared: bool
    init: Term | None
    seed: Term | None
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Function:
    """``g(w) ← e``."""

    name: str
    parameters: tuple[str, ...]
    body: Term
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Let:
    """``a, b ← e``: binds (or rebinds) whole names. ``accumulate`` is ``+=``/``-=`` on a whole name."""

    names: tuple[str, ...]
    value: Term
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Write:
    """``A_{i,:} ← e`` or ``A_{:k} += e``: changes a copy of ``name``, or defines it when it was not bound before."""

    name: str
    items: tuple[Term | Range, ...]
    op: Literal["←", "+=", "-="]
    value: Term
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Loop:
    """``for i in range(r)`` / ``for (i,j,t) in Ω``: literal, in order."""

    variables: tuple[str, ...]
    domain: Term
    body: tuple[Step, ...]
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


Step: TypeAlias = Let | Write | Loop


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """A header entry; ``knob`` may change at run time."""

    name: str
    default: Term | None
    knob: bool
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Bound:
    """A tensor that the site provides: ``W``, ``x``, ``bias``, ``h``, ``W_Q`` …"""

    name: str
    space: SpaceTerm
    span: Span = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Method:
    """One adapter, one variant, all names resolved.

    ``site`` is 'linear', 'hidden' or 'attention'; ``options`` are the site's strings (positions). ``output`` is the
    name that the program defines for the site: ``y`` or ``h``.
    """

    name: str
    title: str
    site: str
    variant: str | None
    hyper: tuple[Hyperparameter, ...]
    bound: tuple[Bound, ...]
    relations: tuple[Test, ...]
    options: tuple[tuple[str, Term], ...]
    parameters: tuple[Parameter, ...]
    functions: tuple[Function, ...]
    body: tuple[Step, ...]
    minimise: tuple[Term, ...]
    updates: tuple[Step, ...]
    output: str
    source: Source
    span: Span = field(default=_NOWHERE, compare=False, repr=False)
