"""Random well-typed programs, as text: what the compiler is asked that nobody thought of.

    programs() -> strategy of Program(text, b, k, p, r)         m = b·p, n = b·k

An expression is drawn for a wanted type, from the leaves up to a depth: products of every kind, sums, norms, slices,
transposes, inverses of I + skew, diag, blkdiag, kron, cat, loops that define, sum and fold, pieces of an svd, detach.
Magnitudes are kept near one (tanh, small numbers), so that the two readings differ by rounding only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from hypothesis import strategies as st

Item: TypeAlias = tuple[str, ...]
Draw: TypeAlias = Callable[[Any], Any]
Option = TypeVar("Option")

DIMS = ("m", "n", "r", "k", "p", "b")


@dataclass(frozen=True)
class Program:
    """A program and the numbers it is attached with; ``tokens`` tells whether its matrices may depend on x."""

    text: str
    b: int
    k: int
    p: int
    r: int

    @property
    def m(self) -> int:
        return self.b * self.p

    @property
    def n(self) -> int:
        return self.b * self.k


@dataclass
class Writer:
    """Draws expressions and collects the declarations and statements that they need."""

    draw: Draw
    declared: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    known: dict[tuple[Item, bool], list[str]] = field(default_factory=dict)
    bound: dict[tuple[Item, bool, bool], list[str]] = field(default_factory=dict)
    loops: list[str] = field(default_factory=list)
    count: int = 0
    moving: bool = False
    inside: bool = False

    # ------------------------------------------------------------ choices

    def pick(self, options: Sequence[Option]) -> Option:
        chosen: Option = self.draw(st.sampled_from(options))
        return chosen

    def chance(self, percent: int) -> bool:
        return bool(self.draw(st.integers(0, 99)) < percent)

    def name(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    # ------------------------------------------------------------ leaves

    def parameter(self, item: Item, family: bool) -> str:
        """A declared tensor, a new one or one that is there."""
        there = self.known.setdefault((item, family), [])
        if there and self.chance(50):
            return self.pick(there)
        name = self.name({0: "s", 1: "v", 2: "M"}[len(item)])
        space = "ℝ" + (f"^{{{'×'.join(item)}}}" if item else "")
        space = f"({space})^b" if family else space
        role = "frozen, init = normal(0.4), seed = 5" if self.chance(15) else "learned, init = normal(0.4)"
        self.declared.append(f"{name} ∈ {space}: {role}")
        there.append(name)
        return name

    def leaf(self, item: Item, family: bool) -> str:
        options = ["parameter"] * 4
        if not family:
            if item == ("m", "n"):
                options += ["W"] * 4
            if item == ("n",) and self.moving:
                options += ["x"] * 6
            if item == ("m",):
                options += ["bias"]
            if len(item) == 1:
                options += ["ones"]
            if len(item) == 2 and item[0] == item[1]:
                options += ["eye"]
            if item in ((), ):
                options += ["number"]
        fitting = [n for moving in ((False, True) if self.moving else (False,))
                   for n in self.bound.get((item, family, moving), [])]
        options += ["bound"] * 4 if fitting else []
        match self.pick(options):
            case "W" | "x" | "bias" as name:
                return str(name)
            case "ones":
                return f"ones({item[0]})"
            case "eye":
                return f"eye({item[0]})"
            case "number":
                return self.pick(["0.5", "2", "(1/3)", "(r/4)", "0"])
            case "bound":
                return self.pick(fitting)
            case _:
                return self.parameter(item, family)

    # ------------------------------------------------------------ expressions

    def expression(self, item: Item, depth: int, family: bool = False) -> str:
        """An expression of this type, in parentheses unless it is a name or a call."""
        if depth <= 0:
            return self.item_of_family(item, 0) if self.loops and not family and self.chance(40) else \
                self.leaf(item, family)
        if self.loops and not family and self.chance(35):
            return self.item_of_family(item, depth - 1)
        return {0: self.scalar, 1: self.vector, 2: self.matrix}[len(item)](item, depth - 1, family)

    def item_of_family(self, item: Item, depth: int) -> str:
        """F_i with i the index of a loop around."""
        i = self.pick(self.loops)
        name = self.leaf(item, True)
        if not name.isalnum():
            name = self.parameter(item, True)
        del depth
        return f"{name}_{{{i}}}"

    def dim(self) -> str:
        return self.pick(["n", "m", "r", "k", "p"])

    def scalar(self, item: Item, d: int, family: bool) -> str:
        e, f = self.expression, family
        match self.pick(["leaf", "dot", "norm", "frobenius", "sum", "trace", "function", "product", "sum of", "entry",
                         "detach", "ratio", "quadratic"]):
            case "dot":
                at = self.dim()
                return f"({e((at,), d, f)}ᵀ @ {e((at,), d, f)})"
            case "norm":
                return f"‖{e((self.dim(),), d, f)}‖"
            case "frobenius":
                return f"‖{e((self.dim(), self.dim()), d, f)}‖_F"
            case "sum":
                return f"{self.pick(['sum', 'mean', 'max', 'min'])}({e((self.dim(),), d, f)})"
            case "trace":
                at = self.dim()
                return f"trace({e((at, at), d, f)})"
            case "function":
                return f"{self.pick(['tanh', 'sigmoid', 'sin', 'cos', 'arctan'])}({e((), d, f)})"
            case "product":
                return f"({e((), d, f)} · {e((), d, f)})"
            case "sum of":
                return f"({e((), d, f)} {self.pick('+-')} {e((), d, f)})"
            case "entry" if not f:
                return f"{self.parameter((self.dim(),), False)}_{{{self.pick(['0', '1', '-1'])}}}"
            case "detach":
                return f"detach({e((), d, f)})"
            case "ratio":
                return f"({e((), d, f)} / (2 + tanh({e((), d, f)})))"
            case "quadratic":
                at, to = self.dim(), self.dim()
                return f"({e((at,), d, f)}ᵀ @ {e((at, to), d, f)} @ {e((to,), d, f)})"
            case _:
                return self.leaf(item, family)

    def vector(self, item: Item, d: int, family: bool) -> str:
        e, f = self.expression, family
        (n,) = item
        match self.pick(["leaf", "apply", "apply", "apply", "sum of", "scaled", "entrywise", "function", "diagonal",
                         "statistic", "norms", "from the left", "softmax", "detach", "slice", "stacked", "divided",
                         "over norm", "total", "columns", "negated", "tiled", "squared", "taken row"]):
            case "apply":
                at = self.dim()
                return f"({e((n, at), d, f)} @ {e((at,), d, f)})"
            case "sum of":
                return f"({e(item, d, f)} {self.pick('+-')} {e(item, d, f)})"
            case "scaled":
                return f"({e((), d, f)} · {e(item, d, f)})"
            case "entrywise":
                return f"({e(item, d, f)} {self.pick('⊙·')} {e(item, d, f)})"
            case "function":
                return f"{self.pick(['tanh', 'sigmoid', 'sin', 'relu', 'gelu', 'silu'])}({e(item, d, f)})"
            case "diagonal":
                return f"diagonal({e((n, n), d, f)})"
            case "statistic":
                which, shape = self.pick([("row", (n, self.dim())), ("col", (self.dim(), n))])
                return f"{self.pick(['sum', 'mean'])}_{which}({e(shape, d, f)})"
            case "norms":
                which, shape = self.pick([("row", (n, self.dim())), ("col", (self.dim(), n))])
                return f"‖{e(shape, d, f)}‖_{which}"
            case "from the left":
                at = self.dim()
                return f"({e((at,), d, f)}ᵀ @ {e((at, n), d, f)})ᵀ"
            case "softmax":
                return f"softmax({e(item, d, f)})"
            case "detach":
                return f"detach({e(item, d, f)})"
            case "slice" if n in ("k", "p") and not f:
                big = {"k": "n", "p": "m"}[n]
                return f"({e((big,), d)})_{{:{n}}}"
            case "stacked" if n in ("n", "m") and not f:
                part = {"n": "k", "m": "p"}[n]
                return f"[({e((n,), d)})_{{:{n}-{part}}}; {e((part,), d)}]"
            case "divided":
                return f"({e(item, d, f)} / {self.pick(['2', '(3/2)', f'(2 + sigmoid({e((), 0, f)}))'])})"
            case "over norm":
                return f"({e(item, d, f)} / ({e(item, d, f)} ⊙ {e(item, d, f)} + ones({n}) + ones({n}))) " \
                    if False else f"({e(item, d, f)} / (1.5 · ones({n}) + tanh({e(item, d, f)})))"
            case "total" if not f and not self.loops:
                return self.sum_over(item, d)
            case "columns" if not f and not self.inside:
                name = self.name("z")
                return self.defined_by_loop(name, item, d) or self.leaf(item, False)
            case "negated":
                return f"(-{e(item, d, f)})"
            case "tiled" if n in ("n", "m") and not f:
                return f"tile({e(({'n': 'k', 'm': 'p'}[n],), d)}, b)"
            case "squared":
                return f"tanh({e(item, d, f)})²"
            case "taken row" if not f:
                return f"{self.parameter((self.dim(), n), False)}_{{0,:}}ᵀᵀ" if False else \
                    f"{self.parameter((n, self.dim()), False)}_{{:,1}}"
            case _:
                return self.leaf(item, family)

    def matrix(self, item: Item, d: int, family: bool) -> str:
        e, f = self.expression, family
        m, n = item
        square = m == n
        options = ["leaf", "product", "product", "product", "sum of", "sum of", "scaled", "transpose", "transpose",
                   "outer", "rows", "columns", "entrywise", "function", "detach", "solved", "cayley", "rotated", "norm",
                   "total", "folded", "cut", "above", "beside", "blocks", "kron", "svd", "svd", "hadamard outer",
                   "scatter", "chain sum", "lower", "negated", "qr free"]
        if square:
            options += ["diag", "circulant", "inverse", "skew", "perm", "power", "near identity", "expm"] * 2
        match self.pick(options):
            case "product":
                at = self.dim()
                return f"({e((m, at), d, f)} @ {e((at, n), d, f)})"
            case "sum of":
                return f"({e(item, d, f)} {self.pick('+-')} {e(item, d, f)})"
            case "scaled":
                return f"({e((), d, f)} · {e(item, d, f)})"
            case "transpose":
                return f"({e((n, m), d, f)})ᵀ"
            case "outer":
                return self.pick([f"outer({e((m,), d, f)}, {e((n,), d, f)})", f"({e((m,), d, f)} {e((n,), 0, f)}ᵀ)"])
            case "rows":
                return f"({e((m,), d, f)} {self.pick('⊙·')} {e(item, d, f)})"
            case "columns":
                return f"({e(item, d, f)} {self.pick('⊙·')} {e((n,), d, f)})"
            case "entrywise":
                return f"({e(item, d, f)} ⊙ {e(item, d, f)})"
            case "hadamard outer":
                return f"({e(item, d, f)} ⊙ outer({e((m,), d, f)}, {e((n,), d, f)}))"
            case "function":
                return f"tanh({e(item, d, f)})"
            case "detach":
                return f"detach({e(item, d, f)})"
            case "solved":
                at = self.dim()
                del at
                return f"(({self.well_conditioned(m, d, f)})⁻¹ @ {e(item, d, f)})"
            case "cayley":
                return f"({e(item, d, f)} @ cayley({self.skew(n, d, f)}))"
            case "rotated":
                return f"(cayley({self.skew(m, d, f)})ᵀ @ {e(item, d, f)})"
            case "norm":
                which = self.pick(["row", "col"])
                return f"({e(item, d, f)} / ‖{self.parameter(item, f)}‖_{which})"
            case "total" if not f and not self.loops:
                return self.sum_over(item, d)
            case "folded" if not f and not self.inside:
                return self.chain(item, d)
            case "cut" if not f and m in ("k", "p"):
                return f"({e(({'k': 'n', 'p': 'm'}[m], n), d)})_{{:{m},:}}"
            case "above" if not f and m in ("m", "n"):
                part = {"n": "k", "m": "p"}[m]
                return f"[({e(item, d)})_{{:{m}-{part},:}}; {e((part, n), d)}]"
            case "beside" if not f and n in ("m", "n"):
                part = {"n": "k", "m": "p"}[n]
                return f"[{e((m, part), d)}, ({e(item, d)})_{{:,{part}:}}]"
            case "blocks" if not f and m in "mn" and n in "mn":
                inner = ({"n": "k", "m": "p"}[m], {"n": "k", "m": "p"}[n])
                return f"blkdiag({e(inner, d, True)})"
            case "kron" if not f and m in "mn" and n in "mn":
                inner = ({"n": "k", "m": "p"}[m], {"n": "k", "m": "p"}[n])
                if self.chance(50):
                    return f"({e(('b', 'b'), d)} ⊗ {e(inner, d)})"
                return f"kron({e(inner, d)}, {e(('b', 'b'), d)})"
            case "svd" if not f:
                return self.pieces(item, d)
            case "scatter" if not f:
                return f"scatter({self.parameter(('r',), False)}, sample({m}, {n}, r, 3), shape=({m}, {n}))"
            case "lower":
                return f"{self.pick(['tril', 'striu'])}({e(item, d, f)})"
            case "negated":
                return f"(-{e(item, d, f)})"
            case "diag" if square:
                return f"diag({e((m,), d, f)})"
            case "circulant" if square:
                return f"circulant({e((m,), d, f)})"
            case "inverse" if square:
                return f"({self.well_conditioned(m, d, f)})⁻¹"
            case "skew" if square:
                return self.skew(m, d, f)
            case "perm" if square and not f and not self.loops:
                return self.pick([f"perm(argtop({self.parameter_frozen(m)}, {m}))",
                                  f"perm(argtop({self.parameter_frozen(m)}, {m}))ᵀ"])
            case "power" if square:
                return f"(0.5 · {e(item, d, f)}){self.pick(['²', '³'])}"
            case "near identity" if square:
                return f"(I {self.pick('+-')} {e(item, d, f)})"
            case "expm" if square:
                return f"expm({self.skew(m, d, f)})"
            case _:
                return self.leaf(item, family)

    def parameter_frozen(self, n: str) -> str:
        name = self.name("q")
        self.declared.append(f"{name} ∈ ℝ^{n}: frozen, init = normal(1), seed = {self.count}")
        return name

    def skew(self, n: str, d: int, f: bool) -> str:
        """An antisymmetric matrix of moderate size."""
        if self.chance(60):
            name = self.name("o")
            space = f"ℝ^{{{n}({n}-1)/2}}"
            self.declared.append(f"{name} ∈ {f'({space})^b' if f else space}: learned, init = normal(0.3)")
            return f"skew({name})"
        M = self.parameter((n, n), f)
        return f"({M} - {M}ᵀ)"

    def well_conditioned(self, n: str, d: int, f: bool) -> str:
        """A matrix that is safely invertible."""
        match self.pick(["skew", "diag", "scaled", "product"]):
            case "skew":
                return f"I {self.pick('+-')} {self.skew(n, d, f)}"
            case "diag":
                return f"diag(2 · ones({n}) + tanh({self.expression((n,), d, f)}))"
            case "scaled":
                return f"2 · (I + {self.skew(n, d, f)})"
            case _:
                return f"(I + {self.skew(n, d, f)}) @ (I - {self.skew(n, d, f)})"

    # ------------------------------------------------------------ sums, loops, decompositions

    def sum_over(self, item: Item, d: int) -> str:
        """Σ_{i ∈ range(b)} of one product."""
        self.loops.append("i")
        kept, self.inside = self.inside, True
        match len(item):
            case 1:
                at = self.dim()
                body = self.pick([f"{self.expression((), d)} · {self.expression(item, d)}",
                                  f"{self.expression((item[0], at), d)} @ {self.expression((at,), d)}"])
            case _:
                at = self.dim()
                u, v = self.parameter((item[0],), True), self.parameter((item[1],), True)
                body = self.pick([f"{self.expression((item[0], at), d)} @ {self.expression((at, item[1]), d)}",
                                  f"{self.expression((), d)} · {self.expression(item, d)}",
                                  f"{self.expression((), d)} · {u}_{{i}} {v}_{{i}}ᵀ", f"{u}_{{i}} {v}_{{i}}ᵀ"])
        self.loops.pop()
        self.inside = kept
        return f"(Σ_{{i ∈ range(b)}} {body})"

    def defined_by_loop(self, name: str, item: Item, d: int) -> str:
        """A vector of length n or m written entry by entry, or two entries at a time."""
        (n,) = item
        if n not in ("b",) and not (n in ("n", "m") and self.chance(0)):
            rows = self.name("Z")
            self.loops.append("i")
            kept, self.inside, outer_lines = self.inside, True, len(self.lines)
            body = self.expression((n,), d)
            self.loops.pop()
            self.inside = kept
            assert len(self.lines) == outer_lines
            self.lines += ["for i in range(b):", f"    {rows}_i ← {body}"]
            return f"({rows}ᵀ @ {self.expression(('b',), d)})"
        return ""

    def chain(self, item: Item, d: int) -> str:
        """R ← I, then a chain of rank-one changes, of plane rotations, of dense factors, or a running sum."""
        R, (m, n) = self.name("R"), item
        kept, self.inside = self.inside, True
        moving, self.moving = self.moving, False
        self.loops.append("i")
        kind = self.pick(["reflections", "oblique", "rotations", "dense", "sum"])
        side = self.pick(["left", "right"])
        lines: list[str] = []
        match kind:
            case "reflections" | "oblique":
                u = self.parameter((m,), True)
                w = self.parameter((m,), True) if kind == "oblique" else u
                c = f"2 · {u}_{{i}} {u}_{{i}}ᵀ / ‖{u}_{{i}}‖²" if kind == "reflections" else \
                    f"{self.pick(['', self.parameter((), True) + '_{i} · ', '0.5 · '])}{u}_{{i}} {w}_{{i}}ᵀ"
                step = f"(I {'-' if kind == 'reflections' else self.pick('+-')} {c})"
                lines = ["for i in range(b):", f"    {R} ← " + (f"{step} @ {R}" if side == "left" else f"{R} @ {step}")]
            case "rotations":
                t = self.name("t")
                self.declared.append(f"{t} ∈ ℝ^{{{m}-1}}: learned, init = normal(0.4)")
                a, c, e, g = self.pick([
                    (f"cos {t}_q", f"-sin {t}_q", f"sin {t}_q", f"cos {t}_q"),
                    (f"1 + {t}_q", f"{t}_q", "0.5", "1")])
                lines = [f"for (i,j,q) in {self.pick(['tree', 'neighbours'])}({m}):",
                         f"    G ← I; G[i,i] ← {a}; G[i,j] ← {c}; G[j,i] ← {e}" + self.pick([f"; G[j,j] ← {g}", ""]),
                         f"    {R} ← G @ {R}" if side == "left" else f"    {R} ← {R} @ G"]
            case "dense":
                step = self.expression((m, m), d)
                lines = ["for i in range(b):", f"    {R} ← " + (f"{step} @ {R}" if side == "left" else f"{R} @ {step}")]
            case _:
                lines = ["for i in range(b):", f"    {R} ← {R} + {self.expression((m, m), d)}"]
        self.loops.pop()
        self.inside, self.moving = kept, moving
        start = self.pick(["I", self.parameter((m, m), False)])
        self.lines += [f"{R} ← {start}", *lines]
        whole = f"{R}ᵀ" if self.chance(40) else R
        return whole if m == n and self.chance(50) else f"({whole} @ {self.expression(item, d)})"

    def pieces(self, item: Item, d: int) -> str:
        """A product around the svd of W, or an expression of its pieces."""
        if item != ("m", "n") or self.inside:
            return self.leaf(item, False)
        U, S, V = "U", "Σ", "Vᵀ"
        if "U, Σ, Vᵀ ← svd(W)" not in self.lines:
            self.lines.insert(0, "U, Σ, Vᵀ ← svd(W)")
        e = self.expression
        match self.pick(["whole", "head", "tail", "edited", "turned", "middle", "head turned"]):
            case "whole":
                return f"({U} @ diag({S}) @ {V})"
            case "head":
                return f"({U}_{{:,:r}} · {S}_{{:r}} @ {V}_{{:r,:}})"
            case "tail":
                return f"({U}_{{:,r:}} @ diag({S}_{{r:}}) @ {V}_{{r:,:}})"
            case "edited":
                s = self.name("T")
                self.lines += [f"{s} ← {S}; {s}_{{:r}} {self.pick(['+=', '←', '-='])} {e(('r',), d)}"]
                return f"({U} · {s} · {V})"
            case "turned":
                s = self.name("T")
                self.lines += [f"{s} ← {V}; {s}_{{:r,:}} ← {e(('r', 'r'), d)} @ {V}_{{:r,:}}"]
                return f"({U} · {S} · {s})"
            case "middle":
                return f"({U}_{{:,:r}} @ {e(('r', 'r'), d)} @ {V}_{{:r,:}})"
            case _:
                s = self.name("T")
                self.lines += [f"{s} ← {U}; {s}_{{:,:r}} ← {U}_{{:,:r}} @ {e(('r', 'r'), d)}"]
                return f"({s} @ diag({S}) @ {V})"

    # ------------------------------------------------------------ programs

    def let(self, depth: int) -> None:
        """A name for later use."""
        item: Item = self.pick([("m", "n"), ("n", "n"), ("r", "n"), ("m", "r"), ("n",), ("m",), ("r",), ("k", "k"), ()])
        family = self.chance(20)
        self.moving = self.chance(35)
        text = self.expression(item, depth, family)
        name = self.name({0: "a", 1: "w", 2: "N"}[len(item)])
        self.lines.append(f"{name} ← {text}")
        self.bound.setdefault((item, family, self.moving), []).append(name)

    def output(self, depth: int) -> None:
        """y, in one of the forms that adapters have."""
        e = self.expression
        form = self.pick(["inside", "inside", "outside", "beside", "around", "scaled", "any", "bias"])
        self.moving = form == "any" or self.chance(20)
        match form:
            case "inside":
                text = f"(W + {e(('m', 'n'), depth)}) @ x"
            case "outside":
                text = f"W @ {e(('n', 'n'), depth)} @ x"
            case "beside":
                self.moving = True
                text = f"W @ x + {e(('m',), depth)}"
            case "around":
                text = f"{e(('m', 'm'), depth)} @ W @ {e(('n', 'n'), depth)} @ x"
            case "scaled":
                text = f"{e(('m', 'n'), depth)} @ x"
            case "bias":
                text = f"{e(('m', 'm'), depth)} @ (W @ x + bias)"
            case _:
                text = f"W @ {e(('n',), depth)} + {e(('m',), depth)}"
        self.lines.append(f"y ← {text}")


@st.composite
def programs(draw: Draw, depth: int = 3) -> Program:
    """A random program with its sizes."""
    w = Writer(draw)
    for _ in range(draw(st.integers(0, 2))):
        w.let(depth - 1)
    w.output(depth)
    b, k, p = draw(st.sampled_from([(2, 2, 3), (2, 3, 2), (3, 2, 2), (2, 2, 2), (2, 4, 3)]))
    used = w.declared
    head = "adapter Random(b = 2, r = 2) on linear(W ∈ ℝ^{m×n}) where n = b·k, m = b·p"
    return Program("\n".join([head, *used, *w.lines, ""]), b, k, p, 2)
