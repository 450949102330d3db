"""The rules of the verdicts are listed in code, and their document is made from that list."""

import re
from pathlib import Path

import pytest

from unlearnkit.auditing.verdict_evaluation import Reason, VerdictRule, evaluate
from unlearnkit.auditing.verdict_rules import MEANING, RULES, TIERS
from unlearnkit.catalog import metrics
from unlearnkit.describe import verdict_page
from unlearnkit.report.schema import Verdict

SOURCES = Path(__file__).parents[2] / "src" / "unlearnkit"


def test_every_verdict_is_explained_in_order_of_precedence():
    assert list(MEANING) == list(Verdict)


@pytest.mark.parametrize("module", ["verdicts.py", "verdicts_fast.py"])
def test_the_table_alone_gives_the_verdicts_of_fast_and_reference_audits(module):
    text = (SOURCES / "auditing" / module).read_text("utf-8")
    assert "Finding(" not in text
    assert all(r.holds is not None for r in RULES if r.tier in {"fast", "reference"})


def test_every_verdict_of_a_strong_audit_has_a_rule():
    files = [SOURCES / "auditing" / f"verdicts_{name}.py" for name in ("strong", "memory")]
    text = "".join(path.read_text("utf-8") for path in files)
    given = {Verdict[name] for name in re.findall(r"verdict=Verdict\.([A-Z_]+)", text)}
    assert {r.verdict for r in RULES if r.tier == "strong"} == given


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
