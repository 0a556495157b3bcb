"""Five adapters the whole way, from text to graphs: a golden page each, which ``padp show --ir`` prints as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from padp.cli import main
from padp.compiler.adapter import compile
from padp.compiler.explain.dumps import AT_ONE_SIZE, PHASES, printed

HEADS = {"d": 16, "e": 4, "H": 4, "G": 2}
WAYS: dict[str, tuple[dict[str, int], dict[str, Any]]] = {
    "lora": ({"m": 24, "n": 32}, {}), "oft": ({"m": 24, "n": 32}, {"k": 8}), "hra": ({"m": 24, "n": 32}, {"r": 4}),
    "svft": ({"m": 24, "n": 32}, {"d": 1}), "clover": (HEADS, {}),
}


@pytest.mark.parametrize("name", WAYS)
def test_the_whole_way(name: str, golden: Callable[[str, str], None]) -> None:
    sizes, hyper = WAYS[name]
    adapter = compile(name)
    settings = adapter.settings(**hyper)
    variant = adapter.of(settings.variant)
    compiled = variant.at(sizes, settings.hyper).compiled(False, tokens=64)
    said = [f"==== {phase}\n\n{printed(phase, variant, compiled)}\n" for phase in PHASES]
    golden(f"way/{name}.txt", "\n".join(said))


@pytest.mark.parametrize("phase", PHASES)
def test_on_the_command_line(phase: str, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--size", "m=24,n=32", "--tokens", "64"] if phase in AT_ONE_SIZE else []
    assert main(["show", "lora", "--ir", phase, *size]) == 0
    sizes, hyper = WAYS["lora"]
    adapter = compile("lora")
    variant = adapter.of()
    compiled = variant.at(sizes, adapter.settings(**hyper).hyper).compiled(False, tokens=64)
    assert capsys.readouterr().out.rstrip() == printed(phase, variant, compiled).rstrip()


@pytest.mark.parametrize("phase", AT_ONE_SIZE)
def test_a_phase_of_one_size_asks_for_it(phase: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "lora", "--ir", phase]) == 2
    assert "--size" in capsys.readouterr().err
