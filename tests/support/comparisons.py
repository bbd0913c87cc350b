"""Whether two runs, or two trainings, left exactly the same behind."""

import pandas as pd
import torch

from engine import BacktestResult


def same(one: BacktestResult, two: BacktestResult):
    for name in vars(one):
        a, b = getattr(one, name), getattr(two, name)
        if isinstance(a, pd.DataFrame):
            pd.testing.assert_frame_equal(a, b, check_freq=False)
        elif isinstance(a, pd.Series):
            pd.testing.assert_series_equal(a, b, check_freq=False)
        elif name == "states":
            assert a.keys() == b.keys()
            for fold in a:
                assert all(torch.equal(a[fold][key], b[fold][key]) for key in a[fold])
        else:
            assert a == b


def equal(one, two):
    """Whether two trainings left the same: states, histories, solves and checks."""
    mine, theirs = one.module.state_dict(), two.module.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert one.history.equals(two.history)
    assert one.solves == two.solves
    assert one.checks == two.checks
