"""torch's own transformer layers have a fused inference path that reads weights and calls no layer: adapters would be
skipped without a word. A hook on the layer turns that path off (torch asks whether there are hooks); the encoder's
nested tensors, which only the fused path can take, are turned off beside it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from padp.compiler.module.site import Site, StandIn
from padp.models.walk import inside


def _no_fused_path(module: nn.Module, args: object) -> None:
    """A hook that does nothing; that it is there is what counts."""


def _holds_ours(module: nn.Module) -> bool:
    return any(isinstance(part, (Site, StandIn)) for part in module.modules())


def turn_off(model: nn.Module) -> tuple[str, ...]:
    """Turn the fused path off where a layer holds a site; the paths of encoders whose nested tensors went off too."""
    nested: list[str] = []
    for path, module in model.named_modules():
        if isinstance(module, nn.TransformerEncoderLayer) and _holds_ours(module):
            if _no_fused_path not in inside(module, "_forward_pre_hooks").values():
                module.register_forward_pre_hook(_no_fused_path)
        elif isinstance(module, nn.TransformerEncoder) and module.use_nested_tensor and _holds_ours(module):
            module.use_nested_tensor = False
            nested.append(path)
    return tuple(nested)


def turn_on(model: nn.Module, nested: Iterable[str]) -> None:
    """Undo ``turn_off``."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            hooks = inside(module, "_forward_pre_hooks")
            for key in [key for key, hook in hooks.items() if hook is _no_fused_path]:
                del hooks[key]
    for path in nested:
        encoder = model.get_submodule(path)
        assert isinstance(encoder, nn.TransformerEncoder)
        encoder.use_nested_tensor = True
