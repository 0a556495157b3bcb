"""Ways to write a scalar or a vector."""

from __future__ import annotations

from tests.support.random_programs import Production, Want, Writer
from tests.support.random_ways import (
    PART,
    POINTS,
    binary,
    chosen,
    clamped,
    detached,
    function,
    large,
    leaf,
    may_state,
    may_sum,
    negated,
    scaled,
    single,
    small,
    total,
    whole,
)  # fmt: skip

# ---------------------------------------------------------------- scalars


def dot(w: Writer, want: Want) -> str:
    at = want.of(w.dim())
    left = w.pick([f"{w(at)}ᵀ", f"{w.declare((w.dim(), *at.item))}_{{0,:}}"]) if want.single else f"{w(at)}ᵀ"
    return f"({left} @ {w(at)})"


def quadratic(w: Writer, want: Want) -> str:
    a, c = w.dim(), w.dim()
    return f"({w(want.of(a))}ᵀ @ {w(want.of(a, c))} @ {w(want.of(c))})"


def norm(w: Writer, want: Want) -> str:
    return f"‖{w(want.of(w.dim()))}‖" if w.chance(50) else f"‖{w(want.of(w.dim(), w.dim()))}‖_F"


def squared_norm(w: Writer, want: Want) -> str:
    return f"({norm(w, want)}² / 4)"


def statistic(w: Writer, want: Want) -> str:
    return f"{w.pick(['sum', 'mean', 'max', 'min'])}({w(want.of(*w.pick([(w.dim(),), (w.dim(), w.dim())])))})"


def trace(w: Writer, want: Want) -> str:
    at = w.dim()
    return f"trace({w(want.of(at, at))})"


def entry(w: Writer, want: Want) -> str:
    return w.pick([f"{w.declare((w.dim(),))}_{{{w.pick(['0', '-1'])}}}", f"{w.declare((w.dim(), w.dim()))}_{{0,-1}}"])


def ratio(w: Writer, want: Want) -> str:
    return f"({w(want)} / (2 + tanh({w(want)})))"


def root(w: Writer, want: Want) -> str:
    return w.pick([f"√(1 + tanh({w(want)})²)", f"log(2 + tanh({w(want)}))", f"exp(tanh({w(want)}))"])


SCALARS = (
    Production(leaf), Production(dot), Production(binary("·")), Production(binary("+", "-")),
    Production(function(*POINTS)), Production(norm), Production(squared_norm), Production(statistic), Production(trace),
    Production(entry, single), Production(ratio), Production(quadratic), Production(root),
    Production(clamped, weight=1),
    Production(detached, weight=1), Production(negated, weight=1), Production(chosen, weight=1),
)


# ---------------------------------------------------------------- vectors


def apply(w: Writer, want: Want) -> str:
    at = w.dim()
    return " @ ".join(w.sides(want.of(*want.item, at), want.of(at))).join("()")


def apply_left(w: Writer, want: Want) -> str:
    at = w.dim()
    return "ᵀ @ ".join(w.sides(want.of(at), want.of(at, *want.item))).join(("(", ")ᵀ"))


def diagonal(w: Writer, want: Want) -> str:
    (n,) = want.item
    return f"diagonal({w(want.of(n, n))})"


def by_row(w: Writer, want: Want) -> str:
    (n,) = want.item
    axis, shape = w.pick([("row", (n, w.dim())), ("col", (w.dim(), n))])
    M = w(want.of(*shape))
    return w.pick([f"‖{M}‖_{axis}", f"sum_{axis}({M})", f"mean_{axis}({M})", f"max_{axis}({M})", f"‖{M}‖_{axis}²"])


def softmax(w: Writer, want: Want) -> str:
    return f"softmax({w(want)})"


def top(w: Writer, want: Want) -> str:
    return f"(topk({w(want)}, 1) ⊙ {w(want)})"


def piece(w: Writer, want: Want) -> str:
    (small,) = want.item
    large = whole(small)
    cut = w.pick([f":{small}", f"{large}-{small}:"])
    return f"({w(want.of(large))})_{{{cut}}}"


def joined(w: Writer, want: Want) -> str:
    (n,) = want.item
    return f"[({w(want)})_{{:{n}-{PART[n]}}}; {w(want.of(PART[n]))}]"


def divided(w: Writer, want: Want) -> str:
    by = w.pick(["2", "(3/2)", f"(2 + sigmoid({w(want.of().leaf)}))",
                 f"(1.5 · ones({want.item[0]}) + tanh({w(want)}))"])
    return f"({w(want)} / {by})"


def normalised(w: Writer, want: Want) -> str:
    M = w.declare(want.item, "b" if want.family else "")
    return f"({w(want)} / ‖{M}‖)"


def tiled(w: Writer, want: Want) -> str:
    (n,) = want.item
    return f"tile({w(want.of(PART[n]))}, b)"


def squared(w: Writer, want: Want) -> str:
    return f"tanh({w(want)})²"


def column(w: Writer, want: Want) -> str:
    (n,) = want.item
    return w.pick([f"{w.declare((n, w.dim()))}_{{:,0}}", f"({w(want.of(n, w.dim()))})_{{:,-1}}"])


def kron_vectors(w: Writer, want: Want) -> str:
    (n,) = want.item
    return " ⊗ ".join(w.sides(want.of("b"), want.of(PART[n]))).join("()")


def flattened(w: Writer, want: Want) -> str:
    (n,) = want.item
    M = w(want.of("b", PART[n]))
    return w.pick([f"flatten({M})", f"vec(({M})ᵀ)", f"reshape({M}, {n})"])


def convolved(w: Writer, want: Want) -> str:
    return f"Re(ifft(fft({w(want)}) ⊙ fft({w(want)})))"


def gathered(w: Writer, want: Want) -> str:
    (n,) = want.item
    return f"({w(want)})_{{argtop({w.frozen(n)}, {n})}}"


def entry_by_entry(w: Writer, want: Want) -> str:
    """for i: z_i ← …"""
    z, (n,) = w.name("z"), want.item
    body = w.body([("i", n)], want.of())
    w.lines += [f"for i in range({n}):", f"    {z}_i ← {body}"]
    return z


def in_pairs(w: Writer, want: Want) -> str:
    """for i: z[2i] ← …; z[2i+1] ← …"""
    z, (n,) = w.name("z"), want.item
    u = w.name("u")
    w.lines.append(f"{u} ← {w(want)}")
    t = w.name("t")
    w.declared.append(f"{t} ∈ ℝ^{{{n}/2}}: learned, init = normal(0.4)")
    w.lines += [f"for i in range({n}//2):", f"    {z}[2i] ← cos {t}_i · {u}[2i] - sin {t}_i · {u}[2i+1]",
                f"    {z}[2i+1] ← {t}_i · {u}[2i] + {u}[2i+1]"]
    return z


def even(w: Writer, want: Want) -> bool:
    size = {"n": w.sizes.n, "m": w.sizes.m, "k": w.sizes.k, "p": w.sizes.p, "b": w.sizes.b, "r": w.sizes.r}
    return may_state(w, want) and size[want.item[0]] % 2 == 0


def running_vector(w: Writer, want: Want) -> str:
    """A vector that a loop carries: a sum, or what is unrolled."""
    z, over = w.name("z"), w.pick(["b", "r"])
    body = w.body([("i", over)], want)
    w.lines += [f"{z} ← {w(want)}", f"for i in range({over}):", f"    {z} ← {w.pick([z, f'tanh({z})'])} + {body}"]
    return z


def carried_together(w: Writer, want: Want) -> str:
    """Two vectors that a loop carries, each made of both: what x enters through one of them it enters through both."""
    z, q, over = w.name("z"), w.name("q"), w.pick(["b", "r"])
    v, u = w.declare(want.item), w.declare(want.item)
    w.lines += [f"{z} ← {w.pick([w(want), w.leaf(want), v])}", f"{q} ← {w(want)}"]
    steps = [f"{z} ← {w.pick([f'{z} ⊙ {v} + {q} ⊙ {u}', f'tanh({z}) + {q}', f'{z} + tanh({q})', f'{z} + {q}'])}",
             f"{q} ← {w.pick([f'tanh({q}) ⊙ {q}', f'{q} ⊙ {u}', f'0.5 · {q}', f'{q} + 0.5 · {z}', f'{q} + {v}'])}"]
    w.lines += [f"for i in range({over}):", *(f"    {line}" for line in (steps if w.chance(50) else steps[::-1]))]
    return w.pick([z, q])


VECTORS = (
    Production(leaf), Production(apply, weight=6), Production(apply_left), Production(binary("+", "-")),
    Production(scaled), Production(binary("⊙", "·")), Production(function(*POINTS)),
    Production(diagonal), Production(by_row, weight=4),
    Production(softmax), Production(top, weight=1), Production(piece, small), Production(joined, large),
    Production(divided), Production(normalised, weight=1), Production(tiled, large), Production(squared, weight=1),
    Production(column, single), Production(kron_vectors, large), Production(flattened, large),
    Production(convolved, weight=1), Production(gathered, may_state, weight=1), Production(total, may_sum),
    Production(entry_by_entry, may_state), Production(in_pairs, even), Production(running_vector, may_state),
    Production(carried_together, may_state),
    Production(detached, weight=1), Production(negated, weight=1), Production(clamped, weight=1),
    Production(chosen, weight=1),
    Production(lambda w, want: f"{w.pick(['maximum', 'minimum'])}({', '.join(w.sides(want, want))})", weight=1),
)
