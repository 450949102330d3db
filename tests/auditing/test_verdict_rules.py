"""The rules of the verdicts are listed in code, and their document is made from that list."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from unlearnkit.auditing.strong.results_table import StrongResults
from unlearnkit.auditing.verdict_evaluation import Reason, VerdictRule, evaluate
from unlearnkit.auditing.verdict_rules import MEANING, RULES, TIERS
from unlearnkit.auditing.verdicts_fast import FAST_RULES
from unlearnkit.auditing.verdicts_reference import REFERENCE_RULES
from unlearnkit.auditing.verdicts_strong import STRONG_RULES, strong_findings
from unlearnkit.catalog import metrics
from unlearnkit.describe import verdict_page
from unlearnkit.report.schema import ArmComparison, Estimate, Finding, Verdict

SOURCES = Path(__file__).parents[2] / "src" / "unlearnkit"


def test_every_verdict_is_explained_in_order_of_precedence():
    assert list(MEANING) == list(Verdict)


FILES = sorted((SOURCES / "auditing").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_table_of_rules_alone_makes_findings(path):
    made = "Finding(" in path.read_text("utf-8")
    assert made == (path.stem == "verdict_evaluation")


def test_the_page_lists_the_rules_that_are_evaluated():
    assert (*FAST_RULES, *REFERENCE_RULES, *STRONG_RULES) == RULES


def rule(verdict, *reasons, unless=()):
    def holds(_):
        return [Reason(text, ("m",)) for text in reasons]

    return VerdictRule("fast", verdict, "", holds=holds, unless=unless)


def test_the_headline_is_the_first_rule_that_holds():
    rules = (
        rule(Verdict.LEAKS),
        rule(Verdict.DAMAGED, "a", "b"),
        rule(Verdict.INCONCLUSIVE, "c", unless=(Verdict.LEAKS,)),
        rule(Verdict.MATCHES, "d", unless=(Verdict.DAMAGED,)),
    )
    found = evaluate(rules, None)
    assert [(f.verdict, f.reason) for f in found] == [
        (Verdict.DAMAGED, "a"),
        (Verdict.DAMAGED, "b"),
        (Verdict.INCONCLUSIVE, "c"),
    ]
    assert found[0].rows == ("m",)


def strong_results(**changes):
    """Return a strong audit without rows, in which nothing was found but that it is open."""
    empty = {f.name: () for f in fields(StrongResults)}
    numbers = {"forget_rows": 9, "familiar": 0, "strange": 0, "models": 64, "distinct": 64}
    return StrongResults(
        **empty
        | numbers
        | {"placebo": "", "detectable": 0.3, "originals_indistinguishable": False}
        | changes
    )


def placebo_arm(name):
    """Return a comparison that shows nothing, and leaves it open whether the memory is gone."""
    flat = Estimate(value=0.5, low=0.4, high=0.6)
    empty = dict.fromkeys(ArmComparison.model_fields)
    return ArmComparison.model_construct(
        **empty | {"name": name, "auc": flat, "shift": Estimate(value=0.0), "records": 9}
    )


def test_what_one_model_shows_counts_as_the_page_says():
    def found(verdict, metric, **results):
        own = Finding(verdict=verdict, reason="x", rows=(metric,))
        return [f.verdict for f in strong_findings(strong_results(**results), [own])]

    with_placebo = {"arms": (placebo_arm("memory"), placebo_arm("signature"))}
    open_ = [Verdict.INCONCLUSIVE]
    assert found(Verdict.LEAKS, "margin_auc") == [Verdict.LEAKS, *open_]
    assert found(Verdict.LEAKS, "margin_auc", **with_placebo)[0] is Verdict.DISTINGUISHABLE
    assert found(Verdict.LEAKS, "head_probe", **with_placebo)[0] is Verdict.LEAKS
    assert found(Verdict.DAMAGED, "accuracy_test", **with_placebo)[0] is Verdict.DAMAGED


@pytest.mark.parametrize("tier", ["fast", "reference"])
def test_some_rule_of_a_tier_holds_whatever_was_found(tier):
    last = [r for r in RULES if r.tier == tier][-1]
    rest = {r.verdict for r in RULES if r.tier == tier} - {Verdict.MATCHES}
    assert set(last.unless) >= rest


@pytest.mark.parametrize("tier", TIERS)
def test_the_rules_of_a_tier_are_in_order_of_precedence(tier):
    places = [list(Verdict).index(r.verdict) for r in RULES if r.tier == tier]
    assert places == sorted(places)


def test_rules_rest_on_metrics_that_there_are():
    assert {m for r in RULES for m in r.rests_on} <= set(metrics())


def test_the_document_has_every_rule():
    page = verdict_page()
    assert all(f"| {r.verdict} | {r.rule} |" in page for r in RULES)
    assert page.partition("\n## ")[0].count("\n| ") == 2 + len(Verdict)


def test_no_source_cites_a_document_that_is_not_there():
    cited = re.compile(r"the specification|\(evaluation, section|see DESIGN")
    assert [p.name for p in SOURCES.rglob("*.py") if cited.search(p.read_text("utf-8"))] == []
