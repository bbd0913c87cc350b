"""Any layout of any table: what is loaded is what was written, or a DataError names the place."""

import csv
import io

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_loaders import DataError, load

FORMATS = ["%Y-%m-%d", "%Y%m%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%b %d, %Y", "%Y/%m/%d",
           "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]  # fmt: skip
NAMES = ["AAA", "BRK.B", "005930", "NA", "7203.T", "^GSPC", "BTC-USD", "LOW", "EUR/USD", "ZZ Top"]
LAYOUTS = ["wide", "long", "fields", "ticker, field", "field, ticker", "Close_AAA"]


@st.composite
def files(draw):
    """(text, expected closes (T, N), expected volume or None) of a file in some layout."""
    layout = draw(st.sampled_from(LAYOUTS))
    count = 1 if layout == "fields" else draw(st.integers(2 if "Close" in layout else 1, 4))
    assets = draw(st.lists(st.sampled_from(NAMES), min_size=count, max_size=count, unique=True))
    rows = draw(st.integers(5, 30))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    level = draw(st.sampled_from([0.5, 90.0, 20_000.0]))
    days = pd.bdate_range(draw(st.sampled_from(["2019-12-30", "2024-02-14"])), periods=rows)
    close = np.round(level * np.exp(rng.normal(0, 0.02, (rows, count)).cumsum(axis=0)), 4)
    holes = rng.random((rows, count)) < draw(st.sampled_from([0.0, 0.1]))
    holes[0] = False
    prices = pd.DataFrame(np.where(holes, np.nan, close), days, assets)
    volume = pd.DataFrame(rng.integers(1, 10**7, (rows, count)).astype(float), days, assets)
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    decimal = draw(st.sampled_from([".", ","])) if delimiter == ";" else "."
    form = draw(st.sampled_from(FORMATS))
    mark = draw(st.sampled_from(["", "NA", "#N/A", "null", "."]))

    def number(value):
        if np.isnan(value):
            return mark
        return (f"{value:.4f}" if value != int(value) else f"{value:.0f}").replace(".", decimal)

    dates = [day.strftime(form) for day in days]
    table = list(_rows(layout, assets, dates, prices, volume, number))
    head, body = table[: len(table) - len(_body(layout, assets, dates))], table[-len(
        _body(layout, assets, dates)) :]  # fmt: skip
    if layout != "long" and draw(st.booleans()):
        body = body[::-1]
    if layout in ("wide", "long") and draw(st.booleans()):  # pandas' row numbers
        head = [["", *line] for line in head]
        body = [[str(i), *line] for i, line in enumerate(body)]
    above = draw(st.sampled_from([[], [["Prices of a provider"]], [["a"], ["b"], []]]))
    below = draw(st.sampled_from([[], [["Source: us"]]]))
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows([*above, *head, *body, *below])
    return stream.getvalue(), prices, None if layout == "wide" else volume


def _body(layout, assets, dates):
    return dates * (len(assets) if layout == "long" else 1)


def _rows(layout, assets, dates, prices, volume, number):
    if layout == "wide":
        yield ["Date", *assets]
        for i, date in enumerate(dates):
            yield [date, *(number(prices[a].iloc[i]) for a in assets)]
    elif layout == "long":
        yield ["date", "ticker", "close", "volume"]
        for a in assets:
            for i, date in enumerate(dates):
                yield [date, a, number(prices[a].iloc[i]), number(volume[a].iloc[i])]
    else:
        pairs = [(field, a) for field in ("Close", "Volume") for a in assets]
        if layout == "fields":
            yield ["Date", *(field for field, _ in pairs)]
        elif layout == "Close_AAA":
            yield ["Date", *(f"{field}_{a}" for field, a in pairs)]
        else:
            order = 1 if layout == "field, ticker" else -1
            levels = list(zip(*(pair[::order] for pair in pairs), strict=True))
            yield from (["Price", *levels[0]], ["Ticker", *levels[1]])
            yield ["Date", *[""] * len(pairs)]
        frames = {"Close": prices, "Volume": volume}
        for i, date in enumerate(dates):
            yield [date, *(number(frames[field][a].iloc[i]) for field, a in pairs)]


def loaded(path, options):
    try:
        return load(path, **options), ""
    except DataError as error:
        return None, str(error)


@given(files())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_written_is_read_or_refused(tmp_path, drawn):
    text, prices, volume = drawn
    path = tmp_path / "AAA.csv"
    path.write_text(text)
    options = {}
    if "fields" in text or (volume is not None and len(prices.columns) == 1):
        options["asset"] = prices.columns[0]
    panel, refusal = loaded(path, options)
    if panel is None:
        assert str(path) in refusal
        assert "date_format=" in refusal or "thousands=" in refusal, refusal
        return
    read = panel.prices.reindex(columns=prices.columns)
    assert set(panel.assets) == set(prices.columns)
    known = prices.index[prices.notna().any(axis=1)]
    pd.testing.assert_frame_equal(
        read.loc[known],
        prices.loc[known],
        check_exact=True,
        check_freq=False,
        check_names=False,
        check_index_type=False,
    )
    if volume is not None:
        got = panel.asset_features["volume"][prices.columns].loc[known]
        pd.testing.assert_frame_equal(
            got,
            volume.loc[known],
            check_exact=True,
            check_freq=False,
            check_names=False,
            check_index_type=False,
        )
