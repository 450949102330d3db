"""The documentation site is whole, and works from a folder without a network."""

import html.parser
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import unlearnkit as uk
from tests.report.report_browser import CHROMIUM, Browser
from unlearnkit.auditing import verdict_evaluation, verdicts_fast, verdicts_reference
from unlearnkit.auditing.strong.ensemble_size import ENOUGH
from unlearnkit.auditing.strong.results_table import LEVEL
from unlearnkit.report.schema import Verdict
from unlearnkit.stats import oracle_gap

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SECONDS_TO_BUILD = 30
WIDTHS = [390, 1280]
PAGES = ["index", "metrics", "cases", "reference", "cli", "verdicts", "results/digits_study"]
EACH_TIME = {("index", 390), ("metrics", 390), ("cli", 390), ("index", 1280)}
"""Plain text, a wide table and long lines of code; and a window in which the menu is open."""

EXHAUSTIVE = [pytest.mark.exhaustive]
WANTED_TERMS = {
    "forget set",
    "retain set",
    "original model",
    "retrained model",
    "oracle",
    "unlearned model",
    "gap",
    "margin of equivalence",
    "membership inference",
    "ensemble",
    "control model",
}


class Links(html.parser.HTMLParser):
    """The addresses that a page loads, those that it points to, and the ids that it has."""

    def __init__(self):
        super().__init__()
        self.loaded, self.linked, self.ids = [], [], set()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids.add(given.get("id"))
        if tag == "a" and given.get("href"):
            self.linked.append(given["href"])
        elif tag == "link" and given.get("href"):
            self.loaded.append(given["href"])
        elif given.get("src"):
            self.loaded.append(given["src"])


def read(page):
    links = Links()
    links.feed(page.read_text("utf-8"))
    return links


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the site as ``make site`` does."""
    for needed in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    out = tmp_path_factory.mktemp("site")
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out, time.monotonic() - start


@pytest.fixture(scope="module")
def pages(built):
    return {p: read(p) for p in sorted(built[0].rglob("*.html")) if p.name != "404.html"}


@pytest.mark.slow
def test_the_site_is_built_in_half_a_minute(built):
    assert built[1] < SECONDS_TO_BUILD


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(built, pages):
    loaded = {x for links in pages.values() for x in links.loaded if not x.startswith("data:")}
    assert [x for x in loaded if urlsplit(x).scheme or x.startswith("//")] == []
    styles = "".join(p.read_text("utf-8") for p in built[0].rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)'\"]*", styles) == []


@pytest.mark.slow
def test_every_link_leads_to_a_page_and_a_place_on_it(pages):
    lost = []
    for page, links in pages.items():
        for link in (*links.linked, *links.loaded):
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            there = target.is_file()
            if there and parts.fragment and target in pages:
                there = unquote(parts.fragment) in pages[target].ids
            if not there:
                lost.append((page.name, link))
    assert lost == []


@pytest.mark.slow
def test_every_method_metric_and_case_has_its_place(built, pages):
    site = built[0]
    assert {p.stem for p in (site / "methods").glob("*.html")} == {"index", *uk.catalog.methods()}
    for page, known in (("metrics", uk.catalog.metrics()), ("cases", uk.catalog.cases())):
        assert set(known) <= pages[site / f"{page}.html"].ids


@pytest.mark.slow
def test_every_public_name_is_described(built, pages):
    ids = pages[built[0] / "reference.html"].ids
    public = [n for n in dir(uk) if not n.startswith("_")]
    assert [n for n in public if f"unlearnkit.{n}" not in ids] == []


@pytest.mark.slow
def test_the_search_knows_every_page_but_the_tables_of_numbers(built, pages):
    site = built[0]
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    known = {entry["location"].partition("#")[0] for entry in index["docs"]}
    tables = {f"results/{p.stem}.html" for p in (DOCS / "results").glob("*.txt")}
    assert {p.relative_to(site).as_posix() for p in pages} - known == tables


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with Browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.slow
@pytest.mark.chromium
def test_the_search_works_from_a_folder_and_asks_no_server(built, browser):
    browser.events.clear()
    page = built[0] / "methods" / "scrub.html"
    browser.call("Page.navigate", url=f"{page.as_uri()}?q=dampening")
    found = browser.evaluate("""new Promise(done => setInterval(() => {
        const links = [...document.querySelectorAll(".md-search-result__link")];
        if (links.length) done(links.map(a => a.href));
    }, 20) && setTimeout(() => done([]), 10000))""")
    assert any("/methods/ssd.html" in link for link in found)
    assert [u for u in browser.requests() if urlsplit(u).scheme not in {"file", "data"}] == []
    assert browser.complaints() == []


@pytest.mark.slow
@pytest.mark.chromium
@pytest.mark.parametrize(
    ("page", "width"),
    [
        pytest.param(page, width, marks=[] if (page, width) in EACH_TIME else EXHAUSTIVE)
        for page in PAGES
        for width in WIDTHS
    ],
)
def test_nothing_is_wider_than_the_window(built, browser, page, width):
    browser.open(built[0] / f"{page}.html", width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def entries():
    text = (DOCS / "glossary.md").read_text("utf-8")
    return [re.findall(r"^- \*\*(.+?)\*\*: (.*)$", part, re.MULTILINE) for part in text.split("##")]


def test_the_glossary_has_the_terms_of_the_field_each_in_one_sentence():
    terms = {term: said for part in entries() for term, said in part}
    assert set(terms) >= WANTED_TERMS
    text = {t: re.sub(r"\]\(.+?\)|\d\.\d", "", said) for t, said in terms.items()}
    assert [t for t, said in text.items() if said.find(".") != len(said) - 1] == []


def test_each_part_of_the_glossary_is_in_order():
    for part in entries():
        terms = [term.lower() for term, _ in part]
        assert terms == sorted(terms)


def test_words_that_the_glossary_points_to_are_in_it():
    terms = {term for part in entries() for term, _ in part}
    pointed = {w for part in entries() for _, said in part for w in re.findall(r"\*(.+?)\*", said)}
    assert {w for w in pointed if w not in terms and w.removesuffix("s") not in terms} == set()


def test_every_result_is_listed():
    text = (DOCS / "results" / "index.md").read_text("utf-8")
    files = {p.name for p in (DOCS / "results").iterdir()} - {"index.md"}
    assert {f for f in files if f"({f})" not in text} == set()


def test_every_verdict_is_explained_in_order_of_precedence():
    text = (DOCS / "verdicts.md").read_text("utf-8").partition("\n## ")[0]
    assert re.findall(r"^\| ([A-Z][A-Z -]+) \|", text, re.MULTILINE) == list(Verdict)


def test_the_rules_of_verdicts_have_the_numbers_of_the_code():
    text = (DOCS / "verdicts.md").read_text("utf-8")
    said = [
        f"above {0.5 + verdicts_fast.FAST_MARGIN:g},",
        f"below {0.5 - verdicts_fast.FAST_MARGIN:g},",
        f"fallen by more than {verdicts_fast.FAST_MARGIN:g},",
        f"at most {100 * verdict_evaluation.FALSE_ALARMS:g} of 100 audits",
        f"(level {verdicts_reference.OUTSIDE_LEVEL:g}, Bonferroni)",
        f"at least {oracle_gap.LEAST_MARGIN:g} for fractions",
        f"by default {ENOUGH} of each",
        f"(level {LEVEL:g})",
    ]
    assert [s for s in said if s not in text] == []
    assert (oracle_gap.ENOUGH_FOR_INTERVALS, oracle_gap.ENOUGH_FOR_EQUIVALENCE) == (3, 5)


def test_the_citation_names_this_version_and_no_person():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == uk.__version__
    assert citation["authors"] == [{"name": "The unlearnkit authors"}]
    assert {"cff-version", "message", "title", "license", "abstract"} <= set(citation)


def test_security_reports_are_private_and_no_address_is_named():
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    assert "privately" in text
    assert "security advisories" in text
    assert re.findall(r"\S+@\S+\.\S+", text) == []
