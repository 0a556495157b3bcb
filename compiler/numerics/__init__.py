"""Numbers against rules: programs at small random sizes, in float64.

In: a source. Out: findings that only numbers give.

    numerics    ``padp check --numerics``: claims that no rule decides, and the rules themselves
    agreement   a compiled program against its literal reading
    trials      small sizes at which a program can be run
"""
