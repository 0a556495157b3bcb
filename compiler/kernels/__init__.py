"""The functions that plans and the literal reading are made of. torch begins here.

In: tensors. Out: tensors; the mathematics is in the docstrings.

    dense, waves        what each operator means on dense tensors; Fourier transforms that also take nothing
    itemwise            operators on families, item by item, for the literal reading alone
    table               what a plan calls for each kind of step
    products            a product of vectors with a matrix: which routine, forward and backward
    each_block, circulants, sparse, spectral, slices    structured matrices on vectors
    orthonormal         tensors in a space of orthonormal matrices
    singular            what has no inverse, refused by name
    torch_state         what torch does around what runs now: compiling, tracing, transforming, casting
"""
