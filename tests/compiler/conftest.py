"""What tests of the compiler share."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest


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
