"""The typed IR: what a program means for all sizes, as an immutable graph of shared nodes.

In: nothing of ours but texts and places (``padp.dsl``). Out: ``Node``, with its ``Type``, for every later phase.

    dims       whole numbers, known or symbolic: when two are equal, and how they are shown
    nodes      axes, types, nodes, and walks over them
    build      typed constructors of the algebra; none rewrites anything
    patterns   steps of a chain that have a closed form
    verify     what holds of every sound graph
    budget     how many steps all work on one program may take
"""
