"""The syntax tree: what was written, before anybody asks what the names mean.

    program   = header? statement*
    statement = Declare | Assign | For | Variant | Common | Minimise | AfterBackward | Remark
    expr      = Number | Text | Name | Group | Chain | Juxt | Unary | Binary | Norm | Abs | Sum
              | Conditional | Blocks | Span of an index (Slice) | Dots

Names are kept in canonical glyphs (NFC): ``lambda_b`` and ``λ_b`` are one tree. Whether ``λ_b`` is a name or an
indexed ``λ``, whether ``f(x)`` is a call or a product, is not decided here: see ``compiler/names/identifiers.py``.
Every node has a span of offsets into ``Source.text``; spans do not take part in equality.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from padp.dsl.source import Span

NOWHERE = Span(0, 0)  # of a tree that was built by hand


# ---------------------------------------------------------------- expressions


@dataclass(frozen=True, slots=True)
class Number:
    """A literal: ``2`` is an int, ``0.02`` a float."""

    value: int | float
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Text:
    """A quoted string, as in ``positions = "f7+l7"``."""

    value: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Name:
    """A name as written, subscript, hat and primes included: ``λ_b``, ``aᵢ``, ``R₁``, ``V̂``, ``S_qk'``."""

    text: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Group:
    """``( e )``. Kept, because a parenthesis decides how juxtaposition is read."""

    inner: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TupleOf:
    """``(i, j)`` where several names or numbers are meant: ``shape=(m, n)``, ``(i,j) ∈ Ω``."""

    items: tuple[Expr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Dots:
    """``...`` in ``blkdiag(R₁, ..., R_b)``."""

    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Slice:
    """``start:stop:step`` inside an index."""

    start: Expr | None
    stop: Expr | None
    step: Expr | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Args:
    """Trailer ``( … )``: a call, or a product with a parenthesis."""

    args: tuple[Expr, ...]
    kwargs: tuple[tuple[str, Expr], ...] = ()
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Transposed:
    """Trailer ``ᵀ`` or ``.T``."""

    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Inverted:
    """Trailer ``⁻¹`` or ``^-1``."""

    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Raised:
    """Trailer ``²``, ``³``, ``^2``, ``^{e}``."""

    exponent: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Indexed:
    """Trailer ``_{…}`` or ``[…]``."""

    items: tuple[Expr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Member:
    """Trailer ``.name`` (parsed, so that it can be refused in words)."""

    name: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Trailer: TypeAlias = Args | Transposed | Inverted | Raised | Indexed | Member


@dataclass(frozen=True, slots=True)
class Chain:
    """A head and everything that follows it without a space-separated operator: ``(I + K)(I - K)⁻¹``."""

    head: Expr
    trailers: tuple[Trailer, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Juxt:
    """Factors side by side: ``2i``, ``cos θ_i``, ``u vᵀ``."""

    factors: tuple[Expr, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Unary:
    """``-e``, ``√e`` or ``∇w``."""

    op: Literal["-", "√", "∇"]
    operand: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


BinaryOp: TypeAlias = Literal["+", "-", "·", "@", "⊙", "⊗", "/", "//"]


@dataclass(frozen=True, slots=True)
class Binary:
    """``left op right``. ``· @ ⊙ ⊗ / //`` share one precedence, left to right; ``+ -`` bind looser."""

    op: BinaryOp
    left: Expr
    right: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Norm:
    """``‖e‖``, with the axis written after it: ``‖V‖_row``, ``‖V‖_col``, ``‖V‖_F``."""

    inner: Expr
    axis: str | None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Abs:
    """``|e|``."""

    inner: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Sum:
    """``Σₜ body`` or ``Σ_{(i,j) ∈ Ω} body``. The body runs over products, not over ``+``."""

    indices: tuple[str, ...]
    domain: Expr | None
    body: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


CompareOp: TypeAlias = Literal["=", "≠", "<", "≤", ">", "≥"]


@dataclass(frozen=True, slots=True)
class Compare:
    """``left op right``: in ``where`` and in the test of a conditional only."""

    op: CompareOp
    left: Expr
    right: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Parity:
    """``r even`` or ``r odd`` in ``where``."""

    operand: Expr
    even: bool
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Conditional:
    """``then if test else otherwise``; the test is about dimensions."""

    then: Expr
    test: Compare | Parity
    otherwise: Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Blocks:
    """``[A, B; C, D]``: rows of blocks. ``[x; 1]`` stacks."""

    rows: tuple[tuple[Expr, ...], ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Expr: TypeAlias = (
    Number | Text | Name | Group | TupleOf | Dots | Slice | Chain | Juxt | Unary | Binary | Norm | Abs | Sum
    | Conditional | Blocks
)

# ---------------------------------------------------------------- spaces


@dataclass(frozen=True, slots=True)
class Space:
    """A type as written.

    ``ℝ^{m×n}`` is ``Space("ℝ", (m, n))``; ``(ℝ^{k×k})^b`` is ``Space("ℝ", (k, k), (b,))``; ``ℝ`` is
    ``Space("ℝ", ())``; ``O(k)``, ``SO(k)``, ``St(r, d)``, ``ℕ`` are ``Space("O", (k,))`` and so on.
    """

    kind: Literal["ℝ", "ℂ", "ℕ", "O", "SO", "St"]
    dims: tuple[Expr, ...]
    family: tuple[Expr, ...] = ()
    span: Span = field(default=NOWHERE, compare=False, repr=False)


# ---------------------------------------------------------------- statements


@dataclass(frozen=True, slots=True)
class Role:
    """One entry after the colon of a declaration: ``learned``, ``frozen``, ``shared``, ``init = e``, ``seed = e``."""

    name: str
    value: Expr | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Declare:
    """``A, B ∈ ℝ^{r×n}: learned, init = 0``. ``comment`` is what follows ``#`` on the line."""

    names: tuple[Name, ...]
    space: Space
    roles: tuple[Role, ...]
    comment: str | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Assign:
    """``targets ← value`` (``+=``, ``-=`` too). ``g(w) ← e`` is one as well: its target is a Chain with Args."""

    targets: tuple[Expr, ...]
    op: Literal["←", "+=", "-="]
    value: Expr
    comment: str | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class For:
    """``for i in range(r):`` or ``for (i,j,t) in tree(n):``."""

    variables: tuple[Name, ...]
    iterable: Expr
    body: tuple[Statement, ...]
    comment: str | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Variant:
    """``variant NAME:`` and its block."""

    name: str
    body: tuple[Statement, ...]
    comment: str | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Common:
    """``common:`` — back to what all variants share, after them."""

    body: tuple[Statement, ...]
    comment: str | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Minimise:
    """``minimise e``: a term that is added to the loss."""

    value: Expr
    comment: str | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AfterBackward:
    """``after backward:`` and its updates."""

    body: tuple[Statement, ...]
    comment: str | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Remark:
    """A comment on a line of its own (without its ``#``)."""

    text: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Statement: TypeAlias = Declare | Assign | For | Variant | Common | Minimise | AfterBackward | Remark


@dataclass(frozen=True, slots=True)
class Hyper:
    """``r = 8``, ``steps`` (required), ``knob α = 1`` in a header."""

    name: str
    default: Expr | None
    knob: bool = False
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Binding:
    """``W ∈ ℝ^{m×n}`` in the site of a header."""

    name: str
    space: Space
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Header:
    """``adapter LoRA(r = 8) on linear(W ∈ ℝ^{m×n}) where n = b·k``."""

    name: str
    hyper: tuple[Hyper, ...]
    site: str
    bindings: tuple[Binding, ...]
    options: tuple[tuple[str, Expr], ...] = ()  # ``positions = "f7+l7"`` among the bindings
    relations: tuple[Compare | Parity, ...] = ()
    comment: str | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Program:
    """A whole file. ``header`` is None for a bare block (and for the prelude)."""

    header: Header | None
    body: tuple[Statement, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)
