"""The table of operators: every entry is documented, its example compiles, and its symbolic shape is the tensor's.

An example is an expression over the tensors of ``DECLARED``. It is typed for all sizes, the symbols are replaced by
numbers, and the shape is compared with the tensor that the dense reading makes; then the whole program, compiled, is
compared with its dense reading in float64, gradients included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import sympy as sp
import torch

from padp.compiler.elaborate.elaborate import elaborate
from padp.compiler.ir.nodes import Node
from padp.compiler.literal.reference import Reference
from padp.compiler.names.resolve import resolve
from padp.compiler.names.signatures import AFTER_BACKWARD_ONLY, ATTENTION_PARTS, INITIALISERS, LANGUAGE, builtin_names
from padp.compiler.names.terms import Method
from padp.compiler.operators.table import ALIASES, OPERATORS
from padp.dsl.parse import parse
from padp.dsl.source import Source
from tests.support.agreement import agree

SIZES = {"m": 6, "n": 8, "k": 4, "p": 3, "b": 2}
HEAD = "adapter Example on linear(W ∈ ℝ^{m×n}) where n = b·k, m = b·p, b = 2\n"
DECLARED: Mapping[str, str] = {
    "v": "ℝ^k", "u": "ℝ^p", "s": "ℝ", "M": "ℝ^{p×k}", "S": "ℝ^{k×k}", "F": "(ℝ^{p×k})^b", "f": "(ℝ^k)^b",
    "o": "ℝ^{k(k-1)/2}", "G": "(ℝ^{p×k})^{b×b}",
}  # fmt: skip

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "skew": ("skew(o)",), "diag": ("diag(v)", "diag(f)"), "diagonal": ("diagonal(S)", "diagonal(F)"),
    "blkdiag": ("blkdiag(F)", "blkdiag(M, S, F_0)"), "perm": ("perm(arange(n))",), "kron": ("kron(M, S)", "v ⊗ u"),
    "outer": ("outer(u, v)", "outer(u, f)"), "circulant": ("circulant(v)", "circulant(f)"),
    "ones": ("ones(n)", "ones(m, n)"), "zeros": ("zeros(k)", "zeros(p, k)"), "eye": ("eye(k)",),
    "reshape": ("reshape(M, k, p)", "reshape(F, b·p, k)", "reshape(v, k, 1)"), "flatten": ("flatten(M)", "flatten(F)"),
    "vec": ("vec(M)",), "blocks": ("blocks(blkdiag(F), b, b)",), "assemble": ("assemble(G)",),
    "family": ("family(M)",), "rows": ("rows(f)",), "tile": ("tile(v, 3)", "tile(M, b)"), "repeat": ("repeat(f, 3)",),
    "grouped": ("grouped(f, 4)",), "scatter": ("scatter(ones(3), sample(m, n, 3, 0), shape=(m, n))",),
    "tril": ("tril(M)",), "triu": ("triu(F)",), "stril": ("stril(S)",), "striu": ("striu(S)",),
    "svd": ("U @ diag(Σ) @ Vᵀ", "Σ"), "qr": ("Q", "L"), "expm": ("expm(S)",), "solve": ("solve(eye(k) + S - Sᵀ, v)",),
    "trace": ("trace(S)", "tr(S)"), "fft": ("Re(fft(v))",), "ifft": ("Re(iFFT(v))",), "fft2": ("Im(FFT2(M))",),
    "ifft2": ("Re(iFFT2(M))",), "Re": ("Re(fft(v))",), "Im": ("Im(fft(v))",),
    "sum": ("sum(M)", "sum(f)"), "sum_row": ("sum_row(M)",), "sum_col": ("sum_col(F)",),
    "mean": ("mean(v)",), "mean_row": ("mean_row(F)",), "mean_col": ("mean_col(M)",),
    "max": ("max(v)", "max(k, p) · v"), "max_row": ("max_row(M)",), "max_col": ("max_col(M)",),
    "min": ("min(f)", "min(k, p) · v"), "min_row": ("min_row(M)",), "min_col": ("min_col(M)",),
    "exp": ("exp(v)",), "log": ("log(exp(v))",), "sin": ("sin(M)",), "cos": ("cos(f)",), "tan": ("tan(s)",),
    "tanh": ("tanh(v)",), "arctan": ("arctan(v)",), "sigmoid": ("sigmoid(v)",), "relu": ("relu(v)",),
    "gelu": ("gelu(M)",),
    "silu": ("silu(v)",), "softplus": ("softplus(v)",), "sqrt": ("sqrt(v ⊙ v)", "√(s² + 1)"), "abs": ("abs(v)", "|v|"),
    "sign": ("sign(v)",), "clamp": ("clamp(v, -1, s)",), "maximum": ("maximum(M, s)", "maximum(v, f)"),
    "minimum": ("minimum(v, v)",), "softmax": ("softmax(f)",), "topk": ("topk(v, 2)",),
    "argtop": ("v_{argtop(v, 2)}",), "floor": ("floor(k/3) · v",), "ceil": ("ceil(k/3) · v",), "log2": ("log2(k) · v",),
    "len": ("len(v) · v",), "arange": ("v_{arange(p)}",), "band": ("scatter(ones(|Ω|), Ω, shape=(k, k))",),
    "sample": ("scatter(u, sample(m, n, p, 1), shape=(m, n))",),
    "pairs": ("Σ_{(i,j) ∈ pairs(k)} v_i · v_j",), "halves": ("Σ_{(i,j) ∈ halves(k, k)} v_i · v_j",),
    "tree": ("Σ_{(i,j,t) ∈ tree(k)} v_i · v_j",), "neighbours": ("Σ_{(i,j,t) ∈ neighbours(k)} v_i · v_j",),
    "butterfly": ("perm(butterfly(n, 2, 1))",), "largest": ("scatter(u, largest(W, p), shape=(m, n))",),
    "detach": ("detach(v)",), "drop": ("drop(v, 0)",),
}  # fmt: skip

BEFORE: Mapping[str, str] = {"svd": "U, Σ, Vᵀ ← svd(W)\n", "qr": "Q, L ← qr(W)\n", "band": "Ω ← band(k, 1)\n",
                             "argtop": "", "largest": ""}
FIXED = {"argtop": "v", "topk": "v"}
"""What an example needs frozen: an index set cannot depend on what is learned."""

CASES = [(name, text) for name, texts in EXAMPLES.items() for text in texts]


def program(name: str, text: str) -> str:
    """A program that computes the example as E, and lets y depend on it."""
    declared = "".join(
        f"{symbol} ∈ {space}: {'frozen' if FIXED.get(name) == symbol else 'learned'}, init = normal(1)"
        f"{', seed = 3' if FIXED.get(name) == symbol else ''}\n" for symbol, space in DECLARED.items())
    return f"{HEAD}{declared}{BEFORE.get(name, '')}E ← {text}\ny ← W @ x + tanh(sum(flatten(E))) · ones(m)\n"


def method_of(text: str) -> Method:
    source = Source("<example>", text)
    return resolve(parse(source), source)


def shape_at(node: Node) -> tuple[int, ...]:
    """A symbolic shape at SIZES."""
    dims = [sp.sympify(d) for d in node.type.shape]
    return tuple(int(d.subs({x: SIZES[x.name] for x in d.free_symbols})) for d in dims)


def test_every_operator_is_documented_and_has_an_example() -> None:
    assert set(EXAMPLES) == set(OPERATORS)
    for name, entry in OPERATORS.items():
        assert entry.name == name and entry.doc.strip() and "\n" not in entry.doc, name
        assert entry.signature.startswith(f"{name}("), f"{name}: the signature shows how it is called"
        assert 1 <= entry.arity[0] <= entry.arity[1], name
        called = {name, *(alias for alias, of in ALIASES.items() if of == name)}
        texts = " ".join((BEFORE.get(name, ""), *EXAMPLES[name]))
        spelled = {"kron": "⊗", "abs": "|", "sqrt": "√"}.get(name, f"{name}(")
        assert spelled in texts or any(f"{c}(" in texts for c in called), f"{name}: the example does not call it"


def test_every_name_that_can_be_called_is_known_once() -> None:
    names = builtin_names()
    assert len(names) == len(set(names))
    assert set(ALIASES.values()) <= set(OPERATORS)
    assert not set(OPERATORS) & set(LANGUAGE) and not set(INITIALISERS) & (set(OPERATORS) - {"pairs"})
    assert set(LANGUAGE) >= AFTER_BACKWARD_ONLY and LANGUAGE["attn"].keywords == ATTENTION_PARTS


def test_the_table_refuses_a_second_registration() -> None:
    from padp.compiler.operators import table as operators

    with pytest.raises(ValueError, match="twice"):
        operators._table([*OPERATORS.values(), OPERATORS["skew"]])  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(("name", "text"), CASES)
def test_the_symbolic_shape_is_the_tensors_shape(name: str, text: str) -> None:
    method = method_of(program(name, text).replace("learned", "frozen").replace("normal(1)\n", "normal(1), seed = 3\n"))
    typed = elaborate(method)
    assert [d.message for d in typed.diagnostics if d.severity == "error"] == []
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, Any] = {"W": torch.randn(SIZES["m"], SIZES["n"], generator=generator, dtype=torch.double)}
    for p in method.parameters:
        tensors[p.name] = Reference(method, SIZES, {}, tensors).init(p.name, generator)
    dense = Reference(method, SIZES, {}, tensors).frozen()
    assert shape_at(typed.names["E"]) == tuple(dense["E"].shape)


@pytest.mark.parametrize(("name", "text"), CASES)
def test_the_example_compiles_to_its_dense_meaning(name: str, text: str) -> None:
    agree(program(name, text), SIZES["m"], SIZES["n"], lead=(3,), by=0.2)
