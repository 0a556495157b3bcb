"""Tiny random models, running them, and reading what was refused."""

from __future__ import annotations

import inspect
from types import TracebackType
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from padp import PadpError
from padp.models.record import record_of
from padp.models.walk import inside

Batch: TypeAlias = dict[str, Tensor]


def make_llama(**changes: Any) -> Any:
    """A LLaMA of width 32: 3 layers, 4 heads in 2 groups of size 8."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": False, "pad_token_id": 0}
    config = LlamaConfig(**{**settings, **changes})
    return LlamaForCausalLM(config).eval()


def make_opt(**changes: Any) -> Any:
    """An OPT of width 32: 2 layers, 4 heads of size 8, with biases; nothing stands between Q and K."""
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": 64, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 64, "word_embed_proj_dim": 32}
    return OPTForCausalLM(OPTConfig(**{**settings, **changes})).eval()


def run(model: Any, batch: Batch) -> Tensor:
    """The logits of a model, or its last hidden state."""
    with torch.no_grad():
        out = model(**batch)
    return cast(Tensor, out.logits if hasattr(out, "logits") else out.last_hidden_state)


def cache_of(output: Any) -> Any:
    """The keys and values that a model's output holds, as this version of transformers calls them."""
    return output["cache"] if "cache" in output else output["past_key_values"]


def with_cache(model: Any, cache: Any) -> dict[str, Any]:
    """The argument by which a model takes them."""
    names = inspect.signature(type(model).forward).parameters
    return {"cache" if "cache" in names else "past_key_values": cache}


def notebook(shown: Any) -> str:
    """What a notebook shows."""
    return str(shown._repr_html_())


class Refused:
    """``with Refused("E503", "piece of the message"):``; the model given must be as it was."""

    def __init__(self, code: str, *pieces: str, model: nn.Module | None = None) -> None:
        self.code, self.pieces, self.model = code, pieces, model

    def __enter__(self) -> None:
        self.before = _state(self.model)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> bool:
        assert error is not None, "nothing was refused"
        if not isinstance(error, PadpError):
            return False
        found = [d.code for d in error.diagnostics]
        text = "\n".join(f"{d.message} {d.suggestion} {d.notes}" for d in error.diagnostics)
        assert self.code in found, f"{found}: {text}"
        for piece in self.pieces:
            assert piece in text, text
        assert _state(self.model) == self.before
        return True


def _state(model: nn.Module | None) -> object:
    """All that a refused call might have changed: modules, hooks, parameters, what is attached."""
    if model is None:
        return None
    modules = [(name, id(module), tuple(inside(module, "_forward_hooks")), tuple(inside(module, "_forward_pre_hooks")))
               for name, module in model.named_modules()]
    parameters = [(name, id(p), p.requires_grad, _address(p))
                  for name, p in model.named_parameters()]
    return modules, parameters, sorted(record_of(model).attached), record_of(model).active


def _address(p: Tensor) -> int | None:
    """Where a parameter lies; None when it does not exist yet or is several tensors."""
    try:
        return p.data_ptr()
    except (RuntimeError, ValueError):
        return None
