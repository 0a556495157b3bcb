"""What people write by mistake, and what to say to them: two tables, data only. ``complaints.py`` uses them.

``HABITS`` are known by a mark on the line (Python, LaTeX, other notations). ``EXAMPLES`` are known by where the parser
stops: each snippet is parsed once, and its complaint is given wherever the parser stops in the same state on the same
token. Every snippet is a test of its own message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Habit:
    """``mark`` is looked for in the line without its comments and quoted text; its group ``here`` is the place."""

    mark: re.Pattern[str]
    message: str  # {seen}: the text at the place
    suggestion: str
    snippets: tuple[str, ...]
    code: str = "E106"


@dataclass(frozen=True, slots=True)
class Complaint:
    """``after``, where there is one, must be found in the statement before the place.

    (The parser's state alone does not know whether a list of values stands left or right of an arrow.)
    """

    message: str  # {seen}: the text at the place
    suggestion: str  # {seen}, {line}: the whole line
    snippets: tuple[str, ...]
    code: str = "E101"
    after: str = ""


def _habit(mark: str, message: str, suggestion: str, *snippets: str) -> Habit:
    return Habit(re.compile(mark), message, suggestion, snippets)


HABITS: tuple[Habit, ...] = (
    _habit(
        r"^(?P<here>Adapter|ADAPTER)\b",
        "a header begins with `adapter`, in small letters",
        "write `adapter LoRA(r = 8) on linear(W ∈ ℝ^{m×n})`",
        "Adapter LoRA(r = 8) on linear(W ∈ ℝ^{m×n})", "ADAPTER X on linear",
    ),
    _habit(
        r"^adapter\b[^#]*?(?P<here>:\s*knob)\b",
        "`{seen}`: the word stands before the name of its hyperparameter",
        "write `knob α = 1`",
        "adapter X(α = 1: knob) on linear", "adapter X(r = 8, α: knob) on linear(W ∈ ℝ^{m×n})",
    ),
    _habit(
        r"(?P<here>\\[dt]?frac)\b",
        "`{seen}` is LaTeX: a quotient is written with `/`",
        "write `a / b`, or `(a + b) / c`",
        "y ← \\frac{a}{b}", "y ← \\dfrac{a}{b} · x",
    ),
    _habit(
        "(?P<here>∘)",
        "`∘` is not read: papers write it for a product entry by entry and for one function after another",
        "write `a ⊙ b`, or `f(g(x))`",
        "y ← a ∘ b",
    ),
    _habit(
        r"(?P<here>∏|\\prod(?![A-Za-z]))",
        "a product over an index is not written with a sign, since its order matters",
        "write a loop: `R ← I`, `for i in range(r):`, `    R ← H_i @ R`",
        "y ← ∏_i H_i", "R ← ∏_{i ∈ range(r)} H_i", "R ← \\prod_i H_i",
    ),
    _habit(
        "(?P<here>[⌈⌉⌊⌋])",
        "sizes are rounded by functions, not by brackets",
        "write `ceil(a / b)` or `floor(a / b)`",
        "k ← ⌈n / 2⌉", "k ← ⌊n / 2⌋",
    ),
    _habit(
        r"^adapter\b.*?(?P<here>[^\W\d_][\w\u0300-\u036f]*_\{\s*\w+\s*\})(?=\s*(?:[=,)∈]|in\b))",
        "`{seen}` is LaTeX: `_{…}` takes an item of what stands before it, and is no part of a name",
        "write the subscript without braces: `W_down`, `α_max`",
        "adapter T(α_{max} = 4) on linear(W ∈ ℝ^{m×n})", "adapter T(r_{0}) on linear",
        "adapter T on linear(W_{0} ∈ ℝ^{m×n})",
    ),
    _habit(
        r"(?P<here>\\(?:text|mathrm|mathbf|mathit|operatorname|bm|boldsymbol)\b)",
        "`{seen}` is LaTeX: names and their subscripts are written as they are",
        "write `W_down`",
        "y ← W_{\\text{down}} @ x", "W_\\mathrm{up} ∈ ℝ^{r×n}: learned", "y ← \\mathbf{W} @ x",
    ),
    _habit(
        r"[‖|](?P<here>[₁₂]|_?∞)",
        "`‖·‖{seen}` is no norm of the language",
        "write `‖v‖` for a vector; `‖M‖_F`, `‖M‖_row` or `‖M‖_col` for a matrix",
        "y ← ‖A‖₂", "y ← x / ‖x‖₁",
    ),
    _habit(
        r"^(?P<here>(?:async )?def)\b",
        "functions are defined by an arrow, not by `def`",
        "write `f(a, b) ← …`",
        "def f(x):", "def cayley(K): return K",
    ),
    _habit(
        r"^(?P<here>import|from)\b",
        "a program imports nothing",
        "all operators are there already; remove the line",
        "import torch", "from torch import nn",
    ),
    _habit(
        r"^(?P<here>return)\b",
        "a program has no `return`",
        "assign what comes out: `y ← …`",
        "return W @ x",
    ),
    _habit(
        r"^(?P<here>while)\b",
        "loops go over something of known length; there is no `while`",
        "write `for i in range(n):`",
        "while n > 1:",
    ),
    _habit(
        r"^(?P<here>if|elif|else)\b",
        "`if` chooses between two values, and only by dimensions",
        "write `y ← a if m ≥ n else b`",
        "if m > n: y ← 3", "else: y ← 3",
    ),
    _habit(
        "^(?P<here>class|with|try|except|finally|assert|raise|del|global|nonlocal|pass|break|"
        r"continue|print|yield|@\w+)\b",
        "`{seen}` is Python's and means nothing here",
        "a program is a header, declarations and `name ← value`",
        "class LoRA:", "assert r > 0", "print(x)", "pass",
    ),
    _habit(
        r"(?P<here>\blambda\b)[^:←]*:",
        "functions have names; there is no `lambda` (here it is the letter λ)",
        "write `f(a) ← …` on a line of its own",
        "f ← lambda x: x + 1",
    ),
    _habit(
        r"(?<=[\w)\]}'] )(?P<here>for)\s+\S+\s+in\b",
        "a list cannot be built by `for` inside brackets",
        "write a sum, `Σ_{i ∈ range(n)} …`, or a loop that assigns `a_i ← …`",
        "y ← [f(i) for i in range(n)]", "y ← sum(a_i for i in S)",
    ),
    _habit(
        "(?P<here>={2,3})",
        "`==` is Python's; a relation is written with one `=`, an assignment with `←`",
        "write `n = b·k` in `where`, `a ← b` in a statement",
        "adapter X on linear(W ∈ ℝ^{m×n}) where n == m", "y == 3",
    ),
    _habit(
        r"(?P<here>\*\*)",
        "a power is not written with `**`",
        "write `a²`, `a^2` or `a^{k}`",
        "y ← x ** 2",
    ),
    _habit(
        "(?P<here>:=|≔|≜|=:)",
        "an assignment is written with `←`",
        "write `y ← …` or `y <- …`",
        "y := W @ x",
    ),
    _habit(
        "(?P<here>->|→|⟶|↦|=>|⇒)",
        "arrows point to the left: what gets the value comes first",
        "write `y ← e`",
        "W @ x → y", "W @ x -> y",
    ),
    _habit(
        "(?P<here>[*/@·⊙]=)",
        "only `+=` and `-=` change a value in place",
        "write `a ← a · b`",
        "y *= 2", "y @= R",
    ),
    _habit(
        r"=\s*(?P<here>'[^']*')",
        "text stands between double quotes",
        'write `"…"`',
        "adapter X(p = 'f7') on linear",
    ),
    _habit(
        r"_\{\s*\w+\s*(?P<here>=)",
        "a sum runs over a set",
        "write `Σ_{i ∈ range(n)} …`; indices begin at 0",
        "y ← Σ_{i=1}^{r} a_i",
    ),
    _habit(
        r"(?P<here>∑)(?!\s*(?:_|[ₐ-ₜᵢᵣᵤᵥⱼ]))",
        "a sum needs its index",
        "write `Σᵢ …` or `Σ_{i ∈ S} …`",
        "y ← ∑ a_i b_i",
    ),
    _habit(
        r"(?:^|;)(?![^;]*\bin\b)(?P<here>[^;∈:{}]*:)\s*(?:learned|frozen|shared)\b",
        "the space of the name is missing",
        "write `A ∈ ℝ^{r×n}: learned`",
        "A: learned", "A : frozen, init = 0",
    ),
    _habit(
        r"(?P<here>∈|\bin\b)\s*ℝ\s*[\[(]",
        "the dimensions of a space stand in its exponent",
        "write `ℝ^{m×n}`",
        "A ∈ ℝ(m, n): learned", "A ∈ ℝ[m, n]: learned",
    ),
    _habit(
        r"(?P<here>(?<![\w)\]}.])\.[0-9]+|(?<![\w.])[0-9]+\.(?![0-9.*\w]))",
        "a number has digits on both sides of its point",
        "write `0.5`, `1.0`",
        "y ← .5", "y ← 1.",
    ),
)
"""In the order in which they are looked for."""


EXAMPLES: tuple[Complaint, ...] = (
    Complaint(
        "`=` is not an assignment here",
        "write `←` or `<-`",
        ("y = W @ x", "a, b = svd(W)", "x[2i] = 3", "f(a) = 2 a"),
    ),
    Complaint(
        "a second value follows, but there is one arrow",
        "assign one by one: `a ← e, b ← f`",
        ("a, b ← c, d", "y ← 1, 2", "y ← f(x), W @ x", "y ← 1, x[2]"),
        code="E106",
        after="←|<-|[+-]=",
    ),
    Complaint(
        "this line only names a value and does nothing with it",
        "assign it: `y ← …`",
        ("W @ x", "y", "f(x)", "a, b", "3", "-a", "2 a", "x[i]", "R_full", "a, b, c", "a, 2 b, f(x)", "a; b ← c",
         "f(x); b ← c", "2 a; b ← c", "a, b; c ← d"),
    ),
    Complaint(
        "the space after `∈` is missing",
        "write `ℝ^{m×n}`, `ℝ^n`, `ℕ^k`, `O(k)` or `St(r, d)`",
        ("A ∈", "A ∈ : learned", "A ∈ 3: learned", "A ∈ matrix: learned", "A ∈ (3): learned"),
    ),
    Complaint(
        "a declaration says after a colon what the name is",
        "write `A ∈ ℝ^{r×n}: learned, init = 0`, or `: frozen, …`",
        ("A ∈ ℝ^{r×n}", "A ∈ ℝ^n", "A ∈ ℝ", "A ∈ O(k)", "A ∈ (ℝ^k)^b", "A ∈ (ℝ^k)^{b×c}"),
    ),
    Complaint(
        "a colon is missing before `{seen}`",
        "write `A ∈ ℝ^{r×n}: learned`",
        ("A ∈ ℝ^{r×n} learned", "A ∈ ℝ^n learned", "A ∈ ℝ learned", "A ∈ O(k) learned", "A ∈ (ℝ^k)^b learned"),
    ),
    Complaint(
        "a space is not assigned but declared",
        "write `A ∈ ℝ^{r×n}: learned`, then `A ← …` is not needed",
        ("A ∈ ℝ^{r×n} ← B", "A ∈ ℝ^n = 3", "A ∈ ℝ^{r×n} = 3"),
    ),
    Complaint(
        "a role is missing: what is the name?",
        "write `: learned` or `: frozen`, then `init = …`",
        ("A ∈ ℝ^n:", "A ∈ ℝ^n: learned,", "A ∈ ℝ^n: = 3", "A ∈ ℝ^n: 3"),
    ),
    Complaint(
        "roles are separated by commas",
        "write `learned, init = 0`",
        ("A ∈ ℝ^n: learned init = 0", "A ∈ ℝ^n: frozen shared"),
    ),
    Complaint(
        "the dimensions of a space are separated by `×`",
        "write `ℝ^{m×n}` or `R^{m x n}`",
        ("A ∈ ℝ^{m, n}: learned", "A ∈ ℝ^{m; n}: learned"),
    ),
    Complaint(
        "an exponent of more than one piece needs braces",
        "write `ℝ^{m×n}`",
        ("A ∈ ℝ^m×n: learned", "A ∈ ℝ^m/2: learned", "A ∈ ℝ^(m×n): learned", "A ∈ ℝ^2·k: learned",
         "A ∈ ℝ^k-1: learned", "A ∈ ℝ^k+1: learned", "A ∈ ℝ^-1: learned"),
    ),
    Complaint(
        "a tuple is not a value",
        "assign one by one: `a ← e, b ← f`",
        ("y ← (a, b)", "y ← 2 · (a, b)"),
        code="E106",
    ),
    Complaint(
        "one statement has one arrow",
        "write two statements",
        ("a ← b ← c", "a ← 2 b ← c", "a += b ← c", "a ← f(x) ← 3"),
        code="E106",
    ),
    Complaint(
        "a colon is missing at the end of the line",
        "write `{line}:`",
        ("for i in range(r)", "for i in S", "for (i,j) in 2 S", "variant seed", "common", "after backward"),
    ),
    Complaint(
        "a colon is missing before `{seen}`",
        "write `:` before the statement",
        ("variant seed y ← 3", "common y ← 3", "after backward y ← 3", "for i in S ← 3", "for i in f(S) ← 3"),
    ),
    Complaint(
        "`for` needs its variable and what it runs over",
        "write `for i in range(r):` or `for (i,j) in S:`",
        ("for", "for :", "for i", "for i:", "for i = 1:", "for in S:", "for 3 in S:", "for (i,j):", "for i,:",
         "for x[i] in S:", "for i ← 3:"),
    ),
    Complaint(
        "a variant needs a name",
        "write `variant paper:`",
        ("variant", "variant :", "variant 3:"),
    ),
    Complaint(
        "a header names the site after `on`",
        "write `adapter LoRA(r = 8) on linear(W ∈ ℝ^{m×n})`",
        ("adapter LoRA", "adapter LoRA(r = 8)", "adapter LoRA:", "adapter LoRA(r = 8):",
         "adapter LoRA linear(W ∈ ℝ^n)", "adapter LoRA(r = 8) linear(W ∈ ℝ^n)", "adapter LoRA on",
         "adapter LoRA on :", "adapter LoRA ← 3", "adapter LoRA(r = 8) on", "adapter LoRA(r) where n = m",
         "adapter LoRA where n = m"),
    ),
    Complaint(
        "the weight stands in the brackets of its site",
        "write `on linear(W ∈ ℝ^{m×n})`",
        ("adapter X on W ∈ ℝ^{m×n}", "adapter X(r = 8) on W in R^{m×n} where n = m", "adapter X on W ∈"),
    ),
    Complaint(
        "an adapter needs a name",
        "write `adapter LoRA(r = 8) on linear(W ∈ ℝ^{m×n})`",
        ("adapter", "adapter (r = 8) on linear", "adapter ← 3", "adapter 3 on linear"),
    ),
    Complaint(
        "a header ends without a colon, and its statements are not indented",
        "remove `{seen}`",
        ("adapter X on linear:", "adapter X on linear(W ∈ ℝ^n):", "adapter X on linear where n = m:",
         "adapter X on linear(W ∈ ℝ^n) where n = 2 m:", "adapter X on linear where r even:"),
    ),
    Complaint(
        "`{seen}` does not say which space it has",
        "write `W ∈ ℝ^{m×n}`",
        ("adapter X on linear(W)", "adapter X on linear(W, b ∈ ℝ^n)"),
    ),
    Complaint(
        "a hyperparameter is a name, perhaps with a default",
        "write `(r = 8, α = 16)`, or `steps` where it is required",
        ("adapter X(8) on linear", "adapter X(r: 8) on linear", "adapter X(r 8) on linear",
         "adapter X(r ← 8) on linear", "adapter X(r = 8 α = 3, β = 2) on linear", "adapter X(r = 8; α = 3) on linear",
         "adapter X(r ∈ ℝ) on linear", "adapter X(r = 8,) on linear", "adapter X(knob) on linear",
         "adapter X(x[2]) on linear"),
        after=r"^\s*adapter\b",
    ),
    Complaint(
        "`if` tests a comparison of dimensions",
        "write `a if m ≥ n else b`, or `a if r even else b`",
        ("y ← a if b else c", "y ← a if 2 b else c", "y ← a if f(b) else c", "y ← a if b", "y ← (a if b)"),
        after=r"\bif\b",
    ),
    Complaint(
        "a relation compares two numbers, or says `even` or `odd`",
        "write `where n = b·k, r even`",
        ("adapter X on linear where", "adapter X on linear where n", "adapter X on linear where n, m = 3",
         "adapter X on linear where n ← 3", "adapter X on linear where 2 n", "adapter X on linear where n = m,",
         "adapter X on linear where n ∈ ℕ", "adapter X on linear where f(n)"),
        after=r"^\s*adapter\b",
    ),
    Complaint(
        "a comparison has two sides here",
        "write two of them: `1 ≤ r, r ≤ n`",
        ("adapter X on linear where 1 ≤ r ≤ n", "adapter X on linear where a = b = c", "y ← a if 1 < m < n else b",
         "adapter X on linear where 1 ≤ 2 r ≤ n", "adapter X on linear where 1 ≤ f(r) ≤ n"),
        code="E106",
    ),
    Complaint(
        "comparisons stand in `where` and in the test of an `if` only",
        "write `a if m ≥ n else b`",
        ("y ← a < b", "y ← 2 a ≥ b", "y ← (a > b)", "y ← f(a ≠ b)", "y ← a[i] < 3", "y ← f(x) < 3", "a < b"),
        code="E106",
    ),
    Complaint(
        "the other value is missing: what if the test fails?",
        "write `a if m ≥ n else b`",
        ("y ← a if m ≥ n", "y ← (a if m ≥ n)", "y ← a if r even", "y ← a if m ≥ 2 n", "y ← a if m ≥ f(n)"),
    ),
    Complaint(
        "this bar closes nothing, or an operator is missing before it",
        "write `a · ‖b‖` or `a · |b|`",
        ("y ← a ‖b‖", "y ← 2 ‖b‖", "y ← f(x) ‖b‖", "y ← a |b|", "y ← 2 |b|", "y ← |a| |b|", "y ← f(x) |b|",
         "y ← ‖a‖ ‖b‖", "y ← ‖V‖_row ‖b‖", "y ← ‖a‖² ‖b‖", "y ← ‖a‖ |b|", "y ← (a ‖b‖)", "y ← f(a ‖b‖)"),
        code="E103",
    ),
    Complaint(
        "an index is missing between the brackets",
        "write `x[i]`, `U_{:,:r}`",
        ("y ← x[]", "y ← U_{}", "y ← U_{:,}", "y ← U_{,:}"),
    ),
    Complaint(
        "nothing stands between the brackets",
        "put a value there, or remove them",
        ("y ← ()", "y ← []", "y ← 2 · ()"),
    ),
    Complaint(
        "text can only be a hyperparameter or an argument",
        'write `adapter X(positions = "f7")`',
        ('y ← "abc"', 'y ← 2 · "abc"', '"abc" ← y', 'y ← x["a"]'),
        code="E106",
    ),
    Complaint(
        "a number is not written with a sign `+`",
        "remove `+`",
        ("y ← +a", "y ← a · +b", "y ← (+a)", "+a ← b", "y ← f(+a)"),
    ),
    Complaint(
        "`×` belongs to spaces only",
        "write `·` (scaling, element-wise), `@` (matrices), `⊙` or `⊗`",
        ("y ← a × b", "y ← 2 × b", "y ← f(a) × b", "y ← (a × b)", "y ← f(a × b)"),
        code="E106",
    ),
    Complaint(
        "an assignment has no colon",
        "remove `{seen}`, or write `for i in range(n):` before a block",
        ("y ← x:", "y ← 2 x:", "y ← f(x):", "y ← x[i]:"),
    ),
    Complaint(
        "`{seen}` starts no statement",
        "write `name ← value`, `name ∈ space: role`, `for …:` or `minimise …`",
        ("← 3", ": 3", ", a ← 3", "= 3", "; a ← b", "∈ ℝ", "@ x"),
    ),
    Complaint(
        "the exponent is missing",
        "write `a²`, `a^2`, `a^{k}` or `a⁻¹`",
        ("y ← a^", "y ← a^ + 2", "y ← a^{}", "y ← a^·2"),
    ),
    Complaint(
        "`common:` has no name",
        "write `common:`",
        ("common x: y ← 3",),
    ),
    Complaint(
        "this word of the language cannot be a name",
        "choose another name",
        ("common ← 3", "variant ← 3", "minimise ← 3", "common = 3", "minimise = 3", "minimise += 3", "variant = 3"),
        code="E106",
    ),
    Complaint(
        "`:` opens no block here",
        "blocks begin with `for …:`, `variant …:`, `common:` or `after backward:`, each on its line",
        ("A: 3", "f(x): y ← 3", "foo bar:", "a, b: 3"),
    ),
)
"""Where two share a state and a token, the first whose ``after`` is found is given."""
