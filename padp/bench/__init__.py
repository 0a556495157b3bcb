"""``padp bench``: compiled adapters beside the frozen layer and beside other libraries, in one run.

    measure.py   what is measured on one layer, and how (interleaved repeats, medians, bytes saved for backward)
    methods.py   who builds which method how
    peft.py      as PEFT builds them
    hand/        as they are written by hand: the yardstick
    report.py    the table and the JSON
    picture.py   the plot
"""
