"""The whole life of programs that check clean, on small models: every step is taken or refused by name.

The programs are those of the project as they stand and with words changed; the same in every run, more with
``--thorough``.
"""

from __future__ import annotations

import pytest
import torch

from padp.checking import check_source
from padp.dsl.source import Source
from tests.support.life import crashes
from tests.support.mutations import mutated, programs, some

SIZES = ((6, 4), (4, 4), (8, 16), (1, 1), (2, 3), (3, 6))
DTYPES = (torch.float32, torch.bfloat16, torch.float64)
KNOBS = "adapter T(knob s = 2) on "
FOUND = {
    "a vector that half-precision weights are applied to": """adapter T on linear(W ∈ ℝ^{m×n})
v ∈ ℝ^n: learned, init = normal(0.1)
y ← W @ v
""",
    "no tensors": """adapter T on linear(W ∈ ℝ^{m×n})
y ← W @ x + ones(m)
""",
    "an index vector and no tensors": """adapter T on linear(W ∈ ℝ^{m×n})
y ← W @ perm(butterfly(n, 1, 0)) @ x + ones(m)
""",
    "a knob and no tensors": KNOBS + """linear(W ∈ ℝ^{m×n})
y ← s · W @ x + s · ones(m)
""",
    "a block that calls all its children": KNOBS + """hidden(h ∈ ℝ^d)
h ← h + s · ones(d)
""",
}


def live(text: str, at: int) -> None:
    found = crashes(text, SIZES[at % len(SIZES)], DTYPES[at // len(SIZES) % len(DTYPES)])
    assert not found, "\n".join([text, *map(str, found)])


@pytest.mark.parametrize("at", [0, 7, 12])
@pytest.mark.parametrize("what", FOUND)
def test_found(what: str, at: int) -> None:
    live(FOUND[what], at)


def clean(text: str) -> bool:
    return not any(d.severity == "error" for d in check_source(Source.of(text)))


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in range(1, 6))]


@pytest.mark.parametrize("seed", SEEDS)
def test_changed_programs(seed: int) -> None:
    pool = programs()
    for at, text in enumerate(some(90 if seed == 0 else 6)):
        text = text if seed == 0 else mutated(text, seed, pool)
        if clean(text):
            live(text, at + seed)
