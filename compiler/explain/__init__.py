"""What ``padp show`` tells of a plan.

In: a ``Compiled``. Out: one record (``record``), and its renderings.

    record                     what is computed when, what it costs, what was chosen and what was not
    as_written                 what the literal reading would cost
    rules_used                 which rule did what
    text, as_json, picture     renderings; ``drawing`` places boxes and arrows
"""
