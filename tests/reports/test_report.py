"""The report as a page: what it says, what it survives, and how a browser shows it."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_results import HOSTILE, hostile_results, make_result, text_of, typical

from data_loaders import Panel
from engine import Costs, WalkForward, backtest
from engine.runs.result import BacktestResult
from reports import check_report_path, summary_table, write_report
from reports.figures.axes import PALETTE
from reports.figures.charts import thin
from reports.formats import DASH, chance, number, percent
from reports.report import render
from reports.report_data import gather
from reports.wording import headline
from strategies import Strategy


class Borrowing(Strategy):
    leverage, lookback = 1.5, 20

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        return history.trades_throughout * 0.75


@pytest.fixture(scope="module")
def page() -> str:
    return render(gather(typical()))


# The page as text


def test_write_report_writes_the_page_and_its_numbers(tmp_path):
    path = write_report(typical(60), tmp_path / "deep" / "down" / "report.html")
    assert path == tmp_path / "deep" / "down" / "report.html"
    names = sorted(item.name for item in path.parent.iterdir())
    assert names == ["report-tables", "report.html", "report.json"]
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_page_needs_nothing_else(page):
    without_namespaces = re.sub(r'xmlns(:xlink)?="[^"]*"', "", page)
    assert not re.search(r"(src|href)=[\"'](?!#)", without_namespaces)
    without_namespaces = without_namespaces.replace('"http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?://|@import|url\((?!#)|<link|<img", without_namespaces)


def test_the_policy_allows_the_page_s_own_script_and_nothing_else(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert page.count("<script") == 1
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def test_the_same_results_give_the_same_bytes(page):
    assert render(gather(typical())) == page


def test_ids_are_unique_and_every_reference_finds_its_own(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)
    assert {first or second for first, second in targets} <= set(ids)


def test_figures_take_their_colours_from_the_page(page):
    figures = re.findall(r"<svg (?!xmlns).*?</svg>", page, flags=re.DOTALL)  # not the pipeline
    # equity, years, drawdowns, 4 rolling, distribution, 3 weights, 2 limits, turnover, costs,
    # sweep, the plan, folds, training, steps, forecasts
    assert len(figures) == 21
    for figure in figures:
        assert not re.search(r"#[0-9a-f]{6}\b", figure)
        assert re.search(r'role="img" aria-label="[^"]{20,}"', figure)
    shades = [shade for pair in PALETTE.values() for shade in pair]
    assert len(set(shades)) == len(shades)


def test_numbers_in_the_page_are_those_of_the_summary_table(page):
    table = summary_table(typical())
    body = re.search(r'id="summary-table">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)[1]
    rows = [text_of("</style>" + row).split() for row in body.split("</tr>")[:-1]]
    for row, (name, line) in zip(rows, table.iterrows(), strict=True):
        assert row == [
            name,
            percent(line["annual return"]),
            percent(line["volatility"]),
            number(line["Sharpe"]),
            "\N{PLUS-MINUS SIGN}",
            number(line["Sharpe s.e."]),
            number(line["Sortino"]),
            percent(line["max drawdown"]),
            number(line["Calmar"]),
            percent(line["turnover/rebalance"]),
            number(line["turnover/year"]) + "\N{MULTIPLICATION SIGN}",
            percent(line["cost drag/year"], 2),
        ]


def test_the_best_of_a_column_is_marked():
    results = {
        "dear": make_result("dear", 300, net=np.tile([0.02, -0.01], 150)),
        "cheap": make_result("cheap", 300, net=np.tile([0.01, -0.01], 150)),
    }
    table = render(gather(results)).split('id="summary-table"')[1]
    row = re.search(r"<bdi>dear</bdi></span></th>(.*?)</tr>", table, re.DOTALL)[1]
    best = [' class="best"' in cell for cell in row.split("<td")[1:]]
    assert best == [True, False, True, True, True, True, False, False, False]


def test_everything_that_must_be_said_is_said(page):
    text = text_of(page)
    assert "Invented: nothing here ever traded." in text
    assert "5f" * 32 in text
    assert "plan.execution_lag" in text
    assert "strategies.deq:DEQMeanVariance" in text
    assert "3.1e\N{MINUS SIGN}16" in text
    assert "Agreement with a second solver" in text
    assert "2.4e\N{MINUS SIGN}11" in text
    assert "reached their tolerance" in text


def test_failed_solves_are_counted():
    results = {"DEQMeanVariance": typical(60)["DEQMeanVariance"]}
    solves = results["DEQMeanVariance"].solves
    solves.loc[0, "failures"] = 7
    total = f"{solves['samples'].sum():,}"
    assert f"7 of {total} did not reach their tolerance" in text_of(render(gather(results)))


# Who is compared with whom, and what is said about it


def test_the_first_strategy_is_compared_with_equal_weights():
    def chosen(results):
        data = gather(results)
        return data.subject, data.benchmark

    results = typical(100)
    assert chosen(results) == ("DEQMeanVariance", "EqualWeight")
    assert chosen(dict(reversed(results.items()))) == ("MinimumVariance", "EqualWeight")
    del results["DEQMeanVariance"]
    assert chosen(results) == ("MinimumVariance", "EqualWeight")
    del results["MinimumVariance"]
    assert chosen(results) == ("EqualWeight", None)
    plain = {name: make_result(name, 100, cls="x:Other") for name in ("one", "two")}
    assert chosen(plain) == ("one", "two")


def test_the_headline_says_how_much_and_how_likely(page):
    sentence = re.sub(r"<[^>]*>", "", re.search(r"<h1>(.*?)</h1>", page)[1])
    assert re.fullmatch(
        r"Over 5\.0 years DEQMeanVariance earned [\d.]+% a year after costs against [\d.]+% of "
        r"EqualWeight, at a Sharpe ratio \d\.\d\d (higher|lower): a difference at least this large "
        r"arises by chance in \d+% of cases: this is .*\.",
        sentence,
    )


def test_a_loan_without_interest_is_said():
    dates, rising = pd.bdate_range("2020-01-01", periods=60), np.linspace(1, 1.2, 60)
    panel = Panel(pd.DataFrame({"A": 100 * rising, "B": 50 * rising**2}, dates))

    def notes(financing: float) -> tuple[str, ...]:
        costs = Costs(0.001, financing=financing)
        results = backtest(
            Borrowing(), panel, WalkForward(20, 20), costs, progress=False, ledger=False
        )
        return gather(results).notes

    assert [note for note in notes(0.0) if "Borrowing borrowed up to 50% of its value" in note]
    assert not [note for note in notes(0.05) if "borrowed" in note]


def test_headlines_without_a_comparison():
    def said(results):
        return headline(gather(results)).striptags()

    assert "there is no other strategy" in said({"A": make_result("A", 300)})
    assert "Over 40 periods (0.15 years)" in said({"A": make_result("A", 40)})
    flat = {name: make_result(name, 300, net=np.full(300, 1e-4), cls="x:Y") for name in ("A", "B")}
    assert "cannot be compared" in said(flat)
    ruined = np.full(300, 0.001)
    ruined[7] = -1.0
    assert "lost everything" in said({"A": make_result("A", 300, net=ruined)})


# What a page must survive


@pytest.fixture(scope="module")
def hostile() -> dict[str, BacktestResult]:
    return hostile_results()


def test_hostile_names_are_shown_not_run(hostile):
    page = render(gather(hostile))
    assert page.count("<script") == 1
    assert not re.search(r"<[^>]*\son\w+=alert", re.sub(r'"[^"]*"', '""', page))
    for name in HOSTILE:
        assert (
            f"<bdi>{html.escape(name).replace('&#x27;', '&#39;').replace('&quot;', '&#34;')}</bdi>"
            in page
        )


RUINED = np.r_[np.full(100, 0.01), -1.2, np.zeros(199)]
CASES = {
    "one strategy": lambda: {"A": make_result("A", 200)},
    "one row": lambda: typical(1),
    "two rows": lambda: typical(2),
    "a month": lambda: typical(21),
    "nothing varies": lambda: {n: make_result(n, 300, net=np.full(300, 2e-4)) for n in "AB"},
    "ruined": lambda: {"A": make_result("A", 300, net=RUINED), "B": make_result("B", 300)},
    "ruined at once": lambda: {"A": make_result("A", 3, net=np.array([-1.0, 0, 0]))},
    "long and short": lambda: {"A": make_result("A", 300, short=True), "B": make_result("B", 300)},
    "other dates": lambda: {
        "A": make_result("A", 300),
        "B": make_result("B", 99, end="2010-01-04"),
    },
}


@pytest.mark.parametrize("case", CASES)
def test_odd_results_still_make_a_page(case):
    text = text_of(render(gather(CASES[case]())))
    assert not re.search(r"\b(nan|-?inf|NaT|None(?! of))\b", text)
    assert "Settings" in text


def test_nothing_traded_trained_or_refitted():
    result = make_result("idle", 300)
    idle = {
        field: getattr(result, field).iloc[:0]
        for field in ("turnover", "costs", "folds", "training", "solves", "targets")
    }
    text = text_of(render(gather({"idle": BacktestResult(**{**vars(result), **idle})})))
    for words in ("No trade was made", "there are no folds", "None of the strategies is trained"):
        assert words in text


def test_a_short_history_says_that_it_is_extrapolated(page):
    words = "annual figures extrapolate from 21 periods"
    assert words in text_of(render(gather(typical(21))))
    assert "extrapolate" not in text_of(page)


def test_bars_are_as_long_as_their_numbers(page):
    """Sensitivities of 0.3, 0.1 and 0.02; binding at 100%, 50%, 100% and 0% of the decisions."""
    lengths = {}
    for table in ("sensitivity-table", "limits-table"):
        body = re.search(rf'id="{table}">(.*?)</table>', page, re.DOTALL)[1]
        lengths[table] = [float(share) for share in re.findall(r"--w:([\d.]+)%", body)]
    assert lengths["sensitivity-table"] == [100.0, 33.3, 6.7]
    assert lengths["limits-table"] == [100.0, 50.0, 100.0, 0.0]


def test_what_is_not_recorded_is_said(page):
    text = text_of(render(gather({"plain": make_result("plain", 300)})))
    for words in (
        "Capacity: the portfolio value",
        "Shadow prices: no strategy",
        "Sensitivity to features",
    ):
        assert words in text
        assert words not in text_of(page)


def test_intraday_dates_show_their_time():
    result = make_result("fast", 300)
    for frame in (result.net_returns, result.gross_returns, result.risk_free, result.weights):
        frame.index = pd.date_range("2022-03-01 09:30", periods=300, freq="30min")
    assert "2022-03-01 09:30" in text_of(render(gather({"fast": result})))


def test_forty_strategies_on_500_assets_fit_in_three_megabytes():
    results = {f"S{n}": make_result(f"S{n}", 130, 500, seed=n, learned=n < 2) for n in range(40)}
    page = render(gather(results))
    assert len(page.encode()) < 3e6
    text = text_of(page)
    assert "488 others" in text
    assert "32 others" in text


def test_a_long_history_fits_in_three_megabytes():
    results = {f"S{n}": make_result(f"S{n}", 23 * 252, seed=n, learned=n == 0) for n in range(5)}
    assert len(render(gather(results)).encode()) < 3e6


def test_thinning_keeps_the_extremes_and_the_ends():
    line = pd.Series(np.random.default_rng(0).normal(size=20_000))
    kept = thin(line)
    assert len(kept) <= 1500
    assert kept.index[[0, -1]].to_list() == [0, 19_999]
    assert {line.idxmin(), line.idxmax()} <= set(kept.index)
    assert kept.equals(line[kept.index])
    assert thin(line[:1500]).equals(line[:1500])


# Paths


def test_unwritable_paths_are_named_before_any_work(tmp_path):
    (tmp_path / "file").write_text("kept")
    unwritable = [
        tmp_path,
        tmp_path / "file" / "report.html",
        Path("/dev/null"),
        Path("/proc/r.html"),
    ]
    for path in unwritable:
        with pytest.raises(OSError, match=re.escape(f"the report cannot be written to {path}")):
            check_report_path(path)
        with pytest.raises(OSError, match="the report cannot be written"):
            write_report({}, path)  # the path is looked at first
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


def test_checking_a_path_leaves_no_trace(tmp_path):
    assert check_report_path(tmp_path / "new" / "report.html") == tmp_path / "new" / "report.html"
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_older_report(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("older")
    broken = make_result("broken", 100)
    broken.net_returns.iloc[3] = np.nan
    with pytest.raises(ValueError, match="'broken' are not finite"):
        write_report({"broken": broken}, path)

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_report({"A": make_result("A", 100)}, path)
    assert path.read_text() == "older"
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]


def test_no_results_are_refused(tmp_path):
    with pytest.raises(ValueError, match="results are empty"):
        write_report({}, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "<0.1%"), (0.0004, "<0.1%"), (0.0006, "0.1%"), (0.5, "50.0%"), (0.9994, "99.9%"),
        (0.9996, ">99.9%"), (1.0, "100.0%"), (np.nan, DASH), (None, DASH),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_not_called_so(value, text):
    assert chance(value) == text


# The first questions


def test_each_step_of_the_ladder_has_the_number_of_the_tables(page):
    data = gather(typical())
    body = text_of("</style>" + re.search(r'<ol class="ladder">(.*?)</ol>', page, re.DOTALL)[1])
    luck, own = data.luck.loc[data.subject], data.metrics.loc[data.subject]
    other = data.metrics.loc["EqualWeight"]
    for words in (
        f"{percent(own['annual return'])} a year against {percent(other['annual return'])}",
        f"{number(own['Sharpe'])} against {number(other['Sharpe'])}",
        f"in {chance(luck['p'])} of cases",
        f"With a probability of {chance(luck['active'])}.",
        f"With a probability of {chance(luck['deflated'])}; 2 were tried",
        f"In {percent(data.overfitting.probability, 0)} of 12,870 splits",
        f"p-value {number(data.superior)}",
    ):
        assert words in body, words


def test_years_and_last_years_on_the_page_are_those_of_the_tables(page):
    data = gather(typical())
    body = re.search(r'id="years-table">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)[1]
    for row, (year, line) in zip(body.split("</tr>"), data.years.iterrows(), strict=False):
        cells = text_of("</style>" + row).split()
        gap = percent(line["DEQMeanVariance"] - line["EqualWeight"])
        assert cells == [str(year), *(percent(value) for value in line[data.ranked]), gap]
    body = re.search(r'id="trailing-table">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)[1]
    for row, name in zip(body.split("</tr>"), data.ranked, strict=False):
        cells = text_of("</style>" + row).split()
        assert cells == [name, *(percent(value) for value in data.trailing[name])]


def test_latest_holdings_and_exposure_are_on_the_page():
    short = make_result("hedged", 300, short=True)
    groups = {f"A{number:03d}": "<odd>" if number % 2 else "even" for number in range(20)}
    text = text_of(render(gather({"hedged": short}, groups=groups)))
    last = short.weights.iloc[-1]
    largest = last.abs().idxmax()
    assert re.search(
        rf"Latest holdings.*{largest}\s+{re.escape(percent(last[largest]))}", text, re.DOTALL
    )
    assert f"cash {percent(1 - last.sum())}" in " ".join(text.split())
    assert "Sum of the weights of each group" in text
    assert "what net is below 100% is cash" in text_of(render(gather({"hedged": short})))
