"""What a linear layer is to an adapter: nn.Linear, or the ``Conv1D`` of transformers, and its W and bias.

    why_not_linear(module)     None, or the reason that a linear site cannot take it
    weight_of(base)            W ∈ ℝ^{m×n}, outputs × inputs, however it is stored
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from padp.compiler.module.weights import is_lazy, is_sharded, stored_as


def stored_transposed(module: nn.Module) -> bool:
    """Whether a linear layer keeps its weight as n×m: ``Conv1D`` of transformers, recognised without importing it."""
    return any(c.__name__ == "Conv1D" and c.__module__ == "transformers.pytorch_utils" for c in type(module).__mro__)


def why_not_linear(module: nn.Module) -> str | None:
    """None when a linear site can take this module, else the reason."""
    if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return "nn.MultiheadAttention, its owner, reads the weight and never calls it: an adapter would do nothing"
    kind = stored_as(module) if isinstance(module, nn.Linear) or not stored_transposed(module) else None
    if not (isinstance(module, nn.Linear) or stored_transposed(module)):
        return f"its weight is {kind}" if kind is not None else \
            f"it is {type(module).__name__}, and a linear site takes nn.Linear or transformers' Conv1D"
    if is_lazy(module):
        return f"it is a {type(module).__name__} whose weight does not exist yet: run the model once before"
    weight = module.weight
    if is_sharded(module):
        return "its weight is sharded over several processes (DTensor)"
    if kind is not None and (not cast(Tensor, weight).is_floating_point() or cast(Tensor, weight).dtype.itemsize == 1):
        return f"its weight is {kind}"
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.dim() != 2:
        return f"its weight is not a matrix of floating-point numbers ({type(module).__name__})"
    if isinstance(module, nn.Linear) and tuple(weight.shape) != (module.out_features, module.in_features):
        return f"its weight has shape {tuple(weight.shape)}, not {module.out_features}×{module.in_features}"
    return None


def weight_of(base: nn.Module) -> Tensor:
    """W ∈ ℝ^{m×n} (outputs × inputs) of a linear layer; of a Conv1D a transposed view."""
    if type(base) is nn.Linear:
        return base.weight
    weight = cast(Tensor, base.weight)
    return weight.T if stored_transposed(base) else weight


def bias_of(base: nn.Module) -> Tensor | None:
    """The bias ∈ ℝ^m of a linear layer, None when it has none."""
    return cast("Tensor | None", base.bias)
