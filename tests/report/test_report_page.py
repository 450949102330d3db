"""The page as a parser, a screen reader and a browser meet it."""

import itertools
import re
from collections import Counter
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest

from tests.report.report_browser import CHROMIUM, Browser
from tests.report.report_samples import SAMPLES, SCRIPT, full, hostile, margins, rocs
from unlearnkit.report import figures
from unlearnkit.report import phrases as w
from unlearnkit.report.render_html import render_page
from unlearnkit.report.schema import ClassAccuracy, MarginSample, Roc, Verdict

VOID = {"meta", "link", "wbr"}


class Page(HTMLParser):
    """Elements in order, with attributes, the text inside and the elements around."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self._open = [], []
        self.feed(html)
        self.close()
        assert not self._open, "an element is never closed"

    def handle_starttag(self, tag, attrs):
        inside = [e["tag"] for e in self._open]
        element = {"tag": tag, "text": "", "inside": inside, **dict(attrs)}
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append({"tag": tag, "text": "", "inside": [], **dict(attrs)})

    def handle_endtag(self, tag):
        assert self._open, tag
        assert self._open.pop()["tag"] == tag

    def handle_data(self, data):
        for e in self._open:
            e["text"] += data

    def all(self, *tags):
        return [e for e in self.elements if e["tag"] in tags]


@pytest.fixture(scope="module")
def html():
    return {name: render_page(make()) for name, make in SAMPLES.items()}


@pytest.fixture(params=SAMPLES)
def page(request, html):
    return Page(html[request.param])


def test_every_id_is_there_once(page):
    counts = Counter(e["id"] for e in page.elements if "id" in e)
    assert [name for name, n in counts.items() if n > 1] == []


def test_every_reference_inside_the_page_leads_somewhere(page):
    ids = {e.get("id") for e in page.elements}
    used = [e["href"][1:] for e in page.elements if e.get("href", "").startswith("#")]
    used += [i for e in page.elements for i in e.get("aria-labelledby", "").split()]
    used += [
        i
        for e in page.elements
        for k in ("clip-path", "style")
        for i in re.findall(r"url\(#([^)]+)\)", e.get(k, ""))
    ]
    assert used
    assert [i for i in used if i not in ids] == []


def test_headings_descend_by_one_and_begin_with_one(page):
    levels = [int(e["tag"][1]) for e in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))


def test_every_table_has_a_caption_and_every_heading_cell_a_scope(page):
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(e["text"].strip() for e in page.all("caption"))
    assert all("scope" in e for e in page.all("th"))


def test_every_figure_is_told_in_words(page):
    for svg in page.all("svg"):
        assert svg["role"] == "img"
        assert len(svg["aria-labelledby"].split()) == 2
    assert len(page.all("svg")) == len(page.all("desc")) == len(page.all("figcaption"))
    assert all(e["text"] for e in page.all("desc", "figcaption"))


def test_landmarks_and_language_are_named(page):
    assert len(page.all("main")) == len(page.all("header")) == 1
    assert page.all("html")[0]["lang"] == "en"
    assert all("aria-labelledby" in e for e in page.all("section"))


def test_what_scrolls_can_be_reached_by_keyboard(page):
    scrolling = [e for e in page.elements if e.get("class") == "scroll"]
    assert scrolling
    for e in scrolling:
        assert (e["tabindex"], e["role"]) == ("0", "region")
        assert e["aria-labelledby"]


def test_nothing_is_asked_of_a_network(page):
    assert page.all("script", "iframe", "img", "object", "embed", "audio", "video", "form") == []
    places = [e[k] for e in page.elements for k in ("href", "src", "srcset", "data") if k in e]
    assert [p for p in places if not p.startswith("#") and p != "data:,"] == []
    styles = [e["text"] for e in page.all("style")] + [e.get("style", "") for e in page.elements]
    assert [s for s in styles if re.search(r"@import|url\((?!#)", s)] == []


def test_the_policy_forbids_everything_but_inline_style(page):
    policy = next(e["content"] for e in page.all("meta") if "http-equiv" in e)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


@pytest.mark.parametrize("name", SAMPLES)
def test_no_address_stands_in_the_source(html, name):
    assert re.findall(r"https?://", html[name]) == []


def test_parts_come_in_the_order_of_the_audit(html):
    found = [e["text"].strip() for e in Page(html["full"]).all("h2")]
    assert found == [
        "OVER-FORGOT",
        "Summary",
        "All findings",
        "Margins",
        "Membership attack",
        "Accuracy by class",
        "All metrics",
        "Cost",
        "Request",
        "Provenance",
        "What this audit cannot show",
    ]


def test_names_that_are_markup_stay_text(html):
    page = Page(html["hostile"])
    assert page.all("script", "b>", "i", "u") == []
    assert SCRIPT in page.all("h1")[0]["text"]
    assert SCRIPT in next(e for e in page.elements if e.get("class") == "why")["text"]
    assert any(SCRIPT in e["text"] for e in page.all("code"))


def test_a_light_is_a_word_and_a_shape_besides_a_colour(html):
    page = Page(html["full"])
    lights = [e["text"].split() for e in page.elements if e.get("class", "").startswith("light ")]
    assert len(lights) == len(full().rows)
    assert {tuple(x) for x in lights} == {
        ("●", "as", "retrained"),
        ("▲", "differs"),
        ("◆", "undecided"),
        ("○", "not", "judged"),
    }


@pytest.mark.parametrize("verdict", Verdict)
def test_each_verdict_heads_its_page(verdict):
    report = full(margins=(), rocs=(), classes=())
    page = Page(render_page(report.model_copy(update={"verdict": verdict})))
    assert page.all("h2")[0]["text"] == verdict.value
    said = next(e for e in page.elements if e.get("class") == "sentence")["text"]
    assert said == w.MEANINGS[verdict]


def test_the_page_opens_with_verdict_next_steps_and_a_summary(html):
    page = Page(html["full"])
    text = page.all("main")[0]["text"]
    places = [text.index(x) for x in ("OVER-FORGOT", "What to do next", "Summary", "Margins")]
    assert places == sorted(places)
    summary = next(e for e in page.all("table") if e.get("class") == "summary")
    assert "Membership attack AUC" in summary["text"]


def test_the_full_table_is_folded(html):
    folded = [e for e in Page(html["full"]).all("details") if e.get("class") == "whole"]
    assert len(folded) == 1
    assert "open" not in folded[0]
    assert all(r.metric in folded[0]["text"] for r in full().rows)


def test_rows_of_compat_paths_are_marked(html):
    rows = [e["text"] for e in Page(html["full"]).all("th") if e.get("scope") == "row"]
    assert [("compat" in t) for t in rows if "svm_mia" in t] == [True]
    assert sum("compat: as in published code" in t for t in rows) == 1


@pytest.mark.parametrize("name", SAMPLES)
def test_the_same_report_gives_the_same_bytes(html, name):
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "svg.hashsalt": "other"}):
        assert render_page(SAMPLES[name]()) == html[name]


def test_the_settings_of_matplotlib_are_left_as_they_were():
    before = dict(matplotlib.rcParams)
    figures.roc_figure(rocs(margins()), title="t", desc="d")
    assert dict(matplotlib.rcParams) == before


def test_many_classes_leave_the_forgotten_and_the_furthest():
    lines = tuple(
        ClassAccuracy(
            label=k, forgotten=k == 700, examples=10, original=0.9, oracle=0.9,
            unlearned=0.1 if k == 901 else 0.9, forget_examples=0, forget_original=None,
            forget_unlearned=None, forget_oracle=None,
        )
        for k in range(1000)
    )  # fmt: skip
    page = Page(render_page(full(classes=lines, margins=(), rocs=())))
    text = next(e["text"] for e in page.all("section") if e["aria-labelledby"] == "classes")
    assert "960 classes" in text
    assert re.search(r"\b700\s+forgotten", text)
    assert re.search(r"\b901\b", text)


@pytest.mark.parametrize(
    "values", [(2.0,), (1.0, 1.0), (-np.inf, 0.0, np.inf), (-1e300, 1e300), (np.inf, np.inf)]
)
def test_odd_margins_can_be_drawn(values):
    sample = MarginSample(who="unlearned", split="forget", values=values)
    svg = figures.margin_figure((sample,), "forget", title="t", desc="d", axis="a")
    assert svg.startswith("<svg viewBox")


@pytest.mark.parametrize("negatives", [1, 20, 1_000_000])
def test_a_figure_stays_small_however_long_its_curves_are(negatives):
    x = np.linspace(0, 1, 20_000)
    curves = tuple(
        Roc(who=who, fpr=tuple(x), tpr=tuple(x**0.3), auc=0.77, negatives=negatives)
        for who in ("original", "unlearned", *(f"oracle/{k}" for k in range(8)))
    )
    for draw in (figures.roc_figure, figures.low_roc_figure):
        assert len(draw(curves, title="t", desc="d").encode()) < 60_000


def test_a_thinned_curve_lies_on_the_whole_one():
    x = np.linspace(0, 1, 50_001)
    whole = Roc(who="unlearned", fpr=tuple(x), tpr=tuple(np.sqrt(x)), auc=2 / 3, negatives=50_000)
    kept, heights = figures._thin(whole, 200)
    assert len(kept) <= 202
    assert (kept[0], kept[-1]) == (0, 1)
    np.testing.assert_allclose(heights, np.sqrt(kept), rtol=1e-12)
    assert np.diff(heights).max() < 0.02


def _luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "panel"])
@pytest.mark.parametrize("ink", ["ink", "muted", "link", "good", "bad", "unclear", "none"])
def test_letters_stand_out_from_their_ground(html, theme, ground, ink):
    blocks = re.findall(r":root \{(.*?)\}", html["bare"], flags=re.S)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", blocks[theme]))
    dark, light = sorted((_luminance(colours[ink]), _luminance(colours[ground])))
    assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("line", ["original", "unlearned", "oracle"])
def test_lines_of_figures_stand_out_from_paper(html, theme, line):
    blocks = re.findall(r":root \{(.*?)\}", html["bare"], flags=re.S)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", blocks[theme]))
    dark, light = sorted((_luminance(colours[line]), _luminance(colours["paper"])))
    assert (light + 0.05) / (dark + 0.05) >= 3


def test_no_colour_of_a_figure_ignores_the_theme(html):
    bare_colours = re.sub(
        r"var\([^)]*\)", "", "".join(re.findall(r"<svg.*?</svg>", html["full"], flags=re.S))
    )
    assert re.findall(r"#[0-9a-f]{6}\b", bare_colours) == []


EACH_TIME = {(390, False), (1280, True)}
EXHAUSTIVE = [pytest.mark.exhaustive]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.chromium
@pytest.mark.parametrize(
    ("width", "dark"),
    [
        pytest.param(width, dark, marks=[] if (width, dark) in EACH_TIME else EXHAUSTIVE)
        for width in (390, 768, 1280)
        for dark in (False, True)
    ],
)
@pytest.mark.parametrize("name", SAMPLES)
def test_a_browser_shows_the_page_whole_and_asks_nobody(browser, html, tmp_path, name, width, dark):
    path = tmp_path / "report.html"
    path.write_text(html[name], encoding="utf-8")
    browser.open(path, width, dark)
    assert browser.complaints() == []
    assert browser.requests() == [path.as_uri()]
    assert browser.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    ground = browser.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert ground == ("rgb(20, 22, 26)" if dark else "rgb(255, 255, 255)")


@pytest.mark.chromium
@pytest.mark.parametrize("width", [390, 800, 1024, 1280])
def test_what_a_metric_is_has_room_at_every_width(browser, html, tmp_path, width):
    path = tmp_path / "report.html"
    path.write_text(html["full"], encoding="utf-8")
    browser.open(path, width)
    told = "[...document.querySelectorAll('.main th[scope=row]')].map(e => e.clientWidth)"
    assert min(browser.evaluate(told)) > 200


@pytest.mark.chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_a_screen_reader_still_meets_a_table(browser, html, tmp_path, width):
    path = tmp_path / "report.html"
    path.write_text(html["full"], encoding="utf-8")
    browser.open(path, width)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = Counter(n["role"]["value"] for n in nodes if not n["ignored"])
    assert roles["table"] >= 6
    assert roles["image"] + roles["img"] == 4
    assert roles["columnheader"] >= 8
    assert roles["main"] == 1


@pytest.mark.chromium
def test_the_watch_on_requests_and_complaints_sees_both(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("<img src='missing.png'><script>console.error('no')</script><p>x")
    browser.open(path, 390)
    assert len(browser.requests()) > 1
    assert browser.complaints()


def test_hostile_names_reach_the_title_as_text(html):
    assert SCRIPT in Page(html["hostile"]).all("title")[0]["text"]
    assert hostile().request_summary.request in Page(html["hostile"]).all("title")[0]["text"]


def test_coordinates_are_shortened_and_the_numbers_at_the_ticks_are_not():
    figures = pytest.importorskip("unlearnkit.report.figures")

    def draw(ax):
        ax.plot([0, 1], [0.001, 0.004], label="line")
        ax.set_yticks([0.001, 0.0025, 0.004])

    svg = figures.make_svg(draw, "ticks", "Ticks", "Three ticks.")
    labels = set(re.findall(r">\s*([\d.]+)\s*<", svg))
    assert {"0.0010", "0.0025", "0.0040"} <= labels
    assert not re.search(r"<path[^>]*\.\d{3}", svg)
