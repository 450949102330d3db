"""The rules of the verdicts are listed in code, and their document is made from that list."""

import re
from pathlib import Path

import pytest

from unlearnkit.auditing.verdict_rules import MEANING, RULES, TIERS
from unlearnkit.catalog import metrics
from unlearnkit.describe import verdict_page
from unlearnkit.report.schema import Verdict

SOURCES = Path(__file__).parents[2] / "src" / "unlearnkit"
MODULES = {
    "fast": ("verdicts_fast.py",),
    "reference": ("verdicts.py",),
    "strong": ("verdicts_strong.py", "verdicts_memory.py"),
}


def test_every_verdict_is_explained_in_order_of_precedence():
    assert list(MEANING) == list(Verdict)


@pytest.mark.parametrize("tier", TIERS)
def test_every_verdict_that_a_tier_can_give_has_a_rule(tier):
    text = "".join((SOURCES / "auditing" / m).read_text("utf-8") for m in MODULES[tier])
    given = {Verdict[name] for name in re.findall(r"verdict=Verdict\.([A-Z_]+)", text)}
    assert {r.verdict for r in RULES if r.tier == tier} == given


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
