"""Remarks and limits of a report: sentences after the verdict, within what its tier can see."""

from __future__ import annotations

from collections.abc import Sequence

from unlearnkit.auditing.recipe_marks import recipe_limits
from unlearnkit.auditing.verdict_metrics import MATCHED, attack_of, format_estimate
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.report.recipe_outcome import RecipeCheck
from unlearnkit.report.schema import Finding, MetricRow, Verdict
from unlearnkit.stats.oracle_gap import gap

NOT_PROOF = "This is evidence, not proof of deletion."


def remarks(found: Sequence[Finding], rows: Sequence[MetricRow], oracles: int) -> tuple[str, ...]:
    """Return the sentences that follow the reason of a verdict.

    Args:
        found: The findings, headline first.
        rows: The table.
        oracles: How many there are; 0 for the fast tier.

    Returns:
        The membership attack, what it can detect, what was not tested, and the reservation.
    """
    parts = []
    attack = attack_of(rows)
    if attack is not None and attack.estimate.value is not None and oracles:
        parts.append(attack_sentence(attack))
        least = detectable_gap(attack)
        if least is not None:
            parts.append(f"Minimum detectable difference in attack AUC: {least:.3f}.")
    if found[0].verdict is not Verdict.MATCHES or oracles:
        parts.append("Single records were not tested.")
    return (*parts, NOT_PROOF)


def attack_sentence(attack: MetricRow) -> str:
    """Return what a membership attack found, and what it finds on retrained models."""
    mean = attack.oracle.mean if attack.oracle else None
    retrained = "" if mean is None else f"; retrained models {mean:.3f}"
    alike = ", against rows of similar target" if attack.metric in MATCHED else ""
    return (
        f"Membership attack on the forget set{alike}: AUC {format_estimate(attack)}{retrained};"
        " 0.5 = no leak."
    )


def detectable_gap(row: MetricRow) -> float | None:
    """Return the smallest gap that the oracles' spread lets an audit see with 80 % power.

    The two-sided 95 % prediction half-width, and 0.84 oracle deviations for the power.
    """
    if row.oracle is None or row.oracle.mean is None:
        return None
    g = gap(row.oracle.mean, [v for v in row.oracle.values if v is not None])
    return None if g is None else g.high + 0.84 * g.deviation


def limits(
    tier: AuditTier, oracles: int, recipe: RecipeCheck | None = None, *, outside: bool = False
) -> tuple[str, ...]:
    """Return what an audit of this tier cannot show; ``outside`` is where its oracles come from."""
    common = (
        "An audit can refute that data are gone; it cannot prove it. Each metric sees one aspect of"
        " the difference from retraining.",
        "Single records were not tested: an average can look right while a few records are still"
        " memorised. The strong tier tests them; it needs at least 64 models of each kind.",
        "One original and one unlearned model were audited (design REUSE). Another training seed"
        " may give another result.",
        "The target is the removal of these rows. Similar rows in the retain set, and what they"
        " teach, are not removed.",
    )
    if tier == "fast":
        return (
            "There was no retrained model to compare with. A fast audit can find faults; it cannot"
            " show that the model passes.",
            *common,
        )
    few = () if oracles >= 5 else (f"{oracles} retrained models are too few to show equivalence.",)
    if outside:
        trust = (
            "The retrained models come from outside. If they saw the forget set, or were trained in"
            " another way than the original, the comparison is wrong."
        )
        return (*few, trust, *common)
    return (
        *few,
        "The retrained models follow the recipe of the case: the same epochs, so fewer steps. If"
        " the original was trained in another way, the comparison is wrong.",
        *recipe_limits(recipe),
        *common,
    )


def format_duration(seconds: float) -> str:
    """Return a time in words: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
