"""The robust layer's record of solves."""

import torch

from strategies.layers.optimisation.robust import RobustLayer
from strategies.layers.solve_record import MEAN_VARIANCE, record_solves


def test_only_the_last_newton_step_is_a_portfolio():
    draw = torch.Generator().manual_seed(0)
    scenarios = torch.randn(3, 40, 5, generator=draw, dtype=torch.float64)
    q = torch.randn(3, 5, generator=draw, dtype=torch.float64)
    with record_solves(details=True) as record:
        weights = RobustLayer()(scenarios, q, 0.1, upper=0.5)
    assert record.tallies["robust mean-variance"].most_steps > 2
    ((kind, solved),) = record.details
    assert kind == MEAN_VARIANCE
    torch.testing.assert_close(solved.solution.weights, weights)
