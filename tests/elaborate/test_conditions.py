"""What a program asks of its sizes is proved, or refused where a layer breaks it: by the plan and by the literal
reading, at the same sizes, and nothing that both accept comes out differently."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

import padp
from padp import PadpError
from padp.compiler.adapter import Adapter
from padp.compiler.literal.reference import Reference
from padp.compiler.sizes.solve import solve

HEAD = """adapter T(r = 3, k = 1) on linear(W ∈ ℝ^{m×n})
v ∈ ℝ^n: learned, init = normal(1)
A ∈ ℝ^{r×n}: learned, init = normal(1)
M ∈ ℝ^{m×n}: learned, init = normal(1)
"""
LAST = "y ← (1 + s) · (W @ (v + sum(A) · v + sum(M) · x))    # not the identity at init\n"

SCALARS = """
v_{r} · v_{r-1}
v_{n-r}
v_{-r}
v_{r-k}
v_{-r+k}
v_{n/2}
A_{k,0}
sum(v_{:r})
sum(v_{r:})
sum(v_{n-r:})
sum(v_{-r:})
sum(v_{:-r})
sum(v_{k:r})
sum(v_{r-k:})
sum(v_{:n/2})
sum(A_{:,r:n-k})
sum(A_{k:})
sum(A_{-k,:})
sum(ones(n/r))
sum(ones(n - r))
sum(zeros(r - k, n)) + sum(ones(r))
sum(eye(n/k))
sum(reshape(v, k, n/k))
sum(reshape(A, r·n))
sum(assemble(blocks(M, m/k, n/k)))
sum(assemble(blocks(M, k, r)))
sum(tile(v, n/k))
sum(tile(v, r - k))
sum(flatten(repeat(family(A), n/k)))
sum(topk(v, n/2) ⊙ v)
sum(topk(v, r))
sum(v_{argtop(‖W‖_col, r)})
len(largest(W, r·k)) · v_0
len(sample(m, n, r·k, 0)) · v_0
sum(scatter(v, sample(m, n, n, r - k), shape=(m, n)) ⊙ M)
sum(scatter(ones(r), pairs(2·r), shape=(m, n)) ⊙ M)
sum(scatter(ones(r - 1), neighbours(r), shape=(m, n)) ⊙ M) if r < 0 else v_0
Σ_{(i,j) ∈ band(r, 1)} M_{i,j}
Σ_{(i,j) ∈ pairs(r)} v_j
Σ_{(i,j,t) ∈ tree(r)} v_t · A_{0,j}
Σ_{i ∈ range(r - 1)} v_i
Σ_{i ∈ range(k, r)} v_i
Σ_{i ∈ range(n/2)} v_{2i}
Σ_{i ∈ range(r)} v_{2i+1}
Σ_{i ∈ range(r)} v_{r-1-i}
Σ_{i ∈ range(r)} v_{-i-1}
Σ_{i ∈ range(r)} A_{i,n-1-i}
sum(arange(n/2) · 1.0) if r < 0 else sum(v_{arange(r)})
sum(perm(butterfly(n, k, 0)) @ v)
""".strip().splitlines()

STATEMENTS = [
    "U, Σ, Vᵀ ← svd(M, rank=r)\ns ← sum(Σ)\n",
    "Z ← eye(r)\nZ_{k,:} += ones(r)\ns ← sum(Z)\n",
    "Z ← zeros(m, n)\nZ_{:,r-k} ← ones(m)\ns ← sum(Z)\n",
    "Z ← zeros(n)\nZ_{r} += v_0\ns ← sum(Z · v)\n",
    "Z ← zeros(n)\nfor i in range(r):\n    Z_{i+k} ← v_i\ns ← sum(Z)\n",
    "Z ← I\nfor i in range(r):\n    Z[i,i+1] ← v_i\ns ← vᵀ @ Z @ v\n",
    "Z ← I\nZ[r,k] ← v_0\ns ← vᵀ @ Z @ v\n",
    "Z ← zeros(r)\nfor i in range(k):\n    Z ← Z + A_{i,:r}\ns ← sum(Z)\n",
    "for i in range(r - 1):\n    Z_i ← v_i\ns ← sum(Z)\n",
    "R ← I\nfor i in range(k):\n    R ← (I - A_i A_iᵀ / ‖A_i‖²) @ R\ns ← vᵀ @ R @ v\n",
    "first(e, j) ← e_{:j}\ns ← sum(first(v, r - k))\n",
    "D ∈ ℝ^{n/r}: learned, init = 1\ns ← sum(D)\n",
    "D ∈ ℝ^{(r-k)×n}: learned, init = 1\ns ← sum(D) + v_0\n",
    "D ∈ St(r, n): learned, init = orthogonal\ns ← sum(D)\n",
    "D ∈ ℝ^{k(k-1)/2}: learned, init = 1\ns ← sum(skew(D)) + v_0\n",
    "Z ← [diag(v); zeros(r - k, n)]\ns ← sum(Z)\n",
    "Z ← [v; zeros(n - r)]\ns ← sum(Z ⊙ Z)\n",
]  # fmt: skip
PROGRAMS = [HEAD + (e if "←" in e else f"s ← {e}\n") + LAST for e in [*SCALARS, *STATEMENTS]]
SIZES = [(4, 6, 2, 2), (6, 5, 7, 2), (5, 4, 2, 4), (3, 3, 3, 1), (6, 4, 1, 2)]
"""m, n, r, k: with each other's divisors or not, r above and below n and k."""


def name(program: str) -> str:
    return program.removeprefix(HEAD).removesuffix(LAST).replace("\n", "; ")


def literal(adapter: Adapter, W: Tensor, hyper: Mapping[str, int], tensors: Mapping[str, Tensor] | None, x: Tensor
            ) -> Tensor:
    """The program read literally; with random tensors where none are given."""
    method = adapter.method()
    m, n = W.shape
    sizes = solve(method, {"m": m, "n": n}, hyper)
    if tensors is None:
        empty = Reference(method, sizes, hyper, {"W": W})
        tensors = {p.name: torch.randn(empty.shape(p), dtype=torch.double) for p in method.parameters}
    return Reference(method, sizes, hyper, {"W": W, **tensors}).forward(x)


@pytest.mark.parametrize("program", PROGRAMS, ids=map(name, PROGRAMS))
def test_plan_and_reading_refuse_the_same_sizes(program: str) -> None:
    adapter = padp.compile(program)
    accepted = []
    for m, n, r, k in SIZES:
        layer = nn.Linear(n, m, bias=False, dtype=torch.double)
        x = torch.randn(3, n, dtype=torch.double)
        try:
            made = adapter(layer, r=r, k=k)
        except PadpError as error:
            assert {d.code for d in error.diagnostics} <= {"E501", "E305"}, error
            assert all(d.span is not None for d in error.diagnostics), error
            with pytest.raises(PadpError):
                literal(adapter, layer.weight.detach(), {"r": r, "k": k}, None, x)
            continue
        accepted.append((m, n, r, k))
        with torch.no_grad():
            assert torch.allclose(made(x), made.reference(x)), (m, n, r, k)
        literal(adapter, layer.weight.detach(), {"r": r, "k": k}, None, x)
    assert accepted, "no sizes fit"


LOW = """B ∈ ℝ^{m×r}: learned, init = 0
A ∈ ℝ^{r×n}: learned, init = kaiming
"""
PLAIN = "y ← (W + B @ A) @ x\n"


def program(where: str, body: str = LOW + PLAIN, hyper: str = "r = 4") -> str:
    return f"adapter T({hyper}) on linear(W ∈ ℝ^{{m×n}}){where and ' where '}{where}\n{body}"


NEVER = {
    "a relation that the default breaks": (program("r > 5"), "E308", "r > 5 by default: r is 4"),
    "a parity that the default breaks": (program("r odd"), "E308", "r odd by default: r is 4"),
    "an equation that the defaults break": (program("r = 2·k", hyper="r = 3, k = 2"), "E308", "r is 3"),
    "no whole size solves it with the default": (program("r = 3·b"), "E308", "r is 4"),
    "two equations": (program("m = n, m = n + 1"), "E308", "m = n and m = n + 1"),
    "three relations by their sum": (program("m = n, n < r, r < m", hyper="r = 4"), "E308", "no sizes satisfy"),
    "a column that is not there": (program("", "B ∈ ℝ^{m×r}: learned, init = 0\ny ← W @ x + B_{:,4}\n"), "E308",
                                   "4 < r does not hold by default: r is 4"),
    "a calculated size of the layer": (program("", "y ← W @ x\n").replace("{m×n}", "{m×(n-m)}", 1), "E204",
                                       "the sizes of `W` are names"),
    "a number as a size of the layer": (program("", "y ← W @ x\n").replace("{m×n}", "{0×n}", 1), "E204",
                                        "the sizes of `W` are names"),
    "a negative size": (program("", LOW.replace("r", "(r-5)", 1).replace("{r×n}", "{(r-5)×n}") + PLAIN), "E308",
                        "0 ≤ r − 5 does not hold by default"),
    "half a size": (program("", LOW + "Z ← ones(r/8)\n" + PLAIN.replace("@ x", "@ (sum(Z) · x)")), "E308",
                    "r/8 must be a whole number, and is 1/2 by default"),
    "more than there is": (program("", LOW + "v ← topk(A_{:,0}, r + 1)\n" + PLAIN.replace("@ x", "@ (sum(v) · x)")),
                           "E308", "topk: r + 1 ≤ r does not hold"),
    "a probability of 2": (program("", LOW + PLAIN.replace("@ x", "@ drop(x, 2)")), "E308", "drop: 2 ≤ 1"),
    "a spread below 0": (program("", LOW.replace("kaiming", "normal(-1)") + PLAIN), "E308", "standard deviation"),
    "ends of uniform in disorder": (program("", LOW.replace("kaiming", "uniform(2, 1)") + PLAIN), "E308", "uniform"),
    "a seed that is a tensor": (program("", LOW.replace("learned, init = kaiming", "frozen, init = kaiming, seed = W")
                                        + PLAIN), "E310", "a seed is a number"),
    "a seed that is a layer's size": (program("", LOW.replace("learned, init = kaiming",
                                                              "frozen, init = kaiming, seed = m") + PLAIN), "E310",
                                      "a seed is a number"),
    "a seed that is not whole": (program("", LOW.replace("learned, init = kaiming",
                                                         "frozen, init = kaiming, seed = r/8") + PLAIN), "E308",
                                 "r/8"),
    "@ of two numbers": (program("", LOW + "y ← (W + (α @ r) · B @ A) @ x\n", "r = 4, α = 2"), "E302", "numbers"),
    "⊗ of two numbers": (program("", LOW + "y ← (W + (α ⊗ r) · B @ A) @ x\n", "r = 4, α = 2"), "E302", "numbers"),
    "an entry of y": (program("", LOW + "y[0] ← (W + B @ A) @ x\n"), "E305", "y is defined by writes to its parts"),
    "a name that nothing determines": (program("q = min(m, foo)"), "E309", "nothing determines `foo`"),
    "rows to be orthonormal": (program("", LOW.replace("A ∈ ℝ", "A ∈ St(r, 3): learned, init = orthogonal\nC ∈ ℝ")
                                       + "y ← (W + B @ C + 0 · B @ A @ ones(3, n)) @ x\n"), "E308", "r ≤ 3"),
    "a vector that starts orthonormal": (program("", LOW + "c ∈ ℝ^m: learned, init = orthogonal\n"
                                                 + PLAIN.replace("y ← ", "y ← c + ")), "E301", "only a matrix"),
    "rows at places that W decides": (program("", LOW + """J ← argtop(‖W‖_row, r)
Z ← W
for i in range(r):
    Z_{J_i,:} += A_i
y ← (Z + 0 · B @ A) @ x
"""), "E305", "the place of a row that is written"),
}


@pytest.mark.parametrize("bad", NEVER.values(), ids=NEVER)
def test_what_no_layer_satisfies_is_found_by_check(bad: tuple[str, str, str]) -> None:
    text, code, words = bad
    errors = [d for d in padp.check(text) if d.severity == "error"]
    assert [d.code for d in errors] == [code] * len(errors) and errors, errors
    assert words in errors[0].message, errors[0].message
    assert errors[0].span is not None


def test_a_size_of_a_block_that_nobody_gives_is_said_and_named_at_attach() -> None:
    assert [d.code for d in padp.check(LOW + PLAIN)] == ["N405"]
    with pytest.raises(PadpError, match="a value in the header") as error:
        padp.compile(LOW + PLAIN)(nn.Linear(6, 5))
    assert error.value.diagnostics[0].code == "E309"


@pytest.mark.parametrize("index", ["[i,i+1]", "[i+1,i]", "[i,i-1]", "[2i,i]", "[i,n]", "[n-i,i]"])
@pytest.mark.parametrize("start", ["I", "eye(n)", "zeros(n, n)"])
def test_writes_outside_are_refused_whatever_is_written_into(start: str, index: str) -> None:
    text = (f"adapter T on linear(W ∈ ℝ^{{n×n}})\nθ ∈ ℝ^n: learned, init = 0\nG ← {start}\n"
            f"for i in range(n):\n    G{index} ← θ_i\ny ← W @ G @ x\n")
    errors = [d for d in padp.check(text) if d.severity == "error"]
    if errors:
        assert {d.code for d in errors} == {"E305"}, errors
        return
    adapter = padp.compile(text)
    with pytest.raises(PadpError) as error:
        adapter(nn.Linear(5, 5))
    assert {d.code for d in error.value.diagnostics} <= {"E305", "E501"}
    with pytest.raises(PadpError):
        literal(adapter, torch.randn(5, 5, dtype=torch.double), {}, None, torch.randn(2, 5, dtype=torch.double))


@pytest.mark.parametrize("access", ["G[-1,0] ← θ_0", "G[0,-1] += θ_0", "H ← G_{-1,0} · G"])
def test_an_identity_without_a_size_has_no_end_to_count_from(access: str) -> None:
    text = (f"adapter T on linear(W ∈ ℝ^{{n×n}})\nθ ∈ ℝ^n: learned, init = 0\nG ← I\n{access}\n"
            "y ← W @ (G + diag(θ)) @ x\n")
    assert "E305" in [d.code for d in padp.check(text)]


@pytest.mark.parametrize("start", ["zeros(n, n)", "eye(n)", "diag(θ)"])
@pytest.mark.parametrize("write", ["G[-1,0] ← θ_0", "G[-2,-1] += θ_1", "G_{-1,:} ← θ", "G_{:,-2:} ← ones(n, 2)"])
def test_writes_counted_from_the_end_mean_the_same_everywhere(start: str, write: str) -> None:
    text = (f"adapter T on linear(W ∈ ℝ^{{n×n}})\nθ ∈ ℝ^n: learned, init = normal(1)\nG ← {start}\n{write}\n"
            "y ← W @ G @ x    # not the identity at init\n")
    layer = padp.compile(text)(nn.Linear(5, 5, dtype=torch.double))
    x = torch.randn(3, 5, dtype=torch.double)
    assert torch.allclose(layer(x), layer.reference(x))


@pytest.mark.parametrize("text", [
    program("", LOW.replace("r = 4", "") + "y ← W @ x + (ones(1, n/r) ⊗ (B_{:,:1} · A_{:1,:1})) @ ones(n/r)\n"),
    program("n = 24·b, m = 16·c·b"),
    program("n = b·k, m = c·k, k = 2·r", hyper="r = 4"),
    program("", "c ∈ ℝ^m: learned, init = 0\ny ← W @ x + c ⊙ (assemble(blocks(W, m/k, n/k)) @ x)\n", "k = 7"),
])
def test_trial_sizes_come_from_the_relations_and_the_conditions(text: str) -> None:
    found = padp.check(text, numerics=True)
    assert [d for d in found if d.code in ("E406", "N403")] == [], found


# parts of r - k rows or entries: none at all where r = k
PIECES = [
    "Z ∈ ℝ^{(r-k)×n}: learned, init = normal(1)\nB ← [Z; A_{:k}]\nM ← Bᵀ @ B\n",
    "B ← [Aᵀ_{:,:r-k}, Aᵀ_{:,:k}]\nM ← B @ Bᵀ\n",
    "B ← [A_{:k}; zeros(r-k, n)]\nM ← Bᵀ @ A\n",
    "B ← A_{k:}\nM ← Bᵀ @ B\n",
    "B ← A_{k:}\nc ← ones(r-k)\nM ← Bᵀ @ diag(c) @ B\n",
    "c ← [v_{:r-k}; ones(n-r+k)]\nM ← diag(c)\n",
    "u ← A_{:,0}_{k:}\nM ← diag(v) · sum(u)\n",
    "F ∈ (ℝ^{1×1})^{r-k}: learned, init = normal(1)\nM ← blkdiag(blkdiag(F), eye(n-r+k))\n",
    "Z ← eye(n)\nZ_{:r-k} ← A_{k:}\nM ← Z\n",
    "Z ← zeros(n, n)\nZ_{:,:r-k} += Aᵀ_{:,k:}\nM ← Z\n",
    "R ← I\nfor i in range(r-k):\n    R ← (I - 2 · A_i A_iᵀ / ‖A_i‖²) @ R\nM ← R\n",
    "R ← eye(n)\nfor i in range(r-k):\n    R ← (I + A_i A_iᵀ) @ R\nM ← R\n",
    "R ← zeros(n, n)\nfor i in range(r-k):\n    R ← R + A_i A_iᵀ\nM ← R\n",
    "B ← A_{k:}\nC ← B / ‖B‖_row\nM ← Cᵀ @ B\n",
    "B ← A_{k:}\nM ← ‖B‖_F · diag(v)\n",
    "Q, R ← qr(Aᵀ_{:,k:})\nM ← Q @ Qᵀ\n",
    "q ∈ ℝ^{(r-k)×(r-k)}: learned, init = 0\nM ← A_{k:}ᵀ @ expm(q) @ A_{k:}\n",
    "M ← diag(v) · sum(kron(A_{k:}, A))\n",
    "M ← diag(v) · sum(tile(v, r-k))\n",
    "M ← diag(v) · sum(flatten(repeat(family(A), r-k)))\n",
    "M ← diag(topk(v, r-k))\n",
    "Ω ← sample(n, n, r-k, 0)\nc ∈ ℝ^Ω: learned, init = normal(1)\nM ← scatter(c, Ω, shape=(n, n))\n",
    "Ω ← largest(Wᵀ @ W, r-k)\nc ∈ ℝ^Ω: learned, init = normal(1)\nM ← scatter(c, Ω, shape=(n, n))\n",
    "Z ∈ St(r-k, n): learned, init = orthogonal\nM ← Zᵀ @ Z\n",
    "M ← trace(A_{k:} @ A_{k:}ᵀ) · diag(v)\n",
    "M ← A_{k:}ᵀ @ (I + A_{k:} @ A_{k:}ᵀ)⁻¹ @ A_{k:}\n",
    "F ∈ (ℝ^{n×n})^{r-k}: learned, init = normal(1)\nM ← Σ_{i ∈ range(r)} A_{i,0} · eye(n)"
    " + reshape(F, n·(r-k), n)ᵀ @ reshape(F, n·(r-k), n)\n",
]  # fmt: skip
VECTOR = "v ∈ ℝ^n: learned, init = normal(1)\nA ∈ ℝ^{r×n}: learned, init = normal(1)\n"
WHOLE = "y ← W @ (x + M @ x) + sum(A) · (W @ v)    # not the identity at init\n"


@pytest.mark.parametrize("piece", PIECES)
def test_pieces_without_entries_are_right_everywhere(piece: str) -> None:
    adapter = padp.compile(program("", VECTOR + piece + WHOLE, "r = 3, k = 1"))
    for r in (1, 2):
        layer = adapter(nn.Linear(5, 4, dtype=torch.double), r=r, k=r)
        x = torch.randn(3, 5, dtype=torch.double, requires_grad=True)
        learned = [x, *(p for p in layer.parameters() if p.requires_grad)]
        said = layer.reference(x)
        assert torch.allclose(layer(x), said)
        for fast, slow in zip(torch.autograd.grad(layer(x).sum(), learned, allow_unused=True),
                              torch.autograd.grad(said.sum(), learned, allow_unused=True), strict=True):
            assert fast is None or slow is None or torch.allclose(fast, slow)
        layer.eval().merge()
        assert torch.allclose(layer(x), said)


@pytest.mark.parametrize("reduced", [
    "max(v_{:r-k})", "min(v_{:r-k})", "mean(v_{:r-k})", "sum(softmax(v_{:r-k}))", "sum(circulant(v_{:r-k}))",
    "sum(Re(fft(v_{:r-k})))", "sum(max_row(A_{:,:r-k}))", "sum(mean_col(A_{k:}))", "sum(Re(ifft2(A_{k:})))",
])
def test_what_has_no_value_for_no_entries_is_refused(reduced: str) -> None:
    adapter = padp.compile(program("", VECTOR + f"M ← {reduced} · diag(v)\n" + WHOLE, "r = 3, k = 1"))
    adapter(nn.Linear(5, 4))
    with pytest.raises(PadpError, match=r"1 ≤ r − k does not hold: r − k is 0"):
        adapter(nn.Linear(5, 4), r=2, k=2)
    with pytest.raises(PadpError):
        literal(adapter, torch.randn(4, 5, dtype=torch.double), {"r": 2, "k": 2}, None,
                torch.randn(2, 5, dtype=torch.double))
