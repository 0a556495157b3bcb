"""The house rules: who imports whom, what never imports torch, what lies at the root, what a wheel holds."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import padp

ROOT = Path(__file__).parent.parent
FOLDERS = ("dsl", "compiler", "stdlib")
# Vague names gather everything. A module says what it does.
BANNED_MODULES = {"manager", "managers", "helper", "helpers", "util", "utils", "misc"}
STANDARD = sys.stdlib_module_names - {"site"}  # the word of the language; nothing imports Python's
ENTRIES = {
    ".ci", ".gitignore", ".pre-commit-config.yaml", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile",
    "README.md", "pyproject.toml", "compiler", "docs", "dsl", "examples", "padp", "stdlib", "tests",
}


def modules(folder: str) -> list[Path]:
    """The Python files of a folder of ours; for padp, without what its links lead to."""
    return sorted(
        path
        for path in (ROOT / folder).rglob("*.py")
        if not (folder == "padp" and path.relative_to(ROOT / "padp").parts[0] in FOLDERS)
    )


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import in a file, also those inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                if level:
                    yield node.lineno, "." * level + (module or "")
                else:
                    yield from ((node.lineno, f"{module}.{alias.name}") for alias in names)
            case _:
                pass


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def offences(folder: str, *allowed: str) -> list[str]:
    """Imports of ours in a folder that its place in the house does not allow."""
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(folder)
        for line, name in imports(path)
        if name.startswith(".") or (within(name, "padp", *FOLDERS) and not within(name, *allowed))
    ]


def test_dsl_imports_nothing_of_ours() -> None:
    assert offences("dsl", "padp.dsl") == []


def test_compiler_imports_dsl_only() -> None:
    assert offences("compiler", "padp.dsl", "padp.compiler") == []


def test_stdlib_is_data() -> None:
    assert [path.name for path in modules("stdlib")] == ["__init__.py"]
    assert (ROOT / "stdlib/__init__.py").read_text(encoding="utf-8").strip() == ""


def test_padp_imports_by_full_name() -> None:
    assert offences("padp", "padp") == []


@pytest.mark.parametrize("folder", ["dsl"])
def test_no_torch_and_no_sympy_in(folder: str) -> None:
    found = [
        f"{path.name}:{line} {name}"
        for path in modules(folder)
        for line, name in imports(path)
        if within(name, "torch", "sympy", "numpy")
    ]
    assert found == []


@pytest.mark.parametrize("folder", ["padp", "dsl", "compiler"])
def test_module_names(folder: str) -> None:
    names = {path.stem for path in modules(folder)} - {"__init__", "__main__"}
    assert names & BANNED_MODULES == set()
    assert names & STANDARD == set(), "a module named like the standard library's"


LAYERS = (
    "ir", "operators", "names", "sizes", "elaborate", "normal", "facts", "library", "check",
    "plan",  # no torch up to here
    "kernels", "literal", "graph", "phases", "explain", "module", "adapter", "numerics",
)  # fmt: skip
"""The folders of compiler/, and the files beside them: each may import only what stands before it."""
WITH_TORCH = set(LAYERS[LAYERS.index("kernels"):]) - {"phases", "adapter"}
"""``phases`` and ``adapter`` ask them when they are called: checking needs no torch."""


def layer(name: str) -> str:
    """The layer of a file or module of the compiler, given by its path below ``padp.compiler``."""
    return name.split(".")[0]


def below_compiler(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "compiler").with_suffix("").parts)


def test_layers() -> None:
    """Imports inside functions and under TYPE_CHECKING too."""
    files = [path for path in modules("compiler") if path != ROOT / "compiler/__init__.py"]
    assert {layer(below_compiler(path)) for path in files} == set(LAYERS)
    found = {
        (below_compiler(path), name)
        for path in files
        for _, name in imports(path)
        if within(name, "padp.compiler")
        and LAYERS.index(layer(name.removeprefix("padp.compiler."))) > LAYERS.index(layer(below_compiler(path)))
    }
    assert found == set()


def test_no_circle() -> None:
    """No file of ours imports one that imports it, not inside functions nor under TYPE_CHECKING either."""
    names: dict[str, Path] = {}
    for folder in ("dsl", "compiler", "padp"):
        for path in modules(folder):
            below = path.relative_to(ROOT / folder).with_suffix("").parts
            names[".".join(part for part in ("padp", *(() if folder == "padp" else (folder,)), *below)
                           if part != "__init__")] = path
    needs: dict[str, set[str]] = {}
    for name, path in names.items():
        wanted = {whole if whole in names else whole.rpartition(".")[0] for _, whole in imports(path)}
        needs[name] = wanted & set(names) - {name}
    free: set[str] = set()
    while ready := {name for name, wanted in needs.items() if name not in free and wanted <= free}:
        free |= ready
    assert set(needs) - free == set()


def test_no_torch_before_the_kernels() -> None:
    """At the top of a file; ``padp check`` would pay for it."""
    found = [
        f"{below_compiler(path)}: {name}"
        for path in modules("compiler")
        if layer(below_compiler(path)) not in WITH_TORCH
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import)
                     else [node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        if within(name, "torch")
    ]
    assert found == []


@pytest.mark.parametrize("folder", [path.name for path in sorted((ROOT / "compiler").iterdir()) if path.is_dir()
                                    and not path.name.startswith("__")])
def test_a_folder_says_what_is_in_it(folder: str) -> None:
    """The docstring of its ``__init__`` names each of its files, and says what comes in and what goes out."""
    home = ROOT / "compiler" / folder
    said = ast.get_docstring(ast.parse((home / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert "In: " in said and "Out: " in said
    words = set(re.findall(r"\w+", said))
    assert {path.stem for path in home.glob("*.py")} - {"__init__"} <= words


def test_the_picture_of_the_house_is_that_of_now() -> None:
    from tests.architecture_picture import PICTURE, picture

    assert PICTURE.read_text(encoding="utf-8") == picture(), "python -m tests.architecture_picture draws it anew"


def test_no_module_is_called_like_a_public_name() -> None:
    """Importing ``padp/merge.py`` would put the module where ``padp.merge`` belongs."""
    beside = {path.stem for path in (ROOT / "padp").glob("*.py")} | {p.name for p in (ROOT / "padp").iterdir()}
    assert beside & set(padp.__all__) == set()


def test_public_names_load() -> None:
    for name in padp.__all__:
        assert getattr(padp, name) is not None
    assert set(padp.__all__) <= set(dir(padp))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        padp.nothing  # noqa: B018  the access is the test


def test_links() -> None:
    for folder in FOLDERS:
        link = ROOT / "padp" / folder
        assert link.is_symlink() and link.readlink() == Path("..", folder)


def tracked() -> list[str]:
    """The files of a clone, new ones included. A source archive has no git, and then there is nothing to hold."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return [file for file in done.stdout.splitlines() if (ROOT / file).exists()]


def test_entries_at_the_root() -> None:
    files = tracked()
    if not files:
        pytest.skip("not a git clone")
    assert {file.split("/")[0] for file in files} - ENTRIES == set()


RUN = """
import sys
from padp.cli import main
code = main(sys.argv[1:])
loaded = sorted({name.split(".")[0] for name in sys.modules} & {"torch", "transformers", "peft", "matplotlib"})
print("LOADED", loaded, file=sys.stderr)
raise SystemExit(code)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "lora"],
        ["check", "oft", "ssvd", "--format", "json"],
        ["count", "lora", "--size", "m=64,n=32"],
        ["explain", "E301"],
    ],
    ids=" ".join,
)
def test_never_imports_torch(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "LOADED []" in done.stderr


def test_import_padp_is_light() -> None:
    code = "import sys, padp; print(sorted({'torch', 'sympy', 'lark', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_wheel(tmp_path: Path) -> None:
    """Built from a clone, a wheel holds the grammar and the library, and nothing outside padp."""
    files = tracked()
    if not files:
        pytest.skip("not a git clone")
    clone = tmp_path / "padp"
    for file in files:
        target = clone / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, target, follow_symlinks=False)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    done = subprocess.run([*build, str(clone)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("padp-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"padp"}
    wanted = {"padp/py.typed", "padp/dsl/grammar.lark", "padp/dsl/codes.md", "padp/cli/__init__.py"}
    wanted |= {f"padp/stdlib/{path.name}" for path in (ROOT / "stdlib").glob("*.padp")}
    wanted |= {f"padp/{path.relative_to(ROOT).as_posix()}" for folder in FOLDERS for path in modules(folder)}
    assert wanted - names == set()
    assert "padp/stdlib/prelude.padp" in names
