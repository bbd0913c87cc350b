import numpy as np
import pytest
import torch

from engine import NegativeLogGrowth, NegativeMeanVariance, NegativeSharpe
from engine.accounting.costs import Account

RETURNS = np.array([0.01, -0.02, 0.03, 0.015, -0.005])


def account(returns):
    returns = torch.as_tensor(returns, dtype=torch.float64)
    weights = torch.ones(len(returns), 1).double()
    asset_returns = (returns + 0.001).unsqueeze(-1)
    return Account(
        returns + 0.001, returns, returns * 0 + 0.001, returns * 0, weights, asset_returns
    )


def test_each_loss_against_its_definition():
    a = account(RETURNS)
    mean, std = RETURNS.mean(), RETURNS.std(ddof=1)
    assert NegativeSharpe()(a, 52).item() == pytest.approx(-mean / std * 52**0.5, rel=1e-14)
    utility = (mean - 2 / 2 * std**2) * 52
    assert NegativeMeanVariance(aversion=2)(a, 52).item() == pytest.approx(-utility, rel=1e-14)
    assert NegativeLogGrowth()(a, 52).item() == pytest.approx(-np.log1p(RETURNS).mean() * 52)


def test_losses_add_and_scale():
    a = account(RETURNS)
    sharpe, growth = NegativeSharpe(), NegativeLogGrowth()
    mixed = sharpe + 0.5 * growth
    assert mixed(a, 52).item() == pytest.approx(sharpe(a, 52).item() + growth(a, 52).item() / 2)


@pytest.mark.parametrize("loss", [NegativeSharpe(), NegativeMeanVariance(), NegativeLogGrowth()])
def test_losses_are_differentiable(loss):
    returns = torch.tensor(RETURNS, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: loss(account(r), 52), (returns,))


def test_constant_returns_have_a_finite_gradient():
    returns = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    NegativeSharpe()(account(returns), 52).backward()
    assert torch.isfinite(returns.grad).all()


def test_too_few_periods():
    with pytest.raises(ValueError, match="at least 3 periods, got 2"):
        NegativeSharpe()(account([0.1, 0.2]), 52)
    assert NegativeSharpe()(account([0.1, 0.2, 0.3]), 1).item() == pytest.approx(-2)


def test_losses_add_with_losses_and_scale_with_numbers_alone():
    assert sum([NegativeSharpe(), NegativeLogGrowth()]) == NegativeSharpe() + NegativeLogGrowth()
    for wrong in (lambda: NegativeSharpe() + 3, lambda: 3 + NegativeSharpe()):
        with pytest.raises(TypeError, match="unsupported operand"):
            wrong()
    with pytest.raises(TypeError, match=r"can't multiply|unsupported operand"):
        NegativeSharpe() * "a"


def test_a_composed_loss_reads_as_it_was_written():
    """A run is told apart by it: other losses read otherwise."""
    sharpe, growth, utility = NegativeSharpe(), NegativeLogGrowth(), NegativeMeanVariance(3.0)
    written = "NegativeSharpe() + 0.1 * NegativeLogGrowth()"
    assert repr(sharpe + 0.1 * growth) == written
    assert repr(2 * (sharpe + growth)) == "2.0 * (NegativeSharpe() + NegativeLogGrowth())"
    assert repr(sharpe + growth + utility) != repr(sharpe + (growth + utility))
    assert eval(written) == sharpe + 0.1 * growth
