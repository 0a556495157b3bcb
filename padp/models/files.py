"""The two files of a checkpoint, written so that a reader finds either the old checkpoint or the new one.

    adapter.json          everything but tensors, and the SHA-256 of the tensor file that belongs to it
    adapter.safetensors   the tensors

The tensors are written first, under a name with their digest; replacing ``adapter.json`` (one ``os.replace``) is the
commit; then the tensor file takes its plain name. Whoever reads in between finds the one that has the digest.
"""

from __future__ import annotations

import hashlib
import json
import os as os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from padp.dsl.diagnostics import PadpError, refuse

DESCRIPTION = "adapter.json"
TENSORS = "adapter.safetensors"


def write(directory: Path, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint; the directory is made if need be. E505 when it cannot be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise wrong(directory, f"no directory can be made there ({error.strerror})", "another place") from None
    digest = ""

    def put_tensors(path: Path) -> None:
        nonlocal digest
        save_file(_separate(tensors), path, metadata={"format": "pt"})
        digest = digest_of(path)

    staged = _place_file(directory, put_tensors, lambda: f"{TENSORS}.{digest}")
    text = json.dumps({**description, "tensors": {"sha256": digest}}, ensure_ascii=False, indent=1)
    _place_file(directory, lambda path: path.write_text(text + "\n", encoding="utf-8"), lambda: DESCRIPTION)
    with suppress(FileNotFoundError):  # another process that saves the same tensors was here first
        os.replace(staged, directory / TENSORS)
    for left in directory.glob(f"{TENSORS}.*"):  # of writers that were stopped
        left.unlink(missing_ok=True)


def _place_file(directory: Path, put: Callable[[Path], object], name: Callable[[], str]) -> Path:
    """Write a file under a passing name, flush it to the disk, and give it its name in one step."""
    handle, passing = tempfile.mkstemp(dir=directory, prefix=".padp-")
    os.close(handle)
    path = Path(passing)
    try:
        put(path)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        path.chmod(0o644)
        final = directory / name()
        os.replace(path, final)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return final


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous, none sharing memory with another (the format has no aliases)."""
    seen: set[int] = set()
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        if own.untyped_storage().data_ptr() in seen:
            own = own.clone()
        seen.add(own.untyped_storage().data_ptr())
        found[key] = own
    return found


def digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


# ---------------------------------------------------------------- reading


def wrong(directory: Path, cause: str, remedy: str) -> PadpError:
    """E505: what is wrong with a checkpoint and what to do."""
    return refuse("E505", f"{directory}: {cause}", suggestion=remedy)


def read(directory: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the tensors of a checkpoint; E505 when files lack, are truncated or do not fit each other."""
    path = directory / DESCRIPTION
    if not path.is_file():
        if (directory / "adapter_config.json").is_file():
            raise wrong(directory, "this is a checkpoint of PEFT, not of padp", "load it with PEFT")
        raise wrong(directory, f"there is no {DESCRIPTION}", "give the directory that padp.save was given")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise wrong(directory, f"{DESCRIPTION} is truncated or is no JSON ({error})", "copy or save it anew") from None
    if not isinstance(description, dict) or description.get("format") != "padp":
        raise wrong(directory, f"{DESCRIPTION} was not written by padp", "give the directory that padp.save was given")
    about = description.get("tensors")
    digest = about.get("sha256") if isinstance(about, dict) else None
    for candidate in (directory / TENSORS, directory / f"{TENSORS}.{digest}"):
        if candidate.is_file() and digest_of(candidate) == digest:
            try:
                return description, load_file(candidate)
            except (SafetensorError, OSError, ValueError) as error:
                raise wrong(directory, f"{TENSORS} cannot be read ({error})", "save it anew") from None
    found = (directory / TENSORS).is_file()
    raise wrong(directory, f"{TENSORS} is truncated, was changed, or belongs to another {DESCRIPTION}" if found else
                f"there is no {TENSORS}", "copy both files again from where they were saved")


def dtype_name(dtype: torch.dtype) -> str:
    """float32, bfloat16 …"""
    return str(dtype).removeprefix("torch.")
