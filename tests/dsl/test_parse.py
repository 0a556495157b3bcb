"""What parses to what: expressions, declarations, blocks, comments; where the limits are."""

from __future__ import annotations

import inspect
import sys
import time

import pytest

from padp.dsl import limits
from padp.dsl.diagnostics import PadpError
from padp.dsl.parse import parse
from padp.dsl.source import Source, Span
from padp.dsl.syntax import (
    Abs,
    AfterBackward,
    Args,
    Assign,
    Binary,
    Binding,
    Blocks,
    Chain,
    Common,
    Compare,
    Conditional,
    Declare,
    Dots,
    Expr,
    For,
    Group,
    Header,
    Hyper,
    Indexed,
    Inverted,
    Juxt,
    Member,
    Minimise,
    Name,
    Norm,
    Number,
    Parity,
    Program,
    Raised,
    Remark,
    Role,
    Slice,
    Space,
    Statement,
    Sum,
    Text,
    Transposed,
    TupleOf,
    Unary,
    Variant,
)


def read(text: str) -> Program:
    return parse(Source.of(text))


def one(text: str) -> Statement:
    (statement,) = read(text).body
    return statement


def value(text: str) -> Expr:
    statement = one(f"y ← {text}")
    assert isinstance(statement, Assign)
    return statement.value


def codes(text: str) -> list[str]:
    with pytest.raises(PadpError) as error:
        read(text)
    return [d.code for d in error.value.diagnostics]


def n(text: str) -> Name:
    return Name(text)


a, b, i, j, k, r, x, W = map(Name, ("a", "b", "i", "j", "k", "r", "x", "W"))
two = Number(2)
FULL = Slice(None, None)


def call(name: str, *args: Expr) -> Chain:
    return Chain(Name(name), (Args(args),))


# ---------------------------------------------------------------- expressions

EXPRESSIONS: list[tuple[str, Expr]] = [
    ("a + b - 2", Binary("-", Binary("+", a, b), two)),
    ("a · b @ W / 2", Binary("/", Binary("@", Binary("·", a, b), W), two)),
    ("a ⊙ b ⊗ k // 2", Binary("//", Binary("⊗", Binary("⊙", a, b), k), two)),
    ("a .* b * k", Binary("·", Binary("⊙", a, b), k)),
    ("-a · b", Binary("·", Unary("-", a), b)),
    ("a @ -b", Binary("@", a, Unary("-", b))),
    ("-2i", Unary("-", Juxt((two, i)))),
    ("2i+1", Binary("+", Juxt((two, i)), Number(1))),
    ("2e5", Number(200000.0)),
    ("2 e", Juxt((two, n("e")))),
    ("0.02", Number(0.02)),
    ("1e-6", Number(1e-6)),
    ("cos θ_i · x[2i]", Binary("·", Juxt((n("cos"), n("θᵢ"))), Chain(x, (Indexed((Juxt((two, i)),)),)))),
    ("(I + a)(I - a)⁻¹", Chain(Group(Binary("+", n("I"), a)), (Args((Binary("-", n("I"), a),)), Inverted()))),
    ("W(x)", call("W", x)),
    ("W (x)", call("W", x)),
    ("W (x) + 1", Binary("+", call("W", x), Number(1))),
    ("W (x) b", Binary("⊗", W, b)),
    ("f(x) g(a)", Juxt((call("f", x), call("g", a)))),
    ("a_i v_iᵀ", Juxt((n("aᵢ"), Chain(n("vᵢ"), (Transposed(),))))),
    ("V.T_{j,:}", Chain(n("V"), (Transposed(), Indexed((j, FULL))))),
    ("V̂ᵀ_{:k}", Chain(n("V\u0302"), (Transposed(), Indexed((Slice(None, k),))))),
    ("U_{:,:r}", Chain(n("U"), (Indexed((FULL, Slice(None, r))),))),
    ("x[1:2:3]", Chain(x, (Indexed((Slice(Number(1), two, Number(3)),)),))),
    ("x_{::2}", Chain(x, (Indexed((Slice(None, None, two),)),))),
    ("a²", Chain(a, (Raised(two),))),
    ("a^2", Chain(a, (Raised(two),))),
    ("a^{2}", Chain(a, (Raised(two),))),
    ("a¹²", Chain(a, (Raised(Number(12)),))),
    ("a⁻²", Chain(a, (Raised(Unary("-", two)),))),
    ("a^-2", Chain(a, (Raised(Unary("-", two)),))),
    ("a^-1", Chain(a, (Inverted(),))),
    ("a^{-1}", Chain(a, (Inverted(),))),
    ("a^{T}", Chain(a, (Raised(n("T")),))),
    ("2^j", Chain(two, (Raised(j),))),
    ("a^(k+1)", Chain(a, (Raised(Group(Binary("+", k, Number(1)))),))),
    ("√Σ_{:r}", Unary("√", Chain(n("Σ"), (Indexed((Slice(None, r),)),)))),
    ("sqrt(a)²", Chain(Unary("√", Group(a)), (Raised(two),))),
    ("√(a)²", Chain(Unary("√", Group(a)), (Raised(two),))),
    ("sqrt a", Unary("√", a)),
    ("w ⊙ ∇w", Binary("⊙", n("w"), Unary("∇", n("w")))),
    ("grad w", Unary("∇", n("w"))),
    ("‖V‖_row", Norm(n("V"), "row")),
    ("||v||^2", Chain(Norm(n("v"), None), (Raised(two),))),
    ("‖Pᵀ @ P - I‖_F²", Chain(
        Norm(Binary("-", Binary("@", Chain(n("P"), (Transposed(),)), n("P")), n("I")), "F"), (Raised(two),))),
    ("∥v∥", Norm(n("v"), None)),
    ("|Λ_i| + β · ‖pᵢ‖", Binary("+", Abs(n("Λᵢ")), Binary("·", n("β"), Norm(n("pᵢ"), None)))),
    ("| |a| - b|", Abs(Binary("-", Abs(a), b))),
    ("Σₜ cₜ · a", Sum(("t",), None, Binary("·", n("cₜ"), a))),
    ("Σᵢⱼ a_i", Sum(("i", "j"), None, n("aᵢ"))),
    ("Σ_i a_i", Sum(("i",), None, n("aᵢ"))),
    ("Σ_{i} a_i", Sum(("i",), None, n("aᵢ"))),
    ("sum_{i} a_i", Sum(("i",), None, n("aᵢ"))),
    ("∑_k a_k", Sum(("k",), None, n("a_k"))),
    ("Σᵢ ‖aᵢ‖", Sum(("i",), None, Norm(n("aᵢ"), None))),
    ("Σᵢ -a", Sum(("i",), None, Unary("-", a))),
    ("Σᵢ a + b", Binary("+", Sum(("i",), None, a), b)),
    ("Σ_{(i,j) ∈ Ω} a", Sum(("i", "j"), n("Ω"), a)),
    ("sum_{i in range(r)} a · b", Sum(("i",), call("range", r), Binary("·", a, b))),
    ("a · Σᵢ b · W + k", Binary("+", Binary("·", a, Sum(("i",), None, Binary("·", b, W))), k)),
    ("2 Σ_{i ∈ R} a", Juxt((two, Sum(("i",), n("R"), a)))),
    ("-Σᵢ a", Unary("-", Sum(("i",), None, a))),
    ("Σᵢ · u", Binary("·", n("Σᵢ"), n("u"))),
    ("Σᵢ - u", Binary("-", n("Σᵢ"), n("u"))),
    ("‖Σᵢ‖ · u", Binary("·", Norm(n("Σᵢ"), None), n("u"))),
    ("U_k Σ_k V_kᵀ", Juxt((n("U_k"), n("Σ_k"), Chain(n("V_k"), (Transposed(),))))),
    ("sum(v)", call("sum", n("v"))),
    ("sum_row(W)", call("sum_row", W)),
    ("attn(W_Q' @ x, ...)", Chain(n("attn"), (Args((Binary("@", n("W_Q'"), x), Dots())),))),
    ("attn(q = a, ...)", Chain(n("attn"), (Args((Dots(),), (("q", a),)),))),
    ("a @ ... @ b", Binary("@", Binary("@", a, Dots()), b)),
    ("f()", call("f")),
    ("f(a, shape=(i,j))", Chain(n("f"), (Args((a,), (("shape", TupleOf((i, j))),)),))),
    ('f(over = "model")', Chain(n("f"), (Args((), (("over", Text("model")),)),))),
    ("f(alpha = 1)", Chain(n("f"), (Args((), (("α", Number(1)),)),))),
    ("[a, b; x, 1]", Blocks(((a, b), (x, Number(1))))),
    ("[x; 1]", Blocks(((x,), (Number(1),)))),
    ("a if i ≥ j else b", Conditional(a, Compare("≥", i, j), b)),
    ("(a if r even else b)", Group(Conditional(a, Parity(r, True), b))),
    ("a if i != 2 else b if r odd else k",
     Conditional(a, Compare("≠", i, two), Conditional(b, Parity(r, False), k))),
    ("model.layer[i].output", Chain(n("model"), (Member("layer"), Indexed((i,)), Member("output")))),
    ("learned", n("learned")),
    ("a − b", Binary("-", a, b)),
    ("2αβ", Juxt((two, n("α"), n("β")))),
]


@pytest.mark.parametrize(("text", "tree"), EXPRESSIONS, ids=[text for text, _ in EXPRESSIONS])
def test_expression(text: str, tree: Expr) -> None:
    assert value(text) == tree


def test_sums_with_underscore_as_a_later_factor_are_names() -> None:
    """``U_i Σ_i V_i`` is a product: a sum without braces opens an operand, it does not follow one."""
    assert value("U_i Σ_i V_i") == Juxt((n("Uᵢ"), n("Σᵢ"), n("Vᵢ")))


# ---------------------------------------------------------------- spaces and declarations

SPACES: list[tuple[str, Space]] = [
    ("ℝ", Space("ℝ", ())),
    ("ℝ^r", Space("ℝ", (r,))),
    ("ℝ^2", Space("ℝ", (two,))),
    ("ℝ^Ω", Space("ℝ", (n("Ω"),))),
    ("ℝ^{r×k}", Space("ℝ", (r, k))),
    ("R^{r x k}", Space("ℝ", (r, k))),
    ("R^{x x 2 k}", Space("ℝ", (x, Juxt((two, k))))),
    ("ℝ^{r/b × b × b}", Space("ℝ", (Binary("/", r, b), b, b))),
    ("ℝ^{k(k-1)/2}", Space("ℝ", (Binary("/", Chain(k, (Args((Binary("-", k, Number(1)),)),)), two),))),
    ("R^{f(x) x k^2}", Space("ℝ", (call("f", x), Chain(k, (Raised(two),))))),
    ("(ℝ^{k×k})^b", Space("ℝ", (k, k), (b,))),
    ("(R^{k x k})^{a x b}", Space("ℝ", (k, k), (a, b))),
    ("((ℝ^k)^a)^b", Space("ℝ", (k,), (b, a))),
    ("ℕ^k", Space("ℕ", (k,))),
    ("N^k", Space("ℕ", (k,))),
    ("ℂ^{r×k}", Space("ℂ", (r, k))),
    ("O(k)", Space("O", (k,))),
    ("O(k)^b", Space("O", (k,), (b,))),
    ("(SO(k))^b", Space("SO", (k,), (b,))),
    ("St(r, 2k)", Space("St", (r, Juxt((two, k))))),
]


@pytest.mark.parametrize(("text", "space"), SPACES, ids=[text for text, _ in SPACES])
def test_space(text: str, space: Space) -> None:
    for is_in in ("∈", "in"):
        assert one(f"A {is_in} {text}: learned") == Declare((n("A"),), space, (Role("learned"),))


def test_declaration_with_roles_in_any_order() -> None:
    assert one("A, B ∈ ℝ: frozen, shared, init = unit_std(kaiming), seed = seed, via = qr") == Declare(
        (n("A"), n("B")),
        Space("ℝ", ()),
        (
            Role("frozen"),
            Role("shared"),
            Role("init", call("unit_std", n("kaiming"))),
            Role("seed", n("seed")),
            Role("via", n("qr")),
        ),
    )
    assert one("A ∈ ℝ: init = a · √b, learned") == Declare(
        (n("A"),), Space("ℝ", ()), (Role("init", Binary("·", a, Unary("√", b))), Role("learned"))
    )


# ---------------------------------------------------------------- statements


def test_statements_on_one_line() -> None:
    assert read("a ← b; b ← 2;") == read("a ← b\nb ← 2")
    assert read("a ← b, b ← 2") == read("a ← b\nb ← 2")
    assert one("a, b ← f(x)") == Assign((a, b), "←", call("f", x))


def test_targets() -> None:
    assert one("U, S, Vᵀ ← svd(W)") == Assign((n("U"), n("S"), Chain(n("V"), (Transposed(),))), "←", call("svd", W))
    assert one("G[i,j] -= 2") == Assign((Chain(n("G"), (Indexed((i, j)),)),), "-=", two)
    assert one("g(a, b) <- a") == Assign((call("g", a, b),), "←", a)
    assert one("minimise a") == one("minimize a") == Minimise(a)


def test_header() -> None:
    program = read(
        'adapter X(r = 8, knob alpha = 1, steps, how = "f7") on hidden(h ∈ ℝ^r, W in R^{r x k}, positions = "l7") '
        "where r = b·k, k even, a < b  # why"
    )
    assert program.header == Header(
        "X",
        (Hyper("r", Number(8)), Hyper("α", Number(1), knob=True), Hyper("steps", None), Hyper("how", Text("f7"))),
        "hidden",
        (Binding("h", Space("ℝ", (r,))), Binding("W", Space("ℝ", (r, k)))),
        (("positions", Text("l7")),),
        (Compare("=", r, Binary("·", b, k)), Parity(k, True), Compare("<", a, b)),
        "why",
    )
    assert read("adapter IA3 on linear").header == Header("IA3", (), "linear", ())


def test_header_may_go_over_lines() -> None:
    text = "adapter X(r = 8,  # rank\n    k = 2)\n  # where\n  on linear(W ∈ ℝ^r)\n  where r = k  # why\n\ny ← 2"
    program = read(text)
    assert program.header == Header(
        "X", (Hyper("r", Number(8)), Hyper("k", two)), "linear", (Binding("W", Space("ℝ", (r,))),), (),
        (Compare("=", r, k),), "why",
    )
    assert program.body == (Remark("rank"), Remark("where"), Assign((n("y"),), "←", two))


def test_blocks() -> None:
    text = """
variant one:
    for (i,j) in S:
        a ← b

        b ← a
    a ← 2
variant two: a ← b; b ← 2
common:
    after backward:
        a ← 2
for i, j in S: a ← 2
for i ∈ S: a ← 2
"""
    ab, a2, b2 = Assign((a,), "←", b), Assign((a,), "←", two), Assign((b,), "←", two)
    S = n("S")
    assert read(text).body == (
        Variant("one", (For((i, j), S, (ab, Assign((b,), "←", a))), a2)),
        Variant("two", (ab, b2)),
        Common((AfterBackward((a2,)),)),
        For((i, j), S, (a2,)),
        For((i,), S, (a2,)),
    )


@pytest.mark.parametrize("indent", ["  ", "    ", "\t"])
def test_any_indentation_that_is_consistent(indent: str) -> None:
    body = f"for i in S:\n{indent}for j in S:\n{indent * 2}a ← 2\n{indent}b ← 2\n"
    assert read(body) == read("for i in S:\n for j in S:\n  a ← 2\n b ← 2")


def test_a_program_may_be_indented_as_a_whole() -> None:
    assert read("\n    a ← 2\n    for i in S:\n        b ← 2\n    ") == read("a ← 2\nfor i in S:\n  b ← 2")


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\ufeff", "   \n\t\n"])
def test_empty_program(text: str) -> None:
    assert read(text) == Program(None, ())


def test_only_comments() -> None:
    assert read("# a\n\n  # b\n#") == Program(None, (Remark("a"), Remark("b"), Remark("")))


def test_line_ends_and_byte_order_mark() -> None:
    assert read("\ufeffa ← 2\r\nb ← 2\r") == read("a ← 2\nb ← 2")


# ---------------------------------------------------------------- comments


def test_comments_go_with_their_statements() -> None:
    text = """# title
adapter X on linear  # header
# before
a ← 2  # first
b ← 2; a ← b  # of the last
A ∈ ℝ: learned  # declared
minimise a  # added
for i in S:  # loop
    # in the loop
    a ← 2  # inner
    # still in the loop
# out of it
variant v: a ← 2  # one-line
after backward:  # later
    a ← 2"""
    program = read(text)
    assert program.header is not None and program.header.comment == "header"
    a2 = Assign((a,), "←", two)
    assert program.body == (
        Remark("title"),
        Remark("before"),
        Assign((a,), "←", two, "first"),
        Assign((b,), "←", two),
        Assign((a,), "←", b, "of the last"),
        Declare((n("A"),), Space("ℝ", ()), (Role("learned"),), "declared"),
        Minimise(a, "added"),
        For(
            (i,), n("S"), (Remark("in the loop"), Assign((a,), "←", two, "inner"), Remark("still in the loop")), "loop"
        ),
        Remark("out of it"),
        Variant("v", (Assign((a,), "←", two, "one-line"),)),
        AfterBackward((a2,), "later"),
    )


def test_comments_in_blocks_stand_where_their_column_says() -> None:
    text = "variant v:\n    for i in S:\n        a ← 2\n      # b\n    # v\n # still v\n    b ← 2\n    # v too\n# out"
    (variant, out) = read(text).body
    assert isinstance(variant, Variant) and out == Remark("out")
    assert [s.text for s in variant.body if isinstance(s, Remark)] == ["b", "v", "still v", "v too"]
    assert isinstance(variant.body[0], For) and len(variant.body[0].body) == 1


def test_comments_inside_a_statement_are_not_lost() -> None:
    program = read("y ← f(a,  # one\n      # two\n      b)  # three\n# four")
    assert program.body == (
        Remark("one"),
        Remark("two"),
        Assign((n("y"),), "←", call("f", a, b), "three"),
        Remark("four"),
    )


def test_look_alikes_are_read_in_code_only() -> None:
    assert one('A ∈ ℝ: init = "µ – x"  # µ – x') == Declare(
        (n("A"),), Space("ℝ", ()), (Role("init", Text("µ – x")),), "µ – x"
    )
    assert value("µ ∙ ∆W") == Binary("·", n("μ"), n("ΔW"))


def test_every_comment_of_any_layout_is_kept() -> None:
    text = "".join(
        f"{' ' * indent}{code}# c{line}\n"
        for line, (indent, code) in enumerate(
            [(0, ""), (3, ""), (0, "adapter X on linear "), (1, ""), (0, "for i in S: "), (9, ""), (4, "a ← (b + "),
             (1, ""), (0, "b) "), (2, ""), (0, "variant v:"), (0, ""), (2, "a ← 2"), (7, "")]
        )
    )
    from padp.dsl.printer import to_text

    printed = to_text(read(text))
    assert sorted(line.rsplit("# ")[1] for line in printed.splitlines() if "#" in line) == sorted(
        f"c{i}" for i in range(14)
    )


# ---------------------------------------------------------------- spans


def test_spans() -> None:
    source = Source.of("adapter X on linear\n\nfor i in S:\n    V̂_{:k} ← cos θ_i · (a + b)⁻¹  # c\n")
    program = parse(source)
    (loop,) = program.body
    assert isinstance(loop, For) and program.header is not None
    (assign,) = loop.body
    assert isinstance(assign, Assign) and isinstance(assign.value, Binary) and isinstance(assign.value.left, Juxt)
    assert source.slice(program.header.span) == "adapter X on linear"
    assert source.slice(loop.span) == "for i in S:\n    V̂_{:k} ← cos θ_i · (a + b)⁻¹"
    assert source.slice(assign.targets[0].span) == "V̂_{:k}"
    assert source.slice(assign.value.span) == "cos θ_i · (a + b)⁻¹"
    assert source.slice(assign.value.left.factors[1].span) == "θ_i"
    assert source.slice(assign.value.right.span) == "(a + b)⁻¹"
    assert program.span == Span(0, len(source.text))


# ---------------------------------------------------------------- errors, all at once


def test_every_bad_line_is_reported() -> None:
    text = "a = 2\nb ← 2\nc ← (1\nd ← 2\n  e ← 3\nf ← ‖x\ng ← 2"
    with pytest.raises(PadpError) as error:
        read(text)
    source = Source.of(text)
    assert [(d.code, *source.position(d.span.start)) for d in error.value.diagnostics if d.span] == [
        ("E101", 1, 3),
        ("E103", 3, 5),
        ("E104", 5, 1),
        ("E103", 6, 5),
    ]
    assert all(d.source is not None for d in error.value.diagnostics)


def test_a_bad_head_does_not_spoil_its_block() -> None:
    assert codes("for i on S:\n    a ← 2\n    b = 2\nc ← 2") == ["E101", "E101"]


def test_no_more_errors_than_people_read() -> None:
    with pytest.raises(PadpError) as error:
        read("a = 2\n" * 50)
    assert len(error.value.diagnostics) == limits.MAX_ERRORS
    assert error.value.diagnostics[-1].notes == (f"{50 - limits.MAX_ERRORS} more errors are not shown",)


# ---------------------------------------------------------------- limits

LIMITS = {
    "text": "#" * (limits.MAX_TEXT + 1),
    "statement": "y ← " + "f(a) " * (limits.MAX_STATEMENT // 5),
    "statements": "a ← 2\n" * (limits.MAX_STATEMENTS + 1),
    "brackets": "y ← " + "(" * (limits.MAX_NESTING + 1) + "a" + ")" * (limits.MAX_NESTING + 1),
    "blocks": "".join(" " * d + "for i in S:\n" for d in range(limits.MAX_NESTING + 2)) + " " * 99 + "a ← 2",
    "terms": "y ← " + " + ".join(["a"] * 1000),
    "products": "y ← " + "·".join(["a"] * 4000),
    "signs": "y ← " + "-" * 4000 + "a",
    "roots": "y ← " + "√" * 4000 + "a",
    "bars": "y ← " + "| " * 2000 + "a" + " |" * 2000,
    "sums": "y ← " + "Σᵢ " * 2000 + "a",
    "choices": "y ← " + "a if i = j else " * 500 + "a",
    "name": "y ← " + "a" * (limits.MAX_NAME + 1),
    "number": "y ← " + "1" * (limits.MAX_DIGITS + 1),
    "integer": f"y ← {limits.MAX_INTEGER + 1}",
    "float": "y ← 1e309",
    "exponent": "y ← a" + "²" * (limits.MAX_DIGITS + 1),
}


@pytest.mark.parametrize("text", LIMITS.values(), ids=LIMITS.keys())
def test_beyond_a_limit(text: str) -> None:
    assert set(codes(text)) == {"E105"}


WITHIN = {
    "brackets": "y ← " + "(" * limits.MAX_NESTING + "a" + ")" * limits.MAX_NESTING,
    "calls": "y ← " + "f(" * limits.MAX_NESTING + "a" + ")" * limits.MAX_NESTING,
    "terms": "y ← " + " + ".join(["a"] * 150),
    "integer": f"y ← {limits.MAX_INTEGER}",
    "name": "y ← " + "a" * limits.MAX_NAME,
    "statements": "a ← 2\n" * 3000 + "# …\n" * (limits.MAX_STATEMENTS - 3000),
    "trailers": "y ← a" + "ᵀ" * 5000,
    "factors": "y ← " + "a " * 4000,
    "arguments": "y ← f(" + "a, " * 3000 + "a)",
}


@pytest.mark.parametrize("text", WITHIN.values(), ids=WITHIN.keys())
def test_within_a_limit(text: str) -> None:
    from padp.dsl.printer import to_text

    tree = read(text)
    assert hash(tree) == hash(read(text)) and repr(tree) and to_text(tree)  # recursive functions have room enough


def test_no_recursion_from_little_stack() -> None:
    """Parsing does not recurse: it has room where a caller has nearly used up the stack."""
    depth = len(inspect.stack())
    text = "y ← " + "f(a + " * 50 + "a" + ")" * 50
    read(text)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 60)
    try:
        read(text)
    finally:
        sys.setrecursionlimit(before)


HEAVY = [
    "y ← Σ_{" + " " * 9000 + "}", "Σ_{ " * 2000, "y ← Σ_{" + "in" * 4000 + " x}", "Σᵢ " * 3000,
    "y ← Σᵢ" + " " * 9000 + "@", "y ← Σᵢ " + "‖ " * 4000 + "@", " (x) " * 1500, "a (x) " + "‖ " * 4000 + "@",
    "y ← a" + "'" * 9000, "y ← a" + "_a" * 4000,
    "‖" * 9000, "y ← " + "lambda " * 1200, "y ← " + "a for i in b " * 700, "'=" * 4000, '"" ' * 3000, "{}" * 4000,
    "adapter " + "X on " * 1800, "a: learned " * 800, "(" + "\n" * 9000, "adapter X\n" + "#a\n" * 3000 + "z",
    "y ← a" + "\u0302" * 9000, "y ← " + "λ" * 9000, "\\" * 9000, "(]" * 4900, "y ← (\n" * 4900, "a" * 199_000,
]


@pytest.mark.parametrize("text", HEAVY, ids=range(len(HEAVY)))
def test_nothing_hangs(text: str) -> None:
    start = time.perf_counter()
    try:
        read(text)
    except PadpError as error:
        assert error.diagnostics
    assert time.perf_counter() - start < 5
