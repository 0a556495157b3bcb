"""Everything that is said about a program without torch.

In: a source. Out: diagnostics in the order of the text.

    check                            the driver
    claims, claim_grammar            what comments claim; which pieces of them claim something
    claimed_counts, claimed_values   counts, and shapes, ranks and properties, against what is known
    feasible, defaults               whether any layer's sizes will do, and the program's own defaults
    lints                            what is allowed and probably not meant: ``lints_of_names``, ``lints_of_products``,
                                     ``lints_of_quotients``, ``lints_of_sums``, ``lints_of_gradients``
"""
