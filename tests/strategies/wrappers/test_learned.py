"""An untrained network beside the trained one: no step is made, and the report compares them."""

import numpy as np
import pandas as pd
import pytest
from markets import random_walks
from small_runs import MONTHLY, SMALL

from engine import Costs, Training, backtest
from reports.learning import trained_less_untrained
from reports.report_data import gather
from reports.statistics.difference_tests import sharpe_differences
from reports.wording import headline
from strategies import DEQMeanVariance, EqualWeight, NoTradeBand, Untrained

EAGER = Training(epochs=2, block=12, learning_rate=0.05, validation_blocks=1, patience=2)


@pytest.fixture(scope="module")
def results():
    strategies = {
        "trained": DEQMeanVariance(**SMALL),
        "start": Untrained(DEQMeanVariance(**SMALL)),
        "other": NoTradeBand(Untrained(DEQMeanVariance(**{**SMALL, "hidden": 3}))),
        "1/N": EqualWeight(),
    }
    return backtest(strategies, random_walks(880, 4), MONTHLY, Costs(), EAGER, ledger=False)


def test_it_holds_what_a_training_of_no_epochs_holds(results):
    alone = backtest(
        DEQMeanVariance(**SMALL), random_walks(880, 4), MONTHLY, Costs(), Training(epochs=0),
        ledger=False,
    )["DEQMeanVariance"]  # fmt: skip
    start, trained = results["start"], results["trained"]
    np.testing.assert_allclose(start.targets, alone.targets, atol=1e-12)
    assert start.training["epoch"].unique().tolist() == [0]
    assert results["other"].training["epoch"].unique().tolist() == [0]  # inside another wrapper
    assert trained.training["epoch"].max() == 2
    assert not np.allclose(start.targets, trained.targets)


def test_the_report_says_what_training_was_worth(results):
    year = results["trained"].settings["periods_per_year"]
    (row,) = trained_less_untrained(results, year).to_dict("records")
    both = {k: results[k].excess_returns for k in ("trained", "start")}

    expected = sharpe_differences(pd.DataFrame(both), "start", year).loc["trained"]
    assert (row["strategy"], row["untrained"], row["fits"]) == ("trained", "start", 3)
    assert row["difference"] == expected["difference"]
    assert row["p"] == expected["studentised"]
    kept = results["trained"].training_summary()["epoch"]
    assert row["nothing"] == (kept == 0).sum() < 3
    said = str(headline(gather(results)))
    assert f"In {row['nothing']} of 3 fits nothing was learned" in said
    assert "Training changed the Sharpe ratio by" in said


def test_what_is_not_trained_has_no_untrained_state():
    Untrained(NoTradeBand(DEQMeanVariance(**SMALL))).check_parameters()
    with pytest.raises(ValueError, match="is for a strategy that is trained, and EqualWeight is"):
        Untrained(EqualWeight()).check_parameters()
