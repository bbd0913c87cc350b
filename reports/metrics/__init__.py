"""Each number of the report from its definition; ``catalogue`` lists them all.

``engine.accounting.performance`` has the conventions and the metrics that training shares. Here are
``gains_and_losses``, ``periods``, ``relative`` (to a benchmark or factors), ``trading`` and
``forecasts``.
"""
