"""Hostile and half-written checkpoints: what loads is what the file says, everything else is refused."""

from __future__ import annotations

import copy
import enum
import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import padp
import padp.models as pm
from padp import PadpError
from padp.models import files
from padp.models.record import record_of
from padp.models.walk import sites
from tests.support.families import Refused
from tests.support.programs import LORA, PISSA, ROTATION, VERA

ROOT = str(Path(__file__).parents[2])
JSON, TENSORS = "adapter.json", "adapter.safetensors"


def make(dtype: torch.dtype = torch.float32) -> nn.ModuleDict:
    torch.manual_seed(0)
    model = nn.ModuleDict({"in": nn.Linear(8, 6), "out": nn.Linear(6, 8), "head": nn.Linear(8, 3)})
    return model.to(dtype)


def saved(directory: Path, adapter: padp.Adapter, **options: Any) -> nn.ModuleDict:
    """A model whose adapter was saved."""
    model = pm.attach(make(), adapter, ["in", "out"], modules_to_save=["head"], **options)
    pm.save(model, directory)
    return model


# ---------------------------------------------------------------- mutations

POOL: list[object] = [None, True, False, -1, 0, 1, 2, 3.5, -0.0, 1e400, float("nan"), 10**30, 2**63, "", "x", "\ud800",
                      "float64", "int64", "nonsense", [], {}, [1], {"a": 1}, ["head"], ["head", "head"], [""]]
Content = tuple[bytes, bytes]


def places_in(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in a JSON value."""
    found = [path] if path else []
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [deeper for key, inner in entries for deeper in places_in(inner, (*path, key))]


def other_entry(content: Content, chance: random.Random) -> Content:
    """One entry of the description with another value, another name, or none; or a value from elsewhere in it."""
    described = json.loads(content[0])
    path = chance.choice(places_in(described))
    parent = described
    for key in path[:-1]:
        parent = parent[key]
    how = chance.randrange(4)
    if how == 0:
        del parent[path[-1]]
    elif how == 1 and isinstance(parent, dict):
        parent[chance.choice(["x", "", "a/b", str(path[-1]) + "2"])] = parent.pop(path[-1])
    elif how == 2:
        value = described
        for key in chance.choice(places_in(described)):
            value = value[key]
        parent[path[-1]] = copy.deepcopy(value)
    else:
        parent[path[-1]] = chance.choice(POOL)
    return json.dumps(described).encode(), content[1]


def other_bytes(data: bytes, chance: random.Random) -> bytes:
    """A byte or a piece changed, left out, doubled, or everything behind it cut off."""
    at = chance.randrange(len(data))
    to = min(len(data), at + chance.choice([1, 1, 2, 8, 50]))
    return [data[:at] + bytes(chance.randrange(256) for _ in range(to - at)) + data[to:], data[:at] + data[to:],
            data[:to] + data[at:], data[:at]][chance.randrange(4)]


def other_text(content: Content, chance: random.Random) -> Content:
    return other_bytes(content[0], chance), content[1]


def other_file(content: Content, chance: random.Random) -> Content:
    return content[0], other_bytes(content[1], chance)


def signed(content: Content) -> Content:
    """The description names the tensors as they are now."""
    described = json.loads(content[0])
    described["tensors"]["sha256"] = hashlib.sha256(content[1]).hexdigest()
    return json.dumps(described).encode(), content[1]


def other_header(content: Content, chance: random.Random) -> Content:
    """A header of safetensors that was changed and signed."""
    length = int.from_bytes(content[1][:8], "little") + 8
    header = other_bytes(content[1][:length], chance)
    return signed((content[0], header + content[1][length:]))


def other_tensor(content: Content, chance: random.Random) -> Content:
    """A tensor of another dtype or shape or name, with nan, left out or added; signed."""
    from safetensors.torch import load, save

    tensors = load(content[1])
    key = chance.choice(sorted(tensors))
    tensor = tensors.pop(key)
    dtype = chance.choice([torch.float16, torch.float64, torch.int64, torch.bool, torch.complex64])
    changes: list[Callable[[], dict[str, Tensor]]] = [
        dict, lambda: {key: tensor.to(dtype)}, lambda: {key: tensor[None].contiguous()},
        lambda: {key: torch.full_like(tensor, chance.choice([float("nan"), float("inf"), -float("inf")]))},
        lambda: {key + "2": tensor}, lambda: {key: tensor, key.replace("in", "new") + "x": tensor.clone()},
        lambda: {key: tensor, "shared/other": tensor.clone()}, lambda: {key: tensor, "": tensor.clone()},
        lambda: {key: tensor.flatten()[:-1].clone()}, lambda: {key: torch.zeros(0)}]
    tensors.update(chance.choice(changes)())
    return signed((content[0], save(tensors, {"format": "pt"})))


MUTATIONS = [other_entry, other_text, other_file, other_header, other_tensor]
TOLD = ("format", "number", "name", "sites", "modules_to_save", "dropout", "seed", "dtype", "steps")


def outcome(directory: Path) -> str:
    """The code of the refusal, the model being as it was; or "loaded", the model then being what the files say."""
    model = make()
    before = {name: (id(p), p.requires_grad) for name, p in model.named_parameters()}
    values = copy.deepcopy(model.state_dict())
    try:
        pm.load(model, directory)
    except PadpError as error:
        assert before == {name: (id(p), p.requires_grad) for name, p in model.named_parameters()}
        assert all(torch.equal(values[key], own) for key, own in model.state_dict().items())
        assert not record_of(model).attached
        (found,) = error.diagnostics
        assert found.code in ("E505", "E511", "E508", "E509"), found  # the file's fault, or what no model can take
        assert len(found.message) < 1500
        return found.code
    again = directory / "again"
    pm.save(model, again)
    said, made = (json.loads((place / JSON).read_text()) for place in (directory, again))
    assert {key: said[key] for key in TOLD} == {key: made[key] for key in TOLD}
    assert said["adapter"]["program"] == made["adapter"]["program"]
    stored, kept = (load_file(place / TENSORS) for place in (directory, again))
    assert stored.keys() == kept.keys()
    for key, tensor in stored.items():
        assert tensor.dtype == kept[key].dtype or key.startswith("modules/")
        assert torch.equal(tensor.to(kept[key].dtype), kept[key])
    return "loaded"


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("adapter", [LORA, VERA], ids=lambda a: a.name)
def test_mutations(mutate: Callable[[Content, random.Random], Content], adapter: padp.Adapter, tmp_path: Path,
                   count: int = 40) -> None:
    saved(tmp_path / "good", adapter, **({"r": 2} if adapter is LORA else {}))
    good = (tmp_path / "good" / JSON).read_bytes(), (tmp_path / "good" / TENSORS).read_bytes()
    chance = random.Random(f"{mutate.__name__} {adapter.name}")
    found: dict[str, int] = {}
    for i in range(count):
        directory = tmp_path / str(i)
        directory.mkdir()
        described, tensors = mutate(good, chance)
        (directory / JSON).write_bytes(described)
        (directory / TENSORS).write_bytes(tensors)
        code = outcome(directory)
        found[code] = found.get(code, 0) + 1
    assert found.get("E505", 0) > count // 4


def changed(**entries: object) -> Callable[[Path], None]:
    """Other entries of the description."""
    def change(directory: Path) -> None:
        path = directory / JSON
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return change


def text(old: str, new: str) -> Callable[[Path], None]:
    """Other text of the description."""
    def change(directory: Path) -> None:
        path = directory / JSON
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return change


def with_tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    """Other tensors, signed."""
    def write(directory: Path) -> None:
        tensors = load_file(directory / TENSORS)
        change(tensors)
        save_file(tensors, directory / TENSORS)
        content = signed(((directory / JSON).read_bytes(), (directory / TENSORS).read_bytes()))
        (directory / JSON).write_bytes(content[0])

    return write


def into_a_directory(directory: Path) -> None:
    (directory / JSON).unlink()
    (directory / JSON).mkdir()


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "more shared tensors": (with_tensors(lambda t: t.update({"shared/other": torch.zeros(2)})), "which no site uses"),
    "a shared tensor less": (with_tensors(lambda t: t.pop(next(k for k in t if k.startswith("shared/")))), "shared"),
    "another precision": (with_tensors(lambda t: t.update({"sites/in/c": t["sites/in/c"].double()})), "c is float64"),
    "whole numbers": (with_tensors(lambda t: t.update({"sites/in/c": t["sites/in/c"].long()})), "c is torch.int64"),
    "another precision of a module": (with_tensors(lambda t: t.update(
        {"modules/head/weight": t["modules/head/weight"].double()})), "head.weight was saved as float64"),
    "nan": (with_tensors(lambda t: t["sites/out/d"].fill_(float("nan"))), "sites/out/d holds nan"),
    "inf": (with_tensors(lambda t: t["sites/out/d"].fill_(float("inf"))), "holds nan or inf"),
    "nan in a module": (with_tensors(lambda t: t["modules/head/bias"].fill_(float("nan"))), "holds nan"),
    "steps before the first": (changed(steps=-1), "steps = -1"),
    "half a step": (changed(steps=1.5), "steps is 1.5"),
    "no sites": (changed(sites={}), "it lists no sites"),
    "versions that are no table": (changed(number=7, versions=[]), "format 7"),
    "a number that is true": (changed(number=True), "format True"),
    "depth": (lambda d: (d / JSON).write_text("[" * 100_000), "nested too deep"),
    "a long number": (text('"steps": 0', '"steps": ' + "7" * 5000), "is no JSON"),
    "half a character": (text("adapter Vera", "\\ud800"), "surrogates not allowed"),
    "half a character in a name": (text('"name": "default"', '"name": "\\ud800"'), "cannot name"),
    "a key twice": (text('"steps": 0', '"steps": 0, "steps": 1'), "stands twice"),
    "a path twice": (changed(modules_to_save=["head", "head"]), "twice"),
    "the model itself": (changed(modules_to_save=[""]), "no list of paths"),
    "a directory": (into_a_directory, "directory"),
    "cut short": (lambda d: (d / TENSORS).write_bytes((d / TENSORS).read_bytes()[:-1]), "truncated"),
    "a huge header": (lambda d: write_signed(d, b"\xff" * 7 + b"\x7f" + b"{}"), "cannot be read"),
    "a header in depth": (lambda d: write_signed(d, (10**5).to_bytes(8, "little") + b"[" * 10**5), "cannot be read"),
}


def write_signed(directory: Path, data: bytes) -> None:
    (directory / TENSORS).write_bytes(data)
    (directory / JSON).write_bytes(signed(((directory / JSON).read_bytes(), data))[0])


@pytest.mark.parametrize(("harm", "said"), HARM.values(), ids=HARM.keys())
def test_what_was_accepted_without_a_word(harm: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    saved(tmp_path / "a", VERA)
    harm(tmp_path / "a")
    model = make()
    code = "E511" if said == "cannot name" else "E505"
    with Refused(code, said, model=model):
        pm.load(model, tmp_path / "a")


# ---------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("adapter", [LORA, VERA, PISSA, ROTATION], ids=lambda a: a.name)
def test_tensors_are_aligned_wherever_they_lie_in_the_file(adapter: padp.Adapter, tmp_path: Path) -> None:
    model = saved(tmp_path, adapter, **({} if adapter is ROTATION else {"r": 3}), **({"k": 2} if adapter is ROTATION
                                                                                     else {}))
    x = torch.randn(5, 8)
    wanted = model["out"](model["in"](x))
    path = tmp_path / TENSORS
    for room in range(9):
        with_tensors(lambda _: None)(tmp_path)
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = raw[8:8 + length].rstrip() + b" " * room  # the data begin anywhere
        write_signed(tmp_path, len(header).to_bytes(8, "little") + header + raw[8 + length:])
        other = pm.load(make(), tmp_path)
        tensors = [t for site in sites(other) for t in (*site.module("default").parameters(),
                                                        *site.module("default").buffers())]
        assert all(t.data_ptr() % 64 == 0 for t in tensors if t.numel())
        assert torch.equal(other["out"](other["in"](x)), wanted)


NOTHING = padp.compile("""# a knob and no tensor
adapter Scaled(knob g = 2) on linear(W ∈ ℝ^{m×n})
y ← g · W @ x
""")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("adapter", [NOTHING, LORA, VERA], ids=lambda a: a.name)
def test_the_stored_precision_comes_back(adapter: padp.Adapter, dtype: torch.dtype, tmp_path: Path) -> None:
    model = pm.attach(make(), adapter, ["in"], dtype=dtype)
    pm.save(model, tmp_path)
    other = pm.load(make(), tmp_path)
    one, two = (site.module("default") for m in (model, other) for site in sites(m))
    assert one.like.dtype == two.like.dtype
    assert [t.dtype for t in one.state_dict().values()] == [t.dtype for t in two.state_dict().values()]


def test_precisions_that_were_mixed_by_hand_come_back(tmp_path: Path) -> None:
    model = pm.attach(make(), VERA, ["in"])
    module = sites(model)[0].module("default")
    module.c.data = module.c.data.double()  # pyright: ignore[reportAttributeAccessIssue]
    pm.save(model, tmp_path)
    assert json.loads((tmp_path / JSON).read_text())["sites"]["in"]["dtypes"] == {"c": "float64"}
    other = sites(pm.load(make(), tmp_path))[0].module("default")
    assert (other.c.dtype, other.d.dtype) == (torch.float64, torch.float32)


def test_complex_numbers_of_twice_64_bits(tmp_path: Path) -> None:
    files.write(tmp_path, {"format": "padp"}, {"a": torch.randn(3, dtype=torch.complex128), "b": torch.ones(2)})
    _, tensors = files.read(tmp_path)
    assert {key: t.dtype for key, t in tensors.items()} == {"a": torch.complex128, "b": torch.float32}


def test_numbers_that_would_not_load_are_not_saved(tmp_path: Path) -> None:
    model = saved(tmp_path, LORA)
    before = (tmp_path / JSON).read_bytes()
    with torch.no_grad():
        next(iter(pm.trainable(model))).fill_(float("nan"))
    with Refused("E511", "sites/in/A", "nan"):
        pm.save(model, tmp_path)
    assert (tmp_path / JSON).read_bytes() == before


# ---------------------------------------------------------------- names and settings


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a%2Fb"), ("a%", "a/"), ("/", "//"), ("é x", "模")])
def test_any_name_of_a_module(names: tuple[str, str], tmp_path: Path) -> None:
    def model() -> nn.ModuleDict:
        torch.manual_seed(0)
        made = nn.ModuleDict()
        for name in names:
            made.add_module(name, nn.Linear(6, 6))
            made.add_module(f"{name} saved", nn.Linear(6, 6))
        return made

    wholes = [f"{name} saved" for name in names]
    one = pm.attach(model(), LORA, list(names), modules_to_save=wholes)
    with torch.no_grad():
        for p in pm.trainable(one):
            p.add_(torch.randn_like(p))
    pm.save(one, tmp_path)
    other = pm.load(model(), tmp_path)
    assert one.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(t, other.state_dict()[key]) for key, t in one.state_dict().items())


def test_names_that_no_file_can_hold_are_refused_at_attach() -> None:
    model = nn.ModuleDict({"a\ud800": nn.Linear(4, 4)})
    with Refused("E507", "a\\ud800", model=model):
        pm.attach(model, LORA)



class Whole(enum.IntEnum):
    FOUR = 4


class Word(str, enum.Enum):
    ALL = "all"


class Other(enum.Enum):
    FOUR = 4


SCALARS = [np.int64(4), np.int8(4), np.uint16(4), np.array(4), torch.tensor(4), Whole.FOUR, 4.0, np.float32(4)]


@pytest.mark.parametrize("value", SCALARS, ids=lambda v: f"{type(v).__module__}.{type(v).__name__}")
def test_scalars_of_others_are_plain_once_attached(value: Any, tmp_path: Path) -> None:
    given: dict[str, Any] = {"r": value, "α": value}
    if not isinstance(value, (float, np.floating)):
        given["seed"] = value
    model = pm.attach(make(), LORA, ["in"], dropout=np.float32(0.25), **given)  # pyright: ignore[reportArgumentType]
    pm.set(model, α=value)  # pyright: ignore[reportArgumentType]
    pm.save(model, tmp_path)
    described = json.loads((tmp_path / JSON).read_text())
    assert described["sites"]["in"]["hyper"]["r"] == 4 and described["sites"]["in"]["knobs"] == {"α": 4.0}
    assert described["dropout"] == 0.25 and described["seed"] == (4 if "seed" in given else 0)
    assert type(sites(model)[0].module("default").hyper["r"]) is int
    pm.load(make(), tmp_path)


REFUSED = [Other.FOUR, Path("4"), "4", b"4", None, True, np.bool_(True), [4], 4j, np.array([4]), 10**30, float("nan"),
           object()]


@pytest.mark.parametrize("value", REFUSED, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("name", ["r", "α", "seed", "dropout"])
def test_settings_that_no_file_can_hold_are_refused_at_attach(name: str, value: Any) -> None:
    model = make()
    if name == "dropout" and type(value) is int:
        value = 10**400
    with Refused("E507", name, model=model):
        pm.attach(model, LORA, ["in"], **{name: value})
    if name == "α":
        model = pm.attach(make(), LORA, ["in"])
        if type(value) is int:
            value = 10**400
        with Refused("E507", "α", model=model):
            pm.set(model, α=value)


# ---------------------------------------------------------------- the file system


def test_what_the_file_system_answers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tmp_path / "good", LORA)
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("bad\0name"), tmp_path / ("x" * 300)):
        with Refused("E505", "cannot be written", model=model):
            pm.save(model, place)
        other = make()
        with Refused("E505", model=other):
            pm.load(other, place)

    for name, code in (("fsync", errno.ENOSPC), ("replace", errno.EACCES), ("fsync", errno.EIO)):
        def fail(*_: object, code: int = code) -> None:
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patched:
            patched.setattr(files.os, name, fail)
            with Refused("E505", os.strerror(code), str(tmp_path), model=model):
                pm.save(model, tmp_path / "good")
        assert sorted(path.name for path in (tmp_path / "good").iterdir()) == [JSON, TENSORS]
        assert outcome(tmp_path / "good") == "loaded"
        (tmp_path / "good" / "again" / JSON).unlink()
        (tmp_path / "good" / "again" / TENSORS).unlink()
        (tmp_path / "good" / "again").rmdir()


WRITER = f"""
import sys; sys.path.insert(0, {ROOT!r})
import torch; from pathlib import Path; from padp.models import files
directory, value, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
import time
print("ready", flush=True)
end, n = time.time() + seconds, 0
while time.time() < end:
    n += 1
    files.write(directory, {{"format": "padp", "value": value}}, {{"t": torch.full((20_000,), float(value)),
                                                                    "n": torch.tensor([float(n)])}})
"""


def writer(directory: Path, value: int, seconds: float) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", WRITER, str(directory), str(value), str(seconds)], text=True,
                            stdout=subprocess.PIPE, env=environment)


def test_reading_while_others_write(tmp_path: Path) -> None:
    """Two processes write, one reads: each time a whole checkpoint of one of them; killed ones leave nothing behind."""
    files.write(tmp_path, {"format": "padp", "value": 0}, {"t": torch.zeros(20_000)})
    writers = [writer(tmp_path, value, 60.0) for value in (1, 2)]
    try:
        for process in writers:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        seen: set[int] = set()
        end = time.time() + 4
        while time.time() < end or (len(seen) < 2 and time.time() < end + 20):
            described, tensors = files.read(tmp_path)
            assert bool((tensors["t"] == described["value"]).all())
            seen.add(described["value"])
        assert seen >= {1, 2}
    finally:
        for process in writers:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            if process.stdout is not None:
                process.stdout.close()
    described, tensors = files.read(tmp_path)
    assert bool((tensors["t"] == described["value"]).all())
    for name in (".padp-left", f"{TENSORS}.{'0' * 64}"):
        (tmp_path / name).write_bytes(b"left by one that was killed")
    files.write(tmp_path, {"format": "padp", "value": 3}, {"t": torch.full((5,), 3.0)})
    assert sorted(path.name for path in tmp_path.iterdir()) == [JSON, TENSORS]
    assert files.read(tmp_path)[0]["value"] == 3


def test_the_same_text_written_again_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers in turn leave the text that a reader has seen before: it reads on until nobody writes."""
    real, told = files.opened, 0

    def opened(path: Path) -> tuple[bytes | None, tuple[int, int]]:
        nonlocal told
        if path.name == JSON:
            for value in ((1, 2, 1) if told < 6 else ()):
                files.write(tmp_path, {"format": "padp", "value": value}, {"t": torch.full((3,), float(value))})
            found = real(path)
            if told < 6:
                files.write(tmp_path, {"format": "padp", "value": 2}, {"t": torch.full((3,), 2.0)})
            told += 1
            return found
        return real(path)

    files.write(tmp_path, {"format": "padp", "value": 1}, {"t": torch.ones(3)})
    monkeypatch.setattr(files, "opened", opened)
    described, tensors = files.read(tmp_path)
    assert described["value"] == 2 and bool((tensors["t"] == 2).all()) and told == 7


def test_what_was_stopped_after_its_commit_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write(tmp_path, {"format": "padp", "value": 1}, {"t": torch.ones(3)})
    real, calls = os.replace, []

    def stop(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            files.write(tmp_path, {"format": "padp", "value": 2}, {"t": torch.zeros(3)})
    assert files.read(tmp_path)[0]["value"] == 2
    with monkeypatch.context() as patched:
        patched.setattr(files, "_write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            files.write(tmp_path, {"format": "padp", "value": 3}, {"t": torch.zeros(4)})
    assert sorted(path.name for path in tmp_path.iterdir()) == [JSON, TENSORS]
    assert files.read(tmp_path)[0]["value"] == 2
