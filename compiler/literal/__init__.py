"""The literal dense reading: small, slow, and the specification of everything else.

In: a ``Method`` and tensors. Out: the tensors that the text says, every matrix built. Shares no plan.

    reference    a program on a layer
    evaluation   one run: every statement, every kind of term
    values       dense values and their algebra
    updates      what happens after backward
"""
