"""Which coordinates meet in a product of permutations and block-diagonal matrices: there the blocks are composed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import padp
from padp.compiler.plan.blocks import WIDEST, Step, meeting
from padp.compiler.plan.steps import order


@given(st.lists(st.one_of(st.permutations(range(12)), st.sampled_from((1, 2, 3, 4))), max_size=5))
def test_what_meets_is_what_the_product_mixes(parts: list[list[int] | int]) -> None:
    product = np.eye(12, dtype=np.int64)
    steps: list[Step] = []
    for part in parts:
        if isinstance(part, int):
            steps.append(("blocks", part, b""))
            product = np.kron(np.eye(12 // part, dtype=np.int64), np.ones((part, part), dtype=np.int64)) @ product
        else:
            index = np.array(part, dtype=np.int64)
            steps.append(("perm", 0, index.tobytes()))
            product = product[index]
    found = meeting(tuple(steps), 12)
    mixes = [{int(j) for j in np.flatnonzero(row)} for row in product]
    classes: list[set[int]] = []
    for row in mixes:  # coordinates that some output mixes belong together
        touched = [c for c in classes if c & row]
        classes = [c for c in classes if not c & row] + [set.union(row, *touched)]
    if found is None:
        assert len({len(c) for c in classes}) > 1
        return
    inside, outside = found
    assert sorted(map(sorted, inside.tolist())) == sorted(map(sorted, classes))
    for inputs, outputs in zip(inside.tolist(), outside.tolist(), strict=True):
        assert all(mixes[i] <= set(inputs) for i in outputs)


def test_blocks_that_get_too_wide_are_not_composed() -> None:
    assert meeting((("blocks", WIDEST, b""),), 2 * WIDEST) is not None
    assert meeting((("blocks", 2 * WIDEST, b""),), 2 * WIDEST) is None


@pytest.mark.parametrize(("k", "F", "size"), [(4, 2, 8), (4, 3, 16), (8, 3, 32)])
def test_a_butterfly_is_one_batch_of_products_on_tokens(k: int, F: int, size: int) -> None:
    adapter = padp.compile("boft")
    chosen = adapter.settings(None, k=k, F=F)
    compiled = adapter.compiled({"m": 1024, "n": 1024}, chosen.variant, chosen.hyper, True)[0]
    products = [low for low in order(*compiled.outputs) if low.prim == "each" and "T" in low.lead]
    assert len(products) == 1 and products[0].args[1].type.item[0] in (size, 32)
