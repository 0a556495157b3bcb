"""padp compiles the mathematical pseudocode of adapter papers to PyTorch.

    import padp

    oft = padp.compile("oft")              # a path, a name of the library, or program text
    layer = oft(linear, k=32)              # nn.Linear -> nn.Module
    padp.attach(model, oft, k=32)          # every linear layer of a model, in place

Names are loaded when they are first used: checking and counting never import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from padp.version import VERSION

if TYPE_CHECKING:
    from padp.checking import check as check
    from padp.compiler.adapter import Adapter as Adapter
    from padp.compiler.adapter import compile as compile
    from padp.dsl.diagnostics import Diagnostic as Diagnostic
    from padp.dsl.diagnostics import PadpError as PadpError
    from padp.models import activate as activate
    from padp.models import attach as attach
    from padp.models import decoding as decoding
    from padp.models import detach as detach
    from padp.models import disabled as disabled
    from padp.models import load as load
    from padp.models import merge as merge
    from padp.models import penalty as penalty
    from padp.models import prompt as prompt
    from padp.models import refresh as refresh
    from padp.models import restart as restart
    from padp.models import save as save
    from padp.models import set as set
    from padp.models import summary as summary
    from padp.models import targets as targets
    from padp.models import trainable as trainable
    from padp.models import unmerge as unmerge
    from padp.models import update as update

__version__ = VERSION

# Public name -> the module that holds it. No module of padp may be called like one of these: importing it would put
# the module where the name belongs.
_HOME = {
    "check": "padp.checking",
    "Adapter": "padp.compiler.adapter",
    "compile": "padp.compiler.adapter",
    "Diagnostic": "padp.dsl.diagnostics",
    "PadpError": "padp.dsl.diagnostics",
    "activate": "padp.models",
    "attach": "padp.models",
    "decoding": "padp.models",
    "detach": "padp.models",
    "disabled": "padp.models",
    "load": "padp.models",
    "merge": "padp.models",
    "penalty": "padp.models",
    "prompt": "padp.models",
    "refresh": "padp.models",
    "restart": "padp.models",
    "save": "padp.models",
    "set": "padp.models",
    "summary": "padp.models",
    "targets": "padp.models",
    "trainable": "padp.models",
    "unmerge": "padp.models",
    "update": "padp.models",
}

__all__ = [
    "Adapter",
    "Diagnostic",
    "PadpError",
    "activate",
    "attach",
    "check",
    "compile",
    "decoding",
    "detach",
    "disabled",
    "load",
    "merge",
    "penalty",
    "prompt",
    "refresh",
    "restart",
    "save",
    "set",
    "summary",
    "targets",
    "trainable",
    "unmerge",
    "update",
]


def __getattr__(name: str) -> object:
    """The public name ``name``, imported from its module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'padp' has no attribute {name!r}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, and no way that leads to them."""
    return sorted([*__all__, "__version__"])
