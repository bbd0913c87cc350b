"""The figures of the report, drawn as SVG without a plotting library.

Read in this order: ``axes`` (the drawing surface and its scales), ``charts`` (kinds of figures),
``sections`` (which figures a report has).
"""
