"""A checkpoint as its two files tell it, checked as far as can be without a model.

    adapter.json   number, versions, model, name, adapter {program, hash …}, sites {path: …}, modules_to_save, …
    tensors        sites/PATH/NAME, shared/KEY, modules/PATH/KEY     "/" and "%" in a PATH are written %2F and %25

Every entry is of the kind that ``save`` writes, or the file is refused: nothing is made to fit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import torch
from torch import Tensor

from padp.compiler.adapter import Adapter
from padp.compiler.kernels.singular import finite as all_finite
from padp.compiler.phases import require
from padp.dsl.diagnostics import PadpError
from padp.dsl.source import Source
from padp.models.files import read, wrong

FORMAT = 1
ANEW = "save it anew, or load it with the version of padp that wrote it"


@dataclass(frozen=True)
class StoredSite:
    """A site as ``adapter.json`` has it. ``dtypes``: those of tensors that have another one than the site."""

    variant: str | None
    hyper: dict[str, Any]
    knobs: dict[str, float]
    sizes: dict[str, int]
    dtype: torch.dtype
    dtypes: dict[str, torch.dtype]


@dataclass(frozen=True)
class Stored:
    """A checkpoint that was read and is whole in itself."""

    directory: Path
    adapter: Adapter
    name: str
    model: str
    sites: dict[str, StoredSite]
    saved: tuple[str, ...]
    dropout: float
    seed: int
    dtype: torch.dtype | None
    steps: int
    tensors: dict[str, Tensor]

    def wrong(self, cause: str, remedy: str) -> PadpError:
        """E505 about this checkpoint."""
        return wrong(self.directory, cause, remedy)

    @contextmanager
    def blamed(self, what: str) -> Generator[None, None, None]:
        """What fails in here is this file's fault: E505, with what was found."""
        try:
            yield
        except PadpError as error:
            found = error.diagnostics[0]
            raise self.wrong(f"{what}: {found.message} ({found.code})", ANEW) from None
        except (RuntimeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise self.wrong(f"{what}: {error}", ANEW) from None

    @cached_property
    def _owned(self) -> dict[tuple[str, str | None], dict[str, Tensor]]:
        """The tensors by whose they are; by (kind, None) what nobody listed has."""
        found: dict[tuple[str, str | None], dict[str, Tensor]] = {}
        for key, tensor in self.tensors.items():
            kind, _, rest = key.partition("/")
            written, _, name = rest.partition("/")
            listed = self.sites if kind == "sites" else self.saved if kind == "modules" else ()
            path = next((path for path in (unquote(written), written) if name and path in listed), None)
            if kind == "shared":
                path, name = "", rest
            found.setdefault((kind, path), {})[key if path is None else name] = tensor
        return found

    def of(self, kind: str, path: str = "") -> dict[str, Tensor]:
        """The tensors of a site ("sites"), of a module that is saved whole ("modules"), of all sites ("shared"), by
        their own keys."""
        return self._owned.get((kind, path), {})

    def stray(self) -> list[str]:
        """The keys of tensors that nothing listed has."""
        return [key for (_, path), owned in self._owned.items() if path is None for key in owned]


def key_of(kind: str, path: str, name: str) -> str:
    """The key of a tensor of a site or of a saved module."""
    return f"{kind}/{path.replace('%', '%25').replace('/', '%2F')}/{name}"


# ---------------------------------------------------------------- reading


def read_stored(directory: Path) -> Stored:
    """Read a checkpoint and check all that can be checked without a model; E505."""
    description, tensors = read(directory)
    number = description.get("number")
    if type(number) is not int or number != FORMAT:
        versions = description.get("versions")
        by = versions.get("padp", "of another version") if isinstance(versions, dict) else "of another version"
        raise wrong(directory, f"format {number} is not known here (this padp writes {FORMAT})",
                    f"load it with padp {by}")
    try:
        program = table(description, "adapter")
        source, digest = text(program, "program"), text(program, "hash")
        sites = {path: _site(path, about) for path, about in table(description, "sites").items()}
        if not sites:
            raise ValueError("it lists no sites")
        saved = _paths(description)
        numbers = number_in(description, "dropout", 0.0, 1.0), whole(description, "seed", -(2**63)), \
            whole(description, "steps", 0)
        dtype = None if description["dtype"] is None else floating(description, "dtype")
        name, model = text(description, "name"), text(table(description, "model"), "class")
        encoded = source.encode()
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise wrong(directory, f"adapter.json lacks or garbles an entry ({type(error).__name__}: {error})",
                    "copy it again from where it was saved") from None
    if hashlib.sha256(encoded).hexdigest() != digest:
        raise wrong(directory, "the program in adapter.json was changed after saving: the tensors are another one's",
                    "put the program back, or train the new program and save it")
    try:
        adapter = compiled(source, str(program.get("source", "<checkpoint>")))
    except PadpError as error:
        found = error.diagnostics[0]
        raise wrong(directory, f"the program in adapter.json has errors here: {found.message} ({found.code})",
                    ANEW) from None
    stored = Stored(directory, adapter, name, model, sites, saved, *numbers[:2], dtype, numbers[2], tensors)
    refuse_foreign(stored)
    return stored


def compiled(program: str, name: str) -> Adapter:
    """The adapter of a program text."""
    adapter = Adapter(Source.of(program, name))
    require(adapter.source)
    return adapter


def refuse_foreign(stored: Stored) -> None:
    """E505 for tensors that nothing listed has, and for numbers that are none."""
    stray = stored.stray()
    if stray:
        raise stored.wrong(f"it holds tensors of sites that adapter.json does not list ({stray[0]})",
                           "copy both files again from where they were saved")
    for key, tensor in stored.tensors.items():
        if not finite(key, tensor):
            raise stored.wrong(f"{key} holds nan or inf", "save an adapter whose numbers are finite")


def finite(key: str, tensor: Tensor) -> bool:
    """Whether the numbers of a stored tensor can be right: finite ones; of modules saved whole (masks) no nan."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_meta:
        return True
    wide = tensor.float() if tensor.element_size() == 1 else tensor  # eight bits know few operations
    return not bool(torch.isnan(wide).any()) if key.startswith("modules/") else all_finite(wide)


# ---------------------------------------------------------------- entries, each of the kind that it must be


def _site(path: str, about: object) -> StoredSite:
    if not path or not isinstance(about, dict):
        raise ValueError(f"site {path!r} is no table")
    site = cast("dict[str, Any]", about)
    variant = None if site["variant"] is None else text(site, "variant")
    hyper = table(site, "hyper")
    if not all(type(value) in (int, float, str) for value in hyper.values()):
        raise TypeError(f"a hyperparameter of {path} is no number and no text")
    knobs, sizes = table(site, "knobs"), table(site, "sizes")
    others = table(site, "dtypes") if "dtypes" in site else {}
    return StoredSite(variant, hyper, {name: number_in(knobs, name) for name in knobs},
                      {name: whole(sizes, name, 0) for name in sizes}, floating(site, "dtype"),
                      {name: dtype_in(others, name) for name in others})


def _paths(description: Mapping[str, Any]) -> tuple[str, ...]:
    found = description["modules_to_save"]
    if not isinstance(found, list) or not all(isinstance(path, str) and path for path in found):
        raise TypeError("modules_to_save is no list of paths")
    paths = cast("list[str]", found)
    if len(set(paths)) < len(paths):
        raise ValueError("modules_to_save names a module twice")
    return tuple(paths)


def table(of: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An entry that is a table."""
    return cast("dict[str, Any]", _kind(of, key, dict))


def text(of: Mapping[str, Any], key: str) -> str:
    """An entry that is a text."""
    return cast(str, _kind(of, key, str))


def whole(of: Mapping[str, Any], key: str, least: int) -> int:
    """An entry that is a whole number, of 64 bits."""
    value = cast(int, _kind(of, key, int))
    if not least <= value < 2**63:
        raise ValueError(f"{key} = {value}")
    return value


def number_in(of: Mapping[str, Any], key: str, least: float = -math.inf, below: float = math.inf) -> float:
    """An entry that is a finite number, in [least, below)."""
    value = _kind(of, key, int, float)
    if not math.isfinite(value) or not least <= value < below:
        raise ValueError(f"{key} = {value}")
    return float(value)


def floating(of: Mapping[str, Any], key: str) -> torch.dtype:
    """An entry that names a floating dtype."""
    dtype = dtype_in(of, key)
    if not dtype.is_floating_point:
        raise ValueError(f"{key} is {of[key]}, and an adapter's numbers are floating-point ones")
    return dtype


def dtype_in(of: Mapping[str, Any], key: str) -> torch.dtype:
    """An entry that names a dtype."""
    dtype = getattr(torch, text(of, key), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"no dtype {of[key]!r}")
    return dtype


def _kind(of: Mapping[str, Any], key: str, *kinds: type) -> Any:
    value = of[key]
    if type(value) not in kinds:
        raise TypeError(f"{key} is {value!r}")
    return value
