"""Risk-free returns against interest counted by hand, and rates that are refused."""

import numpy as np
import pandas as pd
import pytest

from engine.accounting.risk_free import RiskFree, read_rates, read_risk_free, risk_free_of

DAYS = pd.to_datetime(["2021-01-01", "2021-01-04", "2021-01-05", "2021-01-12", "2021-02-01"])
MONTHLY = pd.Series([0.02, 0.05, 0.01], pd.to_datetime(["2020-12-31", "2021-01-07", "2021-01-31"]))


def test_a_number_accrues_over_elapsed_days():
    found = RiskFree(0.03).returns(DAYS, DAYS)
    assert found.to_list() == pytest.approx(0.03 / 365.25 * np.array([0, 3, 1, 7, 20]), rel=1e-13)
    assert found.iloc[0] == 0


def test_a_rate_holds_until_the_next_one():
    found = RiskFree(MONTHLY).returns(DAYS, DAYS)
    # 5 to 12 January: two days at 2% and five at 5%; to 1 February: 19 days at 5%, one at 1%.
    days = np.array([0, 3 * 0.02, 0.02, 2 * 0.02 + 5 * 0.05, 19 * 0.05 + 0.01])
    assert found.to_list() == pytest.approx(days / 365.25, rel=1e-13)


def test_interest_is_credited_at_fills():
    """Between fills the value grows by the same amount a day, so that the return falls."""
    found = RiskFree(0.5).returns(DAYS, DAYS[[1, 3]])
    a_day = 0.5 / 365.25
    expected = [0, 3 * a_day, a_day, 7 * a_day / (1 + a_day), 20 * a_day]
    assert found.to_list() == pytest.approx(expected, rel=1e-12)
    assert (1 + found.iloc[2:4]).prod() - 1 == pytest.approx(8 * a_day, rel=1e-12)


def test_without_a_rate_the_cash_rate_is_risk_free():
    assert read_risk_free(None, 0.04, DAYS) == RiskFree(0.04)
    assert read_risk_free(0, 0.04, DAYS) == RiskFree(0.0)
    assert risk_free_of({"costs": {"cash_rate": 0.03}}) == RiskFree(0.03)
    assert risk_free_of({"costs": {"cash_rate": 0.03}, "risk_free": 0.01}) == RiskFree(0.01)
    assert risk_free_of({}) == RiskFree(0.0)


def test_rates_are_told_apart_by_values_and_dates():
    read = read_risk_free(MONTHLY[::-1], 0.0, DAYS)  # sorted
    told = RiskFree(MONTHLY).described()
    assert read.described() == told
    assert (told["start"], told["end"], told["mean"]) == ("2020-12-31", "2021-01-31", 0.08 / 3)
    for other in (MONTHLY + 1e-9, MONTHLY.shift(1, freq="D")):
        assert RiskFree(other).described()["fingerprint"] != told["fingerprint"]
    seconds = MONTHLY.set_axis(pd.DatetimeIndex(MONTHLY.index).as_unit("s"))
    assert RiskFree(seconds).described() == told


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        (2, r"is 2, which reads as 200% a year, or as 2% where it is meant in percent.*0\.02 for"),
        (MONTHLY * 100, r"on 2020-12-31 is 2, which reads as 200% a year"),
        (-0.2, "is -0.2, which reads as -20% a year, or as -0.2%"),
        (float("nan"), "the risk-free rate is nan: give a number"),
        (MONTHLY.replace(0.05, np.nan), "on 2021-01-07 is nan: give a number, or leave the date"),
        (MONTHLY.astype(object).replace(0.05, "5%"), "holds '5%', which is no number: give yearly"),
        (MONTHLY[1:], r"begin on 2021-01-07, after the panel on 2021-01-01.*panel\.since"),
        (MONTHLY.shift(-60, freq="D"), r"end on 2020-12-02, and the panel on 2021-02-01.*until"),
        (MONTHLY.shift(-60, freq="D")[:1], "end on 2020-11-01, and the panel"),
        (MONTHLY.tz_localize("UTC"), "without a time zone"),
        (MONTHLY.reset_index(drop=True), "needs rates by date"),
        (MONTHLY[:0], "got 0 by datetime64"),
        (MONTHLY.iloc[[0, 0]], "occur twice"),
        (MONTHLY.set_axis([pd.NaT, *MONTHLY.index[1:]]), "dates that are missing"),
    ],
)
def test_rates_that_cannot_be_meant(rates, message):
    with pytest.raises(ValueError, match=message):
        read_risk_free(rates, 0.0, DAYS)


@pytest.mark.parametrize("rates", ["0.02", True, [0.02], MONTHLY.to_frame()])
def test_rates_of_another_type(rates):
    with pytest.raises(TypeError, match="a number a year, like 0.02 for 2%, or a Series"):
        read_risk_free(rates, 0.0, DAYS)


def test_rates_from_a_file(tmp_path):
    MONTHLY.rename("rate").to_csv(tmp_path / "rates.csv", index_label="date")
    pd.testing.assert_series_equal(
        read_rates(tmp_path / "rates.csv"), MONTHLY, check_names=False, check_index_type=False
    )
    with pytest.raises(ValueError, match=r"there is no file 2%; or give a number"):
        read_rates("2%")
    (tmp_path / "two.csv").write_text("date,a,b\n2020-01-01,1,2\n")
    with pytest.raises(ValueError, match=r"two\.csv should be a CSV file with dates in its first"):
        read_rates(tmp_path / "two.csv")
    (tmp_path / "words.csv").write_text("date,rate\n2020-01-01,2%\n")
    with pytest.raises(ValueError, match=r"words\.csv should be a CSV file.*'2%'"):
        read_rates(tmp_path / "words.csv")
