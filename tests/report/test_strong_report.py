"""What a strong audit adds to a report: text, data and page."""

import re

import pytest

from tests.report.report_samples import full, strong
from unlearnkit.report.render_html import MOST_EXPOSED, render_page
from unlearnkit.report.render_text import render_text
from unlearnkit.report.report import Report
from unlearnkit.report.store_rows import report_measurements


@pytest.fixture(scope="module")
def report():
    return strong()


def test_the_data_come_back_as_they_were(report, tmp_path):
    assert Report.load(report.save(tmp_path / "a.json")) == report


def test_a_report_of_another_tier_has_no_such_part(tmp_path):
    kept = full().save(tmp_path / "a.json")
    assert '"strong": null' in kept.read_text()
    assert Report.load(kept).strong is None


def test_every_number_goes_to_the_store_once(report):
    found = [(m.metric, m.who) for m in report_measurements(report)]
    assert len(found) == len(set(found))
    assert ("permutation_p", "unlearned") in found
    assert ("epsilon_worst", "original") in found


def test_the_ensembles_stand_before_the_one_model(report):
    text = render_text(report)
    first = text.index("64 MODELS OF THIS METHOD AGAINST 64 RETRAINED MODELS")
    assert first < text.index("EXPOSED RECORDS") < text.index("WHAT THIS ONE MODEL SHOWS")
    head = next(x for x in text[first:].splitlines() if x.startswith("metric "))
    assert "this method" in head


def test_the_most_exposed_rows_are_printed_and_the_rest_is_counted(report):
    text = render_text(report)
    part = text[text.index("EXPOSED RECORDS") : text.index("WHAT THIS ONE MODEL SHOWS")]
    assert "71 of 72 records of the forget set are" in part
    assert re.search(r"1000 +1\.17 +0\.970 +-6\.50", part)
    assert "\n1019 " in part
    assert "1020 " not in part
    assert "51 more are in the data file" in part


def test_without_bounds_nothing_is_called_safe_or_exposed(report):
    rows = tuple(e.model_copy(update={"epsilon": None}) for e in report.strong.exposure)
    bare = report.model_copy(
        update={"strong": report.strong.model_copy(update={"exposure": rows, "laws": ()})}
    )
    text = render_text(bare)
    assert "Single records could not be judged" in text
    assert "could not be judged" in render_page(bare)


def test_the_page_lists_exposed_rows_and_draws_their_margins(report):
    page = render_page(report)
    shown = re.findall(r'<th scope="row">(\d{4})</th>', page)
    assert [int(n) for n in shown] == list(range(1000, 1000 + MOST_EXPOSED))
    assert page.count("Margin of row 1000 of the forget set, over models") >= 2
    assert page.count("Share of models") == 2
    assert page.count("Fraction of the distance to the original") == 1
    drawn = re.findall(r"<svg.*?</svg>", page, flags=re.S)
    ours = [("This method" in svg, "This model" in svg) for svg in drawn]
    assert ours[:3] == [(True, False)] * 3
    assert all(told == (False, True) for told in ours[3:])
    assert "All metrics of this one model" in page
    assert "This method" in page


def test_thirds_of_the_rows_stand_in_the_text_and_on_the_page(report):
    text = render_text(report)
    part = text[text.index("THIRDS OF THE FORGET SET") : text.index("EXPOSED RECORDS")]
    assert re.search(
        r"^high +24 .*0\.700 +\[0\.650, 0\.750\] +0\.497 +3\.25 +0\.13 +20$", part, re.M
    )
    assert part.count("\nlow ") == 2
    assert max(map(len, part.splitlines())) <= 100
    page = render_page(report)
    assert page.count("[0.650, 0.750]") == 2
    assert "Memorisation: by how much training on a row" in page


def test_a_report_without_thirds_or_degrees_leaves_their_part_out(report):
    bare = report.model_copy(
        update={"strong": report.strong.model_copy(update={"strata": (), "degrees": ()})}
    )
    assert "THIRDS" not in render_text(bare)
    assert "Which rows are still known" not in render_page(bare)


def test_real_targets_are_said_to_have_another_margin(report):
    asked = report.request_summary.model_copy(update={"task": "regression"})
    real = report.model_copy(update={"request_summary": asked})
    assert "how close a prediction is" in " ".join(render_text(real).split())
    assert "towards the row" in render_page(real)
    assert "how close a prediction is" not in " ".join(render_text(report).split())


def test_the_report_begins_with_the_answers_to_both_questions(report):
    memory = "Is the memory of the records gone? No. Memory of the forget set remains"
    brief, text, page = str(report), render_text(report), render_page(report)
    for said in (brief, text):
        lines = said.splitlines()
        first = next(i for i, x in enumerate(lines) if x.startswith(memory))
        second = next(i for i, x in enumerate(lines) if x.startswith("Is the model like a"))
        verdict = next(i for i, x in enumerate(lines) if x.startswith(report.verdict.value))
        assert first < second < verdict
        assert first <= 3
    assert page.index("Is the memory of the records gone?") < page.index('id="verdict"')
    assert len(brief.splitlines()) <= 30


def test_memory_signature_and_likeness_stand_in_one_table(report):
    text = render_text(report)
    lines = [x for x in text.splitlines() if x.startswith(("Memory  ", "Signature ", "Likeness  "))]
    assert [x.split()[0] for x in lines] == ["Memory", "Signature", "Likeness"]
    assert "0.561 [0.551, 0.571]" in lines[0]
    assert "3/143" in lines[0]
    assert "Here the method reads neither forget rows nor classes." in " ".join(text.split())
    one = full(arms=report.strong.arms[:2])
    assert "MEMORY AND SIGNATURE" in render_text(one)
    assert "Single records were not tested" in render_page(one)
