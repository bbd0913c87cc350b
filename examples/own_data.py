"""Your own data: a function that gives prices. On the command line: --data own_data.py:prices"""

import numpy as np
import pandas as pd

from deqfolio import EqualWeight, InverseVolatility, Panel, backtest, load, summary_table


def prices(seed="0"):  # arguments come as text: own_data.py:prices?seed=3
    dates = pd.bdate_range("2015-01-01", "2022-12-30")
    rng = np.random.default_rng(int(seed))  # in place of your database or vendor
    returns = rng.normal(3e-4, 0.01, (len(dates), 4)) * [0.5, 1, 1.5, 2]
    frame = pd.DataFrame(100 * np.exp(returns.cumsum(axis=0)), dates, ["A", "B", "C", "D"])
    frame.loc["2015":"2018", "D"] = np.nan  # listed later: NaN is "does not trade"
    momentum = frame.pct_change(60, fill_method=None)  # a row is known at the close of its date
    return Panel(
        frame,
        asset_features={"momentum": momentum},
        source="four random walks",
        caveats=["Nothing in these prices can be predicted."],  # shown in the report
    )


if __name__ == "__main__":
    panel = load(f"{__file__}:prices?seed=3")  # or Panel(frame), or load("prices.csv")
    print(panel)
    print(summary_table(backtest([InverseVolatility(), EqualWeight()], panel)).T)
