"""Small random markets."""

import numpy as np
import pandas as pd

from data_loaders import Panel


def random_walks(rows: int, assets: int, seed: int = 0) -> Panel:
    rng = np.random.default_rng(seed)
    returns = rng.normal(3e-4, 0.01, (rows, assets)) * np.linspace(0.7, 1.6, assets)
    return Panel(
        pd.DataFrame(
            100 * np.exp(returns.cumsum(axis=0)),
            index=pd.bdate_range("2010-01-04", periods=rows, name="date"),
            columns=[f"A{i}" for i in range(assets)],
        )
    )
