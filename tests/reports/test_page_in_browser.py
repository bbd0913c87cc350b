"""The page in headless Chromium: what it does, on which screens, for whom."""

from __future__ import annotations

import contextlib
import csv
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from machine import ALLOW_SKIP
from report_results import HOSTILE, hostile_results, make_result, typical

from engine.accounting.performance import wealth
from reports import summary_table, write_report
from reports.figures.axes import PALETTE
from reports.formats import number, percent


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    """Open results at a width in a colour scheme; anything unforeseen is an error.

    Each page is opened once and kept; its file is loaded anew for every test.
    """
    files: dict[int, Path] = {}
    pages: dict[bool, tuple] = {}

    def page_for(script):
        if script not in pages:
            page = browser.new_page(java_script_enabled=script)
            strange: list[str] = []
            asked: list[str] = []
            page.on("console", lambda message: strange.append(message.text))
            page.on("pageerror", lambda error: strange.append(str(error)))
            page.on("dialog", lambda dialog: (strange.append(dialog.message), dialog.dismiss()))
            page.on("request", lambda request: asked.append(request.url))
            pages[script] = page, strange, asked
        return pages[script]

    @contextlib.contextmanager
    def open_page(results, width=1280, scheme="light", script=True):
        if id(results) not in files:
            folder = tmp_path_factory.mktemp("report")
            files[id(results)] = write_report(results, folder / "report.html")
        url = files[id(results)].as_uri()
        page, strange, asked = page_for(script)
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(media="screen", color_scheme=scheme)
        page.goto("about:blank")  # the same address would only scroll
        strange.clear()
        asked.clear()
        page.goto(url)
        if script:
            page.wait_for_selector("html[data-ready]", state="attached")
        yield page
        own = (url, "data:", "blob:")
        assert [request for request in asked if not request.startswith(own)] == []
        assert strange == []

    return open_page


@pytest.fixture(scope="module")
def results():
    return typical(300)


@pytest.fixture(scope="module")
def hostile():
    return hostile_results()


@pytest.mark.parametrize("results_", ["results", "hostile"])
def test_nothing_overflows_the_page(opened, results_, request):
    with opened(request.getfixturevalue(results_), 390) as page:
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        for width in (390, 768, 1280, 1920):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_contents_links_lead_to_sections(opened, results):
    with opened(results) as page:
        links = page.locator("nav a")
        assert links.count() == 20
        for number_ in range(links.count()):
            target = links.nth(number_).get_attribute("href")
            assert page.locator(f"section{target} > details > summary h2").count() == 1
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


@pytest.fixture(scope="module")
def many():
    """More strategies than there are colours."""
    return {f"S{n}": make_result(f"S{n}", 300, seed=n, learned=n == 0) for n in range(9)}


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


# What is said of a row holds for the ones below it, which take most of the time.
SHORTENED = """() => {
  document.querySelectorAll("details").forEach((d) => (d.open = true));
  document.querySelectorAll("tbody > tr:nth-child(n + 5)").forEach((row) => row.remove());
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out(opened, many, scheme):
    """WCAG 2.2 AA: 4.5 to 1 for text, 3 to 1 for what tells the lines apart."""
    with opened(many, scheme=scheme) as page:
        page.evaluate(SHORTENED)
        assert page.evaluate(CONTRASTS) == []


def test_hostile_names_do_nothing_in_a_browser(opened, hostile):
    with opened(hostile) as page:
        page.mouse.move(400, 300)
        assert page.locator("img, iframe, object, embed").count() == 0
        assert page.locator("script").count() == 1
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
        assert page.locator(".tools").first.is_hidden()


def test_no_figure_is_cut_in_two_on_paper(opened, results):
    """Figures avoid page breaks, and none is higher than an A4 page less its margins."""
    with opened(results, 720) as page:
        page.emulate_media(media="print")
        rules = page.evaluate(
            """() => [...document.querySelectorAll("figure")]
            .map((f) => [getComputedStyle(f).breakInside, f.getBoundingClientRect().height])"""
        )
    assert all(rule == "avoid" and height < 1000 for rule, height in rules)


COLOURS = {"runOnly": ["color-contrast"]}  # the slowest rule, and the only one about colours
OTHERS = {"rules": {"color-contrast": {"enabled": False}}}
AUDITS = {
    "light": ("results", 1280, "light", {}, 15),
    "dark": ("results", 1280, "dark", COLOURS, 0),
    "hostile, on a phone": ("hostile", 390, "light", OTHERS, 15),
}


@pytest.mark.parametrize("audit", AUDITS)
def test_axe_finds_nothing(opened, request, audit):
    """The rules of axe-core, with everything unfolded."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        if ALLOW_SKIP:
            pytest.skip("axe-playwright-python is not installed")
        raise
    fixture, width, scheme, options, fewest = AUDITS[audit]
    with opened(request.getfixturevalue(fixture), width, scheme) as page:
        page.evaluate(SHORTENED)
        found = Axe().run(page, options=options | {"resultTypes": ["violations"]}).response
        assert len(found["passes"]) > fewest
        assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found["violations"]] == []


def test_the_page_opens_in_under_a_second(opened, results):
    """The fastest of up to ten openings: others may keep the machine busy meanwhile."""
    spent = "performance.getEntriesByType('navigation')[0].loadEventEnd"
    fastest = np.inf
    with opened(results) as page:
        for _ in range(10):
            fastest = min(fastest, page.evaluate(spent))
            if fastest < 1000:
                break
            page.reload()
    assert 0 < fastest < 1000


# What the script adds


def column_of(page, table, column):
    cells = page.locator(f"{table} tbody tr > :nth-child({column})")
    return [text.strip() for text in cells.all_text_contents()]


def test_a_column_sorts_by_value_both_ways(opened, results):
    table = summary_table(results)["annual return"]
    with opened(results) as page:
        head = page.locator("#summary-table thead th").nth(1)
        for direction, ascending in (("descending", False), ("ascending", True)):
            head.get_by_role("button").click()
            assert head.get_attribute("aria-sort") == direction
            names = page.locator("#summary-table tbody bdi").all_text_contents()
            assert names == list(table.sort_values(ascending=ascending).index)


FORMULAS = ("=1+1", "@x", "+2", "-x", 'a "b", c')


@pytest.fixture(scope="module")
def odd():
    """Names that a spreadsheet would run, and a strategy without a Sharpe ratio."""
    results = {name: make_result(name, 60, seed=n) for n, name in enumerate(FORMULAS)}
    return results | {"flat": make_result("flat", 60, net=[1e-4] * 60)}


def test_what_is_not_defined_sorts_last(opened, odd):
    with opened(odd) as page:
        head = page.locator("#summary-table thead th").nth(3).get_by_role("button")
        for _ in range(2):
            head.click()
            assert page.locator("#summary-table tbody bdi").all_text_contents()[-1] == "flat"


def downloaded(page, click):
    with page.expect_download() as waiting:
        click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def test_a_table_is_exported_as_it_stands(opened, results):
    with opened(results) as page:
        page.locator("#summary-table thead th").nth(1).get_by_role("button").click()
        button = page.get_by_role("button", name="CSV: Summary of all strategies")
        name, content = downloaded(page, button.click)
        rows = list(csv.reader(content.decode("utf-8-sig").splitlines()))
        shown = page.locator("#summary-table tbody tr > *").all_text_contents()
    assert name == "summary-1.csv"
    told = [cell for row in rows[1:] for cell in row]
    plain = [" ".join(text.replace("\N{MINUS SIGN}", "-").split()) for text in shown]
    assert told == ["" if text == "\N{EN DASH}" else text for text in plain]
    assert rows[0][:2] == ["Strategy", "Annual return"]


def test_an_exported_name_is_no_formula(opened, odd):
    with opened(odd) as page:
        button = page.get_by_role("button", name="CSV: Summary of all strategies")
        _, content = downloaded(page, button.click)
    told = [row[0] for row in csv.reader(content.decode("utf-8-sig").splitlines())][1:]
    assert told == ["'=1+1", "'@x", "'+2", "'-x", 'a "b", c', "flat"]


def test_figures_are_exported(opened, hostile):
    with opened(hostile) as page:
        name, drawing = downloaded(page, page.get_by_role("button", name="SVG: Growth of 1").click)
        assert name == "growth-1.svg"
        root = ElementTree.fromstring(drawing)
        texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
        assert "<script>alert(1)</script>" in texts
        assert b"var(--" not in drawing
        assert b"data-readings" not in drawing
        name, image = downloaded(page, page.get_by_role("button", name="PNG: Growth of 1").click)
        assert name == "growth-1.png"
        assert image.startswith(b"\x89PNG")
        assert len(image) > 10_000


def test_values_are_read_under_the_pointer_and_by_keyboard(opened, results):
    net = results["DEQMeanVariance"].net_returns
    value = wealth(net)
    with opened(results) as page:
        plot = page.locator("#growth .plot").first
        reading = plot.locator(".reading")
        assert reading.is_hidden()
        plot.focus()
        for key, date in (("Home", net.index[0]), ("End", net.index[-1])):
            page.keyboard.press(key)
            told = reading.inner_text().split()
            assert told[0] == str(date.date())
            assert told[told.index("DEQMeanVariance") + 1] == number(value[date])
        page.keyboard.press("Escape")
        assert reading.is_hidden()
        width = plot.locator("svg").bounding_box()["width"]
        plot.locator("svg").hover(position={"x": width * (58 + 706) / 2 / 720, "y": 60})
        date = reading.locator(".when").inner_text()
        assert number(value[date]) in reading.inner_text().split()
        middle = net.index[len(net) // 2]
        assert abs(pd.Timestamp(date) - middle) < pd.Timedelta("5D")
        page.mouse.move(5, 5)
        assert reading.is_hidden()


def test_figures_zoom_in_step_and_strategies_are_switched_off(opened, results):
    """By a button, by dragging, by keys; what is drawn is what the data say."""
    net = results["DEQMeanVariance"].net_returns
    value = wealth(net)
    with opened(results) as page:
        plot = page.locator("#growth .plot").first
        svg = plot.locator("svg")
        before = svg.inner_html()
        area = svg.bounding_box()
        unit = area["width"] / 720
        page.mouse.move(area["x"] + 300 * unit, area["y"] + 90)
        page.mouse.down()
        page.mouse.move(area["x"] + 450 * unit, area["y"] + 90, steps=4)
        page.mouse.up()
        for section in ("growth", "drawdowns", "rolling"):
            texts = page.locator(f"#{section} .plot svg").first.locator("text").all_text_contents()
            dates = [text for text in texts if re.fullmatch(r"20\d\d-\d\d(-\d\d)?", text)]
            assert 1 <= len(dates) <= 9, section
        plot.focus()
        page.keyboard.press("Home")
        first = pd.Timestamp(plot.locator(".when").inner_text())
        page.keyboard.press("End")
        last = pd.Timestamp(plot.locator(".when").inner_text())
        assert net.index[0] < first < last < net.index[-1]
        share = (last - first) / (net.index[-1] - net.index[0])
        assert share == pytest.approx(150 / 648, abs=0.03)
        seen = value[first:last]
        path = svg.locator("path[style*='--s1']").last.get_attribute("d")
        points = [tuple(map(float, pair.split())) for pair in re.split("[ML]", path)[1:]]
        assert len(points) == len(seen)  # every value, none thinned away
        heights = np.array([y for _, y in points])
        slope, intercept = np.polyfit(np.log(seen), heights, 1)  # a logarithmic axis
        np.testing.assert_allclose(slope * np.log(seen) + intercept, heights, atol=0.2)
        page.get_by_role("button", name="Linear axis: Growth").click()
        path = svg.locator("path[style*='--s1']").last.get_attribute("d")
        heights = np.array([float(pair.split()[1]) for pair in re.split("[ML]", path)[1:]])
        slope, intercept = np.polyfit(seen, heights, 1)
        np.testing.assert_allclose(slope * seen + intercept, heights, atol=0.2)
        page.get_by_role("button", name="Linear axis: Growth").click()
        name = page.locator("#growth .legend [role=button]", has_text="EqualWeight")
        assert svg.locator("path[style*='--s2']").count() == 1
        name.focus()
        page.keyboard.press("Enter")
        assert svg.locator("path[style*='--s2']").count() == 0
        assert page.locator("#drawdowns svg path[style*='--s2']").count() == 0
        page.keyboard.press(" ")
        plot.focus()
        page.keyboard.press("0")
        page.keyboard.press("Escape")
        assert svg.inner_html().split("<line")[0] == before.split("<line")[0]


def test_a_decision_is_picked_by_slider_field_and_keyboard(opened, results):
    """What is shown of a date is what ``explain`` says of it, and the picker follows."""
    subject = results["DEQMeanVariance"]
    with opened(results) as page:
        place = page.locator("#why .decision").first
        slider, field = (
            page.get_by_label("Decision", exact=True),
            page.get_by_label("Date", exact=True),
        )
        for pick, place_ in (
            (lambda: None, -1),
            (lambda: slider.press("Home"), 0),
            (lambda: slider.press("ArrowRight"), 1),
            (lambda: page.get_by_role("button", name="Later").click(), 2),
            (lambda: field.fill(str(subject.targets.index[57].date())), 57),
        ):
            date = subject.targets.index[place_]
            pick()
            place.get_by_text(str(date.date())).wait_for()
            told = subject.explain(date)
            assert field.input_value() == str(date.date())
            assert column_of(page, "#why-table", 1) == list(told.index)
            heads = page.locator("#why-table thead th").all_text_contents()
            assert column_of(page, "#why-table", heads.index("Why") + 1) == list(told["why"])
            assert column_of(page, "#why-table", heads.index("Aimed at") + 1) == [
                percent(w) for w in told["aimed"]
            ]
            facts = place.locator(".facts").inner_text()
            assert "The equilibrium took 12 steps" in facts
        other = page.locator("#why .decision").nth(1).locator(".facts b")
        assert other.text_content() == str(date.date())


def test_sections_fold_and_links_unfold_them(opened, results):
    with opened(results) as page:
        page.get_by_role("button", name="Fold all").click()
        assert page.locator("#growth .plot").first.is_hidden()
        page.locator("nav a[href='#growth']").click()
        assert page.locator("#growth .plot").first.is_visible()
        assert page.locator("#luck table").is_hidden()
        page.get_by_role("button", name="Unfold all").click()
        page.locator("#turnover summary", has_text="Round trips").click()
        trips = page.locator("#trips-table tbody tr")
        asset = trips.first.locator("th").inner_text()
        page.get_by_label("Filter: Round trips").fill(f"{asset} long")
        seen = [row for row in trips.all() if row.is_visible()]
        assert 0 < len(seen) < trips.count()
        assert {row.locator("th").inner_text() for row in seen} == {asset}
        assert page.locator("#luck table").is_visible()


def test_the_page_is_whole_without_the_script(opened, results):
    with opened(results, script=False) as page:
        assert page.locator("#summary-table").is_visible()
        assert page.locator("#growth svg").first.is_visible()
        assert page.locator("button").count() == 0
        assert page.locator("#why-table tbody tr").count() == 20
        assert page.locator("#why .picking").is_hidden()
        page.locator("#growth summary").first.click()
        assert page.locator("#growth svg").first.is_hidden()
