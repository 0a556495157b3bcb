"""Tensors that are made to stay (an adapter's, a merged weight) do not depend on what surrounds the call.

    with at_rest():    no inference mode, no autocast; the CPU where no device is said, float32 where no dtype is

Made under ``torch.inference_mode()`` they could never be trained; under autocast a decomposition would be computed in
half precision; under ``torch.device("meta")`` they would have no values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import torch

_DEVICES = ("cpu", "cuda", "xpu", "mps", "hpu", "mtia")


@contextlib.contextmanager
def at_rest() -> Generator[None, None, None]:
    """What surrounds the call, set to what a fresh process has, and set back. Also a decorator."""
    dtype = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for device in _DEVICES:
            if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if dtype is not torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype)
        yield
