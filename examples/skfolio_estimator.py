"""Estimators of skfolio, and regressors of scikit-learn, beside 1/N."""

from skfolio.optimization import MeanRisk
from skfolio.prior import EmpiricalPrior
from sklearn.ensemble import HistGradientBoostingRegressor

from deqfolio import (
    Costs,
    EqualWeight,
    EstimatorStrategy,
    PredictThenOptimize,
    WalkForward,
    backtest,
    load,
    summary_table,
)

# Any object with fit(X) and weights_ is a strategy. It sees the returns of the window, and of the
# assets that trade in it; its own constraints hold.
estimator = MeanRisk(max_weights=0.2, prior_estimator=EmpiricalPrior())

# Any regressor with fit and predict is one, too: it learns from the rows before each refit alone.
regressor = HistGradientBoostingRegressor(max_iter=20, max_leaf_nodes=8, random_state=0)

results = backtest(
    {
        "minimum variance of skfolio": EstimatorStrategy(estimator),
        "boosted trees": PredictThenOptimize(regressor),
        "1/N": EqualWeight(),
    },
    load("sp500", start="2010-01-01"),
    WalkForward(train="3Y", refit="2Y", rebalance="ME"),
    Costs(commission=0.001),
)
print(summary_table(results))
