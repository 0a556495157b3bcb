"""Resolved program → typed IR, for all sizes or for some.

In: a ``Method``. Out: ``Elaborated``: the output's node, the names' nodes, the conditions on sizes, findings.

    elaborate, state    the driver; what it carries along and gives
    cases               a program that an open conditional splits: one typed program a case
    loops               statements and loops: assignments, indexed writes, the three readings of a loop
    meanings            terms: names, calls, indices, sums, spaces
    algebra, norms      what + · @ ⊙ / and powers mean for each pair of ranks; quotients by norms
    groupings           products that could be read in two ways
    conditions, asks    what is asked of sizes: by indices and spaces; by operators
"""
