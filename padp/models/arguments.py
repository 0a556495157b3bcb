"""What is given to ``attach`` beside the model: an adapter in any form, and keywords, also those of other libraries."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from padp.compiler.adapter import Adapter
from padp.compiler.adapter import compile as compile_adapter
from padp.dsl.diagnostics import Diagnostic, PadpError
from padp.dsl.spellings import ascii_name, glyph_name

_RANK, _SCALE = ("r", "k"), ("α",)
# Keywords of other libraries: the hyperparameter that is meant, where the adapter has one, or what to write.
_HYPER = {
    "rank": _RANK, "lora_r": _RANK, "lora_rank": _RANK, "lora_dim": _RANK, "dim": _RANK, "network_dim": _RANK,
    "lora_alpha": _SCALE, "network_alpha": _SCALE, "scaling": _SCALE, "block_size": ("k",), "oft_block_size": ("k",),
}
_OWN = {
    "target_modules": "targets=", "target": "targets=", "modules": "targets=", "target_module": "targets=",
    "target_parameters": "targets= names modules", "exclude_modules": "exclude=",
    "layers_to_transform": 'targets=r".*layers\\.(3|7)\\..*", one regex for whole paths',
    "layers_pattern": 'targets=r".*layers\\.(3|7)\\..*", one regex for whole paths',
    "layer_indices": 'targets=r".*layers\\.(3|7)\\..*", one regex for whole paths',
    "lora_dropout": "dropout=", "module_dropout": "dropout=", "adapter_name": "name=", "torch_dtype": "dtype=",
    "modules_to_train": "modules_to_save=", "trainable_modules": "modules_to_save=",
    "rank_pattern": 'r={"q_proj": 16, "*": 8}, a pattern for each value',
    "alpha_pattern": 'alpha={"q_proj": 32, "*": 16}, a pattern for each value',
    "use_dora": 'padp.attach(model, "dora")',
    "init_lora_weights": "the program's own start, or another adapter (pissa)",
    "init_weights": "the program's own start", "task_type": "leave it out: nothing depends on it",
    "inference_mode": "leave it out: padp.activate and model.eval() say it", "bias": "leave it out: biases stay frozen",
}


def adapter_of(adapter: object) -> object:
    """A name of the library, a path or program text compiled, as ``padp.compile`` does; all else as it is."""
    return compile_adapter(adapter) if isinstance(adapter, (str, os.PathLike)) else adapter


def refuse_unknown(adapter: Adapter, hyper: Mapping[str, object]) -> None:
    """E507 for keywords that are no hyperparameter, all of them at once."""
    known = {h.name for variant in adapter.variants or (None,) for h in adapter.method(variant).hyper}
    wrong = [key for key in hyper if key not in known and glyph_name(key) not in known]
    if wrong:
        raise PadpError([Diagnostic("E507", f"{key}= is neither an argument of attach nor a hyperparameter of "
                                    f"{adapter.name}", suggestion=_instead(key, known)) for key in wrong])


def _instead(key: str, known: Iterable[str]) -> str:
    """What to write for a keyword that is not known."""
    known = list(known)
    meant = [name for name in _HYPER.get(key, ()) if name in known]
    if meant:
        return f"{ascii_name(meant[0])}="
    if key in _OWN:
        return _OWN[key]
    return f"its hyperparameters are {', '.join(sorted(map(ascii_name, known))) or 'none'}"
