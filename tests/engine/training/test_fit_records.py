import numpy as np
import pandas as pd
from markets import random_walks
from small_runs import MONTHLY as PLAN
from small_runs import SMALL

from engine import Training, backtest
from engine.training.fit_records import training_summary
from strategies import DEQMeanVariance, EqualWeight


def test_a_row_a_fit():
    nan = np.nan
    rows = [
        (0, 3, 0, -0.1, -0.5, True, nan, 0, 0.3),
        (0, 3, 1, -0.2, -0.7, True, 2.0, 1, 0.5),
        (0, 3, 2, -0.4, -0.6, False, 4.0, 2, 0.9),
        (1, 3, 0, -0.1, -0.4, True, nan, 0, nan),
        (1, 3, 1, -0.3, nan, False, 1.0, 0, nan),
    ]
    names = ["fold", "seed", "epoch", "loss", "validation_loss", "best"]
    names += ["gradient_norm", "skipped", "contraction"]
    found = training_summary(pd.DataFrame(rows, columns=names))
    expected = pd.DataFrame(
        {
            "fold": [0, 1],
            "seed": [3, 3],
            "epochs": [2, 1],
            "epoch": [1, 0],
            "loss": [-0.2, -0.1],
            "validation_loss": [-0.7, -0.4],
            "untrained": [-0.5, -0.4],
            "gain": [0.2, 0.0],
            "learned": [True, False],
            "gradient_norm": [3.0, 1.0],
            "skipped": [3, 0],
            "contraction": [0.9, nan],
        }
    )
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert training_summary(pd.DataFrame()).empty


def test_of_a_backtest():
    results = backtest(
        [DEQMeanVariance(**SMALL), EqualWeight()],
        random_walks(880, 4),
        PLAN,
        training=Training(epochs=3, block=20, ensemble=2),
        progress=False,
        ledger=False,
    )
    found = results["DEQMeanVariance"].training_summary()
    assert found[["fold", "seed"]].to_numpy().tolist() == [[f, s] for f in range(3) for s in (0, 1)]
    assert (found["epochs"] == 3).all()
    assert (found["gain"] >= 0).all()
    assert found["contraction"].between(0.05, 0.95).all()  # the encoder's bound
    assert results["EqualWeight"].training_summary().empty
