"""Whatever a program asks for, checking it ends soon and ends in findings: every dimension of it has a stated limit."""

from __future__ import annotations

import time

import pytest

import padp
from padp.dsl import limits

HEAD = "adapter T(r = 4) on linear(W ∈ ℝ^{m×n})\n"
LOW = HEAD + "A ∈ ℝ^{r×n}: learned, init = kaiming\nB ∈ ℝ^{m×r}: learned, init = 0\n"
SQUARE = HEAD + "C ∈ ℝ^{n×n}: learned, init = I\n"
END = "y ← (W + B @ A) @ x\n"
SECONDS = 10.0


def timed(text: str) -> list[padp.Diagnostic]:
    """The findings, which take a time that a person waits for; also on a busy machine."""
    start = time.process_time()
    found = padp.check(text)
    assert time.process_time() - start < SECONDS
    return found


PAST: dict[str, str] = {
    "brackets": LOW + "y ← " + "(" * 500 + "W" + ")" * 500 + " @ x\n",
    "one statement": LOW + "y ← " + " + ".join(["W @ x"] * 2000) + "\n",
    "lines": LOW + "# more\n" * limits.MAX_STATEMENTS + END,
    "digits": LOW + "y ← (W + B @ A) @ x · " + "9" * 41 + "\n",
    "blocks": LOW + "".join("    " * k + f"for i{k} in range(2):\n" for k in range(70)) + "    " * 70 + "s_{i0} ← 1\n"
    + END,
    "a power of numbers": LOW + "y ← (W + B @ A) @ x · 2^9223372036854775807\n",
    "a tower of powers": LOW + "y ← (W + B @ A) @ x · (9^99999)^99999\n",
    "a power of sizes": HEAD + "a ∈ ℝ^{(m + n)^{101}}: learned, init = 0\ny ← W @ x + a_{0} · bias\n",
    "powers of powers of sizes": LOW + "s ← ((m + n)^{90})^{90}\ny ← (s · W + B @ A) @ x\n",
    "a power of a matrix": SQUARE + "y ← W @ C^{1000000} @ x\n",
    "a power of entries": LOW + "y ← (W + B @ A) @ x + 0 · bias^{1000000}\n",
    "a product that doubles": SQUARE + "D ← C\n" + "D ← D @ D\n" * 60 + "y ← W @ D @ x\n",
    "an entrywise product that doubles": SQUARE + "D ← C\n" + "D ← D ⊙ D\n" * 60 + "y ← W @ D @ x\n",
    "a sum that doubles": LOW + "D ← A\n" + "D ← D + 2 · D\n" * 60 + "y ← (W + B @ D) @ x\n",
    "a difference that doubles": LOW + "D ← A\n" + "D ← D - D\n" * 60 + "y ← (W + B @ D) @ x\n",
    "a long sum": LOW + "D ← A\n" + "D ← D + A\n" * 1500 + "y ← (W + B @ D) @ x\n",
    "functions that double": HEAD + "f0(u) ← u + u\n"
    + "".join(f"f{i}(u) ← f{i - 1}(f{i - 1}(u))\n" for i in range(1, 40)) + "y ← f39(W) @ x\n",
    "calls in calls": HEAD + "f0(u) ← u\n" + "".join(f"f{i}(u) ← f{i - 1}(u)\n" for i in range(1, 400))
    + "y ← f399(W) @ x\n",
}  # fmt: skip


@pytest.mark.parametrize("what", PAST)
def test_past_a_limit_is_an_error_that_says_so(what: str) -> None:
    found = timed(PAST[what])
    assert "E105" in {d.code for d in found}, [f"{d.code} {d.message}" for d in found][:5]
    assert all(d.source is not None and d.span is not None for d in found)


WITHIN: dict[str, str] = {
    "brackets": LOW + "y ← " + "(" * 59 + "W" + ")" * 59 + " @ x + B @ A @ x\n",
    "a sum of many terms": LOW + "y ← (W + B @ A) @ x" + " + 0 · bias" * 150 + "\n",
    "a product of many matrices": SQUARE.replace("(r = 4)", "") + "y ← W @ " + " @ ".join(["C"] * 150) + " @ x\n",
    "many comments": LOW + "# more\n" * 4000 + END,
    "many claims": LOW + "# " + ", ".join(["A ∈ ℝ^{r×n}"] * 60) + "\n" + END,
    "many cases": LOW + "".join(f"c{i} ← 1 if m ≥ n else 1\n" for i in range(30))
    + "y ← (W + (" + " + ".join(f"c{i}" for i in range(30)) + ") · B @ A) @ x\n",
    "many variants": LOW + "".join(f"variant v{i}:\n    y ← (W + {i + 1} · B @ A) @ x\n" for i in range(40)),
    "a power of a matrix": SQUARE.replace("(r = 4)", "") + "y ← W @ C^{100} @ x\n",
    "a long loop": LOW + "for i in range(1000000000): s_i ← 1\ny ← (W + s_{0} · B @ A) @ x\n",
    "loops in loops": LOW + "for i in range(10000):\n    for j in range(10000):\n        s_{i,j} ← i · j\n"
    "y ← (W + s_{0,1} · B @ A) @ x\n",
    "sums in sums": LOW + "y ← (W + (" + " ".join(f"Σ_{{i{k} ∈ range(1000)}}" for k in range(20))
    + " 1) · B @ A) @ x\n",
    "open sums in sums": LOW + "c ← " + "".join(f"Σ_{{i{k} ∈ range(r)}} " for k in range(12)) + "‖A_{i0,:}‖\n"
    "y ← (W + c · B @ A) @ x\n",
}  # fmt: skip


@pytest.mark.parametrize("what", WITHIN)
def test_within_the_limits_a_program_is_read(what: str) -> None:
    assert [str(d) for d in timed(WITHIN[what]) if d.severity == "error"] == []


FINDINGS: dict[str, tuple[str, str]] = {
    "cases": ("E307", LOW + "".join(f"c{i} ← 1 if m ≥ {i} else 2\n" for i in range(40))
              + "y ← (W + (" + " + ".join(f"c{i}" for i in range(40)) + ") · B @ A) @ x\n"),
    "claims": ("N402", LOW + END + "# params: 9^9^9^9\n# O(9^9^9^9) params\n# params: (m + n)^{500}\n"),
    "growth": ("", LOW + END + "# O(m^{m^{m}}) params\n"),
    "relations": ("", HEAD.replace("})", "}) where " + ", ".join(f"n{i} = n{i + 1}·2" for i in range(30)))
                  + "y ← W @ x\n"),
    "nothing": ("E207", "\n" * 10000),
    "no letters": ("E102", "\0" * 1000 + "\n"),
    "bars": ("E103", "y ← " + "‖" * 3000 + "\n"),
    "braces": ("E105", "{" * 3000 + "\n"),
    "quotes": ("E103", '"' * 9999 + "\n"),
}  # fmt: skip


@pytest.mark.parametrize("what", FINDINGS)
def test_other_extremes(what: str) -> None:
    code, text = FINDINGS[what]
    found = {d.code for d in timed(text)}
    assert not code or code in found, found


def test_long_names_are_no_files() -> None:
    """A text of one line without an arrow may be a path: one that cannot exist is refused like any other."""
    for text in ("", "a" * 5000, "é" * 300, "\0", "no/such/file.padp"):
        with pytest.raises(padp.PadpError) as error:
            padp.check(text)
        assert [d.code for d in error.value.diagnostics] == ["E510"]


def test_a_loop_that_must_be_unrolled_is_refused_at_attach() -> None:
    from torch import nn

    text = SQUARE + "R ← I\nfor i in range(10000): R ← C @ R @ C\ny ← W @ R @ x\n"
    with pytest.raises(padp.PadpError) as error:
        padp.compile(text)(nn.Linear(3, 2))
    assert [d.code for d in error.value.diagnostics] == ["E307"]
