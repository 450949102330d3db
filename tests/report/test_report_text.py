"""The report in a terminal, and its numbers and words."""

import math
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.report.report_samples import SAMPLES, bare, full, hostile, interval, row
from unlearnkit.core.errors import InputError
from unlearnkit.report import phrases as w
from unlearnkit.report.render_text import render_brief, render_text
from unlearnkit.report.report import Report
from unlearnkit.report.schema import RequestSummary
from unlearnkit.stats.oracle_gap import Judgement


@pytest.mark.parametrize("name", SAMPLES)
def test_no_line_is_wider_than_a_hundred_columns(name):
    assert max(cell_len(line) for line in render_text(SAMPLES[name]()).splitlines()) <= 100


@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_can_move_the_cursor_or_colour_the_terminal(name):
    assert all(line.isprintable() for line in render_text(SAMPLES[name]()).splitlines())


@pytest.mark.parametrize("name", SAMPLES)
def test_every_metric_and_every_limit_is_in_the_text(name):
    report = SAMPLES[name]()
    text = re.sub(r"\s+", "", render_text(report))
    parts = {part for r in report.rows for part in r.metric.split("_") if len(part) < 14}
    missing = [part for part in parts if part not in text]
    missing += [x for x in report.limits if re.sub(r"\s+", "", x) not in text]
    assert not missing


def test_seconds_of_models_trained_at_once_are_told_from_those_of_one():
    spent = full().cost
    alone, shared = (
        {a: c for a, _, c in w.cost_lines(spent.model_copy(update={"retrain_together": n}))}
        for n in (1, 5)
    )
    assert shared["Seconds"] == alone["Seconds"] + " (5 at once)"


@pytest.mark.parametrize("name", SAMPLES)
def test_a_report_survives_the_trip_through_json(name, tmp_path):
    report = SAMPLES[name]()
    assert Report.load(report.save(tmp_path / "räp ort.json")) == report


def test_the_verdict_comes_first():
    lines = render_text(full()).splitlines()
    assert lines[3].startswith("OVER-FORGOT: The forget set is over-forgotten")


def test_an_undefined_number_points_to_its_reason():
    text = render_text(full())
    assert re.search(r"margin_tpr_at_.* undefined \[1\]", text)
    assert "[1] margin_tpr_at_fpr_0.001: 2,000 never-seen rows are too few" in text


def test_columns_of_the_oracle_are_left_out_without_one():
    text = render_text(bare())
    assert not re.search(r"\bretrained +gap +z\b", text)
    assert w.NO_ORACLE in re.sub(r"\s+", " ", text)


def test_a_row_that_replays_old_errors_is_marked():
    text = render_text(full())
    assert re.search(r"svm_mia_efficacy .*\n\(compat\)", text)
    assert w.COMPAT in re.sub(r"\s+", " ", text)


def test_numbers_of_one_column_end_in_the_same_place():
    lines = render_text(full()).splitlines()
    head = next(x for x in lines if x.startswith("metric "))
    row_line = next(x for x in lines if x.startswith("accuracy_test "))
    for name, value in (("this model", "0.901"), ("original", "0.969"), ("judgement", "undecided")):
        assert row_line[: head.index(name) + len(name)].endswith(value)


def test_huge_numbers_are_not_cut():
    text = re.sub(r"\s+", " ", render_text(hostile()))
    assert all(part in text for part in ("-3.20e+07", "2.22e+07]", "-7.10e+07", "8.04e+06"))


def test_text_and_data_need_neither_matplotlib_nor_jinja(monkeypatch, tmp_path):
    for name in ("matplotlib", "jinja2"):
        monkeypatch.setitem(sys.modules, name, None)
    report = full()
    report.save(tmp_path / "a.txt")
    report.save(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"pip install 'unlearnkit\[report\]'"):
        report.save(tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((0.98615, 1.0), "0.986"),
        ((0.0, None), "0.000"),
        ((0.04123,), "0.0412"),
        ((0.00173,), "0.00173"),
        ((1.2345e-5,), "1.23e-05"),
        ((52.345, 3.0), "52.34"),
        ((523.45,), "523.5"),
        ((5234.5,), "5234"),
        ((3.2e7,), "3.20e+07"),
        ((math.inf, 0.5), "infinite"),
        ((None, 0.5), "undefined"),
    ],
)
def test_a_number_shows_three_or_four_digits(values, shown):
    assert w.number(values[0], w.decimals(values)) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0123, "+0.012"), (-0.0123, "-0.012"), (-0.0001, "0.000"), (0.0, "0.000")],
)
def test_a_gap_carries_its_sign_and_zero_has_none(value, shown):
    assert w.number(value, 3, signed=True) == shown


@given(st.floats(-2e-3, 2e-3), st.floats(0, 2e-3), st.sampled_from(list(Judgement)))
def test_a_gap_that_reads_as_zero_is_equivalent_or_not_judged(gap, reach, judgement):
    line = row("loss", 0.5, 0.5, judgement=judgement, gap_low=gap - reach, gap_high=gap + reach)
    texts = w.gap_texts(line.model_copy(update={"gap": gap}), 3)
    zero = texts == ("0.000", "[0.000, 0.000]") and (gap or reach)
    assert not zero or judgement in {Judgement.EQUIVALENT, Judgement.NOT_JUDGED}


def test_a_spread_below_the_last_decimal_is_still_seen():
    line = row("js", 0.4, 0.5, (0.0016, 0.0019, 0.0017))
    assert w.oracle_text(line, 3) == "0.00173 ± 0.00015"


def test_one_oracle_has_no_spread():
    assert w.oracle_text(row("js", 0.4, 0.5, (0.25,)), 3) == "0.250"


def test_half_an_interval_is_none():
    assert w.interval(None, 0.3, 3) == ""
    assert w.row_decimals(row("a", 1, 1, estimate=interval(0.001, 0.0, 52.0))) == 2


@pytest.mark.parametrize(
    ("enough", "word"), [(True, "enough"), (False, "too little"), (None, "unknown")]
)
def test_headroom_is_told_in_words(enough, word):
    asked: RequestSummary = full().request_summary.model_copy(update={"enough_headroom": enough})
    assert w.headroom_sentence(asked).startswith(word)


def test_many_targets_are_counted_instead_of_listed():
    text = w.label_counts({str(k): 1 for k in range(1000)})
    assert text.endswith("and 988 more targets")


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "not measured"), (512, "512 B"), (1536, "1.5 KiB"), (48 << 20, "48 MiB")],
)
def test_memory_has_a_unit_one_can_read(count, shown):
    assert w.memory(count) == shown


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_brief_report_has_at_most_thirty_lines_that_fit(name, width):
    lines = render_brief(SAMPLES[name](), width).splitlines()
    assert len(lines) <= 30
    assert max(map(cell_len, lines)) <= width


def test_a_brief_report_says_verdict_reason_next_step_and_summary_in_this_order():
    text = render_brief(full(), 100)
    parts = ("OVER-FORGOT: The forget set", "Why: ", "Next: Weaken", "Membership attack AUC")
    places = [text.index(x) for x in (*parts, "Warning: ", "audit --full")]
    assert places == sorted(places)


def test_what_a_brief_report_leaves_out_has_a_sign():
    long = full().model_copy(update={"reason": "so " * 900, "warnings": ("and " * 900,)})
    lines = render_brief(long, 80).splitlines()
    assert len(lines) <= 30
    assert sum(x.endswith("[...]") for x in lines) == 2
    assert any("Membership attack AUC" in x for x in lines)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_whole_report_fits_the_width(name, width):
    lines = render_text(SAMPLES[name](), width).splitlines()
    assert max(map(cell_len, lines)) <= width


def test_numbers_of_the_cost_table_never_collide():
    spent = full().cost.model_copy(update={"seconds": 0.224, "retrain_seconds": 0.29})
    spent = spent.model_copy(update={"retrain_together": 5})
    text = render_text(full().model_copy(update={"cost": spent}))
    assert re.search(r"^Seconds +0\.224 {2,}0\.29 \(5 at once\)$", text, re.M)


def test_data_begin_with_the_answers_verdict_next_steps_and_summary():
    keys = list(full().model_dump())
    order = ["answers", "verdict", "reason", "next_steps", "summary"]
    assert [k for k in keys if k in order] == order
    assert max(map(keys.index, order)) < 7


def test_a_report_of_an_older_layout_is_refused_with_what_to_do(tmp_path):
    path = full().save(tmp_path / "old.json")
    path.write_text(path.read_text().replace('"schema_version": 3', '"schema_version": 2', 1))
    with pytest.raises(InputError, match="another version of unlearnkit; audit the run again"):
        Report.load(path)


def test_a_note_of_a_method_is_no_warning():
    report = full()
    note = report.provenance.notes[0]
    assert w.warning_label(report, note) == "Note"
    assert w.warning_label(report, report.warnings[0]) == "Warning"
