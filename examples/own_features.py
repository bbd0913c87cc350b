"""Features of one's own: in the panel, where they were bought, or computed from each window."""

import pandas as pd

from deqfolio import (
    DEQMeanVariance,
    EqualWeight,
    Panel,
    Training,
    WalkForward,
    backtest,
    load,
    summary_table,
)


def distance_from_high(history: Panel) -> pd.DataFrame:
    """A row for each asset, a column for each feature, from rows up to the decision alone."""
    return pd.DataFrame({"from the high": history.prices.iloc[-1] / history.prices.max() - 1})


if __name__ == "__main__":  # the function is found by this file's name
    # What is known at each close beside prices: a frame a feature, dates and assets as prices'.
    prices = load("sp500", start="2012-01-01").prices
    panel = Panel(prices, asset_features={"calm": 1 / prices.pct_change().rolling(63).std()})

    results = backtest(
        {
            "prices alone": DEQMeanVariance(features=("prices",)),
            "with the panel's and one's own": DEQMeanVariance(
                features=("prices", "panel", f"{__file__}:distance_from_high")
            ),
            "1/N": EqualWeight(),
        },
        panel,
        WalkForward(train="3Y", refit="3Y", rebalance="ME"),
        training=Training(epochs=5),
    )
    print(summary_table(results))
