"""The figures of the report, drawn as SVG without a plotting library.

Read in this order: ``ticks`` (where an axis is marked), ``axes`` (the drawing surface), ``charts``
(kinds of figures), ``timeline`` (the folds of a plan), ``sections`` (which figures a report has).
"""
