"""What a call cannot say of itself: where the prompt ends that its tokens belong to.

    with padp.prompt(model, length=…)     said by hand, for all calls of one text
    model.generate(…)                     said by its arguments: what comes after them is generated

Both hold for the calls that this thread makes. Beams are rows beside each other with one prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from padp.dsl.diagnostics import refuse


@dataclass(frozen=True, eq=False, slots=True)
class Given:
    """Said by hand: the prompt's length in each row (B,), padding not counted, or its tokens (B, L)."""

    length: Tensor | None = None
    mask: Tensor | None = None


@dataclass(eq=False, slots=True)
class Generation:
    """A run of ``generate``. What its arguments do not say, the first call of the model in it says.

    ``columns``: how long its inputs are; ``mask``: (B, columns), which of them are tokens; ``padded``: whether there
    may be padding among them that only the first call's mask shows.
    """

    columns: int | None = None
    mask: Tensor | None = None
    padded: bool = False
    seen: int = 0  # tokens of the prompt that calls have run over
    cached: int | None = None  # tokens that were in the cache before the first call; None before it

    def is_behind(self, behind: int) -> bool:
        """Whether what comes after so many tokens was generated."""
        return self.columns is not None and behind >= self.columns

    def again(self) -> Generation:
        """The same prompt, for another model's calls."""
        return Generation(self.columns, self.mask, self.padded)

    def first(self, cached: int, tokens: int, mask: Tensor | None) -> None:
        """Learn from the first call; later ones say nothing new."""
        if self.cached is not None:
            return
        total = cached + tokens
        if self.columns is None or (cached and total > self.columns):
            self.columns, self.mask = total, None
        if self.mask is None and mask is not None and mask.shape[1] >= self.columns:
            self.mask = mask[:, :self.columns]
        self.cached = cached


Told: TypeAlias = Given | Generation


def given(length: object, mask: object) -> Given:
    """The arguments of ``padp.prompt``; E511 for what they cannot be."""
    if (length is None) == (mask is None):
        raise refuse("E511", "a prompt is said by its length or by a mask, and by one of them",
                     suggestion="padp.prompt(model, length=12), or mask=… with ones at the prompt's tokens")
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.dim() != 2 or mask.is_complex():
            raise refuse("E511", f"mask is {_shown(mask)}, and a prompt's mask is a tensor (batch, length), not 0 at "
                         "the prompt's tokens")
        return Given(mask=mask.detach() != 0)
    try:
        made = torch.as_tensor(length).detach()
    except (TypeError, ValueError, RuntimeError):
        made = torch.empty(0, 0)
    if made.dim() > 1 or made.numel() == 0 or made.dtype == torch.bool or made.is_floating_point() \
            or made.is_complex() or bool((made < 0).any()):
        raise refuse("E511", f"length is {_shown(length)}, and a prompt's length is a whole number, or one for each "
                     "example")
    return Given(length=made.reshape(-1, 1).clone())


def _shown(value: object) -> str:
    return f"a tensor {tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else repr(value)


def rows_of(t: Tensor, rows: int, label: str) -> Tensor:
    """One row for each of a call's; E511 where the numbers do not fit. Several rows to an example stand together."""
    if len(t) != rows and (len(t) == 0 or rows % len(t)):
        raise refuse("E511", f"{label}: the prompt of {len(t)} examples was said, and the call has {rows}",
                     suggestion="padp.prompt with one row for each example")
    return t if len(t) == rows else t.repeat_interleave(rows // len(t), 0)


# ---------------------------------------------------------------- the arguments of generate


def generation(module: Any, seq2seq: bool, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Generation:
    """What the arguments of a model's ``generate`` say. E511 for guidance by a second prompt, which runs between."""
    config = kwargs.get("generation_config") or getattr(module, "generation_config", None)
    guided = _setting("guidance_scale", kwargs, config) not in (None, 1, 1.0)
    if guided or kwargs.get("negative_prompt_ids") is not None:
        raise refuse("E511", "generate with guidance_scale runs a second prompt beside the first, and hidden sites "
                     "cannot tell their tokens apart", suggestion="guidance_scale=1")
    if seq2seq:
        if _setting("prefill_chunk_size", kwargs, config) is not None:
            raise refuse("E511", "generate with prefill_chunk_size does not tell hidden sites where the decoder's "
                         "prompt ends", suggestion="prefill_chunk_size=None")
        return Generation()
    inputs = kwargs.get("inputs_embeds")
    if inputs is None:
        inputs = next((v for v in (kwargs.get("inputs"), kwargs.get("input_ids"), *args[:1]) if v is not None), None)
    if not isinstance(inputs, Tensor) or inputs.dim() not in (2, 3):
        return Generation()
    columns, mask = inputs.shape[1], kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2:
        return Generation(max(columns, mask.shape[1]), mask.detach() != 0)
    pad = _setting("pad_token_id", kwargs, config)
    padded = pad is not None and inputs.dim() == 2 and bool((inputs == pad).any())
    return Generation(columns, padded=padded)


def _setting(name: str, kwargs: Mapping[str, Any], config: Any) -> Any:
    value = kwargs.get(name)
    return getattr(config, name, None) if value is None else value
