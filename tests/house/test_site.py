"""The documentation's site: built strictly, shown without a network, and to everyone."""

import os
import re
import subprocess
import sys
from html import unescape
from importlib.util import find_spec
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    if not find_spec("mkdocs") and not os.environ.get("CI"):
        pytest.skip("mkdocs is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    told = subprocess.run(list(map(str, words)), cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr  # a dead link or anchor is a failure
    return folder


def test_the_site_builds_strictly_and_fetches_nothing(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        fetched = re.findall(
            r"<(?:script|img|iframe|source)[^>]* src=\"?(?:https?:)?//[^\s>]+|"
            r"<link[^>]* rel=\"?(?:stylesheet|preconnect|preload)[^>]*(?:https?:)?//[^\s>]+",
            page.read_text(),
        )
        assert not fetched, page
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\W*(https?:)?//", style.read_text()), style


def test_the_site_shows_docstrings(site):
    shown = (site / "reference/engine.html").read_text()
    assert "Walk the strategies forward through the panel" in shown


def test_every_command_is_described_with_its_options(site):
    shown = (site / "reference/command-line.html").read_text()
    for heading in ("deqfolio-backtest", "deqfolio-orders", "deqfolio-data-check"):
        assert f'id="{heading}"' in shown
    assert "<code>--whole-shares</code>" in shown


def test_the_notebook_is_shown_with_its_formulas_and_figures(site):
    shown = (site / "implicit-layers.html").read_text()
    assert shown.count("<math ") > 8
    assert shown.count('src="data:image/png;base64,') == 4
    assert "differs from 300 unrolled steps" in shown


def test_formulas_are_mathml_in_a_font_that_has_their_signs(site):
    signs = TTFont(site / "assets/math.woff").getBestCmap()
    pages = [page for page in ROOT.rglob("docs/**/*.md") if "$$" in page.read_text()]
    assert pages
    for page in pages:
        shown = (site / page.relative_to(ROOT / "docs").with_suffix(".html")).read_text()
        formulas = re.findall(r"<math [^>]*>(.*?)</math>", shown, re.DOTALL)
        assert len(formulas) >= page.read_text().count("$$") / 2
        assert "arithmatex" not in shown
        for formula in formulas:
            letters = unescape(re.sub("<[^>]*>", "", formula))
            assert not set(letters) & set("\\&$"), letters  # what was not understood
            missing = {x for x in letters if ord(x) not in signs and not x.isspace()}
            assert not missing, missing


@pytest.mark.parametrize(
    ("width", "scheme", "names"),
    [
        (1280, "light", ["mathematics", "comparison", "reference/strategies"]),
        (390, "dark", ["index", "implicit-layers", "how-to/own-strategy"]),
    ],
)
def test_pages_have_no_barrier_and_fit_the_screen(site, browser, width, scheme, names):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    for name in names:
        page.goto((site / f"{name}.html").as_uri())
        found = axe.run(page).response["violations"]
        assert not found, (name, [(each["id"], each["nodes"][0]["html"]) for each in found])
        root = "document.documentElement"
        assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth"), name
    page.close()
    assert not [url for url in asked if url.startswith("http")]


def test_the_site_is_searched_as_it_is_opened_from_a_folder(site, browser):
    """By the words that users of the neighbours know; browsers start no worker from a file."""
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    field = page.locator("input[name=query]")
    for words, wanted in (
        ("slippage", "Questions"),
        ("tear sheet", "Coming from quantstats, pyfolio or empyrical"),
        ("notebook", "In a notebook: tables and figures"),
    ):
        field.click()
        field.fill("")
        field.press_sequentially(words)
        page.locator(".md-search-result__item h1", has_text=wanted).first.wait_for(timeout=10_000)
    page.close()
