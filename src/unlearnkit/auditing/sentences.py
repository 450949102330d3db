"""The sentences of a report. No sentence says more than its tier can see."""

from __future__ import annotations

from collections.abc import Sequence

from unlearnkit.auditing.verdict_metrics import MATCHED, attack_of
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.report.schema import Finding, MetricRow, Verdict
from unlearnkit.stats.oracle_gap import gap

NOT_PROOF = "This is evidence, not proof of deletion."


def sentence(found: Sequence[Finding], rows: Sequence[MetricRow], oracles: int) -> str:
    """Return the verdict in a few sentences.

    Args:
        found: The findings, headline first.
        rows: The table.
        oracles: How many there are; 0 for the fast tier.

    Returns:
        Headline, reason, the attack, and the reservation.
    """
    head = found[0]
    parts = [f"{head.verdict}: {head.reason}."]
    attack = attack_of(rows)
    if attack is not None and attack.estimate.value is not None and oracles:
        parts.append(_against(attack, oracles))
    if head.verdict is not Verdict.MATCHES or oracles:
        parts.append("Single records were not tested.")
    return " ".join([*parts, NOT_PROOF])


def _against(attack: MetricRow, oracles: int) -> str:
    e = attack.estimate
    between = "" if e.low is None or e.high is None else f" [{e.low:.3f}, {e.high:.3f}]"
    mean = attack.oracle.mean if attack.oracle else None
    beside = "" if mean is None else f" (retrained: {mean:.3f})"
    models = f"{oracles} retrained model{'s' if oracles > 1 else ''}"
    alike = " of like target" if attack.metric in MATCHED else ""
    text = (
        f"Against {models}, an attacker who knows the recipe separated this model's forgotten"
        f" records from never-seen ones{alike} with AUC {e.value:.3f}{between}{beside}."
    )
    shift = detectable_gap(attack)
    return (
        text if shift is None else f"{text} The audit could have detected a shift of {shift:.3f}."
    )


def detectable_gap(row: MetricRow) -> float | None:
    """Return the smallest gap that the oracles' spread lets an audit see with 80 % power.

    The two-sided 95 % prediction half-width, and 0.84 oracle deviations for the power.
    """
    if row.oracle is None or row.oracle.mean is None:
        return None
    g = gap(row.oracle.mean, [v for v in row.oracle.values if v is not None])
    return None if g is None else g.high + 0.84 * g.deviation


def limits(tier: AuditTier, oracles: int) -> tuple[str, ...]:
    """Return what an audit of this tier cannot show."""
    common = (
        "An audit can refute that data are gone; it cannot prove it. Every number here is one"
        " shadow of the difference between two distributions of models.",
        "Exposure of single records was not tested: an average can look right while a few records"
        " stay readable. That needs ensembles of at least 64 models.",
        "One original and one unlearned model were looked at (design REUSE): another training seed"
        " may give another result.",
        "The judged target is removal of these rows. Whatever else the rows taught, and rows like"
        " them that stay, is not removed by it.",
    )
    if tier == "fast":
        return (
            "No retrained model was at hand: what is right for these rows is not known, and"
            " nothing here can say that the model passes.",
            *common,
        )
    few = () if oracles >= 5 else (f"{oracles} retrained models are too few to show equivalence.",)
    return (
        *few,
        "The retrained models share the recipe that was given, with its epochs held equal and so"
        " fewer steps. If the original was trained otherwise, they are the wrong models.",
        *common,
    )


def format_duration(seconds: float) -> str:
    """Return a time in words: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
