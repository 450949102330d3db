"""The strong audit of invented authors: who goes, and what the page says."""

import pytest

pytest.importorskip("transformers", reason="transformers is not installed")

import unlearnkit as uk
from experiments import authors_strong
from experiments.tofu_small import Library, pairs
from experiments.word_models import small_gpt2
from unlearnkit.report.schema import Estimate


@pytest.fixture(scope="module")
def library():
    return Library(authors_strong.SIZES)


def test_the_request_names_every_row_of_its_authors_and_no_other(library):
    case, request = authors_strong.authors_case(library, small_gpt2(len(library.tokenizer)))
    parts = case.partition(request)
    assert parts.forget.rows.tolist() == list(range(len(library.part("forget"))))
    assert len(parts.retain) == len(library.part("retain"))


def test_test_rows_are_about_authors_that_nobody_learns(library):
    learned = {q.author for part in ("world", "forget", "retain") for q in library.part(part)}
    asked = " ".join(p["prompt"] + p["completion"] for p in pairs(library.part("held_out")))
    assert not any(name in asked for name in learned)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (None, "-"),
        (Estimate(value=None), "-"),
        (Estimate(value=0.5), "0.50"),
        (Estimate(value=7.389, low=6.7, high=8.08), "7.39 [6.70, 8.08]"),
    ],
)
def test_an_estimate_is_shown_with_its_interval_where_there_is_one(estimate, text):
    assert authors_strong.interval(estimate) == text


@pytest.mark.exhaustive
def test_a_short_run_leaves_authors_that_the_audit_finds(tmp_path, library):
    (found,) = authors_strong.audits(library, ("grad_diff",), 4, uk.Cache(tmp_path))
    arms = {a.name: a for a in found.report.strong.arms}
    assert set(arms) == {"memory", "signature", "likeness"}
    assert arms["memory"].shift.low > 0
    assert "| grad_diff | leaks | memory |" in authors_strong.page(library, [found], 4).lower()
