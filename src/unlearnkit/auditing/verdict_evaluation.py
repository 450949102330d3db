"""Verdict evaluation: which rules of a tier hold, headline first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from unlearnkit.report.schema import Finding, Verdict

Tier = Literal["fast", "reference", "strong"]
Facts = TypeVar("Facts")

FALSE_ALARMS = 0.01
"""Chance that any test of a fast audit, or any test against placebo models of a reference audit,
accuses a retrained model: all of them together (Bonferroni)."""


@dataclass(frozen=True)
class Reason:
    """Why a rule holds."""

    text: str
    metrics: tuple[str, ...] = ()
    """Ids of the rows of the report that it rests on."""


@dataclass(frozen=True)
class VerdictRule(Generic[Facts]):
    """When a verdict holds in audits of one tier; the first rule that holds is the headline."""

    tier: Tier
    verdict: Verdict
    rule: str
    """One plain sentence."""

    rests_on: tuple[str, ...] = ()
    """Ids of the metrics that it reads."""

    level: str = ""
    """Level of its test, or the margin."""

    source: str = ""
    """Where the test comes from."""

    holds: Callable[[Facts], Iterable[Reason]] = field(kw_only=True)
    """The condition: each reason why the rule holds, none where it does not."""

    unless: tuple[Verdict, ...] = ()
    """Verdicts of earlier rules after which this one does not hold."""


def evaluate(rules: Iterable[VerdictRule[Facts]], facts: Facts) -> tuple[Finding, ...]:
    """Return every verdict that holds, headline first.

    Args:
        rules: Of one tier, in order of precedence.
        facts: What their conditions read.

    Returns:
        One finding a reason, in the order of the rules.
    """
    found: list[Finding] = []
    for r in rules:
        if any(f.verdict in r.unless for f in found):
            continue
        found += [
            Finding(verdict=r.verdict, reason=why.text, rows=why.metrics) for why in r.holds(facts)
        ]
    return tuple(found)
