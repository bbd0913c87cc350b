"""Strategies: rules and networks that turn what is known into weights.

Read in this order: ``base.py`` (the contract) with ``contract_types.py``, ``baselines.py`` (rules),
``deq.py`` (DEQMeanVariance, the flagship) with ``deq_network.py``, then ``ablations.py`` (with one
part exchanged), ``linear_mean_variance.py`` and ``estimators.py`` (anyone's). What they share:
``features.py``, ``signal_forecast.py``, ``covariance.py``, ``parameter_ranges.py``,
``constraints.py`` (limits of weights) and ``strategy_constraints.py`` (the same at a date).
``wrappers`` stand around a strategy, ``registry.py`` finds one by its name. The mathematics, which
knows no finance, is in ``layers``.
"""

from data_loaders.package_imports import import_on_use

import_on_use(__name__)
