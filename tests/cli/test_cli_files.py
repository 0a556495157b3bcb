"""What the command line is given and where it writes: files of every kind, pipes, encodings. Never a traceback, never
a bug report.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import padp
from padp.cli import main
from padp.dsl.source import MAX_BYTES

CLEAN = "adapter T on linear(W ∈ ℝ^{m×n})\nv ∈ ℝ^n: learned, init = 1\ny ← W @ (x ⊙ v)\n"


def run(*arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "padp", *arguments], input=stdin, capture_output=True, check=False,
                          timeout=120, env={**os.environ, **environment})


COMMANDS = (("check",), ("count",), ("show",), ("check", "--format", "json"), ("targets",))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("kind", ["missing", "a directory", "not text", "empty"])
def test_files_of_every_kind(command: tuple[str, ...], kind: str, tmp_path: Path,
                             capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "program.padp"
    if kind == "a directory":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"\xff\xfe\x00" if kind == "not text" else b"")
    assert main([*command, str(path)]) in (1, 2)
    said = capsys.readouterr()
    assert "bug" not in said.err
    assert said.err or said.out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_with_a_name(tmp_path: Path) -> None:
    """What a shell gives for <(…)."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([sys.executable, "-m", "padp", "check", str(pipe)], stdout=subprocess.PIPE) as reader:
        pipe.write_text(CLEAN, encoding="utf-8")
        said, _ = reader.communicate(timeout=120)
    assert reader.returncode == 0
    assert said


def test_of_a_huge_file_no_more_is_read_than_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "huge.padp"
    with path.open("wb") as file:
        file.truncate(10 * MAX_BYTES)
    assert [d.code for d in padp.check(path)] == ["E105"]
    assert b"E105" in run("check", "-", stdin=path.read_bytes()).stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("command", [("show", "lora"), ("explain", "E301"), ("check", "-")], ids=" ".join)
def test_output_in_any_encoding(command: tuple[str, ...], encoding: str) -> None:
    wrong = CLEAN.replace("x ⊙ v", "x ⊙ v̂").encode()
    found = run(*command, stdin=wrong, PYTHONIOENCODING=encoding)
    assert found.returncode == (1 if command[0] == "check" else 0)
    assert found.stderr == b""
    assert found.stdout.decode(encoding)


@pytest.mark.parametrize("encoding", ["latin-1"])
def test_json_is_json_in_any_encoding(encoding: str) -> None:
    text = CLEAN.replace("v", "Ψ̂").replace("x ⊙ Ψ̂", "x ⊙ Ψ̂₇ · Ç")
    plain = run("check", "-", "--format", "json", stdin=text.encode(), PYTHONIOENCODING="utf-8").stdout
    other = run("check", "-", "--format", "json", stdin=text.encode(), PYTHONIOENCODING=encoding).stdout
    assert json.loads(other.decode(encoding)) == json.loads(plain.decode())


def test_a_demo_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "inside"):
        assert main(["demo", "--output", str(output)]) == 2
        assert "not a directory" in capsys.readouterr().err


WRITES = ("v ← r; v_{:2} += ones(2)", "v ← 1; v_{:,2} ← ones(2)", "v ← ones(r); v_{:2,:} += ones(2)", "v ← r; v_0 += 1",
          "v ← r; v[0,1] ← 2", "K ← W; K_{:1,:1,:1} ← 0")
SHAPES = ("shape=m", "shape=(m)", "shape=(m, n, m)", "shape=W", "shape=x")


@pytest.mark.parametrize("write", WRITES)
def test_more_indices_than_there_are_axes(write: str) -> None:
    found = padp.check(f"adapter T(r = 3) on linear(W ∈ ℝ^{{m×n}})\nu ∈ ℝ^n: learned\n{write}\ny ← W @ (x ⊙ u)\n")
    assert {d.code for d in found if d.severity == "error"} & {"E305", "E209", "E301", "E201"}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_that_is_none(shape: str) -> None:
    found = padp.check("adapter T(r = 3) on linear(W ∈ ℝ^{m×n})\nc ∈ ℝ^r: learned\nΩ ← sample(m, n, r, 1)\n"
                       f"y ← W @ x + scatter(c, Ω, {shape}) @ x\n")
    assert any(d.severity == "error" for d in found)
