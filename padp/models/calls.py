"""What one call of a model says of its tokens, and which of them it lets a hidden site edit.

    prompt    the ones of the 2-D attention mask (left or right padding); without a mask, the whole sequence
              with labels, in a model that generates: of these the tokens before the first label that is not −100
              with position ids that start anew, or cu_seq_lens: one prompt for each example packed into a row
    nothing   one token behind a cache: it was generated

What was told (``padp.prompt``, ``generate``) goes before what the call says. Where it would have to be guessed, E511.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from padp.compiler.kernels.torch_state import compiling
from padp.dsl.diagnostics import refuse
from padp.models.positions import Edited, Positions, before_answers, edited, marked, starts_of
from padp.models.told import Generation, Told, rows_of

Chosen: TypeAlias = "Edited | Tensor | Literal['all', 'none']"
"""The tokens to edit: all, none, few that are taken out, or those of a mask (B, T)."""

_CACHES = ("past_key_values", "cache", "cache_params")  # the keys and values of earlier tokens, by model and version
_PACKED = ("cu_seq_lens_q", "cu_seq_lens", "cu_seqlens_q", "cu_seqlens")  # where examples of a row begin and end
_OTHERS = ("pixel_values", "pixel_values_videos", "input_features", "input_values")  # not the text's tokens
_TEXT = ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds")
_REMEDY = "labels of -100 at the prompt's tokens, or the call inside: with padp.prompt(model, length=…)"


@dataclass(frozen=True, eq=False, slots=True)
class Kind:
    """What is known of the models around a block: whether they generate, from an encoder's output or not."""

    generates: bool = False
    seq2seq: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """What a call of the model says about its tokens. ``cached``: how many are behind it, −1 for a number that cannot
    be read; ``decoder``: whether it reads an encoder's output; ``learning``: whether it is a training step."""

    kind: Kind = Kind()
    mask: Tensor | None = None
    unreadable: bool = False
    cached: int = 0
    labels: Tensor | None = None
    position_ids: Tensor | None = None
    bounds: Tensor | None = None
    decoder: bool = False
    learning: bool = False
    again: bool = False  # a model around ours generates and runs the whole text at every step
    told: Told | None = None
    known: dict[object, Any] = field(default_factory=dict)

    def chosen(self, positions: Positions, rows: int, tokens: int, device: torch.device, label: str) -> Chosen:
        """The tokens that a hidden state of (rows, tokens, d) is edited at; the same for all blocks of the call."""
        if compiling():
            return _chosen(self, positions, rows, tokens, device, label)
        key = positions, rows, tokens, device
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = _chosen(self, positions, rows, tokens, device, label)
        return cast(Chosen, found)

    @property
    def says_nothing(self) -> bool:
        """Whether no token is known to be another than the prompt's."""
        return self.mask is None and self.told is None and not self.cached and self.labels is None


# ---------------------------------------------------------------- reading the arguments of a call


def read(kind: Kind, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], outer: Call | None) -> Call:
    """A call inside another one: what it is not given itself it has from there. A mask of its own is of its own
    sequence (a decoder has one). An image or a sound inside a text has nothing from there."""
    call = Call(kind, learning=module.training and torch.is_grad_enabled()) if outer is None else outer
    new: dict[str, Any] = {}
    if outer is not None and _any(_OTHERS, module, args, kwargs) and not _any(_TEXT, module, args, kwargs):
        call, new["learning"] = Call(), outer.learning
    given, mask = argument(module, "attention_mask", args, kwargs)
    if given:
        if mask is None:
            new.update(mask=None, unreadable=False)
        elif isinstance(mask, Tensor) and mask.dim() == 2:
            new.update(mask=mask.detach() != 0, unreadable=False)
        elif outer is None:  # 4-D and the like: inside a model it was made from the 2-D one
            new["unreadable"] = True
    for name in _CACHES:
        cache = argument(module, name, args, kwargs)[1]
        if cache is not None:
            new["cached"] = length_of(cache)
    for name, own in (("labels", "labels"), ("position_ids", "position_ids"), ("encoder_hidden_states", "decoder"),
                      *((bounds, "bounds") for bounds in _PACKED)):
        value = argument(module, name, args, kwargs)[1]
        if isinstance(value, Tensor) and (name != "labels" or value.dim() == 2):
            new[own] = True if own == "decoder" else value.detach()
    if not new and outer is not None:
        return outer
    return replace(call, known={}, **new)


def _any(names: Sequence[str], module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    return any(argument(module, name, args, kwargs)[1] is not None for name in names)


@lru_cache(maxsize=1024)
def _place_of(forward: Callable[..., Any], name: str) -> int | None:
    """Where an argument stands among the positional ones of a method, ``self`` not counted."""
    try:
        names = list(inspect.signature(forward).parameters)
    except (TypeError, ValueError):
        return None
    return names.index(name) - 1 if name in names else None


def argument(module: nn.Module, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[bool, Any]:
    """Whether a call gives an argument, and its value."""
    if name in kwargs:
        return True, kwargs[name]
    place = _place_of(type(module).forward, name) if args else None
    return (True, args[place]) if place is not None and place < len(args) else (False, None)


def length_of(cache: Any) -> int:
    """How many tokens a cache of keys and values holds; −1 where it holds some and does not say how many."""
    if hasattr(cache, "get_seq_length"):
        try:
            return int(cache.get_seq_length())
        except ValueError:  # transformers' answer for states that sum the past up
            held = getattr(cache, "has_previous_state", None)
            return -1 if not callable(held) or held() else 0
    if isinstance(cache, (tuple, list)):
        if not cache or not isinstance(cache[0], (tuple, list)):
            return 0
        return int(cache[0][0].shape[-2])
    return -1


# ---------------------------------------------------------------- which tokens


def _chosen(call: Call, positions: Positions, rows: int, tokens: int, device: torch.device, label: str) -> Chosen:
    mask = None if call.mask is None else call.mask.to(device)
    told = call.told if call.decoder or not call.kind.seq2seq else None
    behind = call.cached
    if behind < 0 and mask is not None and mask.shape[1] > tokens:
        behind = mask.shape[1] - tokens
    if told is not None:
        return _as_told(call, told, behind, mask, positions, rows, tokens, device, label)
    if mask is not None and not behind and mask.shape[1] > tokens:
        behind = mask.shape[1] - tokens  # a cache that nobody showed us
    if behind:
        return _behind_a_cache(behind, rows, tokens, label)
    if call.unreadable:
        raise refuse("E511", "each example's prompt is read from a 2-D attention mask, and the model was called "
                     "with another one", suggestion="pass attention_mask of shape (batch, length), ones at the prompt")
    if call.again and (call.decoder or not call.kind.seq2seq):
        raise refuse("E511", f"{label}: a model around this one generates without a cache, so that each call holds "
                     "generated tokens too", suggestion="use_cache=True, or attach to the model that generates")
    real = _fits(mask, rows, tokens, device, label)
    starts = _starts(call, real, rows, tokens, device, label)
    prompt = _before_the_answer(call, real, starts, positions, label)
    if starts is not None:
        return marked(positions, prompt, starts)
    if positions.everything:
        return "all" if mask is None and prompt is real else prompt
    return edited(positions, prompt)


def _fits(mask: Tensor | None, rows: int, tokens: int, device: torch.device, label: str) -> Tensor:
    """(rows, tokens): the tokens that are no padding."""
    if mask is None:
        return torch.ones(rows, tokens, dtype=torch.bool, device=device)
    if mask.shape != (rows, tokens):
        raise refuse("E511", f"{label}: the attention mask is {tuple(mask.shape)}, the hidden state has "
                     f"{rows} examples of {tokens} tokens", suggestion="one mask entry for each token")
    return mask


def _behind_a_cache(behind: int, rows: int, tokens: int, label: str) -> Chosen:
    """One token was generated; several may be the rest of a prompt."""
    if tokens == 1:
        return "none"
    held = f"of {behind} tokens" if behind > 0 else "of tokens before"
    raise refuse("E511", f"{label}: {tokens} tokens come behind a cache {held}; whether they are the prompt's or "
                 "generated is not said", suggestion="all calls of one text inside: with padp.prompt(model, length=…)")


def _starts(call: Call, real: Tensor, rows: int, tokens: int, device: torch.device, label: str) -> Tensor | None:
    """Where packed examples begin; None where rows cannot be packed."""
    if call.bounds is not None:
        flat = torch.zeros(rows * tokens + 1, dtype=torch.bool, device=device)
        flat[call.bounds.to(device).long().clamp(max=rows * tokens)] = True
        return flat[:-1].view(rows, tokens)
    ids = call.position_ids
    if ids is None or ids.shape[-1] != tokens or (ids.shape[-2] not in (1, rows) if ids.dim() > 1 else False):
        return None
    return starts_of(ids.to(device), real)


def _before_the_answer(call: Call, real: Tensor, starts: Tensor | None, positions: Positions, label: str) -> Tensor:
    """The prompt of a call that may hold an answer too. E511 where positions need the prompt's end and nobody says."""
    kind = call.kind
    if not kind.generates or (kind.seq2seq and not call.decoder):
        return real
    labels = None if call.labels is None else call.labels.to(real.device)
    if labels is None:
        if call.learning and positions.need_the_end:
            raise _no_end(label, "this training step does not say where it is")
        return real
    if labels.shape != real.shape:
        raise refuse("E511", f"{label}: the labels are {tuple(labels.shape)}, the hidden state has {real.shape[0]} "
                     f"examples of {real.shape[1]} tokens, so where the prompt ends cannot be told",
                     suggestion=_REMEDY)
    prompt, untold = before_answers(labels, real, starts, ahead=kind.seq2seq)
    if positions.need_the_end:
        message = "the labels begin at an example's first token"
        if compiling():
            torch._assert_async(~untold.any(), f"{label}: {message}")  # pyright: ignore
        elif bool(untold.any()):
            raise _no_end(label, message)
    return prompt


def _no_end(label: str, why: str) -> Exception:
    return refuse("E511", f"{label}: these positions are edited up to the prompt's end, and {why}", suggestion=_REMEDY)


def _as_told(call: Call, told: Told, behind: int, mask: Tensor | None, positions: Positions, rows: int, tokens: int,
             device: torch.device, label: str) -> Chosen:
    """The tokens ``behind`` … ``behind + tokens`` of a text whose prompt was told."""
    length: Tensor | None = None
    if isinstance(told, Generation):
        behind = call.known.setdefault("behind", told.seen if behind < 0 else behind)
        told.first(behind, tokens, mask)
        if told.is_behind(behind):
            return "none"
        prompt, starts = _generated(told, behind + tokens, positions, rows, device, label), None
    else:
        if behind < 0:
            raise refuse("E511", f"{label}: the call's cache does not say how many tokens it holds, so the place "
                         "of its tokens in the prompt cannot be told",
                         suggestion="pass the attention mask of all tokens so far")
        if mask is not None and mask.shape[1] < behind + tokens:
            raise _other_mask(mask, behind, tokens, label)
        real = torch.ones(rows, behind + tokens, dtype=torch.bool, device=device) if mask is None else mask
        starts = None if behind else _starts(call, real, rows, tokens, device, label)
        if told.mask is not None:
            prompt = rows_of(told.mask.to(device), rows, label)
            if mask is not None:
                both = min(prompt.shape[1], mask.shape[1])
                prompt = torch.cat([prompt[:, :both] & mask[:, :both], prompt[:, both:]], 1)
        else:
            assert told.length is not None
            if starts is not None and not compiling() and bool(starts[:, 1:].any()):
                raise refuse("E511", f"{label}: a length for each row does not say where packed prompts end",
                             suggestion="padp.prompt(model, mask=…) with ones at the prompts' tokens")
            length = told.length.to(device)
            length = length.expand(rows, 1) if len(length) == 1 else rows_of(length, rows, label)
            prompt, starts = real & (real.long().cumsum(1) <= length), None
    missing = behind + tokens - prompt.shape[1]
    if missing > 0:
        prompt = nn.functional.pad(prompt, (0, missing))
    if starts is None and length is None and not positions.everything and prompt.shape[1] == tokens:
        return edited(positions, prompt)
    if starts is not None and prompt.shape[1] > tokens:
        starts = nn.functional.pad(starts, (0, prompt.shape[1] - tokens))
    return marked(positions, prompt, starts, length)[:, behind:behind + tokens]


def _other_mask(mask: Tensor, behind: int, tokens: int, label: str) -> Exception:
    return refuse("E511", f"{label}: the attention mask is {tuple(mask.shape)}, and there are {behind} tokens in the "
                  f"cache and {tokens} in the call", suggestion="one mask entry for each token")


def _generated(told: Generation, so_far: int, positions: Positions, rows: int, device: torch.device,
               label: str) -> Tensor:
    """The prompt of a call in ``generate``: (rows, its columns)."""
    if told.cached and positions.need_the_end:
        raise refuse("E511", f"{label}: generate was given a cache of {told.cached} tokens, which were edited up to "
                     "the end of another prompt",
                     suggestion="leave the cache out, or say the prompt around all: with padp.prompt(model, length=…)")
    assert told.columns is not None
    told.seen = max(told.seen, min(so_far, told.columns))
    if told.mask is not None:
        return rows_of(told.mask.to(device), rows, label)
    if told.padded:
        raise refuse("E511", f"{label}: generate was given no attention mask, and this call shows only a part of "
                     "the one that it made", suggestion="generate(…, attention_mask=…)")
    return torch.ones(rows, told.columns, dtype=torch.bool, device=device)
