"""Normal form → plan: the cheapest tensor operations that compute it, without torch.

In: normal forms at one layer's sizes, and a regime (how many tokens, training or not). Out: steps, in stages.

    steps, costs                    what a plan is made of; what each step costs
    planners, planner               a planner with what every operator knows; all ways to a value
    values, rearranging, sums       an operator's tensor; entries moved; sums of terms on vectors
    applied                         a matrix on vectors without being built, by its structure:
    blocks, grids, gathers, one_pass, rotations, rotation_rounds
    search                          which set of ways is the cheapest in all
    fusing, recompute               neighbours in one call; what training makes again in backward
    verify                          what holds of every plan
    room                            how much memory a program may ask for
"""
