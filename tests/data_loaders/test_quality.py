import json

import numpy as np
import pandas as pd
import pytest

from data_loaders import Panel, load
from data_loaders.quality import check


@pytest.fixture
def prices():
    """6 clean walks over 4 years, of which F is delisted after two."""
    rng = np.random.default_rng(0)
    dates = pd.bdate_range("2015-01-01", periods=1040)
    walks = 100 * np.exp(rng.normal(0, 0.012, (1040, 6)).cumsum(axis=0))
    frame = pd.DataFrame(walks, index=dates, columns=list("ABCDEF"))
    frame.iloc[500:, 5] = np.nan
    return frame


def found(prices):
    quality = check(Panel(prices))
    return quality, [tuple(row) for row in quality.problems.itertuples(index=False)]


def test_clean_prices_have_no_problem(prices):
    quality, problems = found(prices)
    assert problems == []
    assert quality.problems.empty
    assert quality.assets.loc["F", "last"] == str(prices.index[499].date())
    assert (quality.assets["coverage"] == 1).all(), "before its listing nothing is missing"


@pytest.mark.parametrize(
    ("factor", "words"),
    [(1 / 2, "2 for 1"), (1 / 1.5, "1.5 for 1"), (10, "1 for 10"), (1 / 20, "20 for 1")],
)
def test_a_missed_split_is_named(prices, factor, words):
    prices.loc[prices.index[400] :, "B"] *= factor
    _, ((problem, where, detail),) = found(prices)
    assert (problem, where) == ("possible split", "B")
    assert words in detail
    assert str(prices.index[400].date()) in detail


def test_a_split_inside_a_gap_is_named(prices):
    prices.loc[prices.index[400] :, "B"] *= 0.5
    prices.loc[prices.index[398:402], "B"] = np.nan
    _, problems = found(prices)
    assert [row[:2] for row in problems] == [("possible split", "B"), ("gaps", "B")]


def test_a_crash_is_no_split(prices):
    prices.loc[prices.index[400] :, "B"] *= 0.61
    assert found(prices)[1] == []


def test_gaps_are_counted_by_hand(prices):
    prices.iloc[100:180, 2] = np.nan
    prices.iloc[300, 2] = np.nan
    quality, ((problem, where, detail),) = found(prices)
    assert (problem, where) == ("gaps", "C")
    # 81 of 1040 rows; of the 789 windows of 252 rows those that end on rows 251 to 551
    assert detail.startswith("2 gaps, 7.8% of rows without a price: 38% of the windows of a year")
    row = quality.assets.loc["C"]
    assert (row["gaps"], row["longest_gap"]) == (2, 80)
    assert row["coverage"] == pytest.approx(1 - 81 / 1040)


def test_single_holidays_that_keep_an_asset_out_are_named(prices):
    prices.iloc[100::240, 2] = np.nan  # no window of a year is whole, but for the first ones
    quality, ((problem, where, detail),) = found(prices)
    assert quality.assets.loc["C", "coverage"] > 0.99
    assert (problem, where) == ("gaps", "C")
    assert detail.startswith("4 gaps, 0.4% of rows without a price: 100% of the windows of")


def test_a_gap_that_no_window_of_a_year_minds_is_no_problem(prices):
    prices.iloc[600:, 2] = np.nan
    prices.iloc[3, 2] = np.nan  # in 4 of 349 windows, those that end on rows 251 to 254
    assert found(prices)[1] == []


def test_windows_with_a_gap_are_counted_as_by_brute_force(prices):
    rng = np.random.default_rng(1)
    for column in range(5):
        prices.iloc[rng.integers(0, 1040, 5), column] = np.nan
        prices.iloc[: rng.integers(0, 400), column] = np.nan
    problems = {where: detail for _, where, detail in found(prices)[1]}
    for name in "ABCDE":
        own = prices[name].loc[prices[name].first_valid_index() : prices[name].last_valid_index()]
        windows = own.isna().rolling(252).sum().dropna()
        assert f": {(windows > 0).mean():.0%} of the windows" in problems[name]


def test_stale_prices_are_located(prices):
    prices.iloc[200:207, 0] = prices.iloc[200, 0]
    quality, ((problem, where, detail),) = found(prices)
    assert (problem, where) == ("stale price", "A")
    assert detail == f"one price for 7 rows, to {prices.index[206].date()}"
    assert quality.assets.loc["A", "longest_stale"] == 7
    assert quality.assets.loc["A", "zero_returns"] == pytest.approx(6 / 1039)


def test_hardly_traded(prices):
    prices.iloc[:, 3] = np.repeat(prices.iloc[::2, 3].to_numpy(), 2)
    _, ((problem, where, detail),) = found(prices)
    assert (problem, where, detail) == ("hardly traded", "D", "50% of returns are zero")


def test_duplicates_are_named(prices):
    prices["G"] = prices["A"]
    _, ((problem, where, detail),) = found(prices)
    assert (problem, where) == ("duplicate", "G")
    assert "the same prices as A" in detail


def test_calendars_that_do_not_match(prices):
    saturday = pd.Timestamp("2016-01-09")
    prices.loc[saturday] = np.nan
    prices.loc[saturday, "A"] = 1.001 * prices.loc["2016-01-08", "A"]
    prices = prices.sort_index()
    prices = prices.drop(prices.loc["2017-03-01":"2017-03-20"].index)
    _, problems = found(prices)
    kinds = [problem for problem, *_ in problems]
    assert kinds[3:] == ["gaps"] * 5, "a Saturday of one asset keeps the others out for a year"
    assert kinds[:3] == ["calendar mismatch", "calendar mismatch", "missing dates"]
    assert "most assets have no price: 2016-01-09" in problems[0][2]
    assert "1 dates on a weekend: 2016-01-09" in problems[1][2]
    assert "21 days, before 2017-03-21" in problems[2][2]


def test_survivorship(prices):
    _, ((problem, _, detail),) = found(prices[list("ABCDE")])
    assert problem == "survivorship"
    assert "none of 5 assets stops trading in 4 years" in detail
    assert found(prices[list("ABCDE")].iloc[:300])[1] == [], "a year is too short to say"


def test_real_prices_and_json():
    panel = load("sp500")
    quality = check(panel)
    assert quality.problems["problem"].tolist().count("survivorship") == 1
    told = quality.problems[quality.problems["where"] == "RRC"]
    assert "one price for 69 rows, to 1990-04-09" in told["detail"].tolist()
    assert any("-66.7% on 1990-04-10" in detail for detail in told["detail"])
    assert "2001-09-17" in quality.problems.set_index("problem").loc["missing dates", "detail"]
    content = json.loads(json.dumps(quality.plain, allow_nan=False))
    assert len(content["assets"]) == 20
    assert content["problems"][0]["problem"] == "survivorship"
    one = check(Panel(pd.DataFrame({"A": [1.0]}, index=[pd.Timestamp("2020-01-01")])))
    assert one.assets.loc["A", "zero_returns"] == 0


@pytest.mark.parametrize("factor", [1000, 37, 0.55, 1 / 37, 1.3])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_spike_that_reverts_is_named_whatever_its_factor(prices, factor, rows):
    prices.iloc[400 : 400 + rows, 1] *= factor
    _, ((problem, where, detail),) = found(prices)
    assert (problem, where) == ("spike", "B")
    assert str(prices.index[400].date()) in detail
    assert detail.endswith("and back")


def test_other_units_are_named(prices):
    prices.iloc[400:, 1] *= 100
    _, ((problem, where, detail),) = found(prices)
    assert (problem, where) == ("unit change", "B")
    assert f"times 100 from {prices.index[400].date()} on" in detail


def test_a_jump_of_one_asset_is_named_and_one_of_all_is_not(prices):
    prices.iloc[400:, 1] *= 3.4
    _, ((problem, where, detail),) = found(prices)
    assert (problem, where) == ("jump", "B")
    assert f"from {prices.index[400].date()} on" in detail
    prices.iloc[400:, [0, 2, 3, 4, 5]] *= 3.4
    assert found(prices)[1] == []


def test_swapped_columns_are_named(prices):
    prices["B"] *= 4
    for rows in (slice(400, 405), slice(400, None)):
        swapped = prices.copy()
        swapped.iloc[rows, [0, 1]] = prices.iloc[rows, [1, 0]].to_numpy()
        _, ((problem, where, detail),) = found(swapped)
        assert (problem, where) == ("swapped columns", "A")
        assert "are those of B" in detail
        assert f"from {prices.index[400].date()}" in detail


def test_repeated_returns_at_another_level_are_named(prices):
    prices["G"] = 7 * prices["A"]
    _, ((problem, where, detail),) = found(prices)
    assert (problem, where) == ("duplicate", "G")
    assert "the same returns as A" in detail


def test_returns_that_pass_for_prices_are_named(prices):
    gross = 1 + prices[list("ABCDE")].pct_change().iloc[1:]
    kinds = [problem for problem, *_ in found(gross)[1]]
    assert kinds[0] == "not prices"
    percent = Panel.from_returns(
        50 * prices[list("ABCDE")].pct_change().iloc[1:].clip(-0.015), unit="fraction"
    )
    assert check(percent).problems["problem"].iloc[0] == "not prices"


def test_two_calendars_are_named_with_their_common_dates(prices):
    every = pd.date_range(prices.index[0], prices.index[-1])
    coins = prices[["A"]].reindex(every).interpolate()
    panel = Panel(coins.assign(S=prices["B"], T=prices["C"]))
    told = check(panel).problems.set_index("problem").loc["two calendars", "detail"]
    assert told.startswith(f"S, T trade on 1040 dates, A on {len(every)}: 1040 in common. On the")


def hours(rows=2000):
    dates = pd.date_range("2021-01-01", periods=rows, freq="h")
    moves = np.random.default_rng(3).normal(0, 0.005, (rows, 2)).cumsum(axis=0)
    return pd.DataFrame(100 * np.exp(moves), dates, ["A", "B"])


def test_bars_within_a_day_are_judged_by_their_own_steps():
    assert set(check(Panel(hours())).problems["problem"]) == set()
    prices = hours().drop(hours().index[500:540])
    prices.iloc[1000:1009, 1] = prices.iloc[1000, 1]
    told = check(Panel(prices)).problems.set_index("problem")["detail"]
    assert told["missing dates"] == "1 hole of 41 hours, before 2021-01-23 12:00:00"
    assert told["stale price"] == f"one price for 9 rows, to {prices.index[1008]}"
    week = hours()[hours().index.day_of_week < 5].between_time("10:00", "16:00")
    assert set(check(Panel(week)).problems["problem"]) == set()
    short = week.drop(week.index[week.index.normalize() == "2021-02-03"][:6])
    assert set(check(Panel(short)).problems["problem"]) == set()  # a late opening
    torn = week.drop(week.index[(week.index >= "2021-02-03") & (week.index < "2021-02-12")])
    assert check(Panel(torn)).problems["problem"].tolist() == ["missing dates"]
    few = hours(60)
    few.index = pd.date_range("2021-01-04 10:00", periods=60, freq="min")
    assert set(check(Panel(few)).problems["problem"]) == set()


def test_a_hole_of_a_year_and_a_change_of_the_frequency_are_named(prices):
    holed = prices.drop(prices.index[300:560])
    told = check(Panel(holed)).problems.set_index("problem").loc["missing dates", "detail"]
    assert told.startswith("1 hole of 365 days, before 2017-02-23; holdings earn what happens")
    weekly = prices[(prices.index < "2017-01-01") | (prices.index.day_of_week == 4)]
    told = check(Panel(weekly)).problems.set_index("problem").loc["two frequencies", "detail"]
    assert "about 52 after it: take one of the two parts" in told


def test_an_asset_is_not_delisted_within_hours():
    prices = hours()
    prices.iloc[-100:, 0] = np.nan  # four days
    assert len(Panel(prices).delistings[1]) == 0
    prices.iloc[-300:, 0] = np.nan
    assert Panel(prices).delistings[1].tolist() == [0]


def test_an_unfinished_last_session_is_named(prices):
    half = prices.copy()
    half.iloc[-1, :4] = np.nan
    half = half[list("ABCDE")].assign(F=prices["A"] * 1.5 + 1)
    assert "unfinished session" in check(Panel(half)).problems["problem"].tolist()
    volume = pd.DataFrame(1000.0, prices.index, prices.columns)
    volume.iloc[-1] = 50
    told = check(Panel(prices, {"volume": volume})).problems
    assert told["problem"].tolist() == ["unfinished session"]
    assert "volume is below a tenth" in told["detail"].iloc[0]


def test_false_alarms_on_clean_markets_are_rare():
    """Fat tails, volatility that clusters, one factor: 2,000 asset-years, at most 4 alarms."""
    alarms = 0
    for seed in range(4):
        panel = load(f"synthetic:null?rows=5040&assets=25&seed={seed}")
        alarms += int((check(panel).problems["problem"] != "survivorship").sum())
    assert alarms <= 4
