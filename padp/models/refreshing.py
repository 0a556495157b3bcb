"""Everything that is kept, computed anew from the tensors of now."""

from __future__ import annotations

from torch import nn

from padp.models.merging import refuse_merged
from padp.models.record import holder
from padp.models.walk import sites


def refresh(model: nn.Module) -> None:
    """Compute anew what adapters keep: what comes from W and from frozen tensors, and what comes from parameters.

    Learned tensors stay as they are, also those that started from W. For writes that leave no trace: single entries of
    W or of a frozen tensor through ``.data``, any such write on a GPU, and any write after ``torch.compile``. Every
    other write is seen at the next call. E511 while merged, or when something cannot be computed.
    """
    root = holder(model)
    refuse_merged(root, "computing anew")
    for site in sites(root):
        for name in site.adapters:
            site.module(name).compute_anew(*site.given())
