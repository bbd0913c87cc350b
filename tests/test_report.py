"""The report as a page: what it says, what it survives, and how a browser shows it."""

from __future__ import annotations

import contextlib
import html
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.result import BacktestResult
from reports import check_report_path, summary_table, write_report
from reports.figures import PALETTE, thin
from reports.html import chosen, headline, render_report
from reports.metrics import number, percent


def make_result(
    name: str,
    periods: int = 1300,
    assets: int = 20,
    seed: int = 0,
    learned: bool = False,
    cls: str = "strategies.baselines:EqualWeight",
    net: np.ndarray | None = None,
    short: bool = False,
    end: str = "2022-12-28",
) -> BacktestResult:
    """A result as the engine fills it, from seeded noise; ``net`` replaces the returns."""
    random = np.random.default_rng(seed)
    dates = pd.bdate_range(end=end, periods=periods)
    names = [f"A{number:03d}" for number in range(assets)]
    market = np.random.default_rng(99).standard_t(5, periods) * 0.009 + 0.0004
    gross = market + random.normal(0, 0.003, periods) if net is None else np.asarray(net, float)
    fills = dates[::5]
    shape = random.gamma(1.0 if learned else 30.0, size=(len(fills), assets))
    drifting = pd.DataFrame(shape).ewm(span=12).mean().to_numpy()
    targets = drifting / drifting.sum(axis=1, keepdims=True)
    if short:
        targets = targets - 1.5 * targets[:, ::-1] * (np.arange(assets) % 2)
    weights = pd.DataFrame(targets, fills, names).reindex(dates).ffill()
    turnover = pd.Series(np.abs(np.diff(targets, axis=0, prepend=0)).sum(axis=1), fills)
    costs = 0.001 * turnover
    paid = gross.copy()
    if net is None:
        paid[::5] = (1 + gross[::5]) * (1 - costs.to_numpy()) - 1
    starts = range(0, periods, 252)
    folds = pd.DataFrame(
        {
            "train_start": (dates[0] - pd.DateOffset(years=5)).isoformat(),
            "train_end": [dates[start].isoformat() for start in starts],
            "test_start": [dates[start].isoformat() for start in starts],
            "test_end": [dates[min(start + 251, periods - 1)].isoformat() for start in starts],
            "decisions": 52,
        }
    )
    return BacktestResult(
        name=name,
        strategy={"class": cls, "parameters": {"lookback": 60, "cap": 0.25}},
        targets=pd.DataFrame(targets, fills, names),
        weights=weights,
        gross_returns=pd.Series(gross, dates),
        net_returns=pd.Series(paid, dates),
        turnover=turnover,
        costs=costs,
        orders=pd.DataFrame(columns=["date", "asset", "side", "size", "price", "fees"]),
        folds=folds,
        training=_training(random, len(folds)) if learned else pd.DataFrame(),
        solves=_solves(random, len(folds)) if learned else pd.DataFrame(),
        settings={
            "panel": {
                "source": "synthetic noise with one factor",
                "fingerprint": "5f" * 32,
                "caveats": [
                    "Invented: nothing here ever traded.",
                    "The survivors were hand-picked.",
                ],
                "start": str(dates[0].date()),
                "end": str(dates[-1].date()),
                "assets": names,
            },
            "plan": {"train": "5Y", "refit": "1Y", "rebalance": "W-FRI", "execution_lag": 1},
            "costs": {"commission": 0.001, "spread": 0.0},
            "training": {"epochs": 30, "learning_rate": 0.003},
            "seed": 0,
            "periods_per_year": 252,
            "versions": {"python": "3.11.9", "torch": "2.6.0"},
            "simulation_difference": 3.1e-16,
        },
        checks=_checks(len(folds)) if learned else pd.DataFrame(),
    )


def _training(random: np.random.Generator, folds: int, epochs: int = 30) -> pd.DataFrame:
    rows = []
    for fold in range(folds):
        fall = np.exp(-np.arange(epochs) / 8)
        validation = -0.4 + 0.3 * fall + 0.004 * np.arange(epochs) + random.normal(0, 0.02, epochs)
        kept = np.minimum.accumulate(validation) == validation
        for epoch in range(epochs):
            loss = -0.7 + 0.6 * fall[epoch] + random.normal(0, 0.01)
            rows.append((fold, epoch, loss, validation[epoch], bool(kept[epoch]), 0.4, 0))
    columns = ["fold", "epoch", "loss", "validation_loss", "best", "gradient_norm", "skipped"]
    return pd.DataFrame(rows, columns=columns)


def _solves(random: np.random.Generator, folds: int) -> pd.DataFrame:
    rows = []
    for fold in range(folds):
        for phase, samples in (("training", 9000), ("allocation", 52)):
            for solve, steps in (("fixed point", 11), ("adjoint", 9), ("mean-variance", 8)):
                if phase == "training" or solve != "adjoint":
                    mean = steps + random.normal()
                    rows.append((fold, phase, solve, samples, mean, int(mean) + 5, 3e-9, 0))
    columns = [
        "fold",
        "phase",
        "solve",
        "samples",
        "mean_steps",
        "most_steps",
        "residual",
        "failures",
    ]
    return pd.DataFrame(rows, columns=columns)


def _checks(folds: int) -> pd.DataFrame:
    rows = [(fold, "after training", 4, 2.4e-11, 7.7e-9) for fold in range(folds)]
    return pd.DataFrame(rows, columns=["fold", "when", "samples", "weights", "gradients"])


def typical(periods: int = 1300) -> dict[str, BacktestResult]:
    """A learned strategy, its benchmark and one more."""
    return {
        "DEQMeanVariance": make_result(
            "DEQMeanVariance", periods, learned=True, seed=1, cls="strategies.deq:DEQMeanVariance"
        ),
        "EqualWeight": make_result("EqualWeight", periods, seed=2),
        "MinimumVariance": make_result(
            "MinimumVariance", periods, seed=3, cls="strategies.baselines:MinimumVariance"
        ),
    }


def text_of(page: str) -> str:
    """What a reader sees: no style, no tags."""
    return html.unescape(re.sub(r"<[^>]*>", " ", page.split("</style>", 1)[1]))


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(typical())


# The page as text


def test_write_report_writes_one_file_and_returns_its_path(tmp_path):
    path = write_report(typical(400), tmp_path / "deep" / "down" / "report.html")
    assert path == tmp_path / "deep" / "down" / "report.html"
    assert [item.name for item in path.parent.iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_page_needs_nothing_else(page):
    without_namespaces = re.sub(r'xmlns(:xlink)?="[^"]*"', "", page)
    assert not re.search(r"(src|href)=[\"'](?!#)", without_namespaces)
    assert not re.search(r"https?://|@import|url\((?!#)|<script|<link|<img", without_namespaces)
    assert (
        "Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'" in page
    )


def test_the_same_results_give_the_same_bytes(page):
    assert render_report(typical()) == page


def test_ids_are_unique_and_every_reference_finds_its_own(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)
    assert {first or second for first, second in targets} <= set(ids)


def test_figures_take_their_colours_from_the_page(page):
    figures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert (
        len(figures) == 10
    )  # equity, drawdowns, rolling, 3 weights, turnover, costs, training, steps
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
    row = re.search(r"<bdi>dear</bdi></span></th>(.*?)</tr>", render_report(results), re.DOTALL)[1]
    best = [' class="best"' in cell for cell in row.split("<td")[1:]]
    assert best == [True, False, True, True, True, True, False, False, False]


def test_everything_that_must_be_said_is_said(page):
    text = text_of(page)
    assert "Invented: nothing here ever traded." in text
    assert "5f" * 32 in text
    assert "plan.execution_lag" in text
    assert "strategies.deq:DEQMeanVariance" in text
    assert "3.1e\N{MINUS SIGN}16" in text
    assert "Agreement with qpth" in text
    assert "2.4e\N{MINUS SIGN}11" in text
    assert "reached their tolerance" in text


def test_failed_solves_are_counted():
    results = typical(300)
    solves = results["DEQMeanVariance"].solves
    solves.loc[0, "failures"] = 7
    total = f"{solves['samples'].sum():,}"
    assert f"7 of {total} did not reach their tolerance" in text_of(render_report(results))


# Who is compared with whom, and what is said about it


def test_the_learned_strategy_is_compared_with_equal_weights():
    results = typical(100)
    assert chosen(results) == ("DEQMeanVariance", "EqualWeight")
    assert chosen(dict(reversed(results.items()))) == ("DEQMeanVariance", "EqualWeight")
    del results["DEQMeanVariance"]
    assert chosen(results) == ("MinimumVariance", "EqualWeight")
    del results["MinimumVariance"]
    assert chosen(results) == ("EqualWeight", None)
    plain = {name: make_result(name, 100, cls="x:Other") for name in ("one", "two")}
    assert chosen(plain) == ("one", "two")


def test_the_headline_says_how_much_and_how_likely(page):
    sentence = re.sub(r"<[^>]*>", "", re.search(r"<h1>(.*?)</h1>", page)[1])
    assert re.fullmatch(
        r"Over 5\.2 years DEQMeanVariance earned \d\.\d\d (more|less) Sharpe than EqualWeight "
        r"after costs; a difference at least this large arises by chance in \d+% of cases: "
        r"this is .*\.",
        sentence,
    )


def test_headlines_without_a_comparison():
    def said(results):
        subject, benchmark = chosen(results)
        luck = pd.DataFrame({"difference": np.nan, "p": np.nan}, index=list(results))
        words = headline(results, summary_table(results), luck, subject, benchmark)
        return re.sub(r"<[^>]*>", "", words)

    assert "there is no other strategy" in said({"A": make_result("A", 300)})
    assert "Over 40 periods (0.16 years)" in said({"A": make_result("A", 40)})
    flat = {name: make_result(name, 300, net=np.full(300, 1e-4), cls="x:Y") for name in ("A", "B")}
    assert "cannot be compared" in said(flat)
    ruined = np.full(300, 0.001)
    ruined[7] = -1.0
    assert "lost everything" in said({"A": make_result("A", 300, net=ruined)})


# What a page must survive


HOSTILE = {
    "<script>alert(1)</script>": "markup",
    "<img src=x onerror=alert(1)>": "an event handler",
    "\"' onmouseover='alert(1)' x=\"": "quotes",
    "{{ 7 * 7 }} {% raw %}": "template syntax",
    "$\\frac{1}{0}$ \\undefined": "mathematics",
    "\U0001f680 \u05e9\u05dc\u05d5\u05dd \u202e": "emoji and right to left",
    "w" * 200: "200 characters",
}


@pytest.fixture(scope="module")
def hostile() -> dict[str, BacktestResult]:
    """Every hostile name as strategy, asset, caveat, parameter and setting."""
    results = {}
    for seed, name in enumerate(HOSTILE):
        result = make_result(name, 300, seed=seed, assets=len(HOSTILE), learned=seed == 0, cls=name)
        result.weights.columns = list(HOSTILE)
        result.strategy["parameters"][name] = name
        result.settings["panel"]["caveats"] = list(HOSTILE)
        result.settings["panel"]["source"] = name
        result.settings[name] = {name: [name]}
        results[name] = result
    return results


def test_hostile_names_are_shown_not_run(hostile):
    page = render_report(hostile)
    assert "<script" not in page
    assert not re.search(r"<[^>]*\son\w+=alert", re.sub(r'"[^"]*"', '""', page))
    for name in HOSTILE:
        assert (
            f"<bdi>{html.escape(name).replace('&#x27;', '&#39;').replace('&quot;', '&#34;')}</bdi>"
            in page
        )


RUINED = np.r_[np.full(100, 0.01), -1.2, np.zeros(199)]
CASES = {
    "one strategy": lambda: {"A": make_result("A")},
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
    text = text_of(render_report(CASES[case]()))
    assert not re.search(r"\b(nan|-?inf|NaT|None(?! of))\b", text)
    assert "Settings" in text


def test_nothing_traded_trained_or_refitted():
    result = make_result("idle", 300)
    idle = {
        field: getattr(result, field).iloc[:0]
        for field in ("turnover", "costs", "folds", "training", "solves", "targets")
    }
    text = text_of(render_report({"idle": BacktestResult(**{**vars(result), **idle})}))
    for words in ("No trade was made", "there are no folds", "None of the strategies is trained"):
        assert words in text


def test_intraday_dates_show_their_time():
    result = make_result("fast", 300)
    for frame in (result.net_returns, result.gross_returns, result.weights):
        frame.index = pd.date_range("2022-03-01 09:30", periods=300, freq="30min")
    assert "2022-03-01 09:30" in text_of(render_report({"fast": result}))


def test_forty_strategies_on_500_assets_fit_in_three_megabytes():
    results = {f"S{n}": make_result(f"S{n}", 500, 500, seed=n, learned=n < 5) for n in range(40)}
    page = render_report(results)
    assert len(page.encode()) < 3e6
    text = text_of(page)
    assert "488 others" in text
    assert "32 others" in text


def test_a_long_history_fits_in_three_megabytes():
    results = {f"S{n}": make_result(f"S{n}", 23 * 252, seed=n, learned=n == 0) for n in range(5)}
    assert len(render_report(results).encode()) < 3e6


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


# The page in a browser

CHROMIUM = Path("/usr/bin/chromium")
ALLOW_SKIP = not os.environ.get("CI")


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        if ALLOW_SKIP:
            pytest.skip("playwright is not installed")
        raise
    if not CHROMIUM.exists() and ALLOW_SKIP:
        pytest.skip(f"{CHROMIUM} is missing")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    """Open results at a width in a colour scheme; anything unforeseen is an error."""
    files: dict[int, Path] = {}

    @contextlib.contextmanager
    def open_page(results, width=1280, scheme="light"):
        if id(results) not in files:
            folder = tmp_path_factory.mktemp("report")
            files[id(results)] = write_report(results, folder / "report.html")
        url = files[id(results)].as_uri()
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        strange: list[str] = []
        page.on("console", lambda message: strange.append(message.text))
        page.on("pageerror", lambda error: strange.append(str(error)))
        page.on("dialog", lambda dialog: (strange.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: request.url != url and strange.append(request.url))
        page.goto(url)
        yield page
        page.close()
        assert strange == []

    return open_page


@pytest.fixture(scope="module")
def results() -> dict[str, BacktestResult]:
    return typical(600)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1280, 1920])
def test_nothing_overflows_the_page(opened, results, hostile, width, scheme):
    for shown in (results, hostile):
        with opened(shown, width, scheme) as page:
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_contents_links_lead_to_sections(opened, results):
    with opened(results) as page:
        links = page.locator("nav a")
        assert links.count() == 14
        for number_ in range(links.count()):
            target = links.nth(number_).get_attribute("href")
            assert page.locator(f"section{target} > h2").count() == 1
        links.last.click()
        page.wait_for_timeout(1000)  # it scrolls smoothly
        assert page.evaluate("scrollY > innerHeight")


def test_figures_follow_the_colour_scheme(opened, results):
    seen = {}
    for scheme in ("light", "dark"):
        with opened(results, scheme=scheme) as page:
            stroke = (
                "getComputedStyle(document.querySelector('#growth path[style*=\"--s1\"]')).stroke"
            )
            seen[scheme] = (
                page.evaluate("getComputedStyle(document.body).backgroundColor"),
                page.evaluate(stroke),
            )
    for place, name in enumerate(("page", "s1")):
        for scheme, shade in zip(("light", "dark"), PALETTE[name], strict=True):
            red, green, blue = (int(shade[i : i + 2], 16) for i in (1, 3, 5))
            assert seen[scheme][place] == f"rgb({red}, {green}, {blue})"


CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = ([r, g, b]) => [r, g, b]
    .map((c) => (c / 255 <= 0.04045 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    if (!node) return [255, 255, 255];
    const [r, g, b, a] = rgba(getComputedStyle(node).backgroundColor);
    if (a === 255) return [r, g, b];
    const below = behind(node.parentElement);
    return [r, g, b].map((c, i) => (c * a + below[i] * (255 - a)) / 255);
  };
  const ratio = (one, two) => {
    const [high, low] = [light(one), light(two)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const ink = node.ownerSVGElement ? style.fill : style.color;
    const value = ratio(rgba(ink), behind(node));
    if (value < 4.5) found.push([node.tagName, node.textContent.trim().slice(0, 30), value]);
  }
  for (const chip of document.querySelectorAll("#growth .chip")) {
    const value = ratio(rgba(getComputedStyle(chip).backgroundColor), behind(chip.parentElement));
    if (value < 3) found.push(["chip", chip.parentElement.textContent, value]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out(opened, scheme):
    """WCAG 2.2 AA: 4.5 to 1 for text, 3 to 1 for what tells the lines apart."""
    many = {f"S{n}": make_result(f"S{n}", 300, seed=n, learned=n == 0) for n in range(9)}
    with opened(many, scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate(CONTRASTS) == []


def test_hostile_names_do_nothing_in_a_browser(opened, hostile):
    with opened(hostile) as page:
        page.mouse.move(400, 300)
        assert page.locator("img, script, iframe, object, embed").count() == 0
        names = page.locator("#summary-table tbody bdi").all_text_contents()
        assert names == list(HOSTILE)


def test_figures_have_names_and_tables_scroll_by_keyboard(opened, results):
    with opened(results, 390) as page:
        assert page.get_by_role("img", name=re.compile("Growth of 1")).count() == 1
        table = page.get_by_role("region", name="Summary of all strategies")
        table.focus()
        page.keyboard.press("End")
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(500)
        assert table.evaluate("table => table.scrollLeft") > 0


def test_text_in_figures_can_be_read_on_a_phone(opened, results):
    heights = """() => [...document.querySelectorAll(".plot text")]
        .map((text) => text.getBoundingClientRect().height)"""
    for width in (390, 768, 1280):
        with opened(results, width) as page:
            assert min(page.evaluate(heights)) >= 9


def test_print_opens_everything_and_needs_no_dark_ink(opened, results):
    with opened(results, scheme="dark") as page:
        assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
        page.emulate_media(media="print")
        assert (
            page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        assert page.locator("nav").is_hidden()
        assert page.locator("#months .heat").last.is_visible()
