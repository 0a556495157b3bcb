"""Ways to write a matrix, loops and decompositions among them."""

from __future__ import annotations

from dataclasses import replace

from tests.support.random_programs import Production, Want, Writer
from tests.support.random_ways import (
    PART,
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
    square,
    square_single,
    total,
    whole,
)  # fmt: skip


def product(w: Writer, want: Want) -> str:
    (m, n), at = want.item, w.dim()
    return " @ ".join(w.sides(want.of(m, at), want.of(at, n))).join("()")


def transposed(w: Writer, want: Want) -> str:
    m, n = want.item
    return f"({w(want.of(n, m))})ᵀ"


def outer(w: Writer, want: Want) -> str:
    m, n = want.item
    u, v = w(want.of(m)), w(want.of(n))
    return w.pick([f"outer({u}, {v})", f"({u} @ ({v})ᵀ)", f"({u} @ {w.declare((w.dim(), n))}_{{0,:}})"])


def rows_scaled(w: Writer, want: Want) -> str:
    return f" {w.pick('⊙·')} ".join(w.sides(want.of(want.item[0]), want)).join("()")


def columns_scaled(w: Writer, want: Want) -> str:
    return f" {w.pick('⊙·')} ".join(w.sides(want, want.of(want.item[1]))).join("()")


def masked(w: Writer, want: Want) -> str:
    m, n = want.item
    return f"({w(want)} ⊙ outer({', '.join(w.sides(want.of(m), want.of(n)))}))"


def solved(w: Writer, want: Want) -> str:
    """A⁻¹ B, B A⁻¹; of a family, A or B may be the same for all members."""
    (m, n), over, by = want.item, want, want
    if want.family and w.chance(50):
        over, by = w.pick([(replace(want, family=False), want), (want, replace(want, family=False))])
    return w.pick([f"(({regular(w, by.of(m, m))})⁻¹ @ {w(over)})", f"({w(over)} @ ({regular(w, by.of(n, n))})⁻¹)",
                   f"solve({regular(w, by.of(m, m))}, {w(over)})"])


def turned(w: Writer, want: Want) -> str:
    m, n = want.item
    return w.pick([f"({w(want)} @ cayley({skew(w, want.of(n, n))}))",
                   f"(cayley({skew(w, want.of(m, m))})ᵀ @ {w(want)})"])


def normalised_rows(w: Writer, want: Want) -> str:
    return f"({w(want)} / ‖{w.declare(want.item, 'b' if want.family else '')}‖_{w.pick(['row', 'col'])})"


def cut_rows(w: Writer, want: Want) -> str:
    m, n = want.item
    return f"({w(want.of(whole(m), n))})_{{{w.pick([f':{m}', f'{whole(m)}-{m}:'])},:}}"


def above(w: Writer, want: Want) -> str:
    m, n = want.item
    return f"[({w(want)})_{{:{m}-{PART[m]},:}}; {w(want.of(PART[m], n))}]"


def beside(w: Writer, want: Want) -> str:
    m, n = want.item
    return f"[{w(want.of(m, PART[n]))}, ({w(want)})_{{:,{PART[n]}:}}]"


def blocks(w: Writer, want: Want) -> str:
    m, n = want.item
    inner = Want((PART[m], PART[n]), want.depth, True)
    return f"blkdiag({w(inner)})"


def two_blocks(w: Writer, want: Want) -> str:
    m, n = want.item
    return f"blkdiag({w(want.of(PART[m], PART[n]))}, ({w(want)})_{{{PART[m]}:,{PART[n]}:}})"


def kron(w: Writer, want: Want) -> str:
    m, n = want.item
    inner, outside = w(want.of(PART[m], PART[n])), w(want.of("b", "b"))
    return w.pick([f"({outside} ⊗ {inner})", f"kron({inner}, {outside})"])


def grid(w: Writer, want: Want) -> str:
    return f"assemble(blocks({w(want)}, b, b) {w.pick(['', '⊙ tanh(blocks(' + w(want) + ', b, b))'])})"


def from_family(w: Writer, want: Want) -> str:
    return f"rows({w(Want(want.item[1:], want.depth, True))})"


def triangle(w: Writer, want: Want) -> str:
    return f"{w.pick(['tril', 'triu', 'stril', 'striu'])}({w(want)})"


def sparse(w: Writer, want: Want) -> str:
    m, n = want.item
    return f"scatter({w.declare(('b',))}, sample({m}, {n}, b, 3), shape=({m}, {n}))"


def sparse_sum(w: Writer, want: Want) -> str:
    """Σ over the places of an index set."""
    (m, n), a, c = want.item, w.dim(), w.dim()
    omega = w.name("Ω")
    w.lines.append(f"{omega} ← sample({a}, {c}, 1, {w.count})")
    weight = w.name("c")
    w.lines.append(f"{weight} ∈ ℝ^{omega}: learned, init = normal(0.4)")
    U, V = w.declare((m, a)), w.declare((c, n))
    return f"(Σ_{{(i,j) ∈ {omega}}} {weight}_{{i,j}} · {U}_{{:,i}} {V}_{{j,:}})"


def spectrum(w: Writer, want: Want) -> str:
    return w.pick([f"Re(ifft2({w(want)}))", f"(0.2 · Re(fft2({w(want)})))",
                   f"Re(ifft2(fft2({w(want)}) ⊙ fft2({w(want)})))"])


def skew(w: Writer, want: Want) -> str:
    """An antisymmetric matrix of moderate size."""
    n = want.item[0]
    if w.chance(60):
        name, space = w.name("o"), f"ℝ^{{{n}({n}-1)/2}}"
        w.declared.append(f"{name} ∈ {f'({space})^b' if want.family else space}: learned, init = normal(0.3)")
        return f"skew({name})"
    M = w.declare((n, n), "b" if want.family else "")
    return f"({M} - {M}ᵀ)"


def regular(w: Writer, want: Want) -> str:
    """A matrix that is safely invertible."""
    n = want.item[0]
    return w.pick([f"I {w.pick('+-')} {skew(w, want)}", f"diag(2 · ones({n}) + tanh({w(want.of(n))}))",
                   f"2 · (I + {skew(w, want)})", f"(I + {skew(w, want)}) @ (I - {skew(w, want)})"])


def inverse(w: Writer, want: Want) -> str:
    return f"({regular(w, want)})⁻¹"


def of_vector(w: Writer, want: Want) -> str:
    return f"{w.pick(['diag', 'diag', 'circulant'])}({w(want.of(want.item[0]))})"


def permutation(w: Writer, want: Want) -> str:
    n = want.item[0]
    return w.pick([f"perm(argtop({w.frozen(n)}, {n}))", f"perm(argtop({w.frozen(n)}, {n}))ᵀ"])


def power(w: Writer, want: Want) -> str:
    return f"(0.5 · {w(want)}){w.pick(['²', '³'])}"


def near_identity(w: Writer, want: Want) -> str:
    return f"(I {w.pick('+-')} {w(want)})"


def exponential(w: Writer, want: Want) -> str:
    return f"expm({skew(w, want)})"


def projection(w: Writer, want: Want) -> str:
    """Q Qᵀ of a qr decomposition of something tall."""
    Q, L, n = w.name("Q"), w.name("L"), want.item[0]
    w.lines.append(f"{Q}, {L} ← qr({w.frozen(n, n)} + 0.1 · tanh({w(want)}))")
    return w.pick([f"({Q} @ tanh({L}))", f"{Q}", f"({Q}ᵀ)"])


def pieces(w: Writer, want: Want) -> str:
    """A product around the svd of W, or of its pieces."""
    if "U, Σ, Vᵀ ← svd(W)" not in w.lines:
        w.lines.insert(0, "U, Σ, Vᵀ ← svd(W)")
    r = "1"
    match w.pick(["whole", "head", "tail", "edited", "turned", "middle", "left", "inserted"]):
        case "whole":
            return "(U @ diag(Σ) @ Vᵀ)"
        case "head":
            return f"(U_{{:,:{r}}} · Σ_{{:{r}}} @ Vᵀ_{{:{r},:}})"
        case "tail":
            return f"(U_{{:,{r}:}} @ diag(Σ_{{{r}:}}) @ Vᵀ_{{{r}:,:}})"
        case "edited":
            s = w.name("T")
            w.lines.append(f"{s} ← Σ; {s}_{{:{r}}} {w.pick(['+=', '←', '-='])} {w.declare((r,))}")
            return f"(U · {s} · Vᵀ)"
        case "turned":
            s = w.name("T")
            w.lines.append(f"{s} ← Vᵀ; {s}_{{:{r},:}} ← {w.declare((r, r))} @ Vᵀ_{{:{r},:}}")
            return f"(U · Σ · {s})"
        case "middle":
            return f"(U_{{:,:{r}}} @ {w.declare((r, r))} @ Vᵀ_{{:{r},:}})"
        case "inserted":
            s = w.name("T")
            w.lines.append(f"{s} ← tanh(Uᵀ @ {w(want)} @ Vᵀᵀ)")
            return f"(U @ {s} @ Vᵀ)"
        case _:
            s = w.name("T")
            w.lines.append(f"{s} ← U; {s}_{{:,:{r}}} ← U_{{:,:{r}}} @ {w.declare((r, r))}")
            return f"({s} @ diag(Σ) @ Vᵀ)"


def grid_loop(w: Writer, want: Want) -> str:
    """for i: for j: Z_{i,j} ← …"""
    Z, (m, n) = w.name("Z"), want.item
    body = w.body([("i", m), ("j", n)], want.of())
    w.lines += [f"for i in range({m}):", f"    for j in range({n}):", f"        {Z}_{{i,j}} ← {body}"]
    return Z


def row_by_row(w: Writer, want: Want) -> str:
    """for i: Z_i ← …, or column by column."""
    Z, (m, n) = w.name("Z"), want.item
    place, over, at = w.pick([("i", m, n), ("i,:", m, n), (":,i", n, m)])
    w.lines += [f"for i in range({over}):", f"    {Z}_{{{place}}} ← {w.body([('i', over)], want.of(at))}"]
    return Z


def rewritten(w: Writer, want: Want) -> str:
    """Some rows or columns of a matrix written anew."""
    Z, (m, n) = w.name("Z"), want.item
    op = w.pick(["←", "+=", "-="])
    place, part = w.pick([(f":{PART.get(m, m)},:", (PART.get(m, m), n)), (f":,:{PART.get(n, n)}", (m, PART.get(n, n)))])
    w.lines.append(f"{Z} ← {w(want)}; {Z}_{{{place}}} {op} {w(want.of(*part))}")
    return Z


def chain(w: Writer, want: Want) -> str:
    """R ← I, then a chain of rank-one changes, of plane rotations, of dense factors, or a running sum."""
    R, m = w.name("R"), want.item[0]
    over = w.pick(["b", "r"])
    left = w.chance(50)
    here = [("i", over)]
    match w.pick(["reflections", "oblique", "rotations", "dense", "sum", "near"]):
        case "reflections":
            u = w.declare((over, m))
            loop = f"for i in range({over}):"
            step = f"(I - 2 · {u}_i {u}_iᵀ / ‖{u}_i‖²)"
        case "oblique":
            u, v = w.declare((m,), over), w.declare((over, m))
            loop = f"for i in range({over}):"
            c = w.pick(["", f"{w.declare((over,))}_i · ", "0.5 · ", f"{w.body(here, want.of())} · "])
            step = f"(I {w.pick('+-')} {c}{u}_i {v}_iᵀ)"
        case "rotations":
            t = w.name("t")
            w.declared.append(f"{t} ∈ ℝ^{{{m}-1}}: learned, init = normal(0.4)")
            a, c, e, g = w.pick([(f"cos {t}_q", f"-sin {t}_q", f"sin {t}_q", f"cos {t}_q"),
                                 (f"1 + {t}_q", f"{t}_q", "0.5", "1")])
            last = w.pick([f"; G[j,j] ← {g}", ""])
            w.lines += [f"{R} ← {w.pick([f'eye({m})', w.declare((m, m))])}",
                        f"for (i,j,q) in {w.pick(['tree', 'neighbours'])}({m}):",
                        f"    G ← I; G[i,i] ← {a}; G[i,j] ← {c}; G[j,i] ← {e}{last}",
                        f"    {R} ← {f'G @ {R}' if left else f'{R} @ G'}"]
            return _used(w, want, R)
        case "dense":
            loop, step = f"for i in range({over}):", w.body(here, want.of(m, m))
        case "near":
            loop, step = f"for i in range({over}):", f"(I + {w.body(here, want.of(m, m))})"
        case _:
            w.lines += [f"{R} ← {w(want.of(m, m))}", f"for i in range({over}):",
                        f"    {R} ← {R} {w.pick('+-')} {w.body(here, want.of(m, m))}"]
            return _used(w, want, R)
    start = w.pick([f"eye({m})", w.declare((m, m))])
    w.lines += [f"{R} ← {start}", loop, f"    {R} ← {f'{step} @ {R}' if left else f'{R} @ {step}'}"]
    return _used(w, want, R)


def _used(w: Writer, want: Want, R: str) -> str:
    whole = f"{R}ᵀ" if w.chance(40) else R
    return whole if want.square and w.chance(50) else f"({whole} @ {w(want)})"


MATRICES = (
    Production(leaf), Production(product, weight=6), Production(binary("+", "-"), weight=4), Production(scaled),
    Production(transposed, weight=4), Production(outer), Production(rows_scaled), Production(columns_scaled),
    Production(binary("⊙"), weight=1), Production(masked), Production(solved),
    Production(function("tanh", "sin"), weight=1),
    Production(turned), Production(normalised_rows), Production(total, may_sum),
    Production(cut_rows, lambda w, want: want.single and want.item[0] in ("k", "p")),
    Production(above, lambda w, want: want.single and want.item[0] in PART),
    Production(beside, lambda w, want: want.single and want.item[1] in PART),
    Production(blocks, large), Production(two_blocks, large, weight=1), Production(kron, large),
    Production(grid, large, weight=1),
    Production(from_family, lambda w, want: want.single and want.item[0] == "b" and not w.loops),
    Production(triangle, weight=1), Production(sparse, single, weight=1), Production(sparse_sum, may_state, weight=1),
    Production(spectrum, weight=1),
    Production(pieces, lambda w, want: may_state(w, want) and want.item == ("m", "n"), weight=6),
    Production(chain, may_state, weight=4), Production(grid_loop, may_state, weight=1),
    Production(row_by_row, may_state), Production(rewritten, may_state),
    Production(detached, weight=1), Production(negated, weight=1), Production(clamped, weight=1),
    Production(chosen, weight=1),
    Production(inverse, square), Production(skew, square), Production(of_vector, square, weight=6),
    Production(permutation, lambda w, want: square_single(w, want) and not w.loops), Production(power, square),
    Production(near_identity, square, weight=4), Production(exponential, square, weight=1),
    Production(projection, lambda w, want: may_state(w, want) and want.square, weight=1),
)
