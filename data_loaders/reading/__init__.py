"""Read tables of prices as people have them: files, frames and folders.

Every table goes the same way. ``text_layout`` and ``csv_tables``, ``arrow_tables`` or ``frames``
make a ``Table``: named columns of dates, numbers and text. ``meaning`` matches the names to fields
(``names``) and says which column holds what. ``dates`` reads the dates, and ``assembly`` makes the
prices and features. What can be read in two ways is refused with both readings.
"""
