"""Results of benchmarks are kept whole: what ran goes on, what did not run stays."""

import math

import pytest

from benchmarks.__main__ import PAGE, TITLE, benchmark_modules, page, section, sections
from benchmarks.false_alarms import Draws
from benchmarks.measure import Fact
from benchmarks.regression_audit import KIND, LIKE, REACH, matched
from benchmarks.regression_audit import page as audit_page


def test_the_sections_of_the_committed_page_are_read_and_written_as_they_are(monkeypatch):
    text = PAGE.read_text(encoding="utf-8")
    held = sections(text)
    monkeypatch.setattr("benchmarks.__main__.head", lambda: held[TITLE])
    assert len(held) > 5
    assert page({title: body for title, body in held.items() if title != TITLE}) == text


def test_a_section_that_ran_takes_the_place_of_its_old_one():
    held = {"a": section([Fact("x", 1.0)]), "b": section([Fact("y", 2.0)])}
    again = sections(page(held))
    again["a"] = section([Fact("x", 3.0)])
    assert "| x | 3 |" in page(again)
    assert "| y | 2 |" in page(again)
    assert "| x | 1 |" not in page(again)


def test_a_draw_that_was_kept_is_not_made_again(tmp_path):
    made = []

    def one(draw):
        made.append(draw)
        return ["even"] if draw % 2 == 0 else ["odd", "late"]

    path = tmp_path / "part.jsonl"
    assert Draws(path).rates("x", 2, one) == {"even": 0.5, "late": 0.5, "odd": 0.5}
    with path.open("a") as file:
        file.write('\n{"x/2": ["ev')  # cut off by a kill
    assert Draws(path).rates("x", 4, one) == {"even": 0.5, "late": 0.5, "odd": 0.5}
    assert made == [0, 1, 2, 3]
    assert Draws(path).rates("x", 4, one) == {"even": 0.5, "late": 0.5, "odd": 0.5}
    assert made == [0, 1, 2, 3]


def area(mean, error=0.01):
    far = (mean - 0.5) / error
    return {
        "oracles": mean,
        "standard error": error,
        "away in standard errors": far,
        "furthest oracle, over rows alone": far,
        "original": 0.8,
    }


def test_an_attack_is_judged_by_the_closest_match_of_a_request():
    every = {LIKE: area(0.9), KIND: area(0.5)}
    assert matched(every) == (KIND, every[KIND])
    assert matched({LIKE: every[LIKE]}) == (LIKE, every[LIKE])
    assert matched({}) is None


@pytest.mark.parametrize(
    ("mean", "told"),
    [
        (0.5 + 0.0099 * REACH, "on 1 of 1 requests; beyond: none; no match: none"),
        (0.5 + 0.0101 * REACH, "on 0 of 1 requests; beyond: c/r; no match: none"),
        (math.nan, "on 0 of 1 requests; beyond: none; no match: c/r"),
    ],
)
def test_the_page_counts_requests_within_reach_beyond_and_without_a_match(mean, told):
    found = {"c/r": {"rows": {"forget": 9}, "auc": {LIKE: area(mean)}}}
    assert told in audit_page(found, 3)


def test_a_module_that_only_imports_a_function_run_is_no_benchmark():
    known = benchmark_modules()
    assert {"bad_teacher", "images", "studies"} <= set(known)
    assert not {"auto_cards", "defaults", "regression_audit"} & set(known)
