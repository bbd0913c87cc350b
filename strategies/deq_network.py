"""The network of DEQMeanVariance, and its parts.

Read ``DEQMeanVarianceNetwork.weights_and_forecast``: it is the whole strategy, top to bottom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from strategies.contract_types import Inputs
from strategies.layers.kernel_calls import refuse_second_derivative
from strategies.layers.optimisation.consecutive import weights_from_holdings, weights_on_dates
from strategies.layers.optimisation.mean_variance import FactorRisk, MeanVarianceLayer
from strategies.layers.solve_record import note_exposure
from strategies.signal_forecast import SignalForecast
from strategies.strategy_constraints import KEPT, count, fix_bounds, limits_in

SAMPLES, CHUNK = 250, 32  # most rows whose volatility the target is the median of; at a time
SPEED = 5.0  # the cost of trading spans decades: its logarithm is learned so many times faster


class DEQMeanVarianceNetwork(nn.Module):
    """Features (B, N, F) and covariances (B, N, N), or their factors, in; weights (B, N) out.

    With ``holdings`` (B, N) among the inputs, each sample trades from its own; with ``drift``
    (and ``carry_rates``), the samples are consecutive dates, each of which trades from the one
    before. With neither, the cost of trading is left out.

    Where ``invested`` says how much may be, at least and at most, the weights are an exposure times
    a portfolio that sums to one, whose own weights in the holdings the cost of trading is of.
    """

    def __init__(
        self,
        scaler: nn.Module,
        encoder: nn.Module,
        optimiser: MeanVarianceLayer,
        hidden: int,
        ridge: float,
        inertia: float = 0.0,
        proportional: float = 0.0,
        invested: tuple[float, float] | None = None,
        cleaning: bool = False,
        row_names: Sequence[str] = (),
        forecast: SignalForecast | None = None,
    ):
        super().__init__()
        self.scaler = scaler
        self.encoder = encoder
        self.optimiser = optimiser
        self.row_names = list(row_names) or None  # of groups and exposures, for messages
        self.heads = nn.Linear(hidden, 3)  # expected return, risk scale, ridge of each asset
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)
        self.log_ridge = nn.Parameter(torch.tensor(math.log(ridge)))
        self.inertia = inertia
        if inertia:  # the logarithm of the cost over the one at the start, divided by SPEED
            self.log_inertia = nn.Parameter(torch.zeros(()))
        self.proportional = proportional
        if proportional:
            self.log_proportional = nn.Parameter(torch.zeros(()))
        self.exposure = None if invested is None else InvestedShare(hidden, *invested)
        self.forecast = forecast
        self.cleaning = EigenvalueCleaning(hidden) if cleaning else None

    def forward(self, inputs: Inputs) -> Tensor:
        return self.weights_and_forecast(inputs)[0]

    def weights_and_forecast(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor | None]:
        """The weights and the expected returns q behind them, (B, N) each; and, with cash, the
        predicted variance (B,) a year of the invested part, the weights over their sum."""
        # What is predicted of each asset
        trades = inputs["trades"]  # (B, N), whether an asset trades
        state = self.encoder(self.scaler(inputs["features"]), trades)  # (B, N, H), f(z*) = z*
        expected_return, scale, ridge = self.heads(state).unbind(-1)  # (B, N) each
        if self.forecast is not None:
            expected_return = expected_return + self.forecast(inputs)
        expected_return = expected_return * trades
        ridge = self.log_ridge.exp() * within(ridge, 4.0)
        market = state.sum(-2) / trades.sum(-1, keepdim=True).clamp_min(1)  # (B, H), mean state
        cleaned = None if self.cleaning is None else self.cleaning(inputs, market)
        risk = scaled_risk(inputs, within(scale, 2.0), ridge, cleaned)

        # The portfolio, from the holdings where they are known
        limits = limits_in(inputs) | {"row_names": self.row_names}
        holdings, held = inputs.get("holdings"), torch.zeros_like(expected_return)
        cost, paid = None, None  # of trading, in units of the mean variance; of value traded
        if self.inertia:
            cost = self.inertia * (SPEED * self.log_inertia).exp()
        if self.proportional:
            paid = self.proportional * (SPEED * self.log_proportional).exp()
        if cost is not None and holdings is not None:  # what is suspended is kept
            held = holdings * inputs["suspended"]
            if self.exposure is not None:  # without cash, so that they sum to one
                total = holdings.sum(-1, keepdim=True)
                holdings = holdings / torch.where(total > 0, total, 1.0)
            if (fixed := held != 0).any():
                count(KEPT, int(fixed.sum()))
                fix_bounds(limits, fixed, holdings * fixed)
            weights = weights_from_holdings(
                self.optimiser, risk, expected_return, cost, holdings, paid, **limits
            )
        elif cost is not None and "drift" in inputs:
            limits["rates"] = None if self.exposure is not None else inputs.get("carry_rates")
            limits["proportional"] = paid
            weights = weights_on_dates(
                self.optimiser, risk, expected_return, cost, inputs["drift"], **limits
            )
        else:
            weights = self.optimiser(risk, expected_return, **limits)

        # How much of it is held, the rest in cash
        variance = None
        if self.exposure is not None:
            exposure, variance = self.exposure(weights, market, inputs)
            weights = exposure * weights
        weights = torch.where(held != 0, held, weights)  # exactly: no order
        return weights, expected_return, variance

    def start_volatility(self, inputs: Inputs) -> Tensor:
        """Volatility a year of the fully invested portfolio before the first step, in some rows."""
        rows = torch.linspace(0, len(inputs["trades"]) - 1, SAMPLES).long().unique()
        found = []
        with torch.no_grad():
            for few in rows.split(CHUNK):
                part = {name: values[few] for name, values in inputs.items()}
                one = torch.ones_like(part["trades"], dtype=torch.float64)
                cleaned = None if self.cleaning is None else self.cleaning(part)
                risk = scaled_risk(part, one, self.log_ridge.double().exp() * one, cleaned)
                limits = limits_in(part) | {"row_names": self.row_names}
                weights = self.optimiser(risk, torch.zeros_like(one), **limits)
                found.append(portfolio_volatility(weights, part))
        return torch.cat(found)


class Standardise(nn.Module):
    """Features to mean 0 and deviation 1, as measured on the training rows that trade.

    What is not known (NaN) becomes the mean.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: Tensor, trades: Tensor):
        super().__init__()
        seen = features[trades]  # (rows that trade, F), a copy: all dates of the training
        mean = _nanmean(seen).nan_to_num(0.0)
        spread = _nanmean(seen.sub_(mean).square_()).nan_to_num(0.0).sqrt()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", spread.clamp_min(1e-6))

    def forward(self, features: Tensor) -> Tensor:
        scaled = (features - self.mean).div_(self.deviation)  # one copy: it is made at every step
        return scaled.clamp_(-5, 5).nan_to_num_(0.0)


def _nanmean(values: Tensor) -> Tensor:
    """``values.nanmean(dim=0)`` (F,) of (M, F), which takes as much memory again to count."""
    known = torch.stack([column.isnan().logical_not_().sum() for column in values.T])
    return values.nansum(dim=0) / known


def scaled_risk(
    inputs: Inputs, scale: Tensor, ridge: Tensor, cleaned: Tensor | None = None
) -> Tensor | FactorRisk:
    """``diag(scale) S diag(scale) + diag(ridge)``, (B, N) both, in the form that S is given in.

    Args:
        cleaned: S (B, N, N), where it is none of the inputs.
    """
    if "loadings" in inputs:
        specific = scale.square() * inputs["specific"] + ridge
        return FactorRisk(scale.unsqueeze(-1) * inputs["loadings"], specific)  # never (B, N, N)
    return _ScaledCovariance.apply(
        inputs["covariance"] if cleaned is None else cleaned, scale, ridge
    )


class _ScaledCovariance(torch.autograd.Function):
    """``diag(s) S diag(s) + diag(r)`` (B, N, N), without the copies that autograd would make."""

    @staticmethod
    def forward(ctx: Any, covariance: Tensor, scale: Tensor, ridge: Tensor) -> Tensor:
        ctx.save_for_backward(covariance, scale)
        risk = covariance * scale.unsqueeze(-1)
        risk *= scale.unsqueeze(-2)
        risk.diagonal(dim1=-2, dim2=-1).add_(ridge)
        return risk

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        refuse_second_derivative("the risk's gradient", "write the scaling in torch")
        covariance, scale = ctx.saved_tensors
        pull = grad * covariance
        inner = None
        if ctx.needs_input_grad[0]:
            inner = grad * scale.unsqueeze(-1) * scale.unsqueeze(-2)
        by_row = (pull * scale.unsqueeze(-2)).sum(-1)
        by_column = pull.mul_(scale.unsqueeze(-1)).sum(-2)
        return inner, by_row + by_column, grad.diagonal(dim1=-2, dim2=-1).clone()


class EigenvalueCleaning(nn.Module):
    """Covariance of ``covariance.correlation_parts``, an eigenvalue x of the correlation made

        c(x) = m(x) ((1 - a) x + a),    over their mean,

    by a network m between 1/10 and 10 of x, the share of eigenvalues below it, the intensity a, and
    the mean state of the assets. At first m is 1: the shrinkage of Ledoit & Wolf (2004).

    In the spirit of Bongiorno, Manolakis & Mantegna (2025), arXiv:2507.01918: learned from the
    variance of the portfolio in later rows, it needs no theory of the noise, and is the same for
    any number of assets: in a sample, small eigenvalues are too small, and large ones too large.

    Args:
        hidden: width H of the states, and of this network.
    """

    def __init__(self, hidden: int):
        super().__init__()
        self.of_values = nn.Linear(4, hidden)
        self.of_state = nn.Linear(hidden, hidden, bias=False)
        self.out = nn.Linear(hidden, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, inputs: Inputs, state: Tensor | None = None) -> Tensor:
        """(B, N, N), with the mean state (B, H); without one, as before the first step."""
        values, share = inputs["eigenvalues"], inputs["intensity"].unsqueeze(-1)  # (B, N), (B, 1)
        cleaned = ((1 - share) * values + share).clamp_min(1e-6)
        if state is not None:
            below = (
                (values.unsqueeze(-2) < values.unsqueeze(-1)).to(values.dtype).mean(-1)
            )  # (B, N)
            seen = [cleaned.log(), values.clamp_min(1e-3).log(), below, share.expand_as(values)]
            raw = self.of_values(torch.stack(seen, dim=-1)) + self.of_state(state).unsqueeze(-2)
            cleaned = cleaned * within(self.out(torch.tanh(raw)).squeeze(-1), 10.0)
            cleaned = cleaned / cleaned.mean(-1, keepdim=True)
        vectors = inputs["deviations"].unsqueeze(-1) * inputs["eigenvectors"]
        return (vectors * cleaned.unsqueeze(-2)) @ vectors.mT


class InvestedShare(nn.Module):
    """``min(most, target / volatility)`` of a portfolio, which a head corrects; the rest is cash.

    At first the head is zero: the rule of Moreira & Muir (2017), "Volatility-managed portfolios".

    Args:
        hidden: width H of the states.
        least, most: the smallest exposure, from 0 to 1, and the largest.
    """

    target: Tensor

    def __init__(self, hidden: int, least: float, most: float = 1.0):
        super().__init__()
        self.least, self.most = least, most
        self.head = nn.Linear(hidden, 1)  # of the mean state: logarithm of a factor
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("target", torch.ones((), dtype=torch.float64))

    def aim(self, target: float | None, volatility: Tensor) -> None:
        """Set the target: what is given, or the median of the volatility (R,) in training.

        Raises:
            ValueError: no exposure reaches what is given in any of several rows.
        """
        low, high = (self.most * float(end) for end in volatility.aminmax())
        if target is not None and len(volatility) > 1 and not target <= high:
            held = "fully invested" if self.most == 1 else f"with an exposure of {self.most:g}"
            raise ValueError(
                f"a target volatility of {target:.0%} a year is out of reach: {held}, the "
                f"untrained portfolio has {low:.0%} to {high:.0%} in the training rows; lower the "
                f"target{', or set cash=False' if self.most <= 1 else ''}"
            )
        usual = min(self.most, 1.0) * volatility.quantile(0.5)
        self.target = usual if target is None else torch.as_tensor(target)

    def forward(self, weights: Tensor, state: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """The exposure (B, 1) of weights (B, N) that sum to one, with the mean state (B, H), and
        the predicted variance (B,) of these weights a year."""
        factor = within(self.head(state), 2.0)
        volatility = portfolio_volatility(weights, inputs)
        predicted = volatility.unsqueeze(-1) / factor  # (B, 1)
        exposure = (self.target / predicted).clamp(self.least, self.most)
        note_exposure(
            exposure.detach().squeeze(-1).cpu().numpy(), volatility.detach().cpu().numpy()
        )
        return exposure, predicted.squeeze(-1).square()


def portfolio_volatility(weights: Tensor, inputs: Inputs) -> Tensor:
    """Volatility a year (B,) of weights (B, N) on recent returns, see ``recent_risk``."""
    variance = (inputs["recent"] @ weights.unsqueeze(-1)).square().sum((-2, -1))
    if "recent_specific" in inputs:
        variance = variance + (inputs["recent_specific"] * weights.square()).sum(-1)
    return variance.clamp_min(1e-12).sqrt()


def within(raw: Tensor, factor: float) -> Tensor:
    """A positive multiplier between 1/factor and factor; 1, with slope 1, at raw = 0."""
    bound = math.log(factor)
    return (bound * torch.tanh(raw / bound)).exp()
