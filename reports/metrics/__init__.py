"""Each number of the report from its definition; ``catalogue`` lists them all.

``returns`` has the conventions. Its neighbours: ``calendars``, ``distribution``, ``drawdowns``,
``relative`` (to a benchmark or factors), ``trading`` and ``capacity``.
"""
