"""Plan → torch.fx graphs: what all layers of one shape share.

In: a ``Method`` at one layer's sizes. Out: ``Compiled``: a graph for each use of each regime, and what is kept.

    compile      all graphs of one size
    roots        what kept values and starts are computed from
    stages       steps as torch.fx
    few_tokens   a graph for a few tokens that nobody looks into
    remade       the training run that makes dropped values again
"""
