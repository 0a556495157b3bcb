"""The command line: what it prints, and that its exit status is 0 clean, 1 findings, 2 usage, 3 a bug of ours."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import padp.cli.targets
from padp.cli import BUG, CLEAN, FINDINGS, USAGE, main
from padp.cli.options import Usage, hyperparameters, sizes
from padp.compiler.library import library

WRONG = """adapter Wrong(r = 4) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = 0
y ← (W + A @ B) @ x
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("check", "lora")`` → exit status, standard output, standard error."""

    def command(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return command


@pytest.fixture
def wrong(tmp_path: Path) -> str:
    path = tmp_path / "wrong.padp"
    path.write_text(WRONG, encoding="utf-8")
    return str(path)


@pytest.fixture
def model(tmp_path: Path) -> str:
    tensors: dict[str, Any] = {"wte.weight": np.zeros((50, 8), dtype=np.float32)}
    for i in range(3):
        tensors[f"layers.{i}.up.weight"] = np.zeros((12, 8), dtype=np.float32)
        tensors[f"layers.{i}.down.weight"] = np.zeros((8, 12), dtype=np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8, "num_attention_heads": 2}))
    return str(tmp_path)


# ---------------------------------------------------------------- check


def test_check_clean(run: Run) -> None:
    status, out, err = run("check", "lora", "oft")
    assert (status, err) == (CLEAN, "")
    assert out.strip() == "2 files checked, all is well"


def test_check_findings(run: Run, wrong: str) -> None:
    status, out, _ = run("check", wrong)
    assert status == FINDINGS
    assert "E301" in out and "wrong.padp:4" in out and "1 error in 1 file" in out


def test_check_json(run: Run, wrong: str) -> None:
    status, out, _ = run("check", wrong, "lora", "--format", "json")
    assert status == FINDINGS
    (finding,) = json.loads(out)
    assert finding["code"] == "E301" and finding["severity"] == "error"
    assert run("check", "lora", "--format", "json")[:2] == (CLEAN, "[]\n")


def test_check_github(run: Run, wrong: str) -> None:
    status, out, _ = run("check", wrong, "--format", "github")
    assert status == FINDINGS
    assert out.startswith("::error ") and "line=4" in out and "E301" in out
    assert len(out.splitlines()) == 1


def test_check_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(WRONG))
    assert run("check", "-")[0] == FINDINGS


def test_check_one_variant(run: Run) -> None:
    assert run("check", "ia3", "--variant", "attention")[0] == CLEAN
    status, out, _ = run("check", "ia3", "--variant", "nothing")
    assert status == FINDINGS
    assert "E208" in out and "attention" in out


def test_what_is_not_there(run: Run, tmp_path: Path) -> None:
    assert "lora" in run("check", "lorra")[2]
    assert run("check", "lorra")[0] == USAGE
    assert run("check", str(tmp_path))[0] == USAGE
    binary = tmp_path / "binary.padp"
    binary.write_bytes(b"\xff\xfe\x00")
    assert run("check", str(binary))[0] == USAGE


# ---------------------------------------------------------------- count


def test_count_formula(run: Run) -> None:
    status, out, _ = run("count", "oft")
    assert status == CLEAN
    assert "n(k − 1)/2" in out


def test_count_one_site(run: Run) -> None:
    status, out, _ = run("count", "lora", "--size", "m=4096,n=4096", "--set", "r=8")
    assert status == CLEAN
    assert "65,536" in out
    assert "131,072" in run("count", "lora", "--size", "m=4096,n=4096", "--set", "r=16")[1]


def test_count_a_model(run: Run, model: str) -> None:
    status, out, _ = run("count", "lora", "--model", model, "--set", "r=2")
    assert status == CLEAN
    assert f"{6 * 2 * (12 + 8):,}" in out
    status, out, _ = run("count", "lora", "--model", model, "--set", "r=2", "--targets", "up")
    assert status == CLEAN
    assert f"{3 * 2 * (12 + 8):,}" in out


def test_tables(run: Run, model: str, golden: Callable[[str, str], None]) -> None:
    golden("cli/count.txt", run("count", "oft", "--model", model, "--set", "k=4")[1])
    golden("cli/targets.txt", run("targets", model)[1])


def test_count_hidden_sites(run: Run, model: str) -> None:
    status, out, _ = run("count", "reft", "--model", model, "--set", "r=2")
    assert status == CLEAN
    assert "3 sites, 102 learned scalars" in out  # 3 · r(2d + 1) with r = 2, d = 8


def test_count_refusals(run: Run, model: str) -> None:
    assert run("count", "lora", "--size", "m=0,n=4")[0] == USAGE
    assert run("count", "lora", "--size", "m=4")[0] == USAGE
    assert run("count", "lora", "--size", "m=4,n=4,z=4")[0] == USAGE
    assert run("count", "lora", "--model", model + "/none")[0] == USAGE
    status, _, err = run("count", "lora", "--size", "m=4,n=4", "--set", "rank=2")
    assert status == FINDINGS and "E507" in err
    status, _, err = run("count", "oft", "--size", "m=4,n=100", "--set", "k=32")
    assert status == FINDINGS and "E501" in err and "100" in err
    status, _, err = run("count", "lora", "--model", model, "--targets", "q_proj")
    assert status == FINDINGS and "E503" in err


def test_count_refuses_a_cut_file(run: Run, model: str) -> None:
    file = Path(model, "model.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    status, _, err = run("count", "lora", "--model", model)
    assert status == FINDINGS and "E505" in err and "cut short" in err


# ---------------------------------------------------------------- show, targets, explain


def test_show_without_sizes(run: Run) -> None:
    status, out, _ = run("show", "lora")
    assert status == CLEAN
    assert "B ∈ ℝ^{m×r}" in out and "r(m + n)" in out


def test_show_with_sizes(run: Run) -> None:
    status, out, _ = run("show", "lora", "--size", "m=64,n=32", "--tokens", "128")
    assert status == CLEAN
    assert "def forward" in out and "128 tokens" in out


def test_show_writes_the_plan(run: Run, tmp_path: Path) -> None:
    data, drawing = tmp_path / "plan.json", tmp_path / "plan.svg"
    files = ("--json", str(data), "--svg", str(drawing))
    status, out, _ = run("show", "lora", "--size", "m=64,n=32", "--tokens", "16", *files)
    assert status == CLEAN and "def forward" in out
    plan = json.loads(data.read_text(encoding="utf-8"))
    assert plan["format"] == "padp plan 1" and plan["sizes"] == {"m": 64, "n": 32}
    assert sum(step["products"] for step in plan["train"]["steps"]) == 2 * 16 * (64 * 32 + 8 * (64 + 32))
    assert "LoRA: training, 16 tokens" in drawing.read_text(encoding="utf-8")


def test_show_the_plan_alone(run: Run) -> None:
    size = ("--size", "m=64,n=32")
    assert json.loads(run("show", "lora", *size, "--json", "-")[1])["adapter"] == "LoRA"
    status, out, _ = run("show", "lora", *size, "--svg", "-", "--regime", "decode")
    assert status == CLEAN and out.startswith("<svg") and "LoRA: decoding, 1 token" in out


def test_show_refuses_a_plan_without_sizes_or_place(run: Run, tmp_path: Path) -> None:
    size = ("--size", "m=64,n=32")
    for arguments in (("--json", "-"), ("--svg", "-"), (*size, "--json", "-", "--svg", "-"),
                      (*size, "--svg", str(tmp_path)), (*size, "--json", str(tmp_path / "none" / "plan.json"))):
        status, out, err = run("show", "lora", *arguments)
        assert status == USAGE and not out and ("--json" in err or "--svg" in err)


@pytest.mark.parametrize("name", library())
def test_show_every_adapter(run: Run, name: str) -> None:
    """Each variant of the library, small: typed, planned, printed."""
    adapter = padp.compile(name)
    small = {"r": 8, "k": 8, "steps": 10, "count": 20}
    settings = [f"{key}={small[key]}" for key in adapter.hyper if key in small]
    size = {"linear": "m=64,n=128", "hidden": "d=64", "attention": "d=64,H=4,G=2,e=16"}[adapter.site]
    for variant in adapter.variants or (None,):
        options = [f"--set={setting}" for setting in settings] + ([f"--variant={variant}"] if variant else [])
        status, out, err = run("show", name, "--size", size, *options)
        assert (status, err) == (CLEAN, "")
        assert "shapes" in out and "FLOPs" in out and "def forward" in out


def test_show_says_what_an_adapter_can_do(run: Run) -> None:
    _, out, _ = run("show", "ia3", "--variant", "attention")
    said = {line.split()[0]: line.split()[1] for line in out.split("capabilities")[1].splitlines()[2:] if line.strip()}
    assert said == {"mergeable": "yes", "batchable": "yes", "additive": "no", "needs_weight": "no", "low_rank": "no",
                    "knobs": "no", "identity": "yes"}
    assert "the bias does not stay as it is: line 11 (y ← (W @ x + bias) ⊙ λ)" in out


def test_show_ascii(run: Run) -> None:
    status, out, _ = run("show", "lora", "--ascii")
    assert status == CLEAN
    assert "R^{m x r}" in out.split("shapes")[0]


def test_targets(run: Run, model: str) -> None:
    status, out, _ = run("targets", model)
    assert status == CLEAN
    assert "6 linear layers" in out and "12×8" in out and "wte" not in out.replace("wte,", "")
    assert "3 linear layers" in run("targets", model, "--targets", "up")[1]
    assert "3 linear layers" in run("targets", model, "--exclude", "up")[1]


def test_explain(run: Run) -> None:
    status, out, _ = run("explain", "e301")
    assert status == CLEAN
    assert out.startswith("## E301 · shapes do not fit")
    assert "E502" in run("explain")[1]
    assert run("explain", "E999")[0] == USAGE


# ---------------------------------------------------------------- the rest


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["check"], ["count", "lora", "--size"]], ids=str)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == USAGE
    assert "usage: padp" in capsys.readouterr().err


def test_a_bug_of_ours_is_said_without_a_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: object) -> int:
        raise KeyError("inner")

    monkeypatch.setattr(padp.cli.targets, "run", broken)
    status, _, err = run("targets", "x")
    assert status == BUG
    assert "a bug in padp: KeyError: 'inner'" in err


def test_options() -> None:
    assert sizes("m=4, n=8") == {"m": 4, "n": 8}
    assert hyperparameters(["r=8", "alpha=0.5,positions=f7+l7"]) == {"r": 8, "alpha": 0.5, "positions": "f7+l7"}
    for bad in ("m", "m=", "=4", "m=-1", "m=1.5", "m=4,m=5"):
        with pytest.raises(Usage):
            sizes(bad)
    with pytest.raises(Usage):
        hyperparameters(["r=1", "r=2"])


def test_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "padp", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"padp {padp.__version__}\n"
