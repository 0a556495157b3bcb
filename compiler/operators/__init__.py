"""The operators of the language: their signatures, and what a rule about one may ask.

In: typed arguments. Out: typed nodes. What else is known of an operator stands with the phase that asks for it
(``normal/operator_rules``, ``facts``, ``plan/values``, ``plan/applied``, ``plan/costs``, ``kernels/dense``).

    table        one entry an operator: name, signature, documentation, the shape for all sizes
    index_rows   index sets as plain numbers
    index_sets   index vectors that the sizes alone determine, and which of them are views
    formulas     values as people write them, for messages
    asking       what a rule about structure may ask of the parts of a value
    rewriting    what a rewrite rule may ask of the normal form that it is a part of
"""
