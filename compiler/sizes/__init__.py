"""Sizes: from what a layer and its user say (m, n, r, k …) to every dimension of a program.

In: a ``Method``, the shapes of a layer, hyperparameters. Out: a number for each name, or E501 with both sides.

    solve      relations, solved
    settings   hyperparameters as they are kept and stored: plain numbers and texts
"""
