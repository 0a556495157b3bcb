"""What the weight of a linear layer is: numbers as they stand, or something that only the layer can read.

    stored_as(layer)       "int8 by torchao", "nf4 by bitsandbytes", "FP8 …, with a scale apart"; None for numbers
    why_unreadable(layer)  why W cannot be read beside the layer's own call; None where it can
    why_no_product(layer)  why the layer's forward is not W x + b, found by trying; None where it is
"""

from __future__ import annotations

import copy
import types
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

_OTHERS = ("torch.ao.nn", "auto_gptq", "gptqmodel", "awq", "hqq", "aqlm", "optimum.quanto", "compressed_tensors",
           "transformers.integrations", "bitsandbytes")
"""Packages with quantised layers that are no nn.Linear."""


def is_lazy(module: nn.Module) -> bool:
    """Whether a layer's weight does not exist yet: it is made in the first call."""
    return any(isinstance(p, UninitializedParameter) for p in module._parameters.values())  # pyright: ignore


def is_sharded(module: nn.Module) -> bool:
    """Whether the weight is a DTensor: every process holds a part."""
    return any(c.__name__ == "DTensor" for c in type(getattr(module, "weight", None)).__mro__)


def stored_as(module: nn.Module) -> str | None:
    """How a layer's weight is quantised; None when it holds its numbers as they are."""
    weight: Any = getattr(module, "weight", None)
    home, kind = type(module).__module__, type(module).__name__
    if isinstance(weight, Tensor):
        made = f"{type(weight).__module__}.{type(weight).__name__}"
        if "bitsandbytes" in made or "bitsandbytes" in home:
            return f"{getattr(weight, 'quant_type', None) or 'int8'} by bitsandbytes"
        if made.startswith("torchao."):
            return f"{_bits(weight)} by torchao"
        if weight.dtype.itemsize == 1 and weight.dtype.is_floating_point:
            return f"FP8 ({str(weight.dtype).removeprefix('torch.')}), with a scale apart"
        if not weight.is_floating_point() and not weight.is_complex():
            return f"quantised, as {str(weight.dtype).removeprefix('torch.')} ({kind})"
        return None
    return f"quantised ({kind} of {home.partition('.')[0]})" if home.startswith(_OTHERS) and "Linear" in kind else None


def _bits(weight: Tensor) -> str:
    """The numbers inside a tensor of torchao: those of its tensors that are the narrowest."""
    names = getattr(weight, "tensor_data_names", None) or [k for k, v in vars(weight).items() if isinstance(v, Tensor)]
    dtypes = [getattr(weight, name).dtype for name in names if isinstance(getattr(weight, name, None), Tensor)]
    if not dtypes:
        return type(weight).__name__
    return str(min(dtypes, key=lambda dtype: dtype.itemsize)).removeprefix("torch.")


def is_offloaded(module: nn.Module) -> bool:
    """Whether accelerate brings the weight for each call and takes it away after."""
    hooks = [getattr(module, "_hf_hook", None)]
    while hooks:
        hook = hooks.pop()
        hooks += getattr(hook, "hooks", ())
        if getattr(hook, "offload", False):
            return True
    return False


def find_offloaded(module: nn.Module, path: str, inner: str) -> None:
    """Let accelerate find what it took away after an adapter was attached: it looks for ``path.inner.weight``, which
    the state dict that it keeps calls ``path.weight``."""
    for part in module.modules():
        hooks = [part.__dict__.get("_hf_hook")]
        while hooks:
            hook = hooks.pop()
            hooks += getattr(hook, "hooks", ())
            weights: Any = getattr(hook, "weights_map", None)
            prefix, known = getattr(weights, "prefix", None), getattr(weights, "dataset", None)
            within = f"{path}.{inner}."
            if isinstance(prefix, str) and within in prefix and known is not None \
                    and not any(key.startswith(prefix) for key in known):
                weights.prefix = prefix.replace(within, f"{path}.", 1)


def works_on(module: nn.Module) -> torch.device | None:
    """The device where an offloaded layer computes."""
    hook = getattr(module, "_hf_hook", None)
    for one in (hook, *getattr(hook, "hooks", ())):
        device = getattr(one, "execution_device", None)
        if device is not None:
            return torch.device(device)
    return None


def is_computed(module: nn.Module) -> bool:
    """Whether a hook computes the weight before each call (the older weight_norm and spectral_norm, pruning)."""
    return isinstance(module.__dict__.get("weight"), Tensor)


def why_unreadable(module: nn.Module) -> str | None:
    """Why W cannot be read beside the layer's own call; None where it can."""
    kind = stored_as(module)
    if kind is not None:
        return f"its weight is {kind}"
    if is_offloaded(module):
        return "its weight is offloaded and there only while the layer is called"
    if is_computed(module):
        return "its weight is computed anew before each call, by a hook (weight_norm, spectral_norm, pruning)"
    return None


# ---------------------------------------------------------------- trying


def why_no_product(module: nn.Module, *, called: bool = False,
                   new: tuple[nn.Parameter, nn.Parameter | None] | None = None) -> str | None:
    """Why a linear layer's own forward is not W x + b; None when it is, or when there are no values to try it with.
    ``new``: a weight as it is stored, and a bias, to try it with instead.

    Only a forward that is not torch's (or, with ``called``, the whole call with its hooks) is tried, on three vectors
    and on a copy of everything but the parameters.
    """
    weight = cast(Tensor, module.weight)
    forward = type(module).forward
    home = "torch.nn.modules.linear" if isinstance(module, nn.Linear) else "transformers.pytorch_utils"
    known = forward.__module__ == home and (home != "torch.nn.modules.linear" or forward is nn.Linear.forward)
    if weight.is_meta or is_offloaded(module) or (known and not called and "forward" not in module.__dict__):
        return None
    rng = torch.get_rng_state()
    try:
        with torch.no_grad():
            return _tried(_apart(module, new), called)
    except Exception as error:
        n = weight.shape[1] if isinstance(module, nn.Linear) else weight.shape[0]
        return f"its own forward ({type(module).__name__}) fails on vectors of {n} numbers: {error}"
    finally:
        torch.set_rng_state(rng)


def _apart(module: nn.Module, new: tuple[nn.Parameter, nn.Parameter | None] | None) -> nn.Module:
    """A copy that shares the parameters and nothing else, in evaluation."""
    memo = {id(p): p for p in module.parameters()}
    if new is not None:
        memo.update({id(old): p for old, p in zip((module.weight, module.bias), new, strict=True)
                     if old is not None and p is not None})  # pyright: ignore[reportUnnecessaryComparison]
    twin = copy.deepcopy(module, memo)
    if new is not None and module.bias is None:  # pyright: ignore[reportUnnecessaryComparison]
        twin.bias = new[1]  # pyright: ignore[reportArgumentType]
    for part in twin.modules():
        part.__dict__["training"] = False
    forward = module.__dict__.get("forward")
    if isinstance(forward, types.MethodType) and forward.__self__ is module:
        twin.__dict__["forward"] = types.MethodType(forward.__func__, twin)
    return twin


def _tried(module: nn.Module, called: bool) -> str | None:
    weight, bias = cast(Tensor, module.weight), cast("Tensor | None", module.bias)
    W = weight if isinstance(module, nn.Linear) else weight.T
    v = torch.randn(3, W.shape[1], generator=torch.Generator().manual_seed(0)).to(W.device, W.dtype)
    wanted = nn.functional.linear(v, W, bias)
    found = module(v) if called else module.forward(v)
    name = type(module).__name__
    if not isinstance(found, Tensor) or found.shape != wanted.shape:
        what = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        return f"its own forward ({name}) gives {what} for three vectors, where W x + b has {tuple(wanted.shape)}"
    size = v.abs().double() @ W.abs().double().T + (0 if bias is None else bias.abs().double())
    off = (found.double() - wanted.double()).abs()
    if bool((off <= 64 * torch.finfo(W.dtype).eps * size + 1e-30).all()):
        return None
    return f"its own forward ({name}) is not W x + b: it differs by {float(off.max()):.3g}"
