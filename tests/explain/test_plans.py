"""The record of a plan and its three renderers: numbers against hand calculation, nothing lost on the way."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch

import padp
from padp.compiler.explain.as_json import to_data
from padp.compiler.explain.drawing import layout
from padp.compiler.explain.picture import picture
from padp.compiler.explain.plan import Plan, plan_of
from padp.compiler.explain.record import EACH_CALL, ON_CHANGE, ONCE
from padp.compiler.explain.text import WIDTH, size, text, time
from padp.compiler.graph.compile import Compiled, compile_method
from padp.compiler.library import library
from padp.compiler.sizes.solve import solve
from tests.support.plan_data import from_data

M, N, R, T = 192, 288, 8, 64
SIZES = {"linear": {"m": M, "n": N}, "hidden": {"d": 64}, "attention": {"d": 64, "H": 4, "G": 2, "e": 16}}
GIVEN = {"r": 8, "k": 8, "steps": 10, "count": 20}
"""Small, where an adapter has it."""
SVG = "{http://www.w3.org/2000/svg}"


def compiled(name: str, tokens: int = T, sizes: dict[str, int] | None = None) -> Compiled:
    adapter = padp.compile(name)
    given = {k: v for k, v in GIVEN.items() if k in adapter.hyper and (sizes is None or k != "r")}
    method, settings = adapter.method(None), adapter.settings(None, **given)
    knobs = {h.name for h in method.hyper if h.knob}
    hyper = {k: v for k, v in settings.hyper.items() if k not in knobs}
    return compile_method(method, solve(method, sizes or SIZES[adapter.site], settings.hyper), hyper, has_bias=False,
                          tokens=tokens)


@cache
def plan(name: str, tokens: int = T) -> Plan:
    return plan_of(compiled(name, tokens))


@cache
def large(name: str) -> Plan:
    """At a size where memory counts."""
    return plan_of(compiled(name, 1024, {"m": 1024, "n": 1024}))


# ---------------------------------------------------------------- the numbers


def test_lora_costs_what_the_formula_says() -> None:
    """Forward 2T(mn + r(m + n)) in products; backward one product for x, A, B each, W being frozen."""
    lora = plan("lora").train
    assert sum(s.products for s in lora.steps) == 2 * T * (M * N + R * (M + N))
    assert sum(s.products_back for s in lora.steps) == 2 * T * (M * N + 2 * R * (M + N))


def test_lora_keeps_x_and_what_b_is_applied_to() -> None:
    lora = plan("lora").train
    assert {(k.value == "x", k.bytes) for k in lora.kept} == {(True, 4 * T * N), (False, 4 * T * R)}
    assert lora.held_bytes == 4 * T * (N + R) and lora.dropped_bytes == 0
    assert plan("lora").kept_bytes == 0 and not any(s.stored for s in lora.steps)


def test_lora_as_written() -> None:
    """B A costs 2mrn, two passes make W' = W + s B A, which x meets last; backward: dx, dW', dA and dB."""
    naive = plan("lora").naive
    assert naive is not None and naive.flops == 2 * M * N * R + 2 * M * N + 2 * T * M * N
    assert naive.flops_back == 2 * 2 * M * N * R + 2 * M * N + 2 * 2 * T * M * N
    assert naive.matrices == 3
    assert naive.held == 4 * (T * N + M * N)  # x for d(W'), W' for dx


def test_matrices_inside_a_product_are_built_too() -> None:
    """OFT as written: blkdiag(R), then W blkdiag(R), which x meets. Here n > m, so the first is as large as W too."""
    naive = plan("oft").naive
    assert naive is not None and naive.matrices == 2


def test_an_attention_is_planned_by_its_maps() -> None:
    """They have no tokens: nothing is left to compute in eval, and there is no literal reading to compare with."""
    clover = plan("clover")
    assert clover.naive is None and clover.eval.seconds == clover.decode.seconds == 0
    assert all("T" not in s.shape for s in clover.train.steps)
    assert "decoding: as in eval" in text(clover) and "as written" not in text(clover)


def test_one_token_costs_a_token() -> None:
    decode = plan("lora").decode
    assert decode.tokens == 1 and sum(s.products for s in decode.steps) == 2 * (M * N + R * (M + N))
    assert decode.flops_back == decode.held_bytes == 0


def test_a_call_pays_for_what_runs_in_it() -> None:
    """Attach never, the step stage in training only; eval keeps its results beside W instead."""
    hra = plan("hra")
    assert {s.runs for s in hra.train.steps} == {EACH_CALL}
    assert {s.runs for s in hra.eval.steps if s.stage == "step"} == {ON_CHANGE}
    assert hra.eval.seconds == pytest.approx(sum(s.seconds for s in hra.eval.steps if s.stage == "token"))
    assert any(s.stored for s in hra.eval.steps) and not any(s.stored for s in hra.train.steps)
    pissa = plan("pissa")
    assert all(s.runs == ONCE for s in pissa.train.steps if s.stage == "attach")
    assert sum(s.stored for s in pissa.train.steps) == 4 * R * (M + N)  # A and B as they start
    assert pissa.kept_bytes <= 2 * 4 * R * (M + N)  # decoding may keep one of them with the other sign


def test_vera_makes_again_what_it_scales() -> None:
    """λ_b ⊙ B (m×r) and λ_d ⊙ A x (T×r) are one pass each; A x is kept, for λ_d. A is frozen: nobody needs x."""
    vera = large("vera").train
    again = {k.shape for k in vera.kept if k.again}
    assert again == {(1024, 256), ("T", 256)}
    assert vera.dropped_bytes == 4 * (1024 * 256 + 1024 * 256)
    assert vera.held_bytes == 4 * 1024 * 256
    assert all(k.seconds > 0 for k in vera.kept if k.again)
    assert {f"#{s.number}" for s in vera.steps if s.again} == {k.value for k in vera.kept if k.again}
    assert "again in backward, so that 2.1 MB are not kept" in " ".join(text(large("vera")).split())


@pytest.mark.parametrize("name", [n for n in library() if padp.compile(n).site == "linear"])
def test_what_is_held_is_what_autograd_holds(name: str) -> None:
    """To a twentieth of x: scalars and torch's own copies of factors, which no tokens have, are left out."""
    given = {"k": 50} if name == "fourierft" else {"steps": 10} if name == "adalora" else {}
    layer: Any = padp.compile(name)(torch.nn.Linear(256, 256), **given)
    with torch.no_grad():
        for p in layer.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    own = {t.untyped_storage().data_ptr() for t in (*layer.parameters(), *layer.buffers())}
    found: dict[int, torch.Tensor] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        if t.untyped_storage().data_ptr() not in own and t.is_floating_point():
            found[t.untyped_storage().data_ptr()] = t
        return t

    x = torch.randn(1024, 256, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        layer(x)
    held = sum(t.untyped_storage().nbytes() for t in found.values())
    assert abs(held - layer.plan.train.held_bytes) <= 0.05 * 4 * x.numel()


def test_rejected_ways_have_their_cost() -> None:
    for regime in large("vera").regimes:
        assert regime.choices
        for choice in regime.choices:
            assert choice.rejected and choice.line == 11
            for way in choice.rejected:
                assert (way.stored, way.seconds) >= (choice.taken.stored, choice.taken.seconds)
    shown = text(large("vera")).splitlines()
    for way in large("vera").train.choices[0].rejected:
        assert any("rejected" in line and time(way.seconds) in line and way.label in line for line in shown)


def test_what_would_be_stored_is_a_reason() -> None:
    """Multiplying out what B A was at the start would keep an m×n matrix beside W."""
    ways = [w for c in large("delora").train.choices for w in c.rejected]
    assert 4 * 1024 * 1024 in {w.stored for w in ways}
    assert "stores 4.19 MB beside W" in text(large("delora"))


def test_the_whole_text(golden: Callable[[str, str], None]) -> None:
    golden("plans/lora.txt", text(plan("lora")) + "\n")
    golden("plans/vera.txt", text(large("vera")) + "\n")


# ---------------------------------------------------------------- rules


def test_rules_of_a_plan_for_a_plain_layer() -> None:
    """Where the base is plain, SVFT calls none: the rule that put the parts of W in its place is named."""
    program = compiled("svft", 1024, {"m": 1024, "n": 1024})
    called, svft = plan_of(program), plan_of(program.usual)
    assert "base" in {s.operation for s in called.train.steps}
    assert "base" not in {s.operation for s in svft.train.steps}
    assert "by_parts" in {u.rule for u in svft.rules} and "by_parts" not in {u.rule for u in called.rules}


def test_which_rule_did_what() -> None:
    used = {(u.rule, u.line): u for u in plan("lora").rules}
    assert used["add on vectors", 10].before == "W + 2 · ΔW"
    assert used["add on vectors", 10].equation.startswith("(A + B) v = A v + B v")
    svd = next(u for u in plan("pissa").rules if u.rule == "prod" and u.after)
    assert "U_{:,8:192}" in svd.before and svd.after.startswith("W - U_{:,0:8}")


def test_no_rule_changes_nothing() -> None:
    for name in ("lora", "hra", "boft", "delora"):
        assert all(u.before != u.after and u.equation for u in plan(name).rules)


def test_asking_does_not_change_the_plan() -> None:
    made = compiled("boft")
    before = [id(low) for low in made.outputs]
    first, second = plan_of(made), plan_of(made)
    assert first == second and before == [id(low) for low in made.outputs]


# ---------------------------------------------------------------- merging


def test_merging_saves_what_lora_adds() -> None:
    """What is left is W x alone: its product, its traffic, one call."""
    lora = plan("lora")
    base = next(s for s in lora.eval.steps if s.operation.startswith("base"))
    assert lora.merging.why_not is None and lora.merging.bare_many == pytest.approx(base.seconds)
    saved = lora.eval.seconds - base.seconds
    assert saved > 0 and f"{time(saved / T)} a token" in text(lora)
    assert "layer.merge() would save" in text(lora)


def test_no_merging_has_a_reason() -> None:
    for name in library():
        merging = plan(name).merging
        if merging.why_not is not None:
            assert merging.why_not in " ".join(text(plan(name)).split())
    assert any(plan(name).merging.why_not for name in library())


# ---------------------------------------------------------------- text, JSON, SVG


@pytest.mark.parametrize("name", library())
def test_text_fits(name: str) -> None:
    shown = str(plan(name))
    assert max(map(len, shown.splitlines())) <= WIDTH
    for regime in plan(name).regimes:
        for step in regime.steps:
            assert f"{step.number:>4} {step.stage:7}{step.operation[:11]}" in shown


@pytest.mark.parametrize("name", library())
def test_json_and_back(name: str) -> None:
    assert from_data(json.loads(json.dumps(to_data(plan(name))))) == plan(name)


@pytest.mark.parametrize(("place", "value", "complaint"), [
    (("format",), "padp plan 0", "format"),
    (("tokens",), 5, "expected the fields"),
    (("adapter",), 5, "plan.adapter"),
    (("train", "steps", 0, "flops"), 5, r"plan.train.steps\[0\]: expected the fields"),
    (("train", "steps", 0, "line"), 1.5, r"plan.train.steps\[0\].line"),
    (("train", "steps", 0, "again"), 1, r"plan.train.steps\[0\].again"),
    (("train", "kept", 0, "shape", 0), None, r"plan.train.kept\[0\].shape\[0\]"),
])
def test_what_is_no_plan_is_refused(place: tuple[Any, ...], value: Any, complaint: str) -> None:
    data: Any = json.loads(json.dumps(to_data(plan("lora"))))
    *path, last = place
    inner = data
    for key in path:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(ValueError, match=complaint):
        from_data(data)


@pytest.mark.parametrize("regime", ["train", "eval", "decode"])
@pytest.mark.parametrize("name", library())
def test_the_picture_names_every_step(name: str, regime: str) -> None:
    root = ET.fromstring(picture(plan(name), regime))
    steps = next(r for r in plan(name).regimes if r.name == regime).steps
    boxes = {g.get("id"): g for g in root.iter(f"{SVG}g")}
    assert set(boxes) == {f"step{s.number}" for s in steps}
    for s in steps:
        words = [t.text or "" for t in boxes[f"step{s.number}"].iter(f"{SVG}text")]
        assert any(f"#{s.number} {s.operation}" in w for w in words)
        assert any(w.startswith(f"{s.line}: ") for w in words)
        rect = boxes[f"step{s.number}"].find(f"{SVG}rect")
        assert rect is not None and (rect.get("stroke-dasharray") is not None) == s.again
    assert len(root.findall(f"{SVG}path")) == sum(len(s.inputs) for s in steps)


@pytest.mark.parametrize("name", library())
def test_boxes_do_not_overlap(name: str) -> None:
    root = ET.fromstring(picture(plan(name)))
    width = float(root.get("width", "0"))
    rows: dict[float, list[tuple[float, float]]] = {}
    for g in root.iter(f"{SVG}g"):
        rect = g.find(f"{SVG}rect")
        assert rect is not None
        left = float(rect.get("x", "nan"))
        right = left + float(rect.get("width", "nan"))
        assert 0 <= left and right <= width
        rows.setdefault(float(rect.get("y", "nan")), []).append((left, right))
    for row in rows.values():
        assert all(a[1] < b[0] for a, b in pairwise(sorted(row)))


def test_layers() -> None:
    """A box is below all that it reads, a band below the one before it, and a long arrow has a lane in each row."""
    made = layout([("a", "step", ["A"]), ("b", "token", ["x"]), ("c", "token", ["b"]), ("d", "token", ["a", "b", "c"])],
                  100, 40)
    row = {p.name: p.row for p in made.places}
    assert row == {"A": 0, "a": 1, "x": 2, "b": 3, "c": 4, "d": 5}
    assert made.bands == (("step", 0, 2), ("token", 2, 4))
    assert [len(p) for p in made.paths if p[0].name == "a"] == [5]
    for path in made.paths:
        assert [p.row for p in path] == list(range(path[0].row, path[-1].row + 1))


def test_numbers_as_people_write_them() -> None:
    assert [size(x) for x in (0, 12, 4096, 4 * 1024**2)] == ["0", "12 B", "4.1 kB", "4.19 MB"]
    assert [time(x) for x in (0, 2e-9, 3e-6, 0.0123, 5.5)] == ["0", "2 ns", "3 µs", "12.3 ms", "5.5 s"]
