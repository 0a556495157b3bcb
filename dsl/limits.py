"""How large a program may be.

Each limit is far above what a person writes and below what makes a compiler slow or a recursion deep. A program
that passes one of them is refused with E105; nothing is cut off silently.
"""

MAX_TEXT = 200_000
"""Characters in a program."""

MAX_STATEMENT = 10_000
"""Characters in one statement, all of its lines together."""

MAX_WORDS = 12_000
"""Names, numbers and signs in the code of a program, comments not counted."""

MAX_STATEMENTS = 5_000
"""Logical lines in a program, comment lines included."""

MAX_NESTING = 60
"""Brackets inside brackets, and blocks inside blocks."""

MAX_HEIGHT = 160
"""Height of one statement's tree: what a recursive function over it may have to descend. A sum of so many terms
is as high as brackets of that depth, because ``a + b + c`` is ``(a + b) + c``."""

MAX_NAME = 100
"""Characters in a name."""

MAX_DIGITS = 40
"""Characters in a number."""

MAX_INTEGER = 2**63 - 1
"""The largest whole number."""

MAX_EXPONENT = 100
"""The largest exponent of a number, a size or a matrix."""

MAX_BITS = 64
"""Binary digits of a power of numbers that a program computes."""

MAX_TERMS = 1_000
"""Terms of a sum and factors of a product, with all names written out: ``C ← C @ C`` doubles them each time."""

MAX_CALLS = 50
"""Functions that are called inside each other."""

MAX_STEPS = 300_000
"""Steps that the check of a program takes, all of its variants together; ``compiler/ir/budget.py`` says what a step
is."""

MAX_PLAN_STEPS = 200_000
"""Steps that typing and planning a program for one layer takes."""

MAX_FORMULA = 100
"""Terms of a size or a count when it is multiplied out."""

MAX_FORMULA_PARTS = 500
"""Names, numbers and signs of a size or a count with all names written out: min(n, q + m) doubles where q is one."""

MAX_ROUNDINGS = 16
"""Roundings, minima and maxima of a size or a count with all names written out."""

MAX_ENTRIES = 2**26
"""Entries of all declared tensors of a site together, and of one tensor that a plan builds, beside a small layer."""

MAX_TIMES_WEIGHT = 16
"""The same beside a large one: so many times the entries of its weight."""

MAX_PLACES = 2**21
"""Numbers in an index set."""

MAX_ERRORS = 20
"""Errors reported in one run; the rest is counted."""
