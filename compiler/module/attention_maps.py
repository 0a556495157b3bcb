"""An attention's maps when it runs: what ``AdapterModule.head_maps`` gives for each of q, k, v and o.

``normal/head_maps.py`` has found for all sizes that each projection's change is such a map.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class HeadMap:
    """An affine map for every head: z_h ↦ matrix_h z_h + offset_h.

    ``matrix`` is (H, e, e), ``offset`` (H, e) or None. For q, k, v: applied to what the projection puts out, its bias
    included. For o: applied to what goes into the projection.
    """

    matrix: Tensor
    offset: Tensor | None = None
