"""Which tokens of a call are the prompt's, and which of them a hidden site edits, example by example.

    positions "all"        every token of the prompt
              "f3" "l3"    its first 3, its last 3 ("first 3", "last 3")
              "f7+l7"      both; where they would overlap each side is cut to ⌊length/2⌋
    prompt    the ones of the 2-D attention mask (left or right padding); without a mask, the whole sequence;
              nothing when keys and values of earlier tokens are cached: then these tokens are generated
"""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from padp.dsl.diagnostics import refuse
from padp.models.walk import inside

_PART = re.compile(r"(f|l|first|last)\s*(\d+)")


@dataclass(frozen=True, slots=True)
class Positions:
    """How many tokens at the start and at the end of each prompt; ``everything`` for all of them."""

    first: int = 0
    last: int = 0
    everything: bool = False


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


@dataclass(frozen=True, slots=True)
class Edited:
    """Where a hidden state is edited. ``index`` (B, K): the tokens to take out; ``slot`` (B, T): which of the K belongs
    to a token; ``mask`` (B, T): whether it is edited at all. Shapes do not depend on the lengths."""

    index: Tensor
    slot: Tensor
    mask: Tensor


def edited(positions: Positions, prompt: Tensor) -> Edited:
    """The places of the first f and last l tokens of each prompt; ``prompt`` is (B, T), true for its tokens."""
    seen = prompt.long().cumsum(1)
    rank, length = seen - 1, seen[:, -1:]
    first, last = length.clamp(max=positions.first), length.clamp(max=positions.last)
    half, over = length // 2, first + last > length
    first = torch.where(over, torch.minimum(first, half), first)
    last = torch.where(over, torch.minimum(last, half), last)
    front, back = prompt & (rank < first), prompt & (rank >= length - last)
    slot = torch.where(front, rank, torch.where(back, positions.first + rank - (length - last), 0))
    heads = torch.arange(positions.first, device=prompt.device).expand(len(prompt), -1)
    tails = torch.arange(positions.last, device=prompt.device) + (length - last)
    # the token of rank k is the first at which k + 1 have been seen; ranks that no token has point anywhere, unused
    index = torch.searchsorted(seen, torch.cat([heads, tails], 1) + 1).clamp(max=prompt.shape[1] - 1)
    return Edited(index, slot, front | back)


# ---------------------------------------------------------------- reading calls


@dataclass(frozen=True, eq=False, slots=True)
class Prompt:
    """What a call of the model says about its tokens."""

    mask: Tensor | None = None
    unreadable: bool = False
    cached: bool = False


_CACHES = ("past_key_values", "cache")  # what transformers calls the keys and values of earlier tokens, by version
_RECALLED = 4096  # blocks whose prompt is remembered for recomputation: far more than are in flight


class PromptReader:
    """Reads the prompt when the model is called, for the hidden sites in it.

    Its methods are hooks of the model and of the modules between it and the blocks: the innermost one that is given a
    mask counts (a decoder has its own). As bound methods they follow a deepcopy to the copy.
    """

    def __init__(self) -> None:
        self.stack: list[Prompt] = []
        self.recalled: OrderedDict[int, Prompt] = OrderedDict()

    def watch(self, modules: Iterable[nn.Module]) -> None:
        """Read the calls of these modules; once each."""
        for module in modules:
            hooks = inside(module, "_forward_pre_hooks").values()
            if not any(getattr(hook, "__self__", None) is self for hook in hooks):
                module.register_forward_pre_hook(self.enter, with_kwargs=True)
                module.register_forward_hook(self.leave, always_call=True)

    def forget(self, model: nn.Module) -> None:
        """Remove our hooks everywhere."""
        for module in model.modules():
            remove_hooks(module, self)

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        outer = self.stack[-1] if self.stack else None
        given, mask = _argument(module, "attention_mask", args, kwargs)
        caches = (_argument(module, name, args, kwargs)[1] for name in _CACHES)
        cached = any(_length(cache) > 0 for cache in caches) or (outer is not None and outer.cached)
        if not given:
            self.stack.append(Prompt(cached=cached) if outer is None else outer)
        elif mask is None:
            self.stack.append(Prompt(cached=cached))
        elif isinstance(mask, Tensor) and mask.dim() == 2:
            self.stack.append(Prompt(mask.detach() != 0, cached=cached))
        else:  # 4-D and the like: inside a model it was made from the 2-D one
            self.stack.append(Prompt(unreadable=True, cached=cached) if outer is None else outer)

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if self.stack:
            self.stack.pop()

    def prompt(self, block: nn.Module, given: Tensor | None) -> Prompt:
        """The prompt of the call that a block runs in.

        When activations are checkpointed the block runs again during backward, possibly after other calls: then the
        prompt is the one of its first run, found by the address of the block's input, which a checkpoint keeps alive.
        """
        now = self.stack[-1] if self.stack else None
        if torch.compiler.is_compiling():
            return now or Prompt()
        if now is None and torch._C._current_graph_task_id() != -1:  # pyright: ignore[reportPrivateUsage]
            found = None if given is None else self.recalled.get(given.data_ptr())  # in a backward pass, and no call
            if found is None:
                raise refuse("E511", "a block is recomputed in the backward pass, and its prompt is not known any more",
                             suggestion="checkpoint with the block's input as a tensor argument, kept on its device")
            return found
        prompt = now or Prompt()
        if block.training and given is not None:
            self.recalled[given.data_ptr()] = prompt
            self.recalled.move_to_end(given.data_ptr())
            if len(self.recalled) > _RECALLED:
                self.recalled.popitem(last=False)
        return prompt

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a copy or a pickle is of no call

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]


def remove_hooks(module: nn.Module, owner: object) -> None:
    """Take off the forward hooks of a module that are methods of ``owner``."""
    for table in ("_forward_pre_hooks", "_forward_hooks"):
        hooks = inside(module, table)
        for key in [key for key, hook in hooks.items() if getattr(hook, "__self__", None) is owner]:
            del hooks[key]
            for flags in (f"{table}_with_kwargs", "_forward_hooks_always_called"):
                inside(module, flags).pop(key, None)


@lru_cache(maxsize=1024)
def _place_of(forward: Callable[..., Any], name: str) -> int | None:
    """Where an argument stands among the positional ones of a method, ``self`` not counted."""
    try:
        names = list(inspect.signature(forward).parameters)
    except (TypeError, ValueError):
        return None
    return names.index(name) - 1 if name in names else None


def _argument(module: nn.Module, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[bool, Any]:
    """Whether a call gives an argument, and its value."""
    if name in kwargs:
        return True, kwargs[name]
    place = _place_of(type(module).forward, name) if args else None
    return (True, args[place]) if place is not None and place < len(args) else (False, None)


def _length(cache: Any) -> int:
    """How many tokens a cache of keys and values holds."""
    if cache is None:
        return 0
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length())
    if isinstance(cache, (tuple, list)) and cache and isinstance(cache[0], (tuple, list)):
        return int(cache[0][0].shape[-2])
    return 0
