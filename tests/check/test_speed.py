"""Checking starts cold in under 1.5 s, and all of the library compiles in under 2 s once padp is imported.

These are seconds of a machine that imports sympy in 0.45 s. Processor time of processes of their own is measured, and
divided by what importing sympy takes on the machine at hand, in turns with it, the least of five runs each: neither a
slow machine nor other work on it counts.
"""

from __future__ import annotations

import resource
import subprocess
import sys

import sympy as sp

from padp.compiler.elaborate.conditions import Condition, _decided, decide  # pyright: ignore[reportPrivateUsage]
from padp.compiler.ir.dims import same, symbol
from padp.compiler.library import library
from padp.dsl.source import Span

YARDSTICK = 0.45
RUNS = 5


def used(*command: str) -> float:
    """User and system seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds(*commands: tuple[str, ...]) -> list[float]:
    """Seconds of each command on a machine with the yardstick."""
    found = [[used(*c) for c in (("-c", "import sympy"), *commands)] for _ in range(RUNS)]
    yard, *least = (min(runs) for runs in zip(*found, strict=True))
    return [t / yard * YARDSTICK for t in least]


def test_checking_starts_cold_in_time() -> None:
    (cold,) = seconds(("-m", "padp", "check", "clover"))
    assert cold < 1.5


def test_the_library_compiles_in_time() -> None:
    names = ", ".join(map(repr, library()))
    imports = "import padp, padp.compiler.check.check"
    everything, nothing = seconds(("-c", f"{imports}\nfor name in [{names}]: padp.compile(name)"), ("-c", imports))
    assert everything - nothing < 2


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
    assert not same(m, sp.Integer(36)) and not same(m**2 / 3, 12 * m)  # equal at some sizes
    assert same(2 ** (m + 1), 2 * 2**m) and same(sp.sqrt(m) ** 2, m)


def test_one_condition_is_decided_once() -> None:
    """With its facts: under r ≤ m it holds, without them the sizes decide."""
    r, m = symbol("r"), symbol("m")
    asked = Condition(r, m, Span(0, 0))
    _decided.cache_clear()
    assert decide(asked) is None and decide(asked, (m - r,)) is True and decide(asked, [r - m - 1]) is False
    assert decide(asked) is None and decide(Condition(r, m, Span(3, 4)), (m - r,)) is True
    assert _decided.cache_info().misses == 3 and _decided.cache_info().hits == 2
