"""Which tokens of each prompt a hidden site edits.

    positions "all"        every token of the prompt
              "f3" "l3"    its first 3, its last 3 ("first 3", "last 3")
              "f7+l7"      both; where they would overlap each side is cut to ⌊length/2⌋

A prompt is given as (B, T), true at its tokens. Several may lie packed in one row, one after the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from padp.dsl.diagnostics import refuse

_PART = re.compile(r"(f|l|first|last)\s*(\d+)")


@dataclass(frozen=True, slots=True)
class Positions:
    """How many tokens at the start and at the end of each prompt; ``everything`` for all of them."""

    first: int = 0
    last: int = 0
    everything: bool = False

    @property
    def need_the_end(self) -> bool:
        """Whether one must know where a prompt ends, beyond whether it has so many tokens."""
        return self.everything or self.last > 0


def read_positions(text: object) -> Positions:
    """"f7+l7" → Positions(7, 7); E507 for what is not understood."""
    if isinstance(text, str):
        if text.strip() == "all":
            return Positions(everything=True)
        parts = [_PART.fullmatch(part.strip()) for part in text.split("+")]
        read = [(part[1][0], int(part[2])) for part in parts if part is not None]
        count = dict(read)
        if len(read) == len(parts) == len(count) and all(count.values()):
            return Positions(count.get("f", 0), count.get("l", 0))
    raise refuse("E507", f"positions = {text!r} is not understood", suggestion='"all", "f7", "l7" or "f7+l7"')


def _cut(positions: Positions, length: Tensor) -> tuple[Tensor, Tensor]:
    """How many tokens at either side of prompts of these lengths."""
    first, last = length.clamp(max=positions.first), length.clamp(max=positions.last)
    half, over = length // 2, first + last > length
    return torch.where(over, torch.minimum(first, half), first), torch.where(over, torch.minimum(last, half), last)


# ---------------------------------------------------------------- one prompt a row, all of it there


@dataclass(frozen=True, slots=True)
class Edited:
    """Where a hidden state is edited. ``index`` (B, K): the tokens to take out; ``slot`` (B, T): which of the K belongs
    to a token; ``mask`` (B, T): whether it is edited at all. Shapes do not depend on the lengths."""

    index: Tensor
    slot: Tensor
    mask: Tensor


def edited(positions: Positions, prompt: Tensor) -> Edited:
    """The places of the first f and last l tokens of each row's prompt."""
    seen = prompt.long().cumsum(1)
    rank, length = seen - 1, seen[:, -1:]
    first, last = _cut(positions, length)
    front, back = prompt & (rank < first), prompt & (rank >= length - last)
    slot = torch.where(front, rank, torch.where(back, positions.first + rank - (length - last), 0))
    heads = torch.arange(positions.first, device=prompt.device).expand(len(prompt), -1)
    tails = torch.arange(positions.last, device=prompt.device) + (length - last)
    # the token of rank k is the first at which k + 1 have been seen; ranks that no token has point anywhere, unused
    index = torch.searchsorted(seen, torch.cat([heads, tails], 1) + 1).clamp(max=prompt.shape[1] - 1)
    return Edited(index, slot, front | back)


# ---------------------------------------------------------------- packed rows, prompts of which a part is there


def marked(positions: Positions, prompt: Tensor, starts: Tensor | None = None, length: Tensor | None = None) -> Tensor:
    """(B, T), true at the tokens that are edited.

    ``starts`` (B, T): where an example begins that is packed into the row; ``length`` (B, 1): how many tokens the
    prompts have, where more of them are still to come.
    """
    if positions.everything:
        return prompt
    rank, whole = ranks(prompt, starts)
    first, last = _cut(positions, whole if length is None else length)
    return prompt & ((rank < first) | (rank >= (whole if length is None else length) - last))


def ranks(prompt: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
    """For each of a prompt's tokens how many come before it, and how many there are; in its own example."""
    one = prompt.long()
    seen = one.cumsum(1)
    if starts is None:
        return seen - 1, seen[:, -1:]
    before = torch.where(starts, seen - one, 0).cummax(1).values  # tokens of the examples before this one
    ends = torch.cat([starts[:, 1:], torch.ones_like(starts[:, :1])], 1).flip(1)
    left = one.flip(1).cumsum(1)
    after = torch.where(ends, left - one.flip(1), 0).cummax(1).values  # of those behind it
    return seen - 1 - before, seen - before + (left - after).flip(1) - one


def starts_of(position_ids: Tensor, real: Tensor) -> Tensor:
    """(B, T): where positions start anew, padding (not ``real``) left out.

    ``position_ids`` are (B, T) or (1, T); or (K, B, T), several kinds of positions, which are all 0 at a start.
    """
    places = torch.arange(real.shape[1], device=real.device)
    last = torch.where(real, places, -1).cummax(1).values
    last = torch.cat([torch.full_like(last[:, :1], -1), last[:, :-1]], 1)  # the real token before
    if position_ids.dim() > 2:
        return real & (last >= 0) & (position_ids == 0).all(0)
    own = position_ids.expand(real.shape)
    return real & (last >= 0) & (own <= own.gather(1, last.clamp(min=0)))


def before_answers(labels: Tensor, real: Tensor, starts: Tensor | None, ahead: bool) -> tuple[Tensor, Tensor]:
    """The prompts by a call's labels: (B, T) the tokens before the first label that is not −100; and the tokens of
    examples whose labels begin at their first token, which say nothing of a prompt (all of it is taken for one).

    ``ahead``: a label is of the next token, as in a decoder that reads an encoder.
    """
    opening = real & (ranks(real, starts)[0] == 0)
    answer = labels != -100
    if ahead:  # what a decoder begins with is given to it
        answer = torch.cat([torch.zeros_like(answer[:, :1]), answer[:, :-1]], 1) & ~opening
    answer = answer & real
    seen = answer.long().cumsum(1)
    places = torch.arange(real.shape[1], device=real.device)
    where = torch.where(opening, places, 0).cummax(1).values  # each token's first of its example
    untold = real & (answer & opening).gather(1, where)
    begun = seen - (seen - answer.long()).gather(1, where) > 0
    return real & (~begun | untold), untold
