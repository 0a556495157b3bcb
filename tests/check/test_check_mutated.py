"""Programs of the project with some words changed: whatever comes out of ``padp.check`` is findings that can be drawn.

The same programs in every run. More of them with ``--thorough``.
"""

from __future__ import annotations

import pytest

from tests.check.test_check_fuzz import check
from tests.support.mutations import mutated, programs, some

PARTS = 10
EVERY = 12
"""Of so many programs one a part is changed and checked; ``--thorough`` changes every program."""


@pytest.mark.parametrize("part", [*range(2), *(pytest.param(k, marks=pytest.mark.thorough) for k in range(2, PARTS))])
def test_changed_programs(part: int) -> None:
    pool = programs()
    for text in some(EVERY, part) if part < 2 else pool:
        check(mutated(text, part, pool))


def test_a_change_is_the_same_in_every_run() -> None:
    text = "adapter T on linear(W ∈ ℝ^{m×n})\nv ∈ ℝ^n: learned\ny ← W @ (v ⊙ x)\n"
    assert mutated(text, 3) == mutated(text, 3)
    assert len({mutated(text, seed) for seed in range(40)}) > 20
