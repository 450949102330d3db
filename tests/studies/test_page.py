"""A study's page as a parser, a screen reader and a browser meet it."""

import base64
import hashlib
import itertools
import re
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.report.report_browser import CHROMIUM, Browser
from tests.report.test_report_page import Page
from tests.studies.made import SCRIPT, chosen, plan, results, study, values
from unlearnkit.core.errors import InputError
from unlearnkit.studies import columns as c
from unlearnkit.studies.table.build_table import tabulate
from unlearnkit.studies.table.leaderboard import TradeoffPoint, leaderboard, tradeoff_points
from unlearnkit.studies.table.load_results import Result
from unlearnkit.studies.table.study_html import render
from unlearnkit.studies.table.study_table import Table
from unlearnkit.studies.table.tradeoff_figure import area, tradeoff_figure


def full():
    s = study()
    found = [
        replace(r, verdict="OVER-FORGOT" if r.spec.label == "ssd" else "INCONCLUSIVE")
        for r in results(s)
    ]
    found[3] = Result(found[3].spec, "failed", f"Traceback\nDivergedError: {SCRIPT}")
    return tabulate(s, found, *chosen(c.CORE))


def hostile():
    labels = [f"ssd preset={SCRIPT}", "scrub a=<b>", "finetune " + "very_long_setting=1.0 " * 9]
    s = study(about=SCRIPT, methods=["ssd", "scrub", "finetune"])
    found = [replace(r, verdict=SCRIPT) for r in results(s, labels)]
    found[4] = Result(found[4].spec, "failed", SCRIPT * 40)
    return tabulate(s, found, *chosen(c.CORE))


def many():
    s = study(methods=["ssd"], requests=[f"class={k}" for k in range(3)], design="REUSE")
    labels = [f"ssd selection={k}" for k in range(10)]
    return tabulate(s, results(s, labels), *chosen([*c.CORE, "kl_test"]))


def bare():
    s = study(seeds=1, oracles=1)
    return tabulate(s, [Result(p) for p in plan(s)], *chosen(c.CORE))


def masked():
    """Masks beside random ones."""
    s = study(methods=["finetune"], seeds=3)
    names = ["finetune @ grad 0.3", "finetune @ random 0.3"]
    found = [replace(p, chance=names[1] if p.label == names[0] else "") for p in plan(s, names)]
    return tabulate(s, [Result(p, "done", values=values(p)) for p in found], *chosen(c.CORE))


SAMPLES = {"full": full, "hostile": hostile, "many": many, "bare": bare, "masked": masked}


@pytest.fixture(scope="module")
def tables():
    return {name: make() for name, make in SAMPLES.items()}


@pytest.fixture(scope="module")
def html(tables):
    return {name: render(table) for name, table in tables.items()}


@pytest.fixture(params=SAMPLES)
def page(request, html):
    return Page(html[request.param])


def test_ids_are_there_once_and_references_lead_somewhere(page):
    counts = Counter(e["id"] for e in page.elements if "id" in e)
    assert [name for name, n in counts.items() if n > 1] == []
    used = [e["href"][1:] for e in page.elements if e.get("href", "").startswith("#")]
    used += [i for e in page.elements for i in e.get("aria-labelledby", "").split()]
    used += [e["data-told"] for e in page.elements if "data-told" in e]
    assert [i for i in used if i not in counts] == []


def test_headings_descend_by_one_and_begin_with_one(page):
    levels = [int(e["tag"][1]) for e in page.all("h1", "h2", "h3", "h4")]
    assert (levels[0], levels.count(1)) == (1, 1)
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))


def test_tables_and_figures_are_told_in_words(page):
    assert len(page.all("table")) == len(page.all("caption"))
    assert all("scope" in e for e in page.all("th"))
    assert len(page.all("svg")) == len(page.all("desc")) == len(page.all("figcaption"))
    assert all(e["text"].strip() for e in page.all("caption", "desc", "figcaption"))
    assert all(e["tabindex"] == "0" for e in page.elements if e.get("class") == "scroll")


def test_the_one_script_is_the_one_that_the_policy_allows(page):
    (script,) = page.all("script")
    policy = next(e["content"] for e in page.all("meta") if "http-equiv" in e)
    want = base64.b64encode(hashlib.sha256(script["text"].encode()).digest()).decode()
    assert re.findall(r"script-src ([^;]*)", policy) == [f"'sha256-{want}'"]
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_is_asked_of_a_network(html, name):
    page = Page(html[name])
    assert page.all("iframe", "img", "object", "embed", "form") == []
    assert re.findall(r"https?://|@import|url\((?!#)", html[name]) == []


def test_names_that_are_markup_stay_text(html):
    page = Page(html["hostile"])
    assert page.all("b>", "i") == []
    assert len(page.all("script")) == 1
    assert any(SCRIPT in e["text"] for e in page.all("th"))
    assert any(SCRIPT in e["text"] for e in page.all("li"))


def test_parts_are_there_and_failures_are_listed(html):
    page = Page(html["full"])
    found = [e["text"].strip() for e in page.all("h2")]
    assert found == [
        "What was compared",
        "Leaderboard",
        "Forgetting against utility against cost",
        "Forget set by forget set",
        "Failures",
        "How to read this",
    ]
    assert any("scrub" in e["text"] and "DivergedError" in e["text"] for e in page.all("li"))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_design_stands_on_every_table(html, tables, name):
    design = tables[name].design
    told = [e["text"] for e in Page(html[name]).all("caption") if "design" in e["text"]]
    assert told
    assert all(f"design {design}" in text for text in told)


def test_a_spot_is_left_over_share_and_lost_utility():
    s = study(requests=["class=3"])
    block = tabulate(s, results(s), *chosen(c.CORE)).blocks[0]
    spot = next(x for x in tradeoff_points(block) if x.label == "neggrad_plus")
    mine = [values(p) for p in plan(s) if p.label == "neggrad_plus"]
    r = np.mean([mine[0]["js_forget", f"oracle {k}"] for k in range(5)])
    closed = [
        (v["js_forget", "original"] - v["js_forget", "unlearned"])
        / (v["js_forget", "original"] - r)
        for v in mine
    ]
    truth = np.mean([mine[0]["accuracy_test", f"oracle {k}"] for k in range(5)])
    lost = truth - np.mean([v["accuracy_test", "unlearned"] for v in mine])
    cost = np.mean([v["cost_ratio", "unlearned"] for v in mine])
    np.testing.assert_allclose(
        [spot.remaining_gap, spot.utility_loss, spot.cost],
        [1 - np.mean(closed), lost, cost],
        rtol=1e-9,
    )


def test_without_a_closed_share_the_gap_over_the_originals_is_left():
    s = study(requests=["class=3"])
    names = ["accuracy_forget", "accuracy_test"]
    block = tabulate(s, results(s), *chosen(names)).blocks[0]
    found = {x.label: x.remaining_gap for x in tradeoff_points(block)}
    assert found["original"] == 1.0
    cells = {n.label: n.cells["accuracy_forget"].gap for n in block.lines}
    assert found["ssd"] == pytest.approx(abs(cells["ssd"] / cells["original"]))


def edited(table, change):
    """Return a table whose lines are those that a change returns for (block number, line)."""
    blocks = [
        b.model_copy(update={"lines": [y for x in b.lines if (y := change(i, x))]})
        for i, b in enumerate(table.blocks)
    ]
    return table.model_copy(update={"blocks": blocks})


def test_leaders_come_by_their_worst_gap_in_margins(tables):
    table = edited(tables["full"], lambda _, line: line.model_copy(update={"verdicts": {}}))
    found = [x for x in leaderboard(table, "digits") if x.kind == "method"]
    assert found[0].label == "scrub"
    assert [x.worst for x in found] == sorted(x.worst for x in found)
    want = max(
        max(cell.gap, 0) / cell.margin if name == "js_forget" else abs(cell.gap) / cell.margin
        for b in table.blocks
        for name, cell in b.line("ssd").cells.items()
        if cell.judgement != "not judged"
    )
    assert next(x.worst for x in found if x.label == "ssd") == pytest.approx(want)


def test_a_method_that_the_audit_finds_at_fault_comes_after_those_it_does_not(tables):
    def accuse(_, line):
        leaks = {"LEAKS": 1} if line.label == "scrub" else {}
        return line.model_copy(update={"verdicts": leaks})

    found = leaderboard(edited(tables["full"], accuse), "digits")
    assert found[-1].label == "scrub"
    assert [x.faulty for x in found if x.label != "scrub"] == [0] * (len(found) - 1)


def test_a_method_that_ran_on_fewer_forget_sets_comes_last(tables):
    table = edited(
        tables["full"], lambda i, line: None if (i, line.label) == (0, "scrub") else line
    )
    assert len(table.blocks) > 1
    last = leaderboard(table, "digits")[-1]
    assert (last.label, last.all_sets - last.sets) == ("scrub", 1)


def test_the_area_of_a_marker_grows_with_cost_and_ends_at_retraining():
    sizes = [area(x) for x in (None, 0.0, 0.01, 0.5, 1.0, 7.0)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == sizes[-2]


@pytest.mark.parametrize("lost", [0.0, 1e-9, 0.03, 50.0, -0.4])
@pytest.mark.parametrize("left", [-7.0, 0.0, 1.0, 1e6])
def test_odd_spots_can_be_drawn(left, lost):
    spot = TradeoffPoint("a", "method", left, 0.1, lost, None, 3.0)
    svg = tradeoff_figure([spot], {"a": 1}, band=None, utility="y", name="n", title="t", desc="d")
    assert svg.startswith("<svg viewBox")


def test_a_figure_takes_its_colours_from_the_page(html):
    drawn = "".join(re.findall(r"<svg.*?</svg>", html["full"], flags=re.S))
    assert re.findall(r"#[0-9a-f]{6}\b", re.sub(r"var\([^)]*\)", "", drawn)) == []


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.chromium
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_browser_shows_the_page_whole_and_asks_nobody(browser, html, tmp_path, name, width):
    path = tmp_path / "study.html"
    path.write_text(html[name], encoding="utf-8")
    browser.open(path, width, dark=width == 390)
    assert browser.complaints() == []
    assert browser.requests() == [path.as_uri()]
    assert browser.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]


@pytest.mark.chromium
@pytest.mark.parametrize("width", [390, 800, 1024, 1280])
@pytest.mark.parametrize("name", ["full", "many", "masked"])
def test_the_numbers_of_a_picture_are_seen_whole_beside_or_below_it(
    browser, html, tmp_path, name, width
):
    path = tmp_path / "study.html"
    path.write_text(html[name], encoding="utf-8")
    browser.open(path, width)

    def measured(what, of):
        return browser.evaluate(f"[...document.querySelectorAll('.pictures {what}')].map({of})")

    assert set(measured(".scroll", "e => e.scrollWidth - e.clientWidth")) == {0}
    assert min(measured("svg", "e => e.clientWidth")) > min(width - 40, 440)


@pytest.mark.chromium
def test_a_leaderboard_is_sorted_by_a_press_and_says_so(browser, html, tables, tmp_path):
    path = tmp_path / "study.html"
    path.write_text(html["full"], encoding="utf-8")
    browser.open(path, 1280)
    rows = "[...document.querySelector('.sortable').tBodies[1].rows]"
    order = f"{rows}.map(r => r.cells[0].innerText)"
    buttons = "[...document.querySelectorAll('.sortable button')]"
    press = f"{buttons}.find(b => b.innerText == 'Cost').click()"
    methods = [x for x in leaderboard(tables["full"], "digits") if x.kind == "method"]
    want = [x.label for x in sorted(methods, key=lambda x: x.cost)]
    browser.evaluate(press)
    assert browser.evaluate(order) == want
    browser.evaluate(press)
    assert browser.evaluate(order) == want[::-1]
    assert browser.evaluate("document.querySelector('[role=status]').textContent") == (
        "Sorted by Cost, descending"
    )
    assert browser.evaluate("document.querySelectorAll('[aria-sort=descending]').length") == 1


@pytest.mark.parametrize("name", ["matplotlib", "jinja2"])
def test_a_page_without_its_packages_is_told(tables, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install 'unlearnkit\[report\]'"):
        render(tables["full"])


def test_a_table_from_json_makes_the_same_page(html, tables):
    again = Table.model_validate_json(tables["full"].model_dump_json())
    assert render(again) == html["full"]
