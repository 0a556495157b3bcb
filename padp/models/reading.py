"""Reading the prompt when a model is called, for the hidden sites in it.

What belongs to a call does not lie on the model: each thread has the calls that it is in, and a block that backward
runs again has the call that it first ran in.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, cast

import torch
from torch import nn

from padp.compiler.kernels.torch_state import compiling
from padp.compiler.module.first_runs import checkpointed, then
from padp.dsl.diagnostics import refuse
from padp.models.calls import Call, Kind, argument, read
from padp.models.told import Told, generation
from padp.models.walk import inside


@dataclass(frozen=True, eq=False, slots=True)
class Entry:
    """A call of a module that this thread is in. ``frame``: what runs it, so that a call which an interrupt ended is
    known for that; ``task``: the backward pass that it belongs to, −1 for none."""

    module: nn.Module
    call: Call
    frame: FrameType | None
    task: int


class _Here(threading.local):
    """The calls that a thread is in, the innermost last, and what was told of prompts in it."""

    def __init__(self) -> None:
        self.stack: list[Entry] = []
        self.told: list[Told] = []


class PromptReader:
    """Reads calls of the model, of the modules between it and the blocks, and of the blocks.

    Its methods are hooks of these modules. As bound methods they follow a deepcopy to the copy.
    """

    def __init__(self, kind: Kind | None = None) -> None:
        self.kind = Kind() if kind is None else kind
        self.here = _Here()

    def watch(self, modules: Iterable[nn.Module]) -> None:
        """Read the calls of these modules, the outermost first; once each."""
        for module in modules:
            generates, seq2seq = _kind_of(module)
            self.kind = Kind(self.kind.generates or generates, self.kind.seq2seq or (generates and seq2seq))
            hooks = inside(module, "_forward_pre_hooks").values()
            if not any(getattr(hook, "__self__", None) is self for hook in hooks):
                module.register_forward_pre_hook(self.enter, with_kwargs=True)
                module.register_forward_hook(self.leave, always_call=True)
                if callable(getattr(type(module), "generate", None)):
                    module.__dict__["generate"] = Generating(module, self, module.__dict__.get("generate"))

    def forget(self, model: nn.Module) -> None:
        """Remove our hooks everywhere."""
        for module in model.modules():
            remove_hooks(module, self)
            ours = module.__dict__.get("generate")
            if isinstance(ours, Generating) and ours.reader is self:
                del module.__dict__["generate"]
                if ours.before is not None:
                    module.__dict__["generate"] = ours.before

    # ------------------------------------------------------------ hooks

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if compiling():
            outer = self.here.stack[-1].call if self.here.stack else None
            self.here.stack.append(Entry(module, self._read(module, args, kwargs, outer), None, -1))
            return
        frame, task = _caller(), _task()
        entry = self._innermost(frame, task)
        call = self._read(module, args, kwargs, None if entry is None else entry.call)
        if entry is None and not call.kind.generates and _generated_around(frame):
            call = replace(call, known={}, again=argument(module, "use_cache", args, kwargs)[1] is False)
        if checkpointed():  # run again, it is what it was: what was around it is not there now
            call = then((id(self), id(module)), call) or call
        self.here.stack.append(Entry(module, call, frame, task))

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        stack = self.here.stack
        for k in range(len(stack) - 1, -1, -1):
            if stack[k].module is module:
                del stack[k:]
                return

    def _read(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], outer: Call | None) -> Call:
        call = read(self.kind, module, args, kwargs, outer)
        told = self.here.told[-1] if self.here.told else None
        return replace(call, known={}, told=told) if outer is None and told is not None else call

    def call_of(self, block: nn.Module) -> Call:
        """The call that a block runs in.

        When activations are checkpointed the block runs again during backward, possibly after other calls and in
        another thread: then it is the one of its first run. E511 when it cannot be told.
        """
        if compiling():
            return self.here.stack[-1].call if self.here.stack else Call(self.kind)
        task = _task()
        entry = self._innermost(_caller(), task)
        call = entry.call if entry is not None else self._read(block, (), {}, None) if task == -1 else None
        if checkpointed():
            call = then((id(self), id(block)), call) or call
        if call is None:
            raise refuse("E511", "a block is recomputed in the backward pass, and its prompt is not known any more",
                         suggestion="checkpoint by torch.utils.checkpoint, or run the whole model again")
        return call

    def _innermost(self, frame: FrameType | None, task: int) -> Entry | None:
        """The innermost call that is still running and belongs to this backward pass, or to none as we do."""
        stack = self.here.stack
        while stack and not _runs(stack[-1].frame, frame):
            stack.pop()
        return stack[-1] if stack and stack[-1].task == task else None

    # ------------------------------------------------------------ copies

    def __getstate__(self) -> dict[str, Any]:
        return {"kind": (self.kind.generates, self.kind.seq2seq)}  # a copy or a pickle is of no call

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(Kind(*state.get("kind", ())))  # type: ignore[misc]


def remove_hooks(module: nn.Module, owner: object) -> None:
    """Take off the forward hooks of a module that are methods of ``owner``."""
    for table in ("_forward_pre_hooks", "_forward_hooks"):
        hooks = inside(module, table)
        for key in [key for key, hook in hooks.items() if getattr(hook, "__self__", None) is owner]:
            del hooks[key]
            for flags in (f"{table}_with_kwargs", "_forward_hooks_always_called"):
                inside(module, flags).pop(key, None)


def _kind_of(module: nn.Module) -> tuple[bool, bool]:
    """Whether a module generates, and whether from an encoder's output."""
    ask = getattr(module, "can_generate", None)
    generates = bool(ask()) if callable(ask) else callable(getattr(type(module), "generate", None))
    return generates, bool(getattr(getattr(module, "config", None), "is_encoder_decoder", False))


def _task() -> int:
    """The backward pass that runs in this thread; −1 for none."""
    return torch._C._current_graph_task_id()  # pyright: ignore[reportPrivateUsage]


def _caller() -> FrameType | None:
    """What called the function that asks this."""
    here = inspect.currentframe()
    return None if here is None or here.f_back is None else here.f_back.f_back


def _runs(frame: FrameType | None, now: FrameType | None) -> bool:
    """Whether a frame is one of those that run now."""
    while now is not None:
        if now is frame:
            return True
        now = now.f_back
    return frame is None


def _generated_around(frame: FrameType | None) -> bool:
    """Whether transformers' ``generate`` runs us, for a model around the one that was given to ``attach``."""
    while frame is not None:
        if frame.f_code.co_name == "generate" and frame.f_globals.get("__name__") == "transformers.generation.utils":
            return True
        frame = frame.f_back
    return False


# ---------------------------------------------------------------- generate


class Generating:
    """``model.generate``, with its prompt known while it runs."""

    def __init__(self, model: nn.Module, reader: PromptReader, before: Any = None) -> None:
        self.model, self.reader, self.before = model, reader, before

    @property
    def __wrapped__(self) -> Any:
        """What is called: the model's own."""
        return self.before if self.before is not None else cast(Any, type(self.model)).generate.__get__(self.model)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.reader.here.told:  # by hand, or by the generation that asks this one for a draft
            return self.__wrapped__(*args, **kwargs)
        told = generation(self.model, self.reader.kind.seq2seq, args, kwargs)
        with telling(self.reader, told), ExitStack() as drafts:
            assistant = getattr(kwargs.get("assistant_model"), "generate", None)
            if isinstance(assistant, Generating) and kwargs.get("assistant_tokenizer") is None:
                drafts.enter_context(telling(assistant.reader, told.again()))
            return self.__wrapped__(*args, **kwargs)


@contextmanager
def telling(reader: PromptReader, told: Told) -> Generator[None, None, None]:
    """Within this context, and in this thread, calls of the model are of prompts of which this is known."""
    here = reader.here.told
    here.append(told)
    try:
        yield
    finally:
        here.remove(told)
