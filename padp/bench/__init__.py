"""``padp bench``: compiled adapters beside the frozen layer and beside other libraries, in one run.

    measure.py   what is measured on one layer, and how (interleaved repeats, medians, bytes saved for backward)
    peft.py      the same methods as PEFT builds them
    report.py    the table, the JSON and the plot
"""
