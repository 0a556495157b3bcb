"""Checking starts cold in under 1.5 s, and all of the library compiles in under 2 s once padp is imported.

Processor time of a process of its own is measured, the least of three runs: other work on the machine does not count.
"""

from __future__ import annotations

import resource
import subprocess
import sys

import sympy as sp

from padp.compiler.dims import same, symbol
from padp.compiler.program import library


def seconds(*command: str) -> float:
    """User and system seconds of a command, the least of three runs."""
    found: list[float] = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def test_checking_starts_cold_in_time() -> None:
    assert seconds("-m", "padp", "check", "clover") < 1.5


def test_the_library_compiles_in_time() -> None:
    names = ", ".join(map(repr, library()))
    code = f"import padp, padp.compiler.check\nfor name in [{names}]: padp.compile(name)"
    assert seconds("-c", code) - seconds("-c", "import padp, padp.compiler.check") < 2


def test_checking_loads_little_of_sympy() -> None:
    """``sp.simplify`` loads the units of physics: a quarter of a second, for nothing."""
    names = ", ".join(map(repr, library()))
    code = f"import padp, sys\nfor n in [{names}]: padp.check(n)\nassert 'sympy.physics' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dimensions_are_the_same_for_all_sizes_or_not() -> None:
    m, n, k = symbol("m"), symbol("n"), symbol("k", even=True)
    assert same(k * (k - 1) / 2, k**2 / 2 - k / 2)
    assert same((m + n) * k, m * k + n * k)
    assert same(sp.Min(m, n) + 1, 1 + sp.Min(n, m))
    assert same((m**2 - n**2) / (m - n), m + n)  # only simplify sees it
    assert same(2 * sp.floor(m / 2), m)  # for the sizes at which the rounding is exact
    assert not same(m, n)
    assert not same(sp.Min(m, n), m)
    assert not same(m * n, m * n + k - 2)
    assert not same(m * (m - 1) / 2, m**2 / 2)
