"""The two files of a checkpoint, written so that a reader finds either the old checkpoint or the new one.

    adapter.json          everything but tensors, and the SHA-256 of the tensor file that belongs to it
    adapter.safetensors   the tensors

The tensors are written first, under a name with their digest; replacing ``adapter.json`` (one ``os.replace``) is the
commit; then the tensor file takes its plain name. Whoever reads in between finds the one that has the digest. Each file
is opened once, and what is parsed is the bytes that were hashed. Writers take turns (a lock on the directory, which
goes with the process that holds it), so what another one left unfinished is of one that was stopped, and is removed.
"""

from __future__ import annotations

import hashlib
import json
import os as os
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from padp.dsl.diagnostics import PadpError, refuse

DESCRIPTION = "adapter.json"
TENSORS = "adapter.safetensors"
_PASSING = ".padp-"  # files that are being written begin so
_DAY = 24 * 3600.0
_TRIES = 200  # a checkpoint that another process writes again and again is read anew so often


def write(directory: Path, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint; the directory is made if need be. E505 when it cannot be."""
    with _told(directory, "it cannot be written", "a directory that you may write to, with room for the tensors"):
        directory.mkdir(parents=True, exist_ok=True)
        with _alone(directory) as locked:
            _clean(directory, locked)
            _write(directory, description, tensors)


def _write(directory: Path, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    digest = ""

    def put_tensors(path: Path) -> None:
        nonlocal digest
        save_file(_separate(tensors), path, metadata={"format": "pt"})
        digest = digest_of(path)

    staged = _place_file(directory, put_tensors, lambda: f"{TENSORS}.{digest}")
    pairs = [key for key, tensor in tensors.items() if tensor.dtype is torch.complex128]
    about = {"sha256": digest, **({"pairs": pairs} if pairs else {})}
    text = json.dumps({**description, "tensors": about}, ensure_ascii=False, indent=1)
    _place_file(directory, lambda path: path.write_text(text + "\n", encoding="utf-8"), lambda: DESCRIPTION)
    with suppress(FileNotFoundError):  # without a lock, another process that saves the same tensors was here first
        os.replace(staged, directory / TENSORS)


@contextmanager
def _alone(directory: Path) -> Generator[bool, None, None]:
    """One writer at a time, where the system has locks that end with their process; whether it has."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield False
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            locked = True
        except OSError:  # a file system without locks
            locked = False
        yield locked
    finally:
        os.close(handle)


def _clean(directory: Path, locked: bool) -> None:
    """Finish or remove what writers left that were stopped; without a lock only what is older than a day."""
    staged = f"{TENSORS}.{_named(directory)}"
    for left in (*directory.glob(f"{TENSORS}.*"), *directory.glob(f"{_PASSING}*")):
        if not locked and left.stat().st_mtime > time.time() - _DAY:
            continue
        if left.name == staged:  # stopped between the commit and the plain name
            os.replace(left, directory / TENSORS)
        else:
            left.unlink(missing_ok=True)


def _named(directory: Path) -> str | None:
    """The digest that the description there names."""
    try:
        return _digest_in(_parsed(directory, (directory / DESCRIPTION).read_bytes()))
    except (OSError, PadpError):
        return None


def _place_file(directory: Path, put: Callable[[Path], object], name: Callable[[], str]) -> Path:
    """Write a file under a passing name, flush it to the disk, and give it its name in one step."""
    handle, passing = tempfile.mkstemp(dir=directory, prefix=_PASSING)
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
    """The tensors on the CPU, contiguous, none sharing memory with another (the format has no aliases).

    Complex numbers of twice 64 bits, which the format has not, as pairs of real ones.
    """
    seen: set[int] = set()
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        own = torch.view_as_real(own.resolve_conj()) if own.dtype is torch.complex128 else own
        if own.untyped_storage().data_ptr() in seen:
            own = own.clone()
        seen.add(own.untyped_storage().data_ptr())
        found[key] = own
    return found


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


# ---------------------------------------------------------------- reading


def wrong(directory: Path, cause: str, remedy: str) -> PadpError:
    """E505: what is wrong with a checkpoint and what to do."""
    return refuse("E505", f"{directory}: {cause}", suggestion=remedy)


@contextmanager
def _told(directory: Path, what: str, remedy: str) -> Generator[None, None, None]:
    """What the file system answers is told as E505."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors wraps what it is answered
        reason = getattr(error, "strerror", None) or str(error)
        raise wrong(directory, f"{what} ({reason})", remedy) from None
    except ValueError as error:  # a path or a text that the system cannot hold
        raise wrong(directory, f"{what} ({error})", remedy) from None


def read(directory: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the tensors of a checkpoint; E505 when files lack, are truncated or do not fit each other.

    What does not fit together is read again while another process may be writing: until the description stays the
    same file. (Two writers in turn can leave the same text twice.)
    """
    with _told(directory, "it cannot be read", "give the directory that padp.save was given"):
        before: tuple[int, int] | None = None
        for _ in range(_TRIES):
            raw, file = opened(directory / DESCRIPTION)
            if raw is None:
                raise _no_description(directory)
            description = _parsed(directory, raw)
            digest = _digest_in(description)
            found = 0
            for name in (TENSORS, f"{TENSORS}.{digest}"):
                data, _ = opened(directory / name)
                found += data is not None
                if data is not None and hashlib.sha256(data).hexdigest() == digest:
                    return description, _tensors(directory, data, description["tensors"].get("pairs", []))
            if file == before:
                raise wrong(directory, f"{TENSORS} is truncated, was changed, or belongs to another {DESCRIPTION}"
                            if found else f"there is no {TENSORS}", "copy both files again from where they were saved")
            before = file
        raise wrong(directory, "it is being written all the time", "read it when its writers are done")


def opened(path: Path) -> tuple[bytes | None, tuple[int, int]]:
    """The content of a file, opened once, and which file it was: its number and the time of its last write. None when
    there is none."""
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            return file.read(), (about.st_ino, about.st_mtime_ns)
    except FileNotFoundError:
        return None, (0, 0)


def _no_description(directory: Path) -> PadpError:
    if (directory / "adapter_config.json").is_file():
        return wrong(directory, "this is a checkpoint of PEFT, not of padp", "load it with PEFT")
    return wrong(directory, f"there is no {DESCRIPTION}", "give the directory that padp.save was given")


def _parsed(directory: Path, raw: bytes) -> dict[str, Any]:
    try:
        description = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, too deep, a number too long
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise wrong(directory, f"{DESCRIPTION} is truncated or is no JSON ({reason})", "copy or save it anew") from None
    if not isinstance(description, dict) or description.get("format") != "padp":
        raise wrong(directory, f"{DESCRIPTION} was not written by padp", "give the directory that padp.save was given")
    return description


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A table whose keys stand once."""
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"{key!r} stands twice in a table")
        table[key] = value
    return table


def _digest_in(description: Mapping[str, Any]) -> str | None:
    about = description.get("tensors")
    digest = about.get("sha256") if isinstance(about, dict) else None
    return digest if isinstance(digest, str) and len(digest) == 64 and digest.isalnum() else None


def _tensors(directory: Path, data: bytes, pairs: object) -> dict[str, Tensor]:
    """The tensors in the bytes of a file, each in memory of its own: what is computed depends on how it is aligned.

    ``pairs``: the names of those that hold complex numbers as pairs.
    """
    try:
        found = {key: tensor.clone() for key, tensor in load(data).items()}
        found.update({key: torch.view_as_complex(found[key]) for key in cast("list[str]", pairs)})
        return found
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError, AssertionError) as error:
        raise wrong(directory, f"{TENSORS} cannot be read ({error})", "save it anew") from None


def dtype_name(dtype: torch.dtype) -> str:
    """float32, bfloat16 …"""
    return str(dtype).removeprefix("torch.")
