"""The normal form: equal programs become one sum of chains, whatever way they are written.

In: typed nodes. Out: typed nodes, rewritten; every rule is an equation, which stands in its docstring.

    normal_form      sums and products, common factors, transposes and detaches at the leaves
    operator_rules   rules of one operator each
    grids, parts     matrices written in blocks, and in parts
    decompositions   the parts of a decomposition, and W put back in the place of all of them
    affine           where x enters: the base layer's own product, and what is affine in x
    head_maps        an attention as one small map a head
    carried          what a loop carries, seen from inside its steps
"""
