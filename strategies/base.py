"""The contract between strategies and the engine.

A rule is a ``Strategy`` with one method, ``allocate``. A network is a ``LearnedStrategy`` with
one method, ``build``; the engine trains what it returns. Both see only panels that end at the
decision date, so there is nothing to peek at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import Parameter, signature
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError

from data_loaders import Panel
from strategies.contract_types import Bracket, Inputs, Plan, holdings_input, stack
from strategies.parameter_ranges import Range, above, at_least, check_ranges

if TYPE_CHECKING:  # torch takes a second to import, and a rule needs none
    from torch import Tensor, nn

    from strategies.constraints import Constraints


def asks_for_book(strategy: Strategy) -> bool:
    """Whether its ``allocate`` is to be given a ``Book``; of a wrapper that passes it on, whether
    the strategies inside ask."""
    asked = signature(strategy.allocate).parameters.get("book")
    if asked is None:
        return False
    inner = strategy.inner_strategies().values()
    return asked.default is Parameter.empty or not inner or any(map(asks_for_book, inner))


def fit_to_plan(strategy: Strategy, history: Panel, plan: Plan | None) -> Strategy:
    """Fit a strategy, and give it the plan if its ``fit`` takes one."""
    plans = {"plan": plan} if "plan" in signature(strategy.fit).parameters else {}
    fitted = strategy.fit(history, **plans)
    return strategy if fitted is None else fitted  # ``return self`` is easily forgotten


class Strategy(BaseEstimator):
    """A rule that turns what is known at a date into target weights.

    Parameters are arguments of ``__init__``, kept under the same names (as in scikit-learn:
    ``clone``, ``get_params`` and ``set_params`` work). ``lookback`` is the number of rows of
    history that ``allocate`` needs; the engine hands it exactly so many, the last of them
    the decision date. ``equivariant`` claims that permuting the assets permutes the weights;
    ``engine.check_strategy`` holds a strategy to it. ``uses_calendar`` (a rule of Easter, a date of
    law) and ``uses_price_level`` (no stock below 5 dollars) declare what it would else be accused
    of: looking things up by date, or in the level of a price.

    ``ranges`` says which values parameters may have, like ``{"count": at_least(1)}``
    (``strategies/parameter_ranges.py``); it is checked before anything is run.

    Two more attributes are promises where a strategy has them, and the engine refuses weights that
    break them: ``cap``, a number, the largest absolute weight of an asset, and ``constraints``, a
    ``Constraints`` or its plain values.
    """

    lookback: int = 253
    equivariant: bool = False
    uses_calendar: bool = False
    uses_price_level: bool = False
    short: bool = False  # may hold negative weights
    leverage: float = 1.0  # most that absolute weights may sum to
    ranges: ClassVar[Mapping[str, Range]] = {"lookback": at_least(1), "leverage": above(0)}

    @classmethod
    def all_ranges(cls) -> dict[str, Range]:
        """Its own and those of its base classes."""
        found: dict[str, Range] = {}
        for each in reversed(cls.__mro__):
            found |= vars(each).get("ranges", {})
        return found

    def check_parameters(self) -> None:
        """Refuse parameters that no run could use; called before a run begins.

        Raises:
            ValueError: a parameter out of its range, or ``constraints`` that contradict each other.
        """
        self.declared_constraints()
        check_ranges(self, self.all_ranges())

    def declared_constraints(self) -> Constraints | None:
        """Its ``constraints`` as an object; None where it has none.

        Raises:
            ValueError: they contradict each other, or allow short positions of unlimited size.
        """
        given = getattr(self, "constraints", None)
        if given is None:
            return None
        from strategies.constraints import Constraints
        from strategies.strategy_constraints import constraints_of

        if not isinstance(given, Constraints | Mapping):
            return None
        try:
            found = constraints_of(self)
            if found.short and found.gross_limit is None and not self.short:
                raise ValueError(
                    "a negative floor allows short positions: say with gross_limit what the "
                    "absolute weights may sum to, as 1.6 for 130/30"
                )
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: constraints: {error}") from None
        return found

    def room(self) -> tuple[bool, float]:
        """Whether weights may be negative, and the most that absolute weights may sum to.

        ``short`` and ``leverage``, or more where ``constraints`` say so: negative floors, a
        ``gross_limit``, a budget above 1.
        """
        constraints = self.declared_constraints()
        if constraints is None:
            return self.short, self.leverage
        return self.short or constraints.short, max(self.leverage, constraints.gross)

    def fit(self, history: Panel) -> Strategy:
        """Learn from the training rows, all known before the first decision that follows.

        A strategy that needs to know when decisions are made and filled takes a second argument
        named ``plan``, see ``Plan``: ``fit(self, history, plan)``.
        """
        return self

    def refitted(self, history: Panel, plan: Plan | None = None) -> Strategy:
        """What decides after a refit at the last date of ``history``, under the plan of the run.

        A fitted copy; where the class does not define ``fit``, the same object, so that a rule
        keeps what it remembers for the whole of a run.
        """
        return self if type(self).fit is Strategy.fit else fit_to_plan(clone(self), history, plan)

    def inner_strategies(self) -> Mapping[str, Strategy]:
        """The strategies inside it, by name: none, except in a wrapper."""
        return {}

    def with_trained(self, networks: Sequence[LearnedStrategy]) -> Strategy:
        """What decides with these trained networks, one for each seed, in place of a learned
        strategy inside."""
        return self

    def shown_name(self) -> str:
        """The name in results and reports, where none is given."""
        return type(self).__name__

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series | Bracket | None:
        """Target weights by asset for the close of the last date of ``history``.

        Args:
            history: ``lookback`` rows, the last one the decision date.
            holdings: (N,) weights by asset at that close, as they will be once all orders on their
                way are filled; zeros at the start.

        Returns:
            (N,) weights by asset, fractions of the portfolio's value; the remainder to 1 is
            cash. NaN, or the weight that is held, places no order: the shares stay as they are.
            None places no order at all. A ``Bracket`` is weights with stop, trailing, take-profit
            or limit prices.

        A strategy that needs to know shares, cash, entry prices or pending orders takes a third
        argument named ``book``, see ``Book``: ``allocate(self, history, holdings, book)``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define allocate(history, holdings)")

    def broken_limits(
        self, weights: pd.Series, history: Panel, holdings: pd.Series
    ) -> Sequence[str]:
        """Which of its own limits the weights (N,) break, in words; called with every answer.

        By default those of ``cap`` and ``constraints``, see ``strategy_constraints.py``; a strategy
        with limits of another kind overrides this.
        """
        if getattr(self, "constraints", None) is None and getattr(self, "cap", None) is None:
            return ()
        from strategies.strategy_constraints import broken

        return broken(self, weights, history, holdings)


class LearnedStrategy(Strategy):
    """A strategy that is a torch module, trained by the engine on a loss net of costs.

    Write ``build``; override ``prepare`` to compute features once, outside the module.
    After training the module stands in ``module_``, in float64.

    ``knows_holdings`` says that the weights depend on the current holdings: then the module is
    called for one date at a time, with ``holdings`` among its inputs.

    ``learned_until`` is the last date of what ``build`` brings with it from elsewhere, such as
    parameters pretrained on other markets: the engine refuses to test it on dates up to that.
    """

    module_: nn.Module
    knows_holdings: bool = False
    learned_until: pd.Timestamp | None = None

    def prepare(self, history: Panel) -> Inputs:
        """What the module sees at the last date of ``history``, without a batch dimension.

        Called once a date; must depend on nothing but ``history`` and the parameters.
        By default ``returns`` (lookback - 1, N), zero where there is none, and
        ``tradable`` (N,) bool, true where an asset has every price of the window.
        """
        import torch

        returns = torch.tensor(history.returns.to_numpy()[1:])
        tradable = torch.tensor(history.trades_throughout.to_numpy())
        return {"returns": returns.nan_to_num(0.0), "tradable": tradable}

    def build(self, inputs: Inputs) -> nn.Module:
        """A module whose ``forward(inputs)`` gives weights (B, N).

        The engine adds inputs of its own. In training the samples are consecutive dates, with
        ``drift`` (B, N), the growth factors of prices from the fill of the date before to the close
        of each: by these the weights of one date have drifted at the next. Where holding costs or
        earns anything, also ``carry_rates`` (B, 3): what cash earns, borrowed cash costs and short
        positions cost in that time (see ``layers/drift.py``). At a decision, ``holdings`` (B, N),
        the current weights; zeros at the start.

        Args:
            inputs: the prepared training rows, stacked to a leading dimension B: sizes and
                scalers may be taken from them. They are shared: do not write to them. And, for
                ``build`` alone, ``growth`` (B, N): of prices over the holding period of each row,
                all known before the refit. Of a network that a state is loaded into, one row,
                without growth.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build(inputs)")

    def weights(self, inputs: Inputs) -> Tensor:
        """Weights (B, N) of the trained module for stacked inputs, without a graph.

        They are computed where the module is, and come back to the CPU.
        """
        if not hasattr(self, "module_"):
            raise NotFittedError(
                f"{type(self).__name__} is not trained yet: engine.backtest or engine.train does it"
            )
        import torch

        self.module_.eval()
        place = next(self.module_.parameters(), torch.empty(0)).device
        inputs = {name: values.to(place) for name, values in inputs.items()}
        with torch.no_grad():
            return self.module_(inputs).cpu()

    def fit(self, history: Panel) -> Strategy:
        raise TypeError(
            f"{type(self).__name__} is trained by the engine, which knows the costs: "
            "use engine.backtest or engine.train"
        )

    def with_trained(self, networks: Sequence[LearnedStrategy]) -> Strategy:
        return Ensemble(networks)

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        inputs = stack([self.prepare(history.last(self.lookback))]) | holdings_input(holdings)
        return pd.Series(self.weights(inputs)[0].numpy(), index=history.assets)


class Ensemble(Strategy):
    """Trained networks, one for each seed, that decide together: by their mean.

    Where one of them orders nothing, it counts as the current holdings.
    """

    def __init__(self, networks: Sequence[LearnedStrategy]):
        self.networks = networks
        first = networks[0]
        self.lookback, self.equivariant = first.lookback, first.equivariant
        self.short, self.leverage = first.room()

    def with_trained(self, networks: Sequence[LearnedStrategy]) -> Strategy:
        return Ensemble(networks)

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        found = [each.allocate(history, holdings) for each in self.networks]
        if any(isinstance(each, Bracket) for each in found):
            raise ValueError("a Bracket of a learned strategy cannot be inside a wrapper")
        answers = [holdings if each is None else each.fillna(holdings) for each in found]
        return sum(answers[1:], start=answers[0]) / len(answers)

    def broken_limits(
        self, weights: pd.Series, history: Panel, holdings: pd.Series
    ) -> Sequence[str]:
        return self.networks[0].broken_limits(weights, history, holdings)


def with_inner(strategy: Strategy) -> Iterator[Strategy]:
    """A strategy and all strategies inside it, at any depth."""
    yield strategy
    for each in strategy.inner_strategies().values():
        yield from with_inner(each)


def learned_inside(strategy: Strategy) -> LearnedStrategy | None:
    """The learned strategy that it is or holds, which the engine trains; None of a rule.

    Raises:
        ValueError: it holds several.
    """
    found: dict[int, LearnedStrategy] = {}
    waiting = [strategy]
    while waiting:
        if isinstance(each := waiting.pop(), LearnedStrategy):
            found[id(each)] = each
        else:
            waiting += each.inner_strategies().values()
    if len(found) > 1:
        raise ValueError(
            f"{strategy.shown_name()} holds {len(found)} learned strategies, and one at most is "
            "trained for each name: take one of them, or backtest them apart"
        )
    return next(iter(found.values()), None)


def is_trained(strategy: Strategy) -> bool:
    """Whether steps are made of what it is or holds: not inside ``Untrained``."""
    return all(getattr(each, "trains", True) for each in with_inner(strategy))
