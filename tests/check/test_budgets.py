"""Whatever a file holds, reading, checking and attaching it ends soon: steps are counted, sizes known beforehand."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest
from torch import nn

import padp
from padp.compiler.check import check as checking
from padp.compiler.ir.budget import Steps, budget
from padp.dsl.source import Source

HEAD = "adapter T(r = 4) on linear(W ∈ ℝ^{m×n})\n"
LOW = HEAD + "A ∈ ℝ^{r×n}: learned, init = kaiming\nB ∈ ℝ^{m×r}: learned, init = 0\n"
BARE = "adapter T on linear(W ∈ ℝ^{m×n})\n"
SQUARE = BARE + "C ∈ ℝ^{n×n}: learned, init = 0\n"
VECTOR = BARE + "v ∈ ℝ^n: learned, init = 0\n"
END = "y ← (W + B @ A) @ x\n"
SECONDS = 10.0


def where(*relations: str) -> str:
    return BARE.replace("})", "}) where " + ", ".join(relations))


def nested(name: str, depth: int, inner: str) -> str:
    return f"{name}(" * depth + inner + ")" * depth


def functions(first: str, step: str, depth: int) -> str:
    return f"f0(u) ← {first}\n" + "".join(f"f{i}(u) ← {step.replace('g', f'f{i - 1}')}\n" for i in range(1, depth + 1))


@contextmanager
def soon() -> Generator[None, None, None]:
    """A time that a person waits for, also on a busy machine."""
    start = time.process_time()
    yield
    assert time.process_time() - start < SECONDS


def told(text: str) -> set[str]:
    with soon():
        return {d.code for d in padp.check(text)}


REFUSED: dict[str, str] = {
    "relations": where(*(f"m = {i}·a{i} + b{i}" for i in range(200))) + "y ← W @ x\n",
    "roundings in a chain": where("q0 = m + n", *(f"q{i + 1} = ceil(q{i}/3) + floor(q{i}/2)" for i in range(14)))
    + "a ∈ ℝ^{q14}: learned\ny ← W @ x + sum(a) · bias\n",
    "squares in a chain": where("q0 = m + n", *(f"q{i + 1} = q{i}·q{i} + 1" for i in range(20)))
    + "a ∈ ℝ^{q20}: learned\ny ← W @ x + sum(a) · bias\n",
    "inequalities": where(*(f"m ≥ {i}·n" for i in range(400))) + "y ← W @ x\n",
    "a power of a sum of sizes": LOW + "t ∈ ℝ^{(m+n+r)^{30}}: learned\nK ← skew(t)\n" + END,
    "a product of sums of sizes": LOW + "t ∈ ℝ^{" + "·".join(f"(m+{i}·n+r)" for i in range(9)) + "}: learned\n" + END,
    "a tower of exponentials": LOW + f"c ← {nested('exp', 5, '5')}\ny ← (W + c · B @ A) @ x\n",
    "claims of shapes": LOW + "# A ∈ ℝ^{r×n}\n" * 2000 + END,
    "claims of counts": LOW + END + "# params: r(m + n)\n" * 2000,
    "claims of growth": LOW + END + "# O(m + n) params\n" * 2000,
    "claims of ranks": LOW + "".join(f"D{i} ← {i} · B @ A  # rank r, D{i} ∈ ℝ^{{m×n}}\n" for i in range(900)) + END,
    "sums that grow": LOW + "y ← W @ x\n" + "y ← y + x_{0} · y\n" * 900,
    "products that grow": LOW + "y ← W @ x\n" + "y ← y ⊙ cos(y)\n" * 900,
    "functions of values that grow": LOW + "y ← W @ x\n" + "y ← cos(y) + y\n" * 900,
    "norms of norms": VECTOR + "z ← x + v\n" + "z ← z / ‖z‖\n" * 900 + "y ← W @ z\n",
    "inverses of inverses": SQUARE + "D ← C\n" + "D ← (I + D)⁻¹\n" * 900 + "y ← W @ D @ x\n",
    "parts written": SQUARE + "D ← C\n" + "D_{:1,:} += ones(1, n)\n" * 900 + "y ← W @ D @ x\n",
    "statements": LOW + "".join(f"z{i} ← {i} · x\n" for i in range(4900)) + END,
    "declarations": BARE + "".join(f"z{i} ∈ ℝ^n: learned\n" for i in range(4800)) + "y ← W @ (x + z0)\n",
    "variants": LOW + "".join(f"variant v{i}:\n    y ← (W + {i + 1} · B @ A) @ x\n" for i in range(300)),
    "variants of a long program": LOW + "".join(f"c{i} ← {i + 1} · B @ A\n" for i in range(100))
    + "".join(f"variant v{i}:\n    y ← (W + c{i}) @ x\n" for i in range(100)),
    "unknown names": LOW + "".join(f"z{i} ← unknown{i} · x\n" for i in range(2000)) + END,
    "functions that call twice": VECTOR + functions("cos(u)", "g(u) + g(2 · u)", 10) + "y ← W @ f10(x + v)\n",
    "functions that call twice, in a product": VECTOR + functions("cos(u)", "g(u) ⊙ g(2 · u)", 10)
    + "y ← W @ f10(x + v)\n",
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_adapter_needs_is_refused_soon(what: str) -> None:
    assert "E105" in told(REFUSED[what])


READ: dict[str, str] = {
    "min and max in a chain": where(*(f"q{i + 1} = {'min' if i % 2 else 'max'}(q{i}, m + q{i})" for i in range(11)),
                                    "q0 = n") + "a ∈ ℝ^{q11}: learned\ny ← W @ x + sum(a) · bias\n",
    **{f"a comment of 40,000 characters, {piece!r}": LOW + END[:-1] + "  # " + piece * (40_000 // len(piece)) + "\n"
       for piece in ("a", "a ", "a_", "A-", "a'", "A ∈ ", "a, ", "∈,", "rank ", "abcd abcd ", "params ", "a: ", "(")},
    "comments": LOW + ("# " + "ab cd " * 150 + "\n") * 200 + END,
    "Cayley of Cayley": SQUARE + f"G ← {nested('cayley', 20, 'C - Cᵀ')}\ny ← W @ G @ x\n",
    "functions in functions": VECTOR + functions("cos(u)", "g(g(u))", 7) + "y ← W @ f7(x + v)\n",
    "a hundred statements": LOW + "".join(f"D{i} ← {i} · B @ A  # D{i} ∈ ℝ^{{m×n}}, rank r\n" for i in range(100))
    + "y ← (W + " + " + ".join(f"D{i}" for i in range(100)) + ") @ x\n",
    "forty variants": LOW + "".join(f"variant v{i}:\n    y ← (W + {i + 1} · B @ A) @ x\n" for i in range(40)),
}  # fmt: skip


@pytest.mark.parametrize("what", READ)
def test_what_costs_little_is_read(what: str) -> None:
    assert not {code for code in told(READ[what]) if code.startswith("E")}


def test_a_claim_of_a_nested_value_is_decided_soon() -> None:
    assert "E403" in told(SQUARE + f"G ← {nested('cayley', 20, 'C - Cᵀ')}  # orthogonal\ny ← W @ G @ x\n")


def test_formulas_that_are_too_large_to_compare_are_no_counts() -> None:
    for text in ("(m+n+r)" * 40, " · ".join(f"(m+{i}n+r)" for i in range(1, 60)),
                 "min(" * 25 + "m" + "".join(f" + {i}, n·{i})" for i in range(1, 26))):
        assert told(LOW + END + f"# params: {text}\n") == {"N402"}


GROWING: dict[str, Callable[[int], str]] = {
    "comments": lambda k: LOW + "# more, and more\n" * (10 * k) + END,
    "a long comment": lambda k: LOW + END[:-1] + "  # " + "ab cd, " * (20 * k) + "\n",
    "claims": lambda k: LOW + "# A ∈ ℝ^{r×n}\n" * k + END,
    "counts": lambda k: LOW + END + "# params: r(m + n)\n" * k,
    "variants": lambda k: LOW + "".join(f"variant v{i}:\n    y ← W @ x + {i + 1} · B @ A @ x\n" for i in range(k)),
    "transposes of nested values": lambda k: SQUARE + f"G ← {nested('cayley', k, 'C - Cᵀ')}  # orthogonal\n"
    "y ← W @ G @ x\n",
    "open identities": lambda k: SQUARE + "D ← C\n" + "D ← D @ (I + D)\n" * (k // 4) + "y ← W @ x + sum(D) · bias\n",
}  # fmt: skip


@pytest.mark.parametrize("what", GROWING)
def test_twice_as_much_takes_twice_as_long(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, not seconds; a little more than twice, for what is looked up in lists."""
    used: list[int] = []

    @contextmanager
    def noted(source: Source | None) -> Generator[Steps, None, None]:
        with budget(source, 10**9) as steps:
            yield steps
        used.append(steps.limit - steps.left)

    monkeypatch.setattr(checking, "budget", noted)
    for k in (20, 40):
        padp.check(GROWING[what](k))
    small, large = used
    assert large < 2.6 * small, used


def test_the_same_text_takes_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has been looked up before: the answer does not depend on it."""
    used: list[int] = []

    @contextmanager
    def noted(source: Source | None) -> Generator[Steps, None, None]:
        with budget(source) as steps:
            yield steps
        used.append(steps.left)

    monkeypatch.setattr(checking, "budget", noted)
    for _ in range(3):
        padp.check(LOW + "ΔW ← B @ A  # ΔW ∈ ℝ^{m×n}, rank r\ny ← (W + ΔW) @ x\n# params: r(m + n)\n")
    assert len(set(used)) == 1


TOO_BIG: dict[str, str] = {
    "a declared tensor": BARE + "c ∈ ℝ^{100000000000}: learned, init = kaiming\ny ← W @ x + c_{0} · bias\n",
    "a power of a size": BARE + "c ∈ ℝ^{n^{9}}: learned, init = kaiming\ny ← W @ x + c_{0} · bias\n",
    "many declared tensors": BARE + "".join(f"c{i} ∈ ℝ^{{10000000}}: learned\n" for i in range(20))
    + "y ← W @ x + (" + " + ".join(f"c{i}_{{0}}" for i in range(20)) + ") · bias\n",
    "ones, end to end": VECTOR + "c ← tile(ones(1000), 1000000000)\ny ← W @ (x + v) + c_{0} · v_{0} · bias\n",
    "a vector, end to end": VECTOR + "y ← W @ x + ‖tile(v, 1000000000)‖ · bias\n",
    "a token, end to end": VECTOR + "y ← W @ x + softmax(tile(x, 1000000000))_{0} · v_{0} · bias\n",
    "zeros below": VECTOR + "y ← W @ x + ‖[v; zeros(10000000000)]‖ · bias\n",
    "a family": VECTOR + "G ← repeat(reshape(outer(v, v), n, n, 1), 1000000000)\ny ← W @ x + ‖G_0‖_F · bias\n",
    "a decomposition": VECTOR + "U, S, Vᵀ ← svd(ones(100000, 100000))\ny ← W @ x + S_{0} · v_{0} · bias\n",
    "an order": VECTOR + "y ← W @ x + ‖perm(arange(10000000)) @ tile(v, 1000000)_{:10000000}‖ · bias\n",
    "a tree": VECTOR + "c ← 0\nfor (i,j,t) in tree(4000000): c ← c + i · v_{0}\ny ← W @ x + c · bias\n",
    "places": BARE + "Ω ← sample(100000, 100000, 100000000, 0)\nc ∈ ℝ^Ω: learned\ny ← W @ x + sum(c) · bias\n",
    "a band": BARE + "Ω ← band(100000000, 5)\nc ∈ ℝ^Ω: learned\ny ← W @ x + sum(c) · bias\n",
    "loops in loops": BARE + "z ← x\nfor i in range(250):\n    for j in range(250):\n        for k in range(250):\n"
    "            z ← cos(z)\ny ← W @ z\n",
    "a long chain": SQUARE.replace("0\n", "I\n") + "R ← I\nfor i in range(250): R ← C @ R @ C\ny ← W @ R @ x\n",
    "a deep chain": BARE + "z ← x\nfor i in range(256): z ← cos(z) + z\ny ← W @ z\n",
    "exponentials of a size": LOW + f"c ← {nested('exp', 5, 'n')}\ny ← (W + c · B @ A) @ x\n",
}  # fmt: skip


@pytest.mark.parametrize("what", TOO_BIG)
def test_what_would_take_the_machine_down_is_refused_before_it_is_made(what: str) -> None:
    base = nn.Linear(12, 12)
    with soon(), pytest.raises(padp.PadpError) as error:
        padp.compile(TOO_BIG[what])(base)
    (found,) = error.value.diagnostics
    assert found.code == "E105"
    assert found.source is not None and found.span is not None and found.span.end
    assert base.weight.requires_grad


def test_large_layers_have_large_adapters() -> None:
    """The room grows with the layer: tensors as large as W are made for every W."""
    layer = padp.compile(SQUARE + "y ← W @ (x + C @ x)\n")
    with soon():
        made = layer(nn.Linear(9000, 9000, device="meta"))
    assert made.adapters["default"].tensors["C"].shape == (9000, 9000)
