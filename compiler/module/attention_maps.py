"""An attention's maps when it runs: (matrix, offset) of every head, for each of q, k, v and o.

``normal/head_maps.py`` has found for all sizes that each projection's change is such a map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from padp.compiler.kernels.torch_state import passing
from padp.compiler.module.site import HeadMap

if TYPE_CHECKING:
    from padp.compiler.module.module import AdapterModule


def head_maps(module: AdapterModule, given: Mapping[str, Tensor] | None = None) -> dict[str, HeadMap]:
    """The maps of every head, by role; kept in eval without gradients."""
    moving = None if given is None else module.minds(None, given)
    plan = moving or module.compiled
    if moving is not None or torch.is_grad_enabled() or module.training or passing():
        module.drop_cache()
        stage = plan.train
        arguments = module.arguments(stage, None, weight=given, moving=moving)
        made = stage.graph(module.like, None, module.training, *arguments)
        values = list(made) if isinstance(made, (tuple, list)) else [made]
    else:
        values = list(module.steps(None, given))
    found: dict[str, HeadMap] = {}
    for role, has_offset in plan.roles:
        matrix = values.pop(0)
        found[role] = HeadMap(matrix, values.pop(0) if has_offset else None)
    return found
