"""Tree → resolved program: every name gets its meaning, one variant is chosen.

In: the tree of ``padp.dsl``. Out: a ``Method`` of statements and terms (``terms``), or findings with their places.

    resolve, terms                    the driver, and what it gives
    header, variants, declarations, functions, assignments    the statements; ``gathered`` is what they gather
    expressions, identifiers, calls   the expressions; ``glued`` names side by side, ``given`` what sites give
    spaces, index_ranges              declared spaces and starts; how far an index runs
    reading, scope, signatures        what all of these share: findings, names in force, operators' arities
    comments, comment_declarations    comments in pieces; declarations that only a comment makes
    remedies                          what to write instead of a term whose types do not fit
"""
