"""Random well-typed programs, as text: what the compiler is asked that nobody thought of.

    programs() -> strategy of Program(text, b, k, p, r, lead)   m = b·p, n = b·k

An expression is drawn for a wanted type, from the leaves up to a depth; what can be drawn is in
``random_vectors.py`` and ``random_matrices.py``, one production an operator. Here are the leaves, the statements and
the output. Magnitudes are kept near one (tanh, small numbers), so that the two readings differ by rounding only. Many
sizes coincide, those of the leading axes of x too, and families meet what is no family: where torch tells axes apart
by their sizes, this is where it goes wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")
Item: TypeAlias = tuple[str, ...]
Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]

DIMS = ("n", "m", "r", "k", "p", "b")
SIZES = ((2, 2, 3, 2), (2, 3, 2, 1), (3, 2, 2, 2), (2, 2, 2, 3), (2, 4, 3, 2), (1, 3, 5, 2), (4, 1, 2, 1), (3, 3, 1, 4),
         (2, 2, 2, 2), (3, 3, 3, 3), (1, 1, 1, 1), (1, 3, 3, 3), (4, 1, 1, 4))
LEADING = ((), (2, 3), (5,), (1, 2), ("b",), ("n",), ("b", "k"))
"""Leading axes of x; a name is that size."""
HEAD = "adapter Random(b = 2, r = 2) on linear(W ∈ ℝ^{m×n}) where n = b·k, m = b·p"


@dataclass(frozen=True)
class Program:
    """A program and the numbers it is attached with."""

    text: str
    b: int
    k: int
    p: int
    r: int
    lead: tuple[int, ...] = (2, 3)

    @property
    def m(self) -> int:
        return self.b * self.p

    @property
    def n(self) -> int:
        return self.b * self.k

    @property
    def hyper(self) -> dict[str, int]:
        return {"b": self.b, "r": self.r}


@dataclass(frozen=True)
class Want:
    """What an expression shall be: an item, or a family of b items; ``depth`` limits what is below it."""

    item: Item
    depth: int
    family: bool = False

    def of(self, *item: str) -> Want:
        """A part of it with another item."""
        return replace(self, item=item)

    @property
    def leaf(self) -> Want:
        return replace(self, depth=0)

    @property
    def single(self) -> bool:
        return not self.family

    @property
    def square(self) -> bool:
        return len(self.item) == 2 and self.item[0] == self.item[1]


@dataclass(frozen=True)
class Production:
    """One way to write a value; ``fits`` says of which wanted types, ``weight`` how often."""

    write: Callable[[Writer, Want], str]
    fits: Callable[[Writer, Want], bool] = lambda w, want: True
    weight: int = 2


@dataclass
class Writer:
    """Draws expressions and collects the declarations and statements that they need."""

    draw: Draw
    sizes: Program
    ways: Mapping[int, Sequence[Production]]
    declared: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    parameters: dict[tuple[Item, str], list[str]] = field(default_factory=dict)
    bound: list[tuple[Item, bool, bool, str]] = field(default_factory=list)
    loops: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0
    moving: bool = False
    statements: bool = True

    # ------------------------------------------------------------ choices

    def pick(self, options: Sequence[T]) -> T:
        chosen: T = self.draw(st.sampled_from(options))
        return chosen

    def chance(self, percent: int) -> bool:
        return bool(self.draw(st.integers(0, 99)) < percent)

    def name(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def dim(self) -> str:
        return self.pick(DIMS)

    # ------------------------------------------------------------ leaves

    def declare(self, item: Item, over: str = "") -> str:
        """A declared tensor, or a family of ``over`` tensors: a new one, or one that is there."""
        there = self.parameters.setdefault((item, over), [])
        if there and self.chance(50):
            return self.pick(there)
        name = self.name({0: "s", 1: "v", 2: "M"}[len(item)])
        space = "ℝ" + (f"^{{{'×'.join(item)}}}" if item else "")
        if item == ("k", "k") and self.chance(20):
            space = "O(k)"
        role = "learned, init = normal(0.4)" if self.chance(85) else f"frozen, init = normal(0.4), seed = {self.count}"
        self.declared.append(f"{name} ∈ {f'({space})^{over}' if over else space}: {role}")
        there.append(name)
        return name

    def frozen(self, *item: str) -> str:
        """A new tensor that is not trained: what a permutation or an index set may be made of."""
        name = self.name("q")
        space = f"ℝ^{{{'×'.join(item)}}}"
        self.declared.append(f"{name} ∈ {space}: frozen, init = normal(1), seed = {self.count}")
        return name

    def leaf(self, want: Want) -> str:
        """A parameter, what the site provides, a constant, or a name bound before."""
        item, options = want.item, ["parameter"] * 4
        if want.single:
            options += ["W"] * 4 * (item == ("m", "n")) + ["x"] * 6 * (item == ("n",) and self.moving)
            options += ["bias"] * (item == ("m",)) + [f"eye({n})" for n in item[:1] if want.square]
            options += ["0.5", "2", "(1/3)", "(r/4)", "0", "-1"] * (item == ())
            options += [f"ones({', '.join(item)})"] * (len(item) > 0) + [f"zeros({n})" for n in item if len(item) == 1]
        options += 3 * [name for shape, family, moving, name in self.bound
                        if (shape, family) == (item, want.family) and (self.moving or not moving)]
        chosen = self.pick(options)
        return self.declare(item, "b" if want.family else "") if chosen == "parameter" else chosen

    def indexed(self, want: Want) -> str:
        """A value that the index of a loop around chooses: F_i, the i-th row or column of a matrix, the i-th entry."""
        i, over = self.pick(self.loops)
        options = [f"{self.declare(want.item, over)}_{{{i}}}"]
        if want.item == ():
            options.append(f"{self.declare((over,))}_{{{i}}}")
            others = [(j, o) for j, o in self.loops if j != i]
            if others:
                j, other = self.pick(others)
                options.append(f"{self.declare((over, other))}_{{{i},{j}}}")
        elif len(want.item) == 1:
            options += [f"{self.declare((over, *want.item))}_{{{i}}}", f"{self.declare((*want.item, over))}_{{:,{i}}}"]
        return self.pick(options)

    # ------------------------------------------------------------ expressions

    def __call__(self, want: Want) -> str:
        """An expression of this type, in parentheses unless it is a name or a call."""
        if self.loops and want.single and self.chance(35 if want.depth else 50):
            return self.indexed(want)
        if want.depth <= 0:
            return self.leaf(want)
        table = [p for p in self.ways[len(want.item)] if p.fits(self, want)]
        chosen = self.pick([p for p in table for _ in range(p.weight)])
        return chosen.write(self, replace(want, depth=want.depth - 1))

    def body(self, variables: Sequence[tuple[str, str]], want: Want) -> str:
        """An expression inside a loop: it may use the loop's indices, and writes no statements of its own."""
        outer, kept = self.loops, self.statements
        self.loops, self.statements = [*self.loops, *variables], False
        text = self(want)
        self.loops, self.statements = outer, kept
        return text

    def sides(self, one: Want, other: Want) -> tuple[str, str]:
        """Two operands; of a family now and then one that is the same for all members."""
        if one.family and self.chance(30):
            if self.chance(50):
                one = replace(one, family=False)
            else:
                other = replace(other, family=False)
        return self(one), self(other)

    # ------------------------------------------------------------ programs

    def let(self, depth: int) -> None:
        """A name for later use."""
        item: Item = self.pick([("m", "n"), ("n", "n"), ("r", "n"), ("m", "r"), ("n",), ("m",), ("r",), ("k", "k"), ()])
        family = self.chance(20)
        self.moving = self.chance(35)
        text = self(Want(item, depth, family))
        name = self.name({0: "a", 1: "w", 2: "N"}[len(item)])
        self.lines.append(f"{name} ← {text}")
        self.bound.append((item, family, self.moving, name))

    def output(self, depth: int) -> None:
        """y, in one of the forms that adapters have."""
        form = self.pick(["inside", "inside", "outside", "beside", "around", "scaled", "any", "bias", "transposed"])
        self.moving = form in ("any", "beside") or self.chance(20)

        def e(*item: str) -> str:
            return self(Want(item, depth))

        forms: dict[str, Callable[[], str]] = {
            "inside": lambda: f"(W + {e('m', 'n')}) @ x",
            "outside": lambda: f"W @ {e('n', 'n')} @ x",
            "beside": lambda: f"W @ x + {e('m')}",
            "around": lambda: f"{e('m', 'm')} @ W @ {e('n', 'n')} @ x",
            "scaled": lambda: f"{e('m', 'n')} @ x",
            "bias": lambda: f"{e('m', 'm')} @ (W @ x + bias)",
            "transposed": lambda: f"(xᵀ @ {e('n', 'm')})ᵀ",
            "any": lambda: f"W @ {e('n')} + {e('m')}",
        }
        text = forms[form]()
        self.lines.append(f"y ← {text}")


@st.composite
def programs(draw: Draw, depth: int = 3) -> Program:
    """A random program with its sizes."""
    from tests.support.random_matrices import MATRICES
    from tests.support.random_vectors import SCALARS, VECTORS

    b, k, p, r = draw(st.sampled_from(SIZES))
    named = {"b": b, "k": k, "n": b * k}
    lead = tuple(named.get(str(d), d) for d in draw(st.sampled_from(LEADING)))
    w = Writer(draw, Program("", b, k, p, r, lead), {0: SCALARS, 1: VECTORS, 2: MATRICES})
    for _ in range(draw(st.integers(0, 2))):
        w.let(depth - 1)
    w.output(depth)
    if draw(st.integers(0, 9)) == 0:
        w.moving = False
        w.lines.append(f"minimise {w(Want((), depth - 1))}")
    return replace(w.sizes, text="\n".join([HEAD, *w.declared, *w.lines, ""]))
