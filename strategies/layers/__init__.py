"""Implicit layers: fixed points, deep equilibrium encoders, the mean-variance layer.

Mathematics only, no finance data. Read ``fixed_point.py``, ``deq.py``, ``mean_variance.py``.
"""
