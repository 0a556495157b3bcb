"""What ``padp show`` tells of a plan.

In: a ``Compiled``. Out: one record (``plan``), and its renderings.

    plan, record               what is computed when, what it costs, what was chosen and what was not; its fields
    as_written                 what the literal reading would cost
    rules_used                 which rule did what
    dumps                      the value of each phase as text
    text, as_json, picture     renderings; ``drawing`` places boxes and arrows
"""
