"""What is known of a program: of its values, of a fresh adapter, of its parameters.

In: normal forms. Out: answers with reasons; what no rule says is not known.

    facts                                the questions, and the rules that answer them:
    symmetry, ranks, orthogonality, reflections, determinants
    fresh, fresh_rules                   what an adapter is before training
    defined, generic                     what has a value at all; what is not 0
    multiplied, entries                  sums of products, multiplied out; entries that are known numbers
    untrained                            tensors that stay at 0 for ever
    counts                               learned scalars a site, as a formula
    requirements                         what a program asks of sizes beyond its relations
    abilities                            what an adapter can do, each with the reason
"""
