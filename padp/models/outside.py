"""Matrices of a model that are no layer of their own: experts in one tensor, projections that one module holds.

No linear adapter can sit on them, so "all-linear" leaves them out. How much of the model they are is said.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]
from torch.nn.parameter import UninitializedParameter

from padp.compiler.module.linear_layer import stored_transposed
from padp.compiler.module.site import Site, StandIn
from padp.models.walk import walk

_LAYERS = (nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.Bilinear, _ConvNd, Site, StandIn)


def outside(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """The parameters of two axes or more that belong to no linear layer, embedding or convolution: path, owner, which.

    What holds one number a channel (axes of size 1) is no matrix, nor is a token or a position that is learned.
    """
    for path, module in walk(model):
        if isinstance(module, _LAYERS) or stored_transposed(module):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, UninitializedParameter) or "token" in name or "embed" in name:
                continue
            if sum(size > 1 for size in parameter.shape) > 1 and parameter.is_floating_point():
                yield f"{path}.{name}" if path else name, module, parameter
