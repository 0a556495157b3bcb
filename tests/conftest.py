"""What all tests share: one thread a process, no network, and golden files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Set before anything imports torch: tests run in several processes, and a thread pool in each makes all of them slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("PADP_VERIFY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew instead of comparing")
    parser.addoption("--thorough", action="store_true", help="all cases of tests that have many heavy ones")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Cases marked ``thorough`` run with ``--thorough`` only."""
    if not config.getoption("--thorough"):
        left = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden("show/lora.txt", text)``: ``text`` is what ``tests/golden/show/lora.txt`` says."""
    update = bool(request.config.getoption("--update-golden"))

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        assert path.is_file(), f"no golden file {path}: run pytest --update-golden and read what it wrote"
        assert text == path.read_text(encoding="utf-8"), f"differs from {path}: pytest --update-golden accepts it"

    return compare


@pytest.fixture
def plain_plans(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plans for plain base layers wherever they can be had, however small the layer and whether faster or not."""
    from padp.compiler.graph import compile as compiled

    monkeypatch.setattr(compiled, "WORTH_PLANNING", 0)
    monkeypatch.setattr(compiled, "WORTH_REPLACING", 0.0)
    monkeypatch.setattr(compiled, "CLEARLY", math.inf)
    compiled._compile.cache_clear()  # pyright: ignore[reportPrivateUsage]
    yield
    compiled._compile.cache_clear()  # pyright: ignore[reportPrivateUsage]
